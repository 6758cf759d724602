"""The rows of "what it must reach": each a function that measures one, both sides of its ratios in
the same run, and returns a Row."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import time

import ends
import machine
import servers
from authority import Authority, careless
from engine import Engine, program
from proc import (Failure, Process, TempDir, cpu_seconds, free_port, resident_bytes, wait_port,
                  wait_until)

LOCALHOST = "127.0.0.1"


@dataclasses.dataclass
class Row:
    title: str
    results: list  # of dicts, one per thing measured
    checks: list = dataclasses.field(default_factory=list)  # (what, reached, wanted, ok)
    settings: dict = dataclasses.field(default_factory=dict)

    def want(self, what, reached, relation, bound):
        ok = reached >= bound if relation == ">=" else reached <= bound
        self.checks.append((what, round(reached, 3), f"{relation} {bound:g}", ok))


def bench_program(name):
    path = program().parent / name
    if not path.exists():
        raise Failure(f"{path} is not built")
    return path


def run_json(argv, timeout_s=300):
    """Runs a program that prints one JSON object as its last line; SystemExit of the bench if it fails."""
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=timeout_s,
                          check=False)
    if done.returncode != 0 or not done.stdout.strip():
        raise Failure(f"{' '.join(map(str, argv))}: {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().split("\n")[-1])


class OwnSink:
    """`hayauma sink`; with count it ends by itself after so many messages."""

    def __init__(self, count=None, behaviour=None, workers=1, ledger=False, more=(), host=LOCALHOST,
                 port=None):
        self.temp = TempDir("hayauma-sink-")
        self.port = port or free_port()
        self.address = f"{host}:{self.port}"
        argv = [program(), "sink", "--listen", self.address, "--json", "--workers", workers, *more]
        if count:
            argv += ["--count", count]
        if behaviour:
            file = self.temp.path / "behaviour.yaml"
            file.write_text(behaviour)
            argv += ["--behaviour", file]
        if ledger:
            argv += ["--ledger", self.temp.path / "ledger"]
        self.process = Process(argv, self.temp.path / "log")
        # A connection that sends nothing is no message.
        wait_port((host, self.port), self.process)

    def summary(self, timeout_s=60):
        """Waits for its end."""
        self.process.wait(timeout_s)
        return json.loads(self.process.log.read_text().strip().split("\n")[-1])

    def ledger(self):
        file = self.temp.path / "ledger"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        return [line.split("\t") for line in lines]

    def end(self):
        """Ends it; its summary."""
        self.process.stop()
        return self.summary()

    def stop(self):
        if self.process.running():
            self.process.stop()
        self.temp.close()


def own_source(address, messages=None, duration_s=None, size=4096, sessions=64, more=()):
    argv = [program(), "source", "--to", "%s:%d" % address, "--sessions", sessions, "--size", size,
            "--json", *more]
    if messages:
        argv += ["--messages", messages]
    if duration_s:
        argv += ["--duration", f"{duration_s}s"]
    return run_json(argv)


def delivered(engine):
    return engine.status()["counters"]["delivered"]


def busy_ticks():
    """Ticks that all cores worked since the start of the machine, and all ticks."""
    ticks = [int(n) for n in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def bound_by(cores, peer, disk):
    """What a run could not go beyond, by shares of its time: of all cores, of the busier peer's
    thread, of the shards' committers in their commits."""
    if cores >= 0.85:
        return "CPU"
    if peer >= 0.85:
        return "peer"
    return "disk" if disk >= 0.7 else "messages in flight"


def own_path(size, messages, sessions=64, pipeline=8, relay_of=servers.HayaumaRelay, domains=100):
    """Own source, relay (None: none between), own sink: messages a second until the last is at the
    sink, CPU, and what bounded it."""
    sink = OwnSink(messages)
    relay = relay_of(sink.address).start() if relay_of else None
    address = relay.address() if relay else (LOCALHOST, sink.port)
    try:
        before, cpu, start = busy_ticks(), relay.cpu_s() if relay else 0, time.monotonic()
        source = own_source(address, messages, size=size, sessions=sessions,
                            more=["--rcpt-domains", domains, "--pipeline", pipeline])
        summary = sink.summary(300)
        seconds, after = time.monotonic() - start, busy_ticks()
        cores = (after[0] - before[0]) / max(after[1] - before[1], 1)
        rate = messages / seconds
        peer = max(source["cpu_us_per_message"], summary["cpu_us_per_message"]) * rate / 1e6
        result = {
            "server": "hayauma" if relay else "none", "messages": messages, "message_bytes": size,
            "sessions": sessions, "in_flight": pipeline, "messages_per_s": round(rate),
            "cores_busy": round(cores, 2), "source_cpu_us": source["cpu_us_per_message"],
            "sink_cpu_us": summary["cpu_us_per_message"], "latency_of_250_us": source["latency_us"]}
        disk = 0
        if relay:
            status = relay.engine.status()
            shards = relay.engine.config["queue"].get("shards") or os.cpu_count()
            disk = status["queue"]["commit_ns_total"] / 1e9 / seconds / shards
            result |= {
                "cpu_us_per_message": round((relay.cpu_s() - cpu) / messages * 1e6, 1),
                "messages_per_commit": round(messages / max(status["queue"]["commits"], 1)),
                "committing": round(disk, 2),
                "resident_mib": round(resident_bytes(relay.engine.process.pid) / 2**20, 1)}
        result["bound_by"] = bound_by(cores, peer, disk)
        return result, relay.settings() if relay else {}
    finally:
        if relay:
            relay.stop()
        sink.stop()


