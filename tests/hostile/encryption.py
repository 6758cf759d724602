#!/usr/bin/env python3
"""TLS of sessions out, by policy, against servers that do it well and servers that do not.

encryption.py [TEST...]"""

import contextlib
import os
import pathlib
import random
import socket
import ssl
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from authority import Authority, serving  # noqa: E402
from engine import Engine, program  # noqa: E402
from proc import Failure, TempDir, wait_until  # noqa: E402
from servers import Close, Server, World, reset  # noqa: E402
from talk import Client, Skip, run  # noqa: E402

# What is said before the handshake counts for nothing behind it: with SIZE 1 no message could go.
OFFER = b"250-bad.example\r\n250-SIZE 1\r\n250 STARTTLS\r\n"
NO_OFFER = b"250-bad.example\r\n250 PIPELINING\r\n"
OFFER_ALL = b"250-bad.example\r\n250-STARTTLS\r\n250 PIPELINING\r\n"
GARBAGE = b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20


class TlsServer(Server):
    """STARTTLS with the files (chain, key); with what the others have besides. `how` a handshake goes
    wrong: a function of the peer, called in its place. `encrypted`: whether each message in `taken`
    came so; `resumed`: whether each handshake was; `in_clear`: what was heard in plaintext."""

    def __init__(self, files=None, answers=(), how=None, offer=OFFER, implicit=False, **more):
        self.context = None
        if files:
            self.context = serving(files)
            self.context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self.how, self.offer, self.implicit = how, offer, implicit
        self.encrypted, self.resumed, self.in_clear, self.names, self.secrets = [], [], [], [], []
        super().__init__({"STARTTLS": b"220 go\r\n", **dict(answers)}, **more)

    def shake_hands(self, peer):
        if self.how:
            self.how(peer)
        secure = self.context.wrap_socket(peer, server_side=True)
        self.resumed.append(secure.session_reused)
        return secure

    def session(self, peer):
        if self.implicit:
            with peer, contextlib.suppress(OSError, Close):
                peer.settimeout(30)
                super().session(self.shake_hands(peer))
        else:
            super().session(peer)

    def answer(self, peer, lines, verb):
        if isinstance(peer, ssl.SSLSocket):
            return super().answer(peer, lines, verb)
        self.in_clear.append(verb)
        if verb in ("EHLO", "HELO", "LHLO"):
            peer.sendall(self.offer)
        elif verb == "STARTTLS":
            self.say(peer, verb)
            if self.answers[verb].startswith(b"2"):
                with self.shake_hands(peer) as secure:
                    self.converse(secure)
                return False
        else:
            return super().answer(peer, lines, verb)
        return True

    def take(self, peer, content):
        self.encrypted.append(isinstance(peer, ssl.SSLSocket))
        super().take(peer, content)


# --- handshakes that do not come about ---

def garbage(peer):
    peer.sendall(GARBAGE)
    peer.recv(65536)
    raise Close


def truncated(peer):
    """The beginning of a record that is longer than what comes."""
    peer.recv(65536)
    peer.sendall(b"\x16\x03\x03\x40\x00" + os.urandom(100))
    raise Close


def flood(peer):
    """Records of a handshake without end."""
    peer.recv(65536)
    while True:
        peer.sendall(b"\x16\x03\x03\x00\x04" + b"\x02\xff\xff\xff" + b"\x16\x03\x03\x10\x00" + bytes(4096))


def alert(peer):
    peer.recv(65536)
    peer.sendall(b"\x15\x03\x03\x00\x02\x02\x28")  # handshake_failure
    raise Close


def closes(peer):
    peer.recv(65536)
    raise Close


def hangs(peer):
    with contextlib.suppress(OSError):
        while peer.recv(65536):
            pass
    raise Close


