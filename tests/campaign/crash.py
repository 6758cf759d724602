#!/usr/bin/env python3
"""A campaign that is killed with SIGKILL again and again while it is sent, and while it is cancelled.

crash.py [TEST...]

What it says at the end must equal the ledgers: its own counts, the records, and what the sink took."""

import collections
import contextlib
import pathlib
import random
import sys
import time

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "lib"), str(TESTS / "hostile"), str(TESTS / "http"),
                str(pathlib.Path(__file__).resolve().parent)]

from campaign import Campaigns, csv  # noqa: E402
from engine import Sink  # noqa: E402
from proc import Failure, TempDir, wait_until  # noqa: E402
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


WORLD = """
seed: 3
default: {}
classes:
  - {name: busy, domains: [x1.example, x2.example], defer: {rate: 30%, reply: "451 4.7.1 too much, try again later"}}
  - {name: old, domains: ["x3.example"], unknown_users: 20%}
  - {name: full, domains: ["x4.example"], mailbox_full: 10%, mailbox_full_reply: "552 5.2.2 over quota"}
  - {name: gone, domains: ["x5.example"], dns: nxdomain}
"""


def report_of(records):
    """What records say of sites and reasons, as a report says it."""
    ends = {"Delivery": "delivered", "Bounce": "failed", "Expiration": "expired", "TransientFailure": "deferrals"}
    return collections.Counter((r["site"] or "(no exchanger)", ends[r["type"]], r["bounce_classification"])
                               for r in records if r["type"] in ends and r["sender"])  # but for notices


def said_of(report):
    """The same of a report."""
    said = collections.Counter()
    for site in report["sites"]:
        if site["delivered"]:
            said[site["site"], "delivered", "Uncategorized"] = site["delivered"]
        for reason in site["reasons"]:
            for end in ("failed", "expired", "deferrals"):
                if reason[end]:
                    said[site["site"], end, reason["reason"]] = reason[end]
    return said


def test_report():
    """Killed while some are refused, deferred and not to be found: the report is that of the records."""
    with contextlib.closing(TempDir("hayauma-world-")) as temp:
        world = pathlib.Path(temp.path) / "world.yaml"
        world.write_text(WORLD)
        with Sink(behaviour=world) as sink, Campaigns(sink.port, {**SLOW, "routes": {}, "dns": sink.dns()}) as engine:
            spring = begin(engine)
            for kill in range(2):
                wait_until("some letters more", lambda: len(sink.ledger()) > 200 + 400 * kill)
                kill_and_start(engine)
            engine.config["destinations"] = {"*": {"retry": ["1s"]}}
            engine.reload()
            engine.wait_state(spring, "done", 120)
            done = engine.whole(spring)
            records = wait_until("the records", lambda: (
                lambda f: sum(f[r] for r in f if r[1] != "deferrals") >= RECIPIENTS and f)(report_of(engine.records())))
            check("sites and reasons", said_of(done["report"]), records)
            report = done["report"]
            for name in ("delivered", "failed", "expired", "deferrals"):
                check(name, sum(site[name] for site in report["sites"]), done[name])
                check(f"reasons: {name}", name == "delivered" or sum(r[name] for r in report["reasons"]) == done[name],
                      True)
            check("rate", [sum(report["rate"][n]) for n in ("delivered", "failed", "deferrals")],
                  [done["delivered"], done["failed"] + done["expired"], done["deferrals"]])
            check("times", sum(t["delivered"] for t in report["times"]), done["delivered"])
            check("all kinds", min(done[n] for n in ("delivered", "failed", "deferrals")) > 0, True)
            kill_and_start(engine)
            check("durable", engine.whole(spring), done)


if __name__ == "__main__":
    run(globals())
