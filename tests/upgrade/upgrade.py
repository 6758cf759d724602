#!/usr/bin/env python3
"""The engine on a queue that an earlier build left behind when it died: what was mail goes, once; what was
held or suspended waits until it is told otherwise. queue/format_test.c made the queue, and says what is in
it.

upgrade.py [TEST...]"""

import collections
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from engine import TREE, Engine, Sink  # noqa: E402
from proc import Failure, wait_until  # noqa: E402
from talk import run  # noqa: E402

# Recipients by how many letters they get.
FREE = {"user0@a.example": 4, "user1@b.example": 2, "user2@a.example": 1, "user3@b.example": 1,
        "user1@a.example": 1, "user0@d.example": 1}
HELD, SUSPENDED = "user2@c.example", "user0@s.example"


def put_queue(engine, number):
    for shard in ("shard-000", "shard-001"):
        to = engine.dir / "queue" / shard
        to.mkdir(parents=True)
        subprocess.run(["zstd", "-dq", TREE / "queue/formats" / f"{number}-{shard}.zst", "-o",
                        to / "data.mdb"], check=True, timeout=60)


def came(sink):
    return collections.Counter(row[3].strip("<>") for row in sink.ledger())


def wait_for(sink, engine, wanted):
    wait_until(f"{sum(wanted.values())} letters", lambda: came(sink).total() >= sum(wanted.values()), 30,
               process=engine.process)
    if came(sink) != collections.Counter(wanted):
        raise Failure(f"{came(sink)} came, and not {wanted}")


def test_format_3():
    with Sink() as sink:
        engine = Engine({"dns": sink.dns()})
        put_queue(engine, 3)
        with engine:
            wait_for(sink, engine, FREE)
            one, = engine.rows("queue", "suspensions")
            if (one["scope"], one["name"], one["reason"]) != ("domain", "s.example", "wait"):
                raise Failure(f"suspended: {one}")
            damaged, = engine.rows("queue", "quarantine")
            if damaged["queue"] != "q.example":
                raise Failure(f"quarantined: {damaged}")
            engine.command("queue", "release", "--all")
            wait_for(sink, engine, {**FREE, HELD: 1})
            engine.command("queue", "resume", "s.example")
            wait_for(sink, engine, {**FREE, HELD: 1, SUSPENDED: 1})
            wait_until("an empty queue", lambda: engine.status()["queue"]["rows"] == 0, 30)
            if len(engine.records("Delivery")) != 12:
                raise Failure(f"{len(engine.records('Delivery'))} deliveries are recorded")


if __name__ == "__main__":
    run(globals())
