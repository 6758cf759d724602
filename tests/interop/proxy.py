"""Mail out through real proxies: HAProxy as docs/examples/haproxy-egress.cfg has it, which connects from
the address that it is told, and microsocks with a login. Each is killed and started again."""

import pathlib
import sys
import unittest

import case
import peers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "egress"))

from egress import Receiver, inject, settings, source  # noqa: E402
from engine import TREE, Engine  # noqa: E402
from proc import can_connect, free_port, wait_until  # noqa: E402


class HaProxy(peers.Peer):
    tree = "haproxy"

    def configure(self):
        text = (TREE / "docs/examples/haproxy-egress.cfg").read_text()
        # The rule is about who connects, and not about whom the header names: else all would be refused.
        for old, new in (("0.0.0.0:2525", f"{self.host}:{self.port}"), ("10.0.0.0/8", "127.0.0.1/32"),
                         ("maxconn 20000", "maxconn 200")):
            assert old in text, old
            text = text.replace(old, new)
        self.write("haproxy.cfg", text)

    def argv(self):
        return ["/usr/sbin/haproxy", "-db", "-f", self.dir / "haproxy.cfg"]


class MicroSocks(peers.Peer):
    tree = "microsocks"
    bind = source(2)["ipv4"]

    def argv(self):
        return ["/usr/bin/microsocks", "-i", self.host, "-p", self.port, "-u", "shop", "-P", "secret", "-b",
                self.bind]


class Proxies(unittest.TestCase):
    def states(self, engine):
        return {s["name"]: s["state"] for s in engine.status()["sources"]}

    def sent(self, sink, engine, count, number):
        """count more arrive, all from that source."""
        before = len(sink.ledger())
        inject(engine, count, first=before)
        sink.wait_mails(before + count)
        self.assertEqual(dict(sink.shares(before)), {number: count})

    def check(self, proxy, number, settings_of):
        with Receiver() as sink:
            config = settings(sink, (), destinations={"*": {"retry": ["1s"]}}, routes={})
            config["sources"] = {"a": {**source(number), "proxy": settings_of}}
            with Engine(config) as engine:
                self.sent(sink, engine, 20, number)
                address = engine.wait_records("Delivery", 20)[0]["source_address"]
                self.assertEqual(address["server"], f"{proxy.host}:{proxy.port}")
                self.assertTrue(address["address"].startswith(source(number)["ipv4"]), address)
                self.killed(sink, engine, proxy, number)
                self.no_exchanger(engine, proxy)
                self.assertEqual(self.states(engine), {"a": "ok"})

    def killed(self, sink, engine, proxy, number):
        """Mail waits, and nothing is counted against anybody; then it goes."""
        wait_until("idle sessions", lambda: engine.status()["gauges"]["sessions_out"] > 0)
        proxy.process.kill()
        wait_until("the proxy to be gone", lambda: not can_connect((proxy.host, proxy.port)))
        wait_until("its sessions to end", lambda: engine.status()["gauges"]["sessions_out"] == 0)
        before = len(sink.ledger())
        inject(engine, 5, first=before)
        wait_until("a source without proxy", lambda: self.states(engine) == {"a": "proxy_down"})
        wait_until("the screens to name it", lambda: f"{proxy.host}:{proxy.port} is down" in
                   engine.command("queue", "list"))
        self.assertEqual(engine.records("TransientFailure"), [])
        proxy.start()
        sink.wait_mails(before + 5)
        self.assertEqual(dict(sink.shares(before)), {number: 5})
        wait_until("a source with a proxy", lambda: self.states(engine) == {"a": "ok"})

    def no_exchanger(self, engine, proxy):
        """Nobody listens where the proxy is to connect: the destination's failure, with the proxy's name."""
        engine.config["routes"] = {"nobody.example": f"[127.0.0.1]:{free_port()}"}
        engine.reload()
        inject(engine, 1, ["nobody.example"])
        record = engine.wait_records("TransientFailure", recipient="r0@nobody.example")[0]
        self.assertIn(f"{proxy.host}:{proxy.port}", record["response"]["content"])

    def test_haproxy(self):
        with HaProxy("proxy.example") as proxy:
            self.check(proxy, 1, {"haproxy": f"{proxy.host}:{proxy.port}"})

    def test_microsocks(self):
        with MicroSocks("proxy.example") as proxy:
            secret = proxy.write("secret", "secret\n", 0o600)
            self.check(proxy, 2, {"socks5": f"{proxy.host}:{proxy.port}", "user": "shop",
                                  "password_file": str(secret)})

    def test_wrong_password(self):
        with MicroSocks("proxy.example") as proxy:
            secret = proxy.write("secret", "guess\n", 0o600)
            sources = {"a": {"proxy": {"socks5": f"{proxy.host}:{proxy.port}", "user": "shop",
                                       "password_file": str(secret)}}}
            with Engine({"sources": sources}) as engine:
                wait_until("the login to fail", lambda: self.states(engine) == {"a": "proxy_down"})
                self.assertIn("it refuses the user or password", engine.command("source", "show", "a"))


if __name__ == "__main__":
    case.run("haproxy", "microsocks")
