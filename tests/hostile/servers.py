#!/usr/bin/env python3
"""Servers that mean no good: each costs its own sessions and nothing else.

servers.py [TEST...]"""

import contextlib
import pathlib
import re
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "faults"))
from faults import (Books, Client, Engine, Failure, Sink, TempDir, all_arrived,  # noqa: E402
                    free_port, merge, queued, rests, resident_bytes, run, settings_for, wait_until)
from talk import Listener, forwarder  # noqa: E402

LARGE = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * (4 << 20 >> 6)
STAGES = ("banner", "EHLO", "MAIL", "RCPT", "DATA", "dot")
USUAL = {"banner": b"220 bad.example ESMTP\r\n", "EHLO": b"250-bad.example\r\n250 PIPELINING\r\n",
         "MAIL": b"250 ok\r\n", "RCPT": b"250 ok\r\n", "DATA": b"354 go\r\n", "dot": b"250 taken\r\n",
         "RSET": b"250 ok\r\n", "QUIT": b"221 bye\r\n"}


def reset(peer):
    """Its close will be a RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


class Close(Exception):
    """The server ends the session here."""


class Server(Listener):
    """Answers by the book but for what `answers` says of a stage: bytes, or a function of the peer.
    `taken`: contents whose dot was answered with 250."""

    def __init__(self, answers, lmtp=False, host="127.0.0.1", port=0):
        self.answers = {**USUAL, **answers}
        self.taken, self.lmtp, self.heard = [], lmtp, []
        super().__init__(host, port)

    def say(self, peer, stage):
        answer = self.answers[stage]
        if callable(answer):
            answer(peer)
        else:
            peer.sendall(answer)

    def session(self, peer):
        with peer, contextlib.suppress(OSError, Close):
            peer.settimeout(30)
            self.say(peer, "banner")
            self.converse(peer)

    def converse(self, peer):
        """Until one of both ends the session."""
        lines = peer.makefile("rb")
        while line := lines.readline():
            verb = line.split(maxsplit=1)[0].upper().decode("latin-1") if line.strip() else ""
            self.heard.append(verb)
            if not self.answer(peer, lines, verb):
                return

    def answer(self, peer, lines, verb):
        """False when the session is over."""
        if verb in ("EHLO", "LHLO", "HELO"):
            self.say(peer, "EHLO")
        elif verb == "DATA":
            self.say(peer, "DATA")
            content = []
            while (text := lines.readline()) not in (b".\r\n", b""):
                content.append(text)
            if not text:
                return False
            self.say(peer, "dot")
            self.take(peer, b"".join(content))
        elif verb in ("MAIL", "RCPT", "RSET", "QUIT") or verb in self.answers:
            self.say(peer, verb)
        else:
            peer.sendall(b"500 what?\r\n")
        return verb != "QUIT"

    def take(self, _peer, content):
        self.taken.append(content)


# --- what a bad server does at a stage ---

def drop(peer):
    raise Close


def hard(peer):
    reset(peer)
    raise Close


def stall(peer):
    time.sleep(25)
    raise Close


def late(peer):
    """The dot's usual answer, a little later."""
    time.sleep(0.02)
    peer.sendall(USUAL["dot"])


def endless(peer):
    """A reply of continuation lines that never ends."""
    while True:
        peer.sendall(b"250-more\r\n" * 1000)


def long_line(peer):
    while True:
        peer.sendall(b"2" * 65536)


def garbage(peer):
    peer.sendall(bytes(range(256)) * 8 + b"\r\n")


def pieces(answer):
    """The usual answer, a byte at a time."""
    def say(peer):
        for byte in answer:
            peer.sendall(bytes([byte]))
            time.sleep(0.002)
    return say


BAD = {"fin": drop, "rst": hard, "stall": stall, "421": b"421 4.3.2 closing\r\n",
       "endless": endless, "long": long_line, "garbage": garbage, "nul": b"250 \0\0\r\n",
       "letters": b"abc def\r\n", "four": b"2500 ok\r\n", "lf": b"250 ok\n",
       "999": b"999 what\r\n", "empty": b"\r\n\r\n\r\n"}

TIMEOUTS = {"connect": "1s", "banner": "2s", "ehlo": "2s", "mail": "2s", "rcpt": "2s", "data": "2s",
            "body": "2s", "dot": "2s", "quit": "1s"}


class World:
    """A good sink and one bad server per domain; clients that go on sending to good domains."""

    def __init__(self, servers, retry="1s", lifetime="10m", behaviour=None, **settings):
        self.temp = TempDir("hayauma-servers-")
        self.servers = servers
        if behaviour is not None:
            (self.temp.path / "behaviour.yaml").write_text(behaviour)
            behaviour = self.temp.path / "behaviour.yaml"
        self.sink = Sink(behaviour, directory=self.temp.path / "sink").start()
        scheme = {True: "lmtp:127.0.0.1:{}", False: "[127.0.0.1]:{}"}
        self.engine = Engine(settings_for(self.sink, **merge({
            "workers": 2,
            "routes": {f"{name}.example": scheme[s.lmtp].format(s.port) for name, s in servers.items()},
            "destinations": {"*": {"retry": [retry], "lifetime": lifetime, "timeouts": TIMEOUTS}},
        }, settings)), directory=self.temp.path / "engine").start()
        self.books = Books(self.engine, pause_s=0.01)

    def send(self, name, *users):
        with Client(self.engine) as client:
            client.expect(client.message(*(f"{u}@{name}.example" for u in users or ("u",))), 250)

    def records(self, kind, name):
        return [r for r in self.engine.records(kind) if r["recipient"].endswith(f"@{name}.example")]

    def finish(self):
        """Other mail flowed all the time."""
        self.books.stop()
        wait_until("the good mail", lambda: len(
            {row[7] for row in self.sink.ledger()} - {"-"}) >= len(self.books.acknowledged), 20,
            process=self.engine.process)
        all_arrived([self.books], self.sink)
        assert not self.books.refusals and not self.books.lost
        for server in self.servers.values():
            server.close()
        self.engine.stop(timeout_s=40)
        self.sink.stop()


