#!/usr/bin/env python3
"""MTA-STS: policies that nginx serves, by domains that a resolver of the test's knows, for exchangers
that do TLS well and such that do not.

policies.py [TEST...]"""

import contextlib
import datetime
import json
import pathlib
import re
import socket
import struct
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / name) for name in ("lib", "interop", "hostile", "dns")]
# First: the servers that it imports are not those of tests/dns, where hostile is.
from encryption import NO_OFFER, OFFER_ALL, TlsServer  # noqa: E402
import hostile  # noqa: E402
import peers  # noqa: E402
from authority import Authority, serving  # noqa: E402
from engine import Engine, merge  # noqa: E402
from proc import TempDir, free_port, wait_until  # noqa: E402
from talk import Client, Listener, Skip, run  # noqa: E402

A, MX, TXT = hostile.A, hostile.MX, 16
HTTPS, SILENT, ENDLESS = "127.0.0.1", "127.0.60.254", "127.0.60.253"
LARGE = "version: STSv1\nmode: enforce\nmx: *.large.example\nmax_age: 86400\n" + "x: y\n" * 20000


def policy(mode, *mx, age=86400, end="\n"):
    return end.join(["version: STSv1", f"mode: {mode}", *(f"mx: {name}" for name in mx),
                     f"max_age: {age}", ""])


class Names(hostile.Server):
    """Answers from `records`: (name, type) to a list of data. `gone`: suffixes that do not exist. `signed`: the
    names of which all is validated."""

    def __init__(self):
        self.records, self.gone, self.signed = {}, (), ()
        super().__init__()

    def handler(self, query):
        return self.answer

    def answer(self, query, _stream):
        name, kind, _ = hostile.question_of(query)
        known = any(n == name for n, _ in self.records)
        if not known or name.startswith(self.gone):
            yield hostile.reply(query, [], rcode=3)
            return
        yield hostile.reply(query, [hostile.rr(kind, data) for data in self.records.get((name, kind), [])],
                            flags=0x8180 | (hostile.AD if name in self.signed else 0))

    def put(self, name, kind, *data):
        self.records[name, kind] = list(data)


def mx_data(preference, host):
    return struct.pack(">H", preference) + hostile.wire_name(host)


def txt_data(text):
    return bytes([len(text)]) + text.encode()


class Nginx(peers.Nginx):
    """`sites`: host to (chain, key, lines of its location). Policies are files of `www`."""

    def __init__(self):
        super().__init__("")
        self.sites = {}
        self.www = self.dir / "www"
        self.www.mkdir()

    def publish(self, domain, text):
        path = self.www / f"mta-sts.{domain}"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def http(self):
        servers = "".join(f"""
  server {{
    listen {self.host}:{self.port} ssl;
    server_name {host};
    ssl_certificate {self.write(f"tls/{host}.pem", chain.read_text())};
    ssl_certificate_key {self.write(f"tls/{host}.key", key.read_text())};
    location = /.well-known/mta-sts.txt {{ {more or f"alias {self.www}/{host};"} }}
  }}""" for host, (chain, key, more) in self.sites.items())
        return f"""
  types {{}}
  default_type text/plain;
  server_names_hash_bucket_size 128;
{servers}"""


