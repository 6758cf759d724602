#!/usr/bin/env python3
"""Warm-up: a source that is being warmed up sends its share of the hour and no more, over crashes and
reloads; what waits for it says so; what an operator orders is done.

warmup.py [TEST...]"""

import json
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from engine import Engine, Sink  # noqa: E402
from proc import Failure, wait_until  # noqa: E402
from talk import Client, run  # noqa: E402

# A day of 24 has one or two for each hour, far apart: the first one goes at once, no second one soon.
# Of 12 million a day 500k to 1M are an hour's, 140 to 280 a second, in chunks of 1,400 to 2,800.
SMALL, LARGE = 24, 12_000_000
BODY = "Subject: warm\r\n\r\ntext\r\n"


def settings(sink, cap, **more):
    return {"dns": sink.dns(),
            "sources": {"new": {"ipv4": "127.0.0.1"}},
            "warmup": {"schedules": {"mine": {"steps": [cap, cap + 1, cap + 2]}},
                       "sources": {"new": {"schedule": "mine"}}, **more}}


def inject(engine, count, domain="x.example"):
    with Client(engine) as client:
        client.messages([("a@sender.example", f"r{i}@{domain}", BODY) for i in range(count)])


def came(sink):
    return len(sink.ledger())


def streams(engine, *arguments):
    return engine.rows("warmup", "status", *arguments)


