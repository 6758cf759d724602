#!/usr/bin/env python3
"""DANE of sessions out: exchangers whose TLSA records are right, wrong, odd, forged or withheld, by a
resolver that says what it has validated (the AD bit).

dane.py [TEST...]"""

import base64
import hashlib
import json
import pathlib
import re
import ssl
import struct
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "lib"), str(HERE.parent / "dns")]  # behind: both have a servers.py
from authority import Authority, serving  # noqa: E402
from encryption import NO_OFFER, OFFER_ALL, TlsServer, closes  # noqa: E402
from engine import Engine  # noqa: E402
from hostile import AD, A, MX, TLSA, Server as NameServer, question_of, reply, rr, wire_name  # noqa: E402
from proc import Failure, TempDir, free_port, wait_until  # noqa: E402
from talk import Client, run  # noqa: E402

CNAME, SERVFAIL = 5, 2


def record(usage, selector, matching, chain):
    """A TLSA record of a certificate's file."""
    der = key_of(chain) if selector == 1 else ssl.PEM_cert_to_DER_cert(chain.read_text())
    data = (der, hashlib.sha256(der).digest(), hashlib.sha512(der).digest())[matching]
    return bytes([usage, selector, matching]) + data


def key_of(chain):
    pem = subprocess.run(["openssl", "x509", "-in", chain, "-noout", "-pubkey"], check=True,
                         capture_output=True, text=True).stdout
    body = "".join(line for line in pem.splitlines() if not line.startswith("--"))
    return base64.b64decode(body)


class Zone:
    """What the resolver says: rows (name, type) -> (list of rdata or SERVFAIL, whether validated)."""

    def __init__(self):
        self.rows, self.asked = {}, []
        self.secure = True  # what is in no row
        self.alone = set()  # aliases that are answered without what they lead to
        self.server = NameServer({"*": self.answer})

    def put(self, name, kind, data, secure=True):
        self.rows[name, kind] = (data, secure)

    def answer(self, query, _stream):
        name, kind, _ = question_of(query)
        self.asked.append((name, kind))
        if not query[3] & AD:
            raise Failure("a question without AD")
        alias = self.rows.get((name, CNAME))
        records = []
        if alias and kind != CNAME:
            records.append(rr(CNAME, wire_name(alias[0][0])))
            data, secure = self.rows.get((alias[0][0], kind), ([], True))
            owner, secure = wire_name(alias[0][0]), secure and alias[1]
            if name in self.alone:
                data, secure = [], alias[1]
        else:
            data, secure = self.rows.get((name, kind), ([], self.secure))
            owner = b"\xc0\x0c"
            if kind == CNAME:
                data = [wire_name(target) for target in data]
        if data == SERVFAIL:
            yield reply(query, [], rcode=SERVFAIL)
        else:
            records += [rr(kind, d, owner=owner) for d in data]
            yield reply(query, records, flags=0x8180 | (AD if secure else 0))

    def host(self, name, address, secure=True):
        self.put(name, A, [bytes(map(int, address.split(".")))], secure)

    def exchangers(self, domain, *hosts, secure=True):
        self.put(domain, MX, [struct.pack(">H", 10 * i + 10) + wire_name(host)
                              for i, host in enumerate(hosts)], secure)

    def records(self, host, data, secure=True, port=25):
        self.put(f"_{port}._tcp.{host}", TLSA, data, secure)


