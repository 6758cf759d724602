#!/usr/bin/env python3
"""Answers that teach: what rules make of refusals, against servers that say them.

rules.py [TEST...]"""

import itertools
import pathlib
import re
import sys
import threading
import time

from servers import Client, Server, USUAL, World, run, wait_until

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "dkim"))
from proc import TempDir  # noqa: E402
from setting import Keys  # noqa: E402

RATE = b"421 4.7.28 an unusual rate of mail from your IP address\r\n"


def first(stage, *answers):
    """A server that says these at the stage, one after the other, and then the usual."""
    said = iter(answers)
    return Server({stage: lambda peer: peer.sendall(next(said, USUAL[stage]))})


class Timed(Server):
    """Knows when sessions began, by address of the client."""

    def __init__(self, answers):
        self.began = []
        super().__init__(answers)

    def session(self, peer):
        self.began.append((time.monotonic(), peer.getpeername()[0]))
        super().session(peer)


def made(rules, servers, **settings):
    return World(servers, retry=settings.pop("retry", "1s"), rules=rules, **settings)


def mail(campaign, tenant="acme"):
    return (f"X-Hayauma-Campaign: {campaign}\r\nX-Hayauma-Tenant: {tenant}\r\n"
            f"From: a@sender.example\r\n\r\nx\r\n").encode()


def rule_records(world, rule):
    return [r for r in world.engine.records("Rule") if r["rule"] == rule]


def test_a_pause_outlives_a_crash():
    """Nothing to the site until its time is over, whatever happens; what waited has lost no attempt."""
    said = itertools.count()
    server = Timed({"MAIL": lambda peer: peer.sendall(RATE if next(said) == 0 else USUAL["MAIL"])})
    world = made({"busy": {"code": 421, "enhanced": "4.7.28", "suspend": "6s"}}, {"busy": server})
    world.send("busy", "u0")
    record, = wait_until("the record", lambda: rule_records(world, "busy"), 20,
                         process=world.engine.process)
    heard = time.monotonic()
    assert record["suspended"]["scope"] == "source_site" and record["response"]["code"] == 421, record
    assert record["suspended"]["name"].startswith("default@"), record
    failure, = world.records("TransientFailure", "busy")
    assert failure["rule"] == "busy" and failure["num_attempts"] == 1, failure
    one, = wait_until("the suspension", lambda: world.engine.rows("queue", "suspensions"), 10)
    assert one["who"] == "rule busy" and one["reason"].startswith("421 4.7.28 an unusual"), one
    for i in range(1, 5):
        world.send("busy", f"u{i}")
    wait_until("the reason", lambda: {r.get("wait", {}).get("scope") for r in world.engine.rows(
        "queue", "list", "busy.example")} == {"source_site"}, 10)
    assert "source_site default@" in world.engine.command("queue", "list", "busy.example")
    before = len(server.began)
    world.books.stop()
    world.engine.kill()
    world.engine.start()
    done = wait_until("deliveries", lambda: len(world.records("Delivery", "busy")) == 5 and
                      world.records("Delivery", "busy"), 40, process=world.engine.process)
    assert len(server.began) > before
    assert all(at - heard > 4.5 for at, _ in server.began[before:]), (heard, server.began)
    assert sorted(r["num_attempts"] for r in done) == [1, 1, 1, 1, 2], done
    assert world.engine.command("queue", "suspensions") == ""
    world.engine.stop()
    world.sink.stop()


def test_another_source_goes_on():
    """Of two sources one is refused: the other takes its mail, and no recipient waits for the pause."""
    server = Timed({"MAIL": lambda peer: peer.sendall(
        RATE if peer.getpeername()[0] == "127.0.0.2" else USUAL["MAIL"])})
    world = made({"busy": {"code": 421, "enhanced": "4.7.28", "suspend": "1h"}}, {"busy": server},
                 sources={"a": {"ipv4": "127.0.0.2"}, "b": {"ipv4": "127.0.0.3"}},
                 pools={"all": {"sources": {"a": {"weight": 1}, "b": {"weight": 1}}}})
    world.send("busy", "u0")
    world.send("busy", "u1")
    wait_until("two deliveries", lambda: len(world.records("Delivery", "busy")) == 2, 20)
    for i in range(2, 20):
        world.send("busy", f"u{i}")
    wait_until("deliveries", lambda: len(world.records("Delivery", "busy")) == 20, 20)
    assert {r["egress_source"] for r in world.records("Delivery", "busy")} == {"b"}
    assert len(rule_records(world, "busy")) <= 1
    # By hand it goes again.
    if rule_records(world, "busy"):
        name = rule_records(world, "busy")[0]["suspended"]["name"]
        world.engine.command("queue", "resume", "--source-site", name)
        assert world.engine.command("queue", "suspensions") == ""
    world.finish()