BROKEN = {"garbage": {"how": garbage}, "truncated": {"how": truncated}, "flood": {"how": flood},
          "alert": {"how": alert}, "closes": {"how": closes}, "hangs": {"how": hangs},
          "injected": {"answers": {"STARTTLS": b"220 go\r\n250-x\r\n250 SIZE 1\r\n"}, "how": hangs},
          "mute": {"answers": {"STARTTLS": b""}, "how": closes}}
WHY = {"garbage": "TLS failed", "alert": "alert", "closes": "closed", "hangs": "timed out",
       "injected": "in plaintext behind the reply to STARTTLS", "refused": "TLS not available",
       "stripped": "offer", "wrong": "", "expired": "expired", "self": "self"}


def make(kind, name, authority):
    host = f"mx1.{name}.example"
    if kind == "good":
        return TlsServer(authority.certificate(host))
    if kind == "wrong":
        return TlsServer(authority.certificate("other.example"))
    if kind == "expired":
        return TlsServer(authority.certificate(host, expired=True))
    if kind == "self":
        return TlsServer(authority.self_signed(host))
    if kind == "stripped":
        return TlsServer(offer=NO_OFFER)
    if kind == "refused":
        return TlsServer(answers={"STARTTLS": b"454 4.7.0 TLS not available\r\n"}, offer=OFFER_ALL)
    return TlsServer(offer=OFFER_ALL, **BROKEN[kind])


def world_of(servers, authority, policies, **more):
    """Each server is the host of its own name, under a policy."""
    destinations = {f"{name}.example": {"tls": policies[name]} for name in servers}
    for name, settings in more.pop("settings", {}).items():
        destinations[f"{name}.example"].update(settings)
    return World(servers, retry="1h", tls_ca_file=str(authority.ca), destinations=destinations,
                 routes={f"{name}.example": f"[mx1.{name}.example]:{server.port}"
                         for name, server in servers.items()}, **more)


def outcome(world, name):
    """The first record of what was tried for name."""
    def look():
        return (world.records("Delivery", name) or world.records("TransientFailure", name)
                or world.records("Bounce", name))

    return wait_until(f"an outcome of {name}", look, 40, process=world.engine.process)[0]


CERTIFICATES = ("good", "wrong", "expired", "self")


def check(world, server, policy, kind, name):
    record = outcome(world, name)
    what, said = record["type"], record["response"]["content"]
    fail = Failure(f"{name}: {record}")
    if record.get("tls_policy") != policy and what == "Delivery":
        raise fail
    if kind in CERTIFICATES and (policy != "verify" or kind == "good"):
        if what != "Delivery" or server.encrypted != [True] or record["num_attempts"] != 1:
            raise fail
        if record["tls_protocol_version"] not in ("TLSv1.3", "TLSv1.2") or not record["tls_cipher"]:
            raise fail
        if (record["tls_verification"] == "verified") != (policy == "verify"):
            raise fail
        if "tls_plaintext" in record or record["tls_resumed"]:
            raise fail
        assert server.names == [f"mx1.{name}.example"], server.names
    elif policy == "may":
        if what != "Delivery" or server.encrypted != [False] or record["num_attempts"] != 1:
            raise fail
        if not record["tls_plaintext"] or "tls_cipher" in record:
            raise fail
        if WHY.get(kind, "") not in record["tls_plaintext"]:
            raise fail
        assert server.sessions == (1 if kind in ("stripped", "refused") else 2), (name, server.sessions)
    else:
        if what != "TransientFailure" or server.taken:
            raise fail
        if record["response"]["code"] // 100 != 4 or record["response"]["enhanced_code"]["subject"] != 7:
            raise fail
        if WHY.get(kind, "") not in said:
            raise fail
    if policy != "may" and kind not in ("stripped",):
        assert not {"MAIL", "RCPT", "DATA"} & set(server.in_clear), name