class World:
    """Servers by name, each mx.NAME.example at an address of its own, and an engine under `tls: dane`."""

    def __init__(self, **settings):
        self.temp = TempDir("hayauma-dane-")
        self.authority = Authority(self.temp.path / "ca")
        self.zone = Zone()
        self.addresses = [f"127.0.47.{i}" for i in range(1, 60)]
        self.port = free_port(self.addresses)
        self.servers = {}
        self.engine = Engine({
            "workers": 1,
            "dns": {"servers": [self.zone.server.address], "port": self.port, "validating": True},
            "destinations": {"*": {"tls": "dane", "retry": ["1h"], "idle": "30s", **settings}},
        }, directory=self.temp.path / "engine")

    def own(self, name):
        """A certificate of nobody for another name: what DANE-EE makes good."""
        return self.authority.self_signed("nobody.test", name=name)

    def server(self, name, files=None, secure=True, **more):
        """Its host, which has an address."""
        host = f"mx.{name}.example"
        server = self.servers[name] = TlsServer(files, host=self.addresses[len(self.servers)],
                                                port=self.port, **more)
        self.zone.host(host, server.listener.getsockname()[0], secure)
        return host

    def add(self, name, tlsa=None, files=None, **more):
        """A server that is its domain's only exchanger."""
        host = self.server(name, files, **more)
        self.zone.exchangers(f"{name}.example", host)
        if tlsa is not None:
            self.zone.records(host, tlsa, port=self.port)
        return host

    def send(self, name, user="u"):
        with Client(self.engine) as client:
            client.expect(client.message(f"{user}@{name}.example"), 250)

    def outcome(self, name, user="u"):
        def look():
            return [r for r in self.engine.records(recipient=f"{user}@{name}.example")
                    if r["type"] in ("Delivery", "TransientFailure", "Bounce")]

        return wait_until(f"an outcome of {name}", look, 40, process=self.engine.process)[0]

    def finish(self):
        for server in self.servers.values():
            server.close()
        self.engine.stop(timeout_s=40)


def expect(name, got, **want):
    for key, value in want.items():
        if got.get(key) != value:
            raise Failure(f"{name}: {key} is {got.get(key)!r}, not {value!r}: {got}")


def is_delivered(world, name, policy, verification=None, server=None):
    got, server = world.outcome(name), world.servers[server or name]
    expect(name, got, type="Delivery", num_attempts=1, tls_policy=policy, tls_verification=verification)
    if server.encrypted != [verification is not None]:
        raise Failure(f"{name}: {server.encrypted}")
    return got


def is_deferred(world, name, detail, *words):
    got, server = world.outcome(name), world.servers[name]
    expect(name, got, type="TransientFailure")
    code = got["response"]["enhanced_code"]
    if (code["class"], code["subject"], code["detail"]) != (4, 7, detail):
        raise Failure(f"{name}: {got}")
    for word in words:
        if word not in got["response"]["content"]:
            raise Failure(f"{name} without {word!r}: {got}")
    assert not server.taken and not {"MAIL", "RCPT", "DATA"} & set(server.in_clear), name
    return got


NOT_CHECKED = "not checked: no TLSA record is usable"


def test_records():
    """What each kind of record gets."""
    world = World()
    mine, others = world.own("mine"), world.own("others")
    right, wrong = record(3, 1, 1, mine[0]), record(3, 1, 1, others[0])
    issued = world.authority.certificate("mx.authority.example")
    whole = world.temp.path / "whole.pem"
    whole.write_text(issued[0].read_text() + world.authority.ca.read_text())
    of_authority = record(2, 0, 1, world.authority.ca)
    verified = {"right": [right], "certificate": [record(3, 0, 2, mine[0])], "several": [wrong, right],
                "mixed": [right[:3], b"", right, b"\3\1\7x"]}
    unusable = {"pkix": [b"\1" + right[1:], b"\0" + right[1:]], "length0": [b""],
                "length3": [right[:3]], "hash": [right[:-1]], "selector": [b"\3\2" + right[2:]],
                "matching": [b"\3\1\3" + right[3:]]}
    for name, records in {**verified, **unusable}.items():
        world.add(name, records, mine)
    world.add("authority", [of_authority], (whole, issued[1]))
    world.add("elsewhere", [of_authority], (whole, issued[1]))  # for another name
    world.add("wrong", [wrong], mine)
    world.add("wrongtoo", [wrong, b"\1" + right[1:], right[:3]], mine)
    world.add("stripped", [right], offer=NO_OFFER)
    world.add("unusablestripped", [right[:3]], offer=NO_OFFER)
    world.add("refused", [right], offer=OFFER_ALL, answers={"STARTTLS": b"454 4.7.0 not now\r\n"})
    world.add("bogus", SERVFAIL, mine)
    with world.engine:
        for name in world.servers:
            world.send(name)
        for name in (*verified, "authority"):
            is_delivered(world, name, "dane", "verified")
            assert world.servers[name].names == [f"mx.{name}.example"], world.servers[name].names
        for name in unusable:
            is_delivered(world, name, "dane", NOT_CHECKED)
        for name in ("wrong", "wrongtoo", "elsewhere"):
            is_deferred(world, name, 5, "certificate verify failed")
        for name in ("stripped", "unusablestripped"):
            is_deferred(world, name, 4, "offer")
        is_deferred(world, "refused", 0, "not now")
        got = is_deferred(world, "bogus", 5, "TLSA lookup for mx.bogus.example", "SERVFAIL")
        assert world.servers["bogus"].sessions == 0 and got["response"]["code"] == 451
        counters = world.engine.status()["counters"]
        assert counters["tls_out_dane"] == len(verified) + 1, counters
        assert counters["tls_out"] == len(verified) + 1 + len(unusable), counters
        world.finish()


