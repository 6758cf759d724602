#!/usr/bin/env python3
"""Logging in at a next hop (credentials_file): servers that take it, refuse it, do not offer it, and
those that must not have the password. tests/interop/login.py has real ones.

relay.py [TEST...]"""

import base64
import contextlib
import hmac
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "faults"))
from faults import (Client, Engine, Example, TempDir, program, run, shown, wait_empty,  # noqa: E402
                    wait_until)
from authority import Authority, serving  # noqa: E402
from talk import Listener  # noqa: E402
import scram  # noqa: E402

USER, PASSWORD = "shop@sender.example", "Canary Kanarien:vogel 4711"
PLAIN = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()


class Hop(Listener):
    """A server that wants a login. offer: what EHLO says of it; refuse: its answer to the password, or
    None; tls: files of a certificate for STARTTLS. heard: every line, with whether it was encrypted;
    taken: messages."""

    def __init__(self, offer="AUTH PLAIN LOGIN", refuse=None, tls=None, initial=True, liar=False,
                 without=()):
        self.offer, self.refuse, self.initial = offer, refuse, initial
        self.liar = liar        # it does not know the password, and lets in whoever comes
        self.without = without  # mechanisms that it offers and knows no user of
        self.context = serving(tls) if tls else None
        self.heard, self.taken = [], 0
        super().__init__()

    def login(self, line, say, read):
        """The reply to AUTH."""
        words = line.split()
        if words[1] in self.without:
            return "535 5.7.8 no such user"
        if words[1] == "SCRAM-SHA-256":
            server = scram.Server("another" if self.liar else PASSWORD)
            challenge = server.challenge(base64.b64decode(words[2]).decode())
            say("334 " + scram.encode(challenge))
            last = server.check(base64.b64decode(read()).decode())
            if self.liar:
                last = "v=" + scram.encode(b"x" * 32)
            if last is None or server.user != USER:
                return "535 5.7.8 no"
            if self.liar != "mute":
                say("334 " + scram.encode(last))
                assert read() == ""
            return self.refuse or "235 2.7.0 in"
        if words[1] == "CRAM-MD5":
            say("334 " + scram.encode("<1@hop.example>"))
            user, _, digest = base64.b64decode(read()).decode().rpartition(" ")
            good = hmac.new(PASSWORD.encode(), b"<1@hop.example>", "md5").hexdigest()
            return self.refuse or ("235 2.7.0 in" if (user, digest) == (USER, good) else "535 no")
        if words[1:2] == ["PLAIN"]:
            given = words[2] if len(words) > 2 and self.initial else None
            if given is None:
                say("334 ")
                given = read()
        else:
            say("334 VXNlcm5hbWU6")
            user = read()
            say("334 UGFzc3dvcmQ6")
            given = base64.b64encode(b"\0" + base64.b64decode(user) + b"\0" +
                                     base64.b64decode(read())).decode()
        if self.refuse:
            return self.refuse
        return "235 2.7.0 in" if given == PLAIN else "535 5.7.8 no"

    def session(self, peer):
        secure, inside = False, False
        lines = peer.makefile("rb")

        def say(text):
            peer.sendall(text.encode() + b"\r\n")

        def read():
            line = lines.readline()
            if not line:
                raise OSError
            text = line.rstrip(b"\r\n").decode("latin-1")
            self.heard.append((text, secure))
            return text
        with contextlib.suppress(OSError, ssl.SSLError):
            peer.settimeout(30)
            say("220 hop.example")
            while True:
                line = read()
                verb = line.split()[0].upper()
                if verb == "EHLO":
                    offers = [o for o in (self.offer, "STARTTLS" if self.context and not secure
                                          else None) if o]
                    say("\r\n".join(f"250-{o}" for o in ("hop.example", *offers)) + "\r\n250 8BITMIME")
                elif verb == "STARTTLS":
                    say("220 go")
                    peer = self.context.wrap_socket(peer, server_side=True)
                    secure, lines = True, peer.makefile("rb")
                elif verb == "AUTH":
                    reply = self.login(line, say, read)
                    inside = reply.startswith("235")
                    say(reply)
                elif verb == "DATA":
                    say("354 go")
                    while read() != ".":
                        pass
                    self.taken += 1
                    say("250 taken")
                elif verb == "QUIT":
                    say("221 bye")
                    break
                else:
                    say("250 ok" if inside or verb != "MAIL" else "530 5.7.0 log in first")
        with contextlib.suppress(OSError):
            peer.close()

    def said(self, verb):
        return [line for line, _ in self.heard if line.upper().startswith(verb)]


