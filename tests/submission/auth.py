#!/usr/bin/env python3
"""Who logs in may submit, whoever else may not: real clients, rules for users, hostile tries.

auth.py [TEST...]"""

import base64
import concurrent.futures
import os
import pathlib
import re
import shutil
import smtplib
import subprocess
import sys
import time

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "faults"), str(TESTS / "interop")]
from faults import (Client, Engine, Example, Failure, Sink, Skip, TempDir, cpu_seconds,  # noqa: E402
                    beside, free_port, program, run, settings_for, shown, wait_empty, wait_until)
from authority import Authority, careless  # noqa: E402
from peers import TREES  # noqa: E402
import scram  # noqa: E402

STRANGER = "127.0.0.2"  # configured to be outside of relay_networks
PASSWORD = "Canary-Kanarienvogel-4711"
FAST = "$6$rounds=1000$saltsalt$ZlL/LbKn4.EFBhAuSohmL9nOx7e3MANciQckL/4ayMnrRGa/9xFzcA8i9dC9c94JphnHf3yBBVSA8kUkO51s2."
SLOW = "$6$rounds=5000$saltsalt$MJgKIR1VoUBDEgdlnLGNDMEWYxZ1iDV2fNxtJnpe.UNyyehgzH1r5FQ4hbva2HnfdefJoPPYH4xRLHb91oSqP1"
TEXT = "From: <a@shop.example>\r\nSubject: hello\r\n\r\nhello\r\n"
NPM = TREES / "npm"


def user(engine, *arguments, password=PASSWORD):
    """hayauma user, for the engine's file."""
    done = subprocess.run([beside(), "user", *arguments, "--file", engine.dir / "users"],
                          input=password + "\n", capture_output=True, text=True, timeout=60,
                          check=False)
    if done.returncode != 0:
        raise Failure(f"hayauma user {arguments}: {done.stderr}")


class Submission:
    """An engine whose listener asks for logins, in front of a sink; user shop is there."""

    def __init__(self, login="required", users=(("shop",),), listener=None, fast=FAST, **settings):
        self.temp = TempDir("hayauma-auth-")
        self.sink = Sink(directory=self.temp.path / "sink").start()
        self.engine = Engine(settings_for(self.sink, **settings), directory=self.temp.path / "engine")
        self.engine.config.setdefault("auth", {})["users_file"] = str(self.engine.dir / "users")
        self.engine.config["listeners"][0].update({
            "auth": login, "auth_without_tls": True, "relay_networks": ["127.0.0.1/32"],
            **(listener or {})})
        for arguments in users:
            user(self.engine, "add", *arguments)
        if fast:  # to check, not to guess
            file = self.engine.dir / "users"
            file.write_text(re.sub(r":\$y\$[^:\n]*", ":" + fast, file.read_text()))

    def __enter__(self):
        self.engine.start()
        return self

    def __exit__(self, *_):
        self.engine.stop()
        self.sink.stop()

    def counter(self, name):
        return self.engine.status()["counters"][name]


def plain(name, password=PASSWORD):
    return "AUTH PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode()).decode()


def word(text):
    return base64.b64encode(text.encode()).decode()


def unword(text):
    return base64.b64decode(text).decode()


def scram_login(client, name, password=PASSWORD, binding="n,,", spoil=None):
    """The replies to the exchange's three lines, as far as it goes."""
    side = scram.Client(name, password, binding)
    said = [client.command("AUTH SCRAM-SHA-256 " + word(side.say()))]
    if said[-1].startswith("334 "):
        answer = side.answer(unword(said[-1][4:]))
        said.append(client.command(word(spoil(answer) if spoil else answer)))
    if said[-1].startswith("334 ") and len(said) == 2:
        assert side.proved(unword(said[-1][4:])), said
        said.append(client.command(""))
    return said


def salt_of(engine, name):
    with Client(engine) as client:
        side = scram.Client(name, "x")
        reply = client.command("AUTH SCRAM-SHA-256 " + word(side.say()))
        assert client.command("*").startswith("501 5.7.0")
        return {k: v for k, v in scram.values(unword(reply[4:])).items() if k in "si"}


def command(argv, text=b"", **more):
    done = subprocess.run([str(a) for a in argv], input=text, capture_output=True, timeout=60,
                          env={**os.environ, **more}, check=False)
    assert done.returncode == 0, (argv[0], done.stdout, done.stderr)
    return done.stdout


# --- real clients ---

def swaks(engine, mechanism, port, *more):
    command(["swaks", "--server", engine.host, "--port", port, *more, "--auth", mechanism,
             "--auth-user", "shop", "--auth-password", PASSWORD, "--from", "a@shop.example",
             "--to", "u@d1.example", "--helo", "client.example"])


def msmtp(engine, mechanism, port, *more):
    command(["msmtp", f"--host={engine.host}", f"--port={port}", "--from=a@shop.example", *more,
             f"--auth={mechanism.lower()}", "--user=shop", f"--passwordeval=echo {PASSWORD}",
             "--domain=client.example", "u@d1.example"], TEXT.encode())