def test_each_fault_at_each_stage():
    """Deferred, or failed by a 5xx; never delivered, never lost; the rest of the mail flows."""
    faults = {(how, stage): Server({stage: what}) for how, what in BAD.items() for stage in STAGES
              if how not in ("nul", "lf") or stage == "DATA"}  # else they are an answer
    names = {key: f"{key[0]}-{key[1].lower()}" for key in faults}
    world = World({names[key]: server for key, server in faults.items()}, retry="1h")
    before = resident_bytes(world.engine.process.pid)
    for key in faults:
        world.send(names[key])
    for key in faults:
        wait_until(f"an outcome of {key}", lambda k=key: world.records(
            "TransientFailure", names[k]) or world.records("Bounce", names[k]), 30,
            process=world.engine.process)
    assert resident_bytes(world.engine.process.pid) - before < 64 << 20
    for key, server in faults.items():
        first = (world.records("TransientFailure", names[key]) or [None])[0]
        if first is None or first["num_attempts"] != 1:
            raise Failure(f"{key}: {first}, {world.records('Bounce', names[key])}")
        assert 400 <= first["response"]["code"] < 500, (key, first)
        assert not world.records("Delivery", names[key]), key
        assert not world.records("Bounce", names[key]), key
        assert server.sessions <= 3, (key, server.sessions)
    before = len(world.books.acknowledged)
    rests(world.engine, 2, 0.6)
    assert len(world.books.acknowledged) > before
    assert queued(world.engine) >= len(faults)
    world.finish()


def test_odd_but_well():
    """Answers a byte at a time, all of them at once, in long continuations: mail is delivered once."""
    slow = Server({stage: pieces(answer) for stage, answer in USUAL.items()})
    many = Server({"EHLO": b"".join(b"250-X%d\r\n" % i for i in range(60)) + b"250 OK\r\n",
                   "dot": b"".join(b"250-line %d\r\n" % i for i in range(60)) + b"250 taken\r\n"})
    bare = Server({stage: answer[:3] + b"\r\n" for stage, answer in USUAL.items()})
    world = World({"slow": slow, "many": many, "bare": bare})
    for name in world.servers:
        for i in range(5):
            world.send(name, f"u{i}")
    for name, server in world.servers.items():
        wait_until(f"deliveries to {name}", lambda n=name: len(world.records("Delivery", n)) == 5, 30)
        assert len(server.taken) == 5, (name, len(server.taken))
    world.finish()


def test_dot_behind_a_byte_order_mark():
    """The mark is dropped at the door; what stands behind it then begins a line, and its dot is stuffed."""
    peer = Server({"EHLO": b"250-bad.example\r\n250 8BITMIME\r\n"})
    world = World({"dots": peer})
    with Client(world.engine) as client:
        data = b"\xef\xbb\xbf.X: 1\r\nFrom: a@sender.example\r\n\r\nx\r\n"
        client.expect(client.message("u@dots.example", data=data), 250)
    wait_until("the mail", lambda: peer.taken, 20)
    assert b"\r\n..X: 1\r\n" in peer.taken[0], peer.taken
    world.finish()


def test_answers_out_of_turn():
    """Answers before their commands, 250 for DATA, 354 although nobody was accepted."""
    ahead = Server({"banner": USUAL["banner"] + b"250 hello\r\n250 ok\r\n250 ok\r\n354 go\r\n250 done\r\n"})
    no354 = Server({"DATA": b"250 ok\r\n"})
    nobody = Server({"RCPT": b"550 5.1.1 unknown\r\n", "DATA": b"354 go on then\r\n"})
    twice = Server({"MAIL": b"250 ok\r\n250 ok\r\n"})
    world = World({"ahead": ahead, "no354": no354, "nobody": nobody, "twice": twice}, retry="1h")
    for name in world.servers:
        world.send(name)
    wait_until("a bounce", lambda: world.records("Bounce", "nobody"), 20)
    assert world.records("Bounce", "nobody")[0]["response"]["code"] == 550
    for name in ("ahead", "no354"):
        wait_until(f"a deferral of {name}", lambda n=name: world.records("TransientFailure", n), 20)
        assert not world.records("Delivery", name), name
    wait_until("an outcome", lambda: world.records("TransientFailure", "twice")
               or world.records("Delivery", "twice"), 20)
    assert len(world.records("Delivery", "twice")) <= len(twice.taken)
    assert all(b"hello" not in text for text in nobody.taken), "content without recipients"
    # Its notice went to the sender.
    wait_until("the notice", lambda: any(row[3] == "a@sender.example" for row in world.sink.ledger()), 20)
    world.finish()


