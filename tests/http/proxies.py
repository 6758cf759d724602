#!/usr/bin/env python3
"""The HTTP API behind nginx and HAProxy, which keep their connections to it: what two readers of one request could
take for two is never mail that nobody asked for.

proxies.py [TEST...]"""

import contextlib
import json
import pathlib
import socket
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / name) for name in ("lib", "interop", "hostile", "http")]

import peers  # noqa: E402
from http_api import LETTER, Api  # noqa: E402
from talk import Skip, check, run  # noqa: E402


class HaProxy(peers.Peer):
    tree = "haproxy"
    accounts = ""

    def __init__(self, engine):
        super().__init__("", "127.0.0.1")
        self.web = engine.web

    def configure(self):
        self.write("haproxy.cfg", f"""
defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
frontend in
  bind 127.0.0.1:{self.port}
  default_backend engine
backend engine
  http-reuse always
  server one 127.0.0.1:{self.web}
""")

    def argv(self):
        return ["/usr/sbin/haproxy", "-db", "-f", self.dir / "haproxy.cfg"]


class Nginx(peers.Nginx):
    def __init__(self, engine):
        super().__init__("", "127.0.0.1")
        self.web = engine.web

    def http(self):
        return f"""
  upstream engine {{ server 127.0.0.1:{self.web}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{self.port};
    client_max_body_size 50m;
    location / {{ proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
                  proxy_request_buffering off; }}
  }}"""


def letter(name):
    return json.dumps({**LETTER, "recipients": [{"email": f"{name}@x.example"}]}).encode()


def request(body, *fields, close=True):
    lines = ["POST /api/inject/v1 HTTP/1.1", "Host: x", "Content-Type: application/json", *fields,
             *(["Connection: close"] if close else [])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunks(body):
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def hidden(name):
    """A request that stands where another one's body does."""
    return request(letter(name), f"Content-Length: {len(letter(name))}", close=False)


def conflicting():
    """Requests that say their length twice: two readers could each take another one. None may bring mail to hidden@."""
    inner = hidden("hidden")
    for coding in ("Transfer-Encoding: chunked", "Transfer-Encoding : chunked", "Transfer-Encoding: xchunked",
                   "Transfer-Encoding:\x0bchunked", "Transfer-Encoding: chunked, identity", "X: y\nTransfer-Encoding: chunked",
                   "transfer-encoding: CHUNKED", "Transfer-Encoding:\r\n chunked"):
        both = b"0\r\n\r\n" + inner
        yield request(both, f"Content-Length: {len(both)}", coding)
        yield request(both, coding, f"Content-Length: {len(both)}", "Transfer-Encoding: identity")
        yield request(chunks(inner), "Content-Length: 4", coding)
        yield request(chunks(inner), "Content-Length: 0", coding).replace(b"POST /api/inject/v1", b"GET /health/live", 1)
        yield request(chunks(inner), coding, "Content-Length: 0").replace(b"/api/inject/v1", b"/nothing", 1)
    for get in ("GET /health/live", "POST /nothing"):  # of which the engine reads no body
        yield request(inner, "Content-Length: 0", f"Content-Length : {len(inner)}").replace(b"POST /api/inject/v1", get.encode(), 1)
    for first, second in ((0, len(inner)), (len(inner), 0), (len(inner), 4)):
        yield request(inner, f"Content-Length: {first}", f"Content-Length: {second}")


def odd():
    """Lengths that some read."""
    inner = hidden("hidden")
    yield request(inner, f"Content-Length: +{len(inner)}")
    yield request(inner, f"Content-Length: 0, {len(inner)}")
    yield request(inner, f"Content-Length: {len(inner)} 0")
    for size in (b"0x0", b"-0", b"0;x=\n", b"00000000000000000", b"0 "):
        yield request(size + b"\r\n\r\n" + inner, "Transfer-Encoding: chunked")
    yield request(b"1\r\nZZ\r\n0\r\n\r\n" + inner, "Transfer-Encoding: chunked")


def talk(port, data, wait_s=20):
    """What comes back until the connection ends, or nothing does for so long."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), 15) as s, contextlib.suppress(OSError):
        s.settimeout(wait_s)
        s.sendall(data)
        while part := s.recv(65536):
            got += part
    return got


def behind(kind):
    reason = peers.missing(kind.tree)
    if reason:
        raise Skip(reason)
    with Api(more={"routes": {}}, idle_timeout="1s") as engine, kind(engine) as proxy:
        for n, data in enumerate((request(letter("plain"), f"Content-Length: {len(letter('plain'))}"),
                                  request(chunks(letter("chunked")), "Transfer-Encoding: chunked"))):
            check(f"good {n}", talk(proxy.port, data).split(b" ")[1], b"200")
        for data in [*conflicting(), *odd()]:
            talk(proxy.port, data, 0.1)  # some wait for more
            # What is left on the proxy's connection would be in front of this one, or its answer of another.
            check(f"behind {data[:200]}", talk(proxy.port, b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                  .endswith(b"live\n"), True)
        # Some of what is odd is one good request to all, whose body is no JSON: refused, too.
        check("mail", sorted({r["recipient"] for r in engine.rows("queue", "list")}),
              ["chunked@x.example", "plain@x.example"])


def test_directly():
    """As a proxy would pass it on that lets everything through."""
    with Api(more={"routes": {}}, idle_timeout="1s") as engine:
        for data in conflicting():
            talk(engine.web, data.replace(b"Connection: close\r\n", b""), 0.1)
        check("mail", engine.rows("queue", "list"), [])


def test_haproxy():
    """Behind HAProxy."""
    behind(HaProxy)


def test_nginx():
    """Behind nginx, which passes bodies on as they come."""
    behind(Nginx)


if __name__ == "__main__":
    run(globals())
