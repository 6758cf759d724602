#!/usr/bin/env python3
"""Rate, pool and priority of a campaign that runs are changed, by command and by HTTP.

settings.py [TEST...]"""

import pathlib
import sys
import time

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "lib"), str(TESTS / "hostile"), str(TESTS / "http"),
                str(pathlib.Path(__file__).resolve().parent)]

import json  # noqa: E402
import subprocess  # noqa: E402

from campaign import ROOT, SPRING, Campaigns, csv  # noqa: E402
from engine import Sink, program  # noqa: E402
from proc import Failure, wait_until  # noqa: E402
from talk import check, run  # noqa: E402

POOLS = {"sources": {"a": {"ipv4": "127.0.0.1"}, "b": {"ipv4": "127.0.0.2"}}, "default_pool": "bulk",
         "pools": {"bulk": {"sources": {"a": {"weight": 1}}}, "other": {"sources": {"b": {"weight": 1}}}},
         "queue": {"shards": 2}}


def slowly(rate):
    return {**POOLS, "destinations": {"*": {"retry": ["1s"], "rate": rate, "sessions_max": 1}}}


def change(engine, campaign, want=200, **settings):
    status, _, text = engine.ask("PATCH", f"{ROOT}/{campaign}", settings)
    check(f"{settings} {text}", status, want)
    return json.loads(text)


def sources_of(engine, campaign):
    """From which sources its letters went, in their order."""
    return [r["egress_source"] for r in sorted(engine.records("Delivery"), key=lambda r: r["timestamp_ms"])
            if r["meta"]["campaign"] == campaign]


def test_pool():
    """What waits goes by the pool that is set, at once; over a kill; and back again."""
    with Sink() as sink, Campaigns(sink.port, slowly("100/s")) as engine:
        spring = engine.create()
        engine.add(spring, csv(0, 3000, 3))
        engine.order(spring, "start")
        wait_until("letters by the first pool", lambda: len(sources_of(engine, "spring")) > 20)
        check("set", engine.rows("campaign", "set", "spring", "pool=other", "priority=2")[0]["pool"], "other")
        shown = engine.show(spring)
        check("shown", (shown["pool"], shown["priority"]), ("other", 2))
        rows = engine.rows("queue", "list", "--id", spring, "--limit", "20")
        check("its rows", {(row["pool"], row["priority"]) for row in rows}, {("other", 2)})
        (why,) = engine.rows("why", spring)
        check("why", {hold["pool"] for hold in why["holds"]}, {"other"})
        # What was under way may still go out by the first.
        wait_until("letters by the other pool", lambda: sources_of(engine, "spring")[-20:] == ["b"] * 20)
        engine.kill()
        engine.start()
        check("still", (engine.show(spring)["pool"], engine.show(spring)["priority"]), ("other", 2))
        before = len(sources_of(engine, "spring"))
        wait_until("letters behind the restart", lambda: len(sources_of(engine, "spring")) > before + 20)
        check("by the other pool", set(sources_of(engine, "spring")[before:]), {"b"})
        check("back", change(engine, spring, pool="bulk", priority=5)["pool"], "bulk")
        wait_until("letters by the first pool again", lambda: sources_of(engine, "spring")[-20:] == ["a"] * 20)


def test_priority():
    """A campaign that gets a better priority overtakes the other."""
    # One shard: each worker's mail has its turns, and a part of a list is one worker's.
    one = {**slowly("60/s"), "queue": {"shards": 1}}
    with Sink() as sink, Campaigns(sink.port, one) as engine:
        spring, news = engine.create(), engine.create(name="news")
        for one in (spring, news):
            engine.add(one, csv(0, 2000, 1))
            engine.order(one, "start")

        def both():
            return engine.show(spring)["delivered"], engine.show(news)["delivered"]

        wait_until("letters of both", lambda: min(both()) > 10)
        change(engine, news, priority=1)
        # A few of the other had been taken out already.
        before = both()
        wait_until("the one of a better priority", lambda: both()[1] > before[1] + 120)
        after = both()
        if after[0] - before[0] > 60:
            raise Failure(f"{before}, then {after}: the other one went on")