class Relay(Engine):
    """An engine that logs in at hops: mail for dN.example goes to the Nth, by name. destinations: settings
    for each, or for all of them."""

    def __init__(self, directory, *hops, name="127.0.0.1", destinations=None, **destination):
        every = {"retry": ["1s"], "lifetime": "10m"}
        super().__init__({
            "routes": {f"d{n}.example": f"[{name}]:{hop.port}" for n, hop in enumerate(hops)},
            "destinations": {"*": {**every, **destination},
                             **{f"d{n}.example": d for n, d in enumerate(destinations or ())}},
            "log_level": "debug", "dns": {"ipv6": False}}, directory=directory)
        self.hops = hops
        self.credentials = self.dir / "credentials"
        self.credentials.write_text("# ours\n" + "".join(
            f"[{name}]:{hop.port}\t{USER}  {PASSWORD}\n" for hop in hops))
        self.credentials.chmod(0o600)
        self.config["credentials_file"] = str(self.credentials)

    def send(self, count=1):
        """So many messages for each hop."""
        with Client(self) as client:
            for i in range(count):
                for n in range(len(self.hops)):
                    client.expect(client.message(f"u{i}@d{n}.example"), 250)

    def deferred(self):
        """Of each hop the first deferral."""
        found = {}

        def look():
            for r in reversed(self.records("TransientFailure")):
                found[r["queue"]] = r
            return len(found) == len(self.hops)
        wait_until("a deferral for each hop", look, 60, process=self.process)
        return [found[f"d{n}.example"] for n in range(len(self.hops))]


def shown_nowhere(engine):
    text = shown(engine)
    for secret in (PASSWORD, PLAIN, PASSWORD[-8:], base64.b64encode(PASSWORD.encode()).decode()):
        assert secret not in text, secret


def test_logs_in():
    """By PLAIN, by LOGIN, and by PLAIN at a server that asks for the response by itself; once a session."""
    temp = TempDir("hayauma-relay-")
    with Hop() as plain, Hop(offer="AUTH LOGIN") as login, Hop(offer="AUTH=LOGIN") as old, \
            Hop(initial=False) as slow:
        with Relay(temp.path / "engine", plain, login, old, slow, auth_without_tls=True) as engine:
            engine.send(5)
            wait_empty(engine)
            for hop in engine.hops:
                assert hop.taken == 5 and len(hop.said("AUTH")) == hop.sessions, hop.heard
            shown_nowhere(engine)


def goes(*_):
    raise OSError


def test_refused():
    """A refused password costs no mail: it waits, the record and the log say why, and it goes when
    that is mended. To a server without AUTH, or with such as we do not know, it is not sent."""
    temp = TempDir("hayauma-relay-")
    with contextlib.ExitStack() as stack:
        refuse = [stack.enter_context(Hop(refuse=r)) for r in (
            "535 5.7.8 bad credentials", "454 4.7.0 later", "521 5.7.0 locked")]
        without = [stack.enter_context(Hop(offer=o)) for o in (
            None, "AUTH DIGEST-MD5 XOAUTH2", "AUTHORIZE PLAIN")]
        gone = stack.enter_context(Hop(tls=Authority(temp.path / "authority").self_signed("localhost")))
        gone.login = goes
        engine = stack.enter_context(Relay(temp.path / "engine", *refuse, *without, gone,
                                           auth_without_tls=True))
        engine.send(3)
        records = engine.deferred()
        for hop, record in zip(refuse, records):
            response = record["response"]
            assert response["code"] == int(hop.refuse[:3]) and response["command"] == "AUTH", record
            assert record["bounce_classification"] == "BadConfiguration"
            hop.refuse = None
        # TLS was well: the password does not go in plaintext next.
        assert "reply to AUTH: the peer closed" in records[6]["response"]["content"], records[6]
        del gone.login
        for hop, record in zip(without, records[3:6]):
            assert "offers neither AUTH SCRAM-SHA-256, PLAIN" in record["response"]["content"], record
            assert not hop.said("AUTH") and not hop.said("MAIL")
            hop.offer = "AUTH PLAIN"
        # A line a minute for each, of each worker.
        assert 6 <= engine.log().count("delivery.auth_failed") <= 6 * os.cpu_count()
        assert engine.status()["counters"]["logins_out_failed"] >= 6
        engine.command("queue", "flush", "--all", "-y")
        wait_until("the mail to go", lambda: all(h.taken == 3 for h in engine.hops), 60)
        assert not engine.records("Bounce")
        shown_nowhere(engine)


