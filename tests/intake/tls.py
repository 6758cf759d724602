#!/usr/bin/env python3
"""TLS of sessions inward: STARTTLS, implicit TLS, tickets, reloads, and clients that mean no good.

tls.py [TEST...]"""

import base64
import concurrent.futures
import contextlib
import os
import pathlib
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from authority import Authority, careless, trusting  # noqa: E402
from engine import Engine, program  # noqa: E402
from proc import Failure, TempDir, free_port, wait_until  # noqa: E402
from talk import Client, Skip, check, read_all, run, wait_no_sessions  # noqa: E402

MX = "mta.sender.example"
TEXT = "From: a@sender.example\r\nSubject: tls\r\n\r\nhello\r\n"


class Secure(Engine):
    """An engine with a certificate and two listeners: STARTTLS, and one that begins with TLS."""

    def __init__(self, certificates=None, **listener):
        self.scratch = TempDir("hayauma-tls-")
        self.authority = Authority(self.scratch.path / "ca")
        made = [self.authority.self_signed(*c, **more) for c, more in certificates or [((MX,), {})]]
        super().__init__({"certificates": [{"chain": str(c), "key": str(k)} for c, k in made]},
                         directory=self.scratch.path / "e")
        self.certificates = made
        self.tls_port = free_port((self.host,))
        self.config["listeners"] = [
            {"listen": f"{self.host}:{self.port}", **listener},
            {"listen": f"{self.host}:{self.tls_port}", "tls": "implicit", **listener}]

    def stop(self, timeout_s=60):
        super().stop(timeout_s)
        self.scratch.close()

    def implicit(self, context=None, name=MX, **more):
        """A session that is encrypted and greeted."""
        client = Client(self, hello=None, port=self.tls_port, **more)
        client.encrypt(context or careless(), name)
        client.expect(client.reply(), 220)
        client.expect(client.command("EHLO client.example"), 250)
        return client

    def totals(self):
        return self.status()["counters"]


def der(chain):
    return ssl.PEM_cert_to_DER_cert(chain.read_text())


def raw(engine):
    """A connection that is to begin with TLS."""
    return socket.create_connection((engine.host, engine.tls_port), 15)


def test_clients_of_python():
    """smtplib over STARTTLS and implicit TLS, with the certificate verified; what is recorded."""
    with Secure() as engine:
        context = trusting(engine.certificates[0][0])
        with smtplib.SMTP(engine.host, engine.port, timeout=30) as session:
            session._host = MX  # whom the certificate is to be of
            session.ehlo()
            check("offered", session.has_extn("starttls"), True)
            session.starttls(context=context)
            session.ehlo()
            check("offered when encrypted", session.has_extn("starttls"), False)
            session.sendmail("a@sender.example", ["b@d.example"], TEXT)
        client = engine.implicit(context)
        client.expect(client.message("c@d.example"), 250)
        client.expect(client.command("QUIT"), 221)
        check("the end", client.socket.recv(10), b"")  # close_notify: else this raises
        client.close()
        with Client(engine) as plain:
            plain.expect(plain.message("d@d.example"), 250)
        for record in engine.wait_records("Reception", 3):
            secure = record["recipient"] != "d@d.example"
            check("protocol", record["reception_protocol"], "ESMTPS" if secure else "ESMTP")
            check("version", record.get("tls_protocol_version"), "TLSv1.3" if secure else None)
            check("cipher", record.get("tls_cipher", "TLS_")[:4], "TLS_")
            check("resumed", record.get("tls_resumed"), False if secure else None)
            shown = engine.command("queue", "show", record["id"])
            check("Received", re.search(r"using TLSv1\.3 with cipher TLS_\w+ \(\d+ bits\)", shown)
                  is not None, secure)
            check("Received with", " with ESMTPS id " in shown, secure)
        totals = engine.totals()
        check("counted", (totals["tls_in"], totals["tls_in_failures"]), (2, 0))


def test_swaks():
    with Secure() as engine:
        for port, how in ((engine.port, "--tls"), (engine.tls_port, "--tlsc")):
            done = subprocess.run(
                ["swaks", "--server", engine.host, "--port", str(port), how, "--from",
                 "a@sender.example", "--to", "b@d.example", "--helo", "client.example"],
                capture_output=True, text=True, timeout=60, check=False)
            if done.returncode != 0 or "queued as" not in done.stdout:
                raise Failure(f"swaks {how}: {done.returncode}\n{done.stdout}\n{done.stderr}")


