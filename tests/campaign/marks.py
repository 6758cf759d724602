#!/usr/bin/env python3
"""What letters of campaigns bear of their own: return paths and unsubscribe tokens that nobody else can make,
List-Unsubscribe for one click, Feedback-ID; the same in each attempt, over a change of keys and settings too.

marks.py [TEST...]"""

import base64
import contextlib
import email
import email.policy
import hashlib
import hmac
import json
import os
import pathlib
import re
import subprocess
import sys
import time

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / part) for part in ("lib", "hostile", "http", "campaign", "dkim")]

from campaign import Campaigns, csv  # noqa: E402
from engine import program  # noqa: E402
from proc import Failure, TempDir, wait_until  # noqa: E402
from servers import Server  # noqa: E402
from setting import Keys, signatures  # noqa: E402
from talk import check, run  # noqa: E402

DOMAIN = "sender.example"
MARKS = {"return_path": "bounce+", "unsubscribe": "https://sender.example/u/?t=",
         "unsubscribe_mailto": "unsubscribe@sender.example", "feedback_id": "sendernews"}
PEOPLE = 5


class Keeper(Server):
    """Keeps each attempt as (return path, recipient, content), and takes none until `open`."""

    def __init__(self):
        self.tries, self.open = [], False
        super().__init__({})

    def converse(self, peer):
        lines = peer.makefile("rb")
        sender = rcpt = ""
        while line := lines.readline():
            said = line.decode()
            path = re.search(r"<(.*?)>", said)
            if said.startswith("MAIL"):
                sender = path[1]
            elif said.startswith("RCPT"):
                rcpt = path[1]
            elif said.startswith("DATA"):
                peer.sendall(b"354 go\r\n")
                content = []
                while (text := lines.readline()) not in (b".\r\n", b""):
                    content.append(text[1:] if text.startswith(b".") else text)
                self.tries.append((sender, rcpt, b"".join(content)))
                peer.sendall(b"250 taken\r\n" if self.open else b"451 4.7.1 later\r\n")
                continue
            if not self.answer(peer, lines, said.split(maxsplit=1)[0].upper()):
                return

    def of(self, rcpt):
        return [t for t in self.tries if t[1] == rcpt]


def hayauma(*arguments, status=0):
    done = subprocess.run([program(), *map(str, arguments)], capture_output=True, timeout=60, check=False, text=True)
    if done.returncode != status:
        raise Failure(f"hayauma {arguments}: {done.returncode}, not {status}\n{done.stdout}\n{done.stderr}")
    return done.stdout


# --- as docs/manual.md tells others to check it ---

def keys_of(file):
    lines = [line.split() for line in file.read_text().splitlines() if line and line[0] != "#"]
    return [bytes.fromhex(key) for _, key in lines]


def code(key, *parts):
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def read_return_path(address, keys):
    """(campaign, index), or None."""
    text = address.rpartition("@")[0][-45:].upper()
    raw = base64.b32decode(text + "===")
    named, mac = raw[:20], raw[20:]
    if any(hmac.compare_digest(code(key, b"bounce", named)[:8], mac) for key in keys):
        return named[:16].hex(), int.from_bytes(named[16:], "big")
    return None


def read_token(token, keys):
    """(campaign, index, address), or None."""
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    named, mac, address = raw[:20], raw[20:36], raw[36:]
    if any(hmac.compare_digest(code(key, b"unsubscribe", named, address)[:16], mac) for key in keys):
        return named[:16].hex(), int.from_bytes(named[16:], "big"), address.decode()
    return None


@contextlib.contextmanager
def directory():
    temp = TempDir("hayauma-marks-")
    try:
        yield temp.path
    finally:
        temp.close()


