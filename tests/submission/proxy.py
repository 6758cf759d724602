#!/usr/bin/env python3
"""Connections through a balancer (PROXY protocol), by hand: whose header is believed, and what of it.
tests/interop/balancer.py has a real one.

proxy.py [TEST...]"""

import os
import pathlib
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "faults"))
from faults import (Client, Engine, Sink, TempDir, run, settings_for,  # noqa: E402
                    wait_empty, wait_until)
from authority import Authority, careless  # noqa: E402
from talk import wait_no_sessions  # noqa: E402

BALANCER = "127.0.0.3"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
INSIDE = "10.1.2.3"  # in relay_networks


def v1(client=INSIDE, family="TCP4"):
    return f"PROXY {family} {client} 198.51.100.7 4711 25\r\n".encode()


def v2(client=INSIDE, command=0x21, extra=b""):
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    ends = socket.inet_pton(family, client) * 2 + struct.pack(">HH", 4711, 25) + extra
    return SIGNATURE + bytes([command, 0x21 if ":" in client else 0x11]) + struct.pack(
        ">H", len(ends)) + ends


class Behind:
    """An engine that takes connections of BALANCER, and whose relay_networks has INSIDE and, for
    nothing, the balancer itself and everybody on loopback."""

    def __init__(self, listener=None):
        temp = TempDir("hayauma-proxy-")
        self.sink = Sink(directory=temp.path / "sink").start()
        self.engine = Engine(settings_for(self.sink), directory=temp.path / "engine")
        self.engine.config["listeners"][0].update({
            "proxy_from": [BALANCER], "relay_networks": ["10.1.0.0/16", "127.0.0.0/8", "2001:db8::/32"],
            **(listener or {})})
        if listener and "tls" in listener:
            chain, key = Authority(temp.path / "authority").self_signed("mta.sender.example")
            self.engine.config["certificates"] = [{"chain": str(chain), "key": str(key)}]

    def __enter__(self):
        self.engine.start()
        return self

    def __exit__(self, *_):
        self.engine.stop()
        self.sink.stop()

    def connect(self, header=b"", source=BALANCER):
        client = Client(self.engine, hello=None, source=source)
        client.send(header)
        return client

    def relay(self, header):
        """The reply to a recipient, over a connection that begins so."""
        with self.connect(header) as client:
            client.expect(client.reply(), 220)
            client.expect(client.command("EHLO c.example"), 250)
            client.expect(client.command("MAIL FROM:<a@b.example>"), 250)
            return client.command("RCPT TO:<u@d1.example>")


def test_addresses():
    """The header's client is the session's: for relay_networks, the record and Received."""
    count = 0
    with Behind() as b:
        for header, wanted in ((v1(), INSIDE), (v2(), INSIDE), (v1("2001:db8::1", "TCP6"), "2001:db8::1"),
                               (v2("2001:db8::1"), "2001:db8::1"), (v2("::ffff:" + INSIDE), INSIDE)):
            if "TCP6" in header.decode("latin-1"):
                header = header.replace(b"198.51.100.7", b"2001:db8::7")
            with b.connect(header) as client:
                client.expect(client.reply(), 220)
                client.expect(client.command("EHLO c.example"), 250)
                client.expect(client.message("u@d1.example"), 250)
            count += 1
            record = b.engine.wait_records("Reception", count)[-1]
            assert record["peer_address"]["addr"] == wanted, (header, record)
        for header in (v1("10.2.0.1"), v2("10.2.0.1"), v2("192.0.2.1"), v2("2001:db9::1")):
            assert b.relay(header).startswith("550 5.7.1"), header
        # In pieces, and with the client's first bytes behind it in the same packet.
        with b.connect() as client:
            for piece in (v2()[:7], v2()[7:20], v2()[20:] + b"EHLO c.example\r\n"):
                client.send(piece)
                time.sleep(0.02)
            client.expect(client.reply(), 220)
            client.expect(client.reply(), 250)
        wait_empty(b.engine)
        assert len(b.sink.ledger()) == 5
        b.engine.config["routes"] = {"held.example": "[127.0.0.1]:1"}
        b.engine.reload()
        with b.connect(v2()) as client:
            client.expect(client.reply(), 220)
            client.expect(client.command("EHLO c.example"), 250)
            client.expect(client.message("u@held.example"), 250)
        shown = wait_until("it to be queued", lambda: b.engine.rows("queue", "list"))[0]
        assert f"Received: from c.example ([{INSIDE}])" in b.engine.command("queue", "show", shown["id"]), shown


def test_nobodys():
    """What the balancer does not know the client of may not relay: not as the balancer, whose own
    address is in relay_networks."""
    with Behind() as b:
        for header in (b"PROXY UNKNOWN\r\n", v2(command=0x20),
                       SIGNATURE + b"\x20\x00\x00\x00", SIGNATURE + b"\x21\x00\x00\x00"):
            assert b.relay(header).startswith("550 5.7.1"), header


def test_others():
    """Past the balancer nobody gets in, with a header or without; loopback neither."""
    with Behind() as b:
        for source in ("127.0.0.1", "127.0.0.4"):
            for header in (b"", v1(), v2()):
                with b.connect(header, source=source) as client:
                    assert client.reply().startswith("421 4.7.0")
                    assert client.ended()