def s_client(engine, port, *arguments, implicit=False):
    argv = ["openssl", "s_client", "-connect", f"{engine.host}:{port}", "-servername", MX, "-crlf", "-ign_eof",
            *([] if implicit else ["-starttls", "smtp"]), *map(str, arguments)]
    # It goes on until the server ends the session: a ticket comes behind the handshake.
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as child:
        try:
            got, _ = child.communicate("QUIT\n", 60)
        finally:
            child.kill()
    return got


def test_sessions_resume_at_their_listener():
    """A ticket is of the listener that gave it, and lives through a reload."""
    with Secure() as engine:
        for version in ("-tls1_2", "-tls1_3"):
            ticket = engine.scratch.path / f"ticket{version}"
            first = s_client(engine, engine.port, version, "-sess_out", ticket)
            check(f"first {version}", "New, " in first, True)
            check(f"ticket {version}", ticket.exists(), True)
            engine.command("reload")
            again = s_client(engine, engine.port, version, "-sess_in", ticket)
            check(f"again {version}", "Reused, " in again, True)
            other = s_client(engine, engine.tls_port, version, "-sess_in", ticket, implicit=True)
            check(f"elsewhere {version}", ("Reused, " in other, "New, " in other), (False, True))
        check("resumed", engine.totals()["tls_in_resumed"], 2)


def test_old_versions_are_refused():
    with Secure() as engine:
        for version in ("-tls1", "-tls1_1"):
            got = s_client(engine, engine.port, version, "-cipher", "ALL:@SECLEVEL=0")
            check(version, "Cipher is (NONE)" in got and "alert protocol version" in got, True)
        got = s_client(engine, engine.port, "-tls1_2", "-cipher", "AES128-SHA:ECDHE-ECDSA-AES128-SHA")
        check("weak ciphers", "alert handshake failure" in got, True)
        check("failures", engine.totals()["tls_in_failures"], 3)
    with Secure(tls_version_min="1.3") as engine:
        got = s_client(engine, engine.port, "-tls1_2")
        check("1.2", "alert protocol version" in got, True)
        with Client(engine) as client:
            client.starttls(careless())
            check("1.3", client.socket.version(), "TLSv1.3")


def test_nothing_is_taken_behind_starttls():
    """RFC 3207 6: what came in plaintext must not count as said in the encrypted session."""
    with Secure() as engine:
        with Client(engine) as client:
            client.send("STARTTLS\r\nRSET\r\n")
            client.expect(client.reply(), 421)
            check("the end", client.ended(), True)
        with Client(engine) as client:  # behind mail that commits
            body = TEXT.encode()
            client.send(b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@d.example>\r\nBDAT %d LAST\r\n"
                        % len(body) + body + b"STARTTLS\r\nNOOP\r\n")
            for code in (250, 250, 250, 421):
                client.expect(client.reply(), code)
            check("the end", client.ended(), True)
        for text in (b"RSET\r\n", b"MAIL FROM:<a@b.example>\r\n" * 500):
            with Client(engine) as client:  # behind the reply: no handshake
                client.expect(client.command("STARTTLS"), 220)
                client.send(text)
                got = read_all(client.socket)
                check("an alert at most", got == b"" or got[:1] == b"\x15", True)
        with Client(engine) as client:  # a handshake behind the reply is none before it
            client.expect(client.command("MAIL FROM:<a@sender.example>"), 250)
            client.expect(client.command("STARTTLS"), 503)
            client.expect(client.command("RSET"), 250)
            client.expect(client.command("STARTTLS now"), 501)
            client.expect(client.command("STARTTLS"), 220)
            client.encrypt(careless())
            client.expect(client.command("MAIL FROM:<a@sender.example>"), 503)  # EHLO is forgotten
            client.expect(client.command("EHLO again.example"), 250)
            client.expect(client.command("STARTTLS"), 503)
            client.expect(client.message("b@d.example"), 250)
            # A second handshake within the first: no such thing.
            client.send(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
            client.expect(client.reply(), 421, 500)


def test_cut_chunks():
    """A chunk that lacks something when the connection ends, with TLS's word for it or without, is no message."""
    with Secure() as engine:
        for said in (True, False):
            client = engine.implicit()
            client.envelope("b@d.example")
            client.send(b"BDAT %d LAST\r\n" % (len(TEXT) + 1) + TEXT.encode())
            if said:
                client.socket.settimeout(5)
                with contextlib.suppress(OSError):
                    client.socket.unwrap()
            client.close()
        wait_no_sessions(engine)
        check("messages", engine.totals()["received_messages"], 0)


def test_garbage():
    """Whatever comes in place of a handshake ends that session, and no other."""
    with Secure() as engine, engine.implicit() as witness:
        garbage = [b"EHLO a\r\n", b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000), b"\x16\x03\x01\xff\xff" * 100,
                   b"\x15\x03\x03\x00\x02\x02\x28", b"\x80" * 100]
        for bytes_ in garbage:
            with raw(engine) as connection:
                connection.sendall(bytes_)
                connection.shutdown(socket.SHUT_WR)
                got = read_all(connection)
                check("an alert at most", got == b"" or got[:1] == b"\x15", True)
        with engine.implicit() as client:  # within an encrypted session, beneath it
            outside = socket.socket(fileno=os.dup(client.socket.fileno()))
            outside.sendall(b"NOOP\r\n")
            outside.close()
            try:
                check("nothing", client.socket.recv(100), b"")
            except (ssl.SSLError, ConnectionError):
                pass
        witness.expect(witness.command("NOOP"), 250)
        wait_until("failures", lambda: engine.totals()["tls_in_failures"] >= len(garbage))