def test_policies():
    """What each server gets under each policy: never plaintext under encrypt and verify."""
    temp = TempDir("hayauma-tls-")
    authority = Authority(temp.path / "ca")
    kinds = (*CERTIFICATES, "stripped", "refused", *BROKEN)
    servers, policies, kind_of = {}, {}, {}
    for policy in ("may", "encrypt", "verify"):
        for kind in kinds:
            if policy == "verify" and kind in ("truncated", "flood", "alert", "mute"):
                continue
            name = f"{policy}-{kind}"
            policies[name], kind_of[name] = policy, kind
            servers[name] = make(kind, name, authority)
    world = world_of(servers, authority, policies, settings={
        name: {"timeouts": {"tls": "1s"}} for name, kind in kind_of.items()
        if kind in ("hangs", "injected", "mute")})
    for name in servers:
        world.send(name)
    for name, server in servers.items():
        check(world, server, policies[name], kind_of[name], name)
    # An exchanger whose handshake failed gets plaintext at once the next time.
    for kind in BROKEN:
        name = f"may-{kind}"
        world.send(name, "again")
        wait_until("the second", lambda n=name: len(world.records("Delivery", n)) == 2, 20)
        assert servers[name].sessions <= 3, (name, servers[name].sessions)
        assert servers[name].heard.count("STARTTLS") == 1, servers[name].heard
    counters = world.engine.status()["counters"]
    assert counters["tls_out"] == 2 * len(CERTIFICATES) + 1, counters
    assert counters["tls_out_failures"] >= 3 * len(BROKEN), counters
    assert counters["tls_out_plaintext"] >= len(BROKEN) + 2, counters
    world.finish()


def lines_with_dots(size, seed):
    """Lines whose dots fall on, before and behind the borders of records (16 KiB)."""
    rng, lines, length = random.Random(seed), [], 0
    while length < size:
        border = -length % 16384
        n = border if 2 <= border < 900 else rng.choice((2, 3, 4, 60, 70, 900))
        lines.append((b"." * rng.choice((0, 0, 1, 2)) + b"x" * n)[:n - 2] + b"\r\n")
        length += len(lines[-1])
    return b"Subject: dots\r\n\r\n" + b"".join(lines)


def stuffed(data):
    return b"".join(b"." + line if line.startswith(b".") else line
                    for line in data.splitlines(keepends=True))


class Demands(TlsServer):
    """Takes no mail in plaintext."""

    def answer(self, peer, lines, verb):
        if verb != "MAIL" or isinstance(peer, ssl.SSLSocket):
            return super().answer(peer, lines, verb)
        peer.sendall(b"530 5.7.0 Must issue a STARTTLS command first\r\n")
        return True


def test_demanded():
    """Who demands TLS, and whose own did not come about, refuses mail for now: it is asked for TLS again
    with the next attempt. Who demands it and does not offer it means what it says."""
    temp = TempDir("hayauma-tls-")
    authority = Authority(temp.path / "ca")
    servers = {"broken": Demands(authority.certificate("mx1.broken.example"), how=alert, offer=OFFER_ALL),
               "refuses": Demands(authority.certificate("mx1.refuses.example"), offer=OFFER_ALL,
                                  answers={"STARTTLS": b"454 4.7.0 TLS not available\r\n"}),
               "without": Demands(offer=NO_OFFER)}
    world = world_of(servers, authority, {name: "may" for name in servers}, workers=1)
    for name in servers:
        world.send(name, "u")
    for name in ("broken", "refuses"):
        record = outcome(world, name)
        assert record["type"] == "TransientFailure" and record["response"]["code"] == 530, record
        assert record["tls_plaintext"], record
    assert outcome(world, "without")["type"] == "Bounce"
    servers["broken"].how = None
    servers["refuses"].answers["STARTTLS"] = b"220 go\r\n"
    world.engine.command("queue", "flush", "--all")
    wait_until("mail", lambda: all(world.records("Delivery", n) for n in ("broken", "refuses")), 20,
               process=world.engine.process)
    assert servers["broken"].encrypted == servers["refuses"].encrypted == [True]
    world.finish()


