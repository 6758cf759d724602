#!/usr/bin/env python3
"""Messages with a key (`idempotency_header`): accepted once however often they are sent, over crashes too.

keys.py [TEST...]"""

import base64
import collections
import contextlib
import pathlib
import signal
import subprocess
import sys
import threading
import time

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "lib"), str(TESTS / "hostile")]

from engine import Engine, program  # noqa: E402
from proc import Failure, wait_until  # noqa: E402
from servers import Server  # noqa: E402
from talk import Client, check, run  # noqa: E402

NAME = "X-Idempotency-Key"
LONG = "\r\n".join(["x" * 70] * 4000)
HELD = {"routes": {}}  # nobody resolves the domains: mail stays


class Keyed(Engine):
    def __init__(self, settings=None, listener=None, **more):
        super().__init__(settings or HELD, **more)
        self.config["listeners"][0].update({"idempotency_header": NAME, **(listener or {})})


def letter(key, text="hello", field=NAME):
    keyed = "" if key is None else f"{field}: {key}\r\n"
    return (f"From: <a@sender.example>\r\n{keyed}Subject: test\r\n\r\n{text}\r\n").encode()


def send(client, message, rcpts=("b@d.example",), sender="a@sender.example"):
    """The reply to the message."""
    lines = f"MAIL FROM:<{sender}>\r\n" + "".join(f"RCPT TO:<{r}>\r\n" for r in rcpts)
    client.send(lines.encode() + b"BDAT %d LAST\r\n" % len(message) + message)
    for _ in range(1 + len(rcpts)):
        client.expect(client.reply(), 250)
    return client.reply()


def rows(engine):
    return [(r["id"], r["recipient"]) for r in engine.rows("queue", "list")]


def test_once():
    """The same message with its key is one; another one with that key is refused, and so is what is no key."""
    with Keyed() as engine, Client(engine) as client:
        first = client.expect(send(client, letter("朝 1")), 250)
        check("again", send(client, letter("朝 1")), first)
        with Client(engine) as other:
            check("by another session", send(other, letter("朝 1")), first)
        check("another field's case", send(client, letter("朝 1", field=NAME.lower()))[:3], "550")
        check("one", rows(engine), [(first.split()[-1], "b@d.example")])
        for what, reply in (("text", send(client, letter("朝 1", "other"))),
                            ("recipient", send(client, letter("朝 1"), ["c@d.example"])),
                            ("sender", send(client, letter("朝 1"), sender="b@sender.example"))):
            check(what, reply, f"550 5.6.0 another message had this {NAME} within 24 hours")
        for what, message in (("empty", letter("")), ("long", letter("x" * 257)), ("folded", letter("a\r\n b")),
                              ("twice", letter("a").replace(b"Subject", f"{NAME}: b\r\nSubject".encode())),
                              ("no UTF-8", letter("k").replace(b": k", b": \xff"))):
            check(what, send(client, message), f"550 5.6.0 {NAME} is not one field of 1 to 256 characters")
        check("longest", send(client, letter("語" * 256))[:3], "250")
        check("no key", (send(client, letter(None))[:3], send(client, letter(None))[:3]), ("250", "250"))
        check("many", send(client, letter("many"), [f"r{i}@d{i}.example" for i in range(300)])[:3], "250")
        check("many again", send(client, letter("many"), [f"r{i}@d{i}.example" for i in range(300)])[:3], "250")
        check("rows", len(rows(engine)), 1 + 1 + 2 + 300)


def test_taken_off():
    """Receivers do not see the key, and see what else is in the header."""
    server = Server({})
    with Keyed({"routes": {"*": f"[127.0.0.1]:{server.port}"}}) as engine, Client(engine) as client:
        client.expect(send(client, letter("secret")), 250)
        wait_until("the letter", lambda: len(server.taken) == 1)
    (got,) = server.taken
    check("key", NAME.encode() in got, False)
    check("rest", got.endswith(b"\r\n" + letter(None)), True)


def test_whose():
    """Keys are each user's own; without a login each network's of each listener."""
    engine = Keyed(listener={"auth": "offered", "auth_without_tls": True,
                             "relay_networks": ["127.0.0.0/8", "127.0.0.2/32"]})
    users = engine.dir / "users"
    for name in ("shop", "post"):
        subprocess.run([program(), "user", "add", name, "--file", users], input="Canary-4711-bird\n", text=True,
                       check=True, capture_output=True)
    engine.config["auth"] = {"users_file": str(users)}
    with engine:
        replies = set()
        for name in ("shop", "post", ""):
            with Client(engine) as client:
                if name:
                    text = base64.b64encode(f"\0{name}\0Canary-4711-bird".encode()).decode()
                    client.expect(client.command(f"AUTH PLAIN {text}"), 235)
                replies.add(client.expect(send(client, letter("k", name)), 250))
        with Client(engine, source="127.0.0.2") as client:
            replies.add(client.expect(send(client, letter("k", "other")), 250))
            check("again", client.expect(send(client, letter("k", "other")), 250) in replies, True)
        check("four", len(replies), 4)