def test_not_validated():
    """Where the host's addresses or records are not validated, records do not count: as under `may`. That MX is
    not makes no difference (RFC 7672 2.2.1)."""
    world = World()
    mine = world.own("mine")
    wrong = [record(3, 1, 1, world.own("others")[0])]
    world.add("mx", wrong, mine)
    world.zone.exchangers("mx.example", "mx.mx.example", secure=False)
    world.add("address", wrong, mine, secure=False)
    world.add("records", wrong, mine)
    world.zone.records("mx.records.example", wrong, secure=False, port=world.port)
    world.add("chain", wrong, mine)
    world.zone.exchangers("chain.example", "alias.chain.example")
    world.zone.put("alias.chain.example", CNAME, ["mx.chain.example"], secure=False)
    world.zone.alone.add("alias.chain.example")
    world.add("none", [], mine)
    world.add("plain", [], offer=NO_OFFER)
    with world.engine:
        for name in world.servers:
            world.send(name)
        is_deferred(world, "mx", 5, "certificate verify failed")
        for name in ("address", "records", "chain", "none"):
            is_delivered(world, name, "may", "not checked")
        got = is_delivered(world, "plain", "may")
        assert "not offered" in got["tls_plaintext"], got
        # Servers of names without DNSSEC are not asked what they may not understand.
        asked = {name for name, kind in world.zone.asked if kind == TLSA}
        assert asked == {f"_{world.port}._tcp.mx.{name}.example"
                         for name in ("mx", "records", "none", "plain")}, asked
        world.finish()


def test_names():
    """A host that is an alias: records of where it leads, else its own (RFC 7672 2.2.2); a domain without
    MX is its own host."""
    world = World()
    mine = world.own("mine")
    right, wrong = [record(3, 1, 1, mine[0])], [record(3, 1, 1, world.own("others")[0])]
    zone, port = world.zone, world.port
    for name, target_secure in (("expanded", True), ("initial", True), ("abroad", False)):
        host = world.server(name, mine, secure=target_secure)
        zone.exchangers(f"{name}.example", f"alias.{name}.example")
        zone.put(f"alias.{name}.example", CNAME, [host])
    zone.records("mx.expanded.example", right, port=port)
    zone.records("alias.expanded.example", wrong, port=port)
    zone.records("alias.initial.example", right, port=port)
    zone.records("alias.abroad.example", right, port=port)
    zone.records("mx.abroad.example", wrong, port=port)
    world.server("implicit", mine)
    zone.host("implicit.example", world.servers["implicit"].listener.getsockname()[0])
    zone.records("implicit.example", right, port=port)
    with world.engine:
        for name in world.servers:
            world.send(name)
        for name in world.servers:
            is_delivered(world, name, "dane", "verified")
        asked = {name: world.servers[name].names for name in world.servers}
        assert asked == {"expanded": ["mx.expanded.example"], "initial": ["alias.initial.example"],
                         "abroad": ["alias.abroad.example"], "implicit": ["implicit.example"]}, asked
        world.finish()


def test_next_exchanger():
    """What fails at one exchanger goes to the next one in the same attempt."""
    world = World()
    mine = world.own("mine")
    right, wrong = [record(3, 1, 1, mine[0])], [record(3, 1, 1, world.own("others")[0])]
    for name, records in (("good", right), ("wrong", wrong), ("bogus", SERVFAIL)):
        world.add(name, records, mine)
    for name in ("wrong", "bogus"):
        world.zone.exchangers(f"{name}.example", f"mx.{name}.example", "mx.good.example")
    with world.engine:
        for i, name in enumerate(("wrong", "bogus")):
            world.send(name)
            expect(name, world.outcome(name), type="Delivery", num_attempts=1, tls_policy="dane",
                   tls_verification="verified")
            assert len(world.servers["good"].taken) == i + 1 and not world.servers[name].taken
        assert world.servers["wrong"].sessions == 1 and world.servers["bogus"].sessions == 0
        assert "delivery.tlsa_failed" in world.engine.log()
        world.finish()


