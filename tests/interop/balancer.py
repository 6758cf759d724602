"""HAProxy in front of two engines, as docs/examples/haproxy.cfg has it: the client's address arrives
everywhere, by both versions of the PROXY protocol; checks leave no noise; a node can be taken out."""

import concurrent.futures
import smtplib
import socket
import unittest

import case
import peers
from authority import Authority, careless
from engine import TREE, Engine, Sink
from proc import wait_until

CLIENT, OTHER, LATER = "127.0.0.5", "127.0.0.6", "127.0.0.7"
TEXT = "From: <a@b.example>\r\nSubject: x\r\n\r\nhello\r\n"


class HaProxy(peers.Peer):
    tree = "haproxy"
    accounts = ""

    def __init__(self, nodes, version):
        super().__init__("", "127.0.0.1")
        self.nodes, self.version = nodes, version

    def configure(self):
        text = (TREE / "docs/examples/haproxy.cfg").read_text()
        for old, new in (("0.0.0.0:25", f"127.0.0.1:{self.port}"), ("inter 2s", "inter 100ms"),
                         ("maxconn 20000", "maxconn 1000"),
                         ("10.0.0.11:25", f"127.0.0.1:{self.nodes[0].port}"),
                         ("10.0.0.12:25", f"127.0.0.1:{self.nodes[1].port}"),
                         ("/run/haproxy/admin.sock", f"{self.dir}/admin.sock"),
                         ("send-proxy-v2\n", f"{self.version}\n")):
            assert old in text, old
            text = text.replace(old, new)
        self.write("haproxy.cfg", text)

    def argv(self):
        return ["/usr/sbin/haproxy", "-db", "-f", self.dir / "haproxy.cfg"]

    def ask(self, command):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(self.dir / "admin.sock"))
            s.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: s.recv(65536), b"")).decode()

    def servers(self):
        """status and sessions of each node."""
        rows = [row.split(",") for row in self.ask("show stat").splitlines()]
        return {row[1]: (row[17], int(row[4])) for row in rows if row[0] == "nodes"}

    def wait_up(self):
        wait_until("the balancer's socket", (self.dir / "admin.sock").exists, process=self.process)
        wait_until("both nodes up", lambda: all(
            self.servers()[n][0] == "UP" and self.checked(n) for n in ("node1", "node2")),
            process=self.process)

    def checked(self, node):
        rows = [row.split(",") for row in self.ask("show stat").splitlines()]
        return any(row[1] == node and row[36] == "L7OK" for row in rows if row[0] == "nodes")


class Balancer(unittest.TestCase):
    def nodes(self, sink):
        nodes = []
        chain, key = Authority(sink.dir / "authority").self_signed("mta.sender.example")
        for _ in range(2):
            engine = Engine({"dns": sink.dns(), "certificates": [{"chain": str(chain), "key": str(key)}]})
            engine.config["listeners"][0].update(
                {"proxy_from": ["127.0.0.1"], "relay_networks": [CLIENT, LATER]})
            nodes.append(engine)
        return nodes

    def send(self, proxy, source, tls=False):
        """tls: STARTTLS, which passes through the balancer as it is."""
        with smtplib.SMTP(proxy.host, proxy.port, "client.example", timeout=30,
                          source_address=(source, 0)) as smtp:
            if tls:
                smtp.starttls(context=careless())
            smtp.sendmail("a@b.example", ["u@d1.example"], TEXT)

    def check(self, version):
        with Sink() as sink:
            nodes = self.nodes(sink)
            for node in nodes:
                node.start()
            try:
                with HaProxy(nodes, version) as proxy:
                    proxy.wait_up()
                    for i in range(4):
                        self.send(proxy, CLIENT, tls=i < 2)
                    with self.assertRaises(smtplib.SMTPRecipientsRefused) as refused:
                        self.send(proxy, OTHER)
                    self.assertEqual(refused.exception.recipients["u@d1.example"][0], 550)
                    def received():
                        return [r for n in nodes for r in n.records("Reception")]

                    wait_until("the records", lambda: len(received()) >= 4)
                    records = received()
                    self.assertEqual(len(records), 4)
                    self.assertEqual({r["peer_address"]["addr"] for r in records}, {CLIENT})
                    self.assertEqual(sorted(r["reception_protocol"] for r in records),
                                     ["ESMTP", "ESMTP", "ESMTPS", "ESMTPS"])
                    rejected = wait_until("the refusal's record", lambda: [
                        r for n in nodes for r in n.records("Rejection")])
                    # Of all the checks there is none.
                    self.assertEqual([r["peer_address"]["addr"] for r in rejected], [OTHER], rejected)
                    for node in nodes:
                        log = node.log()
                        self.assertNotRegex(log, r" (warn|error) ")
                        self.assertGreater(node.status()["counters"]["sessions_in_total"], 2)
                    self.take_out(proxy, nodes)
            finally:
                for node in nodes:
                    node.stop()

    def take_out(self, proxy, nodes):
        """While clients send: node1 is drained at the balancer, then stopped. Nobody sees an error."""
        proxy.ask("set server nodes/node1 state drain")
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            sent = [pool.submit(self.send, proxy, LATER) for _ in range(40)]
            wait_until("no session at node1", lambda: proxy.servers()["node1"][1] == 0)
            self.assertEqual(nodes[0].process.stop(), 0)
            nodes[0].process = None
            sent += [pool.submit(self.send, proxy, LATER) for _ in range(20)]
            for one in sent:
                one.result()
        def later():
            return sum(r["peer_address"]["addr"] == LATER for r in nodes[1].records("Reception"))

        wait_until("their records", lambda: later() >= 60)
        self.assertEqual(later(), 60)

    def test_version_1(self):
        self.check("send-proxy")

    def test_version_2(self):
        self.check("send-proxy-v2")


if __name__ == "__main__":
    case.run("haproxy")
