#!/usr/bin/env python3
"""Receivers that defer, limit and close, as bench/run throttling has them: what they get, counted.

throttling.py [TEST...]"""

import pathlib
import subprocess
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "faults"), str(TESTS / "lib")]
from engine import beside  # noqa: E402
from faults import Client, Engine, Sink, TempDir, run, settings_for, wait_until  # noqa: E402

COUNT = 200
TOO_MUCH = "451 4.7.1 too much, try again later"


class World:
    """COUNT messages to a sink that behaves so; nobody is tried a second time."""

    def __init__(self, behaviour):
        self.temp = TempDir("hayauma-throttling-")
        (self.temp.path / "behaviour.yaml").write_text(f"default: {{{behaviour}}}\n")
        self.sink = Sink(self.temp.path / "behaviour.yaml", directory=self.temp.path / "sink").start()
        self.engine = Engine(settings_for(self.sink, workers=2, destinations={
            "*": {"retry": ["1h"]}}), directory=self.temp.path / "engine").start()
        with Client(self.engine) as client:
            for i in range(COUNT):
                client.expect(client.message(f"u{i}@d1.example"), 250)

    def records(self, kind):
        return len(self.engine.records(kind))

    def all_tried(self, seconds=90):
        wait_until("an outcome of each", lambda: self.records("Delivery") + self.records(
            "TransientFailure") >= COUNT, seconds, process=self.engine.process)
        return self.records("Delivery"), self.records("TransientFailure")

    def finish(self):
        recipients = [row[3] for row in self.sink.ledger()]
        assert len(set(recipients)) == self.records("Delivery"), (len(recipients), self.records("Delivery"))
        assert len(recipients) == len(set(recipients)), "a message came twice"
        self.engine.stop(timeout_s=40)
        self.sink.stop()


def test_some_are_refused():
    """2 %, and half of them: each costs one recipient, and nobody waits for another's."""
    for rate, least, most in ((2, 0, 20), (50, 60, 140)):
        world = World(f"defer: {{rate: {rate}%, reply: '{TOO_MUCH}'}}")
        delivered, deferred = world.all_tried()
        assert delivered + deferred == COUNT and least <= deferred <= most, (rate, delivered, deferred)
        world.finish()


def test_one_connection():
    """One connection, and every tenth recipient ends it."""
    world = World("connections_max: 1, defer: {rate: 10%, reply: '421 4.7.0 try again later'}")
    delivered, deferred = world.all_tried()
    assert delivered + deferred == COUNT and deferred <= 50, (delivered, deferred)
    world.finish()


def test_limits_of_messages():
    """Two a session by 421, twenty by a close without a word: no failure of anybody."""
    for behaviour in ("messages_per_session: 2, without: [limits]", "close_after: 20",
                      "close_after: 20, without: [chunking]",
                      "close_after: 20, without: [chunking, pipelining]"):
        world = World(behaviour)
        delivered, deferred = world.all_tried()
        assert (delivered, deferred) == (COUNT, 0), (behaviour, delivered, deferred)
        counters = world.engine.status()["counters"]
        assert counters["lost"] == 0 and counters["deferred"] == 0, (behaviour, counters)
        world.finish()


def test_workers_share_sessions():
    """Two workers with mail for one host of few sessions: who has more than its share gives back what is
    over it, not all of it; and keeps its share over the pauses of a burst."""
    count, sessions_max = 20_000, 40
    with Sink() as sink, Engine(settings_for(
            sink, workers=2, routes={"*": f"[{sink.host}]:{sink.port}"},
            destinations={"*": {"sessions_max": sessions_max, "session_messages_max": 0}})) as engine:
        done = subprocess.run(
            [beside(), "source", "--to", f"{engine.host}:{engine.port}", "--messages", str(count),
             "--sessions", "64", "--pipeline", "8", "--size", "1024", "--rcpt-domains", "100"],
            capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        wait_until("all delivered", lambda: engine.status()["counters"]["delivered"] == count, 140,
                   process=engine.process)
        connects = engine.status()["counters"]["connects"]
        assert connects <= 4 * sessions_max, f"{connects} connections for {sessions_max} sessions"


if __name__ == "__main__":
    run(globals())
