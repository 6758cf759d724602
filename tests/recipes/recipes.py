#!/usr/bin/env python3
"""Letters that are made of a recipe when they go out: what arrives, signed and as it was meant; the
same bytes in each attempt; recipients of whom none can be made; slow ones, which hold up nobody.

recipes.py [TEST...]; the environment's RECIPE_FILL is the program that fills the queue."""

import email
import email.header
import email.policy
import json
import os
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
sys.path.insert(0, str(HERE.parent / "dkim"))
from setting import CHUNKS, FULL, OLD, Engine, Keys, Receiver, Skip, TempDir, run, signatures, wait_until  # noqa: E402
from talk import check  # noqa: E402

CONTENT = {
    "from": {"email": "news@sender.example", "name": "早馬ニュース"},
    "subject": "{{ name }} 様、{{ city }} の便り",
    "text_body": "Hello {{ name }},\n.\n.dots and = signs\n" + "Greetings from {{ city }}. " * 8 + "\nBye",
    "html_body": "<p>こんにちは {{ name }}</p>\n" + "<p>" + "春です。" * 40 + "{{ code }}</p>\n",
    "headers": {"List-Unsubscribe": "<https://sender.example/u/{{ code }}>", "X-Hayauma-Priority": "1"},
}

# Debian's, whatever other python3 there is.
VERIFY = r"""
import json, sys, dkim
keys = json.load(open(sys.argv[1]))
for file in sys.argv[2:]:
    d = dkim.DKIM(open(file, "rb").read())
    for i in range(2):
        if not d.verify(i, dnsfunc=lambda name, timeout=5: keys[name.decode().rstrip(".")].encode()):
            print(file, i, "bad")
print("verified")
"""


class Spring:
    """An engine whose queue has one recipe and its recipients: {address: what /api/inject/v1 knows of
    one}. Receivers, each for a domain of its name."""

    def __init__(self, recipe, recipients, receivers, settings=None):
        self.temp = TempDir("hayauma-recipes-")
        self.receivers = receivers
        directory = self.temp.path / "engine"
        directory.mkdir()
        (directory / "recipe").write_text(json.dumps(recipe))
        lines = "".join(f"{address}\t{json.dumps(more) if more else ''}\n"
                        for address, more in recipients.items())
        done = subprocess.run([os.environ["RECIPE_FILL"], directory / "queue", directory / "recipe"],
                              input=lines, text=True, capture_output=True, check=True, timeout=60)
        self.id = done.stdout.strip()
        self.engine = Engine({
            "workers": 2,
            "routes": {f"{name}.example": f"[127.0.0.1]:{r.port}" for name, r in receivers.items()},
            "destinations": {"*": {"retry": ["1s"], "lifetime": "1h"}},
            **(settings or {})}, directory=directory).start()

    def wait(self, name, count, timeout_s=60):
        taken = self.receivers[name].taken
        wait_until(f"{count} at {name}", lambda: len(taken) >= count, timeout_s, process=self.engine.process)
        return taken

    def finish(self):
        self.engine.stop()
        for receiver in self.receivers.values():
            receiver.close()
        self.temp.close()


def parsed(content):
    return email.message_from_bytes(content, policy=email.policy.default)


def person(i):
    return {"name": f"花子 {i}", "substitutions": {"city": f"Kyōto-{i}", "code": f"c{i}"},
            "metadata": {"customer": i}}


def check_letter(content, i):
    letter = parsed(content)
    check("subject", letter["Subject"], f"花子 {i} 様、Kyōto-{i} の便り")
    check("to", letter["To"].addresses[0].addr_spec, f"u{i}@a.example")
    check("to's name", letter["To"].addresses[0].display_name, f"花子 {i}")
    check("from", letter["From"].addresses[0].display_name, "早馬ニュース")
    check("unsubscribe", letter["List-Unsubscribe"], f"<https://sender.example/u/c{i}>")
    check("what was for us", letter["X-Hayauma-Priority"], None)
    text = letter.get_body(("plain",)).get_content().replace("\r\n", "\n")
    check("text", text, CONTENT["text_body"].replace("{{ name }}", f"花子 {i}")
          .replace("{{ city }}", f"Kyōto-{i}") + "\n")
    html = letter.get_body(("html",)).get_content().replace("\r\n", "\n")
    check("html", html, CONTENT["html_body"].replace("{{ name }}", f"花子 {i}").replace("{{ code }}", f"c{i}"))
    assert re.fullmatch(r"<[0-9a-f]{32}@mta\.sender\.example>", letter["Message-ID"]), letter["Message-ID"]
    assert letter["Date"].datetime is not None
    return letter["Message-ID"], letter["Date"]