def test_wrong_headers():
    """A balancer's connection without a good header ends without a word."""
    with Behind() as b:
        for header in (b"EHLO c.example\r\n", b"PROXY TCP4 10.1.2.3 x 1 2\r\n", b"PROXY TCP4 " + b"1" * 200,
                       SIGNATURE + b"\x31\x11\0\x0c" + bytes(12), SIGNATURE + b"\x21\x11\xff\xff",
                       b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + bytes(100)):
            with b.connect(header) as client:
                assert client.reply() == "", header
        # A line of each worker.
        assert 0 < b.engine.log().count("smtp.proxy_header_wrong") <= os.cpu_count()
        # A second header is no header, but a client's line.
        with b.connect(v2()) as client:
            client.expect(client.reply(), 220)
            client.send(v1("10.1.9.9"))
            assert client.reply().startswith("500 ")
        # A check that only connects, and one that goes in the middle.
        b.connect().close()
        b.connect(v2()[:10]).close()
        b.connect(v2()[:10]).reset()
        assert not b.engine.records("Rejection") or all(
            r["response"]["code"] in (421, 500) for r in b.engine.records("Rejection"))


def test_late_headers():
    """A balancer has five seconds; that one sends none at all is said, for it waits for our greeting."""
    with Behind() as b:
        began = time.monotonic()
        with b.connect() as silent, b.connect(v2()[:10]) as partial:
            for client in (silent, partial):
                assert client.ended(timeout_s=30) and time.monotonic() - began > 3
        assert 'error="there was no header within 5 s"' in b.engine.log()


def test_limits():
    """sessions_per_client_max counts the clients behind the balancer, each by itself."""
    with Behind({"sessions_per_client_max": 2}) as b:
        clients = [b.connect(v2(f"10.1.0.{i // 2}")) for i in range(10)]
        for client in clients:
            client.expect(client.reply(), 220)
        with b.connect(v2("10.1.0.0")) as client:
            assert client.reply().startswith("421 4.7.0 too many sessions from your address")
        for client in clients:
            client.close()


def test_tls_behind():
    """A connection that begins with TLS, of which the first bytes come in one packet with the header."""
    with Behind({"tls": "implicit"}) as b:
        with b.connect() as client:
            client.announce(v2(), together=True)
            client.encrypt(careless())
            client.expect(client.reply(), 220)


def test_xclient():
    """Who is listed in xclient_from says whose commands follow, once: the session is that client's, for
    networks, limits and records, and is no proxy's any more. Without proxy_from a header is no command,
    whoever sends it."""
    inside, outside = "XCLIENT ADDR=10.1.2.3 PORT=4711", "XCLIENT ADDR=10.2.0.1"
    with Behind({"proxy_from": [], "xclient_from": [BALANCER], "sessions_per_client_max": 2}) as b:
        with b.connect(v1()) as client:
            client.expect(client.reply(), 220)
            assert client.reply().startswith("500 ")

        def proxied(command, hello="EHLO c.example", code=220):
            for _ in range(100):  # the session before may not have been missed yet
                client = b.connect()
                first = client.reply()
                if not first.startswith("421"):
                    break
                client.close()
                time.sleep(0.1)
            client.expect(first, 220)
            client.command(hello)
            client.expect(client.command(command), code)
            return client

        # Not of others, who hear nothing of it either.
        with b.connect(source="127.0.0.1") as client:
            client.expect(client.reply(), 220)
            assert "XCLIENT" not in client.command("EHLO c.example")
            client.expect(client.command(inside), 502)
        with proxied(inside) as client:
            client.expect(client.command("EHLO c.example"), 250)
            client.expect(client.message("u@d1.example"), 250)
            # The client that was named is no proxy.
            client.expect(client.command("XCLIENT ADDR=10.1.9.9"), 502)
        record = b.engine.wait_records("Reception")[0]
        assert record["peer_address"]["addr"] == INSIDE, record
        # Strangers, in IPv6 clothes too, and whom the proxy does not know.
        for named in (outside, "XCLIENT ADDR=IPV6:2001:db9::1", "XCLIENT ADDR=IPV6:::ffff:10.2.0.1",
                      "XCLIENT ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL]"):
            with proxied(named) as client:
                client.expect(client.command("EHLO c.example"), 250)
                client.expect(client.command("MAIL FROM:<a@b.example>"), 250)
                assert client.command("RCPT TO:<u@d1.example>").startswith("550 5.7.1"), named
        for wrong in ("XCLIENT ADDR=10.1.2.3.4", "XCLIENT ADDR=mta.example", "XCLIENT ADDR=10.1.2.3 PORT=x",
                      "XCLIENT ADDR=10.1.2.3+00", "XCLIENT LOGIN=shop"):
            proxied(wrong, code=501).close()
        # Sessions are counted as those of the client that is named, and go with it.
        wait_no_sessions(b.engine, 30)
        clients = [proxied(f"XCLIENT ADDR=10.1.0.{i // 2}") for i in range(6)]
        with proxied("XCLIENT ADDR=10.1.0.0", code=421) as client:
            assert client.ended()
        for client in clients:
            client.close()
        wait_no_sessions(b.engine, 30)
        proxied("XCLIENT ADDR=10.1.0.0").close()


if __name__ == "__main__":
    run(globals())