def test_a_suspended_source_stays_away():
    """A source that waited for its rate when it was suspended opens no session for that, although there is
    mail, which goes by the other one."""
    said = itertools.count()
    server = Timed({"MAIL": lambda peer: peer.sendall(
        RATE if peer.getpeername()[0] == "127.0.0.2" and next(said) == 2 else USUAL["MAIL"])})
    world = made({"busy": {"code": 421, "enhanced": "4.7.28", "suspend": "1h"}}, {"busy": server},
                 sources={"a": {"ipv4": "127.0.0.2"}, "b": {"ipv4": "127.0.0.3"}},
                 pools={"all": {"sources": {"a": {"weight": 1}, "b": {"weight": 1}}}},
                 destinations={"busy.example": {"rate": "2/s", "idle": "300ms"}})
    for i in range(40):
        world.send("busy", f"u{i}")
    wait_until("the pause", lambda: world.engine.command("queue", "suspensions") != "", 20)
    paused = time.monotonic()
    before = len(world.records("Delivery", "busy"))
    wait_until("the other source", lambda: len(world.records("Delivery", "busy")) >= before + 6, 20)
    late = [at - paused for at, address in server.began if address == "127.0.0.2" and at > paused + 0.1]
    assert not late, (len(late), late[:5])
    world.finish()


def test_a_netblock():
    """Two sources of one /24 are suspended by one answer; the mail goes by a third one. So are limits lowered."""
    server = Server({"MAIL": lambda peer: peer.sendall(
        USUAL["MAIL"] if peer.getpeername()[0] == "127.0.1.2" else RATE)})
    slower = Server({"MAIL": lambda peer: peer.sendall(
        USUAL["MAIL"] if peer.getpeername()[0] == "127.0.1.2" else b"451 slower\r\n")})
    world = made({"block": {"code": 421, "enhanced": "4.7.28", "suspend": "1h", "scope": "netblock"},
                  "slower": {"code": 451, "text": ["slower"], "rate": "60/min", "scope": "netblock"}},
                 {"busy": server, "slower": slower},
                 sources={"a": {"ipv4": "127.0.0.2"}, "b": {"ipv4": "127.0.0.3"},
                          "c": {"ipv4": "127.0.1.2"}},
                 pools={"all": {"sources": {n: {"weight": 1} for n in "abc"}}})
    for i in range(20):
        world.send("busy", f"u{i}")
    wait_until("deliveries", lambda: len(world.records("Delivery", "busy")) == 20, 20)
    assert {r["egress_source"] for r in world.records("Delivery", "busy")} == {"c"}
    one, = (s for s in world.engine.rows("queue", "suspensions") if s["scope"] == "netblock_site")
    assert one["name"].startswith("127.0.0.0/24@"), one
    shown = world.engine.command("route", "u@busy.example")
    assert shown.count("suspended") >= 2, shown
    world.engine.command("queue", "resume", "--netblock-site", one["name"])
    for i in range(6):
        world.send("slower", f"u{i}")
    wait_until("caps", lambda: {s["name"].split("@")[0] for s in world.engine.rows(
        "queue", "suspensions") if s["scope"] == "source_cap"} == {"a", "b"}, 20)
    world.finish()