def test_who_is_to_blame():
    """What is no answer is told as such, and an answer that ended the session as it is: no peer closed
    anything here. Behind the dot it is lost all the same."""
    wrong = {"999": b"999 what\r\n", "letters": b"hello\r\n", "spam": b"relay denied: spam\r\n",
             "place": b"354 go\r\n"}
    servers = {f"{how}-{stage.lower()}": Server({stage: what}) for how, what in wrong.items()
               for stage in ("MAIL", "RCPT", "dot")}
    servers["place-data"] = Server({"DATA": b"250 ok\r\n"})
    servers["early-rcpt"] = Server({"RCPT": b"250 ok\r\n354 go\r\n250 taken\r\n"})
    servers["bye-dot"] = Server({"dot": b"250 2.0.0 one\r\n421 4.3.2 closing\r\n"}, lmtp=True)
    world = World(servers, retry="1h")
    for name in servers:
        world.send(name, *("one", "two", "three") if name == "bye-dot" else ("u",))
    for name in servers:
        wait_until(f"a deferral of {name}", lambda n=name: world.records("TransientFailure", n), 20)
        for first in world.records("TransientFailure", name):
            said, code = first["response"], first["response"]["enhanced_code"]
            if name == "bye-dot":
                assert (said["code"], code["detail"], said["content"]) == (421, 2, "closing"), first
                continue
            assert (said["code"], code) == (451, {"class": 4, "subject": 5, "detail": 0}), first
            assert "the peer does not speak SMTP: " in said["content"], first
            assert first["bounce_classification"] == "ProtocolErrors", first
    lost = [name for name in servers if name.endswith("-dot")]
    assert world.engine.status()["counters"]["lost"] == len(lost), lost
    world.finish()


def test_chunking_that_is_not_there():
    """CHUNKING is offered, BDAT unknown, content obeyed: nothing counts as delivered by the replies to
    it, and the next session goes without. So it does where BDAT is taken for DATA, or never fits."""
    offers = {"EHLO": b"250-deaf\r\n250-PIPELINING\r\n250 CHUNKING\r\n"}
    deaf, wrong = Server(offers), {f"is{code}": Server({**offers, "BDAT": b"%d 5.5.1 no\r\n" % code})
                                   for code in (354, 501, 503, 504)}
    world = World({"deaf": deaf, **wrong}, retry="1h")
    for name, server in wrong.items():
        world.send(name)
        wait_until(f"the mail of {name}", lambda s=server: s.taken, 20)
    data = b"X: y\r\n\r\n" + b"RSET\r\nMAIL FROM:<x@x.example>\r\nRCPT TO:<x@x.example>\r\n" * 20
    with Client(world.engine) as client:
        for i in range(20):
            client.expect(client.message(f"u{i}@deaf.example", data=data), 250)
    wait_until("all", lambda: len(world.records("Delivery", "deaf")) == 20, 20)
    assert len(deaf.taken) == 20 and all(text.endswith(data) for text in deaf.taken)
    assert not world.records("Bounce", "deaf") and not world.records("TransientFailure", "deaf")
    world.finish()


def test_lmtp_partly():
    """After the dot each recipient has its own answer."""
    def after_dot(peer):
        peer.sendall(b"250 2.0.0 one\r\n451 4.2.0 two\r\n550 5.2.1 three\r\n")

    partly = Server({"dot": after_dot}, lmtp=True)
    short = Server({"dot": lambda peer: (peer.sendall(b"250 2.0.0 one\r\n"), drop(peer))}, lmtp=True)
    world = World({"partly": partly, "short": short}, retry="1h")
    world.send("partly", "one", "two", "three")
    wait_until("three outcomes", lambda: world.records("Delivery", "partly") and world.records(
        "TransientFailure", "partly") and world.records("Bounce", "partly"), 20)
    for kind, user in (("Delivery", "one"), ("TransientFailure", "two"), ("Bounce", "three")):
        assert [r["recipient"] for r in world.records(kind, "partly")] == [f"{user}@partly.example"]
    wait_until("the notice", lambda: any(row[3] == "a@sender.example" for row in world.sink.ledger()), 20)
    world.send("short", "one", "two")
    wait_until("two outcomes", lambda: world.records("Delivery", "short") and world.records(
        "TransientFailure", "short"), 20)
    assert [r["recipient"] for r in world.records("Delivery", "short")] == ["one@short.example"]
    assert [r["recipient"] for r in world.records("TransientFailure", "short")] == ["two@short.example"]
    world.finish()


