#!/usr/bin/env python3
"""Servers whose words, pace or memory are odd: a reply is judged by its code, waited for as long as
its stage says, and no refusal leads one message's content to another's recipient.

replies.py [TEST...]"""

import concurrent.futures
import contextlib
import re
import select
import socket
import threading
import time

from servers import Client, Close, Server, TIMEOUTS, USUAL, World, run, wait_until


def texts_for(code):
    """Replies that say `code`, in the ways in which text can be wrong."""
    other = b"550" if code[:1] == b"2" else b"250"
    return {"line": code + b" " + b"x" * 3000 + b"\r\n",
            "huge": code + b" " + b"x" * 300000 + b"\r\n",
            "lines": b"".join(code + b"-" + b"y" * 900 + b"\r\n" for _ in range(200)) + code + b" z\r\n",
            "glued": code + b"ok\r\n", "plus": code + b"+ok\r\n", "tab": code + b"\tok\r\n",
            "bare": code + b"\r\n", "lf": code + b" ok\n",
            "nul": code + b" a\0b\r\n", "eight": code + b" caf\xe9 \xff\xfe\x80\r\n",
            "control": code + b" a\rb\x1b[31m\x7f\r\n",
            "codes": other + b"-5.1.1 x\r\n421-y\r\n" + code + b" z\r\n",
            "noise": code + b"-a\r\nb\r\n\r\n999 c\r\n" + code + b" d\r\n"}


def positive(how):
    answers = {stage: texts_for(answer[:3])[how] for stage, answer in USUAL.items()}
    answers["EHLO"] = b"250-bad.example\r\n250-PIPELINING\r\n" + texts_for(b"250")[how]
    return answers


def test_the_code_is_the_verdict():
    """Whatever stands behind the codes, at every stage: what is taken is delivered once, what is refused
    bounces, and the text is cut and harmless in the records."""
    servers = {}
    for how in texts_for(b"250"):
        servers[f"{how}-well"] = Server(positive(how))
        servers[f"{how}-lmtp"] = Server(positive(how), lmtp=True)
        for stage in ("RCPT", "dot"):
            servers[f"{how}-{stage.lower()}"] = Server({stage: texts_for(b"550")[how]})
    world = World(servers, retry="1s")
    for name in servers:
        world.send(name)
    for name, server in servers.items():
        kind = "Delivery" if name.endswith(("-well", "-lmtp")) else "Bounce"
        wait_until(f"{kind} of {name}", lambda k=kind, n=name: world.records(k, n), 20,
                   process=world.engine.process)
        response = world.records(kind, name)[0]["response"]
        assert response["code"] == (250 if kind == "Delivery" else 550), (name, response)
        assert len(response["content"].encode()) <= 3 * 500, name  # 8-bit bytes become U+FFFD
        assert not re.search(r"[\x00-\x1f\x7f]", response["content"]), (name, response)
    time.sleep(2)  # longer than a retry
    for name, server in servers.items():
        assert server.sessions == 1, (name, server.sessions)
        assert not world.records("TransientFailure", name), (name, world.records("TransientFailure", name))
        if name.endswith("-rcpt"):  # at most the lone dot of RFC 2920 3.1
            assert not any(server.taken), (name, server.taken)
        else:
            assert len(server.taken) == 1, (name, len(server.taken))
    world.finish()


def test_what_was_said_is_told():
    """What is no reply, or only the beginning of one, stands in the record and in the notice."""
    def cut(text):
        def say(peer):
            peer.sendall(text)
            raise Close
        return say

    said = {"never": (b"220-x\r\n521 we take no mail\r\n", 521, "x we take no mail"),
            "ssh": (b"SSH-2.0-OpenSSH_9.2\r\n", 451, "SSH-2.0-OpenSSH_9.2"),
            "tls": (b"\x15\x03\x01\x00\x02\r\n", 451, "?????"),
            "half": (cut(b"220-moment please\r\n"), 451, "an unfinished reply: moment please"),
            "part": (cut(b"we are clo"), 451, "an unfinished reply: we are clo"),
            "slow": (lambda peer: (peer.sendall(b"220-wait\r\n"), time.sleep(20)), 451,
                     "timed out: an unfinished reply: wait")}
    home = Server({})
    servers = {name: Server({"banner": answer}) for name, (answer, _, _) in said.items()}
    # Long enough for the three sessions, 1 s and 2 s apart, before an attempt counts.
    world = World({**servers, "home": home}, lifetime="8s", destinations={
        "slow.example": {"lifetime": "14s", "timeouts": {**TIMEOUTS, "banner": "1s"}}})
    for name in servers:
        with Client(world.engine) as client:
            client.expect(client.message(f"u@{name}.example", sender=f"{name}@home.example"), 250)
    for name, (_, code, words) in said.items():
        kind = "Bounce" if code == 521 else "TransientFailure"
        wait_until(f"{kind} of {name}", lambda k=kind, n=name: world.records(k, n), 20)
        response = world.records(kind, name)[0]["response"]
        assert response["code"] == code and words in response["content"], (name, response)
        wait_until(f"the notice of {name}", lambda n=name, w=words: any(
            w in " ".join(text.decode().split()) for text in home.taken if f"u@{n}.example".encode() in text),
            30, process=world.engine.process)
    world.finish()


