#!/usr/bin/env python3
"""Three sources that are being warmed up, in real time, with days of some seconds: whatever a kill -9
in the middle of an hour does, no source sends more than the caps of its days, by the receiver's ledger, and
each kill costs each source one part of a cap at most.

The program is one whose calendar is fast (fast_day.c). By hand, with days of two minutes:
HAYAUMA=build/dev/bin/fast_day FAST_DAY_S=120 FAST_DAYS=4 fast_days.py"""

import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from engine import Engine, Sink  # noqa: E402
from proc import Failure, TempDir, wait_until  # noqa: E402
from talk import Client, run  # noqa: E402

DAY_S = float(os.environ.get("FAST_DAY_S", "8"))
DAYS = float(os.environ.get("FAST_DAYS", "1.7"))
STEPS = [240, 330, 460, 640, 900, 1200, 1700]
KILLS = 2
# What a chunk is: 2 % of the cap, half as much again where an hour is divided evenly.
CHUNK = (STEPS[-1] + 49) // 50 * 3 // 2
SOURCES = {f"s{i}": f"127.0.0.{i + 2}" for i in range(3)}
BODY = "Subject: warm\r\n\r\ntext\r\n"


class Book:
    """What came, by source and time."""

    def __init__(self, sink, sessions):
        peers = {}
        for line in sessions.read_text().splitlines():
            _, session, peer, *_ = line.split("\t")
            peers[session] = peer.rsplit(":", 1)[0]
        self.times = {name: [] for name in SOURCES}
        for at, session, *_ in sink.ledger():
            name, = (n for n, address in SOURCES.items() if address == peers[session])
            self.times[name].append(int(at))

    def until(self, name, end_ms):
        return sum(at < end_ms for at in self.times[name])


def caps(engine, name):
    """Of its days, from the first, the present one last; and how much of them is said to be used."""
    past = sorted(engine.rows("warmup", "history", name, "--days", "10000"), key=lambda row: row["day"])
    now, = engine.rows("warmup", "status", name)
    return [row["cap"] for row in past] + [now["cap"]], sum(row["used"] for row in past) + now["used"]


def test_days():
    temp = TempDir("hayauma-fast-")
    sessions = temp.path / "sessions"
    day_ms, from_ms = int(DAY_S * 1000), int(time.time() * 1000)
    os.environ.update(HAYAUMA_TEST_DAY_MS=str(day_ms), HAYAUMA_TEST_DAY_FROM_MS=str(from_ms))
    with Sink(arguments=("--sessions", sessions)) as sink, Engine({
            "dns": sink.dns(), "sources": {n: {"ipv4": a} for n, a in SOURCES.items()},
            "pools": {"all": {"sources": {n: {"weight": 1} for n in SOURCES}}}, "default_pool": "all",
            "warmup": {"schedules": {"mine": {"steps": STEPS}},
                       "sources": {n: {"schedule": "mine"} for n in SOURCES}}}) as engine:
        with Client(engine) as client:
            count = int(sum(STEPS[:int(DAYS) + 1]) * len(SOURCES) * 1.2)
            client.messages([("a@sender.example", f"r{i}@x.example", BODY) for i in range(count)])
        for kill in range(KILLS):  # in the middle of an hour, somewhere in the second half of a day
            at_s = DAY_S * (DAYS * (kill + 1) / (KILLS + 1)) + DAY_S / 48
            wait_until("the time of the kill", lambda s=at_s: time.time() * 1000 >= from_ms + s * 1000,
                       DAYS * DAY_S + 60)
            before = len(sink.ledger())
            wait_until("some mail", lambda n=before: len(sink.ledger()) > n, DAY_S + 30)
            engine.kill()
            engine.start()
        wait_until("the days", lambda: time.time() * 1000 >= from_ms + DAYS * day_ms, DAYS * DAY_S + 60)
        for name in SOURCES:
            check_source(engine, Book(sink, sessions), name, from_ms, day_ms)
    temp.close()


def check_source(engine, book, name, from_ms, day_ms):
    """What goes late counts in an earlier day: so caps are added up."""
    of_days, used = caps(engine, name)
    sent, allowed = book.until(name, time.time() * 1000 + day_ms), 0
    for day, cap in enumerate(of_days):
        allowed += cap
        went = book.until(name, from_ms + (day + 1) * day_ms)
        if went > allowed:
            raise Failure(f"{name} sent {went} until the end of day {day}, its caps are {of_days}")
    if sent > used:  # the book is older than what the engine says
        raise Failure(f"{name} sent {sent}, and {used} count as used")
    if used - sent > KILLS * CHUNK + 2:
        raise Failure(f"{name}: {used} count as used, {sent} were sent: more than a part was lost in a kill")
    print(f"{name}: caps {of_days}, sent {[book.until(name, from_ms + (d + 1) * day_ms) for d in range(len(of_days))]}"
          f", {used} count as used")
    if DAY_S >= 60:
        for day, cap in enumerate(of_days[:-1]):
            went = book.until(name, from_ms + (day + 1) * day_ms) - book.until(name, from_ms + day * day_ms)
            if went < cap * 0.97 - KILLS * CHUNK:
                raise Failure(f"{name} sent {went} on day {day}, of {cap}")
    elif sent < of_days[0] / 2:
        raise Failure(f"{name} sent {sent}, of {of_days}")


if __name__ == "__main__":
    run(globals())
