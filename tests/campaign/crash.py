#!/usr/bin/env python3
"""A campaign that is killed with SIGKILL again and again while it is sent, and while it is cancelled.

crash.py [TEST...]

What it says at the end must equal the ledgers: its own counts, the records, and what the sink took."""

import collections
import pathlib
import random
import sys
import time

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "lib"), str(TESTS / "hostile"), str(TESTS / "http"),
                str(pathlib.Path(__file__).resolve().parent)]

from campaign import Campaigns, csv  # noqa: E402
from engine import Sink  # noqa: E402
from proc import Failure, wait_until  # noqa: E402
from talk import check, run  # noqa: E402

RECIPIENTS = 3000
ALL = {f"r{i}@x{i % 7}.example" for i in range(RECIPIENTS)}
# Slow enough to be killed in the middle.
SLOW = {"destinations": {"*": {"retry": ["1s"], "rate": "400/s", "sessions_max": 2}}, "queue": {"shards": 2}}


def final(engine, kinds):
    """Recipients of records of these kinds, each as often as it has one."""
    return collections.Counter(r["recipient"] for r in engine.records() if r["type"] in kinds)


def kill_and_start(engine):
    engine.kill()
    engine.start()


def begin(engine):
    spring = engine.create()
    engine.add(spring, csv(0, RECIPIENTS))
    engine.order(spring, "start")
    return spring


def test_sent():
    """Killed while it is sent: everybody gets a letter; twice only who was past the dot at a kill."""
    rng = random.Random(7)
    with Sink() as sink, Campaigns(sink.port, SLOW) as engine:
        spring = begin(engine)
        for kill in range(4):
            wait_until("some letters more", lambda: len(sink.ledger()) > 100 + 300 * kill)
            time.sleep(rng.random() / 5)
            kill_and_start(engine)
            check("it runs", engine.show(spring)["state"] in ("running", "done"), True)
        engine.config["destinations"] = {"*": {"retry": ["1s"]}}
        engine.reload()
        done = engine.wait_state(spring, "done", 120)
        got = collections.Counter(row[3] for row in sink.ledger())
        check("everybody", set(got), ALL)
        # A kill finds at most what two sessions had sent and a commit had not settled yet.
        twice = sum(n - 1 for n in got.values())
        if twice > 4 * 100:
            raise Failure(f"{twice} letters too many")
        check("counts", (done["recipients"], done["delivered"], done["queued"]), (RECIPIENTS, RECIPIENTS, 0))
        records = wait_until("the records", lambda: (lambda f: sum(f.values()) >= RECIPIENTS and f)(
            final(engine, ("Delivery",))))
        check("records", (set(records), set(records.values())), (ALL, {1}))


def test_cancelled():
    """Killed while what is left of it is taken off: that goes on, and the sums are right."""
    with Sink() as sink, Campaigns(sink.port, SLOW) as engine:
        spring = begin(engine)
        wait_until("some letters", lambda: len(sink.ledger()) > 50)
        engine.order(spring, "cancel")
        for _ in range(2):
            kill_and_start(engine)
        over = wait_until("the rest to be taken off", lambda: (lambda c: c["queued"] == 0 and c)(engine.show(spring)),
                          60, process=engine.process)
        check("sums", (over["state"], over["delivered"] + over["cancelled"]), ("cancelled", RECIPIENTS))
        records = wait_until("the records", lambda: (lambda f: sum(f.values()) >= RECIPIENTS and f)(
            final(engine, ("Delivery", "AdminBounce"))))
        check("records", (set(records), set(records.values())), (ALL, {1}))
        check("cancelled", sum(final(engine, ("AdminBounce",)).values()), over["cancelled"])
        got = set(row[3] for row in sink.ledger())
        check("letters", final(engine, ("Delivery",)).keys() <= got, True)
        kill_and_start(engine)
        check("over", engine.show(spring), over)
        engine.create()  # the name is free


if __name__ == "__main__":
    run(globals())