def test_clients():
    """smtplib, swaks, msmtp and nodemailer log in and submit; the record and Received say so."""
    with Submission() as s:
        engine, sent = s.engine, 0
        for mechanism in ("auth_plain", "auth_login"):
            with smtplib.SMTP(engine.host, engine.port, timeout=30) as smtp:
                smtp.ehlo("client.example")
                smtp.user, smtp.password = "shop", PASSWORD
                assert smtp.auth(mechanism[5:], getattr(smtp, mechanism))[0] == 235
                smtp.sendmail("a@shop.example", ["u@d1.example"], TEXT)
                sent += 1
        with smtplib.SMTP(engine.host, engine.port, timeout=30) as smtp:
            smtp.login("shop", PASSWORD)
            smtp.sendmail("a@shop.example", ["u@d1.example"], TEXT)
            sent += 1
        for mechanism in ("PLAIN", "LOGIN"):
            swaks(engine, mechanism, engine.port)
            msmtp(engine, mechanism, engine.port, "--tls=off")
            sent += 2
        if shutil.which("node") and (NPM / "node_modules/nodemailer").exists():
            script = s.temp.path / "send.js"
            script.write_text("""
const mailer = require("nodemailer").createTransport({host: process.argv[2], port: +process.argv[3],
  ignoreTLS: true, name: "client.example", auth: {user: "shop", pass: process.argv[4]}});
mailer.sendMail({from: "a@shop.example", to: "u@d1.example", text: "x"}).then(() => mailer.close(),
  e => { console.error(e); process.exit(1); });
""")
            command(["node", script, engine.host, engine.port, PASSWORD],
                    NODE_PATH=str(NPM / "node_modules"))
            sent += 1
        wait_empty(engine)
        assert len(s.sink.ledger()) == sent
        assert [r["user"] for r in engine.wait_records("Reception", sent)] == ["shop"] * sent
        assert s.counter("logins") == sent and s.counter("logins_failed") == 0


def test_trace():
    """Received says ESMTPA of who is logged in, and ESMTP of who is not."""
    with Submission(login="offered") as s:
        s.engine.command("queue", "suspend", "--domain", "d1.example")
        for login in (True, False):
            with Client(s.engine) as client:
                if login:
                    client.expect(client.command(plain("shop")), 235)
                client.expect(client.message("u@d1.example"), 250)
        ids = [r["id"] for r in s.engine.wait_records("Reception", 2)]
        for message_id, with_what in zip(ids, (" with ESMTPA id ", " with ESMTP id ")):
            assert with_what in s.engine.command("queue", "show", message_id)
        assert "user" not in s.engine.records("Reception")[1]
        # What waits would keep the engine from an empty queue, and not from its end.


# --- SCRAM ---

KEYS = ("--method", "scram-sha-256")


def test_scram():
    """Clients log in by keys, with SCRAM, PLAIN or LOGIN; a wrong password, a wrong user, another
    binding or a spoilt proof gets nobody in."""
    with Submission(users=(("shop", *KEYS), ("odd=na,me", *KEYS)), auth={"failures_max": 1000}) as s:
        engine = s.engine
        with Client(engine, hello=None) as client:
            client.expect(client.reply(), 220)
            assert "250-AUTH SCRAM-SHA-256 PLAIN LOGIN\n" in client.command("EHLO c.example")
        for name, binding in (("shop", "n,,"), ("shop", "y,,"), ("shop", "n,a=shop,"), ("odd=na,me", "n,,")):
            with Client(engine) as client:
                assert scram_login(client, name, binding=binding)[-1].startswith("235 "), name
                client.expect(client.message("u@d1.example"), 250)
        for login in (plain("shop"), f"AUTH LOGIN {word('shop')}"):
            with Client(engine) as client:
                reply = client.command(login)
                client.expect(client.command(word(PASSWORD)) if reply.startswith("334") else reply, 235)
        msmtp(engine, "SCRAM-SHA-256", engine.port, "--tls=off")
        with smtplib.SMTP(engine.host, engine.port, timeout=30) as smtp:
            smtp.login("shop", PASSWORD)
            smtp.sendmail("a@shop.example", ["u@d1.example"], TEXT)

        def fails(number):
            what = ({"password": "wrong"}, {"name": "nobody"}, {"binding": "n,a=root,"},
                    {"binding": "p=tls-exporter,,"}, {"spoil": lambda a: a[:-5] + "AAA="},
                    {"spoil": lambda a: "c=eSws" + a[6:]}, {"spoil": lambda a: ""})[number]
            with Client(engine, source=f"127.0.3.{number + 1}") as client:
                return scram_login(client, **{"name": "shop", **what})[-1][:9]
        with concurrent.futures.ThreadPoolExecutor(7) as pool:
            assert list(pool.map(fails, range(7))) == [
                "535 5.7.8", "535 5.7.8", "535 5.7.8", "501 5.5.2", "535 5.7.8", "535 5.7.8", "535 5.7.8"]
        with Client(engine) as client:  # nothing is left of an exchange that was given up
            client.expect(client.command("AUTH SCRAM-SHA-256 " + word(scram.Client("shop", "x").say())), 334)
            assert client.command("*").startswith("501 5.7.0")
            assert client.message("u@d1.example").startswith("530 ")
            client.expect(client.command(plain("shop")), 235)
        with Client(engine) as client:  # nor when the client does so behind our proof
            side = scram.Client("shop", PASSWORD)
            challenge = client.command("AUTH SCRAM-SHA-256 " + word(side.say()))
            client.expect(client.command(word(side.answer(unword(challenge[4:])))), 334)
            assert client.command("*").startswith("501 5.7.0")
            assert client.message("u@d1.example").startswith("530 ")
        wait_empty(engine)
        assert len(s.sink.ledger()) == 6
        assert s.counter("logins_failed") == 7


