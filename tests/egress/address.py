#!/usr/bin/env python3
"""A source whose address this machine does not hold, in a network of its own: it is left out and
reported once, the others send its mail, and it comes back by itself.

usage: address.py; exit status 77 where no network namespace may be had"""

import os
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from egress import Receiver, inject, settings  # noqa: E402
from engine import Engine  # noqa: E402
from proc import Failure, wait_until  # noqa: E402
from talk import forwarder, run  # noqa: E402


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def states(engine):
    return {s["name"]: s["state"] for s in engine.status()["sources"]}


def address(number):
    return f"10.7.0.{10 + number}"


def own_sources(*numbers):
    return {f"a{n}": {"ipv4": address(n), "ehlo_name": f"a{n}.sender.example"} for n in numbers}


def sends(engine, sink, wanted, first):
    """Whether 20 messages come from exactly these sources."""
    before = len(sink.ledger())
    inject(engine, 20, first=first)
    sink.wait_mails(before + 20)
    return set(sink.shares(before)) == wanted


def test_missing_and_back():
    ip("address", "add", f"{address(1)}/32", "dev", "lo")
    with Receiver(host="127.0.0.1") as sink, \
            Engine({**settings(sink, (), destinations={"*": {"idle": "500ms"}}),
                    "sources": own_sources(1, 2)}) as engine:
        wait_until("a2 to be missed", lambda: states(engine) == {"a1": "ok", "a2": "missing"})
        if not sends(engine, sink, {1}, 0):
            raise Failure(f"a2 has no address: {sink.shares()}")
        ip("address", "add", f"{address(2)}/32", "dev", "lo")
        wait_until("a2 to be back", lambda: states(engine) == {"a1": "ok", "a2": "ok"})
        wait_until("a2 to send", lambda: sends(engine, sink, {1, 2}, 100))
        # An address that vanishes while the engine runs: the first session that wants it notices.
        wait_until("all sessions to end", lambda: engine.status()["gauges"]["sessions_out"] == 0)
        ip("address", "del", f"{address(1)}/32", "dev", "lo")
        if not sends(engine, sink, {2}, 200):
            raise Failure(f"a1 lost its address: {sink.shares()}")
        wait_until("a1 to be missed", lambda: states(engine) == {"a1": "missing", "a2": "ok"})
        shown = engine.command("source", "show", "a1")
        if f"{address(1)}: Cannot assign requested address" not in shown:
            raise Failure(f"source show a1 says\n{shown}")
        # The last one goes too: mail waits, nobody's failure, until one of the two is there again.
        wait_until("all sessions to end", lambda: engine.status()["gauges"]["sessions_out"] == 0)
        ip("address", "del", f"{address(2)}/32", "dev", "lo")
        before = len(sink.ledger())
        inject(engine, 20, first=300)
        wait_until("the mail to wait for a source", lambda: '"reason":"source"' in
                   engine.command("queue", "list", "--limit", "1", "--json"))
        ip("address", "add", f"{address(1)}/32", "dev", "lo")
        sink.wait_mails(before + 20)
        if set(sink.shares(before)) != {1}:
            raise Failure(f"only a1 has an address: {sink.shares(before)}")
        if engine.records("TransientFailure"):
            raise Failure(f"deferred: {engine.records('TransientFailure')[0]}")
        log = engine.log()
        if "delivery.socket_failed" in log:
            raise Failure(f"a missing address was taken for a failure of the destination:\n{log}")
        for number, missed in ((1, 1), (2, 2)):
            if log.count(f"source.address_missing source=a{number} ") != missed:
                raise Failure(f"a{number} was not missed {missed} times:\n{log}")