def test_a_dripped_reply_ends():
    """A whole line each half second is no progress: the reply as a whole has the time of its stage."""
    cut = {}

    def drip(stage, code):
        def say(peer):
            began = time.monotonic()
            try:
                for _ in range(60):
                    peer.sendall(code + b"-patience\r\n")
                    time.sleep(0.5)
            except OSError:
                cut[stage] = time.monotonic() - began
                raise
        return say

    servers = {stage.lower(): Server({stage: drip(stage, answer[:3])}) for stage, answer in USUAL.items()
               if stage not in ("RSET", "QUIT")}
    world = World(servers, retry="1h")
    for name in servers:
        world.send(name)
    for name in servers:
        wait_until(f"a deferral of {name}", lambda n=name: world.records("TransientFailure", n), 15,
                   process=world.engine.process)
        first = world.records("TransientFailure", name)[0]
        assert first["response"]["code"] == 451 and "timed out" in first["response"]["content"], first
    wait_until("the ends", lambda: len(cut) == len(servers), 10)
    assert all(1.5 < seconds < 12 for seconds in cut.values()), cut
    assert world.engine.status()["counters"]["lost"] == 1  # the dot's
    world.finish()


LONG, SHORT = "90s", "2s"
STAGES = {"banner": "banner", "ehlo": "EHLO", "mail": "MAIL", "rcpt": "RCPT", "data": "DATA", "dot": "dot",
          "quit": "QUIT"}


def until_cut(ends, name):
    """Says nothing until the client hangs up; how long that took."""
    def wait(peer):
        began = time.monotonic()
        peer.settimeout(0.2)
        with contextlib.suppress(ConnectionError):
            while "over" not in ends:
                with contextlib.suppress(TimeoutError):
                    if not peer.recv(65536):
                        break
        ends[name] = time.monotonic() - began
        raise Close
    return wait


def test_each_stage_has_its_timeout():
    """A server that falls silent at a stage is left after that stage's time, be it shorter or longer than
    all others: two routes for each stage, with settings of their own."""
    ends, servers, settings = {}, {}, {}
    for stage, answer in STAGES.items():
        for kind, own, others in (("short", SHORT, LONG), ("long", LONG, SHORT)):
            name = f"{kind}-{stage}"
            servers[name] = Server({answer: until_cut(ends, name)})
            settings[f"{name}.example"] = {"idle": 0, "timeouts": {
                **dict.fromkeys(TIMEOUTS, others), stage: own}}
    world = World(servers, retry="1h", destinations=settings)
    for name in servers:
        world.send(name)
    shorts = {n for n in servers if n.startswith("short")}
    for name in shorts:
        wait_until(f"the end of {name}", lambda n=name: n in ends, 30, process=world.engine.process)
    time.sleep(3)  # the others' time and more
    assert set(ends) == shorts, ends
    assert all(1.8 < seconds < 20 for seconds in ends.values()), ends
    ends["over"] = 0
    world.finish()