def test_scram_shows_nothing():
    """Who there is does not show: a name that is none has a salt of its own, the same after a restart.
    Nor do keys and passwords, in any log or record."""
    with Submission(users=(("shop", *KEYS), ("other", *KEYS)), log_level="debug") as s:
        names = ("shop", "other", "nobody", "no one")
        before = [salt_of(s.engine, name) for name in names]
        assert len({b["s"] for b in before}) == 4 and {b["i"] for b in before} == {"15000"}, before
        assert {len(b["s"]) for b in before} == {24}
        with Client(s.engine) as client:
            assert scram_login(client, "shop", "x" + PASSWORD)[-1].startswith("535 ")
        s.engine.stop()
        s.engine.start()
        assert [salt_of(s.engine, name) for name in names] == before
        text = shown(s.engine)
        keys = (s.engine.dir / "users").read_text()
        for secret in (PASSWORD, word(PASSWORD)[:-4], keys.split(",")[2], keys.split(",")[3][:40]):
            assert secret not in text, secret


def test_scram_tries():
    """Failures of SCRAM lock out as those of PLAIN do, and exchanges that began before count too."""
    with Submission(users=(("shop", *KEYS),), auth={"failures_max": 2, "failures_period": "1h"}) as s:
        clients = [Client(s.engine, source=STRANGER) for _ in range(6)]
        sides = [scram.Client("shop", "wrong") for _ in clients]
        answers = [side.answer(unword(client.command("AUTH SCRAM-SHA-256 " + word(side.say()))[4:]))
                   for client, side in zip(clients, sides)]
        for client, answer in zip(clients, answers):
            client.send(word(answer) + "\r\n")
        codes = sorted(client.reply()[:9] for client in clients)
        assert codes == ["454 4.7.0"] * 4 + ["535 5.7.8"] * 2, codes
        for client in clients:
            client.close()
        with Client(s.engine, source=STRANGER) as client:
            assert scram_login(client, "shop") == ["454 4.7.0 too many failed logins, try again later"]
            assert client.command(plain("shop")).startswith("454 4.7.0")


def test_scram_for_all_or_nobody():
    """One user without keys, and clients are not offered what would fail for that one."""
    with Submission(users=(("shop", *KEYS),), fast=None) as s:
        def offered():
            with Client(s.engine, hello=None) as client:
                client.expect(client.reply(), 220)
                return "SCRAM" in client.command("EHLO c.example")
        assert offered()
        with Client(s.engine) as old:
            user(s.engine, "add", "new", "--method", "sha512")
            s.engine.command("reload")
            assert not offered()
            with Client(s.engine) as client:
                assert scram_login(client, "shop")[0].startswith("504 ")
                client.expect(client.command(plain("shop")), 235)
            # A session from before the reload may still try.
            assert scram_login(old, "shop")[-1].startswith("235 ")
            assert scram_login(Client(s.engine), "shop")[0].startswith("504 ")
        user(s.engine, "passwd", "new", *KEYS)
        user(s.engine, "passwd", "shop")  # as before: with keys
        s.engine.command("reload")
        assert offered()


# --- who may ---

def test_required():
    """Nobody's mail but that of users, from relay_networks neither; who has logged in may relay from
    anywhere. EHLO offers it, and AUTH= is taken."""
    with Submission() as s:
        for source in (None, STRANGER):
            with Client(s.engine, hello=None, source=source) as client:
                client.expect(client.reply(), 220)
                assert "250-AUTH PLAIN LOGIN\n" in client.command("EHLO c.example")
                assert client.message("u@d1.example").startswith("530 5.7.0 ")
                assert client.command("RCPT TO:<u@d1.example>").startswith("503 ")
                assert client.command("VRFY <u@d1.example>").startswith("252 ")
                client.expect(client.command(plain("shop")), 235)
                assert client.command(plain("shop")).startswith("503 5.5.1")
                client.expect(client.command("MAIL FROM:<a@b.example> AUTH=<>"), 250)
                client.command("RSET")
                client.expect(client.message("u@d1.example"), 250)
        wait_empty(s.engine)
        assert len(s.sink.ledger()) == 2