def test_slow_handshakes_end():
    with Secure(tls_handshake_timeout="1s") as engine:
        began = time.monotonic()
        with raw(engine) as silent, raw(engine) as slow, \
                Client(engine) as starttls:
            starttls.expect(starttls.command("STARTTLS"), 220)
            slow.settimeout(0.1)
            ended = False
            while not ended and time.monotonic() < began + 30:
                try:
                    slow.sendall(b"\x16\x03\x01\x02\x00"[:1] if time.monotonic() < began + 0.2 else b"\x03")
                    ended = slow.recv(100) == b""
                except TimeoutError:
                    pass
                except ConnectionError:
                    ended = True
            check("who trickles is cut", ended, True)
            check("who is silent too", read_all(silent), b"")
            check("and behind STARTTLS", read_all(starttls.socket), b"")
        wait_no_sessions(engine)


def test_reload():
    """New files hold for new sessions; a broken file leaves what was loaded before, and says so."""
    with Secure() as engine:
        chain, key = engine.certificates[0]
        with engine.implicit() as old:
            check("shown", old.socket.getpeercert(True), der(chain))
            engine.authority.self_signed(MX)
            check("applied", "not applied" in engine.command("reload"), False)
            with engine.implicit() as new:
                check("renewed", new.socket.getpeercert(True), der(chain))
            key.chmod(0o644)
            engine.command("reload")
            check("a key that anybody may read", "tls.key_readable" in engine.log(), True)
            done = subprocess.run([program(), "config", "check", engine.file],
                                   capture_output=True, text=True, timeout=60, check=False)
            check("check", (done.returncode, f"warning: certificates: {key} has a key" in done.stderr), (0, True))
            key.write_text("-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n")
            done = subprocess.run([program(), "reload", "-c", engine.file],
                                   capture_output=True, text=True, timeout=60, check=False)
            check("says what is wrong", (done.returncode, f"{key}: no private key" in done.stderr and
                  "the one loaded before stays" in done.stderr), (1, True))
            check("logs it", "tls.certificate" in engine.log(), True)
            with Client(engine) as new:
                new.starttls(careless())
                check("stays", new.socket.getpeercert(True), der(chain))
            old.expect(old.command("NOOP"), 250)
            old.expect(old.message("b@d.example"), 250)
            done = subprocess.run([program(), "config", "check", engine.file],
                                   capture_output=True, text=True, timeout=60, check=False)
            check("check", (done.returncode, f": certificates: {key}: no private key" in done.stderr), (1, True))
            # Without certificates there is nothing to begin new handshakes with.
            engine.config["certificates"] = []
            for listener in engine.config["listeners"]:
                listener["tls"] = "none"
            with Client(engine) as late:
                engine.reload()
                late.expect(late.command("STARTTLS"), 454)
                late.expect(late.message("b@d.example"), 250)
            with Client(engine) as new:
                check("offered no more", "STARTTLS" in new.command("EHLO a.example"), False)
                new.expect(new.command("STARTTLS"), 502)
            old.expect(old.command("NOOP"), 250)


def test_no_certificate_works():
    """The engine starts, and says so; mail that needs no encryption goes on."""
    engine = Secure()
    engine.certificates[0][1].unlink()
    with engine:
        check("logged", "No such file" in engine.log(), True)
        with Client(engine) as client:
            client.expect(client.command("STARTTLS"), 454)
            client.expect(client.message("b@d.example"), 250)
        with raw(engine) as connection:
            check("closed", read_all(connection), b"")