def test_mechanisms():
    """Without proof of who the server is: what does not show the password, if that is offered. Of SCRAM
    the server must prove itself."""
    temp = TempDir("hayauma-relay-")
    everything = "AUTH LOGIN CRAM-MD5 PLAIN SCRAM-SHA-256"
    cases = ((everything, {}, "SCRAM-SHA-256"), ("AUTH LOGIN CRAM-MD5 PLAIN", {}, "CRAM-MD5"),
             ("AUTH LOGIN PLAIN", {}, "PLAIN"))
    bad = ((everything, {"liar": True}), (everything, {"liar": "mute"}),
           (everything, {"without": ("SCRAM-SHA-256",)}))
    with contextlib.ExitStack() as stack:
        good = [stack.enter_context(Hop(offer=o, **more)) for o, more, _ in cases]
        wrong = [stack.enter_context(Hop(offer=o, **more)) for o, more in bad]
        engine = stack.enter_context(Relay(temp.path / "engine", *good, *wrong, auth_without_tls=True))
        engine.send(2)
        wait_until("the mail", lambda: all(hop.taken == 2 for hop in good))
        for hop, (_, _, mechanism) in zip(good, cases):
            assert {line.split()[1] for line in hop.said("AUTH")} == {mechanism}, hop.heard
        found = {}

        def look():
            found.update((r["queue"], r["response"]) for r in engine.records("TransientFailure"))
            return len(found) == len(wrong)
        wait_until("deferrals", look, 60, process=engine.process)
        for n in (3, 4):
            assert "has not proved" in found[f"d{n}.example"]["content"], found
        assert found["d5.example"]["code"] == 535, found
        assert not any(hop.taken or hop.said("MAIL") for hop in wrong)
        assert {line.split()[1] for line in wrong[2].said("AUTH")} == {"SCRAM-SHA-256"}
        shown_nowhere(engine)


def test_order_where_proved():
    """Over TLS that proves the server: SCRAM, and PLAIN where the server has no keys of SCRAM; CRAM-MD5
    only where nothing else is offered."""
    temp = TempDir("hayauma-relay-")
    authority = Authority(temp.path / "authority")
    files = authority.certificate("localhost")
    cases = (("AUTH CRAM-MD5 PLAIN SCRAM-SHA-256", {}, ["SCRAM-SHA-256"]),
             ("AUTH CRAM-MD5 LOGIN PLAIN", {}, ["PLAIN"]), ("AUTH CRAM-MD5 LOGIN", {}, ["LOGIN"]),
             ("AUTH CRAM-MD5", {}, ["CRAM-MD5"]),
             ("AUTH PLAIN SCRAM-SHA-256", {"without": ("SCRAM-SHA-256",)}, ["SCRAM-SHA-256", "PLAIN"]))
    with contextlib.ExitStack() as stack:
        hops = [stack.enter_context(Hop(offer=o, tls=files, **more)) for o, more, _ in cases]
        relay = Relay(temp.path / "engine", *hops, name="localhost", tls="verify")
        relay.config["tls_ca_file"] = str(authority.ca)
        stack.enter_context(names(relay))
        engine = stack.enter_context(relay)
        engine.send()
        wait_until("the mail", lambda: all(hop.taken == 1 for hop in hops))
        for hop, (offer, _, said) in zip(hops, cases):
            assert [line.split()[1] for line in hop.said("AUTH")] == said, (offer, hop.heard)
        shown_nowhere(engine)


