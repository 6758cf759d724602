#!/usr/bin/env python3
"""Sources behind SOCKS proxies that do everything wrong: a proxy that does not work takes its source
out, others send its mail, nobody's attempt is counted, and it comes back by itself; what a proxy says
of an exchanger is the exchanger's failure. Real proxies: tests/interop/proxy.py.

proxy.py [TEST...]"""

import contextlib
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from egress import Receiver, inject, settings, source  # noqa: E402
from engine import Engine  # noqa: E402
from odd_proxy import OddProxy  # noqa: E402
from proc import Failure, wait_until  # noqa: E402
from talk import check, run  # noqa: E402

DIRECT = 9  # the source without proxy
# Number of the source -> how its proxy fails, and what is said of that.
FAILURES = {1: ("off", "Connection refused"), 2: ("close", "it closed the connection"),
            3: ("http", "it does not speak SOCKS 5 (its first byte is 72)"),
            4: ("method", "it does not accept how we log in (answer 255)"),
            5: ("login", "it refuses the user or password (answer 1)"), 6: ("slow", "Connection timed out")}


def states(engine):
    return {s["name"]: s["state"] for s in engine.status()["sources"]}


def proxied(sink, proxies, engine_dir, **more):
    """An engine with a source behind each of the proxies (by number), and one without."""
    config = settings(sink, (), **more)
    config["sources"] = {f"a{DIRECT}": source(DIRECT)}
    for number, proxy in proxies.items():
        settings_of = {"socks5": proxy.address}
        if proxy.login:
            secret = engine_dir / f"secret{number}"
            secret.write_text(f"{proxy.login[1]}\n")
            secret.chmod(0o600)
            settings_of.update({"user": proxy.login[0], "password_file": str(secret)})
        config["sources"][f"a{number}"] = {**source(number), "proxy": settings_of}
    return config


def idle(engine):
    wait_until("all sessions to end", lambda: engine.status()["gauges"]["sessions_out"] == 0)


def all_send(engine, sink, numbers, first):
    """All of these sources send, and no other."""
    before, sent = len(sink.ledger()), 0
    while not sent or set(sink.shares(before)) != numbers:
        if sent > 600 or set(sink.shares(before)) - numbers:
            raise Failure(f"{numbers} are to send: {sink.shares(before)}")
        inject(engine, 20, first=first + sent)
        sent += 20
        sink.wait_mails(before + sent)


def test_down_and_back():
    limits = {"*": {"idle": "500ms", "timeouts": {"connect": "1s"}}}
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(Receiver())
        login = ("shop", "pass word")
        proxies = {n: stack.enter_context(OddProxy(source(n)["ipv4"], login if n in (4, 5) else None))
                   for n in FAILURES}
        engine = Engine()
        for key, value in proxied(sink, proxies, engine.dir, destinations=limits).items():
            engine.config[key] = value
        stack.enter_context(engine)
        everyone = {DIRECT, *FAILURES}
        all_send(engine, sink, everyone, 0)
        check("what proxies were asked for", {to for p in proxies.values() for to in p.asked},
              {(sink.host, sink.port)})
        idle(engine)
        for number, (mode, _) in FAILURES.items():
            proxies[number].become(mode)
        down = {**{f"a{n}": "proxy_down" for n in FAILURES}, f"a{DIRECT}": "ok"}
        before = sent = len(sink.ledger())
        while states(engine) != down:
            inject(engine, 20, first=sent)
            sent += 20
            sink.wait_mails(sent)
        check("who sent meanwhile", set(sink.shares(before)), {DIRECT})
        check("deferred", engine.records("TransientFailure"), [])
        shown = {s["name"]: s["proxy"] for s in engine.status()["sources"] if "proxy" in s}
        for number, (mode, error) in FAILURES.items():
            check(f"status of {mode}", (shown[f"a{number}"]["error"], shown[f"a{number}"]["server"]),
                  (error, proxies[number].address))
            for words in (["source", "show", f"a{number}"], ["why", f"a{number}"]):
                text = engine.command(*words)
                if f"socks5 {proxies[number].address}" not in text or error not in text:
                    raise Failure(f"{words} of {mode}:\n{text}")
        for proxy in proxies.values():
            proxy.become("good")
        wait_until("all to be back", lambda: set(states(engine).values()) == {"ok"})
        all_send(engine, sink, everyone, sent)
        log = engine.log()
        for number in FAILURES:
            for event in ("down", "back"):
                if log.count(f"source.proxy_{event} source=a{number} ") != 1:
                    raise Failure(f"source.proxy_{event} of a{number} is not there once:\n{log}")
        check_records(engine, sent)