def test_shared_host():
    """One host of three domains: two of them, of which one is not signed, are held to its records, by one session;
    mail of the third, which asks for less, goes by another."""
    world = World()
    world.engine.config["destinations"]["loose.example"] = {"tls": "may", "idle": "30s"}
    mine = world.own("mine")
    host = world.add("secure", [record(3, 1, 1, mine[0])], mine)
    for name in ("open", "loose"):
        world.zone.exchangers(f"{name}.example", host, secure=False)
    server = world.servers["secure"]
    with world.engine:
        for sessions, name, policy in ((1, "loose", "may"), (2, "secure", "dane"), (2, "open", "dane")):
            world.send(name)
            expect(name, world.outcome(name), type="Delivery", tls_policy=policy)
            assert server.sessions == sessions, (name, server.sessions)
        world.finish()


def test_route():
    """`route` says what each exchanger is held to, by which records, and where a failure is remembered."""
    world = World()
    mine = world.own("mine")
    right = record(3, 1, 1, mine[0])
    world.add("right", [right, b"\x00\x01"], mine)
    world.add("odd", [b"\x03\x01"], mine)
    world.add("bogus", SERVFAIL, mine)
    world.add("broken", None, mine, how=closes, offer=OFFER_ALL)
    with world.engine:
        world.send("broken")
        expect("broken", world.outcome("broken"), type="Delivery", tls_policy="may")

        def exchanger(name):
            route = json.loads(world.engine.command("route", f"u@{name}.example", "--json"))
            assert route["tls"]["policy"] == "dane" and "mta_sts" not in route, route
            return route["exchangers"][0] | {"now": route["now_ms"]}
        got = exchanger("right")
        assert got["tls"] == "dane" and got["tlsa"] == ["3 1 1 " + right[3:].hex(), "0 1"], got
        assert "tlsa_unusable" not in got and "plaintext" not in got
        assert "TLSA 3 1 1 " + right[3:].hex() in world.engine.command("route", "u@right.example")
        got = exchanger("odd")
        assert got["tls"] == "dane" and got["tlsa_unusable"], got
        assert exchanger("bogus")["tlsa_error"]
        got = exchanger("broken")
        plain = got["plaintext"][0]
        assert got["tls"] == "may" and "tlsa" not in got and "TLS failed" in plain["reason"], got
        assert plain["since_ms"] <= got["now"] <= plain["until_ms"] == plain["since_ms"] + 3_600_000, got
        text = world.engine.command("route", "u@broken.example")
        assert re.search(r"plaintext from source default for 5\dm.*, since .* ago: TLS failed", text), text
        world.finish()


def test_resolver():
    """One that validates nothing is told of in the log; one that does is not."""
    for validates in (True, False):
        world = World()
        world.zone.secure = validates
        with world.engine:
            wait_until("the question", lambda w=world: ("", 16) in w.zone.asked, 20)
            if validates:
                world.zone.host("implicit.example", "127.0.47.1")
                world.send("implicit")  # nobody is there
                world.outcome("implicit")
            else:
                wait_until("the warning", lambda w=world: "dns.not_validating" in w.engine.log(), 20)
            assert ("dns.not_validating" in world.engine.log()) != validates, world.engine.log()
            world.finish()


def test_sessions():
    """Sessions are resumed and are verified ones; a key that changes without its record stops the mail."""
    world = World(session_messages_max=1, sessions_max=1)
    mine, next_one = world.own("mine"), world.own("next")
    world.add("change", [record(3, 1, 1, mine[0])], mine)
    server = world.servers["change"]
    with world.engine:
        for i in range(3):
            world.send("change", f"u{i}")
            expect("change", world.outcome("change", f"u{i}"), type="Delivery", tls_policy="dane",
                   tls_verification="verified", tls_resumed=i > 0)
        server.context = serving(next_one)
        world.send("change", "rolled")
        expect("change", world.outcome("change", "rolled"), type="TransientFailure")
        assert len(server.taken) == 3
        world.finish()


if __name__ == "__main__":
    run(globals())
