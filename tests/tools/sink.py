#!/usr/bin/env python3
"""hayauma sink: behaviours, ledger, limits, and its DNS."""

import json
import os
import pathlib
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import time

from cases import (Process, Session, Sink, Skip, TempDir, free_port, program, resident_bytes, run, tool,
                   wait_port, wait_until)
from authority import Authority  # behind cases, which knows where it is

BEHAVIOUR = """
seed: 7
default:
  latency: {rcpt: 0s}
classes:
  - name: slow
    domains: ["*.slow.example", slow.example]
    latency: {rcpt: 200ms, dot: "uniform 100ms 200ms", data: "exp 1ms"}
  - name: defer
    domains: [defer.example]
    defer: [{rate: 100%, at: rcpt, reply: "452 4.2.2 later"}]
  - name: defer-dot
    domains: [dot.example]
    defer: {at: dot}
  - name: refuse
    domains: [refuse.example]
    refuse: {at: data, reply: "554 5.7.1 no"}
    dead_exchanger: no
  - name: unknown
    domains: [unknown.example]
    unknown_users: 50%
  - name: full
    domains: [full.example]
    mailbox_full: 1
  - name: grey
    domains: [grey.example]
    greylist: 500ms
  - name: reset
    domains: [reset.example]
    drop: {at: dot, how: rst}
  - name: kept
    domains: [kept.example]
    drop: {at: kept, how: fin}
  - name: body
    domains: [body.example]
    drop: {at: body}
  - name: limited
    domains: [limited.example]
    address: 127.0.0.3
    connections_max: 2
    messages_per_session: 2
    without: [pipelining, chunking, 8bitmime]
    size_max: 2k
    latency: {banner: 300ms}
  - name: old
    domains: [old.example]
    address: 127.0.0.4
    without: ehlo
    bytes_per_second: 2000
  - name: shared
    domains: ["shared*.example"]
    exchanger: big.example
    exchangers: 3
    dead_exchanger: true
    address: [127.0.0.5, 127.0.0.6]
    ttl: 77s
  - {name: null, domains: [null.example], dns: nullmx}
  - {name: gone, domains: [gone.example], dns: nxdomain}
  - {name: broken, domains: [broken.example], dns: servfail}
  - {name: silent, domains: [silent.example], dns: timeout}
  - {name: implicit, domains: [implicit.example], dns: implicit}
  - {name: many, domains: [many.example], exchangers: 400}
"""


def with_behaviour(text=BEHAVIOUR, arguments=()):
    sink = Sink(arguments=["--json", *arguments])
    path = sink.dir / "behaviour.yaml"
    path.write_text(text)
    sink.behaviour = path
    return sink


def summary(sink):
    """Ends the sink and returns what it says at its end."""
    process = sink.process
    assert process.stop() == 0
    sink.process = None
    return json.loads(process.log.read_text().splitlines()[-1])


def test_accepts_and_notes():
    with Sink() as sink, Session(sink) as s:
        head = ("Return-Path: <>\r\nReceived: from here\r\n by there\r\nReceived: again\r\n"
                "Message-ID: <1@x>\r\n"
                "X-Seq: 42\r\nSubject: a b\r\n\r\n")
        assert s.mail("u%v@d.example", body=head + "Hello\r\n") == "250 2.0.0 OK"
        assert sink.ledger()[-1][3] == "u%25v@d.example"
        assert s.mail("u@d.example", body=head + "..Hello\r\n") == "250 2.0.0 OK"
        row = sink.ledger()[-1]
        assert row[2:4] == ["s@source.example", "u@d.example"], row
        kept = head[head.index("Message-ID"):] + ".Hello\r\n"
        assert row[4] == str(len(kept)) and row[6:] == ["<1@x>", "42"], row
        # The same content by BDAT in pieces has the same sum.
        wire = (head + ".Hello\r\n").encode()
        s.command("MAIL FROM:<>")
        s.command("RCPT TO:<u@d.example>")
        for piece, last in ((wire[:13], ""), (wire[13:60], ""), (wire[60:], " LAST")):
            s.socket.sendall(b"BDAT %d%s\r\n" % (len(piece), last.encode()) + piece)
            assert s.reply()[:3] == "250"
        again = sink.ledger()[-1]
        assert again[2] == "-" and again[4:6] == row[4:6], (row, again)