def test_administration_in_flight():
    """What is asked for while a recipient is in a transaction is done when that did not deliver it."""
    def when_told(then):
        return lambda peer: told.wait(20) and then(peer)

    told = threading.Event()
    later = when_told(lambda peer: peer.sendall(b"451 4.2.0 later\r\n"))
    taken = when_told(lambda peer: peer.sendall(b"250 taken\r\n"))
    lost = when_told(drop)
    jobs = ("hold", "cancel", "expire")
    servers = {f"{job}-{how}": Server({"dot": does}) for job in jobs
               for how, does in (("later", later), ("taken", taken), ("lost", lost))}
    servers |= {f"{job}-early": Server({"MAIL": lost}) for job in jobs}  # never tried
    world = World(servers, retry="2s", destinations={  # nobody's patience ends before they are told
        "*": {"timeouts": {**TIMEOUTS, "mail": "60s", "data": "60s", "dot": "60s"}}})
    for name in servers:
        world.send(name)
    for name, server in servers.items():
        wait_until(f"{name} in flight", lambda s=server: "DATA" in s.heard or "early" in name, 20)
    for name in servers:
        said = world.engine.command("queue", name.partition("-")[0], f"{name}.example", "--yes")
        assert said.startswith("1 recipient"), (name, said)
    told.set()
    for job, kind in (("hold", "AdminHold"), ("cancel", "AdminBounce"), ("expire", "Expiration")):
        for how in ("later", "lost", "early"):
            name = f"{job}-{how}"
            wait_until(f"{kind} of {name}", lambda k=kind, n=name: world.records(k, n), 20)
            assert world.records("TransientFailure", name), name
    for job in jobs:
        wait_until(f"delivery of {job}-taken", lambda j=job: world.records("Delivery", f"{j}-taken"), 20)
    time.sleep(3)  # longer than a retry
    for job in jobs:
        for how in ("later", "lost", "early"):
            assert servers[f"{job}-{how}"].sessions == 1, (job, how)
        assert not world.records("AdminBounce", f"{job}-taken")
    world.finish()


PAIR = ("127.0.4.1", "127.0.4.2")
PAIR_ZONE = ("classes: [{name: pair, domains: [pair.example], exchangers: 2, address: "
             f"[{PAIR[0]}, {PAIR[1]}]}}]\n")
FULL, LATER = b"452 4.3.1 disk full\r\n", b"421 4.3.2 later\r\n"
NEVER = b"521 5.3.2 no mail here\r\n"


def test_no_eight_bits():
    """One message for many, in transactions of their own: each gets it once, all in the same 7 bits."""
    old = Server({"EHLO": b"250-old.example\r\n250 LIMITS RCPTMAX=1\r\n"})
    names = [f"old{i}" for i in range(20)]
    world = World({}, routes={f"{n}.example": f"[127.0.0.1]:{old.port}" for n in names})
    with Client(world.engine) as client:
        client.expect(client.message(*(f"u@{n}.example" for n in names), data=(
            "Subject: old\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
            "Content-Transfer-Encoding: 8bit\r\n\r\n早馬\r\n").encode()), 250)
    wait_until("deliveries", lambda: all(world.records("Delivery", n) for n in names), 20)
    assert len(old.taken) == len(names), len(old.taken)
    assert len(set(old.taken)) == 1 and b"\r\n5pep6aasDQo=\r\n" in old.taken[0], old.taken[0]
    old.close()
    world.finish()


def test_next_host():
    """What another host may do better goes there at once; the rest is not tried there."""
    better = (("banner", LATER), ("banner", b"554 5.7.1 not you\r\n"), ("banner", NEVER),
              ("banner", drop), ("EHLO", LATER), ("EHLO", drop), ("MAIL", LATER), ("RCPT", LATER),
              ("MAIL", FULL), ("DATA", FULL), ("dot", FULL), ("MAIL", drop), ("RCPT", drop),
              ("DATA", drop),
              ("banner", b"421 4.7.0 too many connections from you\r\n"))  # a second later
    same = (("dot", drop),
            ("MAIL", b"451 4.7.28 too fast\r\n"), ("RCPT", b"450 4.2.1 mailbox busy\r\n"))
    pairs, routes = {}, {}
    for kind, answers in (("better", better), ("same", same)):
        for i, (stage, answer) in enumerate(answers):
            port = free_port(PAIR)
            name = f"{kind}-{stage.lower()}-{i}"
            routes[f"{name}.example"] = f"pair.example:{port}"
            pairs[name] = (Server({stage: answer}, host=PAIR[0], port=port),
                           Server({}, host=PAIR[1], port=port))
    world = World({}, retry="1h", behaviour=PAIR_ZONE, routes=routes)
    for name in pairs:
        world.send(name)
    for name, (bad, good) in pairs.items():
        wait_until(f"an outcome of {name}", lambda n=name: world.records("Delivery", n)
                   or world.records("TransientFailure", n), 30, process=world.engine.process)
        kind = "Delivery" if name.startswith("better") else "TransientFailure"
        found = world.records(kind, name)
        if len(found) != 1 or found[0]["num_attempts"] != 1:
            raise Failure(f"{name}: {world.records('TransientFailure', name)}, {found}")
        assert bad.sessions == 1, (name, bad.sessions)
        assert len(good.taken) == (kind == "Delivery"), (name, good.sessions)
    for pair in pairs.values():
        for server in pair:
            server.close()
    world.finish()


