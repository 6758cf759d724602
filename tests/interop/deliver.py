"""The engine delivers to Postfix, Exim and OpenSMTPD by SMTP and to Dovecot by LMTP; mail is read back
from their Maildirs, by IMAP and by POP3 and compared byte for byte."""

import email
import email.policy
import pathlib
import random
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "notice"))
import case  # noqa: E402
import check  # noqa: E402
import mail
import peers
from engine import Engine
from proc import wait_until

SENDER = "taro@postfix.example"  # a mailbox, so that notices can be read
servers = {}
engine = None


def setUpModule():
    global engine
    routes = {}
    for name, make in (
            ("postfix", peers.Postfix), ("exim", peers.Exim), ("opensmtpd", peers.OpenSmtpd),
            ("dovecot", peers.Dovecot), ("exim-old", lambda domain: peers.Exim(domain, old=True)),
            ("postfix-old",
             lambda domain: peers.Postfix(domain, settings={"smtputf8_enable": "no"}))):
        server = make(f"{name}.example").start()
        unittest.addModuleCleanup(server.stop)
        servers[name] = server
        routes[server.domain] = f"[{server.host}]:{server.port}"
    dovecot = servers["dovecot"]
    routes[dovecot.domain] = f"lmtp:{dovecot.host}:{dovecot.port}"
    engine = Engine({"routes": routes, "destinations": {"*": {"retry": {"first": "1s", "max": "2s"}}}})
    engine.start()
    unittest.addModuleCleanup(engine.stop)


def message(name, sender, recipient):
    more, body, options = mail.BODIES[name]
    return mail.header(name, sender, recipient, *more) + body, options


def by_subject(messages, subject):
    wanted = f"Subject: {subject}\r\n".encode()
    return [m for m in messages if wanted in mail.split(m)[0]]


class Bodies(unittest.TestCase):
    """Every body to every server, several recipients each."""

    maxDiff = None

    def carry(self, name, users=("hanako", "jiro")):
        server = servers[name]
        to = [f"{u}@{server.domain}" for u in users]
        sent = {}
        for body in mail.BODIES:
            sent[body], options = message(body, SENDER, to[0])
            case.submit(engine, SENDER, to, sent[body], options)
        for user in users:
            received = server.wait_mail(user, len(sent), 60)
            self.assertEqual(len(received), len(sent))
            for body, original in sent.items():
                with self.subTest(server=name, user=user, body=body):
                    found = by_subject(received, body)
                    self.assertEqual(len(found), 1)
                    self.assertIsNone(mail.difference(original, found[0]))
        return sent

    def test_postfix(self):
        self.carry("postfix")

    def test_exim(self):
        self.carry("exim")

    def test_opensmtpd(self):
        self.carry("opensmtpd")

    def test_dovecot_imap_and_pop3(self):
        sent = self.carry("dovecot")
        server = servers["dovecot"]
        login = (f"hanako@{server.domain}", "secret")
        for read, port in ((mail.read_imap, server.imap_port), (mail.read_pop3, server.pop3_port)):
            received = read(server.host, port, *login)
            self.assertEqual(len(received), len(sent))
            for body, original in sent.items():
                with self.subTest(reader=read.__name__, body=body):
                    self.assertIsNone(mail.difference(original, by_subject(received, body)[0]))


class LongSender(unittest.TestCase):
    """A return path that names list and recipient is longer than RFC 5321's 64 bytes."""

    def test_verp(self):
        sender = "news-2026-" + "x" * 120 + "-taro=a.long.subdomain.of.recipient.example@postfix.example"
        for name, server in servers.items():
            with self.subTest(server=name):
                to = f"jiro@{server.domain}"
                case.submit(engine, sender, [to], mail.header(f"verp-{name}", sender, to) + b"text\r\n")
                found = wait_until(f"verp-{name}", lambda s=server, n=name: by_subject(
                    [p.read_bytes() for p in s.maildir("jiro")], f"verp-{n}"))
                self.assertIn(f"<{sender}>".encode(), found[0])  # Return-Path, or Received
        wait_until("their records", lambda: len(
            [r for r in engine.records("Delivery") if r["sender"] == sender]) == len(servers))


class Dots(unittest.TestCase):
    """A local part with dots in a row reaches servers in quotes, and they find no fault with its form.
    OpenSMTPD takes no quotes at all."""

    def test_sender_and_recipient(self):
        for name in ("postfix", "exim", "dovecot"):
            server = servers[name]
            with self.subTest(server=name):
                sender, nobody = f"a..{name}.@docomo.example", f"no..body@{server.domain}"
                to = [f"jiro@{server.domain}", nobody]
                case.submit(engine, sender, to,
                            mail.header(f"dots-{name}", sender, to[0]) + b"text\r\n")
                found = wait_until(f"dots-{name}", lambda s=server, n=name: by_subject(
                    [p.read_bytes() for p in s.maildir("jiro")], f"dots-{n}"))
                self.assertIn(f"a..{name}.".encode(), found[0])  # Return-Path, or Received
                refused = engine.wait_records("Bounce", recipient=nobody)
                self.assertEqual(refused[0]["response"]["code"], 550, refused)