def test_example():
    """docs/examples/shared-relay.yaml: servers of the private network by their addresses at 25, users at 587
    and 465 over TLS, and nobody else; tenants by user."""
    temp = TempDir("hayauma-auth-")
    chain, key = Authority(temp.path / "authority").self_signed("relay1.example.com")
    with Sink(directory=temp.path / "sink") as sink:
        engine = Example("shared-relay.yaml", {
            "/etc/hayauma/tls/fullchain.pem": str(chain), "/etc/hayauma/tls/privkey.pem": str(key),
            "/etc/hayauma/users": str(temp.path / "engine/users"), "[10.0.0.0/8]": "[127.0.0.1/32]"},
            settings_for(sink), temp.path / "engine")
        ports = {"10.0.0.5:25": (engine.port, ""), "0.0.0.0:587": (free_port(), ""),
                 "0.0.0.0:465": (free_port(), "\n    tls: implicit")}  # which it is at its own port
        for old, (port, more) in ports.items():
            engine.replace[f'"{old}"'] = f'"127.0.0.1:{port}"{more}'
        user(engine, "add", "shop", "--senders", "shop.example", "--tenant", "shop")
        with engine:
            for source, code in ((None, 250), (STRANGER, 550)):
                with Client(engine, source=source) as client:
                    client.expect(client.message("u@d1.example"), code)
            for old, connect in (("0.0.0.0:587", smtplib.SMTP), ("0.0.0.0:465", smtplib.SMTP_SSL)):
                more = {"context": careless()} if connect is smtplib.SMTP_SSL else {}
                with connect("127.0.0.1", ports[old][0], "c.example", timeout=30, **more) as smtp:
                    if not more:
                        smtp.starttls(context=careless())
                    smtp.ehlo()
                    assert smtp.mail("a@shop.example")[0] == 530
                    smtp.login("shop", PASSWORD)
                    assert smtp.mail("a@other.example")[0] == 553
                    smtp.sendmail("a@shop.example", ["v@d1.example"], TEXT)
            records = engine.wait_records("Delivery", 3)
            assert sorted(r["meta"].get("tenant", "") for r in records) == ["", "shop", "shop"], records
            assert {r["reception_protocol"] for r in records} == {"ESMTP", "ESMTPSA"}, records


def test_offered():
    """Beside relay_networks: a stranger may relay once logged in, and not before."""
    with Submission(login="offered") as s:
        with Client(s.engine) as client:
            client.expect(client.message("u@d1.example"), 250)
        with Client(s.engine, source=STRANGER) as client:
            assert client.message("u@d1.example").startswith("550 5.7.1")
            client.command("RSET")
            assert client.command(plain("shop", "wrong")).startswith("535 5.7.8")
            assert client.message("u@d1.example").startswith("550 5.7.1")
            client.command("RSET")
            client.expect(client.command("AUTH LOGIN"), 334)
            client.expect(client.command(word("shop")), 334)
            client.expect(client.command(word(PASSWORD)), 235)
            client.expect(client.message("u@d1.example"), 250)
        # To be another is nothing that a user may.
        with Client(s.engine, source=STRANGER) as client:
            both = base64.b64encode(f"root\0shop\0{PASSWORD}".encode()).decode()
            assert client.command(f"AUTH PLAIN {both}").startswith("535 5.7.8")
            same = base64.b64encode(f"shop\0shop\0{PASSWORD}".encode()).decode()
            client.expect(client.command(f"AUTH PLAIN {same}"), 235)


class Encrypted(Submission):
    """With a certificate, STARTTLS on port and TLS from the start on implicit."""

    def __init__(self, **more):
        super().__init__(**more)
        chain, key = Authority(self.temp.path / "authority").self_signed("mta.sender.example")
        self.implicit = free_port()
        first = self.engine.config["listeners"][0]
        self.engine.config["certificates"] = [{"chain": str(chain), "key": str(key)}]
        self.engine.config["listeners"].append({**first, "listen": f"127.0.0.1:{self.implicit}",
                                                "tls": "implicit"})


def test_tls_first():
    """Without auth_without_tls no password is taken over a connection that is not encrypted; behind
    STARTTLS and over TLS from the start it is. Real clients do so."""
    with Encrypted(listener={"auth_without_tls": False}) as s:
        engine = s.engine
        with Client(engine, hello=None) as client:
            client.expect(client.reply(), 220)
            assert "AUTH" not in client.command("EHLO c.example")
            assert client.command(plain("shop")).startswith("538 5.7.11")
            assert client.message("u@d1.example").startswith("530 5.7.0 send STARTTLS")
        with smtplib.SMTP(engine.host, engine.port, timeout=30) as smtp:
            smtp.starttls(context=careless())
            smtp.login("shop", PASSWORD)
            smtp.sendmail("a@shop.example", ["u@d1.example"], TEXT)
        with smtplib.SMTP_SSL(engine.host, s.implicit, timeout=30, context=careless()) as smtp:
            smtp.login("shop", PASSWORD)
            smtp.sendmail("a@shop.example", ["u@d1.example"], TEXT)
        for port, how, starttls in ((engine.port, "--tls", "on"), (s.implicit, "--tls-on-connect", "off")):
            swaks(engine, "LOGIN", port, how)
            msmtp(engine, "PLAIN", port, "--tls=on", f"--tls-starttls={starttls}", "--tls-certcheck=off")
        records = engine.wait_records("Reception", 6)
        assert [r["reception_protocol"] for r in records] == ["ESMTPSA"] * 6
        assert [r["user"] for r in records] == ["shop"] * 6
        wait_empty(engine)


def test_login_before_tls():
    """A login from before STARTTLS counts for nothing behind it: it may have been another's."""
    with Encrypted() as s:
        with Client(s.engine) as client:
            client.expect(client.command(plain("shop")), 235)
            client.starttls(careless())
            assert client.message("u@d1.example").startswith("530 5.7.0")
            client.expect(client.command(plain("shop")), 235)
            client.expect(client.message("u@d1.example"), 250)
        wait_empty(s.engine)


