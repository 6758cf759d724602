#!/usr/bin/env python3
"""Never an open relay, and one message in is one message out.

relay.py [TEST...]"""

import os
import pathlib
import re
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "faults"))
from faults import (Client, Engine, Sink, TempDir, queued, run, settings_for,  # noqa: E402
                    wait_empty, wait_until)

STRANGER = "127.0.0.2"  # configured to be outside of relay_networks

# Every way that anybody has spelled a relay attempt.
SPELLINGS = (
    "u@d1.example", "<u@d1.example>", "u%d1.example@mta.sender.example", "u%d1.example",
    "u%d1.example@[127.0.0.1]", "u%d1.example@localhost", "@mta.sender.example:u@d1.example",
    "@a.example,@b.example:u@d1.example", '"u@d1.example"', '"u@d1.example"@mta.sender.example',
    '"u%d1.example"@mta.sender.example', "d1.example!u", "d1.example!u@mta.sender.example",
    "mta.sender.example!d1.example!u", "u@d1.example@mta.sender.example", "u@[127.0.0.1]",
    "u@[IPv6:::1]", "u@[::ffff:127.0.0.1]", "u@localhost", "u@mta.sender.example", "u@127.0.0.1",
    "postmaster", "Postmaster@mta.sender.example", "u", "", "u@", "u@d1.example.", "u@D1.EXAMPLE",
    "u@d1.example:25", " u@d1.example", "u@d1.example ", "u@d1.example\t", "u@d1.example\x00",
    "u@xn--d1-.example", "u@d1.example(comment)", "u@ d1.example", "u\\@d1.example@x.example")


def engine_and_stranger(work, sink, **listener):
    engine = Engine(settings_for(sink), directory=work)
    engine.config["listeners"][0].update({"relay_networks": ["127.0.0.1/32", "::1"], **listener})
    return engine


def test_open_relay():
    """From outside of relay_networks no spelling of a recipient is taken, whoever the sender is."""
    temp = TempDir("hayauma-relay-")
    with Sink(directory=temp.path / "sink") as sink:
        with engine_and_stranger(temp.path / "engine", sink, errors_max=100000) as engine:
            for sender in ("", "spam@x.example", "u@mta.sender.example", "root@localhost"):
                with Client(engine, source=STRANGER) as client:
                    for spelling in SPELLINGS:
                        client.command(f"MAIL FROM:<{sender}>")
                        client.send(f"RCPT TO:<{spelling}>\r\n".encode())
                        reply = client.reply()
                        assert reply[:3] in ("500", "501", "550", "551", "553", "554"), (
                            spelling, reply)
                        assert client.command("DATA")[:1] == "5", spelling
                        assert client.command("BDAT 2 LAST\r\n.")[:1] == "5", spelling
                        client.command("RSET")
            with Client(engine, source=STRANGER) as client:
                client.command("MAIL FROM:<a@b.example>")
                assert client.command("RCPT TO:<u@d1.example>").startswith("550 5.7.1")
            assert queued(engine) == 0 and not engine.records("Reception")
            # Of which many are only counted (20 a second).
            wait_until("the record of a refusal", lambda: any(
                r["response"]["code"] == 550 for r in engine.records("Rejection")))
            assert not sink.ledger()
            # The same spelling from inside, where allowed, goes to the domain it names or is refused.
            with Client(engine) as client:
                client.expect(client.message("u@d1.example"), 250)
            wait_empty(engine)
            assert [row[3] for row in sink.ledger()] == ["u@d1.example"]