def beside_direct(title, size, messages, share, **how):
    """A row of the engine between own source and own sink, against the two directly."""
    direct, _ = own_path(size, messages, relay_of=None, **how)
    result, settings = own_path(size, messages, **how)
    row = Row(title, [direct, result], settings=settings)
    row.want("share of source and sink directly", result["messages_per_s"] / direct["messages_per_s"],
             ">=", share)
    return row


def main(scale):
    row = beside_direct("SMTP in, durable queue, SMTP out: 4 KiB, one recipient, own source and sink",
                        4096, int(200_000 * scale), 0.3)
    ours = row.results[-1]
    row.want("messages/s", ours["messages_per_s"], ">=", 20000)
    row.want("engine CPU us per message", ours["cpu_us_per_message"], "<=", 50)
    row.want("share of the cores busy", ours["cores_busy"], ">=", 0.9)
    return row


def sessions400(scale):
    return beside_direct("the same from 400 sessions that wait for each 250", 4096,
                         int(100_000 * scale), 0.2, sessions=400, pipeline=1)


def one_session(scale):
    one, _ = own_path(4096, int(5_000 * scale), sessions=1, pipeline=1)
    eight, settings = own_path(4096, int(20_000 * scale), sessions=1, pipeline=8)
    row = Row("one session, with 1 and with 8 messages in flight", [one, eight], settings=settings)
    row.want("8 in flight against 1", eight["messages_per_s"] / one["messages_per_s"], ">=", 4)
    return row


class SlowSyncRelay(servers.HayaumaRelay):
    """Each of its fdatasync() takes 2 ms longer."""

    def start(self):
        library = self.engine.dir / "slow_sync.so"
        subprocess.run(["cc", "-D_GNU_SOURCE", "-O2", "-shared", "-fPIC", "-o", library,
                        pathlib.Path(__file__).parent.parent / "slow_sync.c"], check=True)
        os.environ["LD_PRELOAD"] = str(library)
        try:
            return super().start()
        finally:
            del os.environ["LD_PRELOAD"]


def slow_sync(scale):
    count = int(100_000 * scale)
    fast, _ = own_path(4096, count)
    slow, settings = own_path(4096, count, relay_of=SlowSyncRelay)
    row = Row("the main row on the disk as it is, and with 2 ms more a sync",
              [fast, slow | {"server": "sync + 2 ms"}], settings=settings)
    row.want("share that is left", slow["messages_per_s"] / fast["messages_per_s"], ">=", 0.9)
    return row