def test_gone():
    """Where an address goes, the sessions that use it end: those without work, and those that would wait for an
    answer. What they had goes by another source at once, and is nobody's failure. Where the peer may have the
    message it is not sent again: the answer still comes when the address is back."""
    for number in (3, 4, 5):
        ip("address", "add", f"{address(number)}/32", "dev", "lo")
    sink = Receiver(host="127.0.0.1")
    sink.behaviour = sink.dir / "behaviour.yaml"
    sink.behaviour.write_text("classes:\n- {name: slow, domains: [slow.example], latency: {rcpt: 2s}, "
                              "without: [pipelining, chunking], address: 127.0.0.1}\n- {name: late, "
                              "domains: [late.example], latency: {dot: 2s}, address: 127.0.0.1}\n")
    with sink, Engine({
            **settings(sink, (), routes={}, drain_timeout="1s",
                       destinations={"*": {"sessions_max": 1, "idle": "300ms"}}),
            "sources": own_sources(3, 4, 5)}) as engine:
        def sessions(*numbers):
            return sum(s["sessions"] for s in engine.status()["sources"] if s["name"] in {f"a{n}" for n in numbers})

        inject(engine, 30, ["fast.example"])
        sink.wait_mails(30)
        wait_until("all sessions to end", lambda: engine.status()["gauges"]["sessions_out"] == 0)
        inject(engine, 12, ["slow.example"], first=100)
        inject(engine, 12, ["late.example"], first=200)
        wait_until("each source to have sessions at the slow sites", lambda: sessions(3) == sessions(4) == 2, 10)
        for number in (3, 4):
            ip("address", "del", f"{address(number)}/32", "dev", "lo")
        wait_until("their sessions to end", lambda: sessions(3, 4) == 2, 10)
        before = len(sink.ledger())
        inject(engine, 30, ["fast.example"], first=300)
        sink.wait_mails(before + 30, 20)
        if not {mail[1] for mail in sink.mails()[before:] if mail[4].endswith("@fast.example")} <= {5}:
            raise Failure(f"only a5 has an address: {sink.shares(before)}")
        for number in (3, 4):
            ip("address", "add", f"{address(number)}/32", "dev", "lo")
        sink.wait_mails(30 + 12 + 12 + 30, 60)
        engine.wait_records("Delivery", 84)
        if len(sink.ledger()) != 84:
            raise Failure("something was sent twice")
        if engine.records("TransientFailure"):
            raise Failure(f"deferred: {engine.records('TransientFailure')[0]}")


def test_gone_unnoticed():
    """What is put into open sessions before it is known that their address has gone does not leave this machine:
    it goes by another source at once, and is nobody's failure."""
    for number in (41, 42, 43):
        ip("address", "add", f"{address(number)}/32", "dev", "lo")
    with Receiver(host="127.0.0.1") as sink, Engine({
            **settings(sink, (), workers=1, drain_timeout="1s", destinations={"*": {"sessions_max": 2, "idle": "1m"}}),
            "sources": own_sources(41, 42, 43)}) as engine:
        inject(engine, 60)
        sink.wait_mails(60)
        if set(sink.shares()) != {41, 42, 43}:
            raise Failure(f"not all sources sent: {sink.shares()}")
        for number in (41, 42):
            ip("address", "del", f"{address(number)}/32", "dev", "lo")
        inject(engine, 60, first=100)
        sink.wait_mails(120, 10)
        if set(sink.shares(60)) != {43}:
            raise Failure(f"only a43 has an address: {sink.shares(60)}")
        engine.wait_records("Delivery", 120)
        if len(sink.ledger()) != 120 or engine.records("TransientFailure"):
            raise Failure(f"{len(sink.ledger())} mails; deferred: {engine.records('TransientFailure')[:1]}")


