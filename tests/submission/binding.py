#!/usr/bin/env python3
"""Logins that are bound to their connection (SCRAM-SHA-256-PLUS), both ways: GNU SASL's client, the
engine at an engine, and somebody between them who has a connection with each.

binding.py [TEST...]"""

import base64
import contextlib
import hashlib
import pathlib
import select
import shutil
import ssl
import subprocess
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent / "faults")]
from faults import Client, Engine, Skip, run, shown, wait_empty, wait_until  # noqa: E402
from authority import Authority, careless, serving  # noqa: E402
from auth import KEYS, PASSWORD, Submission, scram_login, unword, word  # noqa: E402
from talk import Listener  # noqa: E402
import scram  # noqa: E402


class Bound(Submission):
    """Users have keys of SCRAM, clients come by STARTTLS."""

    def __init__(self, **settings):
        super().__init__(users=(("shop", *KEYS),), listener={"tls": "starttls", "auth_without_tls": False},
                         auth={"failures_max": 1000}, **settings)
        self.authority = Authority(self.temp.path / "ca")
        self.files = self.authority.certificate("mta.sender.example")
        self.engine.config["certificates"] = [{"chain": str(self.files[0]), "key": str(self.files[1])}]


def offers(reply):
    return [line.split()[1:] for line in reply.splitlines() if line.startswith("250-AUTH")][0]


def login(engine, context, mechanism, binding, bound=None, spoil=False):
    """The last reply to an exchange over TLS; bound: what gives the bytes of a binding of its socket."""
    with Client(engine, source="127.0.4.9") as client:
        client.starttls(context)
        data = bound(client.socket) if bound else b""
        side = scram.Client("shop", PASSWORD, binding, data[:-1] + b"?" if spoil else data)
        reply = client.command(f"AUTH {mechanism} {word(side.say())}")
        if reply.startswith("334 "):
            reply = client.command(word(side.answer(unword(reply[4:]))))
        if reply.startswith("334 "):
            assert side.proved(unword(reply[4:])), reply
            reply = client.command("")
        return reply


def test_server():
    """Offered over TLS alone; good with what both ends of the connection know, and with nothing else. Who
    says that it could bind, and has heard that we could not, has heard somebody else."""
    new, old = careless(), careless(maximum_version=ssl.TLSVersion.TLSv1_2)
    plus, plain = "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"

    def unique(s):
        return s.get_channel_binding("tls-unique")

    def end_point(s):
        return hashlib.sha256(s.getpeercert(binary_form=True)).digest()
    with Bound() as s:
        s.engine.stop()
        s.engine.config["listeners"][0]["auth_without_tls"] = True
        s.engine.start()
        for context in (new, old):
            with Client(s.engine, hello=None) as client:
                client.expect(client.reply(), 220)
                assert offers(client.command("EHLO c.example")) == [plain, "PLAIN", "LOGIN"]
                assert client.command("AUTH " + plus).startswith("504 ")
                got = client.starttls(context)
                assert offers(got) == [plus, plain, "PLAIN", "LOGIN"], got
        good = ((old, plus, "p=tls-unique,,", unique), (old, plus, "p=tls-server-end-point,,", end_point),
                (new, plus, "p=tls-server-end-point,,", end_point), (new, plain, "n,,", None))
        for case in good:
            assert login(s.engine, *case).startswith("235 "), case
        bad = (((old, plus, "p=tls-unique,,", unique, True), "535 5.7.8"),
               ((new, plus, "p=tls-server-end-point,,", end_point, True), "535 5.7.8"),
               ((new, plus, "p=tls-exporter,,", lambda s: b"x" * 32), "535 5.7.8"),
               ((new, plus, "p=tls-exporter,,", None), "535 5.7.8"),
               ((new, plus, "p=tls-unique,,", lambda s: b"x" * 12), "501 5.5.2"),
               ((new, plus, "n,,", None), "501 5.5.2"), ((new, plus, "y,,", None), "501 5.5.2"),
               ((new, plain, "p=tls-server-end-point,,", end_point), "501 5.5.2"),
               ((new, plain, "y,,", None), "535 5.7.8 SCRAM-SHA-256-PLUS is offered here"))
        for case, reply in bad:
            got = login(s.engine, *case)
            assert got.startswith(reply), (case, got)
        assert s.counter("logins") == len(good) and s.counter("logins_failed") == len(bad)


def test_proxied():
    """Whom a proxy names (XCLIENT) has another connection than the proxy's: no login is bound to that, and
    who could bind and hears of nothing to bind to is let in."""
    with Bound() as s:
        s.engine.stop()
        s.engine.config["listeners"][0]["xclient_from"] = ["127.0.4.9"]
        s.engine.start()
        with Client(s.engine, source="127.0.4.9") as client:
            got = client.starttls(careless())
            assert offers(got) == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"], got
            client.expect(client.command("XCLIENT ADDR=192.0.2.7"), 220)
            got = client.expect(client.command("EHLO c.example"), 250)
            assert offers(got) == ["SCRAM-SHA-256", "PLAIN", "LOGIN"], got
            assert client.command("AUTH SCRAM-SHA-256-PLUS").startswith("504 ")
            said = scram_login(client, "shop", binding="y,,")
            assert said[-1].startswith("235 "), said


