#!/usr/bin/env python3
"""Clients that mean no good: each costs its own session and nothing else.

clients.py [TEST...]"""

import contextlib
import os
import pathlib
import random
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "faults"))
from faults import (Client, Engine, Sink, TempDir, queued, rests,  # noqa: E402
                    resident_bytes, run, settings_for, wait_empty, wait_until)
from talk import MESSAGE, sessions, wait_no_sessions  # noqa: E402


def listening(**listener):
    engine = Engine()
    engine.config["listeners"][0].update(listener)
    engine.config["routes"] = {"*": "[127.0.0.1]:1"}
    return engine


def works(engine):
    with Client(engine) as client:
        client.expect(client.message("ok@d1.example"), 250)


def test_limits():
    """Size, recipients, commands, errors, line length: the answer of each."""
    with listening(message_size_max="64KiB", recipients_max=3, commands_max=10, errors_max=5,
                   messages_max=4) as engine:
        with Client(engine) as c:
            assert c.command("MAIL FROM:<a@b.example> SIZE=70000").startswith("552 5.3.4")
            assert c.command("MAIL FROM:<a@b.example> SIZE=99999999999999999999999")[:1] == "5"
            c.envelope("u@d1.example")
            c.expect(c.command("DATA"), 354)
            c.send((b"x" * 900 + b"\r\n") * 80 + b".\r\n")
            assert c.reply().startswith("552 5.3.4")
            c.envelope("1@d1.example", "2@d1.example", "3@d1.example")
            assert c.command("RCPT TO:<4@d1.example>").startswith("452 4.5.3")
            c.expect(c.command("DATA"), 354)
            c.send(MESSAGE + b".\r\n")
            c.expect(c.reply(), 250)
        with Client(engine) as c:
            said = [c.command("NOOP") for _ in range(12)]
            assert any(s.startswith("421") for s in said), said
            assert c.ended()
        with Client(engine) as c:
            said = [c.command("WRONG") for _ in range(8)]
            assert said[0].startswith("500") and any(s.startswith("421 4.7.0") for s in said), said
            assert c.ended()
        with Client(engine) as c:
            c.expect(c.command("MAIL FROM:<a@b.example>"), 250)
            for line, answer in (("RCPT TO:<b@例え.example>", "553 5.6.7"), ("DATA", "554 5.5.1"),
                                 (".", "500 5.5.1"), ("  NOOP", "500 5.5.1"),
                                 ("\x16\x03\x01", "421 4.7.0")):
                said = c.command(line)
                assert said.startswith(answer), (line, said)
            assert c.ended()
        with Client(engine) as c:
            c.send(b"NOOP " + b"x" * 5000 + b"\r\n")
            assert c.reply().startswith("500 5.5.2")
        with Client(engine) as c:
            said = [c.message("u@d1.example") for _ in range(6)]
            assert any(s.startswith("421") for s in said), said
        works(engine)
    engine = listening()
    with engine:
        with Client(engine) as c:
            assert c.message("u@d1.example", data=b"A: b\r\n\r\n" + b"x" * 1200 + b"\r\n").startswith(
                "554 5.6.0")
            c.expect(c.message("u@d1.example"), 250)


REFUSED = (  # what a client says, the code, and its record: command, sender, recipient
    ("MAIL FROM:<a@b.example>", 250),
    ("MAIL FROM:<c@b.example>", 503, "MAIL FROM", "", ""),
    ("RCPT TO:<bad address@d1.example>", 501, "RCPT TO", "a@b.example", "<bad address@d1.example>"),
    ("RCPT TO:<u@d1.example> NOSUCH=1", 555, "RCPT TO", "a@b.example", "u@d1.example"),
    ("RCPT TO:<u@bad.example>", 550, "RCPT TO", "a@b.example", "u@bad.example"),
    ("DATA", 554, "DATA", "a@b.example", ""),
    ("BDAT 0 LAST", 554, "BDAT", "a@b.example", ""),
    ("NONSENSE", 500, None, "a@b.example", ""),
    ("STARTTLS", 502, "STARTTLS", "a@b.example", ""),
    ("RSET", 250),
    ("MAIL FROM:<not an address>", 501, "MAIL FROM", "<not an address>", ""),
    ("MAIL FROM:<a@b.example> SIZE=999999999999", 552, "MAIL FROM", "a@b.example", ""),
    ("VRFY", 501, "VRFY", "a@b.example", ""),
)