class World:
    """Domains NAME.example, each with an exchanger mx1.NAME.example of its own, and an engine."""

    def __init__(self):
        reason = peers.missing("nginx")
        if reason:
            raise Skip(reason)
        self.temp = TempDir("hayauma-sts-")
        self.authority = Authority(self.temp.path / "ca")
        self.names, self.nginx = Names(), Nginx()
        self.servers, self.hosts, self.port, self.engine = {}, 0, None, None

    def exchanger(self, host, kind="good"):
        """A server of its own address under the name host."""
        self.hosts += 1
        address = f"127.0.60.{self.hosts}"
        files = {"good": lambda: self.authority.certificate(host),
                 "wrong": lambda: self.authority.certificate("other.example"),
                 "expired": lambda: self.authority.certificate(host, expired=True),
                 "self": lambda: self.authority.self_signed(host),
                 "stripped": lambda: None}[kind]()
        self.port = self.port or free_port([f"127.0.60.{i}" for i in range(1, 60)])
        server = TlsServer(files, offer=OFFER_ALL if files else NO_OFFER, host=address, port=self.port)
        self.names.put(host, A, socket.inet_aton(address))
        self.servers[host] = server
        return server

    def domain(self, name, body=None, kind="good", record="v=STSv1; id=1;", https=None, hosts=None,
               more="", address=HTTPS):
        """A domain with a policy, unless body is None. https: how its server's certificate is wrong."""
        domain = f"{name}.example"
        hosts = hosts or [f"mx1.{domain}"]
        self.names.put(domain, MX, *(mx_data(10 * i, host) for i, host in enumerate(hosts)))
        for host in hosts:
            if host not in self.servers:
                self.exchanger(host, kind)
        if body is None:
            return
        self.names.put(f"_mta-sts.{domain}", TXT, *(txt_data(text) for text in record.split("|")))
        host = f"mta-sts.{domain}"
        self.names.put(host, A, socket.inet_aton(address))
        certificate = {None: lambda: self.authority.certificate(host),
                       "wrong": lambda: self.authority.certificate("mta-sts.other.example"),
                       "expired": lambda: self.authority.certificate(host, expired=True),
                       "self": lambda: self.authority.self_signed(host)}[https]()
        self.nginx.sites[host] = (*certificate, more)
        self.nginx.publish(domain, body)

    def start(self, **settings):
        if not self.nginx.process:
            self.nginx.start()
        self.engine = Engine(merge({
            "workers": 2, "tls_ca_file": str(self.authority.ca),
            "dns": {"servers": [self.names.address], "port": self.port, "timeout": "2s"},
            "mta_sts": {"port": self.nginx.port, "private_addresses": True},
            "destinations": {"*": {"tls": "mta-sts", "retry": ["1h"], "idle": "30s"}},
        }, settings), directory=self.temp.path / "engine").start()
        return self

    def send(self, name, user="u"):
        with Client(self.engine) as client:
            client.expect(client.message(f"{user}@{name}.example"), 250)

    def send_now(self, name, user):
        """Although the destination may wait after a failure."""
        self.send(name, user)
        self.engine.command("queue", "flush", "--all")

    def outcome(self, name, user="u"):
        """The first record of what was tried for user at name."""
        def look():
            return [r for r in self.engine.records(recipient=f"{user}@{name}.example")
                    if r["type"] in ("Delivery", "TransientFailure", "Bounce")]

        return wait_until(f"an outcome of {user}@{name}", look, 40, process=self.engine.process)[0]

    def server(self, name):
        return self.servers[f"mx1.{name}.example"]

    def wait_log(self, text):
        wait_until(text, lambda: text in self.engine.log(), 40, process=self.engine.process)

    def finish(self):
        self.engine.stop()
        self.nginx.stop()
        for server in self.servers.values():
            server.close()


def delivered(world, name, mode, failure=None, encrypted=True, user="u"):
    """Under mode of a policy, None: under none. failure: what the record says that one would refuse."""
    record = world.outcome(name, user)
    assert record["type"] == "Delivery" and record["num_attempts"] == 1, record
    assert ("tls_cipher" in record) == encrypted, record
    assert record["tls_policy"] == ("mta-sts" if mode == "enforce" else "may"), record
    assert record.get("mta_sts_mode") == mode, record
    assert (failure is None) == ("mta_sts_failure" not in record), record
    assert failure is None or failure in record["mta_sts_failure"], record
    if mode == "enforce":
        assert record["tls_verification"] == "verified", record
    return record


def refused(world, name, why, detail=5, user="u"):
    """Deferred; nothing of the envelope was said in the clear, or to the wrong host."""
    record = world.outcome(name, user)
    assert record["type"] == "TransientFailure" and record["num_attempts"] == 1, record
    code = record["response"]["enhanced_code"]
    assert (record["response"]["code"], code["subject"], code["detail"]) == (451, 7, detail), record
    assert why in record["response"]["content"], record
    return record


def refused_again(world, name, why, user):
    """One more mail to name, and one more attempt of any that waits there."""
    def deferred():
        return [r for r in world.engine.records("TransientFailure") if r["recipient"].endswith(f"@{name}.example")]

    before = len(deferred())
    world.send_now(name, user)
    wait_until(f"another deferral of {name}", lambda: len(deferred()) > before, 40,
               process=world.engine.process)
    assert why in deferred()[-1]["response"]["content"], deferred()[-1]