def test_at_the_same_time():
    """Sessions that bring one message together: it is one; who comes too early hears 450, and sends again."""
    heard, lock = collections.Counter(), threading.Lock()
    with Keyed() as engine:
        def bring(number):
            with Client(engine) as client:
                reply = ""
                while not reply.startswith("250"):
                    time.sleep(0.05 if reply else 0)
                    reply = send(client, letter(f"k{number}", LONG))
                    with lock:
                        heard[reply.split(" queued")[0]] += 1
                with lock:
                    ids[number].add(reply.split()[-1])

        number = 0
        while not any(r.startswith("450 4.3.0 a message with this") for r in heard):
            ids = collections.defaultdict(set)
            threads = [threading.Thread(target=bring, args=(number,)) for _ in range(8)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            check("one id", len(ids[number]), 1)
            number += 1
            if number > 200:
                raise Failure(f"never at the same time: {heard}")
        check("codes", {r[:3] for r in heard}, {"250", "450"})
        check("messages", len(rows(engine)), number)


def test_pipelined():
    """Many messages in one packet, every third without a key: replies in their order; those with keys again."""
    with Keyed() as engine, Client(engine) as client:
        text = b""
        for n in range(60):
            body = letter(None if n % 3 == 0 else f"k{n}", f"text {n}")
            text += b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@d.example>\r\nBDAT %d LAST\r\n" % len(body) + body

        def bring():
            client.send(text + b"NOOP\r\n")
            ids = []
            for _ in range(60):
                client.expect(client.reply(), 250)
                client.expect(client.reply(), 250)
                ids.append(client.expect(client.reply(), 250).split()[-1])
            client.expect(client.reply(), 250)
            return ids

        first, second = bring(), bring()
        check("with keys", [i == j for i, j in zip(first, second)], [n % 3 != 0 for n in range(60)])
        texts = [engine.command("queue", "export", i) for i in (first[1], first[59])]
        check("in their order", ["text 1\n" in texts[0].replace("\r", ""), "text 59\n" in texts[1].replace("\r", "")],
              [True, True])
        check("messages", len(rows(engine)), 80)


def test_sessions_that_end():
    """Clients that go while their keys are looked for leave nothing that keeps others waiting."""
    with Keyed() as engine:
        message = letter("k", LONG)
        for _ in range(20):
            client = Client(engine)
            client.send(b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@d.example>\r\nBDAT %d LAST\r\n" % len(message)
                        + message)
            client.reset()
        with Client(engine) as client:
            reply = wait_until("an answer", lambda: (lambda r: r if r.startswith("250") else None)(
                send(client, message)), every_s=0.2)
            check("one", rows(engine), [(reply.split()[-1], "b@d.example")])


def test_drain():
    """What is past its end when the engine is told to end is taken, also while its key is looked for."""
    replies, lock = [], threading.Lock()

    def bring(number):
        with contextlib.suppress(OSError, Failure, ValueError, IndexError), Client(engine) as client:
            for n in range(100000):
                reply = send(client, letter(f"{number}-{n}", LONG))
                with lock:
                    replies.append(reply[:3])

    with Keyed() as engine:
        threads = [threading.Thread(target=bring, args=(n,)) for n in range(12)]
        for t in threads:
            t.start()
        wait_until("some answers", lambda: len(replies) > 50)
        engine.process.send(signal.SIGTERM)
        for t in threads:
            t.join()
        check("replies to messages", set(replies), {"250"})


def test_kill9():
    """A client that hears nothing sends again: each message is there once, with the id that was answered."""
    count, answered = 200, {}

    def bring():
        with contextlib.suppress(OSError, Failure, ValueError, IndexError):
            with Client(engine) as client:
                for n in range(count):
                    if n not in answered:
                        answered[n] = client.expect(send(client, letter(f"k{n}", f"text {n}")), 250).split()[-1]

    with Keyed() as engine:
        for _ in range(3):
            before = len(answered)
            thread = threading.Thread(target=bring)
            thread.start()
            wait_until("some answers", lambda: len(answered) > before + 20 or not thread.is_alive())
            engine.kill()
            thread.join()
            engine.start()
        kept = dict(answered)
        for n in list(answered)[::3]:  # the answer was lost on the way
            del answered[n]
        bring()
        check("answered", len(answered), count)
        check("the same ids", {n: answered[n] for n in kept}, kept)
        found = rows(engine)
        check("each once", (len(found), {i for i, _ in found}), (count, set(answered.values())))


if __name__ == "__main__":
    run(globals())