def test_refusals_leave_a_trace():
    """Whatever is refused is counted, recorded with stage, code and reason, and logged at debug."""
    engine = listening(errors_max=100, sessions_per_client_max=2)
    engine.config["routes"]["bad.example"] = "reject"
    engine.config["log_level"] = "debug"
    wanted = []
    with engine:
        with Client(engine) as c, Client(engine):
            for command, code, *record in REFUSED:
                c.expect(c.command(command), code)
                if record:
                    wanted.append((code, *record))
            with socket.create_connection((engine.host, engine.port), 5) as third:
                assert third.recv(100).startswith(b"421 4.7.0")
            wanted.append((421, None, "", ""))
        records = engine.wait_records("Rejection", len(wanted))
        found = [(r["response"]["code"], r["response"]["command"], r["sender"], r["recipient"])
                 for r in records]
        assert found == wanted, [(f, w) for f, w in zip(found, wanted) if f != w]
        assert all(r["peer_address"]["addr"] == "127.0.0.1" and r["response"]["content"] and
                   r["response"]["enhanced_code"] and r["session_id"] for r in records), records
        assert engine.status()["counters"]["rejected"] == len(wanted)
        log = engine.log()
        logged = [line for line in log.splitlines() if "event=smtp.refused" in line]
        assert len(logged) == len(wanted) and all("level=debug" in line for line in logged), log
        assert 'command="RCPT TO" address="u@bad.example" reply="550 5.7.1 ' in log, logged


def test_refusals_are_bounded():
    """What carries no mail has lines at a rate, also of a client that may relay; the rest is
    counted."""
    with listening(errors_max=100000, commands_max=100000) as engine:
        with Client(engine) as c:
            began = time.monotonic()
            for _ in range(50):
                c.send(b"NONSENSE\r\n" * 100)
                assert all(c.reply().startswith("500") for _ in range(100))
        wait_until("all to be counted", lambda: sum(
            r.get("num_omitted", 1) for r in engine.records("Rejection")) == 5000, 5)
        found, took_s = len(engine.records("Rejection")), time.monotonic() - began
        assert 300 <= found <= 302 * os.cpu_count() + 25 * took_s, (found, took_s)
        assert engine.status()["counters"]["rejected"] == 5000


def test_endless_line():
    """A command without end, and content without line end, take no memory."""
    with listening(message_size_max="1MiB", session_timeout="10s") as engine:
        before = resident_bytes(engine.process.pid)
        for start in (b"", b"MAIL FROM:<"):
            with Client(engine) as c, contextlib.suppress(OSError):
                c.send(start)
                for _ in range(300):
                    c.send(b"x" * 65536)
                    assert resident_bytes(engine.process.pid) - before < 24 << 20
        with Client(engine) as c:
            c.envelope("u@d1.example")
            c.expect(c.command("DATA"), 354)
            for _ in range(300):
                c.send(b"x" * 65536)
            assert resident_bytes(engine.process.pid) - before < 24 << 20
            c.send(b"\r\n.\r\n")
            assert c.reply()[:3] in ("552", "554")
        works(engine)