def test_sessions():
    """A session carries many messages; a new one resumes; large messages arrive as they are."""
    temp = TempDir("hayauma-tls-")
    authority = Authority(temp.path / "ca")
    good = TlsServer(authority.certificate("mx1.good.example"), answers={
        "EHLO": b"250-good.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"})
    one = TlsServer(authority.certificate("mx1.one.example", rsa=True))
    world = world_of({"good": good, "one": one}, authority, {"good": "verify", "one": "encrypt"},
                     settings={"good": {"idle": "30s", "sessions_max": 1}, "one": {"session_messages_max": 1,
                                                                "sessions_max": 1}},
                     workers=1)
    big = [lines_with_dots(size, size) for size in (10, 16384, 100000, 3 << 20)]
    with Client(world.engine, timeout_s=60) as client:
        for i, data in enumerate(big):
            client.expect(client.message(f"big{i}@good.example", data=stuffed(data)), 250)
        for i in range(8):
            client.expect(client.message(f"u{i}@one.example"), 250)
    wait_until("large mail", lambda: len(good.taken) == len(big), 60, process=world.engine.process)
    for data in big:
        assert any(text.endswith(stuffed(data)) for text in good.taken), len(data)
    wait_until("small mail", lambda: len(world.records("Delivery", "one")) == 8, 30)
    wait_until("records", lambda: len(world.records("Delivery", "good")) == len(big), 30)
    assert all(good.encrypted) and all(one.encrypted)
    assert good.sessions == 1, good.sessions
    assert one.sessions == 8 and one.resumed == [False] + [True] * 7, one.resumed
    records = world.records("Delivery", "one")
    assert [r["tls_resumed"] for r in records] == [False] + [True] * 7, records
    assert {r["tls_verification"] for r in world.records("Delivery", "good")} == {"verified"}
    assert world.engine.status()["counters"]["tls_out_resumed"] == 7
    # Whoever has lost the keys of its tickets gets a handshake anew.
    one.context = serving(authority.files("good-mx1.one.example"))
    world.send("one", "anew")
    wait_until("it", lambda: len(one.taken) == 9, 20, process=world.engine.process)
    assert one.resumed[-1] is False
    # One that ends the handshake when asked to resume is asked anew without that.
    one.how = lambda _peer: one.secrets.append(1) or (closes(_peer) if len(one.secrets) == 1 else None)
    world.send("one", "without")
    wait_until("it", lambda: len(world.records("Delivery", "one")) == 10, 20)
    assert one.encrypted[-1] and len(one.secrets) == 2, one.secrets
    world.finish()


def test_take_over():
    """An idle session to the same address carries another domain's mail, unless the certificate is to
    bear that one's exchanger's name, and does not."""
    temp = TempDir("hayauma-tls-")
    authority = Authority(temp.path / "ca")
    for policy in ("verify", "encrypt"):
        server = TlsServer(authority.certificate("mx1.one.example"))
        world = World({"one": server, "two": server}, retry="1h", workers=1,
                      tls_ca_file=str(authority.ca),
                      destinations={"*": {"tls": policy, "idle": "30s"},  # the books' go on without
                                    **{f"d{i}.example": {"tls": "none"} for i in range(4)}},
                      routes={f"{name}.example": f"[mx1.{name}.example]:{server.port}"
                              for name in ("one", "two")})
        world.send("one")
        assert outcome(world, "one")["type"] == "Delivery"
        world.send("two")
        record = outcome(world, "two")
        if policy == "verify":
            assert record["type"] == "TransientFailure" and len(server.taken) == 1, record
            assert "mismatch" in record["response"]["content"], record
        else:
            assert record["type"] == "Delivery" and server.sessions == 1, (record, server.sessions)
        world.finish()