def test_starttls():
    """With a certificate it offers STARTTLS; mail goes on behind it, resumed too, and what comes in front
    of the handshake ends the session."""
    temp = TempDir()
    authority = Authority(temp.path)
    chain, key = authority.certificate("sink.example")
    context = ssl.create_default_context(cafile=authority.ca)
    for arguments in (["--tls-certificate", chain], ["--tls-certificate", chain, "--tls-key", authority.ca]):
        tool("sink", *arguments, status=2)
    with Sink(arguments=["--tls-certificate", chain, "--tls-key", key]) as sink:
        session = None
        for n in range(1, 4):
            with Session(sink) as s:
                assert "STARTTLS" in s.hello, s.hello
                assert s.command("STARTTLS")[:3] == "220"
                s.socket = context.wrap_socket(s.socket, server_hostname="sink.example", session=session)
                s.file = s.socket.makefile("rb")
                assert "STARTTLS" not in s.command("EHLO me.example")
                assert s.mail("u@d.example", body="x\r\n" + "y" * 900 * n + "\r\n")[:3] == "250"
                assert s.socket.session_reused == (n > 1)
                session = s.socket.session
                assert len(sink.ledger()) == n
                s.socket.unwrap()
        with Session(sink) as s:
            s.socket.sendall(b"STARTTLS\r\nMAIL FROM:<a@b.example>\r\n")
            try:
                assert "503" not in s.reply() and not s.reply().startswith("250")
            except ConnectionError:
                pass
        with Session(sink) as s:
            assert s.command("STARTTLS")[:3] == "220"
            s.socket.sendall(b"MAIL FROM:<a@b.example>\r\n" * 10)
            try:
                while s.file.read(4096):
                    pass
            except ConnectionError:
                pass
        with Session(sink) as s:
            assert s.mail("u@d.example")[:3] == "250"


def test_port_465():
    """Connections begin with TLS; without resuming each handshake is a full one."""
    if os.geteuid() != 0:
        raise Skip("port 465 is for root")
    temp = TempDir()
    authority = Authority(temp.path)
    chain, key = authority.certificate("sink.example")
    context = ssl.create_default_context(cafile=authority.ca)
    for more, reused in ((), True), (("--tls-no-resuming",), False):
        sink = Sink(arguments=["--tls-certificate", chain, "--tls-key", key, *more], host="127.0.47.1")
        sink.port, session = 465, None
        with sink:
            for n in range(3):
                with socket.create_connection((sink.host, 465), timeout=10) as plain, context.wrap_socket(
                        plain, server_hostname="sink.example", session=session) as s:
                    file = s.makefile("rb")
                    assert file.readline()[:3] == b"220"
                    s.sendall(b"EHLO me.example\r\nQUIT\r\n")
                    text = file.read()
                    assert b"\r\n221" in text and b"STARTTLS" not in text, text
                    assert s.session_reused == (reused and n > 0), (more, n)
                    session = s.session
            with socket.create_connection((sink.host, 465), timeout=10) as plain:
                plain.sendall(b"EHLO me.example\r\n")  # no TLS
                try:
                    assert b"220" not in plain.recv(4096)
                except ConnectionError:
                    pass


def test_ledger_line_is_there_before_the_reply():
    with Sink() as sink, Session(sink) as s:
        for n in range(1, 200):
            assert s.mail("u@d.example")[:3] == "250"
            assert len(sink.ledger()) == n