def test_user_rules():
    """Senders, tenant, priority and rate of a user."""
    with Submission(users=(
            ("shop", "--senders", "shop.example,*.shop.example,b@other.example", "--tenant", "shop",
             "--priority", "6", "--rate", "5/h"), ("free",), ("held", "--tenant", "shop"))) as s:
        with Client(s.engine) as client:
            client.expect(client.command(plain("shop")), 235)
            for sender in ("", "a@other.example", "a@notshop.example", "a@example",
                           "shop.example@x.example"):
                reply = client.command(f"MAIL FROM:<{sender}>")
                assert reply.startswith("553 5.7.1"), (sender, reply)
            for sender, header in (
                    ("a@shop.example", ""), ("a@x.SHOP.example", "X-Hayauma-Tenant: acme\r\n"),
                    ("B@other.example", "X-Hayauma-Priority: 1\r\n"),
                    ("a@shop.example", "X-Hayauma-Priority: 8\r\n")):
                client.expect(client.message("u@d1.example", sender=sender,
                                             data=(header + TEXT).encode()), 250)
            client.command("MAIL FROM:<a@shop.example>")
            client.command("RSET")
            reply = client.command("MAIL FROM:<a@shop.example>")
            assert reply.startswith("450 4.7.1 user shop has sent as much as its rate allows"), reply
        with Client(s.engine) as client:
            client.expect(client.command(plain("free")), 235)
            client.expect(client.message("u@d1.example", sender="",
                                         data=b"X-Hayauma-Tenant: acme\r\n" + TEXT.encode()), 250)
        records = s.engine.wait_records("Reception", 5)
        assert [r["meta"].get("tenant") for r in records] == ["shop"] * 4 + ["acme"]
        assert [r["user"] for r in records] == ["shop"] * 4 + ["free"]
        refused = [r for r in s.engine.wait_records("Rejection", 6) if r["response"]["code"] == 553]
        assert refused and all(r["user"] == "shop" for r in refused)
        who_gets_no_mail(s)


def who_gets_no_mail(s):
    """Recipients on the suppression list, of all or of the user's tenant, are refused; in their place, whatever is
    pipelined behind them; not while the listener does not look."""
    for arguments in (("a@d1.example", "--tenant", "shop"), ("b@d1.example", "--reason", "complaint"),
                      ("c@d1.example", "--reason", "unsubscribed"), ("e@d1.example", "--tenant", "other")):
        s.engine.command("suppress", "add", *arguments)
    rcpts = {"a": "shop", '"A"': "shop", "b": "", "c": None, "e": "other", "f": None}
    lines = b"".join(f"RCPT TO:<{who}@D1.example>\r\n".encode() for who in rcpts)
    for looks in (False, True):
        if looks:
            s.engine.config["listeners"][0]["suppression"] = True
            s.engine.reload()
        for name, lists in (("held", ("", "shop")), ("free", ("",))):
            with Client(s.engine) as client:
                client.expect(client.command(plain(name)), 235)
                client.send(b"MAIL FROM:<a@shop.example>\r\n" + lines + b"DATA\r\n")
                client.expect(client.reply(), 250)
                for who, whose in rcpts.items():
                    reply = client.reply()
                    if looks and whose in lists:
                        of = f" of {whose}" if whose else ""
                        assert reply.startswith(f"550 5.7.1 the address is on the suppression list{of}: "), (who, reply)
                    else:
                        client.expect(reply, 250)
                client.expect(client.reply(), 354)
                client.send(TEXT.encode() + b".\r\n")
                client.expect(client.reply(), 250)
    refused = [r["recipient"] for r in s.engine.wait_records("Rejection", 10)
               if "suppression list" in r["response"]["content"]]
    assert sorted(refused) == ['"A"@D1.example', "a@D1.example", "b@D1.example", "b@D1.example"], refused
    assert s.counter("suppressed_recipients") == 4
    # Whose mail it is, the message alone says: looked up before it is sent.
    with Client(s.engine) as client:
        client.expect(client.command(plain("free")), 235)
        client.expect(client.message("a@d1.example", "h@d1.example",
                                     data=b"X-Hayauma-Tenant: shop\r\n" + TEXT.encode()), 250)
    (ended,) = s.engine.wait_records("Bounce")
    assert (ended["recipient"], ended["bounce_classification"], ended["num_attempts"]) == ("a@d1.example", "Suppressed", 0)
    (sent,) = s.engine.wait_records("Delivery", recipient="h@d1.example")
    assert sent["id"] == ended["id"], (sent, ended)


def mail_from(address, more=b""):
    return more + f"From: {address}\r\nSubject: x\r\n\r\nhello\r\n".encode()


