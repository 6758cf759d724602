#!/usr/bin/env python3
"""hayauma send: messages from files and parts to recipients from everywhere."""

import email
import email.header
import email.policy
import json
import pathlib
import time

from cases import Sink, TempDir, free_port, ledger_check, run, tool

HERE = pathlib.Path(__file__).resolve().parent


class Keeper:
    """An SMTP server that keeps whole messages, from the standard library's parts."""

    def __init__(self):
        import socketserver  # pylint: disable=import-outside-toplevel
        import threading  # pylint: disable=import-outside-toplevel
        kept = self.kept = []

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                self.wfile.write(b"220 keeper\r\n")
                sender, recipients = None, []
                while line := self.rfile.readline():
                    verb, reply = line[:4].upper(), b"250 ok\r\n"
                    if verb == b"EHLO":
                        reply = b"250-keeper\r\n250-8BITMIME\r\n250-DSN\r\n250 SMTPUTF8\r\n"
                    elif verb == b"MAIL":
                        sender, recipients = line.decode().strip(), []
                    elif verb == b"RCPT":
                        recipients.append(line.decode().strip()[9:-1])
                    elif verb == b"DATA":
                        self.wfile.write(b"354 go\r\n")
                        body = b""
                        while (line := self.rfile.readline()) != b".\r\n":
                            body += line[1:] if line.startswith(b".") else line
                        kept.append((sender, recipients, body))
                    elif verb == b"QUIT":
                        self.wfile.write(b"221 bye\r\n")
                        return
                    self.wfile.write(reply)

        socketserver.ThreadingTCPServer.daemon_threads = True
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.address = "127.0.0.1:%d" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def parsed(kept):
    return email.message_from_bytes(kept[2], policy=email.policy.default)


def decoded(field):
    parts = email.header.decode_header(field.replace("\r\n ", " "))
    return str(email.header.make_header(parts)).strip()


def send(to, *arguments, **options):
    return tool("send", "--server", to, "--json", *arguments, **options)


def file_of(temp, name, text):
    path = temp.path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_message_as_it_is():
    temp = TempDir()
    eml = file_of(temp, "m.eml", "From: Me <me@a.example>\nTo: list@a.example\nSubject: x\n"
                                 "Message-ID: <1@a>\nDate: Sun, 22 Nov 2026 01:00:00 +0000\n\n"
                                 ".dot\nend")
    with Keeper() as keeper:
        send(keeper.address, "--eml", eml, "one@b.example", "two@b.example")
        assert len(keeper.kept) == 2
        for sender, _, body in keeper.kept:
            assert sender.startswith("MAIL FROM:<me@a.example>")
            assert body == eml.read_bytes().replace(b"\n", b"\r\n") + b"\r\n", body
        assert sorted(k[1][0] for k in keeper.kept) == ["one@b.example", "two@b.example"]


def test_missing_fields_are_added():
    temp = TempDir()
    eml = file_of(temp, "m.eml", "From: me@a.example\r\nSubject: x\r\n\r\nHi\r\n")
    with Keeper() as keeper:
        send(keeper.address, "--eml", "-", "--from", "bounce@a.example", "one@b.example",
             "two@b.example", text=eml.read_text())
        messages = [parsed(k) for k in keeper.kept]
        assert len({m["Message-ID"] for m in messages}) == 2
        for message, (sender, recipients, _) in zip(messages, keeper.kept):
            assert message["To"] == recipients[0] and message["Date"].datetime
            assert message["Message-ID"].endswith("@a.example>")
            assert sender.startswith("MAIL FROM:<bounce@a.example>")
        keeper.kept.clear()
        send(keeper.address, "--eml", eml, "--batch", "10", "--from", "",
             *(f"u{n}@b.example" for n in range(25)))
        assert sorted(len(k[1]) for k in keeper.kept) == [5, 10, 10]
        assert {k[0].split()[1] for k in keeper.kept} == {"FROM:<>"}
        assert parsed(keeper.kept[0])["To"] == "undisclosed-recipients:;"


