#!/usr/bin/env python3
"""Who goes first where a destination takes only so much: priorities, tenants, campaigns.

flows.py [TEST...]"""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from engine import Engine, Sink  # noqa: E402
from proc import Failure, wait_until  # noqa: E402
from talk import Client, run  # noqa: E402

RATE = 20  # a second, of the one destination
BULK = 3000


def settings(sink, **more):
    return {**more, "dns": sink.dns(),
            "destinations": {"*": {"rate": f"{RATE}/s"}}}


def inject(engine, count, sender, fields=""):
    """count messages to d.example in few round trips."""
    with Client(engine) as client:
        client.messages([(f"{sender}@sender.example", f"{sender}{i}@d.example",
                          f"{fields}Subject: {i}\r\n\r\ntext\r\n") for i in range(count)])


def senders(sink):
    """Who sent what the sink took, in order."""
    return [next(f for f in row if f.endswith("@sender.example")).split("@")[0]
            for row in sink.ledger()]


def wait_for(sink, sender, count, timeout_s):
    """Seconds until count messages of sender have come."""
    start = time.monotonic()
    wait_until(f"{count} messages of {sender}", lambda: senders(sink).count(sender) >= count,
               timeout_s)
    return time.monotonic() - start


def test_priority_passes_bulk():
    """A priority message behind thousands of its own domain goes with the next turn, also of what the
    store alone has after a restart."""
    with Sink() as sink, Engine(settings(sink)) as engine:
        inject(engine, BULK, "bulk", "X-Hayauma-Priority: 7\r\n")
        wait_for(sink, "bulk", 5, 20)
        for i in range(1, 4):
            inject(engine, 1, "code", "X-Hayauma-Priority: 0\r\n")
            took = wait_for(sink, "code", i, 5)
            if took > 1.5:  # its second, and what a loaded machine needs to look
                raise Failure(f"message {i} waited {took:.1f} s")
        inject(engine, 30, "code", "X-Hayauma-Priority: 0\r\n")
        engine.kill()
        engine.start()
        before = len(senders(sink))
        wait_for(sink, "code", 33, 20)
        came = senders(sink)[before:]
        if came.count("bulk") > 5:  # what was at hand before the first load came
            raise Failure(f"behind a restart bulk went in front: {came}")


def test_tenants_share():
    """Ten messages of a small tenant wait for two turns, not for the thousands of a large one; two
    campaigns of one tenant have no more than its share."""
    with Sink() as sink, Engine(settings(sink)) as engine:
        inject(engine, BULK, "large", "X-Hayauma-Tenant: large\r\nX-Hayauma-Campaign: one\r\n")
        inject(engine, 300, "second", "X-Hayauma-Tenant: large\r\nX-Hayauma-Campaign: two\r\n")
        wait_for(sink, "large", 5, 20)
        inject(engine, 10, "small", "X-Hayauma-Tenant: small\r\n")
        before = len(senders(sink))
        wait_for(sink, "small", 10, 20)
        came = senders(sink)[before:]
        last = len(came) - came[::-1].index("small")
        if last > 2 * 10 + 5:
            raise Failure(f"the tenth came after {last}: {came}")
        wait_for(sink, "large", 20, 20)
        came = senders(sink)[before + last:]
        if abs(came.count("large") - came.count("second")) > 2:
            raise Failure(f"the campaigns do not share: {came}")


def test_weights():
    """Tenants share by weight, the campaigns of each by theirs."""
    more = {"tenants": {"large": {"weight": 3}}, "campaigns": {"one": {"weight": 2}}}
    with Sink() as sink, Engine(settings(sink, **more)) as engine:
        inject(engine, BULK, "one", "X-Hayauma-Tenant: large\r\nX-Hayauma-Campaign: one\r\n")
        inject(engine, 300, "two", "X-Hayauma-Tenant: large\r\nX-Hayauma-Campaign: two\r\n")
        inject(engine, 300, "small", "X-Hayauma-Tenant: small\r\n")
        before = len(senders(sink))
        wait_for(sink, "small", 15, 30)
        came = senders(sink)[before:]
        part = len(came) / 4
        for sender, parts in (("one", 2), ("two", 1), ("small", 1)):
            if abs(came.count(sender) - parts * part) > 3:
                raise Failure(f"{came.count(sender)} of {sender}, not about {parts * part}: {came}")


def test_a_reload_reaches_what_waits():
    """Mail that waits in memory behind a rate goes when a reload takes the rate away, and goes slowly
    when one brings it back."""
    with Sink() as sink, Engine(settings(sink)) as engine:
        engine.config["destinations"] = {"*": {"rate": "10/h"}}
        engine.reload()
        inject(engine, 100, "bulk")
        wait_for(sink, "bulk", 1, 20)
        engine.config["destinations"] = {"*": {"rate": "none"}}
        engine.reload()
        wait_for(sink, "bulk", 100, 10)
        engine.config["destinations"] = {"*": {"rate": "10/h"}}
        engine.reload()
        inject(engine, 100, "later")
        time.sleep(2)
        if senders(sink).count("later") > 1:
            raise Failure(f"{senders(sink).count('later')} went at 10 an hour")


def test_status_counts_once():
    """A destination's rows in status are those of all its flows, each once."""
    with Sink() as sink, Engine(settings(sink)) as engine:
        for sender, fields in (("a", ""), ("b", "X-Hayauma-Campaign: one\r\n"),
                               ("c", "X-Hayauma-Tenant: t\r\n"),
                               ("d", "X-Hayauma-Priority: 0\r\n")):
            inject(engine, 100, sender, fields)

        def counted():
            status = engine.status()
            return [d["rows"] for d in status["destinations"]], status["queue"]["rows"]

        rows, in_all = counted()
        if len(rows) != 1 or not in_all <= rows[0] <= 400:  # the rows are fewer by the second look
            raise Failure(f"the destinations have {rows} of {in_all} rows")


if __name__ == "__main__":
    run(globals())
