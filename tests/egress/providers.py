#!/usr/bin/env python3
"""Domains whose exchangers a provider runs: they share its limits, however many sets of exchangers
there are, and are called by its name.

providers.py [TEST...]"""

import itertools
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from egress import Receiver, inject, settings  # noqa: E402
from engine import Engine  # noqa: E402
from proc import Failure, wait_until  # noqa: E402
from talk import run  # noqa: E402

HOST = "127.0.0.40"


def world(sink, **one):
    """The sink's domains below p.example, each with an exchanger of its own, as one class."""
    sink.behaviour = sink.dir / "world.yaml"
    values = "".join(f", {key}: {value}" for key, value in one.items())
    sink.behaviour.write_text(f'classes: [{{name: p, domains: ["*.p.example"], address: {HOST}{values}}}]\n')
    return sink


def provider(sink, sources=(1,), **limits):
    return settings(sink, sources, routes={}, providers={"p": {"mx": ["p.example"], **limits}})


def check_rate(mails, rate):
    """Of (time in ms, ...): in no window more than it lets through."""
    times = sorted(mail[0] for mail in mails)
    for i, j in itertools.combinations(range(0, len(times), 3), 2):
        if j - i > rate * (times[j] - times[i] + 50) / 1000 + 1:
            raise Failure(f"{j - i} messages in {times[j] - times[i]} ms, at {rate}/s")


def test_sessions():
    """Sixty domains with exchangers of their own have two sessions among them, over both workers. (The
    receiver may take a while to count those that have said QUIT.)"""
    domains = [f"d{i}.p.example" for i in range(60)]
    with world(Receiver(), connections_max=4, latency="{dot: 5ms}") as sink, \
            Engine(provider(sink, sessions_max=2)) as engine:
        inject(engine, 180, domains)
        sink.wait_mails(180)
        records = engine.wait_records("Delivery", 180)
        if {r["site"] for r in records} != {"p"}:
            raise Failure(f"the sites are {({r['site'] for r in records})}")
        told = engine.records("TransientFailure")
        shown = engine.status()["sources"][0]
        if told or shown["connect_failures"]:
            raise Failure(f"the receiver was asked for five sessions: {told} {shown}")


def test_some_hosts():
    """Where a provider has one of a domain's two exchangers, the set is a site of its own; so is one whose
    name is only like the provider's."""
    with world(Receiver(), exchangers=2) as sink:
        config = provider(sink, rate="1/h")
        config["providers"]["p"]["mx"] = ["mx1.mixed.p.example", "all.p.example", "p"]
        with Engine(config) as engine:
            inject(engine, 4, ["mixed.p.example", "xall.p.example"])
            sink.wait_mails(4)
            inject(engine, 3, ["all.p.example"], first=10)
            sink.wait_mails(5)
            sites = {r["queue"]: r["site"] for r in engine.wait_records("Delivery", 5)}
            if sites != {"mixed.p.example": "(mx1|mx2).mixed.p.example",
                         "xall.p.example": "(mx1|mx2).xall.p.example", "all.p.example": "p"}:
                raise Failure(f"the sites are {sites}")
            if len(sink.ledger()) != 5:
                raise Failure("the provider's rate was not kept")


def test_total_sessions():
    """The same over all sources."""
    domains = [f"d{i}.p.example" for i in range(20)]
    with world(Receiver(), connections_max=6, latency="{dot: 5ms}") as sink, \
            Engine(provider(sink, (1, 2, 3), total_sessions_max=3)) as engine:
        inject(engine, 120, domains)
        sink.wait_mails(120)
        # On a busy machine two sources may be done before the third has a session.
        sent = 120
        while set(sink.shares()) != {1, 2, 3} and sent < 1200:
            inject(engine, 120, domains, first=sent)
            sent += 120
            sink.wait_mails(sent)
        if engine.records("TransientFailure"):
            raise Failure("the receiver was asked for seven sessions")
        if set(sink.shares()) != {1, 2, 3}:
            raise Failure(f"sources share: {sink.shares()}")


