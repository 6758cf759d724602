#!/usr/bin/env python3
"""What is against the book, and is taken all the same: addresses that exist, clients that send them,
content that lost its way. What others get of it is by the book.

lenient.py [TEST...]"""

import email
import email.message
import email.policy
import json
import pathlib
import re
import smtplib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from engine import Engine, Sink, merge, program  # noqa: E402
from proc import TempDir, wait_until  # noqa: E402
from talk import Client, run  # noqa: E402

STRANGER = "127.0.0.2"
DOTTED = ("a..b@docomo.example", "a.@ezweb.example", ".a@ezweb.example", "...@vodafone.example")


def quoted(address):
    local, _, domain = address.rpartition("@")
    return f'"{local}"@{domain}'


def to_sink(sink, **more):
    return merge({"dns": sink.dns()}, more)


def holding(**listener):
    """An engine that keeps its mail; STRANGER may not relay."""
    engine = Engine({"routes": {"*": "[127.0.0.1]:1"}})
    engine.config["listeners"][0].update({"relay_networks": ["127.0.0.1"], **listener})
    return engine


def stored(engine, reply):
    """The content of the message that a client heard 250 for, without our stamp."""
    text = subprocess.run([program(), "queue", "export", reply.split()[-1], "-c", engine.file],
                          capture_output=True, check=True, timeout=60).stdout
    assert text.startswith(b"Received: from "), text
    return text


def test_dotted_addresses():
    """Dots at the ends and in a row: taken at every door, quoted outward, recorded as given."""
    with Sink() as sink, Engine(to_sink(sink)) as engine:
        with Client(engine) as client:
            for address in DOTTED:
                client.expect(client.command(f"MAIL FROM:<{address}>"), 250)
                client.expect(client.command(f"RCPT TO:<{address}> ORCPT=rfc822;{address}"), 250)
                client.expect(client.command("DATA"), 354)
                client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
                client.expect(client.reply(), 250)
        done = engine.wait_records("Delivery", len(DOTTED))
        assert sorted(r["recipient"] for r in done) == sorted(DOTTED), done
        assert sorted(r["sender"] for r in done) == sorted(DOTTED), done
        assert sorted(row[3] for row in sink.ledger()) == sorted(map(quoted, DOTTED)), sink.ledger()
    temp = TempDir("hayauma-lenient-")
    lines, csv, eml = (temp.path / name for name in ("l.txt", "l.csv", "m.eml"))
    lines.write_text(DOTTED[1] + "\n")
    csv.write_text(f"email\n{DOTTED[2]}\n")
    eml.write_text("\ufeffFrom: Shop <s..hop@d.example>\nSubject: x\n\nx\n")
    with holding() as engine:
        def send(*arguments):
            subprocess.run([program(), "send", "--server", f"{engine.host}:{engine.port}", *arguments],
                           check=True, timeout=60)
        send("--eml", eml, "--to-file", lines, "--csv", csv, DOTTED[0])
        send("--text", eml, "--from", "早馬 <.s@d.example>", DOTTED[3])
        send("--text", eml, "--from", ".s@d.example", "a@final.example.")
        rows = engine.rows("queue", "list")
        assert sorted(r["recipient"] for r in rows) == sorted(
            [*map(quoted, DOTTED), "a@final.example"]), rows
        assert {r["sender"] for r in rows} == {'"s..hop"@d.example', '".s"@d.example'}, rows
        found = [r["id"] for r in rows if r["recipient"] == quoted(DOTTED[0])]
        content = engine.command("queue", "export", *found)
        assert f"\nTo: <{quoted(DOTTED[0])}>\n" in content.replace("\r", ""), content
        assert f"for <{quoted(DOTTED[0])}>" in content, content
        engine.command("queue", "hold", "--recipient", quoted(DOTTED[0]))
        held = engine.command("queue", "list", "--recipient", quoted(DOTTED[0]), "--json")
        assert json.loads(held)["state"] == "held", held