def test_delays():
    with with_behaviour() as sink, Session(sink) as s, Session(sink) as other:
        start = time.monotonic()
        s.socket.sendall(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<u@a.slow.example>\r\nDATA\r\n")
        assert s.reply()[:3] == "250"
        assert other.mail("u@fast.example")[:3] == "250"  # nobody else waits
        assert time.monotonic() - start < 0.15
        assert s.reply()[:3] == "250"
        assert 0.19 < time.monotonic() - start < 0.5
        assert s.reply()[:3] == "354"
        start = time.monotonic()
        assert s.command("Hi\r\n.")[:3] == "250"
        assert 0.09 < time.monotonic() - start < 0.6


def test_refusals():
    with with_behaviour() as sink, Session(sink) as s:
        for domain, reply in (("defer", "452 4.2.2 later"), ("refuse", "554 5.7.1 no"),
                              ("dot", "451 4.3.0 try again later"),
                              ("full", "552 5.2.2 mailbox full"), ("other", "250 2.0.0 OK")):
            assert s.mail(f"u@{domain}.example") == reply, domain
        assert len(sink.ledger()) == 1
        known = [s.mail(f"u{n}@unknown.example")[:3] for n in range(200)]
        assert 60 < known.count("250") < 140 and set(known) == {"250", "550"}, known
        assert [s.mail(f"u{n}@unknown.example")[:3] for n in range(200)] == known  # always the same
        ended = summary(sink)
        counts = {c["name"]: c for c in ended["classes"]}
        assert counts["unknown"]["messages"] == 2 * known.count("250")
        assert counts["unknown"]["refused"] == 2 * known.count("550")
        assert counts["defer"]["deferred"] == 1 and counts["defer-dot"]["deferred"] == 1


def test_refused_recipients_are_not_in_the_ledger():
    with with_behaviour() as sink, Session(sink) as s:
        s.command("MAIL FROM:<a@b.example>")
        for domain in ("d", "defer", "e", "full", "grey", "f", "defer"):
            s.command(f"RCPT TO:<u@{domain}.example>")
        assert s.command("DATA")[:3] == "354" and s.command("Hi\r\n.")[:3] == "250"
        assert [row[3] for row in sink.ledger()] == ["u@d.example", "u@e.example", "u@f.example"]
        assert summary(sink)["recipients"] == 3


def test_greylisting():
    with with_behaviour() as sink, Session(sink) as s:
        assert s.mail("u@grey.example") == "450 4.7.1 greylisted, try again later"
        assert s.mail("u@grey.example")[:3] == "450"
        time.sleep(0.55)
        assert s.mail("u@grey.example")[:3] == "250"
        assert s.mail("v@grey.example")[:3] == "450"


def test_drops():
    with with_behaviour() as sink:
        for domain, lines in (("reset", 0), ("body", 0), ("kept", 1)):
            with Session(sink) as s:
                try:
                    reply = s.mail(f"u@{domain}.example")
                except ConnectionResetError:
                    reply = "reset"
                assert reply == ("" if domain == "kept" else "reset"), (domain, reply)
            assert len(sink.ledger()) == lines, domain


def test_limits_of_an_address():
    with with_behaviour() as sink:
        start = time.monotonic()
        with Session(sink, "127.0.0.3") as one, Session(sink, "127.0.0.3"):
            assert time.monotonic() - start >= 0.59  # two slow banners
            for name in ("PIPELINING", "CHUNKING", "8BITMIME"):
                assert name not in one.hello, one.hello
            assert "SIZE 2048" in one.hello and "DSN" in one.hello
            with Session(sink, "127.0.0.3", hello=None) as third:
                assert third.reply() == "421 4.7.0 too many connections"
                assert third.reply() == ""
            big = "Subject: x\r\n\r\n" + "x" * 70 + "\r\n"
            assert one.mail("u@d.example", body=big + ("y" * 70 + "\r\n") * 40)[:3] == "552"
            assert one.mail("u@d.example")[:3] == "250"
            assert one.mail("u@d.example")[:3] == "250"
            assert one.mail("u@d.example")[:3] == "421"
        wait_until("room again", lambda: room(sink))


def room(sink):
    with Session(sink, "127.0.0.3", hello=None) as s:
        return s.reply()[:3] == "220"


def test_old_and_slow_server():
    with with_behaviour() as sink, Session(sink, "127.0.0.4") as s:
        assert s.hello.startswith("502"), s.hello
        assert s.command("HELO me.example")[:3] == "250"
        start = time.monotonic()
        body = "Subject: x\r\n\r\n" + ("y" * 70 + "\r\n") * 20
        assert s.mail("u@d.example", body=body)[:3] == "250"
        assert 0.5 < time.monotonic() - start < 3  # 1.5 kB at 2 kB a second


def test_a_waiting_session_does_not_hoard():
    with with_behaviour("default: {latency: {mail: 5s}}") as sink, Session(sink) as s:
        before = resident_bytes(sink.process.pid)
        s.socket.sendall(b"MAIL FROM:<a@b.example>\r\n")
        s.socket.settimeout(0.5)
        sent = 0
        try:
            while sent < 256 << 20:
                sent += s.socket.send(b"NOOP\r\n" * 10000)
        except socket.timeout:
            pass
        assert sent < 64 << 20, sent
        assert resident_bytes(sink.process.pid) - before < 16 << 20


def test_lmtp():
    with with_behaviour(arguments=["--lmtp"]) as sink, Session(sink, hello="LHLO me") as s:
        assert s.hello[:3] == "250"
        s.command("MAIL FROM:<a@b.example>")
        for domain in ("d", "dot", "e"):
            assert s.command(f"RCPT TO:<u@{domain}.example>")[:3] == "250"
        assert s.command("DATA")[:3] == "354"
        assert s.command("Hi\r\n.") == "250 2.0.0 OK"
        assert s.reply() == "451 4.3.0 try again later"
        assert s.reply() == "250 2.0.0 OK"
        assert [row[3] for row in sink.ledger()] == ["u@d.example", "u@e.example"]


def test_unix_socket_and_half_close():
    temp = TempDir()
    path = str(temp.path / "sink.sock")
    process = Process([program(), "sink", "--listen", f"unix:{path}"], temp.path / "log")
    wait_until("the socket", lambda: os.path.exists(path), process=process)
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(path)
        s.sendall(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n\r\nHi\r\n.\r\n")
        s.shutdown(socket.SHUT_WR)
        got = b""
        while chunk := s.recv(4096):
            got += chunk
    assert got.endswith(b"250 2.0.0 OK\r\n"), got
    assert process.stop() == 0


def test_stops_by_itself():
    port = free_port()
    process = Process([program(), "sink", "--listen", f"127.0.0.1:{port}", "--workers", "2",
                       "--count", "500", "--json"], TempDir().path / "log")
    tool("source", "--to", f"127.0.0.1:{port}", "--messages", "500", "--retry")
    assert process.wait(10) == 0
    assert json.loads(process.log.read_text())["messages"] == 500
    start = time.monotonic()
    tool("sink", "--listen", f"127.0.0.1:{port}", "--duration", "300ms")
    assert 0.3 <= time.monotonic() - start < 3


def test_ledger_that_cannot_be_written():
    port = free_port()
    process = Process([program(), "sink", "--listen", f"127.0.0.1:{port}", "--ledger", "/dev/full"],
                      TempDir().path / "log")
    wait_port(("127.0.0.1", port), process)
    tool("source", "--to", f"127.0.0.1:{port}", "--messages", "3", "--sessions", "1", status=1)
    assert process.wait(10) == 1
    assert "No space left" in process.log.read_text(), process.log.read_text()


def test_mistakes_in_the_file():
    temp = TempDir()
    file = temp.path / "b.yaml"
    for text, wanted in (
            ("classes:\n  - name: a\n    domains: [a]\n    colour: red\n", ":4:5: unknown key 'colour'"),
            ("classes:\n  - {name: a, domains: [a], unknown_users: 3}\n", "'3' is no rate"),
            ("classes:\n  - {name: a, domains: [a], latency: {rcpt: soon}}\n", "no latency"),
            ("classes:\n  - {name: a, domains: [a], latency: {lunch: 1s}}\n", "unknown 'lunch'"),
            ("classes:\n  - {name: a, domains: [a], connections_max: 3}\n", "needs an address"),
            ("classes:\n  - {name: a, domains: [a], latency: {mail: 1s}}\n", "needs an address"),
            ("classes:\n  - {name: a, domains: [a], defer: {reply: hello}}\n", "is no reply"),
            ("classes:\n  - {name: a, domains: [a], dead_exchanger: 2}\n", "want yes or no"),
            ("classes:\n  - {name: a}\n", "needs name and domains"),
            ("classes: [\n", "b.yaml:"), ("- 1\n", "mapping"), ("", "empty")):
        file.write_text(text)
        said = tool("sink", "--behaviour", file, "--duration", "1ms", status=2).stderr
        assert wanted in said and "b.yaml:" in said, (text, said)
    assert "No such file" in tool("sink", "--behaviour", temp.path / "no", status=2).stderr
    assert "cannot use" in tool("sink", "--listen", "nonsense:x", status=2).stderr
    assert "unexpected" in tool("sink", "surplus", status=2).stderr
    assert "--behaviour FILE" in tool("sink", "--help").stdout


# --- DNS ---

TYPES = {"A": 1, "NS": 2, "SOA": 6, "MX": 15, "AAAA": 28, "TXT": 16}


def name_bytes(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".") if part) + b"\0"


def query_bytes(name, kind, edns=0):
    opt = b"\0" + struct.pack("!HHIH", 41, edns, 0, 0) if edns else b""
    return (struct.pack("!6H", 4711, 0x0100, 1, 0, 0, 1 if edns else 0) + name_bytes(name) +
            struct.pack("!2H", TYPES[kind], 1) + opt)


def read_name(message, at):
    parts = []
    while length := message[at]:
        if length >= 0xc0:
            target = struct.unpack_from("!H", message, at)[0] & 0x3fff
            return ".".join(parts + [read_name(message, target)[0]]), at + 2
        parts.append(message[at + 1:at + 1 + length].decode())
        at += 1 + length
    return ".".join(parts), at + 1


def parse(message):
    ident, flags, questions, answers, authority, _ = struct.unpack_from("!6H", message)
    assert ident == 4711 and flags & 0x8400 == 0x8400, hex(flags)
    at = 12
    for _ in range(questions):
        at = read_name(message, at)[1] + 4
    found = []
    for index in range(answers + authority):
        _, at = read_name(message, at)
        kind, _, ttl, length = struct.unpack_from("!HHIH", message, at)
        at += 10
        data = message[at:at + length]
        if kind == TYPES["MX"]:
            data = (struct.unpack("!H", data[:2])[0], read_name(message, at + 2)[0])
        elif kind == TYPES["A"]:
            data = socket.inet_ntoa(data)
        elif kind == TYPES["AAAA"]:
            data = socket.inet_ntop(socket.AF_INET6, data)
        at += length
        if index < answers:
            found.append(data)
    return {"rcode": flags & 15, "tc": bool(flags & 0x200), "answers": found, "ttl": ttl if answers
            else None, "authority": authority, "bytes": len(message)}


def ask(sink, name, kind, edns=0, tcp=False, raw=None):
    query = raw if raw is not None else query_bytes(name, kind, edns)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        s.connect((sink.host, sink.dns_port))
        if not tcp:
            s.send(query)
            return parse(s.recv(65535))
        s.sendall(struct.pack("!H", len(query)) + query[:5])  # in two pieces
        time.sleep(0.05)
        s.sendall(query[5:])
        stream = s.makefile("rb")
        return parse(stream.read(struct.unpack("!H", stream.read(2))[0]))


def test_dns():
    with with_behaviour() as sink:
        assert ask(sink, "any.example", "MX")["answers"] == [(10, "mx1.any.example")]
        assert ask(sink, "ANY.eXample", "MX", tcp=True)["answers"][0][0] == 10
        assert ask(sink, "mx1.any.example", "A")["answers"] == ["127.0.0.1"]
        assert ask(sink, "mx1.limited.example", "A")["answers"] == ["127.0.0.3"]
        for name, kind in (("mx1.any.example", "AAAA"), ("any.example", "A"), ("any.example", "TXT")):
            nothing = ask(sink, name, kind)
            assert nothing["rcode"] == 0 and not nothing["answers"] and nothing["authority"] == 1
        assert ask(sink, "mx2.any.example", "A")["rcode"] == 0  # a domain of its own, for all we know
        for name in ("nowhere.invalid", "gone.example", "com", ""):
            assert ask(sink, name, "MX")["rcode"] == 3, name
        assert ask(sink, "broken.example", "MX")["rcode"] == 2
        assert ask(sink, "null.example", "MX")["answers"] == [(0, "")]
        assert ask(sink, "implicit.example", "A")["answers"] == ["127.0.0.1"]
        assert not ask(sink, "implicit.example", "MX")["answers"]
        shared = ask(sink, "shared7.example", "MX")
        assert shared["answers"] == [(1, "mx0.big.example"), (10, "mx1.big.example"),
                                     (20, "mx2.big.example"), (30, "mx3.big.example")], shared
        assert shared["ttl"] == 77
        assert ask(sink, "mx0.big.example", "A")["answers"] == ["127.255.255.254"]
        assert [ask(sink, f"mx{n}.big.example", "A")["answers"] for n in (1, 2, 3)] == [
            ["127.0.0.5"], ["127.0.0.6"], ["127.0.0.5"]]
        assert ask(sink, "any.example", "SOA")["answers"] and ask(sink, "any.example", "NS")["answers"]
        try:
            ask(sink, "silent.example", "MX")
            raise AssertionError("an answer from the silent")
        except socket.timeout:
            pass


def test_dns_truncation():
    with with_behaviour() as sink:
        for edns, most in ((0, 512), (1232, 1232), (65535, 4096)):
            short = ask(sink, "many.example", "MX", edns=edns)
            assert short["tc"] and not short["answers"] and short["bytes"] <= most, short
        whole = ask(sink, "many.example", "MX", tcp=True)
        assert len(whole["answers"]) == 400 and not whole["tc"]
        assert whole["answers"][399] == (4000, "mx400.many.example")


def test_dns_garbage():
    with with_behaviour() as sink:
        good = query_bytes("any.example", "MX", edns=1232)
        for cut in range(12, len(good)):
            try:
                ask(sink, "", "MX", raw=good[:cut])
            except socket.timeout:
                raise AssertionError(f"no answer to {cut} bytes") from None
        for raw in (b"", b"\0" * 11, good[:2] + b"\x81" + good[3:]):  # short, and a reply
            try:
                ask(sink, "", "MX", raw=raw)
                raise AssertionError(f"an answer to {raw!r}")
            except socket.timeout:
                pass
        assert ask(sink, "any.example", "MX")["answers"]


# --- other people's clients ---

def test_swaks():
    if not shutil.which("swaks"):
        raise Skip("no swaks")
    with Sink() as sink:
        subprocess.run(["swaks", "--server", f"{sink.host}:{sink.port}", "--to", "a@d.example",
                        "--from", "x@y.example", "--header", "X-Seq: 5"], check=True,
                       capture_output=True, timeout=60)
        assert sink.ledger()[0][7] == "5"


def test_postfix_smtp_source():
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
    import peers  # pylint: disable=import-outside-toplevel
    postfix = peers.TREES / "postfix/usr"
    if not (postfix / "sbin/smtp-source").exists():
        raise Skip("no smtp-source; run tools/deps peers")
    with Sink(arguments=["--json"]) as sink:
        (sink.dir / "main.cf").write_text("")
        for flags in (["-d"], [], ["-d", "-r", "5"]):
            subprocess.run([postfix / "sbin/smtp-source", *flags, "-s", "5", "-m", "300", "-l", "4096",
                            "-f", "a@b.example", "-t", "u@d.example", f"{sink.host}:{sink.port}"],
                           check=True, timeout=60, env={**os.environ, "MAIL_CONFIG": str(sink.dir),
                                                        "LD_LIBRARY_PATH": f"{postfix}/lib/postfix"})
        assert len(sink.ledger()) == 300 + 300 + 1500
        ended = summary(sink)
        assert ended["messages"] == 900 and ended["recipients"] == 2100, ended


if __name__ == "__main__":
    run(globals())