def hour():
    return int(time.time() // 3600)


def share_of(engine):
    one, = streams(engine)
    return one["hour_share"]


def nothing_more(sink, before, seconds=1):
    time.sleep(seconds)
    if came(sink) != before:
        raise Failure(f"{came(sink) - before} more went than the share of the hour")


def test_cap():
    """One of 40 goes; the others say what they wait for; two crashes let no more go than the share."""
    began = hour()
    with Sink() as sink, Engine(settings(sink, SMALL)) as engine:
        inject(engine, 40)
        wait_until("the first of the hour", lambda: came(sink) >= 1)
        share = share_of(engine)
        nothing_more(sink, 1 + hour() - began)
        text = engine.command("queue", "list", "x.example", "--limit", "5")
        if f": 1 of {SMALL} today" not in text and hour() == began:
            raise Failure(f"the list does not say why:\n{text}")
        row = engine.status()["destinations"][0]
        # The next of the hour goes when the pace lets it, minutes from now.
        if row["wait"]["reason"] != "warmup" or row["wait"]["until_ms"] <= time.time() * 1000 + 60000:
            raise Failure(f"status says {row}")
        for _ in range(2):
            engine.kill()
            engine.start()
            time.sleep(1)
        if came(sink) > share * (1 + hour() - began):
            raise Failure(f"{came(sink)} went in crashes, the share is {share}")
        one, = streams(engine)
        if (one["source"], one["provider"], one["stage"], one["cap"]) != ("new", "default", 1, SMALL):
            raise Failure(f"after a restart: {one}")


def test_recipients_count():
    """A message for 50 recipients is sent to one."""
    began = hour()
    with Sink() as sink, Engine(settings(sink, SMALL)) as engine:
        with Client(engine) as client:
            client.expect(client.message(*(f"r{i}@x.example" for i in range(50)),
                                         data=BODY.encode()), 250)
        wait_until("the first", lambda: came(sink) >= 1)
        nothing_more(sink, 1 + hour() - began)
        one, = streams(engine)
        if one["delivered"] != came(sink):
            raise Failure(f"{came(sink)} went, {one}")


def test_answers_count():
    """What the peer says of recipients is counted; what it never looked at is taken again, and counts once."""
    behaviour = {"classes": [{"name": "shy", "domains": ["shy.example"], "address": "127.0.0.5",
                              "close_after": 3},
                             {"name": "no", "domains": ["no.example"], "unknown_users": "100%"}]}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(behaviour, file)
        file.flush()
        with Sink(behaviour=file.name) as sink, Engine(
                {**settings(sink, LARGE), "destinations": {"*": {"retry": ["1s"]}}}) as engine:
            inject(engine, 120, "shy.example")
            inject(engine, 10, "no.example")
            engine.wait_records("Bounce", 10)
            engine.wait_records("Delivery", 130)  # with ten notices
            one, = streams(engine)
            if (one["delivered"], one["bounced"], one["deferred"]) != (130, 10, 0):
                raise Failure(f"counted: {one}")
            again = len(engine.records("TransientFailure"))
            if not 140 <= one["used"] <= 140 + again:
                raise Failure(f"{one['used']} are said to be used for 140 recipients")


def test_stop():
    """What is answered while the engine stops counts behind the restart, and what was leased and not spent is
    given back."""
    behaviour = {"classes": [{"name": "full", "domains": ["full.example"], "address": "127.0.0.5",
                              "latency": {"rcpt": "1s"}, "defer": "100%"}]}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(behaviour, file)
        file.flush()
        with Sink(behaviour=file.name) as sink, Engine(settings(sink, LARGE)) as engine:
            inject(engine, 1)
            wait_until("the first", lambda: came(sink) == 1)
            inject(engine, 5, "full.example")
            time.sleep(0.3)
            if engine.process.stop(30) != 0:
                raise Failure(engine.process.tail())
            deferred = len(engine.records("TransientFailure"))
            engine.start()
            one, = streams(engine)
            if not deferred or (one["delivered"], one["deferred"], one["used"]) != (1, deferred, 1 + deferred):
                raise Failure(f"{deferred} were deferred: {one}")


def test_pace():
    """A large cap: spread evenly, and counted right over two crashes."""
    with Sink() as sink, Engine(settings(sink, LARGE)) as engine:
        inject(engine, 3000)
        wait_until("some", lambda: came(sink) >= 100)
        share = share_of(engine)
        first, began = came(sink), time.monotonic()
        time.sleep(3)
        rate = (came(sink) - first) / (time.monotonic() - began)
        if rate > share / 3600 * 1.25:
            raise Failure(f"{rate:.0f} a second, the share of the hour is {share / 3600:.0f}")
        for _ in range(2):
            engine.kill()
            engine.start()
            before = came(sink)
            wait_until("it goes on", lambda: came(sink) > before + 100)
        engine.command("queue", "suspend", "x.example")
        time.sleep(1)
        one, = streams(engine)
        sent, chunk = came(sink), share // 360 + 2
        # What a crash loses counts as sent. A transaction that it cut may have been sent twice.
        if not sent - 100 <= one["used"] <= sent + 2 * chunk + 100:
            raise Failure(f"{sent} went, {one['used']} are counted, a chunk is {chunk}")


def test_overflow():
    """What the cap leaves goes by the other sources of the pool, then by its overflow; nothing else goes by
    the overflow, the first message neither, for which no lease is stored yet."""
    for pools in ({"all": {"sources": {"new": {"weight": 9}, "old": {"weight": 1}}}},
                  {"all": {"sources": {"new": {"weight": 1}}, "overflow": "spare"},
                   "spare": {"sources": {"old": {"weight": 1}}}}):
        with Sink() as sink, Engine({**settings(sink, SMALL), "pools": pools, "default_pool": "all",
                                     "sources": {"new": {"ipv4": "127.0.0.2"},
                                                 "old": {"ipv4": "127.0.0.3"}}}) as engine:
            began = hour()
            def by():
                return [r["egress_source"] for r in engine.records("Delivery")]

            def has_lease():  # while it is being stored the other source has the mail
                inject(engine, 1)
                return "new" in by()

            if "overflow" in pools["all"]:
                inject(engine, 1)
                wait_until("the first", by)
                if by() != ["new"]:
                    raise Failure(f"the first message went by {by()}")
            else:
                wait_until("the new source's first lease", has_lease)
            before = len(by())
            inject(engine, 100)
            wait_until("the rest", lambda: len(by()) >= before + 100)
            if not 1 <= by().count("new") <= 1 + hour() - began:
                raise Failure(f"{by().count('new')} of {len(by())} went by the new source")


def test_engaged():
    """Only marked mail goes by the new source, once: what is deferred there goes on by the old one."""
    behaviour = {"classes": [{"name": "grey", "domains": ["grey.example"], "address": "127.0.0.5",
                              "greylist": "1s"}]}
    pools = {"bulk": {"sources": {"old": {"weight": 1}}, "engaged": "fresh"},
             "fresh": {"sources": {"new": {"weight": 1}}, "overflow": "bulk", "attempts_max": 1}}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(behaviour, file)
        file.flush()
        with Sink(behaviour=file.name) as sink, Engine(
                {**settings(sink, LARGE), "pools": pools, "default_pool": "bulk",
                 "sources": {"new": {"ipv4": "127.0.0.2"}, "old": {"ipv4": "127.0.0.3"}},
                 "destinations": {"*": {"retry": ["2s"]}}}) as engine:
            def went(kind, domain):
                return [(r["egress_pool"], r["egress_source"]) for r in engine.records(kind)
                        if r["recipient"].endswith(domain)]

            def want(*users, mark="yes"):
                with Client(engine) as client:
                    client.messages([("a@sender.example", user, f"X-Hayauma-Engaged: {mark}\r\n{BODY}")
                                     for user in users])

            want("u@first.example")
            wait_until("the first", lambda: went("Delivery", "first.example"))
            if went("Delivery", "first.example") != [("fresh", "new")]:
                raise Failure(f"the first engaged message: {went('Delivery', 'first.example')}")
            inject(engine, 20)
            want("n@not.example", mark="no")
            want("g@grey.example", *(f"w{i}@want.example" for i in range(20)))
            wait_until("all", lambda: len(went("Delivery", "x.example")) == 20 and
                       len(went("Delivery", "want.example")) == 20 and
                       went("Delivery", "not.example") and went("Delivery", "grey.example"))
            plain = went("Delivery", "x.example") + went("Delivery", "not.example")
            if set(plain) != {("bulk", "old")}:
                raise Failure(f"without a mark: {plain}")
            if set(went("Delivery", "want.example")) != {("fresh", "new")}:
                raise Failure(f"marked: {went('Delivery', 'want.example')}")
            if went("TransientFailure", "grey.example")[0][0] != "fresh" or \
                    went("Delivery", "grey.example") != [("bulk", "old")]:
                raise Failure(f"{went('TransientFailure', 'grey.example')}, "
                              f"{went('Delivery', 'grey.example')}")


def test_reload():
    """A larger cap counts at once, a smaller one too, and none without warm-up."""
    with Sink() as sink, Engine(settings(sink, SMALL)) as engine:
        inject(engine, 3000)
        wait_until("the first", lambda: came(sink) >= 1)
        engine.config["warmup"]["schedules"]["mine"]["steps"] = [LARGE]
        engine.reload()
        wait_until("more than a small cap", lambda: came(sink) > 100)
        engine.config["warmup"]["schedules"]["mine"]["steps"] = [SMALL]
        engine.reload()
        time.sleep(1)  # what was on its way
        nothing_more(sink, came(sink))
        if not any("of 24 today" in line for line in
                   engine.command("queue", "summary").split("\n")):
            raise Failure(engine.command("queue", "summary"))
        engine.config["warmup"]["sources"] = {}
        engine.reload()
        wait_until("all", lambda: came(sink) == 3000)


def test_orders():
    """Stages, pauses and complaints by command, kept over a crash; a reload in flight."""
    with Sink() as sink, Engine(settings(sink, SMALL)) as engine:
        inject(engine, 200)
        wait_until("the first", lambda: came(sink) >= 1)
        engine.command("warmup", "set", "new", "default", "--stage", "2")
        engine.command("warmup", "pause", "new")
        engine.command("feedback", "new", "default", "--complaints", "3")
        if engine.wait_records("Feedback")[0]["complaints"] != 3:
            raise Failure(f"{engine.records('Feedback')}")
        engine.kill()
        engine.start()
        one, = streams(engine, "new")
        if (one["stage"], one["paused"], one["complained"], one["verdict"]) != (2, True, 3, "set"):
            raise Failure(f"after orders: {one}")
        if "; stays in this stage" not in engine.command("warmup", "status", "new") or \
                one["next_cap"] != one["cap"]:
            raise Failure(engine.command("warmup", "status", "new"))
        caps = [[row["caps"]["default"] for row in engine.rows(
            "warmup", "plan", "new", "--mix", "default=100", *now) if "caps" in row]
            for now in ([], ["--now"])]
        if caps != [[SMALL, SMALL + 1, SMALL + 2, None], [SMALL + 1]]:  # a stream that is paused stays
            raise Failure(f"the plan: {caps}")
        for wrong, says in ((["set", "new", "--stage", "9"], "no such stage"),
                            (["start", "nobody"], "there is no source 'nobody'"),
                            (["set", "nwe", "--stage", "1"], "did you mean 'new'?"),
                            (["history", "nobody"], "there is no source 'nobody'"),
                            (["status", "signer:x.example"], "warmup.signing_domains does not name it"),
                            (["status", "new", "gogle"], "did you mean 'google'?"),
                            (["plan", "signer:x.example"], "warmup.signing_domains of the configuration"),
                            (["plan", "--mix", "google=50,google=50"], "'google' is there twice"),
                            (["plan", "--mix", "gogle=100"], "did you mean 'google'?"),
                            (["set", "new", "--stage", "0"], "'0' is no number from 1 to"),
                            (["start", "new", "google"], "'new' has sent nothing to provider google")):
            try:
                engine.command("warmup", *wrong)
            except Failure as failure:
                if says in str(failure):
                    continue
                raise
            raise Failure(f"{wrong} was done")
        engine.command("warmup", "history", "new", "google")
        engine.command("warmup", "set", "new", "--stage", "4")
        wait_until("no cap any more", lambda: came(sink) == 200)
        one, = streams(engine)
        if one["cap"] is not None:
            raise Failure(f"behind the last stage: {one}")


if __name__ == "__main__":
    run(globals())
