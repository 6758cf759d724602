"""Real clients hand mail to the engine: swaks, Python's smtplib, msmtp, s-nail, nodemailer and
Postfix as a relay client. What they sent is read from Dovecot, to which the engine delivers by LMTP."""

import os
import pathlib
import shutil
import smtplib
import subprocess
import unittest

import case
import mail
import peers
from authority import Authority
from engine import Engine
from proc import TempDir, free_port, wait_until

SENDER = "sender@sender.example"
MX = "mta.sender.example"
dovecot = engine = scratch = tls_port = ca = None


def setUpModule():
    global dovecot, engine, scratch, tls_port, ca
    scratch = TempDir("hayauma-clients-").path
    dovecot = peers.Dovecot("dovecot.example").start()
    unittest.addModuleCleanup(dovecot.stop)
    ca, key = Authority(scratch / "ca").self_signed(MX, more=("localhost",))
    tls_port = free_port()
    engine = Engine({"routes": {"*": f"lmtp:unix:{dovecot.dir}/lmtp.sock"},
                     "certificates": [{"chain": str(ca), "key": str(key)}]})
    engine.config["listeners"].append({"listen": f"{engine.host}:{tls_port}", "tls": "implicit"})
    engine.start()
    unittest.addModuleCleanup(engine.stop)


def run(argv, text=b"", **more):
    environment = {**os.environ, "HOME": str(scratch), **more}
    done = subprocess.run([str(a) for a in argv], input=text, capture_output=True, timeout=60,
                          env=environment, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{argv[0]}: {done.returncode}\n{done.stdout.decode(errors='replace')}"
                             f"\n{done.stderr.decode(errors='replace')}")
    return done.stdout