def test_gone_unnoticed_ipv6():
    """The same over IPv6, which sends on behind the end of the address: the kernel says at once that it has gone."""
    for address in ("fd00:7::41", "fd00:7::42", "2001:db8:7::1"):
        ip("-6", "address", "add", f"{address}/128", "dev", "lo", "nodad")
    sink = Receiver(host="127.0.0.1")
    sink.behaviour = sink.dir / "six.yaml"
    sink.behaviour.write_text("classes:\n- {name: six, domains: [x.example], address: '2001:db8:7::1'}\n")
    with sink, Engine({**settings(sink, (), routes={}, workers=1, drain_timeout="1s",
                                  destinations={"*": {"sessions_max": 2, "idle": "1m"}}),
                       "sources": {f"a{n}": {"ipv6": f"fd00:7::{n}"} for n in (41, 42)},
                       "dns": sink.dns(ipv6=True)}) as engine:
        inject(engine, 40, ["x.example"])
        sink.wait_mails(40)
        ip("-6", "address", "del", "fd00:7::41/128", "dev", "lo")
        time.sleep(0.3)
        inject(engine, 40, ["x.example"], first=100)
        sink.wait_mails(80, 10)
        peers = sink.peers()
        if {peers[row[1]][0] for row in sink.ledger()[40:]} != {"fd00:7::42"}:
            raise Failure(f"only a42 has an address: {peers}")
        engine.wait_records("Delivery", 80)
        if len(sink.ledger()) != 80 or engine.records("TransientFailure"):
            raise Failure(f"{len(sink.ledger())} mails; deferred: {engine.records('TransientFailure')[:1]}")


def test_route_gone():
    """Sessions whose route goes, while the address stays, end within seconds. Mail waits for the route, nobody's
    failure."""
    for number in (51, 52):
        ip("address", "add", f"{address(number)}/32", "dev", "lo")
    sink = Receiver(host="127.0.0.1")
    sink.behaviour = sink.dir / "far.yaml"
    sink.behaviour.write_text(f"classes:\n- {{name: far, domains: [x.example], address: {address(52)}}}\n")
    with sink, Engine({**settings(sink, (), routes={}, drain_timeout="1s",
                                  destinations={"*": {"sessions_max": 2, "idle": "1m"}}),
                       "sources": own_sources(51), "dns": sink.dns()}) as engine:
        inject(engine, 20, ["x.example"])
        sink.wait_mails(20)
        ip("address", "del", f"{address(52)}/32", "dev", "lo")
        wait_until("the sessions to end", lambda: engine.status()["gauges"]["sessions_out"] == 0, 10)
        inject(engine, 5, ["x.example"], first=100)
        wait_until("the mail to wait for a route", lambda: states(engine) == {"a51": "no_route"}, 10)
        ip("address", "add", f"{address(52)}/32", "dev", "lo")
        sink.wait_mails(25, 10)
        if engine.records("TransientFailure"):
            raise Failure(f"deferred: {engine.records('TransientFailure')[0]}")


def test_silent():
    """Sources to which the receiver says no greeting keep the others from sending for some seconds, not until
    it is given up."""
    for number in (6, 7, 8):
        ip("address", "add", f"{address(number)}/32", "dev", "lo")
    with Receiver(host="127.0.0.1") as sink:
        front = forwarder(sink.port, silent={address(6), address(7)})
        with Engine({**settings(sink, (), workers=1, drain_timeout="1s", destinations={"*": {"sessions_max": 1}}),
                     "routes": {"*": f"[127.0.0.1]:{front}"}, "sources": own_sources(6, 7, 8)}) as engine:
            inject(engine, 200)
            sink.wait_mails(200, 20)


def test_family():
    """A source that has one family sends over it alone: not from what else the machine has."""
    ip("address", "add", "10.7.0.21/32", "dev", "lo")
    with Receiver(host="127.0.0.1") as sink, \
            Engine({**settings(sink, ()), "sources": {
                "a1": {"ipv6": "::1"}, "a11": {"ipv4": "10.7.0.21"}},
                "dns": sink.dns(ipv6=True)}) as engine:
        if not sends(engine, sink, {11}, 0):
            raise Failure(f"a1 has no IPv4 address: {sink.shares()}")