class Greeter(Listener):
    """Says EHLO in front of STARTTLS, which gsasl says first of all; else carries bytes."""

    def __init__(self, engine):
        self.engine = engine
        super().__init__()

    def session(self, peer):
        with contextlib.suppress(OSError), Client(self.engine) as server:
            peer.sendall(b"220 hop.example\r\n")
            both = (peer, server.socket)
            for one in both:
                one.settimeout(30)
            while True:
                for one in select.select(both, (), (), 30)[0]:
                    data = one.recv(65536)
                    if not data:
                        peer.close()
                        return
                    both[one is peer].sendall(data)


def gsasl(greeter, mechanism, *more, password=PASSWORD):
    done = subprocess.run(["gsasl", "--smtp", f"--connect=127.0.0.1:{greeter.port}", "--starttls",
                           "--x509-ca-file=", f"--mechanism={mechanism}", "--authentication-id=shop",
                           f"--password={password}", "--authorization-id=shop", "--hostname=mta.sender.example",
                           *more], input="", capture_output=True, text=True, timeout=60, check=False)
    return done.returncode == 0 and "235 " in done.stdout + done.stderr, done.stdout + done.stderr


def test_gnu_sasl():
    """Another's client, with another's TLS, computes the same: over TLS 1.3 and 1.2."""
    if not shutil.which("gsasl"):
        raise Skip("no gsasl here")
    with Bound() as s, Greeter(s.engine) as greeter:
        good, text = gsasl(greeter, "SCRAM-SHA-256-PLUS")
        assert good and "tls-exporter" in base64_texts(text), text
        good, text = gsasl(greeter, "SCRAM-SHA-256-PLUS", "--priority=NORMAL:-VERS-TLS1.3")
        assert good and "tls-unique" in base64_texts(text), text
        assert not gsasl(greeter, "SCRAM-SHA-256-PLUS", password="wrong")[0]
        assert gsasl(greeter, "SCRAM-SHA-256", "--no-cb")[0]


def base64_texts(text):
    """All that it said in base64."""
    said = ""
    for one in text.split():
        with contextlib.suppress(ValueError):
            said += base64.b64decode(one, validate=True).decode("latin-1")
    return said


class Between(Listener):
    """Somebody who has a connection with each, under a certificate of its own: gives on all that it hears,
    and leaves out of it what PLUS is offered by, if strips. heard: the client's lines."""

    def __init__(self, engine, files, strips):
        self.engine, self.strips, self.context = engine, strips, serving(files)
        self.heard, self.said = [], []
        super().__init__()

    def session(self, peer):
        with contextlib.suppress(OSError, ssl.SSLError), Client(self.engine) as server:
            server.starttls(careless())
            peer.settimeout(30)
            peer.sendall(b"220 hop.example\r\n")
            lines = peer.makefile("rb")
            while line := lines.readline().decode():
                if line.startswith("STARTTLS"):
                    peer.sendall(b"220 go\r\n")
                    peer = self.context.wrap_socket(peer, server_side=True)
                    lines = peer.makefile("rb")
                    continue
                if not isinstance(peer, ssl.SSLSocket):
                    peer.sendall(b"250-hop.example\r\n250 STARTTLS\r\n")
                    continue
                self.heard.append(line.strip())
                reply = server.command(line.strip())
                self.said.append(reply)
                if self.strips:
                    reply = reply.replace(" SCRAM-SHA-256-PLUS", "")
                peer.sendall(reply.strip().replace("\n", "\r\n").encode() + b"\r\n")


def relay_to(port, directory, ca):
    engine = Engine({"routes": {"*": f"[127.0.0.1]:{port}"}, "log_level": "debug", "tls_ca_file": str(ca),
                     "destinations": {"*": {"retry": ["1s"], "tls": "encrypt", "auth_without_tls": True}}},
                    directory=directory)
    file = engine.dir / "credentials"
    file.write_text(f"[127.0.0.1]:{port} shop {PASSWORD}\n")
    file.chmod(0o600)
    engine.config["credentials_file"] = str(file)
    return engine


def test_client():
    """The engine logs in at an engine by PLUS. Through somebody whom it cannot tell from the server it gets
    in neither by PLUS nor, where that is left out of what it hears, without."""
    with Bound() as s:
        with relay_to(s.engine.port, s.temp.path / "relay", s.authority.ca) as relay:
            with Client(relay) as client:
                client.expect(client.message("u@d1.example"), 250)
            wait_empty(relay)
        wait_empty(s.engine)
        assert len(s.sink.ledger()) == 1 and s.counter("logins") == 1
        for strips in (False, True):
            with Between(s.engine, s.authority.self_signed("mta.sender.example"), strips) as between, \
                    relay_to(between.port, s.temp.path / f"relay-{strips}", s.authority.ca) as relay:
                with Client(relay) as client:
                    client.expect(client.message("u@d1.example"), 250)
                wait_until("an answer to a login",
                           lambda: any(r.startswith("535 ") for r in between.said), 60)
                first = next(line for line in between.heard if line.startswith("AUTH"))
                begin = unword(first.split()[2])
                assert begin.startswith("y,," if strips else "p=tls-exporter,,"), begin
                assert first.split()[1] == ("SCRAM-SHA-256" if strips else "SCRAM-SHA-256-PLUS")
                assert not any(line.startswith("MAIL") for line in between.heard)
                relay.wait_records("TransientFailure", 1)
                assert PASSWORD not in shown(relay)
                relay.command("queue", "cancel", "--all", "-y")
        assert s.counter("logins") == 1 and len(s.sink.ledger()) == 1


if __name__ == "__main__":
    run(globals())