def test_from_rules():
    """The From field has addresses of the sender's own alone, else 550 that names the rule; so does the
    envelope. from= says so where the two differ."""
    with Submission(users=(("shop", "--senders", "shop.example"), ("free",),
                           ("esp", "--senders", "bounce.example", "--from", "a.example,b@c.example"),
                           ("any", "--senders", "bounce.example", "--from", "*"))) as s:
        def said(name, sender, data):
            with Client(s.engine) as client:
                client.expect(client.command(plain(name)), 235)
                return client.message("u@d1.example", sender=sender, data=data)
        for name, sender, data in (
                ("shop", "x@shop.example", mail_from("A <a@SHOP.example>")),
                ("shop", "x@shop.example", mail_from("a@shop.example, B <b@shop.example>")),
                ("esp", "x@bounce.example", mail_from("a@a.example")),
                ("esp", "x@bounce.example", mail_from("B <b@c.example>")),
                ("any", "x@bounce.example", mail_from("a@theirs.example")),
                ("free", "x@theirs.example", mail_from("a@theirs.example")),
                ("free", "x@theirs.example", b"Subject: x\r\n\r\nx\r\n")):
            reply = said(name, sender, data)
            assert reply.startswith("250 "), (name, data, reply)
        other = "550 5.7.1 From: has an address that is not in the list of user "
        for name, sender, data, want in (
                ("shop", "x@theirs.example", b"", "553 5.7.1 this sender is not in the list of user shop"),
                ("shop", "x@shop.example", mail_from("a@theirs.example"), other + "shop"),
                ("shop", "x@shop.example", mail_from("a@shop.example, b@theirs.example"), other + "shop"),
                ("shop", "x@shop.example", mail_from("a@shop.example", b"From: b@theirs.example\r\n"),
                 other + "shop"),
                ("shop", "x@shop.example", mail_from("b@theirs.example <a@shop.example>"), other + "shop"),
                ("shop", "x@shop.example", mail_from("a@shop.example", b"\xef\xbb\xbfFrom: b@theirs.example\r\n"),
                 other + "shop"),
                ("shop", "x@shop.example", b"From: x\r\n\r\nx\r\n", "550 5.7.1 From: has no address"),
                ("esp", "x@bounce.example", b"Subject: x\r\n\r\nx\r\n", other + "esp"),
                ("shop", "x@shop.example", mail_from("a@shop.example \"x"), "550 5.7.1 From: can be read"),
                ("esp", "x@bounce.example", mail_from("x@bounce.example"), other + "esp"),
                ("esp", "x@bounce.example", mail_from("a@c.example"), other + "esp")):
            reply = said(name, sender, data)
            assert reply.startswith(want), (name, data, reply)
        wait_empty(s.engine)
        refused = [r["response"]["content"] for r in s.engine.wait_records("Rejection", 11)]
        assert sum("From: has an address" in text for text in refused) == 8, refused


def test_network_rules():
    """What a network or a listener says of senders holds for clients without a rule of their own: the
    user's comes first, then the narrowest network's, then the listener's."""
    with Submission(login="offered", users=(("shop", "--senders", "shop.example"), ("free",)), listener={
            "name": "internal", "senders": ["here.example", "<>"], "from": ["here.example"],
            "relay_networks": ["127.0.0.0/16"],
            "clients": {"127.0.0.5": {"senders": ["*.five.example"]}, "127.0.0.6": {"pool": "default"}}}) as s:
        def said(source, sender, author, name=None):
            with Client(s.engine, source=source) as client:
                if name:
                    client.expect(client.command(plain(name)), 235)
                return client.message("u@d1.example", sender=sender, data=mail_from(author))
        for arguments in (("127.0.0.1", "a@here.example", "a@here.example"), ("127.0.0.1", "", "a@here.example"),
                          ("127.0.0.6", "a@here.example", "a@here.example"),
                          ("127.0.0.5", "a@x.five.example", "a@y.five.example"),
                          ("127.0.0.5", "a@shop.example", "a@shop.example", "shop"),
                          ("127.0.0.1", "a@here.example", "a@here.example", "free")):
            reply = said(*arguments)
            assert reply.startswith("250 "), (arguments, reply)
        for arguments, rule in (
                (("127.0.0.1", "a@x.five.example", "a@here.example"), "listener internal"),
                (("127.0.0.1", "a@here.example", "a@shop.example"), "listener internal"),
                (("127.0.0.6", "a@here.example", "a@shop.example"), "listener internal"),
                (("127.0.0.5", "a@here.example", "a@y.five.example"), "network 127.0.0.5"),
                (("127.0.0.5", "a@x.five.example", "a@here.example"), "network 127.0.0.5"),
                (("127.0.0.1", "a@here.example", "a@here.example", "shop"), "user shop"),
                (("127.0.0.1", "a@here.example", "a@shop.example", "free"), "listener internal")):
            reply = said(*arguments)
            assert reply[:9] in ("553 5.7.1", "550 5.7.1") and reply.strip().endswith(rule), (arguments, reply)
        # Who may send to nobody hears so, of whatever sender.
        assert said("127.1.0.1", "a@else.example", "a@else.example").startswith("550 5.7.1 relaying denied")
        shown_rule = s.engine.command("config", "show")
        assert "senders: [\"here.example\", \"<>\"]" in shown_rule or "senders: [here.example" in shown_rule


def test_many_fields():
    """A header of more fields than any letter has is refused, before somebody lists them all."""
    with Submission(login="none") as s:
        with Client(s.engine) as client:
            client.expect(client.message("u@d1.example", data=b"x:\r\n" * 10000 + b"\r\nx\r\n"), 250)
            reply = client.message("u@d1.example", data=b"x:\r\n" * 10001 + b"\r\nx\r\n")
            assert reply.startswith("554 5.6.0 too many header fields"), reply


def test_priority():
    """A user's mail goes with no better priority than the user's."""
    with Submission(users=(("shop", "--priority", "6"),)) as s:
        s.engine.command("queue", "suspend", "--domain", "d1.example")
        with Client(s.engine) as client:
            client.expect(client.command(plain("shop")), 235)
            for header in ("", "X-Hayauma-Priority: 1\r\n", "X-Hayauma-Priority: 8\r\n"):
                client.expect(client.message("u@d1.example", data=(header + TEXT).encode()), 250)
        s.engine.wait_records("Reception", 3)
        rows = [row["priority"] for row in s.engine.rows("queue", "list")]
        assert sorted(rows) == [6, 6, 8], rows