def check_records(engine, count):
    for record in engine.wait_records("Delivery", count):
        said = record["source_address"]
        if record["egress_source"] == f"a{DIRECT}":
            check("a record of the source without proxy", list(said), ["address"])
        else:
            check("where a proxy connects from", said["address"], "203.0.113.9:4711")
            check("how", said["protocol"], "socks5")


def test_alone():
    """The only source's proxy is down from the start: mail waits, the screens say why, and a proxy that
    comes up is used."""
    with Receiver() as sink, OddProxy(source(1)["ipv4"], mode="off") as proxy:
        config = settings(sink, ())
        config["sources"] = {"a1": {**source(1), "proxy": {"socks5": proxy.address}}}
        with Engine(config) as engine:
            wait_until("a1 to be down", lambda: states(engine) == {"a1": "proxy_down"})
            inject(engine, 3)
            said = f"socks5 {proxy.address} is down: Connection refused"

            def waits():
                rows = engine.rows("queue", "list")
                return rows and all(r.get("wait", {}).get("reason") == "source" and
                                    r["wait"].get("text") == said and
                                    r["wait"].get("source") == "a1" for r in rows)

            wait_until("the mail to wait for the proxy", waits)
            proxy.become("good")
            sink.wait_mails(3)
            check("deferred", engine.records("TransientFailure"), [])


def test_exchanger_fails():
    """The proxy works, and cannot connect: the next attempt is by the retry table, the source stays."""
    words = {"refused": "Connection refused (answer 5)", "silent": "no answer in time",
             "half": "the proxy closed the connection without an answer"}
    addresses = {mode: f"127.0.0.{41 + i}" for i, mode in enumerate(words)}
    sink = Receiver()
    sink.behaviour = sink.dir / "world.yaml"
    sink.behaviour.write_text("classes:\n" + "".join(
        f"  - {{name: {mode}, domains: [{mode}.example], address: {address}}}\n"
        for mode, address in addresses.items()) +
        "  - {name: slow, domains: [slow.example], address: 127.0.0.44, latency: {dot: 2s}}\n")
    with sink, OddProxy(source(1)["ipv4"]) as proxy:
        config = settings(sink, (), routes={}, destinations={
            "*": {"retry": ["1s"], "timeouts": {"connect": "1s"}}})
        config["sources"] = {"a1": {**source(1), "proxy": {"socks5": proxy.address}}}
        proxy.modes = {address: mode for mode, address in addresses.items()}
        with Engine(config) as engine:
            inject(engine, len(words), [f"{mode}.example" for mode in words])
            for i, (mode, said) in enumerate(words.items()):
                record = engine.wait_records("TransientFailure", recipient=f"r{i}@{mode}.example")[0]
                want = f"through socks5 {proxy.address}: {said}"
                if want not in record["response"]["content"]:
                    raise Failure(f"{mode}: {record}")
            check("a1", states(engine), {"a1": "ok"})
            proxy.modes = {}
            sink.wait_mails(len(words))
            # One that ends within a transaction: who ended it nobody can tell.
            inject(engine, 1, ["slow.example"], first=9)
            wait_until("its transaction", lambda: "in transactions now" in engine.command("why", "slow.example"))
            proxy.cut()
            record = engine.wait_records("TransientFailure", recipient="r9@slow.example")[0]
            if f"through socks5 {proxy.address}, which may be what ended it" not in record["response"]["content"]:
                raise Failure(f"what the proxy ended: {record}")


if __name__ == "__main__":
    run(globals())