@contextlib.contextmanager
def world(**more):
    with directory() as path, Keeper() as server:
        file, dkim = path / "letter.keys", Keys(path)
        dkim.make(DOMAIN)
        dkim.make("brand.example", kinds=("ed25519",))
        hayauma("letters", "keygen", "--file", os.path.relpath(file))
        with Campaigns(server.port, {
                "letter_keys": str(file), "senders": {DOMAIN: {**MARKS, **more}}, "dkim": {"keys": dkim.rows},
                "destinations": {"*": {"retry": ["1s"], "lifetime": "10m"}}}) as engine:
            yield engine, server, file


def letter_of(content):
    return email.message_from_bytes(content, policy=email.policy.SMTP)


def token_of(letter):
    return re.fullmatch(r"<https://sender.example/u/\?t=([\w-]+)>, <mailto:unsubscribe@sender.example\?subject=\1>",
                        letter["List-Unsubscribe"])[1]


def unsigned(content):
    """Without the signatures at the top, which name the time."""
    return re.sub(rb"\A(DKIM-Signature:.*\r\n([ \t].*\r\n)*)+", b"", content)


def check_letter(engine, file, campaign, attempt):
    sender, rcpt, content = attempt
    letter, keys = letter_of(content), keys_of(file)
    check("return path", re.fullmatch(r"bounce\+[a-z2-7]{45}@sender\.example", sender) is not None, True)
    index = read_return_path(sender, keys)[1]
    check("campaign", read_return_path(sender, keys), (campaign, index))
    check("token", read_token(token_of(letter), keys), (campaign, index, rcpt))
    check("one click", letter["List-Unsubscribe-Post"], "List-Unsubscribe=One-Click")
    check("in the text", token_of(letter) in letter.get_content(), True)
    check("Feedback-ID", letter["Feedback-ID"], "spring:acme:sendernews")
    for s in signatures(content):
        check("signed", {"list-unsubscribe", "list-unsubscribe-post", "feedback-id"} <=
              set(re.sub(r"\s", "", s["h"].lower()).split(":")), True)
    check("signatures", len(signatures(content)), 2)
    check("command", hayauma("letters", "verify", "-c", engine.file, sender, token_of(letter)),
          f"{sender}: return path, campaign {campaign}, recipient {index}\n"
          f"{token_of(letter)}: unsubscribe, campaign {campaign}, recipient {index}, {rcpt}\n")
    return index


def test_retry():
    """Each attempt sends the same bytes under the same return path, though key and settings change meanwhile."""
    with world() as (engine, server, file):
        spring = engine.create(tenant="acme", content={
            "from": {"email": f"news@{DOMAIN}"}, "subject": "{{ name }}",
            "text_body": "{{ name }}\n{{ unsubscribe_url }}\n"})
        engine.add(spring, csv(0, PEOPLE))
        engine.order(spring, "start")
        people = [f"r{i}@x{i % 7}.example" for i in range(PEOPLE)]
        wait_until("each to be tried", lambda: all(server.of(p) for p in people))
        indices = {check_letter(engine, file, spring, server.of(p)[0]) for p in people}
        check("all their own", len(indices), PEOPLE)
        soon = int(time.time()) + 1
        file.write_text(file.read_text() + f"{soon} {'5a' * 32}\n")
        engine.config["senders"][DOMAIN] = {**MARKS, "unsubscribe": "https://other.example/", "feedback_id": "others"}
        engine.write_config()
        hayauma("reload", "-c", engine.file)
        server.open = True
        engine.wait_state(spring, "done", 120)
        for p in people:
            check("tried again", len(server.of(p)) > 1, True)
            check("the same", len({(sender, unsigned(content)) for sender, _, content in server.of(p)}), 1)
        wait_until("the second key's time", lambda: time.time() > soon + 1)
        later = engine.create(tenant="acme", name="later")
        engine.add(later, csv(50, 1))
        engine.order(later, "start")
        engine.wait_state(later, "done", 120)
        ((sender, _, content),) = server.of("r50@x1.example")
        check("another key", read_return_path(sender, keys_of(file)[1:])[0], later)
        check("and settings", letter_of(content)["Feedback-ID"], "later:acme:others")
        records = "".join(f.read_text() for f in (engine.dir / "records").glob("*.jsonl"))
        check("records say whose it is", {json.loads(line)["recipient"] for line in records.splitlines()
                                          if f'"sender":"{sender}"' in line}, {"r50@x1.example"})