def test_letters():
    """Each recipient's own letter, signed, whatever the peer knows; records with the recipient's
    metadata and subject."""
    count, keys = 40, Keys(TempDir("hayauma-recipe-keys-").path)
    keys.make("sender.example")
    receivers = {"a": Receiver(FULL)}
    spring = Spring({"content": CONTENT}, {f"u{i}@a.example": person(i) for i in range(count)}, receivers,
                    {"dkim": {"keys": keys.rows}, "records": {"headers": ["Subject"]}})
    taken = spring.wait("a", count)
    records = spring.engine.wait_records("Delivery", count)
    check("one recipient a transaction", {len(recipients) for recipients, *_ in taken}, {1})
    seen = set()
    for recipients, content, _ in taken:
        i = int(recipients[0][1:].split("@")[0])
        seen.add(check_letter(content, i))
        check("signatures", len(signatures(content)), 2)
    check("message ids", len({s[0] for s in seen}), count)
    check("dates", len({str(s[1]) for s in seen}), 1)
    for r in records:
        i = int(r["recipient"][1:].split("@")[0])
        check("meta", r["meta"], {"campaign": "spring", "customer": i})
        check("id", r["id"], spring.id)
        subject = str(email.header.make_header(email.header.decode_header(r["headers"]["Subject"])))
        check("subject", subject, f"花子 {i} 様、Kyōto-{i} の便り")
    spring.finish()
    verify(keys, taken)