def test_labels_are_limited_as_a_labels():
    """22 あ are 66 bytes of UTF-8, and 27 of an A-label; 60 make a label that is too long."""
    with Sink() as sink, Engine(to_sink(sink)) as engine, Client(engine) as client:
        good, bad = f"{'あ' * 22}.example", f"{'あ' * 60}.example"
        client.expect(client.command(f"MAIL FROM:<a@{bad}> SMTPUTF8"), 553)
        client.expect(client.command(f"MAIL FROM:<a@{good}> SMTPUTF8"), 250)
        client.expect(client.command(f"RCPT TO:<b@{bad}>"), 553)
        client.expect(client.command(f"RCPT TO:<b@{good}>"), 250)
        client.expect(client.command("DATA"), 354)
        client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
        client.expect(client.reply(), 250)
        engine.wait_records("Delivery")
        (row,) = sink.ledger()
        assert row[3].startswith("b@xn--") and len(row[3]) < 50, row


def test_original_recipient_in_utf8():
    """An ORCPT of bare UTF-8 comes back in the notice, as every server can take it (RFC 6533 3)."""
    with Engine({"routes": {"*": "[127.0.0.1]:1"},
                 "destinations": {"bad.example": {"lifetime": "0"}}}) as engine:
        with Client(engine) as client:
            client.expect(client.command("MAIL FROM:<a..b@sender.example> SMTPUTF8"), 250)
            client.expect(client.command("RCPT TO:<送@bad.example> ORCPT=utf-8;送@日本.example"), 250)
            client.expect(client.command("DATA"), 354)
            client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            client.expect(client.reply(), 250)

        def notices():
            rows = map(json.loads, engine.command("queue", "list", "--json").splitlines())
            return [r for r in rows if r["recipient"] == "a..b@sender.example"]

        wait_until("the notice", notices, process=engine.process)
        text = engine.command("queue", "export", notices()[0]["id"])
        assert "\nOriginal-Recipient: utf-8; \\x{9001}@\\x{65E5}\\x{672C}.example\n" in text, text
        assert '\nTo: <"a..b"@sender.example>\n' in text, text


def test_refused_recipients_cost_the_good_ones_nothing():
    """Each line of a list that the client could not check is refused for itself; strangers, and who
    says what is no command, are heard no longer than errors_max."""
    with Sink() as sink:
        engine = Engine(to_sink(sink, routes={"bad.example": "reject"}))
        engine.config["listeners"][0].update({"errors_max": 5, "relay_networks": ["127.0.0.1"]})
        with engine:
            with Client(engine) as client:
                client.expect(client.command("MAIL FROM:<a@sender.example>"), 250)
                for i in range(30):
                    for to, code in ((f"good{i}@d.example", 250), (f"bad{i}@bad.example", 550),
                                     ("no address", 501), ("a@日本.example", 553),
                                     ("a@1.2.3.4", 553)):
                        client.expect(client.command(f"RCPT TO:<{to}>"), code)
                client.expect(client.command("DATA"), 354)
                client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
                client.expect(client.reply(), 250)
                for _ in range(20):  # one list of one each, all wrong
                    client.expect(client.message("x@bad.example"), 550)
                    client.expect(client.command("DATA"), 554)
                    client.expect(client.command("RSET"), 250)
                client.expect(client.message("last@d.example"), 250)
                said = [client.command("WRONG")[:3] for _ in range(6)]
                assert said == ["500"] * 6 and client.reply().startswith("421"), said
            with Client(engine, source=STRANGER) as client:
                client.expect(client.command("MAIL FROM:<a@sender.example>"), 250)
                said = [client.command("RCPT TO:<u@d.example>")[:3] for _ in range(6)]
                assert said == ["550"] * 6 and client.reply().startswith("421"), said
            engine.wait_records("Delivery", 31)
            assert len(sink.ledger()) == 31, len(sink.ledger())