def test_modes():
    """What each policy makes of each exchanger."""
    world = World()
    for kind in ("good", "wrong", "expired", "self", "stripped"):
        for mode in ("enforce", "testing", "none"):
            world.domain(f"{mode}-{kind}", policy(mode, f"mx1.{mode}-{kind}.example"), kind)
    world.domain("plain", None, "wrong")
    world.domain("crlf", policy("enforce", "mx1.crlf.example", end="\r\n"), "wrong")
    world.domain("wild", policy("enforce", "x.example", "*.wild.example"))
    world.domain("deep", policy("enforce", "*.deep.example"), hosts=["a.b.deep.example"])
    world.domain("fleeting", policy("enforce", "mx1.fleeting.example", age=0), "wrong")
    world.domain("astray", policy("enforce", "mx2.astray.example"))
    world.domain("untested", policy("testing", "mx2.untested.example"))
    world.domain("two", policy("enforce", "mx2.two.example"), hosts=["mx1.two.example", "mx2.two.example"])
    world.domain("xn--wgv71a119e", policy("enforce", "mx1.日本語.example"))
    world.start()
    names = [name.removesuffix(".example") for name, kind in world.names.records
             if kind == MX and name != "xn--wgv71a119e.example"]
    for name in names:
        world.send(name)
    with Client(world.engine) as client:
        client.command("MAIL FROM:<a@sender.example> SMTPUTF8")
        client.command("RCPT TO:<u@日本語.example>")
        client.expect(client.command("DATA"), 354)
        client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
        client.expect(client.reply(), 250)
    for mode, kind in ((m, k) for m in ("enforce", "testing", "none")
                       for k in ("good", "wrong", "expired", "self", "stripped")):
        name, why = f"{mode}-{kind}", {"wrong": "mismatch", "stripped": "not offer"}.get(kind, kind)
        if mode == "enforce" and kind != "good":
            record = refused(world, name, why if kind != "stripped" else "", 4 if kind == "stripped" else 5)
            assert record["tls_policy"] == "mta-sts" and record["mta_sts_mode"] == "enforce", record
            assert not world.server(name).taken and "MAIL" not in world.server(name).heard, name
        elif mode == "testing":
            why = {"good": None, "wrong": "another host"}.get(kind, why)
            delivered(world, name, mode, why, kind != "stripped")
        else:
            delivered(world, name, mode if mode == "enforce" else None, None, kind != "stripped")
    delivered(world, "plain", None)
    refused(world, "crlf", "MTA-STS")
    delivered(world, "wild", "enforce")
    for name in ("deep", "astray"):
        refused(world, name, "names none of the domain's exchangers")
    assert not world.servers["a.b.deep.example"].sessions and not world.server("astray").sessions
    delivered(world, "untested", "testing", "does not name the exchanger")
    record = delivered(world, "two", "enforce")
    assert record["peer_address"]["name"] == "mx2.two.example" and not world.server("two").sessions, record
    delivered(world, "xn--wgv71a119e", "enforce")
    # No sooner known than over; and not asked for with each mail.
    delivered(world, "fleeting", None)
    world.send("fleeting", "v")
    delivered(world, "fleeting", None, user="v")
    assert world.engine.log().count("event=sts.policy domain=fleeting.example ") == 1
    assert world.engine.status()["counters"]["sts_tested_failures"] == 5
    world.finish()


def test_smart_hosts():
    """Mail that a route sends to a host is under the host's policy, whatever its domain's is (RFC 8461
    3.4), and route says so; to an address it is under none."""
    world = World()
    world.domain("mx1.bad", policy("enforce", "mx1.bad.example"), "wrong", hosts=["mx1.bad.example"])
    world.domain("mx1.good", policy("enforce", "mx1.good.example", age=99999), hosts=["mx1.good.example"])
    world.domain("strict", policy("enforce", "mx1.strict.example"), "wrong")
    address = world.server("good").listener.getsockname()[0]
    ways = {"bad": "mx1.bad.example", "good": "mx1.good.example", "strict": address}
    world.start(workers=1, routes={f"{name}.example": f"[{to}]:{world.port}" for name, to in ways.items()})
    for name in ways:
        world.send(name)
    refused(world, "bad", "mismatch")
    delivered(world, "good", "enforce")
    delivered(world, "strict", None)
    for name in ways:
        route = json.loads(world.engine.command("route", f"u@{name}.example", "--json"))
        sts, (exchanger,) = route.get("mta_sts"), route["exchangers"]
        assert exchanger["tls"] == ("may" if name == "strict" else "mta-sts"), route
        assert (sts is None) == (name == "strict"), route
        if name == "good":
            assert (sts["mode"], sts["id"]) == ("enforce", "1"), sts
            assert sts["until_ms"] - sts["fetched_ms"] == 99999_000 and 0 <= route["now_ms"] - sts["fetched_ms"]
            text = world.engine.command("route", "u@good.example")
            assert re.search(r"mta-sts +enforce, policy 1, fetched .* ago, good for 1d", text), text
    world.finish()