def test_sessions_of_a_shared_exchanger():
    """Domains that have one exchanger in common use one session, one after the other."""
    port = free_port(PAIR)
    shared, other = (Server({}, host=host, port=port) for host in PAIR)
    routes = {"both.example": f"pair.example:{port}", "one.example": f"[{PAIR[0]}]:{port}",
              "limited.example": f"[{PAIR[0]}]:{port}"}
    world = World({}, behaviour=PAIR_ZONE, routes=routes, workers=1, destinations={
        "limited.example": {"sessions_max": 1}, "*": {"idle": "20s"}})
    for i, name in enumerate(("both", "one", "both", "one", "limited", "both")):
        world.send(name, f"u{i}")
        wait_until(f"delivery {i}", lambda n=name, k=i: any(
            r["recipient"].startswith(f"u{k}@") for r in world.records("Delivery", n)), 10)
    names = {r["peer_address"]["name"] for r in world.records("Delivery", "one")}
    assert names == {f"[{PAIR[0]}]"}, names
    assert (shared.sessions, other.sessions) == (2, 0), (shared.sessions, other.sessions)
    shared.close()
    other.close()
    world.finish()


def test_ports_are_sites():
    """Two servers behind ports of one host have names, and limits, of their own."""
    servers = {"one": Server({}), "two": Server({})}
    sites = {name: f"[127.0.0.1]:{s.port}" for name, s in servers.items()}
    world = World(servers, destinations={"site:" + sites["two"]: {"session_messages_max": 1},
                                         "*": {"idle": "20s"}})
    for i in range(2):
        for name in servers:
            world.send(name, f"u{i}")
            wait_until(f"delivery {i}", lambda n=name, k=i: len(world.records("Delivery", n)) > k, 10)
    for name, site in sites.items():
        assert {r["site"] for r in world.records("Delivery", name)} == {site}
    assert (servers["one"].sessions, servers["two"].sessions) == (1, 2)
    world.finish()


def test_no_mail_ever():
    """521 of all hosts ends what waits; of one alone it does not."""
    routes, servers = {}, {}
    for name, second in (("all", {"banner": NEVER}),
                         ("one", {"banner": LATER})):
        port = free_port(PAIR)
        routes[f"{name}.example"] = f"pair.example:{port}"
        for host, answers in zip(PAIR, ({"banner": NEVER}, second)):
            servers[name, host] = Server(answers, host=host, port=port)
    world = World({}, retry="1h", behaviour=PAIR_ZONE, routes=routes)
    for name in ("all", "one"):
        world.send(name, "one", "two")
    wait_until("two bounces", lambda: len(world.records("Bounce", "all")) == 2, 20)
    wait_until("a deferral", lambda: world.records("TransientFailure", "one"), 20)
    assert world.records("Bounce", "all")[0]["response"]["code"] == 521
    assert not world.records("Bounce", "one") and not world.records("TransientFailure", "all")
    for server in servers.values():
        server.close()
    world.finish()


def test_domains_of_one_host():
    """Domains that share a host share transactions, as far as it takes them (RFC 9422); the session
    that heard that it is too much ends."""
    def recipient(peer):
        peer.sendall(b"250 ok\r\n" if asked else b"450 4.7.28 too much mail from you\r\n")

    asked = [True]
    host = Server({"EHLO": b"250-bad.example\r\n250 LIMITS RCPTDOMAINMAX=2\r\n", "RCPT": recipient})
    names = ("one", "two", "three", "four")
    world = World({}, retry="1h", queue={"shards": 1}, routes={
        f"{n}.example": f"[127.0.0.1]:{host.port}" for n in names})
    with Client(world.engine) as client:
        client.expect(client.message(*(f"u@{n}.example" for n in names)), 250)
        wait_until("four deliveries", lambda: all(world.records("Delivery", n) for n in names), 20)
        assert host.heard.count("MAIL") == 2, host.heard
        asked.clear()
        host.heard.clear()
        client.expect(client.message(*(f"v@{n}.example" for n in names)), 250)
        wait_until("four deferrals", lambda: all(
            world.records("TransientFailure", n) for n in names), 20)
        wait_until("QUIT", lambda: "QUIT" in host.heard, 3)
    host.close()
    world.finish()


TOO_MUCH = b"421 4.7.28 our system has detected an unusual rate of mail\r\n"


def refusals_of(world, name):
    return len(world.records("TransientFailure", name))


def test_every_refusal_is_an_attempt():
    """A session that has delivered something is no excuse: 421 at RCPT is recorded and costs its
    recipient, and nobody else, the retry time."""
    sessions = {}

    def second(peer):
        sessions[peer] = sessions.get(peer, 0) + 1
        if sessions[peer] > 1:
            refused.append(1)
            peer.sendall(TOO_MUCH)
            raise Close
        peer.sendall(b"250 ok\r\n")

    refused = []
    deaf = Server({"RCPT": second})
    world = World({"deaf": deaf}, retry="1h")
    with Client(world.engine) as client:
        for i in range(60):
            client.expect(client.message(f"u{i}@deaf.example"), 250)
    wait_until("an outcome of each", lambda: len(world.records("Delivery", "deaf")) +
               refusals_of(world, "deaf") == 60, 20)
    assert len(refused) == refusals_of(world, "deaf"), (len(refused), refusals_of(world, "deaf"))
    assert len(deaf.taken) >= 25, len(deaf.taken)
    world.finish()


