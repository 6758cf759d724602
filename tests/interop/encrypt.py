"""The engine delivers over TLS to Postfix and Exim: bodies arrive as they were sent, the server agrees
about what the record says, and a certificate that is not good enough gets no mail. Debian 12's OpenSMTPD
offers STARTTLS and can make no handshake at all ("missing private key", to any client): the peer with
which TLS fails."""

import unittest

import case
import mail
import peers
from authority import Authority
from engine import Engine, Sink
from proc import TempDir

SENDER = "taro@sender.example"
NAMES = {"postfix": peers.Postfix, "exim": peers.Exim}
# What a server's Received field says of a session that is encrypted.
RECEIVED = {"postfix": b"using TLSv1.", "exim": b"TLS1."}
servers = {}
engine = None


def setUpModule():
    global engine
    temp = TempDir("hayauma-encrypt-")
    authority = Authority(temp.path)
    unittest.addModuleCleanup(temp.close)
    routes, destinations = {}, {}
    for name, make in NAMES.items():
        for kind in ("good", "self"):
            domain = f"{name}-{kind}.example"
            host = f"mx1.{domain}"
            server = make(domain)
            make_files = authority.certificate if kind == "good" else authority.self_signed
            server.encrypt(*make_files(host, rsa=name == "exim"))
            servers[name, kind] = server.start()
            unittest.addModuleCleanup(server.stop)
            routes[f"verify.{domain}"] = f"[{host}]:{server.port}"
            destinations[f"verify.{domain}"] = {"tls": "verify"}
            routes[domain] = f"[{host}]:{server.port}"
            destinations[domain] = {"tls": "verify" if kind == "good" else "encrypt"}
    broken = servers["opensmtpd"] = peers.OpenSmtpd("opensmtpd.example").encrypt(
        *authority.certificate("mx1.opensmtpd.example", rsa=True)).start()
    unittest.addModuleCleanup(broken.stop)
    for policy in ("may", "encrypt"):
        routes[f"{policy}.opensmtpd.example"] = f"[mx1.opensmtpd.example]:{broken.port}"
        destinations[f"{policy}.opensmtpd.example"] = {"tls": policy}
    routes[broken.domain] = routes["may.opensmtpd.example"]
    sink = Sink().start()  # for its DNS: each host is here
    unittest.addModuleCleanup(sink.stop)
    destinations["*"] = {"retry": ["1h"], "idle": "20s", "timeouts": {"tls": "60s"}}
    engine = Engine({"routes": routes, "destinations": destinations, "tls_ca_file": str(authority.ca),
                     "dns": {"servers": [f"{sink.host}:{sink.dns_port}"]}})
    engine.start()
    unittest.addModuleCleanup(engine.stop)


class Encrypted(unittest.TestCase):
    maxDiff = None

    def carry(self, name, kind):
        server = servers[name, kind]
        to = f"hanako@{server.domain}"
        sent = {}
        for body in mail.BODIES:
            more, text, options = mail.BODIES[body]
            sent[body] = mail.header(body, SENDER, to, *more) + text
            case.submit(engine, SENDER, [to], sent[body], options)
        received = server.wait_mail("hanako", len(sent), 60)
        self.assertEqual(len(received), len(sent))
        for body, original in sent.items():
            with self.subTest(server=name, body=body):
                wanted = f"Subject: {body}\r\n".encode()
                found = [m for m in received if wanted in mail.split(m)[0]]
                self.assertEqual(len(found), 1)
                self.assertIsNone(mail.difference(original, found[0]))
                self.assertIn(RECEIVED[name], mail.split(found[0])[0])
        records = engine.wait_records("Delivery", len(sent), recipient=to)
        head = mail.split(received[0])[0]
        for record in records:
            self.assertEqual(record["tls_policy"], "verify" if kind == "good" else "encrypt")
            self.assertEqual(record["tls_verification"] == "verified", kind == "good")
            if name == "postfix":
                self.assertIn(f"{record['tls_protocol_version']} with cipher "
                              f"{record['tls_cipher']}".encode(), head)
        return records

    def test_postfix(self):
        self.carry("postfix", "good")

    def test_exim(self):
        self.carry("exim", "good")

    def test_any_certificate(self):
        for name in NAMES:
            self.carry(name, "self")


class Refused(unittest.TestCase):
    def test_verify(self):
        """A certificate that nobody vouches for gets nothing under verify, and a reason."""
        for name in NAMES:
            to = f"jiro@verify.{servers[name, 'self'].domain}"
            case.submit(engine, SENDER, [to], mail.header("refused", SENDER, to) + b"text\r\n")
        for name in NAMES:
            to = f"jiro@verify.{servers[name, 'self'].domain}"
            record = engine.wait_records("TransientFailure", recipient=to)[0]
            self.assertEqual(record["response"]["enhanced_code"],
                             {"class": 4, "subject": 7, "detail": 5}, record)
            self.assertIn("self", record["response"]["content"])
            self.assertEqual(servers[name, "self"].maildir("jiro"), [])


class Broken(unittest.TestCase):
    def test_no_handshake(self):
        """Under may mail goes in plaintext, at once and with the reason; under encrypt it waits."""
        server = servers["opensmtpd"]
        to = f"hanako@{server.domain}"
        kept = f"hanako@encrypt.{server.domain}"
        for recipient in (to, kept):
            case.submit(engine, SENDER, [recipient], mail.header("plain", SENDER, recipient) + b"text\r\n")
        server.wait_mail("hanako", 1)
        record = engine.wait_records("Delivery", recipient=to)[0]
        self.assertEqual(record["num_attempts"], 1)
        self.assertRegex(record["tls_plaintext"], "^TLS failed: ")
        self.assertNotIn("tls_cipher", record)
        record = engine.wait_records("TransientFailure", recipient=kept)[0]
        self.assertEqual(record["response"]["enhanced_code"], {"class": 4, "subject": 7, "detail": 5})


if __name__ == "__main__":
    case.run("postfix", "exim", "opensmtpd")