def test_rates():
    """Rates of a source, and over all sources, hold for all domains together."""
    domains = [f"d{i}.p.example" for i in range(20)]
    with world(Receiver()) as sink, \
            Engine(provider(sink, (1, 2), rate="30/s", total_rate="45/s")) as engine:
        inject(engine, 100, domains)
        sink.wait_mails(100)
        mails = sink.mails()
        check_rate(mails, 45)
        for number in (1, 2):
            check_rate([m for m in mails if m[1] == number], 30)
        seconds = (max(m[0] for m in mails) - min(m[0] for m in mails)) / 1000
        if seconds > 100 / 45 * 3:
            raise Failure(f"100 messages took {seconds:.1f} s, at 45/s")


def test_one_does_not_starve_the_others():
    """A domain with much mail holds the only session for a slice at a time, in one worker too."""
    with world(Receiver(), latency="{dot: 20ms}") as sink, Engine({
            **provider(sink, sessions_max=1, session_messages_max=100000), "workers": 1}) as engine:
        inject(engine, 3000, ["large.p.example"])
        sink.wait_mails(20)
        inject(engine, 5, [f"d{i}.p.example" for i in range(5)])
        wait_until("the small ones' mail", lambda: sum(
            m[4].split("@")[1].startswith("d") for m in sink.mails()) == 5, 45)
        if len(sink.ledger()) >= 3000:
            raise Failure("it came behind all that the large one had")
        before = len(sink.ledger())
        wait_until("the large one to go on", lambda: len(sink.ledger()) > before + 20, 20)


def test_a_pattern_is_stricter():
    """A domain's own limits hold beside the provider's: each of them, whichever is less."""
    with world(Receiver()) as sink:
        config = provider(sink, rate="40/s")
        config["destinations"] = {"slow.p.example": {"rate": "10/s"}, "wild.p.example": {"rate": "500/s"}}
        with Engine(config) as engine:
            inject(engine, 60, ["slow.p.example", "wild.p.example", "wild.p.example"])
            sink.wait_mails(60)
            mails = sink.mails()
            check_rate(mails, 40)
            check_rate([m for m in mails if m[4].endswith("slow.p.example")], 10)


def test_connections():
    """Sessions that begin are as many as connect_rate lets through, for all domains together and over
    both workers; each takes one message."""
    domains = [f"d{i}.p.example" for i in range(30)]
    with world(Receiver()) as sink, Engine(provider(
            sink, connect_rate="10/s", session_messages_max=1, sessions_max=20)) as engine:
        inject(engine, 30, domains)
        sink.wait_mails(30)
        times = [line.split("\t") for line in sink.sessions_file.read_text().splitlines()]
        check_rate([(int(t[0]),) for t in times], 10)


def test_quiet_hours():
    """Nothing goes in quiet hours, also when a reload brings them; status says until when."""
    hour = time.gmtime().tm_hour
    quiet = {"quiet_hours": f"{hour}-{(hour + 2) % 24}", "time_zone": "UTC"}
    with world(Receiver()) as sink, Engine(provider(sink, **quiet)) as engine:
        inject(engine, 3, ["one.p.example"])

        def held():
            waits = [d.get("wait", {}) for d in engine.status()["destinations"]]
            return waits and waits[0].get("reason") == "quiet_hours" and waits[0]["until_ms"]

        until_s = wait_until("the reason in status", held, 20) / 1000
        if not 0 < until_s - time.time() <= 7200 or until_s % 3600:
            raise Failure(f"quiet until {until_s}")
        if sink.ledger():
            raise Failure("it was sent")
        del engine.config["providers"]["p"]["quiet_hours"]
        engine.reload()
        sink.wait_mails(3)
        engine.config["providers"]["p"].update(quiet)
        engine.reload()
        inject(engine, 3, ["one.p.example"], first=10)
        wait_until("the reason again", held, 20)
        if len(sink.ledger()) != 3:
            raise Failure("it was sent behind the reload")


def test_suspension():
    """By the provider's name for all of its domains; by a set's own name for that one."""
    with world(Receiver()) as sink, Engine(provider(sink)) as engine:
        engine.command("queue", "suspend", "--site", "mx1.one.p.example")
        inject(engine, 2, ["one.p.example", "two.p.example"])
        sink.wait_mails(1)
        engine.command("queue", "suspend", "--site", "p")
        engine.command("queue", "resume", "--site", "mx1.one.p.example")
        inject(engine, 1, ["three.p.example"], first=10)
        time.sleep(1)
        if [m[4] for m in sink.mails()] != ["r1@two.p.example"]:
            raise Failure(f"suspended, and sent: {sink.mails()}")
        engine.command("queue", "resume", "--site", "p")
        sink.wait_mails(3)


