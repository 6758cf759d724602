#!/usr/bin/env python3
"""Certificates of clients: whom they let relay or log in, what is refused, what records say; and the
one that the engine shows to servers. Real clients and servers: openssl, swaks, msmtp, Postfix.

certificates.py [TEST...]"""

import base64
import hashlib
import pathlib
import re
import ssl
import subprocess
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "lib"), str(TESTS / "interop"), str(TESTS / "submission")]
from auth import command, user  # noqa: E402
from authority import Authority, careless  # noqa: E402
from engine import Engine, Sink, program  # noqa: E402
from proc import TempDir, free_port, wait_until  # noqa: E402
from talk import Client, Skip, check, run  # noqa: E402
import peers  # noqa: E402

STRANGERS = ["192.0.2.1/32"]  # relay_networks: nobody here


def fingerprint(chain):
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pathlib.Path(chain).read_text())).hexdigest()


def colons(digest):
    return ":".join(digest[i:i + 2] for i in range(0, 64, 2)).upper()


def context(files):
    made = careless()
    if files:
        made.load_cert_chain(*files)
    return made


class Known:
    """An engine whose clients are known by certificate: app by its name, self by its fingerprint."""

    def __init__(self, users=(), listener=None, settings=None, **more):
        self.temp = TempDir("hayauma-certificates-")
        authority = self.authority = Authority(self.temp.path / "ca")
        own = authority.self_signed("mta.sender.example")
        self.app = authority.certificate("app.shop.example")
        self.other = authority.certificate("other.example")
        self.expired = authority.certificate("app.shop.example", expired=True)
        self.self_signed = authority.self_signed("lone.example")
        self.sink = Sink(directory=self.temp.path / "sink").start()
        self.engine = Engine({"certificates": [{"chain": str(own[0]), "key": str(own[1])}],
                              "dns": self.sink.dns(), **(settings or {})},
                             directory=self.temp.path / "engine")
        self.implicit = free_port()
        first = self.engine.config["listeners"][0]
        first.update({"relay_networks": STRANGERS, **(listener if listener is not None else {
            "client_certificates": "ask", "client_ca_file": str(authority.ca),
            "relay_certificates": ["app.shop.example", colons(fingerprint(self.self_signed[0]))]})})
        self.engine.config["listeners"].append({
            **first, "listen": f"127.0.0.1:{self.implicit}", "tls": "implicit"})
        for one in self.engine.config["listeners"]:
            one.update(more)
        if users:
            self.engine.config["auth"] = {"users_file": str(self.engine.dir / "users")}
            for arguments in users:
                user(self.engine, "add", *arguments)

    def __enter__(self):
        self.engine.start()
        return self

    def __exit__(self, *_):
        self.engine.stop()
        self.sink.stop()

    def client(self, files):
        """A session behind STARTTLS; what EHLO said is its .offered."""
        client = Client(self.engine)
        client.offered = client.starttls(context(files))
        return client

    def s_client(self, *arguments, port=None):
        argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{port or self.engine.port}", "-crlf",
                "-ign_eof", *([] if port else ["-starttls", "smtp"]), *map(str, arguments)]
        done = subprocess.run(argv, input="QUIT\n", capture_output=True, text=True, timeout=60,
                              check=False)
        return done.stdout + done.stderr


def external(name=""):
    return "AUTH EXTERNAL " + (base64.b64encode(name.encode()).decode() or "=")


def test_relaying():
    """By a name for which the authority vouches, or by fingerprint; nobody else's certificate lets a
    client relay, and none keeps it from being served as others are."""
    with Known() as s:
        for files, known in ((s.app, True), (s.self_signed, True), (s.other, False),
                             (s.expired, False), (None, False)):
            with s.client(files) as client:
                reply = client.message("u@d1.example")
                check(f"{files}", reply[:9], "250 2.0.0" if known else "550 5.7.1")
        records = s.engine.wait_records("Reception", 2)
        check("fingerprints", [r["tls_client_certificate"] for r in records],
              [fingerprint(s.app[0]), fingerprint(s.self_signed[0])])
        check("names", [r.get("tls_client_name") for r in records], ["app.shop.example", None])
        refused = {r.get("tls_client_name") for r in s.engine.wait_records("Rejection", 3)}
        check("refused", refused, {"other.example", None})
        command(["swaks", "--server", s.engine.host, "--port", s.engine.port, "--tls", "--tls-cert",
                 s.app[0], "--tls-key", s.app[1], "--from", "a@shop.example", "--to", "u@d1.example",
                 "--helo", "client.example"])
        with Client(s.engine) as client:  # in plaintext nobody is known
            check("plaintext", client.message("u@d1.example")[:9], "550 5.7.1")