def test_a_netblock_recovers():
    """Behind the pause of a netblock each of its sources comes back with one session, over a crash too."""
    said = itertools.count()
    server = Server({"MAIL": lambda peer: peer.sendall(RATE) if next(said) == 0 else None})
    world = made({"block": {"code": 421, "enhanced": "4.7.28", "suspend": "1h", "scope": "netblock"}},
                 {"busy": server}, sources={"a": {"ipv4": "127.0.0.2"}, "b": {"ipv4": "127.0.0.3"}},
                 pools={"all": {"sources": {n: {"weight": 1} for n in "ab"}}})
    for i in range(20):
        world.send("busy", f"u{i}")
    one, = wait_until("the suspension", lambda: world.engine.rows("queue", "suspensions"), 20)
    world.engine.command("queue", "resume", "--netblock-site", one["name"])
    world.books.stop()
    world.engine.kill()
    world.engine.start()

    def recovering():
        shown, = world.engine.rows("route", "u@busy.example")
        return {s["name"]: s.get("recovering") for s in shown["sources"]}

    wait_until("both with one session", lambda: recovering() == {"a": 1, "b": 1}, 20)
    world.engine.stop()
    world.sink.stop()


def test_a_lowered_rate():
    """Less goes, over a crash too, until the time is over or somebody ends it; every screen says why."""
    times = []

    def hear(peer):
        times.append(time.monotonic())
        peer.sendall(b"451 4.7.0 too fast\r\n" if len(times) == 1 else USUAL["RCPT"])

    def is_slow(began):
        """One a second, but for what a slow machine does to times."""
        return times[-1] - times[began] > len(times) - 1 - began - 0.7

    world = made({"fast": {"code": 451, "text": ["too fast"], "rate": "60/min", "sessions_max": 1,
                           "lowered_for": "1h"}}, {"slow": Server({"RCPT": hear})})
    world.send("slow", "u0")
    record, = wait_until("the record", lambda: rule_records(world, "fast"), 20)
    assert record["lowered"]["rate"] == 60 and record["lowered"]["period"] == 60, record
    assert record["lowered"]["sessions_max"] == 1 and "suspended" not in record, record
    one, = wait_until("the cap", lambda: world.engine.rows("queue", "suspensions"), 10)
    assert (one["scope"], one["rate"], one["who"]) == ("source_cap", "60/min", "rule fast"), one
    assert "lowered to rate 60/min, sessions_max 1: 451" in world.engine.command("queue", "suspensions")
    for i in range(1, 30):
        world.send("slow", f"u{i}")
    wait_until("the reason", lambda: "lowered by rule fast: 451 4.7.0 too fast" in
               world.engine.command("why", "slow.example"), 20)
    shown = world.engine.command("site", "show", "slow.example")
    assert "lowered to rate 60/min, sessions_max 1 by rule fast: 451" in shown, shown
    wait_until("some", lambda: len(times) > 4, 20)
    assert is_slow(1), times
    world.books.stop()
    world.engine.kill()
    began, started = len(times), time.monotonic()
    world.engine.start()
    wait_until("some more", lambda: len(times) > began + 3, 20)
    assert times[began] > started + 0.9, times  # the last one may have gone just before
    assert is_slow(began), times[began:]
    assert len(world.records("Delivery", "slow")) < 20
    world.engine.command("queue", "resume", "--source-cap", one["name"])
    wait_until("all", lambda: len(world.records("Delivery", "slow")) == 30, 10)
    assert world.engine.command("queue", "suspensions") == ""
    world.engine.stop()
    world.sink.stop()


def test_campaign_and_tenant():
    """A campaign waits at that site only; mail without a campaign waits by its tenant."""
    servers = {name: first("MAIL", b"421 4.7.28 one of your URL domains\r\n") for name in ("a", "b")}
    well = Server({})
    world = made({"links": {"code": 421, "text": ["URL domains"], "suspend": "1h", "scope": "campaign"}},
                 {**servers, "well": well})

    def submit(name, user, **more):
        with Client(world.engine) as client:
            client.expect(client.message(f"{user}@{name}.example", data=mail(**more)), 250)

    submit("a", "u0", campaign="spring")
    with Client(world.engine) as client:
        client.expect(client.message("u0@b.example", data=b"X-Hayauma-Tenant: acme\r\n\r\nx\r\n"), 250)
    wait_until("both", lambda: len(world.engine.rows("queue", "suspensions")) == 2, 20)
    scopes = {(s["scope"], s["name"].split("@")[0]) for s in world.engine.rows("queue", "suspensions")}
    assert scopes == {("campaign_site", "spring"), ("tenant_site", "acme")}, scopes
    submit("a", "u1", campaign="spring")
    submit("a", "u2", campaign="autumn")
    submit("well", "u3", campaign="spring")
    submit("b", "u4", campaign="x", tenant="acme")
    submit("b", "u5", campaign="x", tenant="beta")
    for name, user in (("a", "u2"), ("well", "u3"), ("b", "u5")):
        wait_until(f"{user} at {name}", lambda n=name, u=user: [
            r for r in world.records("Delivery", n) if r["recipient"].startswith(u)], 20)
    assert [len(world.records("Delivery", n)) for n in ("a", "b")] == [1, 1]
    world.finish()