def test_screens():
    """site list has a line for the provider, with its limits; site show says of a domain where each limit
    comes from, how far it is used, and whose exchangers these are."""
    with world(Receiver()) as sink:
        config = provider(sink, rate="1/h", sessions_max=3)
        config["destinations"] = {"slow.p.example": {"rate": "1/h"}}
        with Engine(config) as engine:
            inject(engine, 8, ["one.p.example", "two.p.example", "slow.p.example", "other.example"])
            wait_until("mail at both sites", lambda: len(sink.ledger()) >= 3)
            listed = {r["name"]: r for r in engine.rows("site", "list")}
            if set(listed) != {"p", "mx1.other.example"} or not listed["p"]["is_provider"]:
                raise Failure(f"site list: {listed}")
            if listed["p"]["queues"] != 3 or listed["p"]["waiting"] < 3:
                raise Failure(f"site list counts {listed['p']}")
            text = engine.command("site", "list")
            if "sessions_max 3, rate 1/h" not in text:
                raise Failure(f"site list:\n{text}")
            check_show(engine)


def check_show(engine):
    limits = {(r["of"], r["name"]): r for r in engine.rows("site", "show", "slow.p.example")[0]["limits"]}
    for of, name, value, where in (
            ("site", "rate", "1/h", "(destinations['slow.p.example'].rate)"),
            ("provider", "rate", "1/h", "(providers['p'].rate)"),
            ("provider", "sessions_max", "3", "(providers['p'].sessions_max)"),
            ("provider", "quiet_hours", "none", "default")):
        one = limits[of, name]
        if one["value"] != value or not one["set"].endswith(where):
            raise Failure(f"site show: {one}, not {value} {where}")
    shown = engine.rows("site", "show", "one.p.example")[0]
    if (shown["site"], shown["provider"], shown["exchangers_name"]) != ("p", "p", "mx1.one.p.example"):
        raise Failure(f"site show: {shown}")
    if any(r["of"] == "site" for r in shown["limits"]):
        raise Failure(f"limits twice: {shown}")
    if [e["host"] for e in shown["exchangers"]] != ["mx1.one.p.example"] or not shown["sources"]:
        raise Failure(f"site show: {shown}")
    for name in ("p", "P", "mx1.slow.p.example", "mx1.other.example"):  # as screens name sites
        shown = engine.rows("site", "show", name)[0]
        if name == "mx1.other.example":
            expected = "other.example", "mx1.other.example", "site", ["mx1.other.example"]
        else:
            expected = shown["domain"], "p", "provider", [f"mx1.{shown['domain']}"]
        if ((shown["domain"], shown["site"], shown["limits"][-1]["of"],
             [e["host"] for e in shown["exchangers"]]) != expected or "sessions" not in shown["sources"][0]):
            raise Failure(f"site show {name}: {shown}")
        if name.startswith("mx1.slow") and shown["domain"] != "slow.p.example":
            raise Failure(f"site show {name}: the set of another domain: {shown}")
    text = engine.command("site", "show", "one.p.example")
    for word in ("limits of the provider:", "sessions_max         3, ", "mx1.one.p.example", "a1: "):
        if word not in text:
            raise Failure(f"site show lacks {word}:\n{text}")


def test_reload():
    """Another rate holds at once; a provider that is gone leaves each set to itself."""
    domains = [f"d{i}.p.example" for i in range(10)]
    with world(Receiver()) as sink, Engine(provider(sink, rate="2/s")) as engine:
        inject(engine, 100, domains)
        sink.wait_mails(2)
        engine.config["providers"]["p"]["rate"] = "40/s"
        engine.reload()
        before = len(sink.ledger())
        sink.wait_mails(before + 40, 20)
        check_rate(sink.mails(), 40)
        engine.config["providers"] = {}
        engine.reload()
        sink.wait_mails(100)
        sites = {r["site"] for r in engine.wait_records("Delivery", 100)}
        if "p" not in sites or not any(s.startswith("mx1.d") for s in sites):
            raise Failure(f"the sites were {sites}")


if __name__ == "__main__":
    run(globals())