def test_cut():
    """The peer ends in the middle of a body, with and without a word: the mail is deferred."""
    temp = TempDir("hayauma-tls-")
    authority = Authority(temp.path / "ca")

    def half(peer):
        peer.sendall(b"354 go\r\n")
        for _ in range(20):
            peer.recv(4096)
        peer.close()
        raise Close

    def abort(peer):
        peer.sendall(b"354 go\r\n")
        peer.recv(4096)
        reset(peer)
        peer.close()
        raise Close

    def nonsense(peer):
        """A record that no key fits."""
        peer.sendall(b"354 go\r\n")
        raw = socket.socket(fileno=os.dup(peer.fileno()))
        raw.sendall(b"\x17\x03\x03\x00\x40" + os.urandom(64))
        with contextlib.suppress(OSError):
            while raw.recv(65536):
                pass
        raw.close()
        raise Close

    servers = {name: TlsServer(authority.certificate(f"mx1.{name}.example"), answers={"DATA": how})
               for name, how in (("half", half), ("abort", abort), ("nonsense", nonsense))}
    world = world_of(servers, authority, dict.fromkeys(servers, "verify"))
    for name in servers:
        with Client(world.engine, timeout_s=60) as client:
            client.expect(client.message(f"u@{name}.example", data=lines_with_dots(2 << 20, 1)), 250)
    for name, server in servers.items():
        record = outcome(world, name)
        assert record["type"] == "TransientFailure", record
        assert record["tls_policy"] == "verify" and record["tls_cipher"], record
        assert ("TLS failed: " in record["response"]["content"]) == (name == "nonsense"), record
        assert not server.taken
    world.finish()


def test_implicit():
    """A connection to port 465 begins with TLS, under may too; there is no plaintext behind it."""
    if os.geteuid() != 0:
        raise Skip("port 465 is for root")
    temp = TempDir("hayauma-tls-")
    authority = Authority(temp.path / "ca")
    hosts = {"good": "127.0.46.1", "bad": "127.0.46.2"}
    files = authority.certificate("mx1.good.example")
    servers = {"good": TlsServer(files, implicit=True, host=hosts["good"], port=465),
               "bad": TlsServer(how=closes, implicit=True, host=hosts["bad"], port=465)}
    world = World(servers, retry="1h", routes={f"{name}.example": f"[{host}]:465"
                                               for name, host in hosts.items()})
    for name in servers:
        world.send(name)
    record = outcome(world, "good")
    assert record["type"] == "Delivery" and record["tls_cipher"], record
    assert servers["good"].encrypted == [True] and servers["good"].names in ([], [None])
    record = outcome(world, "bad")
    assert record["type"] == "TransientFailure", record
    assert record["response"]["enhanced_code"] == {"class": 4, "subject": 7, "detail": 5}, record
    world.finish()


def test_authorities():
    """A file of authorities that is none is named by check and start, and a reload changes nothing."""
    temp = TempDir("hayauma-tls-")
    authority = Authority(temp.path / "ca")
    engine = Engine({"tls_ca_file": str(authority.ca)}).start()
    for text, path in (("no certificate\n", temp.path / "bad.pem"), (None, temp.path / "none.pem")):
        if text:
            path.write_text(text)
        config = engine.file.read_text().replace(str(authority.ca), str(path))
        other = temp.path / "other.yaml"
        other.write_text(config)
        done = subprocess.run([program(), "config", "check", other], capture_output=True, text=True,
                              timeout=60, check=False)
        assert done.returncode == 1 and str(path) in done.stderr and "tls_ca_file" in done.stderr, done
        engine.file.write_text(config)
        done = subprocess.run([program(), "reload", "-c", engine.file], capture_output=True, text=True,
                              timeout=60, check=False)
        assert done.returncode != 0 and str(path) in done.stdout + done.stderr, done
        engine.file.write_text(config.replace(str(path), str(authority.ca)))
    engine.command("reload")
    engine.stop()


if __name__ == "__main__":
    run(globals())
