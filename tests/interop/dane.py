"""DANE with signed zones of Knot DNS through a validating Unbound, to Postfix."""

import base64
import hashlib
import ssl
import subprocess
import unittest

import case
import mail
import peers
from authority import Authority
from engine import Engine
from proc import TempDir, free_port

SENDER = "taro@sender.example"
# Zones, each with a host of its name, by the Postfix that these hosts are: by what it shows.
ZONES = {"own": ("right", "wrong", "full", "open", "half", "none"), "issued": ("authority",),
         "nothing": ("stripped",)}
ADDRESSES = {"own": "127.0.48.1", "issued": "127.0.48.2", "nothing": "127.0.48.3"}
UNSIGNED = ("open", "hosted")
SPOILT = ("_tcp.mx.half", "bogus")  # signed with other keys than their parent says
servers, engine = {}, None


def zone(name):
    return f"{name}.test"


class Signed(peers.Knot):
    """Zones below test., all signed but for UNSIGNED; DS records of each in a file of its name."""

    def __init__(self, zones):
        super().__init__("")
        self.zones = zones

    def configure(self):
        super().configure()
        signed = [name for name in self.zones if name not in UNSIGNED]
        config = (self.dir / "knot.conf").read_text().partition("zone:\n")[0] + (
            "policy:\n  - id: by-hand\n    manual: on\n    single-type-signing: on\nzone:\n")
        for name, records in self.zones.items():
            self.write(f"{name}.zone", f"$ORIGIN {zone(name)}.\n$TTL 60\n@ SOA ns root 1 60 60 60 5\n"
                       f"@ NS ns\nns A {self.host}\n{records}\n")
            config += f"  - domain: {zone(name)}.\n    file: {self.dir}/{name}.zone\n    zonefile-sync: -1\n"
            if name in signed:
                config += "    dnssec-signing: on\n    dnssec-policy: by-hand\n"
        self.write("knot.conf", config)
        keymgr = f"/usr/sbin/keymgr -c {self.dir}/knot.conf"
        self.prepare = f"mkdir {self.dir}/db && " + " && ".join(
            f"{keymgr} {zone(name)}. generate algorithm=ECDSAP256SHA256 ksk=yes zsk=yes >/dev/null && "
            f"{keymgr} {zone(name)}. ds >{self.dir}/{name}.ds" for name in signed)

    def anchors(self):
        """Lines of Unbound's configuration."""
        for name in self.zones:
            if name in UNSIGNED:
                continue
            ds = [line for line in (self.dir / f"{name}.ds").read_text().splitlines() if " 13 2 " in line][0]
            if name in SPOILT:
                ds = ds.rpartition(" ")[0] + " " + "ab" * 32
            yield f'  trust-anchor: "{ds}"'


class Validating(peers.Unbound):
    def configure(self):
        super().configure()
        config = (self.dir / "unbound.conf").read_text().replace(
            'module-config: "iterator"', "\n".join((
                'module-config: "validator iterator"', '  local-zone: "test." nodefault',
                *self.server.anchors())))
        for name in self.server.zones:
            config += (f"stub-zone:\n  name: {zone(name)}\n"
                       f"  stub-addr: {self.server.host}@{self.server.port}\n")
        self.write("unbound.conf", config)