def test_names_that_are_none():
    """A client that may relay calls itself what it likes: Received and records stay whole. Others
    are refused."""
    with holding() as engine:
        for name, shown in (("myhost.", "myhost."), ("(none)", "?none?"), ("my host", "my?host"),
                            ("[IPv6:fe80::1%eth0]", "[IPv6:fe80::1?eth0]"), ("", "unknown"),
                            ('a"b\\c', "a?b?c"), ("x\x01\x1b[31m", "x???31m"),
                            ("h" * 400, "h" * 255), (";\tby evil", "??by?evil")):
            for verb in ("EHLO", "HELO"):
                with Client(engine, hello=None) as client:
                    client.expect(client.reply(), 220)
                    client.expect(client.command(f"{verb} {name}"), 250)
                    reply = client.expect(client.message("b@d.example"), 250)
                content = stored(engine, reply)
                assert content.startswith(f"Received: from {shown} (".encode()), (name, content[:400])
                message = email.message_from_bytes(content, policy=email.policy.default)
                assert message["Subject"] == "test", (name, content)
                with Client(engine, hello=None, source=STRANGER) as client:
                    client.expect(client.reply(), 220)
                    client.expect(client.command(f"{verb} {name}"), 501)
        for record in engine.wait_records("Reception", 18):
            assert not any(ord(c) < 32 for c in json.dumps(record)), record


def test_commands_against_the_book():
    """Without brackets, with blanks behind, with hex in lower case: clients that may relay."""
    with Sink() as sink, Engine(to_sink(sink)) as engine:
        with Client(engine) as client:
            client.expect(client.command("MAIL FROM:a@sender.example SIZE=100"), 250)
            client.expect(client.command("RCPT TO:b@d.example. ORCPT=rfc822;b+2bx@d.example"), 250)
            client.expect(client.command("RCPT TO:<c@D.example.>  "), 250)
            client.expect(client.command('RCPT TO:< "d.e"@d.example >'), 250)
            client.expect(client.command("DATA  "), 354)
            client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            client.expect(client.reply(), 250)
            client.expect(client.command("QUIT \t "), 221)
        engine.wait_records("Delivery", 3)
        assert sorted(row[3] for row in sink.ledger()) == ["b@d.example", "c@D.example", "d.e@d.example"]
    with holding() as engine, Client(engine, source=STRANGER) as client:
        client.expect(client.command("MAIL FROM:a@sender.example"), 501)
        client.expect(client.command("MAIL FROM:<a@sender.example >"), 501)


def test_author_is_added():
    """Mail without a From gets one of its envelope's sender, as on a host with Postfix."""
    with holding() as engine, Client(engine) as client:
        for sender, data, wanted in (
                ("a@sender.example", b"Subject: s\r\n\r\nFrom: x@y\r\n", "<a@sender.example>"),
                (".a@sender.example", b"no field\r\n", '<".a"@sender.example>'),
                ("a@sender.example", b"from : b@sender.example\r\n\r\nx\r\n", "b@sender.example"),
                ("", b"Subject: s\r\n\r\nx\r\n", None)):
            reply = client.expect(client.message("b@d.example", sender=sender, data=data), 250)
            message = email.message_from_bytes(stored(engine, reply))
            assert message.get_all("From") == (wanted and [wanted]), (data, message)


