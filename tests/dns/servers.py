#!/usr/bin/env python3
"""The resolver against Knot DNS directly and through Unbound: exchangers, chains, sizes, failures.

usage: servers.py DNS_LOOKUP"""

import os
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "interop"))
import peers  # noqa: E402
from lookup import Checks, Lookup  # noqa: E402

MANY = 300
EXAMPLE = f"""
order MX 30 c.order
order MX 10 a.order
order MX 20 b.order
a.order A 192.0.2.1
a.order AAAA 2001:db8::1
b.order A 192.0.2.2
c.order A 192.0.2.3
plain A 192.0.2.4
plain AAAA 2001:db8::4
null MX 0 .
null A 192.0.2.5
txt TXT "no mail here"
alias CNAME alias2
alias2 CNAME alias3
alias3 CNAME order
abroad CNAME order.other.test.
nowhere CNAME gone
loop1 CNAME loop2
loop2 CNAME loop1
mxalias MX 10 alias-host
alias-host CNAME plain
gonemx MX 10 gone
halfgone MX 10 gone
halfgone MX 20 b.order
deadmx MX 10 mail.dead.test.
deadmx MX 20 b.order
ipmx MX 10 192.0.2.9.
backup MX 10 a.order
backup MX 20 our-host
backup MX 30 b.order
our-host A 192.0.2.6
xn--r8jz45g MX 10 plain
short 2 A 192.0.2.7
manya A 192.0.2.10
""" + "".join(f"many MX {10 + i // 100} mx{i}.many\nmx{i}.many A 192.0.2.{i % 250}\n"
              for i in range(1, MANY)) + "".join(
                  f"manya A 192.0.3.{i}\nmanya AAAA 2001:db8::{i}\n" for i in range(1, 100))
OTHER = """
order MX 10 mx
mx A 198.51.100.1
"""

# name, kind, status, hosts, site, part of the error
ROWS = [
    ("order.example", "domain", "ok", "a.order.example b.order.example c.order.example",
     "(a|b|c).order.example", ""),
    ("plain.example", "domain", "ok", "plain.example", "plain.example", ""),
    ("plain.example", "host", "ok", "plain.example", "plain.example", ""),
    ("order.example", "host", "no_host", "", "order.example", "no address"),
    ("null.example", "domain", "null_mx", "", "null.example", "null MX"),
    ("txt.example", "domain", "no_host", "", "txt.example", "no address"),
    ("gone.example", "domain", "no_domain", "", "gone.example", "no such domain"),
    ("alias.example", "domain", "ok", "a.order.example b.order.example c.order.example",
     "(a|b|c).order.example", ""),
    ("nowhere.example", "domain", "no_domain", "", "nowhere.example", "no such domain"),
    ("mxalias.example", "domain", "ok", "alias-host.example", "alias-host.example", ""),
    ("gonemx.example", "domain", "no_host", "", "gonemx.example", "gone.example"),
    ("halfgone.example", "domain", "ok", "b.order.example", "(gone|b.order).example", ""),
    ("ipmx.example", "domain", "no_host", "", "ipmx.example", "no MX record names a host"),
    ("backup.example", "domain", "ok", "a.order.example", "a.order.example", ""),
    ("例え.example", "domain", "ok", "plain.example", "plain.example", ""),
    ("ORDER.Example.", "domain", "ok", "a.order.example b.order.example c.order.example",
     "(a|b|c).order.example", ""),
]
# What needs a resolver: other zones, broken ones.
RESOLVER_ROWS = [
    ("abroad.example", "domain", "ok", "mx.other.test", "mx.other.test", ""),
    ("order.other.test", "domain", "ok", "mx.other.test", "mx.other.test", ""),
    ("loop1.example", "domain", "temporary", "", "loop1.example", "SERVFAIL"),
    ("dead.test", "domain", "temporary", "", "dead.test", "SERVFAIL"),
    ("bogus.test", "domain", "temporary", "", "bogus.test", "SERVFAIL"),
    ("deadmx.example", "domain", "ok", "mail.dead.test b.order.example",
     "(mail.dead.test|b.order.example)", ""),
]


class Zones(peers.Knot):
    """The zone example. and others by name."""

    def __init__(self, zones):
        super().__init__(zones["example"])
        self.zones = zones

    def configure(self):
        super().configure()
        config = (self.dir / "knot.conf").read_text()
        for name, records in self.zones.items():
            if name == "example":
                continue
            self.write(f"{name}.zone", f"$ORIGIN {name}.\n$TTL 60\n@ SOA ns root 1 60 60 60 5\n"
                       f"@ NS ns\nns A {self.host}\n{records}\n")
            config += f"  - domain: {name}.\n    file: {self.dir}/{name}.zone\n"
        self.write("knot.conf", config)