def test_pool():
    """A user's mail goes by the user's pool, others' by the default one."""
    with Submission(users=(("shop", "--pool", "p2"), ("free",)), default_pool="p1",
                    sources={"a1": {"ipv4": "127.0.0.1"}, "a2": {"ipv4": "127.0.0.12"}},
                    pools={"p1": {"sources": {"a1": {}}}, "p2": {"sources": {"a2": {}}}}) as s:
        for name in ("shop", "free"):
            with Client(s.engine) as client:
                client.expect(client.command(plain(name)), 235)
                client.expect(client.message(f"{name}@d1.example"), 250)
        pools = {r["recipient"]: r["egress_pool"] for r in s.engine.wait_records("Delivery", 2)}
        assert pools == {"shop@d1.example": "p2", "free@d1.example": "p1"}, pools


def test_reload():
    """The file is read again: who is new gets in, who is gone or has another password is out at his
    next message; a file with a mistake, or one that others may read, changes nothing."""
    with Submission(users=(("shop",), ("gone",), ("other",))) as s:
        clients = {}
        for name in ("shop", "gone", "other"):
            clients[name] = Client(s.engine)
            clients[name].expect(clients[name].command(plain(name)), 235)
        user(s.engine, "remove", "gone")
        user(s.engine, "passwd", "other", password="another-" + PASSWORD)
        user(s.engine, "add", "new")
        users = s.engine.dir / "users"
        users.chmod(0o640)
        done = subprocess.run([program(), "reload", "-c", s.engine.file], capture_output=True,
                              text=True, check=False, timeout=60)
        assert done.returncode == 1 and "chmod 600" in done.stderr + done.stdout, done
        with Client(s.engine) as client:
            client.expect(client.command(plain("gone")), 235)
        users.chmod(0o600)
        s.engine.command("reload")
        for name, codes in (("shop", (250,)), ("gone", (421,)), ("other", (421,))):
            clients[name].expect(clients[name].command("MAIL FROM:<a@b.example>"), *codes)
            clients[name].close()
        with Client(s.engine) as client:
            assert client.command(plain("gone")).startswith("535")
            assert client.command(plain("other")).startswith("535")
            client.expect(client.command(plain("new")), 235)


# --- hostile ---

def test_no_password_shown():
    """Passwords are in no log (with debug), no record and no answer of the control channel; nor is a
    name that is none, which may be a password typed in its place."""
    with Submission(log_level="debug") as s:
        tries = ((plain("shop", "x" + PASSWORD),), (plain(PASSWORD, "x"),),
                 (f"AUTH LOGIN {word(PASSWORD)}", word(PASSWORD)),
                 ("AUTH LOGIN", word("shop"), word("y" + PASSWORD)), (f"AUTH PLAIN {word(PASSWORD)}",),
                 ("AUTH PLAIN " + word("\0shop\0" + PASSWORD)[:-3],))

        def fail(number):  # each from an address of its own: a second failure is told later
            with Client(s.engine, source=f"127.0.2.{number + 1}") as client:
                for line in tries[number]:
                    last = client.command(line)
                assert last[:3] in ("535", "501"), last
        with concurrent.futures.ThreadPoolExecutor(len(tries)) as pool:
            list(pool.map(fail, range(len(tries))))
        with Client(s.engine) as client:
            client.expect(client.command(plain("shop")), 235)
            client.expect(client.message("u@d1.example"), 250)
        with Client(s.engine) as client:  # in pieces, and an end in the middle
            half = plain("shop")
            client.send(half[:30])
            time.sleep(0.05)
            client.send(half[30:])
        wait_empty(s.engine)
        failed = [r for r in s.engine.wait_records("Rejection", 5)
                  if r["response"]["command"] == "AUTH"]
        assert any(r.get("user") == "shop" for r in failed)
        assert "smtp.auth_failed" in s.engine.log()
        text = shown(s.engine)
        for secret in (PASSWORD, word(PASSWORD)[:-4], word("\0shop\0" + PASSWORD)[:-4], FAST[:20]):
            assert secret not in text, secret


def memory_has(pid, secrets):
    """Which of the secrets are in what the process may write to."""
    found = set()
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            area, rights, *_ = line.split()
            start, end = (int(x, 16) for x in area.split("-"))
            if not rights.startswith("rw") or end - start > 1 << 28:  # a sanitizer's shadow
                continue
            try:
                memory.seek(start)
                data = memory.read(end - start)
            except (OSError, OverflowError, ValueError):
                continue
            found.update(secret for secret in secrets if secret.encode() in data)
    return found