def test_slow_loris():
    """Hundreds of clients that trickle: the idle and total limits end them; others are served."""
    with listening(idle_timeout="2s", session_timeout="10s") as engine:
        silent = [Client(engine, hello=None) for _ in range(300)]
        greeted = [Client(engine) for _ in range(50)]
        tricklers = [Client(engine) for _ in range(50)]
        for c in tricklers:
            c.envelope("u@d1.example")
            c.expect(c.command("DATA"), 354)
        began = time.monotonic()
        while time.monotonic() - began < 4:
            for c in tricklers:
                c.send(b"x")
            works(engine)
            time.sleep(0.5)
        for c in greeted:
            assert c.reply().startswith("421 4.4.2")
        for c in silent + greeted:
            assert c.ended(3)
        assert sessions(engine) >= 50
        while time.monotonic() - began < 12:
            for c in tricklers:
                with contextlib.suppress(OSError):
                    c.send(b"x")
            time.sleep(0.5)
        for c in tricklers:
            assert c.reply().startswith("421")
        assert time.monotonic() - began < 13.5, "they were idle, and not too long here"
        wait_no_sessions(engine)
        rests(engine, 1, 0.1)


def test_memory_of_content():
    """However many clients have sent half of something large: intake_memory_max holds, small mail comes
    in, and all of it is given back."""
    engine = listening(message_size_max="32MiB", sessions_max=2000)
    engine.config["queue"]["intake_memory_max"] = "16MiB"
    engine.env = {"ASAN_OPTIONS": "quarantine_size_mb=1"}  # which would keep what was freed
    with engine:
        before = resident_bytes(engine.process.pid)
        line = b"x" * 98 + b"\r\n"
        half = line * (4 << 20 >> 6)  # 6.4 MiB
        slow = [Client(engine) for _ in range(40)]
        for c in slow:
            c.envelope("u@d1.example")
            c.expect(c.command("DATA"), 354)
            c.send(half)
            assert resident_bytes(engine.process.pid) - before < 48 << 20
            assert engine.status()["gauges"]["intake_bytes"] <= 16 << 20
        works(engine)
        with Client(engine) as c:
            assert c.command("MAIL FROM:<a@b.example> SIZE=10000000").startswith("452 4.3.1")
            c.command("RSET")
            c.expect(c.command("MAIL FROM:<a@b.example> SIZE=1000"), 250)
        said = []
        for c in slow:
            c.send(b".\r\n")
            said.append(c.reply()[:9])
            c.close()
        assert set(said) == {"250 2.0.0", "452 4.3.1"} and said.count("250 2.0.0") <= 3, said
        wait_no_sessions(engine)
        # Envelopes count too.
        wide = [Client(engine) for _ in range(40)]
        refused = 0
        for c in wide:
            c.command("MAIL FROM:<a@sender.example>")
            c.send(b"".join(b"RCPT TO:<%d@d1.example> ORCPT=rfc822;%s\r\n" % (i, b"x" * 480)
                            for i in range(1000)))
            refused += sum(c.reply().startswith("452 4.3.1") for _ in range(1000))
        assert refused > 10000
        assert resident_bytes(engine.process.pid) - before < 48 << 20
        for c in wide:
            c.close()
        wait_no_sessions(engine)
        wait_until("the content to be committed",
                   lambda: engine.status()["gauges"]["intake_bytes"] == 0, 10)
        with Client(engine) as c:  # what is alone has room, however large
            c.expect(c.message("u@d1.example", data=half * 4), 250)


def test_announced_sizes():
    """What SIZE announces is reserved or not allocated: hundreds of clients that announce nearly a MiB
    and send little find no room beyond intake_memory_max."""
    engine = listening(sessions_per_client_max=500, sessions_max=500)
    engine.config["queue"]["intake_memory_max"] = "16MiB"
    with engine:
        said = []
        clients = [Client(engine) for _ in range(300)]
        for c in clients:  # each has its MAIL before any has content
            said.append(c.command("MAIL FROM:<a@sender.example> SIZE=1040000")[:3])
            said.append(c.command("RCPT TO:<u@d1.example>")[:3])
        assert set(said) == {"250"}, said
        said = [c.command("DATA")[:9] for c in clients]
        assert engine.status()["gauges"]["intake_bytes"] <= 16 << 20
        assert set(s[:3] for s in said) == {"354", "452"} and said.count("452 4.3.1") > 250, said
        works(engine)
        for c in clients:
            c.close()