def test_password_that_is_not_ascii():
    """SCRAM would need SASLprep: another mechanism is taken, and where there is none, none."""
    temp = TempDir("hayauma-relay-")
    with Hop(offer="AUTH SCRAM-SHA-256 PLAIN", refuse="535 no") as both, Hop(offer="AUTH SCRAM-SHA-256") as one:
        relay = Relay(temp.path / "engine", both, one, auth_without_tls=True)
        relay.credentials.write_text(relay.credentials.read_text().replace("4711", "ſ4711"))
        with relay as engine:
            engine.send()
            engine.deferred()
            assert [line.split()[1] for line in both.said("AUTH")][:1] == ["PLAIN"]
            assert not one.said("AUTH")


def test_two_users_at_one_hop():
    """Two routes that lead to the same server under two users: each mail goes by its own."""
    temp = TempDir("hayauma-relay-")
    with Hop(offer="AUTH LOGIN") as hop:
        relay = Relay(temp.path / "engine", hop, auth_without_tls=True, idle="1m")
        relay.config["routes"] = {"in.example": f"[localhost]:{hop.port}",
                                  "*": f"localhost:{hop.port}"}
        relay.credentials.write_text(f"[localhost]:{hop.port} {USER} {PASSWORD}\n"
                                     f"localhost:{hop.port} other {PASSWORD}\n")
        relay.arguments = ("--workers", "1")  # one that has both
        with names(relay), relay as engine:
            with Client(engine) as client:
                client.expect(client.message("u@in.example"), 250)
                wait_until("the first message", lambda: hop.taken == 1)
                client.expect(client.message("u@out.example"), 250)
            assert engine.wait_records("TransientFailure")[0]["response"]["code"] == 535
            assert hop.taken == 1
            assert base64.b64encode(b"other").decode() in [line for line, _ in hop.heard]


def test_to_whom():
    """Never in the clear, never over TLS that was not verified; over TLS that was, yes."""
    temp = TempDir("hayauma-relay-")
    authority = Authority(temp.path / "authority")
    good, other = authority.certificate("localhost"), authority.certificate("other.example")
    own = authority.self_signed("localhost")
    cases = (("none", good), ("may", None), ("may", good), ("encrypt", good), ("verify", None),
             ("verify", other), ("verify", own), ("verify", good))
    with contextlib.ExitStack() as stack:
        hops = [stack.enter_context(Hop(tls=files)) for _, files in cases]
        relay = Relay(temp.path / "engine", *hops, name="localhost",
                      destinations=[{"tls": tls} for tls, _ in cases])
        relay.config["tls_ca_file"] = str(authority.ca)
        stack.enter_context(names(relay))
        engine = stack.enter_context(relay)
        *bad, last = hops
        engine.send()
        wait_until("the mail of the one that was verified", lambda: last.taken == 1)
        assert last.said("AUTH") and all(secure for line, secure in last.heard
                                         if line.startswith("AUTH"))
        engine.hops = bad
        for (tls, files), hop, record in zip(cases, bad, engine.deferred()):
            assert not hop.said("AUTH") and not hop.taken, (tls, hop.heard, record)
            if tls != "verify":
                assert "the password is not sent" in record["response"]["content"], (tls, files, record)
        shown_nowhere(engine)


def test_example():
    """docs/examples/provider.yaml: mail goes to the provider's relay, after its name was proved, with a
    login."""
    temp = TempDir("hayauma-relay-")
    authority = Authority(temp.path / "authority")
    credentials = temp.path / "credentials"
    with Hop(tls=authority.certificate("localhost")) as hop:
        engine = Example("provider.yaml", {"[smtp.provider.example]:587": f"[localhost]:{hop.port}",
                                           "/etc/hayauma/credentials": str(credentials)},
                         {"tls_ca_file": str(authority.ca)}, temp.path / "engine")
        engine.replace["127.0.0.1:25"] = f"127.0.0.1:{engine.port}"
        credentials.write_text(f"[localhost]:{hop.port} {USER} {PASSWORD}\n")
        credentials.chmod(0o600)
        with names(engine), engine, Client(engine) as client:
            client.expect(client.message("u@d1.example"), 250)
            wait_until("the mail", lambda: hop.taken == 1, process=engine.process)
            record = engine.wait_records("Delivery")[0]
            assert (record["tls_policy"], record["tls_verification"]) == ("verify", "verified"), record
            assert hop.said("AUTH") and all(secure for line, secure in hop.heard if line.startswith("AUTH"))