def send(scale):
    """`hayauma send` with its defaults against `hayauma source` of that size."""
    count = int(20_000 * scale)
    temp = TempDir("hayauma-send-")
    people = temp.path / "people"
    people.write_text("".join(f"u{i}@d{i % 200}.example\n" for i in range(count)))
    newsletter = pathlib.Path(__file__).parents[2] / "docs/examples/newsletter/newsletter.eml"
    results = []
    for who in ("send", "source"):
        sink = OwnSink(count)
        relay = servers.HayaumaRelay(sink.address).start()
        try:
            if who == "send":
                done = run_json([program(), "send", "--eml", newsletter, "--to-file", people, "--from",
                                 "news@sender.example", "--server", "%s:%d" % relay.address(), "--json"])
                rate = done["per_second"]
            else:
                rate = own_source(relay.address(), count, size=results[0]["message_bytes"],
                                  more=["--rcpt-domains", 200])["messages_per_second"]
            results.append({"server": who, "messages": count, "messages_per_s": round(rate),
                            "message_bytes": sink.summary()["bytes"] // count})
        finally:
            relay.stop()
            sink.stop()
    temp.close()
    row = Row("`hayauma send` with its defaults, beside `hayauma source`", results)
    row.want("share of source", results[0]["messages_per_s"] / results[1]["messages_per_s"], ">=", 0.7)
    return row


def main_50k(scale):
    row = beside_direct("the same with 50 KiB", 50 * 1024, int(50_000 * scale), 0.2)
    row.want("messages/s", row.results[-1]["messages_per_s"], ">=", 5000)
    return row


def best_of(relay_of, count, sessions):
    """The better of two numbers of sessions: each server has its own best one."""
    return max((ends.through(relay_of, count, 4096, n) for n in sessions),
               key=lambda result: result["messages_per_s"])


def postfix_ends(scale):
    results = [best_of(relay_of, int(count * scale), sessions) for relay_of, count, sessions in (
        (None, 150_000, (20, 200)), (servers.HayaumaRelay, 100_000, (200, 400)),
        (servers.PostfixRelay, 6_000, (20, 100)), (servers.OpenSmtpdRelay, 6_000, (10, 20)))]
    row = Row("the same between Postfix's smtp-source and smtp-sink", results,
              settings={r["server"]: r.pop("settings") for r in results})
    bare, ours, postfix, opensmtpd = results
    rate, cpu = ours["messages_per_s"], ours["cpu_us_per_message"]
    row.want("share of no server between", rate / bare["messages_per_s"], ">=", 0.65)
    row.want("times Postfix", rate / postfix["messages_per_s"], ">=", 15)
    row.want("times OpenSMTPD", rate / opensmtpd["messages_per_s"], ">=", 18)
    row.want("times less CPU than Postfix", postfix["cpu_us_per_message"] / cpu, ">=", 40)
    row.want("times less CPU than OpenSMTPD", opensmtpd["cpu_us_per_message"] / cpu, ">=", 18)
    return row


def fill(directory, *arguments):
    """Fills a queue; two shards, as a 2-core machine would make."""
    return run_json([bench_program("queue_fill"), "--path", directory, "--shards", 2, *arguments])


def engine_on(directory, target, settings=None):
    return servers.HayaumaRelay(target, {
        "queue": {"path": str(directory / "queue"), "map_size": "32GiB"},
        "records": {"path": str(directory / "records")}, **(settings or {})}, directory=directory)


def drained(temp, sink, count, settings):
    """An engine starts on the queue that was filled in temp and is watched until the sink has all of it:
    what that took, the engine's counters and its configuration."""
    relay = engine_on(temp.path, sink.address, settings)
    start = time.monotonic()
    relay.start()
    try:
        summary = sink.summary(180)
        seconds, cpu = time.monotonic() - start, relay.cpu_s()
        counters = relay.engine.status()["counters"]
    finally:
        relay.stop()
        sink.stop()
        temp.close()
    return {"messages": count, "messages_per_s": round(count / seconds),
            "cpu_us_per_message": round(cpu / count * 1e6, 1),
            "sink_cpu_us": summary["cpu_us_per_message"]}, counters, relay.settings()


def drain(scale):
    count, domains, sessions = int(500_000 * scale), 1000, 64
    sink = OwnSink()
    host, port = sink.address.split(":")
    # bdat is what the engine sends to this sink; data, a round trip a message, is there to compare.
    raw, raw_data = [{"server": "raw_client", **run_json([
        bench_program("raw_client"), "--messages", count, "--bytes", 4096, "--connections", sessions,
        "--threads", 1, "--domains", domains, "--mode", mode, host, port])} for mode in ("bdat", "data")]
    sink.stop()
    temp = TempDir("hayauma-drain-")
    filled = fill(temp.path / "queue", "--recipients", count, "--domains", domains, "--size", 4096)
    sink = OwnSink(count)
    took, _, settings = drained(temp, sink, count, {"destinations": {"*": {
        "sessions_max": sessions, "session_messages_max": "none"}}})
    ours = {"server": "hayauma", "domains": domains, "sessions": sessions, **took, "fill": filled}
    row = Row("draining a queue of 4 KiB messages in 1,000 domains, from the start of the process",
              [raw, raw_data, ours], settings=settings)
    row.want("share of the bare client that sends the same", ours["messages_per_s"] / raw["messages_per_s"], ">=", 0.5)
    return row


def rsa_signatures_per_core():
    """What `openssl speed` makes of 2048-bit RSA signatures, a second of one core, all cores at work."""
    cores = os.cpu_count()
    done = subprocess.run(["openssl", "speed", "-mr", "-seconds", "5", "-multi", str(cores), "rsa2048"],
                          capture_output=True, text=True, check=True)
    line = [l for l in done.stdout.split("\n") if l.startswith("+F2:")][-1].split(":")
    return float(line[3]) / cores


def drain_signed(count, kinds, shared=False):
    """Drains a queue of 4 KiB messages that keys of these kinds sign: messages a second, and the
    engine's CPU in microseconds a message."""
    temp, sink = TempDir("hayauma-dkim-"), OwnSink(count)
    fill(temp.path / "queue", "--recipients", count, "--domains", 100, "--size", 4096,
         *(["--shared"] if shared else []))
    subprocess.run([program(), "dkim", "keygen", "bench.example", "--selector", "s", "--directory",
                    temp.path / "keys"], check=True, capture_output=True)
    keys = [{"domain": "bench.example", "selector": f"s-{kind}",
             "file": str(temp.path / f"keys/bench.example.s-{kind}.pem")} for kind in kinds]
    took, counters, _ = drained(temp, sink, count, {
        "destinations": {"*": {"sessions_max": 64, "session_messages_max": "none", "recipients_max": 1}},
        "dkim": {"keys": keys, **({"default": "bench.example"} if keys else {})}})
    return {"server": "+".join(kinds) or "unsigned", "content": "shared" if shared else "own", **took,
            "signed": counters["signed_messages"]}


class SigningRelay(servers.HayaumaRelay):
    """Each message is signed by Ed25519."""

    def __init__(self, target):
        self.temp = TempDir("hayauma-dkim-")
        subprocess.run([program(), "dkim", "keygen", "bench.example", "--selector", "s", "--directory",
                        self.temp.path / "keys"], check=True, capture_output=True)
        super().__init__(target, {"dkim": {"default": "bench.example", "keys": [
            {"domain": "bench.example", "selector": "s-ed25519",
             "file": str(self.temp.path / "keys/bench.example.s-ed25519.pem")}]}})


def dkim(scale):
    few, many = int(20_000 * scale), int(100_000 * scale)
    speed = rsa_signatures_per_core()
    own = {kind: drain_signed(few if kind == "rsa" else many, [kind] if kind else [])
           for kind in ("", "rsa", "ed25519")}
    # Less than a second of these says nothing.
    shared = [drain_signed(5 * many, kinds, True) for kinds in ([], ["rsa"])]
    through = [own_path(4096, many, relay_of=relay)[0] | {"server": name}
               for relay, name in ((servers.HayaumaRelay, "unsigned"), (SigningRelay, "ed25519"))]
    row = Row("signatures (DKIM) of 4 KiB messages, one a message and one for all",
              [{"server": "openssl speed", "rsa2048_per_core_and_s": round(speed)}, *own.values(), *shared,
               *through])
    cost_us = own["rsa"]["cpu_us_per_message"] - own[""]["cpu_us_per_message"]
    row.want("RSA, share of openssl speed, the delivery's CPU subtracted", 1e6 / speed / cost_us, ">=", 0.85)
    row.want("Ed25519, the main row signed against unsigned",
             through[1]["messages_per_s"] / through[0]["messages_per_s"], ">=", 0.5)
    row.want("one content for all, signed against unsigned",
             shared[1]["messages_per_s"] / shared[0]["messages_per_s"], ">=", 0.95)
    return row


def drain_over(authority, tls, count, messages_max="none", **where):
    """Draining count messages of 4 KiB under that policy of TLS, to a sink that offers STARTTLS."""
    chain, key = authority.certificate("sink.example")
    more = where.pop("more", ())
    temp = TempDir("hayauma-tls-")
    fill(temp.path / "queue", "--recipients", count, "--domains", 100, "--size", 4096)
    sink = OwnSink(count, more=("--tls-certificate", chain, "--tls-key", key, *more), **where)
    took, counters, _ = drained(temp, sink, count, {"destinations": {"*": {
        "tls": tls, "sessions_max": 16, "session_messages_max": messages_max}}})
    return {"server": f"tls: {tls}", **took, "sessions": counters["tls_out"],
            "resumed": counters["tls_out_resumed"]}


def tls_out(scale):
    """Sessions that are kept."""
    temp = TempDir("hayauma-authority-")
    authority = Authority(temp.path)
    count = int(200_000 * scale)
    plain = drain_over(authority, "none", count)
    encrypted = drain_over(authority, "encrypt", count)
    row = Row("STARTTLS out, sessions kept: draining 4 KiB messages, against the same in plaintext",
              [plain, encrypted])
    row.want("share of plaintext", encrypted["messages_per_s"] / plain["messages_per_s"], ">=", 0.65)
    return row


def thread_seconds(pid):
    """CPU of each thread of a process by its name; of threads with one name the sum."""
    seconds = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        name, rest = (task / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
        ticks = rest.split()
        seconds[name] = seconds.get(name, 0) + (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def unevenness(threads):
    """How far the busiest thread of a kind ("q-load-0", "q-load-1") is above the least busy one; of
    kinds that take a tenth of the busiest thread's time at least."""
    kinds = {}
    for name, seconds in threads.items():
        kinds.setdefault(name.rstrip("0123456789"), []).append(seconds)
    return max(max(kind) / max(min(kind), 0.01) for kind in kinds.values()
               if max(kind) >= max(threads.values()) / 10)


def drain_one_domain(count, workers):
    """Mail for one domain comes in while its receiver is away; how a new process delivers it."""
    temp = TempDir("hayauma-hot-")
    away = f"{LOCALHOST}:{free_port()}"
    settings = {"workers": workers, "queue": {"shards": workers},
                "destinations": {"*": {"retry": ["1s"]}}}
    relay = engine_on(temp.path, away, settings).start()
    own_source(relay.address(), count)
    rows = relay.engine.status()["queue"]["rows_by_shard"]
    relay.stop()
    sink = OwnSink()
    relay = engine_on(temp.path, sink.address, settings)
    start = time.monotonic()
    relay.start()
    try:
        wait_until("the last delivery", lambda: delivered(relay.engine) >= count, 60, 0.1)
        seconds = time.monotonic() - start
        threads = thread_seconds(relay.engine.process.pid)
        busiest = max(threads, key=threads.get)
        return {"server": f"{workers} workers", "messages": count, "rows_by_shard": rows,
                "messages_per_s": round(count / seconds), "bounding_thread": busiest,
                "messages_per_cpu_s_of_it": round(count / threads[busiest]),
                "cpu_s": {k: v for k, v in sorted(threads.items()) if v >= 0.1},
                "unevenness": round(unevenness(threads), 2)}
    finally:
        relay.stop()
        sink.stop()
        temp.close()


def hot(scale):
    count = int(300_000 * scale)
    one, two = drain_one_domain(count, 1), drain_one_domain(count, 2)
    row = Row("one domain: draining its 4 KiB messages by one worker and by two", [one, two])
    row.want("times the capacity of one worker, by the CPU of the busiest thread",
             two["messages_per_cpu_s_of_it"] / one["messages_per_cpu_s_of_it"], ">=", 1.7)
    row.want("busiest thread of a kind against the least busy", two["unevenness"], "<=", 1.3)
    return row


class DelayedPath:
    """bench/delay_relay: 25 ms each way to port."""

    def __init__(self, port):
        self.temp = TempDir("hayauma-delay-")
        self.port = free_port()
        self.address = f"{LOCALHOST}:{self.port}"
        self.process = Process([bench_program("delay_relay"), self.port, port, 25],
                               self.temp.path / "log")
        wait_port((LOCALHOST, self.port), self.process)

    def stop(self):
        self.process.kill()
        self.temp.close()


def over_delay(relay_of, count, connections):
    """Rate per connection over the middle of a run: beginning and end open and close sessions."""
    sink = ends.PostfixSink()
    path = DelayedPath(sink.port)
    relay = relay_of(path.address).start()
    try:
        source = subprocess.Popen(ends.postfix_source_argv("%s:%d" % relay.address(), count, 4096, 20),
                                  env={**os.environ, **ends.POSTFIX_ENV})
        marks = [wait_until("messages", lambda part=part: sink.bytes_read() > count * 4300 * part and
                            (time.monotonic(), sink.bytes_read()), 120, 0.005) for part in (0.2, 0.8)]
        sink.wait(count * 4096, 120)
        source.wait()
        span = marks[1][0] - marks[0][0]
        rate = (marks[1][1] - marks[0][1]) / (sink.bytes_read() / count) / span
        return {"server": relay.name, "messages": count, "connections": connections,
                "messages_per_s": round(rate, 1),
                "messages_per_s_per_connection": round(rate / connections, 2)}
    finally:
        relay.stop()
        path.stop()
        sink.stop()


def rtt50(scale):
    connections = 10
    ours = over_delay(lambda target: servers.HayaumaRelay(target, {"destinations": {"*": {
        "sessions_max": connections, "session_messages_max": "none"}}}), int(3000 * scale), connections)
    postfix = over_delay(lambda target: servers.PostfixRelay(target, {
        "default_destination_concurrency_limit": connections,
        "initial_destination_concurrency": connections}), int(1000 * scale), connections)
    row = Row("10 sessions over a path of 50 ms round trip to smtp-sink (PIPELINING, no CHUNKING)",
              [ours, postfix])
    each = "messages_per_s_per_connection"
    row.want("messages/s per connection", ours[each], ">=", 18)
    row.want("times Postfix", ours[each] / postfix[each], ">=", 2.5)
    return row


SLOW = "default:\n  latency: {rcpt: 10s, dot: 10s}\n"


def sessions_18k(scale):
    count = int(18_000 * scale)
    temp = TempDir("hayauma-18k-")
    fill(temp.path / "queue", "--recipients", count * 2, "--domains", 200, "--size", 4096)
    sink = OwnSink(behaviour=SLOW)
    relay = engine_on(temp.path, sink.address, {"destinations": {"*": {
        "sessions_max": count, "session_messages_max": "none", "pipeline_max": 1}}})
    relay.start()
    try:
        engine = relay.engine
        idle = resident_bytes(engine.process.pid)
        peak = [0, 0]

        def all_open():
            now = engine.status()["gauges"]["sessions_out"]
            peak[0] = max(peak[0], now)
            peak[1] = max(peak[1], resident_bytes(engine.process.pid))
            return now >= count

        start = time.monotonic()
        wait_until(f"{count} sessions", all_open, 60, 0.25)
        opened_s = time.monotonic() - start
        before = delivered(engine)
        # A round is 20 s at the receiver: afterwards every session has delivered once.
        wait_until("one message by each session", lambda: all_open() is None or
                   delivered(engine) - before >= count, 60, 0.5)
        resident = max(peak[1], resident_bytes(engine.process.pid))
        result = {"server": "hayauma", "sessions": count, "opened_in_s": round(opened_s, 1),
                  "resident_mib": round(resident / 2**20, 1),
                  "resident_kib_per_session": round(resident / count / 1024, 2),
                  "beyond_start_kib_per_session": round((resident - idle) / count / 1024, 2),
                  "delivered": delivered(engine)}
    finally:
        sink.stop()  # first: nothing is past its dot then for long
        relay.engine.process.send(signal.SIGKILL)
        relay.engine.process.child.wait()
        temp.close()
    row = Row("concurrent outbound sessions to receivers that take 20 s a message", [result],
              settings=relay.settings())
    row.want("KiB of all resident memory per session", result["resident_kib_per_session"], "<=", 16)
    return row


def with_backlog(count, due_ms, directory):
    """Throughput while count recipients wait in the queue for later."""
    fill(directory / "queue", "--recipients", count, "--domains", 1000, "--size", 4096, "--shared",
         "--due-ms", due_ms)
    sink = OwnSink()
    relay = engine_on(directory, sink.address).start()
    try:
        start, before = time.monotonic(), delivered(relay.engine)
        own_source(relay.address(), duration_s=10, more=["--rcpt-domains", 100])
        rate = (delivered(relay.engine) - before) / (time.monotonic() - start)
        return {"server": "hayauma", "backlog": count, "messages_per_s": round(rate),
                "resident_mib": round(resident_bytes(relay.engine.process.pid) / 2**20, 1)}
    finally:
        relay.stop()
        sink.stop()


def mapped_bytes(pid):
    """The part of resident memory that is files of the store, which the kernel may take back at any time."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssFile:"):
            return int(line.split()[1]) * 1024
    return 0


class Peak:
    """The most that a process had resident, and how much of that was mapped then."""

    def __init__(self, pid):
        self.pid, self.resident, self.mapped = pid, 0, 0

    def look(self):
        resident = resident_bytes(self.pid)
        if resident > self.resident:
            self.resident, self.mapped = resident, mapped_bytes(self.pid)

    def figures(self):
        return {"resident_peak_mib": round(self.resident / 2**20, 1), "mapped_of_it_mib": round(self.mapped / 2**20, 1)}


def longest_turns(status):
    """By the clock a turn is long also when its thread waits for a core that sink, source or committer has."""
    return {f"{name}_ms": max(turn[key]["us"] for turn in status["turns"]) / 1000
            for name, key in (("longest_turn", "longest"), ("longest_turn_cpu", "cpu_longest"))}


def first_delivery(count, directory, domains=1000, watch_s=10):
    """A due backlog of count and a start: when the first message is at the sink, and memory while
    it drains."""
    fill(directory / "queue", "--recipients", count, "--domains", domains, "--size", 4096, "--shared")
    sink = OwnSink()
    relay = engine_on(directory, sink.address)
    start = time.monotonic()
    relay.start()
    try:
        engine = relay.engine
        wait_until("the first delivery", lambda: delivered(engine) > 0, 60, 0.02)
        first_s = time.monotonic() - start
        before, since, peak = delivered(engine), time.monotonic(), Peak(engine.process.pid)
        while time.monotonic() - since < watch_s:
            peak.look()
            time.sleep(0.2)
        rate = (delivered(engine) - before) / (time.monotonic() - since)
        return {"server": "hayauma", "due": count, "domains": domains, "first_delivery_s": round(first_s, 2),
                "drain_messages_per_s": round(rate), **peak.figures(),
                **longest_turns(engine.status()), "lanes_in_memory": engine.status()["gauges"]["lanes"]}
    finally:
        relay.stop()
        sink.stop()


def backlog_10m(scale):
    large, later = int(10_000_000 * scale), int((time.time() + 3600) * 1000)
    results = []
    for count in (10_000, large):
        temp = TempDir("hayauma-backlog-")
        results.append(with_backlog(count, later, temp.path))
        temp.close()
    temp = TempDir("hayauma-backlog-")
    results.append(first_delivery(large, temp.path))
    temp.close()
    row = Row("10 million queued recipients of shared content, 1,000 domains", results)
    row.want("resident MiB", max(results[1]["resident_mib"], results[2]["resident_peak_mib"]), "<=", 600)
    row.want("first delivery s after a restart", results[2]["first_delivery_s"], "<=", 3)
    row.want("throughput against that with 10 thousand",
             results[1]["messages_per_s"] / results[0]["messages_per_s"], ">=", 0.8)
    return row


def lanes_waiting(count, directory):
    """count lanes of one row for later: memory while all are found, and turns with a reload."""
    fill(directory / "queue", "--recipients", count, "--domains", count, "--size", 4096, "--shared",
         "--due-ms", int((time.time() + 3600) * 1000))
    sink = OwnSink()
    relay = engine_on(directory, sink.address)
    relay.start()
    try:
        engine, since, peak = relay.engine, time.monotonic(), Peak(relay.engine.process.pid)
        while time.monotonic() - since < 30:
            peak.look()
            time.sleep(0.2)
            if 10 < time.monotonic() - since < 10.3:
                engine.reload()
        return {"server": "hayauma", "lanes": count, **peak.figures(),
                **longest_turns(engine.status()), "lanes_in_memory": engine.status()["gauges"]["lanes"]}
    finally:
        relay.stop()
        sink.stop()


def lanes_10m(scale):
    large, drain, results = int(10_000_000 * scale), int(1_000_000 * scale), []
    for one in (lambda path: lanes_waiting(large, path), lambda path: first_delivery(large, path, large),
                lambda path: first_delivery(drain, path, drain, 4), lambda path: first_delivery(drain, path, 100, 4)):
        temp = TempDir("hayauma-lanes-")
        results.append(one(temp.path))
        temp.close()
    row = Row("10 million lanes of one row", results)
    row.want("resident MiB while all wait", results[0]["resident_peak_mib"], "<=", 256)
    row.want("resident MiB while all are due", results[1]["resident_peak_mib"], "<=", 256)
    row.want("first delivery s after a restart", results[1]["first_delivery_s"], "<=", 3)
    row.want("longest turn, ms of CPU", max(r["longest_turn_cpu_ms"] for r in results[:2]), "<=", 20)
    row.want("draining a million lanes against 100",
             results[2]["drain_messages_per_s"] / results[3]["drain_messages_per_s"], ">=", 0.5)
    return row


def latency(scale):
    count = max(int(30 * scale), 5)
    sink = OwnSink()
    relay = servers.HayaumaRelay(sink.address).start()
    try:
        # Both at one a second: a disk that has rested answers later than a busy one.
        probe = machine.sync_ms(relay.engine.dir, count, pause_s=1)
        source = own_source(relay.address(), count, sessions=1, more=["--rate", 1])
        again = machine.sync_ms(relay.engine.dir, count, pause_s=1)
    finally:
        relay.stop()
        sink.stop()
    sync = (probe["median_ms"] + again["median_ms"]) / 2
    answer = source["latency_us"]["p50"] / 1000
    row = Row("time to the 250 at 1 message/s",
              [{"server": "hayauma", "messages": count, "latency_of_250_us": source["latency_us"]},
               {"server": "disk: 4 KiB append and fdatasync", "before": probe, "after": again}])
    row.want("median 250 against median sync", answer / sync, "<=", 2)
    return row


TOO_MUCH = "451 4.7.1 too much, try again later"
THROTTLING = {
    "2 % 451 at RCPT": f"defer: {{rate: 2%, reply: {TOO_MUCH!r}}}",
    "50 % 451 at RCPT": f"defer: {{rate: 50%, reply: {TOO_MUCH!r}}}",
    "one connection, 10 % 421 at RCPT":
        "connections_max: 1, defer: {rate: 10%, reply: '421 4.7.0 try again later'}",
    "two messages a session": "messages_per_session: 2, without: [limits]",
    "silent close after 20": "close_after: 20",
    "silent close after 20, no CHUNKING": "close_after: 20, without: [chunking]",
}
RETRY_S = 10


class StockPostfixRelay(servers.PostfixRelay):
    """Its own ideas of concurrency; only what it may take from us is opened."""

    tuning = {key: servers.PostfixRelay.tuning[key] for key in (
        "default_process_limit", "smtpd_client_connection_count_limit",
        "smtpd_client_event_limit_exceptions", "smtpd_peername_lookup", "in_flow_delay",
        "smtpd_relay_restrictions", "smtpd_recipient_restrictions", "virtual_mailbox_domains",
        "virtual_mailbox_maps", "header_size_limit")}


def throttled(relay_of, behaviour, count, limit_s):
    """count messages, one recipient each, to a sink that defers; until all are there, or limit_s."""
    sink = OwnSink(behaviour=f"default: {{{behaviour}, latency: {{rcpt: 2ms, dot: 10ms}}}}\n", ledger=True)
    relay = relay_of(sink.address).start()
    try:
        start = time.time()
        own_source(relay.address(), count, size=2000, sessions=20)
        while len(rows := sink.ledger()) < count and time.time() - start < limit_s:
            time.sleep(0.1)
        rows = sink.ledger()
        times = [int(row[0]) / 1000 - start for row in rows]
        summary = sink.end()
        refused = sum(c["deferred"] + c["refused"] for c in summary["classes"])
        return {"server": relay.name, "behaviour": behaviour, "messages": count,
                "delivered_after_30_s": sum(t <= 30 for t in times), "delivered": len(rows),
                "last_after_s": round(max(times), 2), "refusals_per_delivered":
                round(refused / max(len(rows), 1), 3)}
    finally:
        relay.stop()
        sink.stop()


def throttling(scale):
    """Against Postfix in the same run; both try again after RETRY_S. Who is refused how often is drawn:
    half of 300 recipients refused each time leave a deviation of 6 after 30 s, and of two retries for the
    last of them, on each side. The comparison allows for three deviations, or it would be a draw itself."""
    count, limit_s = int(1000 * scale), 120
    drawn = 3 * (2 * count * 0.125 * 0.875) ** 0.5
    row = Row("a destination that defers, limits or closes: 1,000 messages, default settings", [])
    for what, behaviour in THROTTLING.items():
        ours, postfix = (throttled(relay_of, behaviour, count, limit_s) for relay_of in (
            lambda target: servers.HayaumaRelay(target, {"destinations": {"*": {
                "sessions_max": 20, "retry": [f"{RETRY_S}s"]}}}),
            lambda target: StockPostfixRelay(target, {
                "minimal_backoff_time": f"{RETRY_S}s", "maximal_backoff_time": f"{RETRY_S}s",
                "queue_run_delay": f"{RETRY_S}s"})))
        row.results += [ours, postfix]
        row.want(f"{what}: delivered after 30 s", ours["delivered_after_30_s"], ">=",
                 postfix["delivered_after_30_s"] - (drawn if "rate" in behaviour else 0))
        row.want(f"{what}: s to the last", ours["last_after_s"], "<=",
                 postfix["last_after_s"] + (6 * RETRY_S if "rate" in behaviour else 0))
        row.want(f"{what}: refusals per delivered", ours["refusals_per_delivered"], "<=",
                 postfix["refusals_per_delivered"] + 0.02)
    return row


def holes(scale):
    """The queue alone: what an earlier backlog costs large messages, and what a small one writes."""
    temp = TempDir("hayauma-holes-")
    try:
        got = run_json([bench_program("queue_holes"), "--path", temp.path / "queue",
                        "--fill", int(300_000 * scale), "--messages", int(10_000 * scale)], 600)
    finally:
        temp.close()
    names = {"small": "4 KiB", "empty": "50 KiB, empty", "holes": "50 KiB, holes"}
    row = Row("50 KiB mail into an empty queue, and into one that 4 KiB mail left half empty",
              [{"server": names[name]} | values for name, values in got.items()])
    row.want("rate in holes against an empty queue", got["holes"]["per_s"] / got["empty"]["per_s"],
             ">=", 1 / 1.2)
    if got["small"]["written_bytes"] > 0:
        row.want("bytes on disk per 4 KiB message", got["small"]["written_bytes"], "<=", 11 * 1024)
    return row


def s_time(port, seconds, *arguments):
    """Handshakes a second by `openssl s_time`, one client that connects again and again."""
    done = subprocess.run(["openssl", "s_time", "-connect", f"{LOCALHOST}:{port}", "-time", str(seconds),
                           *arguments], capture_output=True, text=True, timeout=60 + 3 * seconds, check=False)
    found = re.search(r"(\d+) connections in (\d+) real seconds", done.stdout)
    if not found:
        raise Failure(f"s_time: {done.returncode}\n{done.stdout[-500:]}\n{done.stderr[-500:]}")
    return int(found[1]) / seconds


def resumed_13(port, seconds):
    """Resumed handshakes of TLS 1.3 a second, one client. s_time makes new ones of these: it reads nothing, and so
    never has the ticket, which comes behind the handshake."""
    context = careless()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with context.wrap_socket(socket.create_connection((LOCALHOST, port), 30)) as first:
        first.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            first.recv(1)  # s_server says nothing behind the ticket
        session = first.session
    made, begin = 0, time.monotonic()
    while time.monotonic() < begin + seconds:
        with context.wrap_socket(socket.create_connection((LOCALHOST, port), 30), session=session) as client:
            if not client.session_reused:
                raise Failure("a session of TLS 1.3 was not resumed")
        made += 1
    return round(made / (time.monotonic() - begin), 1)


class SServer:
    """`openssl s_server` with the same certificate."""

    def __init__(self, chain, key):
        self.port = free_port()
        self.temp = TempDir("hayauma-s_server-")
        self.process = Process(["openssl", "s_server", "-accept", f"{LOCALHOST}:{self.port}", "-cert",
                                chain, "-key", key, "-quiet"], self.temp.path / "log")
        wait_port((LOCALHOST, self.port), self.process)

    def stop(self):
        self.process.kill()
        self.temp.close()


def tls_in(scale):
    """Handshakes of clients, several at once, against openssl's own server, which serves one at a time."""
    seconds, row = max(2, int(4 * scale)), Row("TLS handshakes a second, in", [])
    temp = TempDir("hayauma-tls-")
    chain, key = Authority(temp.path).self_signed("mx.example")
    engine = Engine({"certificates": [{"chain": str(chain), "key": str(key)}]})
    engine.config["listeners"][0]["tls"] = "implicit"
    server = SServer(chain, key)
    try:
        with engine:
            for what in ("new", "reuse"):
                for version in ("-tls1_3", "-tls1_2"):
                    ours, theirs = (resumed_13(port, seconds) if (what, version) == ("reuse", "-tls1_3") else
                                    s_time(port, seconds, f"-{what}", version) for port in (engine.port, server.port))
                    row.results += [{"server": "hayauma", "what": f"{what} {version}", "per_s": ours},
                                    {"server": "s_server", "what": f"{what} {version}", "per_s": theirs}]
                    row.want(f"{what} {version}: against s_server", ours / theirs, ">=", 0.85)
    finally:
        server.stop()
        temp.close()
    return row


def tls_out_new(scale):
    """A session for each message. s_time only connects and shakes hands, with the same sink."""
    seconds, count = max(2, int(4 * scale)), int(10_000 * scale)
    row = Row("TLS 1.3 out from the beginning of each connection, one message of 4 KiB each", [])
    temp = TempDir("hayauma-authority-")
    authority = Authority(temp.path)
    chain, key = authority.certificate("sink.example")
    for what, more in (("new", ("--tls-no-resuming",)), ("reuse", ())):
        sink = OwnSink(port=465, more=("--tls-certificate", chain, "--tls-key", key, *more))
        theirs = resumed_13(465, seconds) if what == "reuse" else s_time(465, seconds, f"-{what}", "-tls1_3")
        sink.stop()
        ours = drain_over(authority, "encrypt", count, 1, port=465, more=more)
        row.results += [{"server": "s_time" if what == "new" else "client", "what": what, "per_s": theirs}, ours | {"what": what}]
        row.want(f"{what}: sessions a second against a client without mail", ours["messages_per_s"] / theirs, ">=", 0.85)
    temp.close()
    return row


ROWS = {"main": main, "sessions400": sessions400, "one-session": one_session, "slow-sync": slow_sync,
        "send": send, "50k": main_50k, "postfix-ends": postfix_ends, "drain": drain, "hot": hot,
        "rtt50": rtt50, "tls-out": tls_out, "sessions18k": sessions_18k, "holes": holes, "backlog10m": backlog_10m, "lanes10m": lanes_10m,
        "latency": latency, "throttling": throttling, "dkim": dkim,
        "tls-in": tls_in, "tls-out-new": tls_out_new}