class Busy(Server):
    """Refuses its first MAIL, then takes its time, and knows with each message how many were under way, and
    how many taken."""

    def __init__(self, refusal):
        self.said = itertools.count()
        self.refusal = refusal
        self.lock, self.now, self.done, self.most = threading.Lock(), 0, 0, []
        super().__init__({"MAIL": self.mail, "dot": self.dot})

    def begin(self):
        """What was under way when its client was killed ends first. There was never more than one, and one
        more for each that was taken."""
        time.sleep(0.3)
        with self.lock:
            assert all(now <= 1 + done for now, done in self.most), self.most
            self.now, self.done, self.most = 0, 0, []

    def mail(self, peer):
        if next(self.said) == 0:
            peer.sendall(self.refusal)
            return
        with self.lock:
            self.now += 1
            self.most.append((self.now, self.done))
        peer.sendall(USUAL["MAIL"])

    def dot(self, peer):
        time.sleep(0.1)
        with self.lock:
            self.now -= 1
            self.done += 1
        peer.sendall(USUAL["dot"])


def test_domains():
    """Mail that a refused domain signs, or has in its return path, waits at that site, or its limits there
    are lowered; other mail goes. Unsigned mail waits by its return path; with none nothing is suspended.
    Behind the pause it comes back with one message at a time, over a crash too. What an answer does not
    name means each of the three."""
    temp = TempDir("hayauma-rules-")
    keys = Keys(temp.path)
    keys.make("signs.example", kinds=("ed25519",))
    servers = {name: first("MAIL", b"421 4.7.28 your DKIM domain\r\n") for name in ("b", "c")}
    servers["a"] = Busy(b"421 4.7.28 your DKIM domain\r\n")
    servers["slow"] = first("MAIL", b"451 4.7.1 this domain is too fast\r\n")
    servers["all"] = first("MAIL", b"421 4.7.28 unusual rate\r\n")
    world = made({"dkim": {"code": 421, "text": ["DKIM domain"], "suspend": "1h",
                           "scope": "signing_domain"},
                  "slow": {"code": 451, "text": ["too fast"], "rate": "1/min", "sessions_max": 1,
                           "lowered_for": "1h", "scope": "signing_domain"},
                  "all": {"code": 421, "text": ["unusual rate"], "suspend": "1h",
                          "scope": "source_and_domains"}},
                 {**servers, "well": Server({})}, dkim={"keys": keys.rows})

    def submit(name, user, author="other.example", sender="a@path.example"):
        with Client(world.engine) as client:
            client.expect(client.message(f"{user}@{name}.example", sender=sender, data=(
                f"From: a@{author}\r\n\r\nx\r\n").encode()), 250)

    def went(name):
        return {r["recipient"].split("@")[0] for r in world.records("Delivery", name)}

    def suspended():
        return {(s["scope"], s["name"].split("@")[0]): s["name"]
                for s in world.engine.rows("queue", "suspensions")}

    submit("a", "u0", author="signs.example")
    submit("b", "u0")
    submit("c", "u0", sender="")
    wait_until("both", lambda: len(suspended()) == 2, 20)
    assert set(suspended()) == {("signer_site", "signs.example"), ("envelope_site", "path.example")}
    wait_until("what nothing names", lambda: went("c") == {"u0"}, 20)
    submit("a", "u1", author="signs.example", sender="a@else.example")
    submit("a", "u2")
    submit("b", "u3", author="signs.example")
    submit("b", "u4", sender="a@else.example")
    submit("well", "u5", author="signs.example")
    for name, user in (("a", "u2"), ("b", "u4"), ("well", "u5")):
        wait_until(f"{user} at {name}", lambda n=name, u=user: u in went(n), 20)
    assert (went("a"), went("b")) == ({"u2"}, {"u4"}), (went("a"), went("b"))
    wait_until("the reason", lambda: "signer_site signs.example@" in
               world.engine.command("queue", "list", "a.example"), 20)
    for i in range(6, 12):
        submit("a", f"u{i}", author="signs.example")
    servers["a"].begin()
    for (scope, _), name in suspended().items():
        world.engine.command("queue", "resume", f"--{scope.replace('_', '-')}", name)
    world.books.stop()
    world.engine.kill()
    servers["a"].begin()
    world.engine.start()
    wait_until("all", lambda: (len(went("a")), went("b")) == (9, {"u0", "u3", "u4"}), 20)
    servers["a"].begin()

    submit("slow", "v0", author="signs.example")
    name, = wait_until("the cap", lambda: [n for (scope, _), n in suspended().items()
                                           if scope == "signer_cap"], 20)
    assert name.startswith("signs.example@"), name
    record, = wait_until("its record", lambda: rule_records(world, "slow"), 20)
    assert (record["lowered"]["scope"], record["lowered"]["name"]) == ("signer_cap", name), record
    for i in range(1, 10):
        submit("slow", f"v{i}", author="signs.example")
        submit("slow", f"w{i}")
    wait_until("others", lambda: len({u for u in went("slow") if u[0] == "w"}) == 9, 20)
    assert len({u for u in went("slow") if u[0] == "v"}) < 6, went("slow")
    wait_until("why", lambda: f"lowered by rule slow {name}: 451 4.7.1 this" in
               world.engine.command("why", "slow.example"), 20)
    assert "signing_domain_rate 1 in 1m" in world.engine.command("why", "slow.example")
    world.engine.command("queue", "resume", "--signer-cap", name)
    wait_until("all of it", lambda: len(went("slow")) == 19, 20)

    submit("all", "x0", author="signs.example")
    three = wait_until("the three", lambda: len(suspended()) == 3 and suspended(), 20)
    assert set(three) == {("source_site", "default"), ("signer_site", "signs.example"),
                          ("envelope_site", "path.example")}, three
    wait_until("their records", lambda: sorted(r["suspended"]["scope"] for r in rule_records(world, "all")) == [
        "envelope_site", "signer_site", "source_site"], 20)
    world.engine.stop()
    world.sink.stop()
    temp.close()