def endless_policy(files):
    """A session of an HTTPS server that sends a policy without end, a piece now and then."""
    def session(peer):
        with contextlib.suppress(OSError), serving(files).wrap_socket(peer, server_side=True) as secure:
            secure.recv(65536)
            secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
            while True:
                secure.sendall(b"x: y\n" * 4000)
                time.sleep(0.1)
    return session


def test_bad_policies():
    """What cannot be fetched, or is no policy, is none: mail goes as under may, and soon."""
    world = World()
    good = "\n".join(("version: STSv1", "mode: enforce", "mx: mx1.{0}.example", "max_age: 86400", ""))
    bad = {
        "large": (LARGE, {}, "64 KiB"),
        "nul": (good.format("nul").replace("enforce", "enforce\0"), {}, "no field"),
        "html": ("<html>not here</html>\n", {}, "no field"),
        "empty": ("", {}, "version"),
        "type": (good.format("type"), {"more": "default_type text/html; alias {0};"}, "text/plain"),
        "redirect": (good.format("redirect"), {
            "more": "return 301 https://$host:$server_port/other;"}, "not followed"),
        "missing": (good.format("missing"), {"more": "return 404;"}, "404"),
        "expired": (good.format("expired"), {"https": "expired"}, "expired"),
        "self": (good.format("self"), {"https": "self"}, "self"),
        "wrong": (good.format("wrong"), {"https": "wrong"}, "mta-sts.wrong.example"),
        "silent": (good.format("silent"), {"address": SILENT}, None),
        "endless": (good.format("endless"), {"address": ENDLESS}, "64 KiB"),
    }
    for name, (body, more, _) in bad.items():
        if "more" in more:
            more = {"more": more["more"].format(world.nginx.www / f"mta-sts.{name}.example")}
        world.domain(name, body, "stripped", **more)
    records = {"twice": "v=STSv1; id=1|v=STSv1; id=2", "noid": "v=STSv1; x=y", "other": "v=STSv2; id=1"}
    for name, record in records.items():
        world.domain(name, good.format(name), "stripped", record)
    listener = Listener(SILENT, world.nginx.port)  # takes connections, and says nothing
    listener.session = lambda peer: time.sleep(60)
    endless = Listener(ENDLESS, world.nginx.port)
    endless.session = endless_policy(world.authority.certificate("mta-sts.endless.example"))
    world.start()
    for name in (*bad, *records):
        world.send(name)
    for name in (*bad, *records):
        record = delivered(world, name, None, None, False)
        assert record["queue_ms"] < 30000 or name != "silent", record
    assert world.outcome("silent")["queue_ms"] >= 4500
    # It did not wait for the end of the fetch, which comes with curl's own patience.
    world.wait_log("sts.fetch_failed domain=silent.example")
    line = [line for line in world.engine.log().splitlines() if "sts.fetch_failed domain=silent" in line][0]
    failed = datetime.datetime.fromisoformat(line.split()[0].removeprefix("time=").replace("Z", "+00:00"))
    assert failed.timestamp() - world.outcome("silent")["timestamp"] > 2, (world.outcome("silent"), line)
    for name, (_, _, why) in bad.items():
        if why:
            lines = [line for line in world.engine.log().splitlines()
                     if "sts.fetch_failed" in line and f"domain={name}.example" in line]
            assert lines and why in lines[0], (name, lines)
    for name, why in (("missing", "HTTP status 404"), ("noid", "its TXT records say nothing that is clear")):
        route = world.engine.command("route", f"u@{name}.example")
        assert re.search(rf"mta-sts +no policy: {why}\n", route), route
    counters = world.engine.status()["counters"]
    assert counters["sts_fetch_failures"] >= len(bad) - 1, counters  # the silent one's may be yet to come
    listener.close()
    endless.close()
    world.finish()


def test_private():
    """A policy's server at a private address is not asked."""
    world = World()
    world.domain("inside", policy("enforce", "mx1.inside.example"), "wrong")
    world.start(mta_sts={"private_addresses": False})
    world.send("inside")
    delivered(world, "inside", None)
    world.wait_log("its server has no public address")
    assert not (world.nginx.dir / "access").read_text()
    world.finish()