def test_names():
    """The certificate of the name that is asked for, of the type that the client can verify."""
    wanted = [(("a.example",), {"name": "ec"}), (("a.example",), {"name": "rsa", "rsa": True}),
              (("b.example",), {"more": ("*.b.example",)})]
    with Secure(wanted) as engine:
        for name, rsa, which in (("a.example", False, 0), ("a.example", True, 1), ("x.b.example", False, 2),
                                  ("other.example", False, 0), (None, False, 0), (None, True, 1)):
            context = careless(maximum_version=ssl.TLSVersion.TLSv1_2)
            if rsa:
                context.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384")
            with engine.implicit(context, name) as client:
                check(f"{name}, rsa: {rsa}", client.socket.getpeercert(True),
                      der(engine.certificates[which][0]))


def test_required():
    with Secure(tls_required=True) as engine, Client(engine) as client:
        for line in ("MAIL FROM:<a@sender.example>", "RSET", "VRFY a"):
            client.expect(client.command(line), 530)
        client.expect(client.command("NOOP"), 250)
        client.starttls(careless())
        client.expect(client.message("b@d.example"), 250)
        check("shown", "tls_required: yes" in engine.command("config", "show"), True)


def test_many_handshakes():
    """More at once than the crew has places for: all are served."""
    count = 300
    with Secure() as engine, concurrent.futures.ThreadPoolExecutor(50) as pool:
        connections = [raw(engine) for _ in range(count)]
        context = careless()

        def serve(connection):
            with context.wrap_socket(connection, server_hostname=MX) as session:
                return session.recv(100)[:4]
        check("greeted", list(pool.map(serve, connections)), [b"220 "] * count)
        check("counted", engine.totals()["tls_in"], count)
        wait_no_sessions(engine)


def test_handshakes_max():
    """More sessions in a handshake than may be: STARTTLS is refused for now, a listener that begins with
    TLS closes; sessions that are encrypted go on, and a place that is given back is taken."""
    with Secure(tls_handshakes_max=2) as engine, engine.implicit() as witness, \
            Client(engine) as third, Client(engine) as talker:
        held = [raw(engine), raw(engine)]
        for connection in held:
            connection.sendall(b"\x16\x03\x01")
        starttls = [Client(engine), Client(engine)]
        for client in starttls:
            client.expect(client.command("STARTTLS"), 220)
        wait_until("all sessions", lambda: engine.status()["gauges"]["sessions_in"] == 7)
        reply = third.command("STARTTLS")
        check("refused", reply.startswith("454 4.7.0 too many handshakes"), True)
        talker.expect(talker.message("b@d.example"), 250)
        with raw(engine) as late:
            check("closed", read_all(late), b"")
        witness.expect(witness.command("NOOP"), 250)
        for client in starttls:
            client.close()
        held[0].close()

        def again():
            with Client(engine) as client:
                return client.command("STARTTLS").startswith("220")
        wait_until("a place", again)

        def implicit():
            try:
                with engine.implicit():
                    return True
            except (OSError, Failure):
                return False
        wait_until("a place with implicit TLS", implicit)
        held[1].close()
        third.starttls(careless())
        third.expect(third.message("b@d.example"), 250)
        wait_until("failures", lambda: engine.totals()["tls_in_failures"] >= 3)


def test_handshakes_of_one_stranger():
    """Whoever has a part of a listener's handshakes is told to come again; others are not kept out by that,
    nor is the stranger at another listener."""
    with Secure(tls_handshakes_max=32, relay_networks=[]) as engine:
        held = [raw(engine), raw(engine)]
        starttls = [Client(engine), Client(engine)]
        with Client(engine) as again, Client(engine, source="127.0.0.2") as other:
            wait_until("all sessions", lambda: engine.status()["gauges"]["sessions_in"] == 6)
            for client in starttls:
                client.expect(client.command("STARTTLS"), 220)
            check("refused", again.command("STARTTLS")[:48], "454 4.7.0 too many handshakes from your address ")
            with raw(engine) as late:
                check("closed", read_all(late), b"")
            other.starttls(careless())
            starttls[0].close()
            wait_until("a place", lambda: again.command("STARTTLS").startswith("220"))
        starttls[1].close()
        for connection in held:
            connection.close()