def test_strangers_records():
    """Who may not relay does not fill the disk of the records: lines at a rate, and every refusal
    counted, also when nothing follows and at a stop. Who may relay has a line for each meanwhile."""
    temp = TempDir("hayauma-relay-")
    refused = 0

    def flood(engine, times):
        with Client(engine, source=STRANGER) as client:
            client.command("MAIL FROM:<a@b.example>")
            for _ in range(times // 100):
                client.send(b"RCPT TO:<u@d1.example>\r\n" * 100)
                assert all(client.reply().startswith("550 5.7.1") for _ in range(100))
        return times

    def strangers():
        found = [r for r in engine.records("Rejection") if r["recipient"] in ("", "u@d1.example")]
        return len(found), sum(r.get("num_omitted", 1) for r in found)

    def of_clients():
        return [r for r in engine.records("Rejection") if r["recipient"].endswith("@bad.example")]

    with Sink(directory=temp.path / "sink") as sink:
        engine = engine_and_stranger(temp.path / "engine", sink, errors_max=100000,
                                     commands_max=100000)
        engine.config["routes"] = {"bad.example": "reject"}
        with engine:
            began = time.monotonic()
            refused += flood(engine, 5000)
            with Client(engine) as client:
                client.command("MAIL FROM:<a@b.example>")
                for i in range(500):  # more than a worker has lines for at once
                    client.expect(client.command(f"RCPT TO:<u{i}@bad.example>"), 550)
            wait_until("all to be counted", lambda: strangers()[1] == refused, 5)
            lines = strangers()[0]
            took_s = time.monotonic() - began
            assert 300 <= lines <= (300 + 2) * os.cpu_count() + 25 * took_s, (lines, took_s)
            wait_until("a line for each of who may relay", lambda: len(of_clients()) >= 500, 5)
            assert len(of_clients()) == 500
            refused += flood(engine, 2000)
        assert strangers()[1] == refused, (strangers(), refused)


def test_both_families():
    """Each family on its own socket, judged by its own networks."""
    temp = TempDir("hayauma-relay-")
    with Sink(directory=temp.path / "sink") as sink:
        engine = engine_and_stranger(temp.path / "engine", sink)
        engine.config["listeners"].append({"listen": f"[::]:{engine.port}",
                                           "relay_networks": ["::ffff:127.0.0.1", "2001:db8::/32"]})
        with engine:
            for host, source, code in (("127.0.0.1", None, 250), ("127.0.0.1", STRANGER, 550),
                                       ("::1", None, 550)):
                with Client(engine, host=host, source=source) as client:
                    client.command("MAIL FROM:<a@b.example>")
                    client.expect(client.command("RCPT TO:<u@d1.example>"), code)


# What ends a message is CRLF.CRLF; each of these has been taken for it by somebody.
ENDS = (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\r.\n",
        b"\r\n\x00.\r\n", b"\r\n.\x00\r\n", b"\r\n.\r\x00\n", b"\r\r\n.\r\r\n", b"\n\n.\r\n",
        b"\r\n.\r\r\n", b"\x00\r\n.\n", b"\r\n.\x0b\r\n", b"\xc2\x85.\xc2\x85",
        "\u2028.\u2028".encode(), b"\r\n.\x1a\r\n", b"\r\n. \r\n", b"\r\n\t.\r\n")
SECOND = (b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<evil@d1.example>\r\nDATA\r\n"
          b"Subject: smuggled\r\n\r\nevil\r\n.\r\n")


def test_smuggling():
    """One message in is one message out, or a refusal; the text behind a false end is content, with
    bare newlines repaired too."""
    for newlines, refused_min in (("refuse", 14), ("repair", 3)):
        smuggle(newlines, refused_min)


def smuggle(newlines, refused_min):
    temp = TempDir("hayauma-relay-")
    with Sink(directory=temp.path / "sink") as sink:
        with engine_and_stranger(temp.path / "engine", sink, bare_newlines=newlines) as engine:
            taken = refused = 0
            for i, end in enumerate(ENDS):
                for pause in (False, True):
                    with Client(engine) as client:
                        client.envelope(f"m{i}{int(pause)}@d1.example")
                        client.expect(client.command("DATA"), 354)
                        client.send(b"Subject: x\r\n\r\nfirst" + end)
                        if pause and newlines == "refuse" and re.search(rb"(?<!\r)\n", end):
                            client.expect(client.reply(), 554)  # at once: it would wait for ever
                            assert client.ended(), end
                            refused += 1
                            continue
                        if pause:
                            assert client.ended(0.05) is False, (end, "ended early")
                            client.socket.settimeout(15)
                        client.send(SECOND)
                        # The dot of SECOND ends the first message; nothing may follow its reply.
                        reply = client.reply()
                        assert reply[:3] in ("250", "550", "554", "500"), (end, reply)
                        taken += reply.startswith("250")
                        refused += not reply.startswith("250")
                        client.send(b"NOOP smuggled\r\n")
                        more = client.reply()
                        assert not more or more.startswith(("250 2.0.0", "250 OK", "250")), more
                        assert "queued" not in more, (end, more)
            wait_empty(engine)
            rows = sink.ledger()
            assert not [row for row in rows if row[3].startswith("evil")], rows
            assert len(rows) == taken, (len(rows), taken)
            assert len({row[3] for row in rows}) == taken
            assert refused >= 2 * refused_min, refused  # all with a bare CR or LF, or a NUL


def test_commands_with_wrong_ends():
    """Commands end with CRLF too."""
    with Engine() as engine:
        for line in (b"NOOP\n", b"NOOP\r", b"MAIL FROM:<a@b.example>\nRCPT TO:<u@d1.example>\n",
                     b"NO\x00OP\r\n", b"NOOP\r\r\n", b"NOOP \xff\xfe\r\n"):
            with Client(engine) as client:
                client.send(line + b"NOOP\r\n")
                reply = client.reply()
                assert reply[:1] in ("5", "2"), (line, reply)
                if b"\r\n" not in line:
                    assert reply[:1] == "5", (line, reply)
        with Client(engine) as client:  # LF alone each time: it hears why, and the end
            for _ in range(2):
                client.send(b"NOOP\n")
                client.expect(client.reply(), 500)
            assert client.ended()


if __name__ == "__main__":
    run(globals())
