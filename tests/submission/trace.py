#!/usr/bin/env python3
"""`hayauma trace`: what sessions say and hear, in and out, live; no password and no content is in it, and
who does not read holds up no mail.

trace.py [TEST...]"""

import json
import pathlib
import signal
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from auth import plain, user, word  # noqa: E402
from engine import Engine, Sink  # noqa: E402
from relay import PASSWORD, PLAIN, Client, Hop, Relay, TempDir, program, run, wait_empty, wait_until  # noqa: E402

SECRETS = (PASSWORD, PASSWORD[-8:], PLAIN, word(PASSWORD), word(f"\0shop\0{PASSWORD}"), "canary-text")
BODY = b"From: <a@sender.example>\r\nSubject: canary-text\r\n\r\ncanary-text\r\n"


class Trace:
    """The command at work, whose lines go to a file."""

    def __init__(self, engine, *options):
        self.file = engine.dir / f"trace{len(list(engine.dir.glob('trace*')))}"
        with open(self.file, "wb") as out:
            self.process = subprocess.Popen([program(), "trace", "--json", *options, "-c", engine.file],
                                            stdout=out)

    def lines(self):
        return [json.loads(line) for line in self.file.read_text().split("\n")[:-1]]

    def text(self, *members):
        """What was said in lines that have these (name, value) members."""
        return "\n".join(line["text"] for line in self.lines()
                         if all(line.get(name) == value for name, value in members))

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        return self.file.read_text()


def log_in(engine):
    """Each way in which a password can come, right and wrong."""
    with Client(engine) as client:
        client.expect(client.command("canary-text of no command"), 500)
        client.expect(client.command("MAIL FROM:<a@sender.example> SIZE=x"), 501)
        client.expect(client.command("RCPT TO:<early@d0.example>"), 503)
        client.expect(client.command("AUTH LOGIN"), 334)
        client.expect(client.command(word("shop")), 334)
        client.expect(client.command(word(PASSWORD + "x")), 535)
        client.expect(client.command(plain("shop", PASSWORD)), 235)
        client.expect(client.message("u@d0.example", data=BODY), 250)


def test_dialogues():
    """Both directions, each by its filter; the engine logs in at one hop and is refused, with its
    password in the words, by another."""
    temp = TempDir("hayauma-trace-")
    with Hop() as good, Hop(refuse=f"535 5.7.8 not with {PASSWORD} nor {PLAIN}") as bad:
        engine = Relay(temp.path / "engine", good, bad, auth_without_tls=True)
        engine.config["listeners"][0].update({"auth": "offered", "auth_without_tls": True})
        engine.config["auth"] = {"users_file": str(engine.dir / "users")}
        user(engine, "add", "shop", "--method", "sha512", password=PASSWORD)
        with engine:
            every, clients = Trace(engine), Trace(engine, "--client", "127.0.0.0/8")
            site = Trace(engine, "--site", f"[127.0.0.1]:{good.port}")
            for trace in every, clients, site:  # it sees sessions from when it is there
                def is_there(trace=trace):
                    with Client(engine):
                        pass
                    return trace is site or trace.lines()
                wait_until("the trace", is_there, 20, process=engine.process)
            others = Trace(engine, "--client", "192.0.2.0/24")
            log_in(engine)
            engine.send()
            wait_until("the engine's logins", lambda: good.taken >= 2 and bad.said("AUTH"), 30,
                       process=engine.process)
            wait_until("their dialogue", lambda: all(word in every.text(("direction", "out"))
                                                     for word in ("250 taken", "535")), 20,
                       process=engine.process)
            texts = [trace.end() for trace in (every, clients, site, others)]
            for text in texts:
                for secret in SECRETS:
                    assert secret not in text, (secret, text)
            came = every.text(("direction", "in"), ("from", "peer"))
            for said in ("EHLO client.example", "[no command]", "RCPT\n", "AUTH [login]", "MAIL <a@sender.example>",
                         "RCPT <u@d0.example>", "DATA", "bytes of content]"):
                assert said in came, (said, came)
            assert "250 2.0.0" in every.text(("direction", "in"), ("from", "us"))
            went = every.text(("direction", "out"), ("from", "us"))
            for said in ("EHLO mta.sender.example", "[login]", "RCPT TO:<u@d0.example>", "bytes of content]"):
                assert said in went, (said, went)
            assert {line["direction"] for line in clients.lines()} == {"in"}
            assert {line["direction"] for line in site.lines()} <= {"out"}
            assert not others.lines()
            slow_reader(engine, good)
        temp.close()


def slow_reader(engine, hop):
    """Who asks for a trace and reads nothing: mail goes on, and the lines that have no room are counted."""
    before = hop.taken
    with socket.socket(socket.AF_UNIX) as reader:
        reader.connect(engine.config["control_socket"])
        reader.sendall(b'{"op":"trace"}\n')
        with Client(engine) as client:
            for i in range(300):
                client.expect(client.message(f"u{i}@d0.example", data=BODY), 250)
        wait_until("the mail", lambda: hop.taken >= before + 300, 60, process=engine.process)
        assert engine.status()["counters"]["delivered"] >= 300


def test_of_one_message():
    """What is said for one message, and nothing of the others that the same session carries before and
    behind it."""
    sink = Sink()
    sink.behaviour = sink.dir / "world.yaml"
    sink.behaviour.write_text('default: {defer: {rate: 1, at: rcpt}}\n')
    config = {"dns": sink.dns(), "destinations": {"*": {"sessions_max": 1, "pipeline_max": 1}}}
    with sink, Engine(config) as engine:
        with Client(engine) as client:
            for i in range(3):
                client.expect(client.message(f"r{i}@x.example", data=BODY), 250)
        wanted = wait_until("its row", lambda: [row["id"] for row in engine.rows("queue", "list", "x.example")
                                                if row["recipient"] == "r1@x.example"],
                            20, process=engine.process)[0]
        trace = Trace(engine, "--message", wanted)

        def heard():
            engine.command("queue", "flush", "x.example")
            return "451" in trace.text(("from", "peer"))

        wait_until("the message's dialogue", heard, 20, process=engine.process)
        text = trace.end()
        for other in ("r0@x.example", "r2@x.example", "canary-text"):
            assert other not in text, (other, text)
        assert "RCPT TO:<r1@x.example>" in text, text


if __name__ == "__main__":
    run(globals())