class Reader(Server):
    """Takes content at a rate, through a small window; 0: not at all. Silent: then says nothing."""

    def __init__(self, rate, offers=b"", silent=False):
        self.rate, self.silent, self.had_ms, self.end_ms = rate, silent, 0, 0
        super().__init__({"EHLO": b"250-reader\r\n" + offers + b"250 X\r\n"})
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

    def wait_for_end(self, peer):
        """Without a look at what comes: the client's end shows as a reset, or as one's own failing write."""
        poll = select.poll()
        poll.register(peer, select.POLLRDHUP)
        poll.poll(80_000)
        self.end_ms = time.monotonic() * 1000
        raise Close

    def read(self, peer, end):
        got = b""
        while not end(got):
            if self.rate == 0:
                self.had_ms = time.monotonic() * 1000
                self.wait_for_end(peer)
            piece = peer.recv(16384)
            if not piece:
                raise Close
            got += piece
            time.sleep(len(piece) / self.rate)
        self.had_ms = time.monotonic() * 1000
        if self.silent:
            self.wait_for_end(peer)
        peer.sendall(b"250 taken\r\n")
        self.taken.append(got)

    def line(self, peer):
        got = b""
        while not got.endswith(b"\n"):
            byte = peer.recv(1)
            if not byte:
                raise Close
            got += byte
        return got

    def session(self, peer):
        with peer, contextlib.suppress(OSError, Close):
            peer.sendall(b"220 reader\r\n")
            while line := self.line(peer):
                verb = line[:4].decode()
                if verb == "BDAT":
                    size = int(line.split()[1])
                    self.read(peer, lambda got: len(got) >= size)
                else:
                    self.say(peer, verb)
                    if verb == "DATA":
                        self.read(peer, lambda got: got.endswith(b"\r\n.\r\n"))


def test_slow_and_stuck_bodies():
    """Content that is taken steadily goes on, however long it takes; a peer that takes nothing is left after
    `body`, and one that has all and says nothing after `dot`."""
    chunking = b"250-PIPELINING\r\n250-CHUNKING\r\n"
    readers = {}
    for how, offers in (("data", b""), ("bdat", chunking)):
        readers |= {f"slow-{how}": Reader(400_000, offers), f"stuck-{how}": Reader(0, offers),
                    f"mute-{how}": Reader(2_000_000, offers, silent=True)}
    settings = {f"slow-{how}.example": {"timeouts": {"body": "2s", "dot": "2s"}} for how in ("data", "bdat")}
    settings |= {f"stuck-{how}.example": {"timeouts": {"body": "4s", "dot": "60s"}} for how in ("data", "bdat")}
    settings |= {f"mute-{how}.example": {"timeouts": {"body": "60s", "dot": "4s"}} for how in ("data", "bdat")}
    world = World(readers, retry="1h", destinations=settings)
    data = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * 77000  # 6 MB
    for name in readers:
        with Client(world.engine) as client:
            client.expect(client.message(f"u@{name}.example", data=data), 250)
    for name, reader in readers.items():
        kind = "Delivery" if name.startswith("slow") else "TransientFailure"
        wait_until(f"{kind} of {name}", lambda k=kind, n=name: world.records(k, n), 60,
                   process=world.engine.process)
        assert reader.sessions == 1, (name, reader.sessions)
        if kind == "Delivery":
            assert len(reader.taken) == 1 and len(reader.taken[0]) > len(data)
            continue
        wait_until(f"the end at {name}", lambda r=reader: r.end_ms, 10)
        seconds = (reader.end_ms - reader.had_ms) / 1000
        assert 2.5 < seconds < 20, (name, seconds)
        said = world.records(kind, name)[0]["response"]["content"]
        assert "while sending the message: timed out" in said, said
    world.finish()