class Clients(unittest.TestCase):
    def arrived(self, user, marker):
        """The one message of user that has marker in it."""
        def find():
            return [m for m in map(pathlib.Path.read_bytes, dovecot.maildir(user))
                    if marker in m]
        found = wait_until(f"mail with {marker!r}", find, process=dovecot.process)
        self.assertEqual(len(found), 1)
        return found[0]

    def check_trace(self, message):
        head, _ = mail.split(message)
        self.assertIn(b"by mta.sender.example", head)
        for field in (b"Received:", b"Message-ID:", b"Date:"):
            self.assertIn(field.lower(), head.lower())

    def test_swaks(self):
        run(["swaks", "--server", engine.host, "--port", engine.port, "--from", SENDER, "--to",
             "taro@dovecot.example,hanako@dovecot.example", "--header", "Subject: swaks", "--body",
             "swaks-1\n.\n..two dots\n", "--helo", "client.example"])
        for user in ("taro", "hanako"):
            message = self.arrived(user, b"swaks-1")
            self.check_trace(message)
            self.assertIn(b"swaks-1\r\n.\r\n..two dots\r\n", mail.split(message)[1])

    def test_swaks_pipelining(self):
        run(["swaks", "--server", engine.host, "--port", engine.port, "--from", SENDER, "--to",
             "taro@dovecot.example", "--body", "swaks-2", "--pipeline", "--helo", "client.example"])
        self.check_trace(self.arrived("taro", b"swaks-2"))

    def test_smtplib(self):
        for name, (more, body, options) in mail.BODIES.items():
            with self.subTest(body=name):
                marker = f"smtplib-{name}"
                text = mail.header(marker, SENDER, "jiro@dovecot.example", *more) + body
                case.submit(engine, SENDER, ["jiro@dovecot.example"], text, options)
                received = self.arrived("jiro", f"Subject: {marker}\n".encode())
                self.assertIsNone(mail.difference(text, received))

    def test_smtplib_several_on_one_connection(self):
        with smtplib.SMTP(engine.host, engine.port, timeout=30) as session:
            for n in range(20):
                session.sendmail(SENDER, ["taro@dovecot.example"],
                                 mail.header(f"session-{n}.", SENDER, "taro") + b"x\r\n")
        for n in range(20):
            self.arrived("taro", f"Subject: session-{n}.\n".encode())

    def test_refused_by_the_book(self):
        with smtplib.SMTP(engine.host, engine.port, timeout=30) as session:
            session.ehlo()
            self.assertEqual(session.docmd("RCPT", "TO:<a@dovecot.example>")[0], 503)
            self.assertEqual(session.docmd("NONSENSE")[0], 500)
            with self.assertRaises(smtplib.SMTPDataError):  # a line of 1001 bytes with CRLF
                session.sendmail(SENDER, ["taro@dovecot.example"],
                                 b"Subject: long\r\n\r\n" + b"x" * 999 + b"\r\n")
            session.sendmail(SENDER, ["taro@dovecot.example"], b"Subject: after-refusals\r\n\r\n")
        self.arrived("taro", b"Subject: after-refusals")

    def test_msmtp(self):
        text = b"Subject: msmtp\nTo: hanako@dovecot.example\n\nmsmtp-1\n.\n"
        run(["msmtp", f"--host={engine.host}", f"--port={engine.port}", f"--from={SENDER}",
             "--tls=off", "--auth=off", "--domain=client.example", "hanako@dovecot.example"], text)
        message = self.arrived("hanako", b"msmtp-1")
        self.check_trace(message)
        self.assertEqual(mail.split(message)[1], b"msmtp-1\r\n.\r\n")

    def test_s_nail(self):
        (scratch / "picture.bin").write_bytes(bytes(range(256)) * 20)
        run(["s-nail", "-:/", "-Sv15-compat", f"-Smta=smtp://{engine.host}:{engine.port}",
             "-Ssmtp-auth=none", "-Shostname=client.example", f"-Sfrom={SENDER}", "-Sttycharset=utf-8",
             "-Ssendwait", "-r", SENDER, "-s", "日本語の件名", "-a", scratch / "picture.bin",
             "hanako@dovecot.example"], "s-nail-1 早馬\n".encode(), LC_ALL="C.UTF-8")
        message = self.arrived("hanako", b"picture.bin")
        self.check_trace(message)

    def test_postfix_as_relay_client(self):
        with peers.Postfix("client.example", relayhost=f"[{engine.host}]:{engine.port}") as client:
            for n in range(30):
                more, body, _ = mail.BODIES["eight-bit"]
                text = mail.header(f"relayed-{n}.", SENDER, "taro", *more) + body
                case.submit(client, SENDER, ["taro@dovecot.example", "jiro@dovecot.example"], text,
                            ("BODY=8BITMIME",))
            for n in range(30):
                for user in ("taro", "jiro"):
                    message = self.arrived(user, f"Subject: relayed-{n}.\n".encode())
                    self.assertEqual(mail.split(message)[1], body)

    def check_encrypted(self, user, marker, protocol=b"ESMTPS"):
        """Received says so."""
        head, _ = mail.split(self.arrived(user, marker))
        self.assertRegex(head, rb"\(using TLSv1\.[23] with cipher [A-Z0-9_-]+ \([0-9]+ bits\)\)")
        self.assertIn(b" with " + protocol + b" id ", head)

    def test_swaks_encrypted(self):
        for how, port in (("--tls", engine.port), ("--tlsc", tls_port)):
            with self.subTest(how=how):
                run(["swaks", "--server", engine.host, "--port", port, how, "--tls-verify",
                     "--tls-ca-path", ca, "--from", SENDER, "--to", "taro@dovecot.example", "--body",
                     f"swaks{how}.", "--helo", "client.example"])
                self.check_encrypted("taro", f"swaks{how}.".encode())

    def test_msmtp_encrypted(self):
        for starttls, port in (("on", engine.port), ("off", tls_port)):
            with self.subTest(starttls=starttls):
                text = f"Subject: msmtp-starttls-{starttls}\nTo: hanako@dovecot.example\n\nx\n"
                run(["msmtp", "--host=localhost", f"--port={port}", f"--from={SENDER}", "--tls=on",
                     f"--tls-starttls={starttls}", f"--tls-trust-file={ca}", "--auth=off",
                     "--domain=client.example", "hanako@dovecot.example"], text.encode())
                self.check_encrypted("hanako", f"msmtp-starttls-{starttls}".encode())

    def test_s_nail_encrypted(self):
        for scheme, more, port in (("smtp", ["-Ssmtp-use-starttls"], engine.port), ("smtps", [], tls_port)):
            with self.subTest(scheme=scheme):
                run(["s-nail", "-:/", "-Sv15-compat", f"-Smta={scheme}://localhost:{port}", *more,
                     "-Ssmtp-auth=none", "-Shostname=client.example", f"-Sfrom={SENDER}", "-Ssendwait",
                     f"-Stls-ca-file={ca}", "-Stls-verify=strict", "-r", SENDER, "-s", f"s-nail-{scheme}.",
                     "hanako@dovecot.example"], b"x\n", LC_ALL="C.UTF-8")
                # It says HELO where it does not log in.
                self.check_encrypted("hanako", f"s-nail-{scheme}.".encode(), b"SMTP")

    def test_postfix_encrypted(self):
        """Several messages in each session, and sessions that resume."""
        with peers.Postfix("client.example", relayhost=f"[{engine.host}]:{engine.port}",
                           settings={"smtp_tls_security_level": "encrypt"}) as client:
            for n in range(10):
                case.submit(client, SENDER, ["taro@dovecot.example"],
                            mail.header(f"encrypted-{n}.", SENDER, "taro") + b"x\r\n", ())
            for n in range(10):
                self.check_encrypted("taro", f"Subject: encrypted-{n}.\n".encode())

    @unittest.skipUnless(shutil.which("node") and (peers.TREES / "npm/node_modules/nodemailer").exists(),
                         "no nodemailer here")
    def test_nodemailer(self):
        script = """
const mailer = require("nodemailer").createTransport({host: process.argv[2], port: +process.argv[3],
  secure: process.argv[4] == "implicit", ignoreTLS: process.argv[4] == "none",
  requireTLS: process.argv[4] == "starttls", tls: {rejectUnauthorized: false}, pool: true,
  maxConnections: 3, name: "client.example"});
const mails = [...Array(20).keys()].map(n => mailer.sendMail({
  from: "sender@sender.example", to: "taro@dovecot.example", subject: `nodemailer-${process.argv[4]}-${n}.`,
  text: "本文 nodemailer\\n.\\n", html: "<p>早馬</p>"}));
Promise.all(mails).then(() => mailer.close(), e => { console.error(e); process.exit(1); });
"""
        (scratch / "send.js").write_text(script)
        for how, port in (("none", engine.port), ("starttls", engine.port), ("implicit", tls_port)):
            run(["node", scratch / "send.js", engine.host, port, how],
                NODE_PATH=str(peers.TREES / "npm/node_modules"))
            for n in range(20):
                self.check_trace(self.arrived("taro", f"Subject: nodemailer-{how}-{n}.\n".encode()))
            if how != "none":
                self.check_encrypted("taro", f"Subject: nodemailer-{how}-7.\n".encode())


if __name__ == "__main__":
    case.run("dovecot", "postfix")