def test_input_behind_a_refusal_has_an_end():
    with listening(message_size_max="2MiB") as engine:
        for lines in ((b"BDAT 99999999999\r\n",), (b"NOOP ",),
                      (b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<u@d1.example>\r\nDATA\r\n",)):
            with Client(engine) as c:
                c.socket.settimeout(30)
                c.send(b"".join(lines))
                sent = 0
                with contextlib.suppress(ConnectionError):
                    while sent < 1 << 30:
                        c.send(b"x" * (1 << 20))
                        sent += 1 << 20
                assert sent < 1 << 30, lines
        works(engine)


def test_floods_give_memory_back():
    """Clients that send commands as fast as they can and read nothing."""
    engine = listening(commands_max="1M", errors_max="100k")
    engine.env = {"ASAN_OPTIONS": "quarantine_size_mb=1"}
    with engine:
        before = resident_bytes(engine.process.pid)
        floods = [Client(engine) for _ in range(15)]
        for c in floods:
            c.socket.setblocking(False)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for c in floods:
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    c.socket.send(b"NOOP\r\n" * 20000)
            time.sleep(0.001)
        # Replies to be sent and being sent, 64 KiB each, and a buffer of input.
        assert engine.status()["gauges"]["intake_bytes"] < 15 * (64 << 10)
        assert resident_bytes(engine.process.pid) - before < 24 << 20
        works(engine)
        for c in floods:
            c.close()
        wait_until("the memory's return",
                   lambda: resident_bytes(engine.process.pid) - before < 8 << 20, 15)


def test_floods_and_deaf_clients():
    """Commands without end and replies that nobody reads: bounded memory, no CPU, then the end."""
    with listening(idle_timeout="3s", commands_max="1M", errors_max="100k") as engine:
        before = resident_bytes(engine.process.pid)
        deaf = [Client(engine, receive_buffer=4096) for _ in range(8)]
        for c in deaf:
            c.socket.setblocking(False)
        sent = 0
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for c in deaf:
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    sent += c.socket.send(b"EHLO x.example\r\n" * 400)
            time.sleep(0.001)
        assert resident_bytes(engine.process.pid) - before < 32 << 20
        works(engine)
        wait_no_sessions(engine, 15)
        rests(engine, 1, 0.1)
        for c in deaf:
            c.close()
        # A whole pipelined batch is answered in order, message by message.
        with Client(engine) as c:
            c.send((b"MAIL FROM:<a@b.example>\r\nRCPT TO:<u@d1.example>\r\nBDAT %d LAST\r\n%s"
                    % (len(MESSAGE), MESSAGE)) * 200 + b"QUIT\r\n")
            replies = [c.reply() for _ in range(601)]
            assert all(r.startswith("250") for r in replies[:600]), replies[:6]
            assert replies[600].startswith("221")


def test_bdat():
    """Chunks of every wrong kind."""
    with listening(message_size_max="64KiB") as engine:
        for lines, codes in (
                (("BDAT 5 LAST\r\nhello",), "503"), (("BDAT",), "50"), (("BDAT x",), "501"),
                (("BDAT -1 LAST",), "501"), (("BDAT 18446744073709551616 LAST",), "5"),
                (("BDAT 5 FIRST\r\nhello",), "501")):
            with Client(engine) as c:
                for line in lines:
                    assert c.command(line).startswith(codes), (line, codes)
        with Client(engine) as c:
            c.envelope("u@d1.example")
            c.expect(c.command("BDAT 6\r\nA: b\r\n"[:-2]), 250)
            assert c.command("DATA").startswith("503"), "DATA within chunks"
        with Client(engine) as c:  # too large, in chunks; the session goes on
            c.envelope("u@d1.example")
            said = []
            for _ in range(4):
                c.send(b"BDAT 20000\r\n" + (b"x" * 98 + b"\r\n") * 200)
                said.append(c.reply()[:3])
            assert "552" in said, said
            c.command("RSET")
            c.expect(c.message("u@d1.example"), 250)
        with Client(engine) as c:  # empty chunks
            c.envelope("u@d1.example")
            c.expect(c.command("BDAT 0"), 250)
            c.send(b"BDAT %d\r\n%s" % (len(MESSAGE), MESSAGE))
            c.expect(c.reply(), 250)
            c.expect(c.command("BDAT 0 LAST"), 250)
        with Client(engine) as c:  # bare LF is refused in chunks too
            c.envelope("u@d1.example")
            c.send(b"BDAT 14 LAST\r\nA: b\n\nline\n.\n\n"[:28])
            assert c.reply()[:1] == "5"
        works(engine)


def test_early_talkers():
    """Before the banner: taken as pipelining, never as more than it is."""
    with listening() as engine:
        with Client(engine, hello=None) as c:
            c.send(b"EHLO x.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<u@d1.example>\r\nDATA\r\n"
                   + MESSAGE + b".\r\nQUIT\r\n")
            codes = [c.reply()[:3] for _ in range(7)]
            assert codes[0] in ("220", "554"), codes
        with Client(engine, hello=None) as c:
            c.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert c.reply().startswith("220")
            reply = c.reply()
            assert reply.startswith(("421", "500")), reply
        with Client(engine, hello=None) as c, contextlib.suppress(ConnectionError):
            c.send(bytes(range(256)) * 64)
            c.reply()
        works(engine)


def test_reset_at_every_stage():
    """RST and FIN between and within all commands: no session stays, nothing half is stored."""
    script = (b"EHLO x.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<u@d1.example>\r\nDATA\r\n"
              + MESSAGE + b".\r\n")
    with listening(sessions_per_client_max=2000) as engine:
        for cut in range(0, len(script) - 2, 3):
            for reset in (False, True):
                c = Client(engine, hello=None)
                c.send(script[:cut])
                c.reset() if reset else c.close()
        wait_no_sessions(engine)
        assert queued(engine) == 0
        for _ in range(50):  # behind the dot either is right
            c = Client(engine, hello=None)
            c.send(script)
            c.reset()
        wait_no_sessions(engine)
        works(engine)
        rests(engine, 1, 0.1)


def test_session_limits():
    """sessions_max and sessions_per_client_max; 2,000 idle ones cost little; slots come back."""
    with listening(sessions_max=2000, sessions_per_client_max=1900) as engine:
        wait_no_sessions(engine)
        before = resident_bytes(engine.process.pid)
        held = [Client(engine, hello=None) for _ in range(1900)]
        assert all(c.reply().startswith("220") for c in held)
        with Client(engine, hello=None) as c:
            assert c.reply().startswith("421 4.7.0")
            assert c.ended()
        held += [Client(engine, hello=None, source="127.0.0.2") for _ in range(100)]
        assert all(c.reply().startswith("220") for c in held[1900:])
        with Client(engine, hello=None, source="127.0.0.3") as c:
            assert c.reply().startswith("421 4.3.2")
        each = (resident_bytes(engine.process.pid) - before) / 2000
        assert each < 8192, f"{each:.0f} bytes an idle session"
        rests(engine, 1, 0.1)
        for c in held:
            c.reset()
        wait_no_sessions(engine)
        works(engine)


def test_strangers_leave_room():
    """Who may not relay gets half of the sessions at most, from however many addresses."""
    with listening(sessions_max=10, relay_networks=["127.0.0.1/32"]) as engine:
        wait_no_sessions(engine)

        def greetings(clients):
            return sorted(((c.reply()[:9], c) for c in clients), key=lambda pair: pair[0])

        strangers = greetings([Client(engine, hello=None, source=f"127.0.1.{i}") for i in range(1, 9)])
        assert [reply for reply, _ in strangers] == ["220 mta.s"] * 5 + ["421 4.3.2"] * 3
        ours = greetings([Client(engine, hello=None) for _ in range(6)])
        assert [reply for reply, _ in ours] == ["220 mta.s"] * 5 + ["421 4.3.2"]
        strangers[0][1].close()
        ours[0][1].close()
        wait_until("their ends", lambda: sessions(engine) == 8)
        with Client(engine, hello=None, source="127.0.1.9") as c:
            assert c.reply().startswith("421 4.3.2"), "ours are more than half"
        works(engine)


def test_content():
    """Loops, private fields, huge headers, 8-bit, nothing, no header."""
    temp = TempDir("hayauma-content-")
    with Sink(directory=temp.path / "sink") as sink:
        with Engine(settings_for(sink), directory=temp.path / "engine") as engine:
            hop = b"Received: from a by b; Sun, 22 Nov 2026 10:00:00 +0000\r\n"
            for data, codes in (
                    (hop * 100 + MESSAGE, ("554 5.4.6",)), (hop * 99 + MESSAGE, ("250",)),
                    (b"X-Hayauma-Priority: 9x\r\n" + MESSAGE, ("550 5.6.0",)),
                    (b"X-Hayauma-Priority: 1\r\nX-Hayauma-Priority: 2\r\n" + MESSAGE, ("550 5.6.0",)),
                    (b"X-Hayauma-Nonsense: 1\r\n" + MESSAGE, ("550 5.6.0",)),
                    (b"X-Hayauma-Campaign: a\"b\\c\r\n" + MESSAGE, ("550 5.6.0",)),
                    (b"X-Hayauma-Not-Before: yesterday\r\n" + MESSAGE, ("550 5.6.0",)),
                    (b"x-hAYAUMA-cAMPAIGN: \r\n " + b"c" * 64 + b"\r\n" + MESSAGE, ("250", "550")),
                    (b"X-Big: " + b"y" * 900 + b"\r\n" + b" folded\r\n" * 60000 + MESSAGE,
                     ("250", "552", "554")),
                    ((b"X-Many: z\r\n") * 60000 + MESSAGE, ("250", "552", "554")),
                    ("Subject: 早馬\r\n\r\näöü\r\n".encode(), ("250", "550", "554")),
                    (b"", ("250",)), (b"\r\n", ("250",)), (b"\r\n\r\n\r\n", ("250",)),
                    (b"no header at all\r\n", ("250",)), (b": no name\r\n\r\nx\r\n", ("250",)),
                    (b" begins with a fold\r\n\r\nx\r\n", ("250",)),
                    (b"..\r\n..dots\r\n", ("250",))):
                with Client(engine) as c:
                    reply = c.message("u@d1.example", data=data)
                    assert reply.startswith(codes), (data[:60], reply)
            wait_empty(engine)
            assert len(sink.ledger()) >= 8
            for record in engine.records():
                assert "\n" not in record["sender"]


def test_noise():
    """Random bytes and random orders of commands, seeded: the engine lives and says only SMTP."""
    rng = random.Random(42)
    words = (b"EHLO x.example", b"HELO y", b"MAIL FROM:<a@b.example>", b"MAIL FROM:<>", b"DATA", b".",
             b"RCPT TO:<u@d1.example>", b"RCPT TO:<>", b"RSET", b"NOOP", b"VRFY x", b"HELP", b"BDAT 3",
             b"BDAT 0 LAST", b"abc", b"STARTTLS", b"AUTH PLAIN", b"TURN", b"EXPN x", b"\xff\xfe", b"")
    with listening(commands_max="1M", errors_max="100k") as engine:
        for _ in range(60):
            with Client(engine, hello=None) as c, contextlib.suppress(OSError):
                for _ in range(60):
                    c.send(rng.choice(words) + rng.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"")))
                c.send(b"\r\n.\r\nQUIT\r\n")
                c.socket.shutdown(socket.SHUT_WR)
                while reply := c.reply():
                    assert reply[:3].isdigit(), reply
            engine.process.require_running()
        for _ in range(30):
            with Client(engine, hello=None) as c, contextlib.suppress(OSError):
                c.send(rng.randbytes(20000))
        wait_no_sessions(engine)
        works(engine)


if __name__ == "__main__":
    run(globals())