def test_border_of_header_and_body():
    """What ends a header is an empty line, for us and for all who read the message behind us; a mbox
    line, a byte order mark and an empty line in front of a header are no body."""
    with holding() as engine, Client(engine) as client:
        for data, subject, body, private in (
                (b"Subject: s\r\nno field\r\nX-Hayauma-Tenant: t\r\n\r\nx\r\n", "s",
                 b"no field\r\nX-Hayauma-Tenant: t\r\n\r\nx\r\n", None),
                (b"X-Hayauma-Tenant: t\r\nSubject: s\r\nFrom me\r\nBcc: z\r\n", "s",
                 b"From me\r\nBcc: z\r\n", "t"),
                (b"Bcc: z@d.example\r\nSubject: s\r\nResent-Bcc:\r\n z\r\nReturn-Path: <z>\r\n\r\nx\r\n",
                 "s", b"x\r\n", None),
                (b"no field\r\n", None, b"no field\r\n", None),
                (b"From me@x Mon Jan  1 00:00:00 2026\r\nX-Hayauma-Tenant: t\r\nSubject: s\r\n"
                 b"\r\nx\r\n", "s", b"x\r\n", "t"),
                (b"\xef\xbb\xbfX-Hayauma-Tenant: t\r\nSubject: s\r\n\r\nx\r\n", "s", b"x\r\n", "t"),
                (b"\r\nX-Hayauma-Tenant: t\r\nSubject: s\r\n\r\nx\r\n", "s", b"x\r\n", "t"),
                (b"\r\ntext: of no header\r\n", None, b"text: of no header\r\n", None),
                (b"Subject: s\r\n", "s", b"", None)):
            reply = client.expect(client.message("b@d.example", data=data), 250)
            content = stored(engine, reply)
            header, _, rest = content.partition(b"\r\n\r\n")
            message = email.message_from_bytes(content)
            assert rest == body and message["Subject"] == subject, (data, content)
            assert not re.search(rb"(?im)^(x-hayauma|bcc|return-path)", header), content
            assert message["Message-ID"] and message["Date"], content
            ours = [r for r in engine.wait_records("Reception") if r["id"] == reply.split()[-1]]
            assert ours[0]["meta"].get("tenant") == private, (data, ours)


def test_bare_newlines():
    """Refused, or repaired where the listener or the network says so; nothing but CRLF.CRLF ends the
    content, and what goes out is whole lines with their dots stuffed."""
    odd = (b"Subject: s\nX-Hayauma-Tenant: t\n\na\n..b\n.\nMAIL FROM:<evil@x.example>\r\n"
           b"RCPT TO:<evil@d.example>\nDATA\n.\r\nc\rd\r\n")
    even = (b"Subject: s\r\n\r\na\r\n.b\r\n.\r\nMAIL FROM:<evil@x.example>\r\n"
            b"RCPT TO:<evil@d.example>\r\nDATA\r\n.\r\nc d\r\n")
    with holding(clients={"127.0.0.1/32": {"bare_newlines": "repair"}},
                 relay_networks=["127.0.0.0/8"]) as engine:
        with Client(engine) as client:
            content = stored(engine, client.expect(client.message("b@d.example", data=odd), 250))
            assert content.endswith(even), content
            client.expect(client.command("MAIL FROM:<a@sender.example>"), 250)
            client.expect(client.command("RCPT TO:<b@d.example>"), 250)
            chunk = odd.replace(b"\n..b", b"\n.b")
            client.send(b"BDAT 7\r\n" + chunk[:7] + b"BDAT %d LAST\r\n" % (len(chunk) - 7) + chunk[7:])
            client.expect(client.reply(), 250)
            assert stored(engine, client.expect(client.reply(), 250)).endswith(even)
            client.send(b"NOOP\n")
            client.expect(client.reply(), 250)
        assert all(r["meta"]["tenant"] == "t" for r in engine.wait_records("Reception", 2))
        with Client(engine, source=STRANGER) as client:
            client.expect(client.message("b@d.example", data=odd), 554)
            assert client.ended()
    behaviour = TempDir("hayauma-lenient-").path / "behaviour.yaml"
    behaviour.write_text("default: {without: [chunking]}\n")
    with Sink(behaviour) as sink:  # Python's own client sends LF
        engine = Engine(to_sink(sink))
        engine.config["listeners"][0]["bare_newlines"] = "repair"
        message = email.message.EmailMessage()
        message["From"], message["Subject"] = "a@sender.example", "s"
        message.set_content("a\n.\n..b\n")
        with engine:
            with smtplib.SMTP(engine.host, engine.port) as client:
                client.sendmail("a@sender.example", ["b@d.example"], message.as_bytes())
            engine.wait_records("Delivery")
        assert [row[3] for row in sink.ledger()] == ["b@d.example"], sink.ledger()


if __name__ == "__main__":
    run(globals())