def test_what_recipients_get():
    """A 5xx that defers, a 4xx that ends, a time to come again, a name, and nobody to be suppressed."""
    rules = {"rate": {"code": 550, "text": ["frequency limited"], "outcome": "deferred",
                      "suppress": False},
             "never": {"code": "4xx", "text": ["will NOT succeed"], "outcome": "failed",
                       "classification": "PolicyRelated"},
             "again": {"code": 450, "text": ["come * later"], "retry": "2s"}}
    servers = {"rate": first("RCPT", b"550 Ip frequency limited [x]\r\n"),
               "never": first("MAIL", b"451 Retrying will NOT succeed\r\n"),
               "again": first("RCPT", b"450 4.2.0 come back much later\r\n"),
               "grey": first("RCPT", b"450 4.2.0 Greylisted, see postgrey\r\n")}
    gone = {f"gone{i}": Server({"RCPT": b"550 5.1.1 <u>: User unknown\r\n"}) for i in range(4)}
    there = {"mail": Server({"MAIL": b"550 5.1.1 no such user\r\n"}), "full": Server({"RCPT": b"552 5.2.2 full\r\n"}),
             "filter": Server({"dot": b"550 5.1.1 no such user, I say\r\n"}),
             "two": Server({"dot": b"550 5.1.1 no such user\r\n"})}
    rules["filter"] = {"code": 550, "text": ["I say"], "suppress": False}
    world = made(rules, servers | gone | there, retry="1h", suppression={"hard_bounces": True})
    for name in world.servers:
        world.send(name, *("u", "v")[:1 + (name == "two")])
    bounce, = wait_until("a bounce", lambda: world.records("Bounce", "never"), 20)
    assert bounce["response"]["code"] == 451 and bounce["bounce_classification"] == "PolicyRelated"
    assert bounce["rule"] == "never" and "suppress" not in bounce, bounce
    deferred, = wait_until("a deferral", lambda: world.records("TransientFailure", "rate"), 20)
    assert deferred["response"]["code"] == 550 and deferred["rule"] == "rate", deferred
    assert deferred["suppress"] is False, deferred
    assert deferred["next_attempt"] - deferred["timestamp"] > 500, deferred  # its lifetime
    wait_until("the second try", lambda: world.records("Delivery", "again"), 20)
    for name in ("rate", "grey"):
        shown = world.engine.command("why", f"{name}.example")
        assert f"rule {'rate' if name == 'rate' else 'greylisting'} reads that" in shown, shown
    grey, = wait_until("a grey list", lambda: world.records("TransientFailure", "grey"), 20)
    assert grey["rule"] == "greylisting", grey
    assert 355 <= grey["next_attempt"] - grey["timestamp"] <= 365, grey
    nobody_is_there(world, gone, there)
    world.finish()