def der(chain, key=False):
    if not key:
        return ssl.PEM_cert_to_DER_cert(chain.read_text())
    pem = subprocess.run(["openssl", "x509", "-in", chain, "-noout", "-pubkey"], check=True,
                         capture_output=True, text=True).stdout
    return base64.b64decode("".join(line for line in pem.splitlines() if not line.startswith("-")))


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def setUpModule():
    global engine
    temp = TempDir("hayauma-dane-")
    unittest.addModuleCleanup(temp.close)
    authority = Authority(temp.path)
    port = free_port(tuple(ADDRESSES.values()))
    own = authority.self_signed("nobody.test")
    issued = authority.certificate("mx.authority.test")
    whole = temp.path / "whole.pem"
    whole.write_text(issued[0].read_text() + authority.ca.read_text())
    tlsa = {"right": f"3 1 1 {sha256(der(own[0], key=True))}",
            "authority": f"2 0 1 {sha256(der(authority.ca))}",
            "wrong": f"3 1 1 {sha256(b'another key')}", "open": f"3 1 1 {sha256(b'another key')}",
            "full": "3 0 0 " + der(own[0]).hex(), "stripped": f"3 1 1 {sha256(der(own[0], key=True))}"}
    zones = {}
    for shown, names in ZONES.items():
        boxes = ", ".join(f"{{ taro@{zone(name)} = {name}/ }}" for name in names)
        server = peers.Postfix(zone(names[0]), ADDRESSES[shown], port, settings={
            "virtual_mailbox_domains": " ".join(map(zone, names)),
            "virtual_mailbox_maps": f"inline:{{ {boxes} }}"})
        if shown != "nothing":
            server.encrypt(*(own if shown == "own" else (whole, issued[1])))
        server.start()
        unittest.addModuleCleanup(server.stop)
        for name in names:
            servers[name] = server
            zones[name] = f"@ MX 10 mx\nmx A {server.host}\n"
            if name in tlsa:
                zones[name] += f"_{port}._tcp.mx TLSA {tlsa[name]}\n"
    zones["half"] += "_tcp.mx NS ns\n"
    zones["_tcp.mx.half"] = f"_{port} TLSA {tlsa['right']}\n"
    zones["bogus"] = "@ MX 10 mx.right.test.\n"
    zones["hosted"] = "@ MX 10 mx.wrong.test.\n"
    knot = Signed(zones).start()
    unittest.addModuleCleanup(knot.stop)
    unbound = Validating(knot).start()
    unittest.addModuleCleanup(unbound.stop)
    engine = Engine({"dns": {"servers": [f"{unbound.host}:{unbound.port}"], "port": port,
                             "validating": True},
                     "destinations": {"*": {"tls": "dane", "retry": ["1h"], "timeouts": {"tls": "60s"}}}})
    engine.start()
    unittest.addModuleCleanup(engine.stop)
    for name in zones:
        case.submit(engine, SENDER, [f"taro@{zone(name)}"],
                    mail.header(name, SENDER, f"taro@{zone(name)}") + b"text\r\n")


class Dane(unittest.TestCase):
    def delivered(self, name, policy, verification):
        record = engine.wait_records("Delivery", timeout_s=60, recipient=f"taro@{zone(name)}")[0]
        self.assertEqual(record["tls_policy"], policy, record)
        self.assertEqual(record.get("tls_verification"), verification, record)
        self.assertEqual(record["num_attempts"], 1)
        servers[name].wait_mail(name)

    def deferred(self, name, code, text):
        record = engine.wait_records("TransientFailure", timeout_s=60, recipient=f"taro@{zone(name)}")[0]
        got = record["response"]
        self.assertEqual([got["enhanced_code"][part] for part in ("class", "subject", "detail")], code, record)
        self.assertIn(text, got["content"])
        if name in servers:
            self.assertEqual(servers[name].maildir(name), [])

    def test_right(self):
        for name in ("right", "authority", "full"):
            with self.subTest(record=name):
                self.delivered(name, "dane", "verified")

    def test_wrong(self):
        self.deferred("wrong", [4, 7, 5], "certificate verify failed")

    def test_stripped(self):
        self.deferred("stripped", [4, 7, 4], "STARTTLS")

    def test_unsigned(self):
        """A zone without DNSSEC may say what it likes of certificates."""
        self.delivered("open", "may", "not checked")

    def test_hosted(self):
        """The host's zone is signed, and the domain's is not."""
        self.deferred("hosted", [4, 7, 5], "certificate verify failed")

    def test_none(self):
        self.delivered("none", "may", "not checked")

    def test_bogus_records(self):
        self.deferred("half", [4, 7, 5], "TLSA lookup for mx.half.test")

    def test_bogus_exchangers(self):
        self.deferred("bogus", [4, 4, 3], "SERVFAIL")


if __name__ == "__main__":
    case.run("postfix", "dns")