def single_letters(engine, server, file):
    """Letters by /api/inject/v1 that name a campaign have the same marks, the batch in place of the campaign's id;
    without a campaign they have none. The key of another domain signs, where the request says so."""
    body = {"envelope_sender": f"news@{DOMAIN}", "tenant": "acme", "tags": ["vip", "朝"],
            "content": {"from": {"email": f"news@{DOMAIN}"}, "subject": "s", "text_body": "t {{ unsubscribe_url }}\n"},
            "recipients": [{"email": f"s{i}@x.example", "metadata": {"customer": i} if i else {}} for i in range(2)]}
    answer = engine.inject({**body, "campaign": "spring"})
    wait_until("both", lambda: server.of("s0@x.example") and server.of("s1@x.example"))
    check("indices", [check_letter(engine, file, answer["batch_id"], server.of(f"s{i}@x.example")[0])
                      for i in range(2)], [0, 1])
    metas = [next(iter(engine.wait_records("Reception", recipient=f"s{i}@x.example")))["meta"] for i in range(2)]
    check("records", metas, [{"tenant": "acme", "campaign": "spring", "tags": ["vip", "朝"], **more}
                             for more in ({}, {"customer": 1})])
    engine.inject({**body, "recipients": [{"email": "none@x.example", "metadata": {"ref": 7}}], "dkim_domain": "Brand.example",
                   "trace_headers": {"supplemental_header": True, "include_meta_names": ["tenant", "ref", "gone"]}})
    wait_until("the other", lambda: server.of("none@x.example"))
    ((sender, _, content),) = server.of("none@x.example")
    letter = letter_of(content)
    check("no marks", (sender, letter["List-Unsubscribe"], letter["Feedback-ID"]), (f"news@{DOMAIN}", None, None))
    check("whose keys", {s["d"] for s in signatures(content)}, {"brand.example"})
    check("reference", json.loads(base64.b64decode(letter["X-KumoRef"])),
          {"_@_": "\\_/", "recipient": "none@x.example", "tenant": "acme", "ref": 7})


def test_own_fields():
    """Fields of the template stand, and get no second one beside them; a whole message gets what it lacks."""
    with world() as (engine, server, file):
        server.open = True
        single_letters(engine, server, file)
        for name, more, content in (
                ("parts", {"dkim_domain": "Brand.example", "tags": ["vip", "朝"]}, {"from": {"email": f"news@{DOMAIN}"}, "subject": "s", "text_body": "t",
                           "headers": {"list-unsubscribe": "<https://own.example/>", "Feedback-ID": "a:b:c:ownid"}}),
                ("whole", {}, f"From: news@{DOMAIN}\r\nSubject: s\r\nFeedback-ID: a:b:c:ownid\r\n\r\nt\r\n")):
            one = engine.create(name=name, content=content, **more)
            people = [{"email": f"{name}@x.example"}, {"email": f"{name}2@x.example", "metadata": {"customer": 1, "tags": ["own"]}}]
            engine.add(one, "".join(json.dumps(p) + "\n" for p in people).encode(), "application/x-ndjson")
            engine.order(one, "start")
            engine.wait_state(one, "done", 120)
            ((_, _, content),) = server.of(f"{name}@x.example")
            letter = letter_of(content)
            # Whose key signs, and tags, are a campaign's as they are a single letter's.
            shown, tags = engine.show(one), {"tags": more["tags"]} if more else {}
            check("shown", (shown.get("dkim_domain"), shown.get("tags")), ("brand.example", more["tags"]) if more else (None, None))
            check("whose keys", {s["d"] for s in signatures(content)}, {"brand.example" if more else DOMAIN})
            delivered = [engine.wait_records("Delivery", recipient=f"{name}{i}@x.example")[0] for i in ("", "2")]
            metas = [r["meta"] for r in [*(r for r in engine.records("Reception") if r["id"] == one), *delivered]]
            check("records", [{k: v for k, v in meta.items() if k in ("tags", "customer")} for meta in metas],
                  [tags, tags, {"customer": 1, "tags": ["own"]}])
            if more:
                said = engine.command("campaign", "show", name), engine.command("campaign", "report", name)
                check(f"{said}", ["brand.example" in s and "vip, 朝" in s for s in said], [True, True])
            check("Feedback-ID", letter.get_all("Feedback-ID"), ["a:b:c:ownid"])
            check("List-Unsubscribe", (len(letter.get_all("List-Unsubscribe")), letter["List-Unsubscribe-Post"]),
                  (1, None if name == "parts" else "List-Unsubscribe=One-Click"))