class Resolver(peers.Unbound):
    """Also knows other.test, and two zones that cannot be resolved: the server of dead.test refuses
    it, and the signature that bogus.test must have is missing."""

    def configure(self):
        super().configure()
        config = (self.dir / "unbound.conf").read_text().replace(
            'module-config: "iterator"',
            'module-config: "validator iterator"\n  local-zone: "test." nodefault\n'
            '  trust-anchor: "bogus.test. DS 12345 8 2 ' + "ab" * 32 + '"')
        for zone in ("other.test", "bogus.test", "dead.test"):
            config += (f"stub-zone:\n  name: {zone}\n"
                       f"  stub-addr: {self.server.host}@{self.server.port}\n")
        self.write("unbound.conf", config)


def check_row(checks, lookup, row, server):
    name, kind, status, hosts, site, error = row
    answer = lookup.ask(name, kind)
    what = f"{kind} {name} from {server}"
    checks.equal(f"{what}: status", answer["status"], status)
    checks.equal(f"{what}: hosts", " ".join(h[1] for h in answer["hosts"]), hosts)
    checks.equal(f"{what}: site", answer["site"], site)
    checks.true(f"{what}: error {answer['error']!r} has {error!r}", error in answer["error"])


def check_many(checks, lookup, server):
    answer = lookup.ask("many.example")
    checks.equal(f"many from {server}: status", answer["status"], "ok")
    checks.equal(f"many from {server}: hosts", len(answer["hosts"]), 32)
    checks.equal(f"many from {server}: preferences", {h[0] for h in answer["hosts"]}, {10})
    checks.true(f"many from {server}: site {answer['site']!r}",
                len(answer["site"]) <= 200 and answer["site"].endswith(").many.example"))
    answer = lookup.ask("manya.example", "host")
    checks.equal(f"manya from {server}", len(answer["addresses"]), 32)


def check_ttl(checks, program, server):
    with Lookup(program, [server], "-m", "1") as lookup:
        for name, life_ms in (("short.example", 2000), ("gone.example", 5000)):
            answer = lookup.ask(name, "host")
            checks.true(f"TTL of {name}: {answer['ttl_ms']}", 0 < answer["ttl_ms"] <= life_ms)
        # Anew, since on a loaded machine more than its two seconds may have passed.
        for _ in range(20):
            began = time.monotonic()
            lookup.ask("short.example", "host")
            asked = lookup.counters()["upstream"]
            lookup.ask("short.example", "host")
            if time.monotonic() - began < 1:
                break
        checks.equal("fresh: questions", lookup.counters()["upstream"], asked)
        lookup.send("sleep 2100")
        lookup.ask("short.example", "host")
        checks.equal("expired: questions", lookup.counters()["upstream"], asked + 2)


def check_burst(checks, program, server):
    """Hundreds at once through few slots, all answered; names share what they share."""
    names = [f"n{i}.example" for i in range(600)] + ["order.example"] * 50
    with Lookup(program, [server], "-f", "64", "-t", "20000") as lookup:
        answers = lookup.ask_all(names)
        checks.equal("burst: answers", len(answers), 601)
        checks.equal("burst: statuses",
                     {(a["status"], a["status"] == "temporary" and a["error"]) for a in answers.values()},
                     {("no_domain", False), ("ok", False)})
        counters = lookup.counters()
        checks.equal("burst: questions", counters["upstream"], 600 + 1 + 6)
        checks.equal("burst: failures", counters["failures"], 0)


def main():
    program = sys.argv[1]
    why = peers.missing("dns")
    if why:
        print(why)
        sys.exit(1 if os.environ.get("HAYAUMA_REQUIRE_PEERS") else 77)
    checks = Checks()
    zones = {"example": EXAMPLE, "other.test": OTHER, "bogus.test": "@ MX 10 mx\nmx A 192.0.2.1"}
    with Zones(zones) as knot, Resolver(knot) as unbound:
        servers = {"knot": f"127.0.0.1:{knot.port}", "unbound": f"127.0.0.1:{unbound.port}"}
        for server, address in servers.items():
            with Lookup(program, [address], "-o", "Our-Host.example") as lookup:
                for row in ROWS + (RESOLVER_ROWS if server == "unbound" else []):
                    check_row(checks, lookup, row, server)
                check_many(checks, lookup, server)
            check_ttl(checks, program, address)
            check_burst(checks, program, address)
    checks.exit()


main()