def test_parts():
    temp = TempDir()
    text = file_of(temp, "t.txt", "早馬は夜を走る。\n.\nend\n")
    html = file_of(temp, "t.html", "<p>早馬</p>\n")
    image = file_of(temp, "a b.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    with Keeper() as keeper:
        send(keeper.address, "--text", text, "--html", html, "--attach", image, "--subject",
             "お知らせ: 早馬", "--from", "早馬 <news@a.example>", "one@b.example")
        message = parsed(keeper.kept[0])
        assert message["Subject"] == "お知らせ: 早馬"
        assert message["From"].addresses[0].display_name == "早馬"
        assert message.get_content_type() == "multipart/mixed"
        plain, page = (message.get_body((kind,)) for kind in ("plain", "html"))
        assert plain.get_payload(decode=True).decode() == text.read_text().replace("\n", "\r\n")
        assert page.get_payload(decode=True).decode() == html.read_text().replace("\n", "\r\n")
        attached, = message.iter_attachments()
        assert attached.get_filename() == "a b.png" and attached.get_content_type() == "image/png"
        assert attached.get_content() == image.read_bytes()
        keeper.kept.clear()
        send(keeper.address, "--html", html, "--from", "n@a.example", "one@b.example")
        assert parsed(keeper.kept[0]).get_content_type() == "text/html"


def test_line_ends_of_text_parts():
    """CRLF in every encoding (RFC 2045 6.8), whatever the file has; nothing else changes."""
    temp = TempDir()
    for text in ("plain\r\nlines\n", "早馬は\n夜を走る。\r\n", "caf\u00e9 \nand many words of English = \t\n"):
        for ends in ("\n", "\r\n"):
            given = text.replace("\r\n", "\n").replace("\n", ends)
            with Keeper() as keeper:
                send(keeper.address, "--text", file_of(temp, "t.txt", given), "--from",
                     "n@a.example", "one@b.example")
                part = parsed(keeper.kept[0])
                got = part.get_payload(decode=True).decode(part.get_content_charset())
                assert got == text.replace("\r\n", "\n").replace("\n", "\r\n"), got
                assert max(map(len, keeper.kept[0][2].split(b"\r\n"))) <= 100


def test_names_of_attachments():
    """A name stays inside its parameter, or is refused."""
    temp = TempDir()
    text = file_of(temp, "t.txt", "x\n")
    message = ("--text", text, "--from", "n@a.example", "--attach")
    with Keeper() as keeper:
        for name in ('a"b\\c;d=e.txt', "見積書" * 20 + ".txt", "x" * 200, "a b.txt", "é.txt"):
            keeper.kept.clear()
            send(keeper.address, *message, file_of(temp, name, "y\n"), "one@b.example")
            attached, = parsed(keeper.kept[0]).iter_attachments()
            assert attached.get_filename() == name, attached.items()
            assert {k for k, _ in attached.items()} == {
                "Content-Type", "Content-Disposition", "Content-Transfer-Encoding"}
        keeper.kept.clear()
        for name in ('a"\nX-Injected: yes\nContent-Disposition: inline; x="y.txt', "a\rb", "a\x1bb",
                     "a\x7fb", "\udc93\udcfa"):
            done = send(keeper.address, *message, temp.path / name, "one@b.example", status=2)
            assert "a header takes only UTF-8 without control characters" in done.stderr, done.stderr
            assert "\x1b" not in done.stderr and not keeper.kept


def test_from_the_null_sender():
    temp = TempDir()
    text = file_of(temp, "t.txt", "x\n")
    with Keeper() as keeper:
        for arguments, sender, field in (
                (["--from", "", "--from-field", "Me <me@a.example>"], "<>", "Me <me@a.example>"),
                (["--from", "b@a.example", "--from-field", "me@a.example"], "<b@a.example>",
                 "me@a.example"),
                (["--from-field", "Me <me@a.example>"], "<me@a.example>", "Me <me@a.example>")):
            keeper.kept.clear()
            send(keeper.address, "--text", text, *arguments, "one@b.example")
            assert keeper.kept[0][0] == "MAIL FROM:" + sender, keeper.kept
            assert parsed(keeper.kept[0])["From"] == field, parsed(keeper.kept[0])["From"]
            assert parsed(keeper.kept[0])["Message-ID"].endswith("@a.example>")


def test_recipients_from_everywhere():
    temp = TempDir()
    eml = file_of(temp, "m.eml", "From: me@a.example\n\nHi\n")
    lines = file_of(temp, "l.txt", "# ours\n a@b.example \r\n\nno address\nb@b.example")
    csv = file_of(temp, "l.csv", b"\xef\xbb\xbfName,\"E\"\"x\",EMAIL\r\n"
                  b"\"Smith, J\",1,c@b.example\r\n\"two\nlines\",2,\" d@b.example \"\n"
                  b"short\n,,\nx,y,bad@@b\nx,\xff,\xff@b.example\n"
                  b"x,1,f@b.example")
    with Sink() as sink:
        done = send(f"{sink.host}:{sink.port}", "--eml", eml, "--to-file", lines, "--csv", csv,
                    "x@b.example", "not one", status=1)
        took = sorted(row[3] for row in sink.ledger())
        assert took == [f"{c}@b.example" for c in "abcdfx"], took
        for wanted in ("recipient 2: 'not one': is no mail address: there is a blank in it", "l.txt:4: 'no address'",
                       "l.csv:5: the line has no such cell", "l.csv:6: no address",
                       "l.csv:7: 'bad@@b'", "l.csv:8: ", "not UTF-8"):
            assert wanted in done.stderr, (wanted, done.stderr)
        summary = json.loads(done.stdout)
        assert summary["accepted"] == summary["recipients"] == 6 and summary["invalid"] == 6, summary
        send(f"{sink.host}:{sink.port}", "--eml", eml, "--csv", "-", text="mail\nq@b.example\n",
             *("--column", "Mail"))
        assert sink.ledger()[-1][3] == "q@b.example"


def test_malformed_csv():
    """A file that is broken somewhere is not sent to its half: nobody gets anything."""
    temp = TempDir()
    eml = file_of(temp, "m.eml", "From: me@a.example\n\nHi\n")
    good = "".join(f"n{i},u{i}@b.example\n" for i in range(200))
    with Sink() as sink:
        for broken, why in (('"open,x@b.example\n', "a quote is not closed before the end of the file"),
                            ('"two" words,x@b.example\n', "text behind a closing quote"),
                            ('five "5,x@b.example\n', "a quote inside a cell that is not quoted"),
                            ('"open,x@b.example\n' + good + '"n",y@b.example\n',
                             "text behind a closing quote")):
            csv = file_of(temp, "l.csv", "name,email\n" + good + broken + good)
            done = send(f"{sink.host}:{sink.port}", "--eml", eml, "--csv", csv, status=2)
            assert f"l.csv:202: {why}; nothing was sent" in done.stderr, (why, done.stderr)
        assert sink.ledger() == []


def test_types_of_attachments():
    """From the program's own table, whatever the host knows."""
    temp = TempDir()
    text = file_of(temp, "t.txt", "see below\n")
    for name, content, kind, charset in (
            ("a.pdf", b"x", "application/pdf", None), ("A.JPG", b"x", "image/jpeg", None),
            ("b.csv", "名,x\n", "text/csv", "utf-8"), ("c.txt", b"\x8e\xc5", "text/plain", None),
            ("d.tar.gz", b"x", "application/gzip", None), ("e.unknown", b"x", "application/octet-stream", None),
            ("none", b"x", "application/octet-stream", None), ("f.ics", b"x", "text/calendar", "utf-8"),
            ("g.xlsx", b"x", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", None)):
        file = file_of(temp, name, content)
        with Keeper() as keeper:
            send(keeper.address, "--text", text, "--from", "n@a.example", "--attach", file, "x@b.example")
            attached, = parsed(keeper.kept[0]).iter_attachments()
        assert attached.get_content_type() == kind, (name, attached["Content-Type"])
        assert attached.get_content_charset() == charset, (name, attached["Content-Type"])


def test_utf8_addresses():
    """A Japanese domain alone asks no server for SMTPUTF8."""
    temp = TempDir()
    eml = file_of(temp, "m.eml", "From: me@a.example\n\nHi\n")
    with Sink() as sink:
        send(f"{sink.host}:{sink.port}", "--eml", eml, "用户@例え.example")
        assert sink.ledger()[0][3] == "用户@例え.example"
        assert next(ledger_check.read_ledger(sink.ledger_file)).recipient == "用户@例え.example"
    with Keeper() as keeper:
        send(keeper.address, "--text", eml, "--from", "花子 <hanako@日本.example>", "--subject", "x",
             "taro@例え.example")
        (sender, recipients, body), = keeper.kept
        assert sender == "MAIL FROM:<hanako@xn--wgv71a.example>", sender
        assert recipients == ["taro@xn--r8jz45g.example"]
        assert body.isascii() and b"\nTo: <taro@xn--r8jz45g.example>" in body, body


def test_long_japanese_header():
    """RFC 2047 2: an encoded-word has at most 75 bytes, and a line with one at most 76."""
    temp = TempDir()
    text = file_of(temp, "t.txt", "x\n")
    for subject in ("早馬は夜を走る。" * 12, "x" * 30 + "早馬" * 30, "Spring news " * 20, 'a "b" \\c?',
                    "=?utf-8?q?not_encoded?="):
        with Keeper() as keeper:
            send(keeper.address, "--text", text, "--subject", subject, "--from",
                 "早馬通信編集部" * 6 + " <news@a.example>", "one@b.example")
            message = email.message_from_bytes(keeper.kept[0][2])
            assert decoded(message["Subject"]) == subject.strip(), message["Subject"]
            assert decoded(message["From"]).startswith("早馬通信編集部" * 6), message["From"]
            header = keeper.kept[0][2].split(b"\r\n\r\n")[0]
            assert max(map(len, header.split(b"\r\n"))) <= 76, header


def test_blind_copies_stay_blind():
    temp = TempDir()
    eml = file_of(temp, "m.eml", "From: me@a.example\nBCC: secret@a.example,\n more@a.example\n"
                                 "Subject: x\n\nBcc: in the text\n")
    with Keeper() as keeper:
        send(keeper.address, "--eml", eml, "--from", "", "one@b.example")
        body = keeper.kept[0][2]
        assert b"secret" not in body and b"more" not in body, body
        assert parsed(keeper.kept[0])["Subject"] == "x" and b"\r\nBcc: in the text" in body
        assert parsed(keeper.kept[0])["Message-ID"].endswith("@a.example>")


def test_refusals_and_deferrals():
    temp = TempDir()
    eml = file_of(temp, "m.eml", "From: me@a.example\n\nHi\n")
    sink = Sink()
    sink.behaviour = file_of(sink.temp, "b.yaml", "classes: [{name: u, domains: [u.example], "
                             "refuse: {}}, {name: d, domains: [d.example], greylist: 1s}]")
    with sink:
        done = send(f"{sink.host}:{sink.port}", "--eml", eml, "a@u.example", "b@d.example",
                    "c@o.example", status=1)
        assert "a@u.example: 550 refused by policy" in done.stderr, done.stderr
        assert sorted(row[3] for row in sink.ledger()) == ["b@d.example", "c@o.example"]
        summary = json.loads(done.stdout)
        assert summary["accepted"] == 2 and summary["refused"] == 1, summary


def test_many():
    temp = TempDir()
    eml = file_of(temp, "m.eml", "From: me@a.example\n\nHi\n")
    csv = file_of(temp, "l.csv", "email\n" + "".join(f"u{n}@d.example\n" for n in range(20000)))
    with Sink() as sink:
        start = time.monotonic()
        send(f"{sink.host}:{sink.port}", "--eml", eml, "--csv", csv)
        assert len({row[3] for row in sink.ledger()}) == 20000
        assert len({row[6] for row in sink.ledger()}) == 20000  # Message-IDs
        assert time.monotonic() - start < 30


def test_what_cannot_be_sent():
    temp = TempDir()
    good = file_of(temp, "m.eml", "From: me@a.example\n\nHi\n")
    for text, wanted in (("", "empty"), ("hello\n", ":1: not a message"), ("\nhello\n", "no header"),
                         ("From: a@b\nbroken line\n\nx\n", ":2: not a message"),
                         (" folded: x\n\n", ":1: not a message"),
                         ("Subject: x\n\nx\n", "no From field"),
                         ("From: a@b.example, c@d.example\n\nx\n", "--from"),
                         (b"From: a@b.example\n\n\0", "NUL")):
        eml = file_of(temp, "bad.eml", text)
        done = tool("send", "--eml", eml, "a@b.example", status=2)
        assert wanted in done.stderr, (text, done.stderr)
    for arguments, wanted in (
            (["--eml", temp.path / "none", "a@b.example"], "No such file"),
            (["--eml", good], "no recipients"), (["--eml", good, "bad"], "no recipients left"),
            (["a@b.example"], "no message"), (["--text", good, "a@b.example"], "--from is needed"),
            (["--text", good, "--from", "", "a@b.example"], "--from-field is needed"),
            (["--eml", good, "--from-field", "a@b.example", "a@b.example"], "takes no parts"),
            (["--text", good, "--from-field", "nobody", "a@b.example"],
             "--from-field: 'nobody' is not a mail address"),
            (["--eml", good, "--subject", "x", "a@b.example"], "takes no parts"),
            (["--eml", good, "--csv", good], "no column 'email'"),
            (["--eml", good, "--csv", temp.path / "none"], "No such file"),
            (["--eml", good, "--from", "nobody", "a@b.example"], "not a mail address"),
            (["--text", good, "--from", "no address", "a@b.example"], "not a mail address"),
            (["--text", good, "--from", "a@b.example", "--subject", "\udc93\udcfa", "a@b.example"],
             "UTF-8"),
            (["--text", good, "--from", "a@b.example", "--subject", "x\r\nBcc: evil@x", "a@b.example"],
             "control characters"),
            (["--text", good, "--from", "x\r\nBcc: <a@b.example>", "a@b.example"],
             "control characters"),
            (["--text", "-", "--to-file", "-", "--from", "a@b.example"], "read once"),
            (["--eml", good, "--server", "nosuch.invalid", "a@b.example"], "no such host"),
            (["--eml", good, "--timeout", "0s", "a@b.example"], "out of range"),
            (["--eml", good, "--batch", "0", "a@b.example"], "--batch: cannot use '0': out of")):
        done = tool("send", *arguments, status=2)
        assert wanted in done.stderr and "CRITICAL" not in done.stderr, (arguments, done.stderr)
    for text, wanted in (("Mail;name\na@b.example;A\n", "write commas"),
                         ("Mail\tname\na@b.example\tA\n", "write commas"),
                         ("a@b.example\nb@b.example\n", "--to-file"), ("E-Mail,name\n", "--column says"),
                         ("email,name\na@b.example,A\n".encode("utf-16"), "write it as UTF-8")):
        done = tool("send", "--eml", good, "--csv", file_of(temp, "bad.csv", text), status=2)
        assert "no column 'email'" in done.stderr and wanted in done.stderr, (text, done.stderr)
    with Sink(arguments=["--size-max", "2000"]) as sink:
        eml = file_of(temp, "big.eml", "From: a@b.example\n\n" + "line\n" * 1000)
        done = send(f"{sink.host}:{sink.port}", "--eml", eml, "a@b.example", status=1)
        assert "larger than the server takes" in done.stderr, done.stderr
    done = send(f"127.0.0.1:{free_port()}", "--eml", good, "a@b.example", status=1)
    assert "Connection refused" in done.stderr, done.stderr
    assert json.loads(done.stdout)["unsent"] == 1
    assert "--csv FILE" in tool("send", "--help").stdout


if __name__ == "__main__":
    run(globals())