def test_preview():
    """A preview has the fields, and its token says that it is one."""
    with world() as (engine, _, file):
        spring = engine.create()
        status, _, text = engine.ask("POST", f"/api/campaigns/v1/{spring}/preview", {"email": "taro@x.example"})
        check("preview", status, 200)
        token = token_of(letter_of(text))
        check("token", read_token(token, keys_of(file)), (spring, 2**32 - 1, "taro@x.example"))
        check("command", hayauma("letters", "verify", "--file", file, f"https://x/?t={token}"),
              f"https://x/?t={token}: unsubscribe, campaign {spring}, a preview, taro@x.example\n")


def click(engine, token, body="List-Unsubscribe=One-Click", kind="application/x-www-form-urlencoded", method="POST", **headers):
    status, fields, text = engine.ask(method, f"/u/{token}", body, {
        **({"Content-Type": kind} if kind else {}), **{n.replace("_", "-"): v for n, v in headers.items()}})
    return status, fields, text.decode()


def test_one_click():
    """Who clicks gets no further attempt of the campaign that runs, and no letter of the tenant's next one; a GET shows a
    page and changes nothing; what is no token of ours is nobody. What was answered 200 outlives a kill -9."""
    with world() as (engine, server, file):
        spring = engine.create(tenant="acme", content={"from": {"email": f"news@{DOMAIN}"}, "subject": "s", "text_body": "t"})
        engine.add(spring, csv(0, 4))
        engine.order(spring, "start")
        people = [f"r{i}@x{i}.example" for i in range(4)]
        wait_until("each to be tried", lambda: all(server.of(p) for p in people))
        tokens = [token_of(letter_of(server.of(p)[0][2])) for p in people]
        check("off", (click(engine, tokens[0])[0], engine.command("suppress", "export")),
              (404, "email,reason,tenant,since,campaign\n"))
        engine.config["http"]["unsubscribe"] = True
        engine.reload()
        for language, words in (("ja,en-US;q=0.7", "配信を停止する"), ("en-US,ja", ">Unsubscribe<"), ("fr", ">Unsubscribe<")):
            status, fields, page = click(engine, tokens[0], None, None, "GET", Accept_Language=language)
            check(page, (status, words in page, '<form method="post">' in page, "x0" in page, fields["Referrer-Policy"],
                         "default-src 'none'" in fields["Content-Security-Policy"]), (200, True, True, False, "no-referrer", True))
        other, preview = (re.sub("^.", "A" if tokens[0][0] != "A" else "B", tokens[0]),
                          token_of(letter_of(engine.ask("POST", f"/api/campaigns/v1/{spring}/preview", {"email": people[0]})[2])))
        for bad in (other, tokens[0][:-1], tokens[0] + "AAAA", preview, "", "x" * 3000):
            check(f"nobody {bad[:40]}", [click(engine, bad)[0], click(engine, bad, None, None, "GET")[0]], [404, 404])
        for body, kind, status in (("", "application/x-www-form-urlencoded", 400), ("{}", "application/json", 415),
                                   ("List-Unsubscribe=No", "application/x-www-form-urlencoded", 400),
                                   ("x" * 5000, "multipart/form-data; boundary=part", 400)):
            check(f"no click {body[:20]}", click(engine, tokens[0], body, kind)[0], status)
        check("methods", (click(engine, tokens[0], None, None, "PUT")[0], click(engine, tokens[0], None, None, "HEAD")[0]), (405, 200))
        check("nobody yet", engine.command("suppress", "export").count("\n"), 1)
        part = '--part\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--part--\r\n'
        check("one", click(engine, tokens[0], Accept_Language="ja")[::2], (200, click(engine, tokens[0], Accept_Language="ja")[2]))
        check("in two parts", click(engine, tokens[1], part, "multipart/form-data; boundary=part")[0], 200)
        check("as an argument", click(engine, f"?t={tokens[2]}", "List-Unsubscribe=One-Click\r\n")[0], 200)
        engine.kill()
        engine.start()
        check("kept", engine.command("suppress", "export", "--tenant", "acme").splitlines()[1:],
              [row for row in engine.command("suppress", "export").splitlines()[1:] if ",unsubscribed,acme," in row and row.endswith(",spring")])
        check("who", [r["email"] for r in engine.rows("suppress", "list")], people[:3])
        server.open = True
        done = engine.wait_state(spring, "done", 120)
        check("counts", (done["delivered"], done["suppressed"]), (1, 3))
        check("records", [(r["recipient"], r["tenant"], r["campaign"], r["id"]) for r in engine.wait_records("Unsubscription", 3)],
              [(p, "acme", "spring", spring) for p in people[:3]])
        later = engine.create(name="later", tenant="acme")
        check("the next", (lambda said: (said["new"], said["suppressed_lines"]))(engine.add(later, csv(0, 4))), (1, [2, 3, 4]))