def test_stops_when_nothing_gets_through():
    """The eighth refusal in a row stops the destination: one message at a time, further and further
    apart, and nobody else is tried. The first success lets all go on."""
    def rcpt(peer):
        peer.sendall(TOO_MUCH if asked else b"250 ok\r\n")
        if asked:
            raise Close

    asked = [True]
    stop = Server({"RCPT": rcpt})
    world = World({"stop": stop}, retry="1h", lifetime="2h")
    with Client(world.engine) as client:
        for i in range(100):
            client.expect(client.message(f"u{i}@stop.example"), 250)
    wait_until("the stop", lambda: refusals_of(world, "stop") >= 8, 10)
    time.sleep(3)
    count = stop.heard.count("RCPT")
    assert 9 <= count <= 12, count  # two workers may have had one each under way
    assert refusals_of(world, "stop") == count
    asked.clear()
    wait_until("the rest", lambda: len(world.records("Delivery", "stop")) >= 100 - count - 1, 20)
    assert refusals_of(world, "stop") <= count + 1
    world.finish()


def test_one_connection_only():
    """A second connection that is refused does not stop the one that works, nor is it asked for again
    with each message."""
    def greet(peer):
        if len(alive) >= 1:
            refused.append(1)
            peer.sendall(b"421 4.7.0 too many connections\r\n")
            raise Close
        alive.append(peer)
        peer.sendall(USUAL["banner"])

    def gone(peer):
        alive.remove(peer)
        peer.sendall(USUAL["QUIT"])

    alive, refused = [], []
    one = Server({"banner": greet, "dot": late, "QUIT": gone})
    world = World({"one": one}, retry="1h")
    with Client(world.engine) as client:
        for i in range(100):
            client.expect(client.message(f"u{i}@one.example"), 250)
    wait_until("all", lambda: len(world.records("Delivery", "one")) == 100, 30)
    assert not world.records("TransientFailure", "one")
    assert len(refused) <= 8, len(refused)
    world.finish()


class Few(Server):
    """Has so many sessions at once, answers late, and resets what connects besides."""

    def __init__(self, limit):
        self.limit, self.alive, self.room = limit, 0, threading.Lock()
        super().__init__({"dot": late})

    def session(self, peer):
        with self.room:
            refused = self.alive >= self.limit
            self.alive += not refused
        if refused:
            reset(peer)
            peer.close()
            return
        super().session(peer)
        with self.room:
            self.alive -= 1


def test_few_connections_in_a_tight_memory():
    """Connections that are refused keep no mail from those that work, also where memory is short: there
    a destination that cannot send holds nothing."""
    count, stalled, go = 200, [], threading.Event()

    def stall(peer):
        stalled.append(peer)
        go.wait(60)
        peer.sendall(USUAL["dot"])

    world = World({"few": Few(4), "stuck": Server({"dot": stall})}, retry="1h", workers=1,
                  queue={"memory_max": "16MiB"},
                  destinations={"stuck.example": {"timeouts": {"dot": "90s"}}})
    with Client(world.engine) as client:
        for i in range(2):  # memory is short beyond half of it
            client.expect(client.message(f"u{i}@stuck.example", data=LARGE), 250)
        wait_until("the stuck ones", lambda: len(stalled) == 2, 20)
        for i in range(count):
            client.expect(client.message(f"u{i}@few.example"), 250)
    wait_until("all", lambda: len(world.records("Delivery", "few")) == count, 25)
    assert not world.records("TransientFailure", "few")
    go.set()
    world.finish()


def test_the_only_connection_is_shared():
    """A peer that takes one connection and resets the next ones: mail of both workers goes out in turns,
    not that of one after that of the other."""
    domains, count = 20, 3000

    def seen():
        return {re.search(rb"X-Domain: (\d+)", text)[1] for text in list(few.taken)}

    few = Few(1)
    world = World({"*.few": few}, retry="1h")
    with Client(world.engine) as client:
        client.messages([("a@sender.example", f"u{i}@d{i % domains}.few.example",
                          f"X-Domain: {i % domains}\r\n\r\nx\r\n") for i in range(count)])
    wait_until("mail of all domains, or much of some", lambda: len(seen()) == domains or
               len(few.taken) > count / 4, 60, process=world.engine.process)
    assert len(seen()) == domains, (len(few.taken), seen())
    world.finish()


def test_answer_in_the_midst_of_content():
    """A peer that answers before it has all, and closes: the send fails before the answer is received,
    and the answer counts all the same."""
    class Hasty(Server):
        """Says 552 to a message in its midst."""
        def session(self, peer):
            with peer, contextlib.suppress(OSError):
                self.say(peer, "banner")
                lines = peer.makefile("rb")
                while line := lines.readline():
                    verb = line[:4].decode()
                    if verb in ("DATA", "BDAT"):
                        peer.sendall(b"" if verb == "BDAT" else USUAL["DATA"])
                        lines.read(100_000)
                        peer.sendall(b"552 5.3.4 too large\r\n")
                        return
                    self.say(peer, verb)

    count, names = 6, {"data": USUAL["EHLO"], "bdat": b"250-bad.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n"}
    world = World({name: Hasty({"EHLO": offers}) for name, offers in names.items()}, retry="1h")
    with Client(world.engine) as client:
        for i in range(count):
            for name in names:
                client.expect(client.message(f"u{i}@{name}.example", data=LARGE), 250)
    for name in names:
        wait_until("an outcome of each", lambda n=name: len(
            world.records("Bounce", n) + world.records("TransientFailure", n)) >= count, 20)
        answers = [r["response"]["code"] for r in world.records("Bounce", name)]
        assert answers == [552] * count, (name, answers, world.records("TransientFailure", name)[:1])
    world.finish()


