#!/usr/bin/env python3
"""hayauma sendmail: as programs call it."""

import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess

from cases import Sink, TempDir, free_port, program, run
from send import Keeper, parsed

USER = pwd.getpwuid(os.getuid()).pw_name
MAILNAME = pathlib.Path("/etc/mailname")
HOST = (MAILNAME.read_text().strip() if MAILNAME.exists() else "") or socket.gethostname()


def sendmail(server, *arguments, text="", code=0, link=None, env=None):
    """What it says on stderr; link: a path that it is called by; env: variables to add."""
    done = subprocess.run([link, *arguments] if link else [program(), "sendmail", *arguments],
                          input=text.encode() if isinstance(text, str) else text, capture_output=True, timeout=60,
                          env={**os.environ, "HAYAUMA_SERVER": server, **(env or {})}, check=False)
    assert done.returncode == code, (done.returncode, code, done.stderr)
    return done.stderr.decode()


def recipients(kept):
    return [re.sub(r">.*", "", r) for r in kept[1]]


def test_recipients_of_the_header():
    text = ("To: Taro <taro@a.example>, hana@a.example\nCc: group: one@b.example,\n two@b.example;\n"
            "Bcc: secret@c.example\nSubject: x\n\n.dot\n.\nbehind\n")
    with Keeper() as keeper:
        sendmail(keeper.address, "-t", "-i", "extra@d.example", text=text)
        (kept,) = keeper.kept
        assert recipients(kept) == ["extra@d.example", "taro@a.example", "hana@a.example", "one@b.example",
                                    "two@b.example", "secret@c.example"], kept
        message = parsed(kept)
        assert message["Bcc"] is None and b"secret" not in kept[2]
        assert kept[2].endswith(b"\r\n\r\n.dot\r\n.\r\nbehind\r\n"), kept[2]
        assert message["From"].addresses[0].addr_spec == f"{USER}@{HOST}"
        assert message["Date"].datetime and message["Message-ID"]
        assert kept[0].startswith(f"MAIL FROM:<{USER}@{HOST}>"), kept
        keeper.kept.clear()
        sendmail(keeper.address, "-t", text=text)  # ends at the dot
        assert keeper.kept[0][2].endswith(b"\r\n\r\n.dot\r\n"), keeper.kept


def test_sender_and_names():
    with Keeper() as keeper:
        sendmail(keeper.address, "-f", "bounce@a.example", "-F", "早馬", "root", text="no header here: at all\n")
        (kept,) = keeper.kept
        message = parsed(kept)
        assert kept[0].startswith("MAIL FROM:<bounce@a.example>") and recipients(kept) == [f"root@{HOST}"]
        assert (message["From"].addresses[0].display_name, message["From"].addresses[0].addr_spec) == \
            ("早馬", "bounce@a.example")
        assert kept[2].endswith(b"\r\n\r\nno header here: at all\r\n"), kept[2]
        keeper.kept.clear()
        sendmail(keeper.address, "-f", "", "-oi", "-oem", "-odb", "-B8BITMIME", "-N", "success,delay", "-R", "hdrs",
                 "a..b@docomo.example", text="From: x@a.example\r\nTo: y@a.example\r\nX: 早\r\n\r\nbody")
        (kept,) = keeper.kept
        assert kept[0].startswith("MAIL FROM:<>") and recipients(kept) == ['"a..b"@docomo.example'], kept
        assert parsed(kept)["From"] == "x@a.example" and kept[2].endswith(b"\r\n\r\nbody\r\n")


def test_names_beside_addresses():
    """Arguments may be as in a header; of a message that is sent again the old recipients have it."""
    with Keeper() as keeper:
        sendmail(keeper.address, "-f", "Shop <shop@a.example>", "<one@b.example>", '"Two, T." <two@b.example>,three@b.example',
                 text="Subject: x\n\nx\n")
        assert keeper.kept[0][0].startswith("MAIL FROM:<shop@a.example>")
        assert parsed(keeper.kept[0])["From"].addresses[0].addr_spec == "shop@a.example", keeper.kept
        assert recipients(keeper.kept[0]) == ["one@b.example", "two@b.example", "three@b.example"], keeper.kept
        keeper.kept.clear()
        sendmail(keeper.address, "-f", "<>", "one@b.example", text="Subject: x\n\nx\n")
        assert keeper.kept[0][0].startswith("MAIL FROM:<>"), keeper.kept
        assert parsed(keeper.kept[0])["From"].addresses[0].addr_spec == f"{USER}@{HOST}", keeper.kept
        keeper.kept.clear()
        sendmail(keeper.address, "-t", text="Resent-To: new@b.example\nResent-Bcc: secret@b.example\nTo: old@b.example\n"
                                            "Subject: x\n\nx\n")
        assert recipients(keeper.kept[0]) == ["new@b.example", "secret@b.example"], keeper.kept