def test_no_route():
    """A source whose only family has no route to the exchanger is told and takes no turns, another one sends its
    mail. What is bound to it waits, nobody's failure. Mail for a site that has a route still goes. It sends again
    when there is a route."""
    far = ("-6", "address", "del", "2001:db8:9::1/128", "dev", "lo")
    ip("address", "add", "10.7.0.31/32", "dev", "lo")
    for address in ("fd00:7::32", "2001:db8:9::1", "2001:db8:8::1"):
        ip("-6", "address", "add", f"{address}/128", "dev", "lo", "nodad")
    sink = Receiver(host="127.0.0.1")
    sink.behaviour = sink.dir / "world.yaml"
    sink.behaviour.write_text(
        "classes:\n- {name: two, domains: [x.example], address: [10.7.0.31, '2001:db8:9::1']}\n"
        "- {name: near, domains: [near.example], address: '2001:db8:8::1'}\n")
    pools = {"both": {"sources": {"four": {}, "six": {}}}, "six": {"sources": {"six": {}}}}
    with sink, Engine({**settings(sink, (), pools, routes={}, default_pool="both", destinations={
            "*": {"idle": "200ms"}}), "sources": {
            "four": {"ipv4": "10.7.0.31"}, "six": {"ipv6": "fd00:7::32"}}, "dns": sink.dns(ipv6=True)}) as engine:
        def from_six(first):
            before = len(sink.ledger())
            inject(engine, 20, first=first)
            sink.wait_mails(before + 20)
            peers = sink.peers()
            return any("fd00:7::32" in peers[row[1]][0] for row in sink.ledger()[before:])

        def waits():
            return [row.get("wait", {}) for row in engine.rows("queue", "list", "--limit", "5")]

        wait_until("six to send", lambda: from_six(0))
        wait_until("all sessions to end", lambda: engine.status()["gauges"]["sessions_out"] == 0)
        ip(*far)
        wait_until("six to lack a route", lambda: not from_six(100) and
                   states(engine) == {"four": "ok", "six": "no_route"})
        for words in (["source", "show", "six"], ["why", "six"]):
            if not re.search(r"no route +over ipv6, to \[2001:db8:9::1\]|has had no route over IPv6 .*2001:db8:9::1",
                             engine.command(*words)):
                raise Failure(f"{words} says\n{engine.command(*words)}")
        connects = engine.status()["sources"][1]["connects"]
        before = len(sink.ledger())
        inject(engine, 3, first=300, header="X-Hayauma-Pool: six\r\n")
        wait_until("the mail to wait for a route", lambda: len(waits()) == 3 and all(
            w.get("source") == "six" and w.get("text") == "this machine has no route over IPv6 from fd00:7::32"
            for w in waits()))
        inject(engine, 1, ["near.example"], header="X-Hayauma-Pool: six\r\n")
        sink.wait_mails(before + 1)
        if engine.status()["sources"][1]["connects"] > connects + 1:
            raise Failure(f"six tried more than what has a route: {engine.status()['sources'][1]}")
        if "no_route" not in engine.command("route", "x@x.example", "--json"):
            raise Failure(f"route says\n{engine.command('route', 'x@x.example')}")
        ip("-6", "address", "add", "2001:db8:9::1/128", "dev", "lo", "nodad")
        sink.wait_mails(before + 4)
        wait_until("six to send again", lambda: from_six(200) and states(engine)["six"] == "ok")
        if engine.records("TransientFailure"):
            raise Failure(f"deferred: {engine.records('TransientFailure')[0]}")
        log = engine.log()
        for event in ("no_route", "route_back"):
            if log.count(f"source.{event} source=six ") != 1:
                raise Failure(f"source.{event} is not there once:\n{log}")
        if "source.no_internet source=six family=ipv6" not in log:
            raise Failure(f"nothing of the internet:\n{log}")


if __name__ == "__main__":
    if not os.environ.get("HAYAUMA_OWN_NETWORK"):
        own = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
        if subprocess.run([*own, "ip", "link"], capture_output=True, check=False).returncode != 0:
            print("no network namespace, or no ip")
            sys.exit(77)
        os.execvpe(own[0], [*own, sys.executable, *sys.argv], {**os.environ, "HAYAUMA_OWN_NETWORK": "1"})
    ip("link", "set", "lo", "up")
    run(globals())