def test_any_certificate():
    """"*" is each certificate of the authority, and none of others; a public key is as good as the
    certificate, which may be renewed."""
    with Known() as s:
        key = subprocess.run(["openssl", "pkey", "-in", s.self_signed[1], "-pubout", "-outform", "DER"],
                             capture_output=True, check=True).stdout
        for wanted, files, known in (("*", s.other, True), ("*", s.self_signed, False),
                                     ("*", s.expired, False),
                                     (hashlib.sha256(key).hexdigest(), s.self_signed, True)):
            s.engine.config["listeners"][0]["relay_certificates"] = [wanted]
            s.engine.reload()

            def said():
                with s.client(files) as client:
                    return client.message("u@d1.example")[:3] == ("250" if known else "550")
            wait_until(f"{wanted} of {files}", said)


def test_required():
    """Who is not known by certificate hears 554 in the place of the greeting, or of EHLO's answer, and
    has no mail taken in plaintext."""
    with Known(client_certificates="require") as s:
        for port in (None, s.implicit):
            check("none", "554 5.7.1 this port is for clients that show" in s.s_client(port=port), True)
            shown = s.s_client("-cert", s.expired[0], "-key", s.expired[1], port=port)
            check("expired", "554 5.7.1 your certificate is not known here: certificate has expired"
                  in shown, True)
            for files in (s.app, s.other, s.self_signed):
                known = s.s_client("-cert", files[0], "-key", files[1], port=port)
                check(f"{files}", ("554 5.7.1" in known, "221 2.0.0" in known), (False, True))
        with Client(s.engine) as client:
            check("plaintext", client.message("u@d1.example")[:9], "530 5.7.0")
        with s.client(s.other) as client:  # known, but not to relay
            check("other", client.message("u@d1.example")[:9], "550 5.7.1")
        with Client(s.engine) as client:
            client.expect(client.command("STARTTLS"), 220)
            client.encrypt(careless())
            client.expect(client.command("EHLO client.example"), 554)
            check("ended", client.ended(), True)


def test_tickets():
    """A listener that asks gives no ticket, and takes none: not that of another listener, nor its own
    of when it did not ask."""
    with Known(listener={}) as s:
        first = s.engine.config["listeners"][0]
        for version in ("-tls1_2", "-tls1_3"):
            first.pop("client_certificates", None)
            first.pop("client_ca_file", None)
            s.engine.reload()
            ticket = s.temp.path / f"ticket{version}"

            def resumes():
                s.s_client(version, "-sess_out", ticket)
                return "Reused, " in s.s_client(version, "-sess_in", ticket)
            wait_until("a ticket", resumes)
            s.s_client(version, "-sess_out", ticket)
            first.update({"client_certificates": "ask", "client_ca_file": str(s.authority.ca)})
            s.engine.reload()
            shown = ("-cert", s.app[0], "-key", s.app[1])
            wait_until("clients to be asked", lambda: "Acceptable client certificate CA names"
                       in s.s_client(version))
            check("old ticket", "Reused, " in s.s_client(version, "-sess_in", ticket, *shown), False)
            s.s_client(version, "-sess_out", ticket, *shown)
            check("new one", "Reused, " in s.s_client(version, "-sess_in", ticket, *shown), False)
            other = s.s_client(version, "-sess_in", ticket, port=s.implicit)
            check("elsewhere", "Reused, " in other, False)