def test_warmed():
    """A signing domain that is being warmed up: of letters whose authors the recipients' variables
    name, those that it signs wait, and no other."""
    keys = Keys(TempDir("hayauma-recipe-keys-").path)
    for domain in ("new.example", "old.example"):
        keys.make(domain, kinds=("ed25519",))
    recipients = {f"{who}{i}@a.example": {"substitutions": {"author": f"{who}.example"}}
                  for i in range(20) for who in ("new", "old")}
    spring = Spring({"content": {"from": {"email": "news@{{ author }}"}, "subject": "spring", "text_body": "spring"}},
                    recipients, {"a": Receiver(FULL)},
                    {"dkim": {"keys": keys.rows},
                     "warmup": {"schedules": {"mine": {"steps": [24, 25]}},
                                "signing_domains": {"new.example": {"schedule": "mine"}}}})
    began, receiver = int(time.time() // 3600), spring.receivers["a"]

    def went(who):
        return sum(r.startswith(who) for rs, *_ in receiver.taken for r in rs)

    wait_until("the others", lambda: went("old") == 20, process=spring.engine.process)
    wait_until("the first", lambda: went("new") >= 1, process=spring.engine.process)
    time.sleep(1)
    assert went("new") <= 1 + int(time.time() // 3600) - began, went("new")
    one, = spring.engine.rows("warmup", "status", "signer:new.example")
    check("cap", one["cap"], 24)
    spring.engine.command("warmup", "set", "signer:new.example", "--stage", "3")
    wait_until("all", lambda: went("new") == 20, process=spring.engine.process)
    for recipients, content, _ in receiver.taken:
        check("who signs", signatures(content)[0]["d"], recipients[0][:3] + ".example")
    spring.finish()


def test_warmed_at_a_rate():
    """A letter that only its rendering shows to be of a warmed domain does not pay twice for a limit."""
    keys = Keys(TempDir("hayauma-recipe-keys-").path)
    keys.make("new.example", kinds=("ed25519",))
    spring = Spring({"content": {"from": {"email": "news@{{ author }}"}, "subject": "spring", "text_body": "spring"}},
                    {"u@a.example": {"substitutions": {"author": "new.example"}}}, {"a": Receiver(FULL)},
                    {"dkim": {"keys": keys.rows},
                     "destinations": {"*": {"retry": ["1s"], "rate": "2/min"}},
                     "warmup": {"schedules": {"mine": {"steps": [24, 25]}},
                                "signing_domains": {"new.example": {"schedule": "mine"}}}})
    began = time.monotonic()
    spring.wait("a", 1)
    assert (took := time.monotonic() - began) < 20, f"the letter took {took:.0f} s at 2/min"
    spring.finish()


def verify(keys, taken):
    temp = TempDir("hayauma-recipe-mails-")
    (temp.path / "keys").write_text(json.dumps(keys.published()))
    files = []
    for i, (_, content, _) in enumerate(taken):
        files.append(temp.path / f"{i}.eml")
        files[-1].write_bytes(content)
    done = subprocess.run(["/usr/bin/python3", "-c", VERIFY, temp.path / "keys", *files],
                          capture_output=True, text=True, check=False, timeout=120)
    if "ModuleNotFoundError" in done.stderr:
        raise Skip("no dkimpy; run tools/deps test")
    check("signatures", (done.stdout, done.stderr), ("verified\n", ""))
    temp.close()


class Forgetful(list):
    """The first contents are taken, and the connection ends before the reply."""

    times = 2

    def append(self, item):
        super().append(item)
        if len(self) <= self.times:
            raise ConnectionError


def test_retry_is_the_same():
    """The letter of an attempt whose answer was lost, of the next, and of one behind kill -9 are the same
    byte for byte."""
    for offers in (FULL, CHUNKS):
        receiver = Receiver(offers)
        receiver.taken = Forgetful()
        spring = Spring({"content": CONTENT}, {"u7@a.example": person(7)}, {"a": receiver})
        spring.wait("a", 1)
        spring.engine.kill()
        spring.engine.start()
        taken = spring.wait("a", 3)
        spring.engine.wait_records("Delivery", 1)
        check("attempts", len({content for _, content, _ in taken}), 1)
        check_letter(taken[0][1], 7)
        spring.finish()


def test_none_can_be_made():
    """A variable that is missing, where the recipe says so, and what a template cannot do bounce that
    recipient with the reason; others get their letters. No value makes a header field."""
    recipe = {"content": {**CONTENT, "subject": "{{ name }}{{ city }}"}, "missing_variables": "fail",
              "substitutions": {"code": "all"}}
    recipients = {f"u{i}@a.example": person(i) for i in range(6)}
    recipients["evil@a.example"] = {"name": "x\r\nBcc: spy@a.example\r\n\r\nbody", "substitutions": {
        "city": "\nX-Evil: 1\r\n\r\n", "code": "\r\n\r\n"}}
    recipients["lost@a.example"] = {"name": "A", "substitutions": {"code": "c"}}
    recipients["bare@a.example"] = None
    spring = Spring(recipe, recipients, {"a": Receiver(FULL)})
    bounces = spring.engine.wait_records("Bounce", 2)
    taken = spring.wait("a", 7)
    check("bounced", sorted(r["recipient"] for r in bounces), ["bare@a.example", "lost@a.example"])
    for r in bounces:
        check("reply", (r["response"]["code"], r["response"]["enhanced_code"]),
              (554, {"class": 5, "subject": 6, "detail": 0}))
        assert "the letter cannot be made: content." in r["response"]["content"], r
        assert "is not given" in r["response"]["content"], r
    content = next(c for recipients, c, _ in taken if recipients == ["evil@a.example"])
    letter = parsed(content)
    check("fields", [letter["Bcc"], letter["X-Evil"]], [None, None])
    check("letters", sorted(r[0] for r, *_ in taken), sorted(set(recipients) - {"lost@a.example",
                                                                               "bare@a.example"}))
    spring.finish()


def test_slow_and_endless():
    """What takes longer than a turn may is made by the crew, and what takes too long is not made: the
    other recipients' letters do not wait."""
    loop = "{% for a in many %}{% for b in many %}{% for c in many %}{% endfor %}{% endfor %}{% endfor %}"
    recipe = {"content": {**CONTENT, "text_body": "{{ name }}" + loop}}
    some = {f"u{i}@a.example": {"name": f"{i}"} for i in range(4)}
    some["slow@a.example"] = {"substitutions": {"name": "slow", "many": list(range(30))}}
    some["endless@a.example"] = {"substitutions": {"name": "endless", "many": list(range(400))}}
    spring = Spring(recipe, some, {"a": Receiver(FULL)})
    (bounce,) = spring.engine.wait_records("Bounce", 1)
    check("bounced", bounce["recipient"], "endless@a.example")
    assert "steps" in bounce["response"]["content"], bounce
    taken = spring.wait("a", 5)
    check("letters", sorted(r[0].split("@")[0] for r, *_ in taken), ["slow", "u0", "u1", "u2", "u3"])
    spring.finish()


SIGNED = ("From: n@sender.example\r\nTo: {{ email }}\r\nSubject: s\r\nMIME-Version: 1.0\r\n"
          "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n" + "署名された本文\r\n" * 300 + "--b--\r\n")


def test_signed():
    """A signed letter goes out as it is, to a peer without 8BITMIME too."""
    spring = Spring({"content": SIGNED}, {"u@a.example": None}, {"a": Receiver(OLD)})
    ((_, content, *_),) = spring.wait("a", 1)
    assert content.split(b"\r\n\r\n", 1)[1].decode() == SIGNED.split("\r\n\r\n", 1)[1], content
    spring.finish()


if __name__ == "__main__":
    run(globals())