def test_session():
    """-bs: the caller speaks SMTP with the engine, waiting for replies or not."""
    dialogue = (b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@b.example>\r\nDATA\r\nSubject: x\r\n\r\n" +
                b"much\r\n" * 40000 + b".\r\nQUIT\r\n")
    with Keeper() as keeper:
        env = {**os.environ, "HAYAUMA_SERVER": keeper.address}
        done = subprocess.run([program(), "sendmail", "-bs"], input=dialogue, capture_output=True, timeout=60, env=env,
                              check=True)
        assert [line[:3] for line in done.stdout.splitlines()] == [b"220"] + [b"250"] * 6 + [b"354", b"250", b"221"], done
        assert recipients(keeper.kept[0]) == ["c@b.example"] and len(keeper.kept[0][2]) > 240000
        with subprocess.Popen([program(), "sendmail", "-bs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env=env) as session:
            for line, code in ((b"", b"220"), (b"NOOP\r\n", b"250"), (b"QUIT\r\n", b"221")):
                session.stdin.write(line)
                session.stdin.flush()
                assert session.stdout.readline()[:3] == code
            assert session.wait(10) == 0
    done = subprocess.run([program(), "sendmail", "-bs"], input=b"", capture_output=True, timeout=60, check=False,
                          env={**os.environ, "HAYAUMA_SERVER": f"127.0.0.1:{free_port()}"})
    assert done.returncode == 75 and done.stdout.startswith(b"421 4.3.2 127.0.0.1:"), done


def test_envelope_id():
    """-V is text; on the way it is xtext."""
    with Keeper() as keeper:
        sendmail(keeper.address, "-V", "order 7+1=8", "-N", "success", "a@b.example", text="Subject: x\n\nx\n")
        (kept,) = keeper.kept
        assert " ENVID=order+207+2B1+3D8" in kept[0], kept
        for wrong in ("", "早馬", "a\nb", "x" * 101, "=" * 34):
            assert "-V takes" in sendmail(keeper.address, "-V", wrong, "a@b.example", text="x", code=64)


def test_exit_status():
    text = "Subject: x\n\nx\n"
    dead = f"127.0.0.1:{free_port()}"
    assert "Connection refused" in sendmail(dead, "a@b.example", text=text, code=75)
    assert "no recipients" in sendmail(dead, text=text, code=64)
    assert "no recipients" in sendmail(dead, "-t", text=text, code=65)
    assert "is no mail address: there is a blank" in sendmail(dead, "a b@c.example", text=text, code=65)
    assert "-N takes" in sendmail(dead, "-N", "often", "a@b.example", text=text, code=64)
    assert "-bv" in sendmail(dead, "-bv", code=64)
    assert "cannot be found now" in sendmail("mx.invalid", "a@b.example", text=text, code=75)
    sendmail(dead, "-bi")
    sendmail(dead, "-I")
    no_engine = {"HAYAUMA_SOCKET": "/nonexistent"}
    assert "cannot reach the engine" in sendmail(dead, "-q", code=75, env=no_engine)
    assert "cannot reach the engine" in sendmail(dead, "-q30m", code=75, env=no_engine)
    temp = TempDir()
    behaviour = temp.path / "b.yaml"
    behaviour.write_text("default: {}\nclasses:\n  - {name: no, domains: [no.example], refuse: 1}\n")
    with Sink(behaviour) as sink:
        sendmail(f"127.0.0.1:{sink.port}", 'a@b.example, "c,d"@b.example,', text=text)  # as cron's MAILTO
        assert {row[3] for row in sink.ledger()} == {"a@b.example", '"c,d"@b.example'}, sink.ledger()
        assert "a@no.example: 5" in sendmail(f"127.0.0.1:{sink.port}", "a@no.example", "a@b.example", text=text, code=69)


def test_other_names():
    temp = TempDir()
    links = {name: temp.path / name for name in ("sendmail", "mailq", "newaliases")}
    for path in links.values():
        path.symlink_to(pathlib.Path(program()).resolve())
    with Keeper() as keeper:
        sendmail(keeper.address, "-t", text="To: a@b.example\n\nx\n", link=links["sendmail"])
        assert recipients(keeper.kept[0]) == ["a@b.example"]
        sendmail(keeper.address, link=links["newaliases"])
        assert "cannot reach the engine" in sendmail(keeper.address, link=links["mailq"], code=75,
                                                     env={"HAYAUMA_SOCKET": "/nonexistent"})
        if shutil.which("php"):  # as PHP's mail() calls it
            keeper.kept.clear()
            subprocess.run(["php", "-d", f"sendmail_path={links['sendmail']} -t -i", "-r",
                            "exit(mail('php@b.example', 'subject', \"one\\n.\\ntwo\", 'From: p@a.example') ? 0 : 1);"],
                           check=True, timeout=60, env={**os.environ, "HAYAUMA_SERVER": keeper.address})
            assert recipients(keeper.kept[0]) == ["php@b.example"]
            assert keeper.kept[0][2].endswith(b"\r\n\r\none\r\n.\r\ntwo\r\n"), keeper.kept


if __name__ == "__main__":
    run(globals())