def test_external():
    """A user logs in by certificate where the client asks for it; nobody by another's."""
    with Known(users=[("shop", "--certificate", "app.shop.example", "--tenant", "shop"), ("plain",)],
               auth="required") as s:
        with s.client(s.app) as client:
            check("offered", "250-AUTH EXTERNAL PLAIN LOGIN" in client.offered, True)
            client.expect(client.message("u@d1.example"), 530)
            check("another", client.command(external("plain"))[:9], "535 5.7.8")
            client.expect(client.command(external("shop")), 235)
            client.expect(client.message("u@d1.example"), 250)
        for files in (s.other, s.expired, s.self_signed, None):
            with s.client(files) as client:
                check("offered", "EXTERNAL" in client.offered, False)
                check("no user", client.command(external())[:9], "504 5.5.4")
        command(["msmtp", f"--host={s.engine.host}", f"--port={s.engine.port}", "--tls=on",
                 "--tls-certcheck=off", f"--tls-cert-file={s.app[0]}", f"--tls-key-file={s.app[1]}",
                 "--auth=external", "--user=shop", "--from=a@shop.example",
                 "--domain=client.example", "u@d1.example"], b"From: <a@shop.example>\r\n\r\nx\r\n")
        for record in s.engine.wait_records("Reception", 2):
            check("user", (record["user"], record["meta"]["tenant"], record["tls_client_name"]),
                  ("shop", "shop", "app.shop.example"))
        with s.client(s.app) as client:  # the certificate is no more hers
            client.expect(client.command(external()), 235)
            users = s.engine.dir / "users"  # the same password
            users.write_text(users.read_text().replace("certificate=app.shop.example",
                                                       "certificate=other.example"))
            s.engine.reload()
            wait_until("the account to change", lambda: client.command(
                "MAIL FROM:<a@shop.example>")[:3] == "421" or not client.command("RSET"))
        with s.client(s.other) as client:
            client.expect(client.command(external()), 235)


def test_reload():
    """A file of authorities that is broken changes nothing; a new one holds for the next session."""
    with Known() as s:
        first, second = s.engine.config["listeners"]
        broken = s.temp.path / "broken.pem"
        broken.write_text("no certificates\n")
        first["client_ca_file"] = second["client_ca_file"] = str(broken)
        s.engine.write_config()
        done = subprocess.run([str(program()), "reload", "-c", str(s.engine.file)],
                              capture_output=True, text=True, timeout=60, check=False)
        check("refused", done.returncode != 0 and "client_ca_file" in done.stdout + done.stderr, True)
        with s.client(s.app) as client:
            client.expect(client.message("u@d1.example"), 250)
        first["client_ca_file"] = second["client_ca_file"] = str(s.self_signed[0])
        s.engine.reload()

        def unknown():
            with s.client(s.app) as client:
                return client.message("u@d1.example")[:3] == "550"
        wait_until("the authority to be gone", unknown)


def test_revoked():
    """A certificate that its authority took back is good for nothing once the list has been read anew;
    where the list is too old none is, and a file that is no list changes nothing."""
    with Known() as s:
        crl = s.authority.crl(s.temp.path / "clients.crl")
        for one in s.engine.config["listeners"]:
            one["client_crl_file"] = str(crl)
            one["relay_certificates"] += ["other.example", fingerprint(s.other[0])]
        s.engine.reload()

        def relays(files, **more):
            with s.client(files, **more) as client:
                return client.message("u@d1.example")[:3] == "250"
        for files in (s.app, s.other, s.self_signed):
            check(f"{files}", relays(files), True)
        s.authority.revoke(s.other)
        s.authority.crl(crl)
        check("as it was read", relays(s.other), True)
        s.engine.reload()
        wait_until("the new list", lambda: not relays(s.other))
        check("another", relays(s.app), True)
        for one in s.engine.config["listeners"]:
            one["client_certificates"] = "require"
        s.engine.reload()
        wait_until("a word", lambda: "554 5.7.1 your certificate is not known here: certificate revoked"
                   in s.s_client("-cert", s.other[0], "-key", s.other[1]))
        good = crl.read_text()
        for text in ("no list\n", good.replace("X509 CRL", "X509 CRT")):
            crl.write_text(text)
            done = subprocess.run([str(program()), "reload", "-c", str(s.engine.file)],
                                  capture_output=True, text=True, timeout=60, check=False)
            check("refused", done.returncode != 0 and "clients.crl" in done.stdout + done.stderr, True)
            check("as before", relays(s.app), True)
        s.authority.crl(crl, expired=True)
        s.engine.reload()
        wait_until("a word of it", lambda: "older than it says" in s.engine.log())
        wait_until("nobody", lambda: "CRL has expired" in s.s_client("-cert", s.app[0], "-key", s.app[1]))
        check("needs no authority", relays(s.self_signed), True)
        check("taken back all the same", "554 5.7.1 your certificate is not known here: certificate revoked"
              in s.s_client("-cert", s.other[0], "-key", s.other[1]), True)