def test_a_restart_is_no_limit():
    """A peer that restarts ends all sessions at about the same number of messages: that is no limit of
    messages per session, which would be kept to for an hour."""
    class Restarting(Server):
        """Begins to take leave at the 30th message, of the sessions that have brought some by then."""
        restart = 30

        def __init__(self):
            self.old, self.open, self.ends = set(), set(), []
            super().__init__({})

        def session(self, peer):
            taken = 0
            with peer, contextlib.suppress(OSError):
                self.say(peer, "banner")
                lines = peer.makefile("rb")
                while line := lines.readline():
                    verb = line[:4].decode()
                    if verb == "MAIL" and peer in self.old:
                        self.ends.append(taken)
                        peer.sendall(b"421 4.3.2 shutting down\r\n")
                        return
                    self.say(peer, verb)
                    if verb == "DATA":
                        self.taken.append(b"".join(iter(lines.readline, b".\r\n")))
                        taken += 1
                        self.open.add(peer)
                        if len(self.taken) == self.restart:
                            self.old |= self.open
                        time.sleep(0.02)
                        self.say(peer, "dot")

    world = World({"again": Restarting()}, retry="1h", workers=1)
    again = world.servers["again"]
    with Client(world.engine) as client:
        for first in (0, 200):
            before = again.sessions
            for i in range(first, first + 200):
                client.expect(client.message(f"u{i}@again.example"), 250)
            wait_until("all", lambda n=first: len(again.taken) == n + 200, 30)
    assert len(again.ends) > len(set(again.ends)), again.ends  # some at the same number
    assert again.sessions - before <= 25, (again.sessions - before, again.ends)
    world.finish()


def test_limit_of_a_session_by_any_code():
    """A session that may bring two messages says so to the third: 550 or 452, it fails and delays nobody."""
    class Limited(Server):
        def session(self, peer):
            mails = 0

            def mail(peer):
                nonlocal mails
                mails += 1
                peer.sendall(USUAL["MAIL"] if mails <= 2 else self.limit + b" too many messages in this session\r\n")
            self.answers["MAIL"] = mail
            super().session(peer)

    servers = {}
    for name, limit in (("plain", b"550 5.5.3"), ("piped", b"452 4.5.3")):
        offers = {"plain": b"250 bad.example\r\n"}.get(name, USUAL["EHLO"])
        servers[name] = Limited({"EHLO": offers})
        servers[name].limit = limit
    world = World(servers, retry="1h", destinations={"*": {"sessions_max": 1}})
    with Client(world.engine) as client:
        for i in range(6):
            for name in servers:
                client.expect(client.message(f"u{i}@{name}.example"), 250)
    for name, server in servers.items():
        wait_until(f"all of {name}", lambda n=name: len(world.records("Delivery", n)) == 6, 20)
        assert not world.records("Bounce", name) + world.records("TransientFailure", name), name
        assert server.sessions <= 4, (name, server.sessions)
    world.finish()


def test_exchanger_is_this_host():
    """DNS leads back to us: one attempt and a bounce, not a hundred rounds. We are known by our address,
    whatever a listener calls itself, and by each of our names where somebody else forwards to us. Nor is
    anybody on this host's loopback addresses given what DNS leads there (port 25)."""
    temp = TempDir("hayauma-servers-")
    for by in ("address", "name", "loopback"):
        with Sink(directory=temp.path / by / "sink") as sink:  # for its DNS
            engine = Engine(settings_for(sink, bounce={"postmaster": "p@sender.example"}),
                            directory=temp.path / by / "engine")
            engine.config["listeners"][0]["host_name"] = "mx.other.example"
            engine.config["dns"]["port"] = {"address": engine.port, "loopback": 25}.get(by) or forwarder(engine.port)
            with engine:
                with Client(engine) as client:
                    client.expect(client.message("u@d1.example", sender="a@sender.example"), 250)
                wait_until("two bounces", lambda e=engine: len(e.records("Bounce")) == 2, 20)  # and of its notice
                assert len(engine.records("Reception")) == 2
                assert not engine.records("Delivery")
                counters = engine.status()["counters"]
                assert (counters["failed"], counters["notices_failed"]) == (1, 1), counters
                for record in engine.records("Bounce"):
                    assert record["peer_address"]["addr"] == "127.0.0.1", record
                    said = record["response"]
                    assert (said["code"], said["enhanced_code"]) == (
                        521, {"class": 5, "subject": 4, "detail": 6}), record
                    assert f"our own {'name' if by == 'name' else 'address'}" in said["content"], record