def test_much_mail():
    """Large and many messages through TLS, pipelined, in records of any size."""
    with Secure() as engine, engine.implicit(timeout_s=60) as client:
        body = b"Subject: large\r\n\r\n" + (b"x" * 70 + b"\r\n") * 60000
        client.expect(client.message("b@d.example", data=body), 250)
        client.messages([("a@sender.example", "b@d.example", TEXT)] * 400)
        for byte in b"NOOP\r\n":
            client.send(bytes([byte]))
        client.expect(client.reply(), 250)
        client.send(b"QUIT\r\n")
        client.expect(client.reply(), 221)


def test_drain():
    """A session that is encrypted hears 421 and close_notify; one within its handshake is cut."""
    with Secure() as engine:
        client = engine.implicit()
        with raw(engine) as half:
            half.sendall(b"\x16\x03\x01")
            wait_until("the sessions", lambda: engine.status()["gauges"]["sessions_in"] == 2)
            engine.process.send(15)
            client.expect(client.reply(), 421)
            check("the end", client.socket.recv(10), b"")
            check("cut", read_all(half), b"")
        client.close()


def test_behind_a_balancer():
    """Its header stands in front of the handshake, in one packet with it or not."""
    for together in (True, False):
        with Secure(proxy_from=["127.0.0.0/8"]) as engine, \
                Client(engine, hello=None, port=engine.tls_port) as client:
            client.announce(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 465\r\n", together)
            client.encrypt(careless(), MX)
            client.send(b"EHLO a.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<b@d.example>\r\n")
            record = engine.wait_records("Rejection")[0]
            check("client", record["peer_address"]["addr"], "192.0.2.7")
            check("protocol", record["reception_protocol"], "ESMTPS")


def test_a_login_in_plaintext_is_forgotten():
    """As all that was said before the handshake (RFC 3207 4.2)."""
    login = "AUTH PLAIN " + base64.b64encode(b"\0shop\0a word").decode()
    engine = Secure(auth="required", auth_without_tls=True)
    users = engine.dir / "users"
    engine.config["auth"] = {"users_file": str(users)}
    subprocess.run([program(), "user", "add", "shop", "--file", users], input="a word\n", text=True,
                   capture_output=True, timeout=60, check=True)
    with engine, Client(engine) as client:
        client.expect(client.command(login), 235)
        client.starttls(careless())
        client.expect(client.command("MAIL FROM:<a@sender.example>"), 530)
        client.expect(client.command(login), 235)
        client.expect(client.message("b@d.example"), 250)
        check("protocol", engine.wait_records("Reception")[0]["reception_protocol"], "ESMTPSA")


def test_keys_are_shown_nowhere():
    """Neither a certificate's key nor what is sent encrypted is in log, records or a status."""
    engine = Secure()
    engine.config["log_level"] = "debug"
    with engine:
        with engine.implicit() as client:
            client.expect(client.message("b@d.example", data=b"Subject: x\r\n\r\nCanary-4711\r\n"), 250)
        with raw(engine) as connection:
            connection.sendall(b"\x16\x03\x01\x00\x04\x0e\x00\x00\x00")
            read_all(connection)
        engine.wait_records("Reception")
        wait_until("failures", lambda: engine.totals()["tls_in_failures"] == 1)
        shown = engine.log() + str(engine.records()) + str(engine.status())
        check("handshakes", ("smtp.tls " in shown, "smtp.tls_failed" in shown), (True, True))
        secrets = engine.certificates[0][1].read_text().split("\n")[1:-2] + ["Canary-4711"]
        check("secrets", [line for line in secrets if line[:40] in shown], [])


def test_sslscan():
    if not shutil.which("sslscan"):
        raise Skip("no sslscan")
    with Secure() as engine:
        scans = [subprocess.Popen(["sslscan", "--no-colour", *how], stdout=subprocess.PIPE, text=True)
                 for how in ([f"{engine.host}:{engine.tls_port}"],
                             ["--starttls-smtp", f"{engine.host}:{engine.port}"])]
        for said in (scan.communicate(timeout=100)[0] for scan in scans):
            nothing_in(said)


def nothing_in(said):
    """What sslscan says of a port: that it found TLS there, and nothing to complain of."""
    check("it spoke TLS", ("TLSv1.3   enabled" in said, "TLSv1.2   enabled" in said), (True, True))
    for bad in ("SSLv2     enabled", "SSLv3     enabled", "TLSv1.0   enabled", "TLSv1.1   enabled",
                "renegotiation: Insecure", "Compression enabled", "vulnerable to heartbleed\n", "CBC",
                "3DES", "RC4", "NULL", "anon"):
        if bad in said.replace("not vulnerable to heartbleed", ""):
            raise Failure(f"{bad}:\n{said}")


run(globals())