class International(unittest.TestCase):
    """SMTPUTF8 goes on to servers that know it; others get what only a header needs it for in ASCII,
    and what addresses need it for comes back."""

    maxDiff = None

    def submit(self, server, sender):
        to = f"taro@{server.domain}"
        subject = "早馬-" + server.tree
        text = mail.header(subject, sender, to, *mail.UTF8) + "本文\r\n".encode()
        case.submit(engine, sender, [to], text, ("SMTPUTF8", "BODY=8BITMIME"))
        return subject, text

    def test_known(self):
        for name in ("postfix", "exim"):
            with self.subTest(server=name):
                subject, text = self.submit(servers[name], "送り主@sender.example")
                found = wait_until(f"{subject}", lambda: by_subject(
                    [p.read_bytes() for p in servers[name].maildir("taro")], subject))
                self.assertIsNone(mail.difference(text, found[0]))

    def test_unknown(self):
        self.submit(servers["opensmtpd"], "送り主@nowhere.example")
        engine.wait_records("Bounce", recipient="taro@opensmtpd.example")

    def test_japanese_mail_for_others(self):
        """Raw UTF-8 headers, long subjects, file names, ISO-2022-JP: a reader sees the same."""
        for name in ("postfix-old", "exim-old", "opensmtpd"):
            server = servers[name]
            before = len(server.maildir("hanako"))
            sent = {}
            for seed in range(40):
                text, *files = check.random_japanese_mail(random.Random(seed))
                sent[f"<japanese-{seed}@sender.example>"] = check.seen(text.encode()) | {
                    "files": tuple(files)}
                text = (f"Message-ID: <japanese-{seed}@sender.example>\r\n"
                        "Date: Sun, 22 Nov 2026 10:00:00 +0900\r\n" + text).encode()
                case.submit(engine, SENDER, [f"hanako@{server.domain}"], text,
                            ("SMTPUTF8", "BODY=8BITMIME"))
            received = {}
            for raw in server.wait_mail("hanako", before + len(sent), 60):
                raw = raw if b"\r\n" in raw else raw.replace(b"\n", b"\r\n")
                received[email.message_from_bytes(raw)["Message-ID"]] = raw
            for key, want in sent.items():
                with self.subTest(server=name, message=key):
                    head = received[key].split(b"\r\n\r\n")[0]
                    self.assertTrue(head.isascii())
                    self.assertTrue(name != "exim-old" or received[key].isascii())
                    self.assertEqual(check.seen(received[key]), want)

    def test_notice_for_others(self):
        """A notice about a recipient that is not ASCII reaches a sender whose server takes only ASCII."""
        sender = "jiro@exim-old.example"
        text = mail.header("notice", sender, "x") + b"text\r\n"
        case.submit(engine, sender, ["日本@opensmtpd.example"], text, ("SMTPUTF8",))
        raw = wait_until("a notice", lambda: [
            m for m in (p.read_bytes() for p in servers["exim-old"].maildir("jiro"))
            if b"multipart/report" in m])[0]
        self.assertTrue(raw.isascii())
        notice = email.message_from_bytes(raw, policy=email.policy.default)
        status = [p for p in notice.walk() if p.get_content_type() == "message/delivery-status"][0]
        about = status.get_payload()[1]
        self.assertEqual(about["Final-Recipient"], r"utf-8; \x{65E5}\x{672C}@opensmtpd.example")
        self.assertEqual(about["Status"], "5.6.7")


class Refusals(unittest.TestCase):
    """A user whom a server does not know gets nothing, and the sender hears of it."""

    def test_notices(self):
        for name, server in servers.items():
            with self.subTest(server=name):
                nobody = f"nobody-{name}@{server.domain}"
                to = [f"jiro@{server.domain}", nobody]
                before = len(server.maildir("jiro"))
                text = mail.header(f"refused-{name}", SENDER, to[0]) + b"text\r\n"
                case.submit(engine, SENDER, to, text)
                server.wait_mail("jiro", before + 1)
                self.check_notice(nobody)

    def check_notice(self, nobody):
        def find():
            for path in servers["postfix"].maildir("taro"):
                if nobody.encode() in path.read_bytes():
                    return path.read_bytes()
            return None

        raw = wait_until(f"a notice about {nobody}", find)
        self.assertIn(b"Return-Path: <>", raw)
        notice = email.message_from_bytes(raw, policy=email.policy.default)
        self.assertEqual(notice.get_content_type(), "multipart/report")
        self.assertEqual(notice.get_param("report-type"), "delivery-status")
        status = [p for p in notice.walk() if p.get_content_type() == "message/delivery-status"]
        self.assertEqual(len(status), 1)
        about_all, about_one = status[0].get_payload()
        self.assertEqual(about_all["Reporting-MTA"].replace(" ", ""), "dns;mta.sender.example")
        self.assertEqual(about_one["Final-Recipient"].replace(" ", ""), f"rfc822;{nobody}")
        self.assertEqual(about_one["Action"], "failed")
        self.assertRegex(about_one["Status"], r"^5\.\d+\.\d+$")
        self.assertRegex(about_one["Diagnostic-Code"], r"^smtp; *55\d")


class Records(unittest.TestCase):
    def test_one_delivery_record_per_recipient(self):
        server, sender = servers["exim"], "recorded@postfix.example"  # nobody else's
        count = len(server.maildir("jiro"))
        case.submit(engine, sender, [f"jiro@{server.domain}", f"hanako@{server.domain}"],
                    mail.header("recorded", sender, "list") + b"text\r\n")
        server.wait_mail("jiro", count + 1)

        def recorded():
            return [r for r in engine.records("Delivery") if r["sender"] == sender]

        wait_until("a record of each", lambda: len(recorded()) >= 2, process=engine.process)
        records = recorded()
        self.assertEqual(sorted(r["recipient"] for r in records),
                         [f"hanako@{server.domain}", f"jiro@{server.domain}"])
        for record in records:
            self.assertEqual(record["response"]["code"], 250)


if __name__ == "__main__":
    case.run("postfix", "exim", "opensmtpd", "dovecot")
