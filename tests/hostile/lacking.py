#!/usr/bin/env python3
"""Servers without SMTPUTF8 and 8BITMIME get mail converted, what cannot be converted fails as content,
and neither stops other mail.

lacking.py [TEST...]"""

import email
import email.policy
import smtplib

from servers import Server, World, free_port, resident_bytes, run, wait_until

OLD = b"250-old.example\r\n250 PIPELINING\r\n"
EIGHT = b"250-eight.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
HEAD = ('From: "山田 太郎" <yamada@sender.example>\r\nTo: 鈴木 <u@x.example>\r\nSubject: 春の hello お知らせ\r\n'
        "Message-ID: <1@sender.example>\r\nDate: Sun, 29 Nov 2026 00:00:00 +0000\r\n")
TEXT = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
MANY = ("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + 10_001 * "--b\r\n\r\n多\r\n"
        + "--b--\r\n")
SIGNED = ("MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n"
          "署名された本文\r\n--b--\r\n")


def submit(world, content, *recipients, sender="a@sender.example", says=("SMTPUTF8", "BODY=8BITMIME")):
    with smtplib.SMTP(world.engine.host, world.engine.port, local_hostname="c.example", timeout=60) as s:
        refused = s.sendmail(sender, recipients, content.encode("utf-8"),
                             mail_options=says)
    assert not refused, refused


def subject_and_text(taken):
    m = email.message_from_bytes(taken, policy=email.policy.default)
    return m["Subject"], m["From"].addresses[0].display_name, m.get_content()


def test_converted():
    """As a reader sees it the mail is the same; where 8-bit bodies are taken only the header changes."""
    old, eight = Server({"EHLO": OLD}), Server({"EHLO": EIGHT})
    world = World({"old": old, "eight": eight}, retry="1h")
    submit(world, HEAD + TEXT + "本文です。\r\n", "u@old.example", "v@old.example", "u@eight.example")
    wait_until("all", lambda: world.records("Delivery", "old")[1:] and world.records("Delivery", "eight"), 20)
    want = ("春の hello お知らせ", "山田 太郎", "本文です。\r\n")
    wait_until("their contents", lambda: old.taken and eight.taken)
    for taken in old.taken + eight.taken:
        assert subject_and_text(taken) == want, subject_and_text(taken)
    assert all(b < 128 for t in old.taken for b in t)
    head, body = eight.taken[0].split(b"\r\n\r\n", 1)
    assert all(b < 128 for b in head) and body == "本文です。\r\n".encode()
    world.finish()


def test_what_stays():
    """Signed text goes out as it is also where 8BITMIME is not offered: encoded, a reader would call it forged.
    A stray byte in what is encoded stops no mail."""
    old = Server({"EHLO": OLD})
    world = World({"old": old}, retry="1h")
    submit(world, HEAD + SIGNED, "u@old.example")
    wait_until("the signed one", lambda: old.taken)
    head, body = old.taken[0].split(b"\r\n\r\n", 1)
    assert all(b < 128 for b in head) and body == SIGNED.split("\r\n\r\n", 1)[1].encode(), old.taken
    encoded = TEXT.replace("8\r\n", "8\r\nContent-Transfer-Encoding: quoted-printable\r\n")
    submit(world, HEAD + encoded + "=E6=9C=AC文\r\n", "u@old.example")
    wait_until("the encoded one", lambda: old.taken[1:])
    assert subject_and_text(old.taken[1])[2] == "本文\r\n", old.taken[1]
    wait_until("their records", lambda: len(world.records("Delivery", "old")) == 2)
    world.finish()


def test_what_cannot_be_converted():
    """It is the content, not the recipient; an address that is not ASCII is what RFC 6531 calls 5.6.7."""
    old, eight = Server({"EHLO": OLD}), Server({"EHLO": EIGHT})
    world = World({"old": old, "eight": eight}, retry="1h")
    submit(world, HEAD + MANY, "u@old.example")
    submit(world, HEAD + SIGNED, "u@eight.example")
    submit(world, "Subject: x\r\n" + MANY, "v@old.example", says=())
    submit(world, HEAD + TEXT, "w@eight.example", "日本@eight.example")
    submit(world, HEAD + TEXT, "x@eight.example", sender="送@sender.example")
    wait_until("all", lambda: world.records("Bounce", "old")[1:] and world.records("Bounce", "eight")[1:]
               and world.records("Delivery", "eight")[1:], 20)
    bounces = {r["recipient"]: r for r in world.records("Bounce", "old") + world.records("Bounce", "eight")}
    codes = {name: ".".join(str(r["response"]["enhanced_code"][k]) for k in ("class", "subject", "detail"))
             for name, r in bounces.items()}
    assert codes == {"u@old.example": "5.6.9", "v@old.example": "5.6.3", "日本@eight.example": "5.6.7",
                     "x@eight.example": "5.6.7"}, codes
    assert {r["bounce_classification"] for r in bounces.values()} == {"ContentRelated"}
    delivered = {r["recipient"] for r in world.records("Delivery", "eight")}
    assert delivered == {"u@eight.example", "w@eight.example"}, delivered
    world.finish()


def test_large():
    """A large message is converted once for all its recipients, while other mail flows; one that cannot
    be is looked at once and leaves no memory behind."""
    old = Server({"EHLO": OLD})
    world = World({"old": old}, retry="1h")
    body = ("長い本文です。" * 4 + "\r\n") * 60_000
    submit(world, HEAD + TEXT + body, *(f"u{i}@old.example" for i in range(10)))
    wait_until("all", lambda: len(world.records("Delivery", "old")) == 10, 60)
    wait_until("a content", lambda: old.taken)
    texts = {t.split(b"\r\n\r\n", 1)[1] for t in old.taken}
    assert len(texts) == 1
    assert subject_and_text(old.taken[0])[2].replace("\r\n", "\n") == body.replace("\r\n", "\n")
    before = resident_bytes(world.engine.process.pid)
    for i in range(3):
        submit(world, HEAD + MANY + "長い結び\r\n" * 150_000, *(f"s{i}{k}@old.example" for k in range(20)))
    wait_until("all", lambda: len(world.records("Bounce", "old")) == 60, 60)
    wait_until("memory is given back",
               lambda: resident_bytes(world.engine.process.pid) < before + (60 << 20), 30)
    world.finish()


def test_probe():
    """What a peer cannot take tells nothing of a destination that was stopped: behind twenty messages that
    fail here the mail that can be sent goes as the probe at once, not after half a minute for each."""
    port = free_port(("127.0.0.1",))
    world = World({}, retry="1s", routes={"old.example": f"[127.0.0.1]:{port}"})
    submit(world, HEAD + MANY, "s@old.example")
    wait_until("the stop", lambda: len(world.records("TransientFailure", "old")) >= 4, 30)
    for i in range(20):
        submit(world, HEAD + MANY, f"s{i}@old.example")
    world.send("old", "plain")
    old = Server({"EHLO": OLD}, port=port)
    wait_until("the mail", lambda: world.records("Delivery", "old"), 25)
    wait_until("the failures", lambda: len(world.records("Bounce", "old")) == 21, 20)
    world.finish()
    old.close()


if __name__ == "__main__":
    run(globals())
