"""What limits and warm-up cost that bind nothing."""

import servers
from engine import merge
from proc import TempDir
from rows import OwnSink, Row, drained, fill, own_path

LANES = 100_000
PATH = {"destinations": {"*": {"sessions_max": 100, "session_messages_max": "none"}}}
RATE, BYTES = "500000/s", "100GiB/s"
SHAPED = merge(PATH, {
    "sources": {f"s{i}": {"ipv4": f"127.0.1.{i}", "rate": RATE} for i in range(8)},
    "pools": {"all": {"sources": {f"s{i}": {"weight": 1 + i % 2} for i in range(8)}}}, "default_pool": "all",
    "destinations": {"*": {key: RATE for key in (
        "rate", "total_rate", "host_rate", "recipient_rate", "total_recipient_rate", "host_recipient_rate")} | {
            key: BYTES for key in ("byte_rate", "total_byte_rate", "host_byte_rate")} | {"connect_rate": "5000/s"}},
    "tenants": {"*": {"sites": {"*": {"rate": RATE, "byte_rate": BYTES, "sessions_max": 800}}}}})


EIGHT = merge(PATH, {key: SHAPED[key] for key in ("pools", "default_pool")} | {
    "sources": {name: {"ipv4": source["ipv4"]} for name, source in SHAPED["sources"].items()}})
WARMED = merge(EIGHT, {"warmup": {
    "schedules": {"large": {"steps": ["900M", "1000M"]}}, "sources": {name: {"schedule": "large"} for name in SHAPED["sources"]}}})


def relayed(count, settings):
    took, _ = own_path(4096, count, relay_of=lambda target: servers.HayaumaRelay(target, settings), domains=LANES)
    return {"work": "main", **{key: took[key] for key in ("messages", "messages_per_s", "cpu_us_per_message")}}


def emptied(count, settings):
    temp = TempDir("hayauma-shaping-")
    fill(temp.path / "queue", "--recipients", count, "--domains", LANES, "--size", 4096)
    sink = OwnSink(count)
    took, _, _ = drained(temp, sink, count, settings)
    return {"work": "drain", **{key: took[key] for key in ("messages", "messages_per_s", "cpu_us_per_message")}}


def by_turns(row, work, count, servers_of, times, most):
    """Each several times, by turns: the machine's own speed changes meanwhile."""
    cost = {name: [] for name in servers_of}
    for _ in range(times):
        for name, settings in servers_of.items():
            took = {"server": name, **work(count, settings)}
            cost[name].append(took["cpu_us_per_message"])
            row.results.append(took)
    plain, with_it = (sorted(figures)[times // 2] for figures in cost.values())
    row.want(f"{took['work']}: CPU of a message, {' against '.join(reversed(cost))}", with_it / plain, "<=", most)


def shaping(scale):
    row = Row("100,000 lanes, without a limit, and with eight sources and fourteen limits that bind nothing", [],
              settings=SHAPED)
    for work, count in ((relayed, int(150_000 * scale)), (emptied, int(300_000 * scale))):
        by_turns(row, work, count, {"plain": PATH, "shaped": SHAPED}, 3, 1.05)
    return row


def warmup(scale):
    row = Row("eight sources, and the same while they are warmed up, by caps that bind nothing", [], settings=WARMED)
    by_turns(row, relayed, int(150_000 * scale), {"plain": EIGHT, "warmed": WARMED}, 5, 1.02)
    return row


ROWS = {"shaping": shaping, "warmup": warmup}