def test_rate():
    """A rate holds over all sites, at once and over a restart; without it all goes out."""
    more = {**POOLS, "destinations": {"*": {"retry": ["1s"]}}}
    with Sink() as sink, Campaigns(sink.port, more) as engine:
        spring, news = engine.create(rate="40/s"), engine.create(name="news")
        engine.add(spring, csv(0, 5000, 50))
        engine.add(news, csv(0, 500, 50))
        check("made with a rate", engine.show(spring)["rate"], "40/s")
        began = time.monotonic()
        engine.order(spring, "start")
        engine.order(news, "start")

        def sent():
            return engine.show(spring)["delivered"]

        def check_rate(rate):
            took = time.monotonic() - began
            if (count := sent()) > rate * took + 20:
                raise Failure(f"{count} letters in {took:.2f} s, at {rate}/s")

        engine.wait_state(news, "done")  # the other one has no rate
        wait_until("letters", lambda: sent() > 80)
        check_rate(40)
        engine.kill()
        engine.start()
        before = sent()
        wait_until("letters behind the restart", lambda: sent() > before + 40)
        check_rate(40)
        check("faster", engine.rows("campaign", "set", "spring", "rate=1k/s")[0]["rate"], "1000/s")
        before = sent()
        wait_until("more letters", lambda: sent() > before + 300)
        check("without", "rate" in change(engine, spring, rate="none"), False)
        engine.wait_state(spring, "done", 120)


def test_rate_while_it_runs():
    """A rate that is set while the mail of many domains is ready holds from then on, and nobody minds."""
    with Sink() as sink, Campaigns(sink.port, slowly("300/s")) as engine:
        spring = engine.create()
        engine.add(spring, csv(0, 6000, 50))
        engine.order(spring, "start")

        def sent():
            return engine.show(spring)["delivered"]

        wait_until("letters", lambda: sent() > 50)
        change(engine, spring, rate="20/s")
        time.sleep(0.5)  # what was under way
        before, began = sent(), time.monotonic()
        wait_until("letters at the rate", lambda: sent() > before + 30)
        if (took := time.monotonic() - began) < 1:
            raise Failure(f"30 letters in {took:.2f} s, at 20/s")
        change(engine, spring, rate="none")
        before = sent()
        wait_until("letters without", lambda: sent() > before + 300)


def test_reload_while_letters_are_made():
    """A reload takes queues off their sites, also those whose only letter the crew is rendering."""
    slow = "{% for i in range(1500) %}{% if i == name %}{{ i }}{% endif %}{% endfor %}{{ code }}"
    with Sink() as sink, Campaigns(sink.port, {**POOLS, "workers": 1}) as engine:
        spring = engine.create(content={**SPRING["content"], "text_body": slow})
        engine.add(spring, csv(0, 800, 400))
        engine.order(spring, "start")
        while engine.show(spring)["delivered"] < 750:
            engine.reload()
        engine.wait_state(spring, "done")
        check("letters", len(sink.ledger()), 800)


def test_refused():
    """What cannot be set is refused, with why; what is over takes nothing."""
    with Sink() as sink, Campaigns(sink.port, POOLS) as engine:
        spring = engine.create()
        for settings, status in (({"rate": "fast"}, 422), ({"rate": "0/s"}, 422), ({"rate": 5}, 400),
                                 ({"pool": "none"}, 422), ({"priority": 10}, 422), ({"name": "x"}, 400)):
            change(engine, spring, status, **settings)
        check("as before", change(engine, spring), engine.show(spring))
        for arguments, status in (((), 2), (("rate=fast",), 1), (("pool=none",), 1), (("priority=10",), 2),
                                  (("speed=1",), 2)):
            done = subprocess.run([program(), "campaign", "set", "spring", *arguments, "-c", engine.file],
                                  capture_output=True, timeout=60, check=False)
            check(f"{arguments} {done.stderr}", (done.returncode, done.stderr != b""), (status, True))
        check("a draft", engine.rows("campaign", "set", "spring", "rate=5/min")[0]["rate"], "5/min")
        engine.order(spring, "start")
        engine.wait_state(spring, "done")
        change(engine, spring, 409, priority=1)
        check("the next one of this name", "rate" in engine.show(engine.create()), False)


if __name__ == "__main__":
    run(globals())