def test_one_exchanger():
    """Two domains share an exchanger: a session that was opened under no policy carries no mail of a
    domain that has one, not even where its certificate is good."""
    world = World()
    for kind in ("good", "wrong"):
        host = f"mx.{kind}.example"
        world.exchanger(host, kind)
        world.domain(f"free-{kind}", None, hosts=[host])
        world.domain(f"strict-{kind}", policy("enforce", host), hosts=[host])
        world.domain(f"other-{kind}", policy("enforce", host, age=99999), hosts=[host])
    for name in ("a", "b"):  # the same two exchangers, of which each domain's policy names one
        world.domain(f"only-{name}", policy("enforce", f"mx-{name}.pair.example"),
                     hosts=["mx-a.pair.example", "mx-b.pair.example"])
    world.start(workers=1)
    for name in ("a", "b"):
        world.send(f"only-{name}")
        record = delivered(world, f"only-{name}", "enforce")
        assert record["peer_address"]["name"] == f"mx-{name}.pair.example", record
    for kind in ("good", "wrong"):
        server = world.servers[f"mx.{kind}.example"]
        world.send(f"free-{kind}")
        delivered(world, f"free-{kind}", None)
        assert server.sessions == 1
        world.send(f"strict-{kind}")
        if kind == "good":
            delivered(world, f"strict-{kind}", "enforce")
            assert server.sessions == 2, server.sessions
            world.send(f"other-{kind}")  # the same is asked for: the same session
            delivered(world, f"other-{kind}", "enforce")
            assert server.sessions == 2, server.sessions
        else:
            refused(world, f"strict-{kind}", "mismatch")
        world.send(f"free-{kind}", "again")
        delivered(world, f"free-{kind}", None, user="again")
    world.finish()


def test_dane_beside():
    """An exchanger with TLSA records, which its certificate fails, and domains with a policy that it keeps to: the
    records decide, but for a domain whose MX is not signed, since whoever forged it could bring records too."""
    world = World()
    host = "mx.shared.example"
    world.exchanger(host)
    tlsa = f"_{world.port}._tcp.{host}"
    world.names.put(tlsa, hostile.TLSA, b"\3\1\1" + bytes(32))
    world.names.signed = {host, tlsa, "signed.example"}
    for name, body in (("free", policy("enforce", host)), ("signed", policy("enforce", host)), ("open", None)):
        world.domain(name, body, hosts=[host])
    world.start(workers=1, dns={"validating": True}, destinations={"*": {"tls": "dane+mta-sts"}})
    world.send("free")
    delivered(world, "free", "enforce")
    for name in ("signed", "open"):
        world.send(name)
        refused(world, name, "certificate verify failed")
    world.finish()


def test_changes_and_restart():
    """A new id brings the new policy, a fetch that fails leaves the old one, and so does a restart
    while neither the policy's server nor its TXT record is there."""
    world = World()
    world.domain("moves", policy("enforce", "mx2.moves.example"))
    world.domain("stays", policy("enforce", "mx1.stays.example"), "wrong")
    world.start()
    world.send("moves")
    refused(world, "moves", "names none")
    world.send("stays")
    refused(world, "stays", "mismatch")
    # The same id: what is there is not looked at.
    world.nginx.publish("moves.example", policy("testing", "mx1.moves.example"))
    world.engine.reload()
    refused_again(world, "moves", "names none", "same")
    # Another one, of a policy that is none: the old one stays.
    world.nginx.publish("moves.example", "nonsense\n")
    world.names.put("_mta-sts.moves.example", TXT, txt_data("v=STSv1; id=2"))
    world.engine.reload()
    refused_again(world, "moves", "names none", "bad")
    world.wait_log("the policy known stays in force")
    world.nginx.publish("moves.example", policy("enforce", "mx1.moves.example"))
    world.engine.reload()
    world.send_now("moves", "wakes")
    world.wait_log("domain=moves.example mode=enforce id=2")
    world.send_now("moves", "new")
    delivered(world, "moves", "enforce", user="new")
    # Nothing of MTA-STS is to be had any more.
    world.engine.stop()
    world.nginx.stop()
    world.names.gone = ("_mta-sts.", "mta-sts.")
    world.engine.start()
    refused_again(world, "stays", "mismatch", "later")
    world.send("moves", "later")
    delivered(world, "moves", "enforce", user="later")
    assert not world.server("stays").taken
    world.engine.stop()
    for server in world.servers.values():
        server.close()


if __name__ == "__main__":
    run(globals())