def nobody_is_there(world, gone, there):
    """An address that nobody has is on the list as soon as it has bounced, over a kill -9, until it is taken off."""
    listed = [f"u@{name}.example" for name in sorted(gone)]
    wait_until("all bounces", lambda: all(world.records("Bounce", name) for name in gone | there), 20)
    world.books.stop()
    time.sleep(0.5)  # what was delivered is settled
    world.engine.kill()
    world.engine.start()
    bounces = [r for name in gone | there for r in world.records("Bounce", name)]
    assert sorted(r["recipient"] for r in bounces if r.get("suppress")) == listed, bounces
    rows = world.engine.rows("suppress", "list")
    assert [r["email"] for r in rows] == listed and {r["reason"] for r in rows} == {"bounce"}, rows
    said = world.engine.command("suppress", "check", listed[0])
    assert re.search(r"for all tenants, by an answer of .*: 550 5\.1\.1 <u>: User unknown$", said.strip()), said
    assert world.engine.command("suppress", "remove", *listed[1:]).startswith("3 removed"), rows
    assert [r["email"] for r in world.engine.rows("suppress", "list")] == listed[:1]


def test_another_pool():
    """Who is refused goes on by the other pool, over a crash too; the rest stays."""
    server = Server({"RCPT": lambda peer: peer.sendall(
        b"550 5.7.1 blocked\r\n" if peer.getpeername()[0] == "127.0.0.2" else USUAL["RCPT"])})
    world = made({"moves": {"code": 550, "text": ["blocked"], "outcome": "deferred", "pool": "spare",
                            "retry": "3s"}}, {"block": server},
                 sources={"a": {"ipv4": "127.0.0.2"}, "b": {"ipv4": "127.0.0.3"}},
                 pools={"usual": {"sources": {"a": {"weight": 1}}},
                        "spare": {"sources": {"b": {"weight": 1}}}}, default_pool="usual")
    for i in range(5):
        world.send("block", f"u{i}")
    wait_until("refusals", lambda: len(world.records("TransientFailure", "block")) == 5, 20)
    world.books.stop()
    world.engine.kill()
    world.engine.start()
    done = wait_until("deliveries", lambda: len(world.records("Delivery", "block")) == 5 and
                      world.records("Delivery", "block"), 30)
    assert {(r["egress_source"], r["egress_pool"]) for r in done} == {("b", "spare")}, done
    assert all(r["egress_pool"] == "usual" for r in world.records("TransientFailure", "block"))
    assert {r["num_attempts"] for r in done} == {2}, done
    world.engine.stop()
    world.sink.stop()


def test_alarm():
    """With the third within the time, and once."""
    server = Server({"RCPT": b"550 5.7.515 no\r\n"})
    world = made({"auth": {"code": 550, "enhanced": "5.7.515", "alarm": True, "after": 3}},
                 {"auth": server})
    for i in range(2):
        world.send("auth", f"u{i}")
    wait_until("two bounces", lambda: len(world.records("Bounce", "auth")) == 2, 20)
    assert "rule.alarm" not in world.engine.log()
    for i in range(2, 9):
        world.send("auth", f"u{i}")
    wait_until("all bounces", lambda: len(world.records("Bounce", "auth")) == 9, 20)
    assert world.engine.log().count("rule.alarm") == 1, world.engine.log()
    alarm, = rule_records(world, "auth")
    assert alarm["alarm"] is True and "suspended" not in alarm, alarm
    world.finish()


if __name__ == "__main__":
    run(globals())