def test_forged():
    """What was changed, or is of another key, is said not to be ours."""
    with directory() as path:
        one, other = path / "one", path / "other"
        for file in (one, other):
            hayauma("letters", "keygen", "--file", file)
            check("mode", file.stat().st_mode & 0o777, 0o600)
        named = bytes(range(20))
        mark = base64.b32encode(named + code(keys_of(one)[0], b"bounce", named)[:8]).decode().lower().rstrip("=")
        check("ours", hayauma("letters", "verify", "--file", one, f"b+{mark}@x.example"),
              f"b+{mark}@x.example: return path, campaign {named[:16].hex()}, recipient {0x10111213}\n")
        for file, text in ((other, mark), (one, mark[:-2] + ("b" if mark[-2] != "b" else "c") + mark[-1])):
            check("forged", "forged" in hayauma("letters", "verify", "--file", file, f"b+{text}@x.example", status=1),
                  True)
        check("neither", "neither" in hayauma("letters", "verify", "--file", one, "a@b.example", status=1), True)
        # A further key is of a later time, and what the older one made stays ours.
        hayauma("letters", "keygen", "--file", one)
        times = [int(line.split()[0]) for line in one.read_text().splitlines() if line[0] != "#"]
        check("times", times[0] == 0 and times[1] > time.time() + 3000, True)
        hayauma("letters", "verify", "--file", one, f"b+{mark}@x.example")
        one.chmod(0o644)
        hayauma("letters", "verify", "--file", one, f"b+{mark}@x.example", status=1)


def test_key_gone():
    """Letters that cannot be marked for want of a key wait for one: as they are they would be other letters."""
    with world() as (engine, server, file):
        server.open = True
        spring = engine.create()
        engine.add(spring, csv(0, 1))
        saved = {name: engine.config.pop(name) for name in ("letter_keys", "senders")}
        engine.write_config()
        hayauma("reload", "-c", engine.file)
        engine.order(spring, "start")
        wait_until("a deferral", lambda: engine.show(spring)["deferrals"] > 0)
        check("nothing is sent", server.tries, [])
        engine.config.update(saved)
        engine.write_config()
        hayauma("reload", "-c", engine.file)
        engine.wait_state(spring, "done", 120)
        check("then it is", read_return_path(server.tries[0][0], keys_of(file))[0], spring)


if __name__ == "__main__":
    run(globals())
