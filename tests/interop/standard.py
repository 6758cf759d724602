"""As on a real host, in a network of our own: port 25, the name servers of resolv.conf on port 53, and
exchangers with IPv4 and IPv6 addresses."""

import os
import pathlib
import subprocess
import sys
import unittest

import case
import mail
import peers
from engine import Engine
from proc import TempDir

SENDER = "sender@sender.example"
V4, V6, DEAD_V4, DEAD_V6 = "192.0.2.25", "2001:db8::25", "192.0.2.99", "2001:db8::99"
RESOLVER = "127.0.0.53"
RECORDS = f"""
six MX 10 mx6
mx6 AAAA {V6}
four MX 10 mx4
mx4 A {V4}
both MX 10 mxboth
mxboth A {V4}
mxboth AAAA {V6}
sixdead MX 10 mxsixdead
mxsixdead A {V4}
mxsixdead AAAA {DEAD_V6}
fourdead MX 10 mxfourdead
mxfourdead A {DEAD_V4}
mxfourdead AAAA {V6}
bare AAAA {V6}
"""
DOMAINS = {"six": [V6], "four": [V4], "both": [V4, V6], "sixdead": [V4], "fourdead": [V6], "bare": [V6]}
engine = None


def enter_network():
    """Runs this program again in a network and mount namespace of its own, then sets those up."""
    if not os.environ.get("HAYAUMA_OWN_NETWORK"):
        os.environ["HAYAUMA_OWN_NETWORK"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, *sys.argv])
    addresses = [("-4", V4, "32"), ("-4", DEAD_V4, "32"), ("-6", V6, "128"), ("-6", DEAD_V6, "128")]
    commands = [["ip", "link", "set", "lo", "up"]]
    commands += [["ip", family, "addr", "add", f"{address}/{bits}", "dev", "lo"]
                 for family, address, bits in addresses]
    resolv = TempDir("hayauma-resolv-").path / "resolv.conf"
    resolv.write_text(f"nameserver {RESOLVER}\noptions timeout:1\n")
    commands.append(["mount", "--bind", resolv, pathlib.Path("/etc/resolv.conf").resolve()])
    for command in commands:
        subprocess.run(command, check=True)


def setUpModule():
    global engine
    domains = [f"{d}.example" for d in DOMAINS]
    mailboxes = ", ".join(f"{{ taro@{d} = taro/ }}" for d in domains)
    settings = {"virtual_mailbox_domains": " ".join(domains), "inet_protocols": "all",
                "virtual_mailbox_maps": f"inline:{{ {mailboxes} }}"}
    for server in (peers.Postfix("four.example", V4, 25, settings=settings),
                   peers.Postfix("six.example", V6, 25, settings=settings)):
        unittest.addModuleCleanup(server.start().stop)
    knot = peers.Knot(RECORDS).start()
    unittest.addModuleCleanup(knot.stop)
    unittest.addModuleCleanup(peers.Unbound(knot, RESOLVER, 53).start().stop)
    engine = Engine({"dns": {"servers": [], "ipv6": True},
                     "destinations": {"*": {"retry": {"first": "1s", "max": "1s"}}}}).start()
    unittest.addModuleCleanup(engine.stop)


class Standard(unittest.TestCase):
    def test_addresses(self):
        for name, expected in DOMAINS.items():
            with self.subTest(domain=name):
                to = f"taro@{name}.example"
                case.submit(engine, SENDER, [to], mail.header(name, SENDER, to) + b"text\r\n")
                record = engine.wait_records("Delivery", recipient=to)[0]
                self.assertIn(record["peer_address"]["addr"], expected)
                self.assertEqual(record["num_attempts"], 1)


if __name__ == "__main__":
    if not peers.missing("postfix", "dns"):
        enter_network()
    case.run("postfix", "dns")