def test_postfix():
    """Postfix relays through the engine by its certificate, and knows the engine by the engine's: by
    that of the destination, else that of the source, with one host, and not where neither has one."""
    why = peers.missing("postfix")
    if why:
        raise Skip(why)
    s = Known(settings={"workers": 1, "destinations": {"*": {"tls": "encrypt"}}})  # one, so that sessions meet
    authority = s.authority
    pem = s.temp.path / "engine.pem"
    pem.write_text("".join(f.read_text() for f in authority.certificate("sender.shop.example")))
    s.engine.config["destinations"]["shown.example"] = {"tls_certificate": str(pem)}
    of_source = s.temp.path / "source.pem"
    of_source.write_text("".join(f.read_text() for f in authority.certificate("a1.shop.example")))
    s.engine.config["sources"] = {"a0": {"ipv4": "127.0.0.1"}, "a1": {
        "ipv4": "127.0.0.2", "tls_certificate": str(of_source)}}
    s.engine.config["default_pool"] = "default"
    s.engine.config["pools"] = {"default": {"sources": {"a0": {"weight": 1}}}, "own": {"sources": {"a1": {"weight": 1}}}}
    postfix = peers.Postfix("postfix.example")
    postfix.encrypt(*authority.certificate("mx.postfix.example"))
    ca = postfix.write("ca.pem", authority.ca.read_text())
    chain = postfix.write("client.pem", s.app[0].read_text())
    key = postfix.write("client.key", s.app[1].read_text())
    postfix.settings = {"smtp_tls_security_level": "encrypt", "smtp_tls_cert_file": chain,
                        "smtp_tls_key_file": key, "smtpd_tls_ask_ccert": "yes",
                        "smtpd_tls_CAfile": ca, "smtpd_relay_restrictions": "permit_mynetworks, reject",
                        "transport_maps": f"inline:{{ {{ d1.example = smtp:[127.0.0.1]:{s.engine.port} }} }}"}
    s.engine.config["routes"] = {d: f"[127.0.0.1]:{postfix.port}" for d in (
        "shown.example", "hidden.example")}
    postfix.settings["virtual_mailbox_domains"] = "postfix.example, shown.example, hidden.example"
    shown = {("shown", None): "sender.shop.example", ("hidden", None): None,
             ("shown", "own"): "sender.shop.example", ("hidden", "own"): "a1.shop.example"}
    postfix.settings["virtual_mailbox_maps"] = "static:taro/"
    with s, postfix:
        with Client(s.engine, port=postfix.port, hello="c.example") as client:
            client.expect(client.message("u@d1.example"), 250)
        record = s.engine.wait_records("Reception")[0]
        check("Postfix", record["tls_client_name"], "app.shop.example")
        for (name, pool), wanted in shown.items():
            to = f"taro+{pool}@{name}.example"
            header = f"X-Hayauma-Pool: {pool}\r\n" if pool else ""
            with s.client(s.app) as client:
                client.expect(client.message(to, data=f"{header}Subject: x\r\n\r\nx\r\n".encode()), 250)
            own = s.engine.wait_records("Delivery", recipient=to)[0].get("tls_own_certificate")
            check(to, own, wanted)
        found = {}
        for text in postfix.wait_mail("taro", len(shown)):
            pool, name = re.search(rb"Delivered-To: taro\+(\S+)@(\S+).example", text).groups()
            client = re.search(rb'Client CN "(\S+)"', text)
            assert client is None or b"(verified OK)" in text, text
            found[name.decode(), {b"own": "own"}.get(pool)] = client and client[1].decode()
        check("as Postfix saw it", found, shown)


if __name__ == "__main__":
    run(globals())
