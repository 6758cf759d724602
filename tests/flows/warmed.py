#!/usr/bin/env python3
"""Signing domains and campaigns that are being warmed up, or that a rule has suspended: no more of
their mail goes than the share of the hour, whichever source sends it, over crashes and reloads; other
mail does not wait for them; screens say what waits for what.

warmed.py [TEST...]"""

import json
import pathlib
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
sys.path.insert(0, str(HERE.parent / "dkim"))

from engine import Engine, Sink  # noqa: E402
from proc import Failure, TempDir, wait_until  # noqa: E402
from setting import Keys  # noqa: E402
from talk import Client, run  # noqa: E402

# See warmup.py: of 24 a day one or two go in an hour, and no second one soon.
SMALL = 24


class World:
    """A sink, and an engine that signs for new.example and old.example."""

    def __init__(self, settings, behaviour=None):
        self.temp = TempDir("hayauma-warmed-")
        keys = Keys(self.temp.path)
        for domain in ("new.example", "old.example"):
            keys.make(domain, kinds=("ed25519",))
        self.sink = Sink(behaviour=behaviour).start()
        self.engine = Engine({"dns": self.sink.dns(), "dkim": {"keys": keys.rows},
                              "destinations": {"*": {"retry": ["1s"]}}, **settings}).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.engine.__exit__(*_)
        self.sink.stop()
        self.temp.close()

    def send(self, user, count, author="old.example", head="", sender="a@sender.example",
             domain="x.example"):
        with Client(self.engine) as client:
            client.messages([(sender, f"{user}{i}@{domain}",
                              f"From: a@{author}\r\n{head}Subject: warm\r\n\r\ntext\r\n")
                             for i in range(count)])

    def came(self, user):
        return sum(any(field.startswith(user) and "@" in field for field in row)
                   for row in self.sink.ledger())


def warmup(**which):
    return {"warmup": {"schedules": {"mine": {"steps": [SMALL, SMALL + 1]}},
                       **{name: {of: {"schedule": "mine"} for of in names}
                          for name, names in which.items()}}}


def hour():
    return int(time.time() // 3600)


def stays(world, user, most, seconds=1):
    time.sleep(seconds)
    if world.came(user) > most:
        raise Failure(f"{world.came(user)} of {user} went, not {most}")


def kept(world, user, name, words):
    """What is warmed up sends one in the hour, whatever happens; the rest says what it waits for."""
    began, engine = hour(), world.engine
    wait_until("the first", lambda: world.came(user) >= 1)
    wait_until("the others", lambda: world.came("free") == 60)
    stays(world, user, 1 + hour() - began)
    wait_until("the reason", lambda: words in engine.command("queue", "list", "x.example", "--limit", "90")
               or hour() != began)
    wait_until("the reason in summary", lambda: "warmup" in json.dumps(engine.status()["destinations"]))
    one, = engine.rows("warmup", "status", name)
    share = one["hour_share"]
    if (one["provider"], one["stage"], one["cap"]) != ("default", 1, SMALL):
        raise Failure(f"{one}")
    for _ in range(2):
        engine.kill()
        engine.start()
        time.sleep(0.5)
    stays(world, user, share * (1 + hour() - began), 0)
    engine.command("warmup", "set", name, "--stage", "3")
    wait_until("no cap any more", lambda: world.came(user) == 30)


def test_signer():
    """Mail of one flow that several domains sign: only that of the new one waits."""
    with World(warmup(signing_domains=["new.example"])) as world:
        for _ in range(3):
            world.send("free", 10)
            world.send("warm", 10, author="new.example")
            world.send("free2", 10)
        # Three times the same users: 30 of each.
        kept(world, "warm", "signer:new.example", f"signing domain new.example: 1 of {SMALL} today")


def test_campaign():
    with World(warmup(campaigns=["spring"])) as world:
        head = "X-Hayauma-Campaign: spring\r\n"
        for _ in range(3):
            world.send("warm", 10, head=head)
            world.send("free", 20)
        kept(world, "warm", "campaign:spring", f"campaign spring: 1 of {SMALL} today")


def test_reload():
    """What was accepted before a domain was warmed up, and what waits when it no longer is."""
    with World({}) as world:
        world.engine.command("queue", "suspend", "x.example")
        world.send("warm", 20, author="new.example")
        world.send("free", 20)
        world.engine.config.update(warmup(signing_domains=["new.example"]))
        world.engine.reload()
        began = hour()
        world.engine.command("queue", "resume", "x.example")
        wait_until("the others", lambda: world.came("free") == 20)
        wait_until("the first", lambda: world.came("warm") >= 1)
        stays(world, "warm", 1 + hour() - began)
        world.engine.config["warmup"]["signing_domains"] = {}
        world.engine.reload()
        wait_until("all", lambda: world.came("warm") == 20)
        # The domain that signs all mail beside its author's counts with each.
        world.engine.config["warmup"]["signing_domains"] = {"new.example": {"schedule": "mine"}}
        world.engine.config["dkim"]["platform"] = "new.example"
        world.engine.reload()
        world.send("plat", 10)
        wait_until("the reason", lambda: "signing domain new.example: " in
                   world.engine.command("queue", "list", "x.example", "--limit", "90"))
        stays(world, "plat", 1 + hour() - began)


def test_suspended():
    """By an operator, at one site: mail of the domain waits there, other mail and other sites go."""
    with World({}) as world:
        engine = world.engine
        world.send("first", 1)
        site = engine.wait_records("Delivery")[0]["site"]
        engine.command("queue", "suspend", "--signer-site", f"New.Example@{site}")
        engine.command("queue", "suspend", "--envelope-site", f"held.example@{site}")
        world.send("signed", 10, author="new.example")
        world.send("held", 10, sender="a@held.example")
        world.send("free", 10)
        world.send("else", 10, author="new.example", domain="else.example")
        wait_until("other mail", lambda: (world.came("free"), world.came("else")) == (10, 10))
        engine.kill()
        engine.start()
        world.send("more", 10)
        wait_until("other mail again", lambda: world.came("more") == 10)
        if world.came("signed") or world.came("held"):
            raise Failure(f"{world.came('signed')} and {world.came('held')} went")
        wait_until("the reason", lambda: all(
            word in engine.command("queue", "list", "x.example", "--limit", "90")
            for word in (f"signer_site new.example@{site}", f"envelope_site held.example@{site}")))
        engine.command("queue", "resume", "--signer-site", f"new.example@{site}")
        engine.command("queue", "resume", "--envelope-site", f"held.example@{site}")
        wait_until("all", lambda: (world.came("signed"), world.came("held")) == (10, 10))


if __name__ == "__main__":
    run(globals())