@contextlib.contextmanager
def names(engine):
    """A name server that knows localhost."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    engine.config["dns"]["servers"] = ["127.0.0.1:%d" % server.getsockname()[1]]

    def serve():
        with contextlib.suppress(OSError):
            while True:
                query, client = server.recvfrom(512)
                end = query.index(b"\0", 12) + 5
                is_a = query[end - 4:end - 2] == b"\0\1"
                answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if is_a else b""
                server.sendto(query[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_a else b"\0\0") +
                              b"\0\0\0\0" + query[12:end] + answer, client)
    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        server.close()


def test_others_without():
    """Mail that goes to the same address by another way takes no session that was logged in, and has no
    password to give."""
    temp = TempDir("hayauma-relay-")
    with Hop() as hop:
        relay = Relay(temp.path / "engine", hop, auth_without_tls=True, idle="1m")
        relay.config["routes"] = {"in.example": f"[127.0.0.1]:{hop.port}",
                                  "*": f"[localhost]:{hop.port}"}
        relay.arguments = ("--workers", "1")  # one that has both
        with names(relay), relay as engine:
            with Client(engine) as client:
                client.expect(client.message("u@in.example"), 250)
                wait_until("the first message", lambda: hop.taken == 1)
                client.expect(client.message("u@out.example"), 250)
            bounce = engine.wait_records("Bounce")[0]
            assert bounce["recipient"] == "u@out.example" and bounce["response"]["code"] == 530
            assert hop.sessions == 2 and len(hop.said("AUTH")) == 1 and hop.taken == 1


def test_file():
    """Read at the start and at each reload; refused when others may read it, when a line leads nowhere,
    and never shown."""
    temp = TempDir("hayauma-relay-")
    with Hop() as hop:
        with Relay(temp.path / "engine", hop, auth_without_tls=True) as engine:
            def reload():
                done = subprocess.run([program(), "reload", "-c", engine.file], capture_output=True,
                                      text=True, check=False, timeout=60)
                assert PASSWORD not in done.stdout + done.stderr
                return done.returncode, done.stdout + done.stderr
            good = engine.credentials.read_text()
            for text, said in (
                    ("x", "write [smtp.example.net]:587 USER PASSWORD"),
                    (f"[127.0.0.1]:{hop.port} {USER}", "write [smtp.example.net]:587 USER PASSWORD"),
                    (f"[127.0.0.9]:{hop.port} {USER} {PASSWORD}", "no route leads to [127.0.0.9]"),
                    (f"127.0.0.1:{hop.port + 1} {USER} {PASSWORD}", "no route leads to"),
                    (f"lmtp:unix:/x {USER} {PASSWORD}", "no host to log in at"),
                    (f"[127.0.0.1]:x {USER} {PASSWORD}", "is not a next hop"),
                    (good + good, "is there twice")):
                engine.credentials.write_text(text + "\n")
                status, output = reload()
                assert status == 1 and said in output and f"{engine.credentials}:" in output, output
            engine.credentials.write_text(good)
            engine.credentials.chmod(0o640)
            status, output = reload()
            assert status == 1 and "chmod 600" in output
            engine.credentials.chmod(0o600)
            assert reload()[0] == 0
            engine.send()
            wait_empty(engine)
            assert hop.taken == 1
            engine.credentials.write_text(good.replace(PASSWORD, "another"))
            assert reload()[0] == 0
            engine.send()
            assert engine.wait_records("TransientFailure")[0]["response"]["code"] == 535
        engine.credentials.unlink()
        done = subprocess.run([program(), "config", "check", engine.file], capture_output=True,
                              text=True, check=False, timeout=60)
        assert done.returncode == 1 and "No such file" in done.stderr
        assert f"{engine.file}:" in done.stderr and ": credentials_file names this file" in done.stderr


if __name__ == "__main__":
    run(globals())