class Keeping(Server):
    """Refuses at one stage what `refuses` says of a user, and keeps the transaction open then, with the
    recipients that it has. `delivered`: recipients and content of what it took. Answers a RCPT when
    `go` is set: until then it `waits`. So the client goes on when it has that answer and not the end's."""

    def __init__(self, stage, offers, lmtp=False):
        self.stage, self.delivered, self.waits, self.go = stage, [], False, threading.Event()
        lines = b"".join(b"250-" + o + b"\r\n" for o in [b"keeping", *offers])
        super().__init__({"EHLO": lines + b"250 X\r\n"}, lmtp)

    def refuses(self, address):
        kind, number = re.match(r"(\w)(\d+)@", address).groups()
        return int(number) % 2 == 1 or kind == "v"

    def end(self, peer, mail, content):
        """The end of a message; True when it was taken by anybody."""
        time.sleep(0.1)
        if not mail:
            peer.sendall(b"503 no transaction\r\n")
            return False
        if len(mail) == 1:
            peer.sendall(b"554 no valid recipients\r\n")
            return False
        named = re.search(rb"for (\w\d+) ", content)  # a spam filter does not look at recipients
        refused = self.stage == "dot" and (not named or self.refuses(named[1].decode() + "@"))
        if not refused:
            self.delivered.append((mail[1:], content))
        peer.sendall((b"550 5.7.1 no\r\n" if refused else b"250 taken\r\n")
                     * (len(mail) - 1 if self.lmtp else 1))
        return not refused

    def command(self, peer, lines, line, mail):
        verb = line[:4].upper().decode("latin-1")
        address = (re.findall(r"<(.*?)>", line.decode("latin-1")) or [""])[0]
        if verb == "MAIL":
            if mail:
                peer.sendall(b"503 nested MAIL\r\n")
                return
            mail[:] = [address]
            peer.sendall(b"550 no\r\n" if self.stage == "MAIL" and self.refuses(address) else b"250 ok\r\n")
        elif verb == "RCPT":
            self.waits = True
            self.go.wait(10)
            self.waits = False
            no = not mail or (self.stage == "RCPT" and self.refuses(address))
            mail += [] if no else [address]
            peer.sendall(b"550 5.1.1 no\r\n" if no else b"250 ok\r\n")
        elif verb == "DATA":
            if len(mail) < 2 or (self.stage == "DATA" and any(map(self.refuses, mail[1:]))):
                peer.sendall(b"554 no\r\n")
                return
            peer.sendall(b"354 go\r\n")
            content = b"".join(iter(lines.readline, b".\r\n"))
            if self.end(peer, mail, content):
                mail.clear()
        elif verb == "BDAT":
            content = lines.read(int(line.split()[1]))
            if self.end(peer, mail, content):
                mail.clear()
        elif verb == "RSET":
            mail.clear()
            peer.sendall(b"250 ok\r\n")

    def session(self, peer):
        with peer, contextlib.suppress(OSError, Close):
            peer.settimeout(30)
            peer.sendall(b"220 keeping\r\n")
            lines, mail = peer.makefile("rb"), []
            while line := lines.readline():
                if line[:4] in (b"EHLO", b"LHLO"):
                    self.say(peer, "EHLO")
                elif line[:4] == b"QUIT":
                    peer.sendall(b"221 bye\r\n")
                    return
                else:
                    self.command(peer, lines, line, mail)


def test_transactions_kept_open():
    """A peer may keep a transaction open behind each kind of refusal: the next message begins with RSET,
    and no content goes to another message's recipients."""
    pipelining, chunking = [b"PIPELINING"], [b"PIPELINING", b"CHUNKING"]
    servers = {"data-mail": Keeping("MAIL", pipelining)}
    for how, offers in (("step", []), ("data", pipelining), ("bdat", chunking)):
        for stage in ("RCPT", "DATA", "dot"):
            servers[f"{how}-{stage.lower()}"] = Keeping(stage, offers)
            servers[f"{how}-{stage.lower()}-lmtp"] = Keeping(stage, offers, lmtp=True)
    world = World(servers, retry="1s", workers=1, destinations={
        "*": {"sessions_max": 1, "idle": "20s", "timeouts": {**TIMEOUTS, "dot": "30s", "mail": "30s"}}})

    def ended(name, i):
        return any(r["recipient"].startswith(f"u{i}@") for kind in ("Delivery", "Bounce")
                   for r in world.records(kind, name))

    def send(client, name, i):
        users = [f"u{i}"] + ([f"v{i}"] if "rcpt" in name else [])
        client.expect(client.message(
            *(f"{u}@{name}.example" for u in users), sender=f"s{i}@sender.example",
            data=f"Subject: x\r\n\r\nfor {' '.join(users)} .\r\n".encode()), 250)

    def drive(name, server):
        """After the first two, each second message is sent while the one before waits for its end."""
        with Client(world.engine) as client:
            for i in range(1, 9, 2):
                server.go.clear() if i > 1 else server.go.set()
                send(client, name, i)
                wait_until(f"{i} at {name}", lambda: server.waits or ended(name, i), 20)
                send(client, name, i + 1)
                time.sleep(0.05)  # the session takes it when an answer comes
                server.go.set()
                wait_until(f"{i} and {i + 1} at {name}", lambda: ended(name, i) and ended(name, i + 1), 30,
                           process=world.engine.process)

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda item: drive(*item), servers.items()))
    for name, server in servers.items():
        for recipients, content in server.delivered:
            for recipient in recipients:
                assert f" {recipient.partition('@')[0]} ".encode() in content, (name, recipients, content)
        taken = [r for recipients, _ in server.delivered for r in recipients]
        assert sorted(taken) == sorted(r["recipient"] for r in world.records("Delivery", name)), name
        wanted = {f"u{i}@{name}.example" for i in range(1, 9) if i % 2 == 0 or name in (
            "bdat-data", "bdat-data-lmtp")}  # where DATA is never said
        assert set(taken) == wanted and len(taken) == len(wanted), (name, taken)
        assert server.sessions == 1 or name == "data-mail", (name, server.sessions)
    world.finish()


if __name__ == "__main__":
    run(globals())