def test_expiry_behind_a_bad_server():
    """What a bad server never takes is returned when its time is over."""
    world = World({"rst": Server({"MAIL": hard}), "close": Server({"banner": drop})}, lifetime="4s")
    for name in world.servers:
        world.send(name)
    for name in world.servers:
        wait_until(f"the end of {name}", lambda n=name: world.records("Expiration", n)
                   or world.records("Bounce", n), 30)
    wait_until("two notices", lambda: sum(
        row[3] == "a@sender.example" for row in world.sink.ledger()) == 2, 20)
    for record in world.engine.records("Expiration"):
        response = record["response"]
        assert (response["code"], response["command"]) == (554, None), response
        assert response["content"].startswith("message expired; last error: 4"), response
    world.finish()


def test_expiry_whatever_it_waits_for():
    """A lifetime ends in time while mail waits for a greeting, a rate, a session or a back-off, in memory
    and behind a full window, and record and notice say what it waited for."""
    answers = {"greeting": {"banner": lambda peer: time.sleep(60)}, "rate": {},
               "session": {"dot": lambda peer: time.sleep(60)},
               "backoff": {"RCPT": b"450 4.7.1 too much, try again later\r\n"}}
    reasons = {"greeting": "a session: no connection, or no greeting yet", "rate": "the rate limit",
               "session": "a session: as many as may be are busy"}
    world = World({name: Server(a) for name, a in answers.items()}, lifetime="5s", queue={"window": 10},
                  destinations={"*": {"timeouts": {"banner": "60s", "dot": "60s"}, "sessions_max": 1},
                                "rate.example": {"rate": "1/1h"}, "backoff.example": {"retry": ["1h"]}})
    for name in answers:
        world.send(name, "first")
    time.sleep(0.5)
    for name in answers:
        for i in range(30):
            world.send(name, f"u{i}")
    for name, reason in reasons.items():
        wait_until(f"the end of {name}", lambda n=name: len(world.records("Expiration", n)) >= 30, 50)
        said = {r["response"]["content"] for r in world.records("Expiration", name)}
        assert any(f"expired; it waited for {reason}" in text for text in said), (name, said)
        for record in world.records("Expiration", name):
            late_ms = record["timestamp_ms"] - record["created"] * 1000 - 5000
            assert late_ms < 45000, (name, late_ms)
    wait_until("the notices", lambda: sum(
        row[3] == "a@sender.example" for row in world.sink.ledger()) >= 90, 20)
    world.finish()


def test_warning_under_a_site_pattern():
    """Mail is late by the lifetime that its domain gave it, whatever its site's settings come with."""
    world = World({"slow": Server({"RCPT": b"450 4.2.0 later\r\n"})}, lifetime="2s", destinations={
        "site:*": {"sessions_max": 1}, "slow.example": {"lifetime": "1h"}, "*": {"warn_after": "1s"}})
    world.send("slow")
    wait_until("a delay notice", lambda: any(
        row[3] == "a@sender.example" for row in world.sink.ledger()), 10)
    world.finish()


def test_sessions_are_not_kept():
    """idle: 0 ends a session that has no work; a rate opens none before its time."""
    swift, slow = Server({}), Server({})
    world = World({"swift": swift, "slow": slow}, destinations={
        "*": {"idle": 0}, "slow.example": {"rate": "2/s"}})
    for name in world.servers:
        for i in range(6):
            world.send(name, f"u{i}")
    for name, server in world.servers.items():
        wait_until(f"deliveries to {name}", lambda n=name: len(world.records("Delivery", n)) == 6, 20)
        assert len(server.taken) == 6 and server.sessions <= 9, (name, server.sessions)
    world.finish()


def test_gone_right_behind_the_greeting():
    """What comes with the reply to EHLO or HELO and ends the session makes it one that never was: an
    attempt and back-off, not the next connection at once."""
    def ehlo(behind):
        return Server({"EHLO": USUAL["EHLO"] + behind})

    def helo_only():
        answers = iter([b"500 what?\r\n", b"250 ok\r\n250 more\r\n"] * 100)
        return Server({"EHLO": lambda peer: peer.sendall(next(answers))})

    def closing(peer):
        peer.sendall(USUAL["EHLO"])
        raise Close

    def closing_at_helo(peer):
        """Refuses EHLO for a reason, and does not wait for more."""
        peer.sendall(b"550 5.7.1 your address is listed\r\n")
        raise Close

    servers = {"listed": Server({"EHLO": closing_at_helo}), "shut": ehlo(b"421 4.3.2 shutting down\r\n"), "stray": ehlo(b"250 ok\r\n"),
               "noise": ehlo(b"garbage\r\n"), "helo": helo_only(), "fin": Server({"EHLO": closing})}
    world = World(servers, retry="1h")
    for name in servers:
        world.send(name)
    for name, server in servers.items():
        wait_until(f"a deferral of {name}", lambda n=name: world.records("TransientFailure", n), 20)
        first = world.records("TransientFailure", name)[0]
        assert (400 <= first["response"]["code"] < 500 or name == "listed") and first["num_attempts"] == 1, first
    code = world.records("TransientFailure", "shut")[0]["response"]
    assert (code["code"], code["content"]) == (421, "shutting down"), code
    listed = world.records("TransientFailure", "listed")[0]["response"]
    assert (listed["code"], listed["command"]) == (550, "EHLO"), listed
    assert listed["content"] == "your address is listed", listed
    time.sleep(2)
    for name, server in servers.items():
        assert server.sessions <= 3, (name, server.sessions)
    world.finish()


if __name__ == "__main__":
    run(globals())
