"""The row of shaping: what limits cost that bind nothing."""

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


def relayed(count, settings):
    took, _ = own_path(4096, count, relay_of=lambda target: servers.HayaumaRelay(target, settings), domains=LANES)
    return {"work": "main", **{key: took[key] for key in ("messages", "messages_per_s", "cpu_us_per_message")}}


def emptied(count, settings):
    temp = TempDir("hayauma-shaping-")
    fill(temp.path / "queue", "--recipients", count, "--domains", LANES, "--size", 4096)
    sink = OwnSink(count)
    took, _, _ = drained(temp, sink, count, settings)
    return {"work": "drain", **{key: took[key] for key in ("messages", "messages_per_s", "cpu_us_per_message")}}


def shaping(scale):
    """Plain and shaped by turns, three times each: the machine's own speed changes meanwhile."""
    row = Row("100,000 lanes, without a limit, and with eight sources and fourteen limits that bind nothing", [],
              settings=SHAPED)
    for work, count in ((relayed, int(150_000 * scale)), (emptied, int(300_000 * scale))):
        cost = {"plain": [], "shaped": []}
        for _ in range(3):
            for server, settings in (("plain", PATH), ("shaped", SHAPED)):
                took = {"server": server, **work(count, settings)}
                cost[server].append(took["cpu_us_per_message"])
                row.results.append(took)
        plain, shaped = (sorted(cost[server])[1] for server in ("plain", "shaped"))
        row.want(f"{took['work']}: CPU of a message, shaped against plain", shaped / plain, "<=", 1.05)
    return row


ROWS = {"shaping": shaping}