def test_password_leaves_memory():
    """Behind a login over TLS the password is nowhere in memory, in whatever pieces it came: not in
    buffers that were freed, not in those of sessions that ended in its midst."""
    if b"__tsan_init" in program().read_bytes():
        raise Skip("ThreadSanitizer: its memory takes a minute to read, and is looked at in other builds")
    with Encrypted(listener={"auth_without_tls": False}, users=(("shop",), ("other",)), log_level="debug") as s:
        secrets = {PASSWORD[:12], word(PASSWORD)[:16]}

        def client():
            c = Client(s.engine)
            c.starttls(careless())
            return c
        try:
            memory_has(s.engine.process.pid, secrets)
        except OSError as error:
            raise Skip(f"memory is not to be read: {error}") from error
        def whole(c):
            c.expect(c.command(plain("shop")), 235)

        def pieces(c):
            line = plain("shop") + "\r\n"
            for at in range(0, len(line), 9):
                c.send(line[at:at + 9])
                time.sleep(0.005)
            c.expect(c.reply(), 235)

        def at_once(c):
            c.send(f"AUTH LOGIN\r\n{word('shop')}\r\n{word(PASSWORD)}\r\n" + "NOOP\r\n" * 50)
            for _ in range(2):
                c.expect(c.reply(), 334)
            c.expect(c.reply(), 235)

        def cut(c):
            c.send(plain("shop"))
            time.sleep(0.1)

        def behind_another(c):  # it waits while another password is checked
            c.send(f"{plain('shop', 'wrong')}\r\n{plain('shop')}\r\n" + "NOOP\r\n" * 100)
            c.expect(c.reply(), 535)
            c.expect(c.reply(), 235)
        for case in (whole, pieces, at_once, cut, behind_another):
            with client() as c:
                case(c)
            wait_until("its end", lambda: s.engine.status()["gauges"]["sessions_in"] == 0)
            found = memory_has(s.engine.process.pid, secrets)
            assert not found, (case, found)


def test_endless_tries():
    """10,000 tries from one address cost as many checks as failures_max, and others log in
    meanwhile, the same user from where he is known too. The records do not fill."""
    with Submission(auth={"failures_max": 2, "failures_period": "1h"}) as s:
        engine, tried, replies = s.engine, 0, {}
        with Client(engine, source="127.0.0.9") as client:  # where shop is known from here on
            client.expect(client.command(plain("shop")), 235)
        before = cpu_seconds(engine.process.pid)
        while tried < 10000:
            with Client(engine, source=STRANGER) as client:
                client.send("".join(plain("shop", f"p{tried + i}") + "\r\n" for i in range(150)))
                while (reply := client.reply()) and not reply.startswith("421"):
                    replies[reply[:9]] = replies.get(reply[:9], 0) + 1
                    tried += 1
                    if tried % 150 == 0:
                        break
        assert replies.pop("535 5.7.8") == 2, replies
        assert set(replies) == {"454 4.7.0"}, replies
        with Client(engine, source="127.0.0.9") as client:
            client.expect(client.command(plain("shop")), 235)
        with Client(engine, source="127.0.0.10") as client:  # unknown here: kept out as well
            assert client.command(plain("shop")).startswith("454 4.7.0")
        assert cpu_seconds(engine.process.pid) - before < 10
        assert len(engine.records("Rejection")) < 1000
        assert s.counter("logins_failed") == tried + 1


def test_unknown_user_costs_the_same():
    """A name that is none is checked like one that is: nobody learns from the time which there are."""
    with Submission(auth={"failures_max": 1000}, fast=None) as s:
        cost = {}
        for name in ("shop", "nobody"):
            before = cpu_seconds(s.engine.process.pid)

            def one(i, name=name):
                with Client(s.engine, source=f"127.0.1.{i + 1}") as client:
                    assert client.command(plain(name, "wrong")).startswith("535")
            with concurrent.futures.ThreadPoolExecutor(10) as pool:
                list(pool.map(one, range(10)))
            cost[name] = cpu_seconds(s.engine.process.pid) - before
        assert cost["nobody"] > cost["shop"] / 2, cost


def test_many_at_once():
    """More logins at once than wait: each is answered, in time, and nobody hangs. Those who go away
    meanwhile take nothing with them, nor does the end of the engine."""
    submission = Submission(fast=SLOW)
    submission.engine.arguments = ("--workers", "1")
    with submission as s:
        clients = [Client(s.engine) for _ in range(180)]
        for client in clients:
            client.send(plain("shop") + "\r\n")
        for client in clients[::4]:
            client.reset()
        codes = [client.reply()[:9] for i, client in enumerate(clients) if i % 4]
        assert set(codes) == {"235 2.7.0", "454 4.7.0"}, set(codes)
        for i, client in enumerate(clients):
            if i % 4:
                client.close()
        clients = [Client(s.engine) for _ in range(2)]
        for client in clients:
            client.send(plain("shop", "wrong") + "\r\n")
    for client in clients:
        client.close()


def test_no_memory_for_a_talker():
    """Who talks on while his password is checked fills no memory."""
    with Submission() as s:
        with Client(s.engine) as client:
            client.socket.setblocking(False)
            client.send(plain("shop", "wrong") + "\r\n")
            sent = 0
            try:
                while sent < 64 << 20:
                    sent += client.socket.send(b"NOOP\r\n" * 10000)
            except BlockingIOError:
                pass
            # What came in one buffer, not what others may pipeline behind their commits.
            held = s.engine.status()["gauges"]["intake_bytes"]
            assert held < 150_000 and sent < 32 << 20, (held, sent)


if __name__ == "__main__":
    for needed in ("swaks", "msmtp"):
        if not shutil.which(needed):
            raise Skip(f"no {needed} here")
    run(globals())
