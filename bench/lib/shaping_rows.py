"""What limits and warm-up cost that bind nothing, and sites that are many."""

import time

import servers
from engine import merge
from proc import TempDir, free_port, wait_until
from rows import LOCALHOST, OwnSink, Row, delivered, drained, engine_on, fill, own_path, own_source

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


def lines(file):
    with file.open("rb") as ledger:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: ledger.read(1 << 20), b""))


def rested(relay):
    """Waits until the engine has found what is stored."""
    def rests():
        cpu = relay.cpu_s()
        time.sleep(1)
        return relay.cpu_s() - cpu < 0.2

    wait_until("the engine to rest", rests, 120)


def watched(relay, sink, watch_s):
    """CPU of a message while watch_s pass, from some seconds behind the first message on, when as many lanes as may
    be are in memory. What came is counted in the sink's ledger: a status of 262,144 lanes is work itself."""
    ledger = sink.temp.path / "ledger"
    wait_until("the first message", lambda: ledger.exists() and lines(ledger) > 0, 60, 0.05)
    time.sleep(5)
    before, cpu, since = lines(ledger), relay.cpu_s(), time.monotonic()
    time.sleep(watch_s)
    count, used, took = lines(ledger) - before, relay.cpu_s() - cpu, time.monotonic() - since
    return {"messages": count, "messages_per_s": round(count / took),
            "cpu_us_per_message": round(used / max(count, 1) * 1e6, 1)}


def site_drain(domains, sites):
    """A queue of one message for each domain is emptied, a session each; domains end in the number of their site, or
    are each a site of their own."""
    temp, dns = TempDir("hayauma-sites-"), f"{LOCALHOST}:{free_port()}"
    fill(temp.path / "queue", "--recipients", domains, "--domains", domains, "--size", 1000)
    world = "classes:\n" + "".join(f"- {{name: s{i}, domains: ['d*{i:02}.example'], exchanger: hub{i}.example}}\n"
                                   for i in range(sites)) if sites < domains else None
    sink = OwnSink(behaviour=world, ledger=True, more=["--dns", dns])
    relay = engine_on(temp.path, sink.address, {"destinations": {"*": {"session_messages_max": 1}},
                                                "dns": {"servers": [dns], "port": sink.port}})
    del relay.engine.config["routes"]
    relay.start()
    try:
        return {"work": "drain", "sites": sites, **watched(relay, sink, 10)}
    finally:
        relay.stop()
        sink.stop()
        temp.close()


def site_wait(waiting):
    """Mail for 100 sites is relayed while so many others have some that waits."""
    temp, dns = TempDir("hayauma-sites-"), f"{LOCALHOST}:{free_port()}"
    fill(temp.path / "queue", "--recipients", waiting, "--domains", waiting, "--size", 4096, "--shared",
         "--due-ms", int((time.time() + 3600) * 1000))
    sink = OwnSink(more=["--dns", dns])
    relay = engine_on(temp.path, sink.address, {"dns": {"servers": [dns], "port": sink.port}})
    del relay.engine.config["routes"]
    relay.start()
    try:
        rested(relay)
        before, cpu = delivered(relay.engine), relay.cpu_s()
        own_source(relay.address(), duration_s=10, more=["--rcpt-domains", 100])
        count, used = delivered(relay.engine) - before, relay.cpu_s() - cpu
        return {"work": "relay", "sites": waiting, "messages": count, "messages_per_s": round(count / 10),
                "cpu_us_per_message": round(used / max(count, 1) * 1e6, 1)}
    finally:
        relay.stop()
        sink.stop()
        temp.close()


def sites1m(scale):
    many = int(1_000_000 * scale)
    row = Row("a million sites: their mail goes out, a session for each message; and others' mail, while theirs waits", [])
    for what, one in (("drain", lambda sites: site_drain(many, sites)), ("relay", site_wait)):
        few, all_of_them = one(100), one(many)
        row.results += [few, all_of_them]
        row.want(f"{what}: CPU of a message, against 100 sites",
                 all_of_them["cpu_us_per_message"] / few["cpu_us_per_message"], "<=", 1.5)
    return row


ROWS = {"shaping": shaping, "warmup": warmup, "sites1m": sites1m}
