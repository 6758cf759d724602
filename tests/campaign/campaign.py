#!/usr/bin/env python3
"""Campaigns by HTTP and by command: made, filled, sent, paused, ended; over crashes; and what is refused.

campaign.py [TEST...]"""

import collections
import contextlib
import email
import email.policy
import gzip
import http.client
import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "lib"), str(TESTS / "hostile"), str(TESTS / "http")]

from engine import Sink, program  # noqa: E402
from http_api import Api, fits, keys_of, letters, sample  # noqa: E402
from proc import Failure, TempDir, wait_until  # noqa: E402
from servers import Server  # noqa: E402
from talk import check, run  # noqa: E402

ROOT = "/api/campaigns/v1"
SPRING = {"name": "spring", "envelope_sender": "bounce@sender.example",
          "content": {"from": {"email": "news@sender.example"}, "subject": "{{ name }}さん {{ code }}",
                      "text_body": "Dear {{ name }}: {{ code }}"}}
RETRY = {"destinations": {"*": {"retry": ["1s"]}}}


class Campaigns(Api):
    def post(self, path, body=None, want=200, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        status, _, text = self.ask("POST", path, {} if body is None else body, headers)
        if status != want:
            raise Failure(f"POST {path}: {status}, not {want}: {text}")
        return json.loads(text)

    def create(self, **more):
        return self.post(ROOT, {**SPRING, **more}, 201)["id"]

    def add(self, campaign, rows, kind="text/csv", want=200, **headers):
        return self.post(f"{ROOT}/{campaign}/recipients", rows, want, Content_Type=kind, **headers)

    def order(self, campaign, verb, body=None, want=200):
        return self.post(f"{ROOT}/{campaign}/{verb}", body, want)

    def whole(self, campaign):
        status, _, text = self.ask("GET", f"{ROOT}/{campaign}")
        if status != 200:
            raise Failure(f"{campaign}: {status} {text}")
        return json.loads(text)

    def show(self, campaign):
        """What all answers about it have."""
        return {name: value for name, value in self.whole(campaign).items() if name != "report"}

    def wait_state(self, campaign, state, timeout_s=60):
        return wait_until(f"{campaign} to be {state}",
                          lambda: (lambda c: c["state"] == state and c)(self.show(campaign)), timeout_s,
                          process=self.process)


def csv(first, count, domains=7):
    lines = "".join(f"r{i}@x{i % domains}.example,太郎{i},c{i}\r\n" for i in range(first, first + count))
    return ("\ufeffemail,name,code\r\n" + lines).encode()


def ndjson(first, count, domains=7):
    return "".join(json.dumps({"email": f"r{i}@x{i % domains}.example", "substitutions": {"code": f"c{i}"}}) + "\n"
                   for i in range(first, first + count)).encode()


def arrived(sink):
    return collections.Counter(row[3] for row in sink.ledger())


# --- from the list to the last letter ---

def test_whole():
    """Thousands of recipients in chunks of both kinds, one of them twice; each gets one letter, its own."""
    with Sink() as sink, Campaigns(sink.port) as engine:
        spring = engine.create()
        first = engine.add(spring, gzip.compress(csv(0, 5000)), Content_Encoding="gzip", Idempotency_Key="a")
        check("first", {k: first[k] for k in ("lines", "new", "duplicates", "invalid", "again")},
              {"lines": 5000, "new": 5000, "duplicates": 0, "invalid": 0, "again": False})
        again = engine.add(spring, gzip.compress(csv(0, 5000)), Content_Encoding="gzip", Idempotency_Key="a")
        check("again", again, {**first, "again": True})
        second = engine.add(spring, ndjson(4990, 3000), "application/x-ndjson")
        check("second", (second["new"], second["duplicates"], second["duplicate_lines"]),
              (2990, 10, list(range(1, 11))))
        check("no key, the same body", engine.add(spring, ndjson(4990, 3000), "application/x-ndjson"),
              {**second, "again": True})
        draft = engine.show(spring)
        check("draft", (draft["state"], draft["recipients"], draft["queued"]), ("draft", 7990, 7990))
        status, headers, text = engine.ask("POST", f"{ROOT}/{spring}/preview",
                                           {"email": "taro@x1.example", "name": "太郎", "substitutions": {"code": 7}})
        letter = email.message_from_bytes(text, policy=email.policy.SMTP)
        check("preview", (status, headers["Content-Type"], letter["Subject"], letter.get_content()),
              (200, "message/rfc822", "太郎さん 7", "Dear 太郎: 7\r\n"))
        check("nothing is sent", arrived(sink), {})
        check("started", engine.order(spring, "start")["state"] in ("running", "done"), True)
        done = engine.wait_state(spring, "done", 120)
        check("counts", {k: done[k] for k in ("recipients", "queued", "delivered", "failed", "expired", "cancelled")},
              {"recipients": 7990, "queued": 0, "delivered": 7990, "failed": 0, "expired": 0, "cancelled": 0})
        check("each once", arrived(sink), {f"r{i}@x{i % 7}.example": 1 for i in range(7990)})
        engine.add(spring, csv(9000, 1), want=409)
        (row,) = json.loads(engine.ask("GET", ROOT)[2])["campaigns"]
        check("list", row, done)
        engine.create()  # the name is free again


def test_letters():
    """Each letter has the variables of its recipient, of whichever form."""
    server = Server({})
    with Campaigns(server.port) as engine:
        spring = engine.create(substitutions={"code": "none"})
        engine.add(spring, 'email,name\n"a@x.example","Doe, ""J"""\n'.encode())
        engine.add(spring, '{"email":"b@x.example","name":"花子","substitutions":{"code":"二"}}'.encode(),
                   "application/x-ndjson")
        engine.order(spring, "start")
        found = letters(server, 2)
        # As many variables as a row may have: a list of products.
        long = engine.create(name="long", content={**SPRING["content"], "subject": "s"})
        engine.add(long, json.dumps({"email": "c@x.example", "substitutions": {"code": "y " * 1490}}).encode(),
                   "application/x-ndjson")
        engine.order(long, "start")
        found = letters(server, 3)
    check("csv", (found["a@x.example"]["Subject"], found["a@x.example"]["To"].addresses[0].display_name),
          ('Doe, "J"さん none', 'Doe, "J"'))
    check("long", found["c@x.example"].get_content().split(), ["Dear", ":", *["y"] * 1490])
    check("ndjson", (found["b@x.example"]["Subject"], found["b@x.example"].get_content()),
          ("花子さん 二", "Dear 花子: 二\r\n"))


def test_records():
    """Records of a campaign name the sender, and a recipient's metadata also where no letter was rendered."""
    with Sink() as sink, Campaigns(sink.port, {"queue": {"shards": 2}}) as engine:
        spring = engine.create()
        engine.add(spring, b'{"email":"a@x.example","metadata":{"customer":7}}\n'
                           b'{"email":"b@x.example","metadata":{"customer":8}}\n', "application/x-ndjson")
        engine.config["routes"]["x.example"] = "reject"
        engine.reload()
        engine.order(spring, "start")
        engine.wait_state(spring, "done")
        bounces = engine.wait_records("Bounce", 2)
        check("metadata", sorted((r["recipient"], r["meta"].get("customer"), r["meta"]["campaign"]) for r in bounces),
              [("a@x.example", 7, "spring"), ("b@x.example", 8, "spring")])
        check("reception", [r["sender"] for r in engine.records("Reception") if r["num_recipients"] == 2],
              ["bounce@sender.example"])


def test_pause_restart_resume():
    """A pause holds, over a restart too; behind it all who are left get their letter, and nobody two."""
    slow = {**RETRY, "destinations": {"*": {"retry": ["1s"], "rate": "400/s", "sessions_max": 2}}}
    with Sink() as sink, Campaigns(sink.port, slow) as engine:
        spring = engine.create()
        engine.add(spring, csv(0, 3000))
        engine.order(spring, "start")
        wait_until("some letters", lambda: len(sink.ledger()) > 50)
        check("paused", engine.order(spring, "pause")["state"], "paused")
        wait_until("what was begun to end",
                   lambda: engine.status()["gauges"]["in_memory"] == 0 and
                   engine.show(spring)["delivered"] == len(sink.ledger()))
        before = len(sink.ledger())
        if not 0 < before < 3000:
            raise Failure(f"{before} letters before the pause")
        engine.process.send(signal.SIGKILL)
        engine.process.child.wait()
        engine.start()
        check("still", (engine.show(spring)["state"], engine.show(spring)["delivered"]), ("paused", before))
        time.sleep(0.5)
        check("nothing went", len(sink.ledger()), before)
        engine.order(spring, "resume")
        engine.config["destinations"] = RETRY["destinations"]
        engine.reload()
        done = engine.wait_state(spring, "done", 120)
        check("all", (done["delivered"], len(sink.ledger())), (3000, 3000))
        check("each once", set(arrived(sink).values()), {1})


def test_cancel():
    """What is left of a cancelled campaign goes to nobody, and the counts say how many that were."""
    slow = {"destinations": {"*": {"rate": "200/s", "sessions_max": 1}}}
    with Sink() as sink, Campaigns(sink.port, slow) as engine:
        spring, other = engine.create(), engine.create(name="other")
        engine.add(spring, csv(0, 3000))
        engine.add(other, csv(5000, 10))
        engine.order(spring, "start")
        wait_until("some letters", lambda: len(sink.ledger()) > 20)
        check("cancelled", engine.order(spring, "cancel")["state"], "cancelled")
        series = 'hayauma_campaign_recipients{campaign="other",tenant="",state="queued"} 10'
        check("metrics", series in engine.ask("GET", "/metrics")[2].decode().split("\n"), True)
        over = wait_until("the rest to be taken off",
                          lambda: (lambda c: c["queued"] == 0 and c)(engine.show(spring)), 60)
        check("sums", (over["delivered"] + over["cancelled"], over["cancelled"] > 0), (3000, True))
        check("letters", len(sink.ledger()), over["delivered"])
        engine.order(spring, "resume", want=409)
        engine.order(other, "start")  # another one is not touched
        check("other", engine.wait_state(other, "done")["delivered"], 10)


def test_later():
    """A start at a time: nothing goes before; it may be paused, and cancelled as a draft may."""
    with Sink() as sink, Campaigns(sink.port) as engine:
        soon, far = engine.create(name="soon"), engine.create(name="far")
        for one in (soon, far):
            engine.add(one, csv(0, 5))
        check("far", engine.order(far, "start", {"at": int(time.time()) + 3600})["state"], "scheduled")
        began = time.time()
        at = int(began) + 3
        engine.order(soon, "start", {"at": at})
        engine.wait_state(soon, "done")
        check("not before", time.time() >= at, True)
        check("only one went", len(sink.ledger()), 5)
        check("cancelled", engine.order(far, "cancel")["state"], "cancelled")
        # One that stays open takes more while it runs; nobody gets two letters.
        more = engine.create(name="more")
        engine.add(more, csv(10, 5))
        check("open", engine.order(more, "start", {"open": True})["open"], True)
        wait_until("the first", lambda: engine.show(more)["delivered"] == 5)
        said = engine.add(more, csv(12, 10))
        check("more", (said["new"], said["duplicates"], engine.show(more)["state"]), (7, 3, "running"))
        wait_until("the others", lambda: engine.show(more)["delivered"] == 12)
        check("each once", arrived(sink), {f"r{i}@x{i % 7}.example": 1 for i in (*range(5), *range(10, 22))})
        check("closed", engine.rows("campaign", "close", "more")[0]["state"], "done")
        engine.add(more, csv(30, 1), want=409)
        engine.order(more, "close", want=409)


def test_kill9():
    """A chunk that crashes cut is sent again until it is answered: all are in, and in once."""
    rows = csv(0, 8000)
    with Campaigns(1, {"routes": {}}) as engine:
        spring = engine.create()

        def cut():
            with contextlib.suppress(OSError, http.client.HTTPException):
                engine.ask("POST", f"{ROOT}/{spring}/recipients", rows, {"Content-Type": "text/csv"})

        for _ in range(3):
            before = engine.show(spring)["recipients"]
            thread = threading.Thread(target=cut)
            thread.start()
            wait_until("some of it", lambda: engine.show(spring)["recipients"] > before or not thread.is_alive())
            engine.kill()
            thread.join()
            engine.start()
        said = engine.add(spring, rows)
        check("answer", (said["new"], said["duplicates"]), (8000, 0))
        check("counts", engine.show(spring)["recipients"], 8000)
        found = collections.Counter(r["recipient"] for r in engine.rows("queue", "list"))
        check("each once", (len(found), set(found.values())), (8000, {1}))


def test_upload():
    """A campaign with its list in one request: made, filled and started; killed, and sent again until it is answered."""
    with Sink() as sink, Campaigns(sink.port) as engine:
        def body(rows=ndjson(0, 6000), **more):
            return json.dumps({**SPRING, **more}).encode() + b"\n" + rows

        def upload(data, want=201, **headers):
            return engine.post(ROOT, data, want, Content_Type="application/x-ndjson", **headers)

        def cut():
            with contextlib.suppress(OSError, http.client.HTTPException):
                engine.ask("POST", ROOT, body(start=True), {"Content-Type": "application/x-ndjson"})

        thread = threading.Thread(target=cut)
        thread.start()
        wait_until("the campaign", lambda: json.loads(engine.ask("GET", ROOT)[2])["campaigns"] or not thread.is_alive())
        engine.kill()
        thread.join()
        engine.start()
        status, _, text = engine.ask("POST", ROOT, gzip.compress(body(start=True)),
                                     {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"})
        said = json.loads(text)
        check(f"answered {said}", (status in (200, 201), said["campaign"]["recipients"]), (True, 6000))
        spring = said["campaign"]["id"]
        done = engine.wait_state(spring, "done", 120)
        check("all", done["delivered"], 6000)
        again = upload(body(start=True), 200)  # it is over: no second campaign
        check("again", (again["again"], again["campaign"]), (True, done))
        # One whose time is over since, and a chunk of one that began since, hear what they heard.
        short = {"expires": int(time.time()) + 3, "name": "short"}
        began = upload(body(ndjson(0, 1), start=True, **short))["campaign"]
        draft = engine.create(name="begun")
        chunk = engine.add(draft, csv(0, 3), Idempotency_Key="c")
        engine.order(draft, "start")
        check("chunk", engine.add(draft, csv(0, 3), Idempotency_Key="c"), {**chunk, "again": True})
        engine.add(draft, csv(0, 4), Idempotency_Key="c", want=409)
        engine.add(draft, csv(5, 1), want=409)
        wait_until("its time", lambda: time.time() > short["expires"])
        check("expired", upload(body(ndjson(0, 1), start=True, **short), 200)["campaign"]["id"], began["id"])
        upload(body(ndjson(0, 2), start=True, **short), 422)
        # Started at a time or not at all; lines are those of the body; names of uploads are kept apart.
        rows = b'{"email":"a@x.example"}\nx\n{"email":"A@X.example"}\n{"email":"a@x.example"}\n'
        later = upload(body(rows, name="later", at=int(time.time()) + 3600), Idempotency_Key="k")
        check("later", (later["campaign"]["state"], later["again"], later["recipients"]["duplicate_lines"],
                        [e["line"] for e in later["recipients"]["errors"]]), ("scheduled", False, [5], [3]))
        upload(body(rows, name="later2"), 409, Idempotency_Key="k")
        upload(body(b"", name="draft"), 400, Idempotency_Key="k" * 257)  # and there is no such campaign
        draft = upload(body(b"", name="draft"))
        check("draft", (draft["campaign"]["state"], draft["recipients"]["lines"]), ("draft", 0))
        schemas = json.loads(engine.ask("GET", "/api/openapi.json")[2])
        check("document", [fits(one, schemas["components"]["schemas"]["UploadResponse"], schemas)
                           for one in (again, later, draft)], [True] * 3)
        for wrong, field in ((b"", ""), (b"[]\n", ""), (body(name="a b"), "name"), (body(at="soon"), "at"),
                             (body(start=1), "start")):
            status, _, text = engine.ask("POST", ROOT, wrong, {"Content-Type": "application/x-ndjson"})
            check(f"{wrong[:40]} {text}", (status in (400, 422), json.loads(text).get("field", "")), (True, field))
        late = {"at": int(time.time()) + 90, "expires": int(time.time()) + 60, "name": "late"}
        check("late", upload(body(rows, **late), 422)["field"], "expires")
        check("and is not there", "late" in [c["name"] for c in json.loads(engine.ask("GET", ROOT)[2])["campaigns"]], False)
        check("JSON has no list", engine.post(ROOT, {**SPRING, "start": True}, 400)["field"], "start")


# --- what is refused ---

WRONG = [
    ({**SPRING, "name": "a b"}, 422, "name"), ({k: v for k, v in SPRING.items() if k != "name"}, 400, "name"),
    ({**SPRING, "recipients": []}, 400, "recipients"), ({**SPRING, "priority": 10}, 422, "priority"),
    ({**SPRING, "content": {**SPRING["content"], "text_body": "{{ broken"}}, 422, "content.text_body"),
    ({**SPRING, "content": "From: a@b.example\n\n{% for %}"}, 422, "content"),
    ({**SPRING, "template_dialect": "Liquid"}, 422, "template_dialect"),
    ({**SPRING, "envelope_sender": "nobody"}, 422, "envelope_sender"), ({**SPRING, "pool": "none"}, 422, "pool"),
    ({**SPRING, "missing_variables": "ask"}, 422, "missing_variables"),
    ({**SPRING, "dkim_domain": "none.example"}, 422, "dkim_domain"), ({**SPRING, "dkim_domain": ""}, 422, "dkim_domain"),
    ({**SPRING, "tags": ["a", 1]}, 422, "tags[1]"), ({**SPRING, "tags": "a"}, 400, "tags"),
    ({**SPRING, "expires": 1}, 422, "expires"), ({**SPRING, "expires": "soon"}, 422, "expires"), (b"[]", 400, ""), (b"{", 400, ""),
]


def test_refused():
    """Mistakes are answered with their place, and orders that do not fit with why."""
    with Campaigns() as engine:
        for body, status, field in WRONG:
            got, _, text = engine.ask("POST", ROOT, body)
            said = json.loads(text)
            check(f"{str(body)[:100]}: {said}", (got, said.get("field", "")), (status, field))
        spring = engine.create()
        status, _, text = engine.ask("POST", ROOT, SPRING)
        check(f"twice {text}", (status, spring in json.loads(text)["detail"]), (409, True))
        # With a key a request that is sent again makes no second campaign, and hears of the first.
        keyed = {**SPRING, "name": "keyed"}
        made = engine.post(ROOT, keyed, 201, Idempotency_Key="k")
        check("again", engine.post(ROOT, keyed, 201, Idempotency_Key="k"), made)
        engine.post(ROOT, {**keyed, "name": "other"}, 409, Idempotency_Key="k")
        engine.post(ROOT, {**keyed, "name": "other"}, 400, Idempotency_Key="")
        for path, field in ((f"?state=done", "state"), (f"/{spring}?full=1", "full"), (f"/{spring}/recipients?stat=held", "stat")):
            status, _, text = engine.ask("GET", ROOT + path)
            check(f"{path} {text}", (status, json.loads(text)["field"]), (400, field))
        for rows, words in ((b"Email\na@x.example\n", "but 'Email': case counts"), (b"email;name\na;b\n", "parted by commas")):
            check(words, words in engine.add(spring, rows, want=422)["detail"], True)
        nobody = "0" * 32
        for path, body, status in ((f"{spring}/pause", {}, 409), (f"{spring}/resume", {}, 409),
                                   (f"{spring}/start", {"at": "soon"}, 422), (f"{spring}/start", {"when": 1}, 400),
                                   (f"{spring}/start", [], 400), (f"{nobody}/start", {}, 404), ("x/start", {}, 404),
                                   (f"{spring}/preview", {"email": "x"}, 422), (f"{spring}/preview", {}, 400),
                                   (f"{spring}/recipients", {}, 415)):
            check(path, engine.ask("POST", f"{ROOT}/{path}", body)[0], status)
        check("no method", [engine.ask("POST", f"{ROOT}/{spring}", {})[0], engine.ask("GET", f"{ROOT}/{spring}/start")[0],
                            engine.ask("PUT", ROOT, {})[1]["Allow"]], [405, 405, "POST, GET, HEAD"])
        check("page of a browser", engine.ask("POST", f"{ROOT}/{spring}/start", b"", {"Content-Type": "text/plain"})[0],
              415)
        check("still a draft", engine.show(spring)["state"], "draft")


def test_chunks():
    """Lines that are no recipients are said with their numbers; what cannot be read is refused whole."""
    lines = (b'{"email":"a@x.example"}\n\n{"email":"no address"}\r\n{"email":"b@x.example","sub":1}\nx\n'
             b'{"email":"\xff@x.example"}\n{"email":"c@no.example"}\n{"email":"A@X.example"}\n{"email":"d@x.example",'
             b'"substitutions":{"v":"' + b"y" * 3100 + b'"}}\n{"email":"e@x.example"}')
    with Campaigns(1, {"routes": {"no.example": "reject", "*": "[127.0.0.1]:1"}}, body_max="512KiB") as engine:
        spring = engine.create()
        said = engine.add(spring, lines, "application/x-ndjson; charset=utf-8", Idempotency_Key="k")
        check("counts", (said["lines"], said["new"], said["invalid"]), (9, said["new"], 6))
        check("each line", said["new"] + said["duplicates"], 3)
        check("lines", [e["line"] for e in said["errors"]], [3, 4, 5, 6, 7, 9])
        for error, part in zip(said["errors"], ("5.1.3", "sub: unknown field", "not JSON", "UTF-8", "5.7.1", "3072")):
            check(str(error), part in error["error"], True)
        engine.add(spring, lines + b"\n{}", "application/x-ndjson", 409, Idempotency_Key="k")
        many = engine.add(spring, b"email\n" + b"none\n" * 5000)
        check("bounded", (many["invalid"], len(many["errors"])), (5000, 100))
        for rows, kind, status in ((b"name\nx\n", "text/csv", 422), (b'email\na@x.example\n"b@x', "text/csv", 422),
                                   (b"email,email\n", "text/csv", 422), (b"", "text/csv", 422),
                                   (csv(0, 1), "text/plain", 415), (b"x" * 600000, "text/csv", 413)):
            said = engine.add(spring, rows, kind, status)
        check("line", engine.add(spring, b'email\na@y.example\n"b@x', want=422)["detail"].startswith("line 3: "), True)
        bomb = gzip.compress(b"email\n" + b"a@x.example\n" * (1 << 20))
        engine.add(spring, bomb, want=413, Content_Encoding="gzip")
        engine.add(spring, csv(0, 1), want=400, Idempotency_Key="k" * 257)
        check("nothing", engine.add(spring, b"\n\n", "application/x-ndjson")["lines"], 0)
        check("memory", engine.status()["gauges"]["intake_bytes"], 0)
        check("recipients", engine.show(spring)["recipients"] < 4, True)


def test_tenants():
    """A token's tenant sees and changes its own campaigns alone; scopes hold."""
    with Campaigns(trusted_networks=[], more={"tenants": {"acme": {"senders": ["sender.example"]}, "other": {}}}) as engine:
        bearer = {name: {"Authorization": "Bearer " + engine.command("token", "add", name, *options).strip()}
                  for name, *options in (("acme", "--tenant", "acme"), ("other", "--tenant", "other"), ("all",),
                                         ("watch", "--scopes", "read"),
                                         ("both", "--scopes", "inject,read", "--tenant", "acme"))}
        mine = engine.post(ROOT, SPRING, 201, **bearer["acme"])["id"]
        check("sender", engine.ask("POST", ROOT, {**SPRING, "envelope_sender": "a@x.example"}, bearer["acme"])[0], 403)
        check("pool", engine.ask("POST", ROOT, {**SPRING, "pool": "default"}, bearer["acme"])[0], 403)
        yours = engine.post(ROOT, SPRING, 201, **bearer["other"])["id"]  # the name is each tenant's

        def ids(name):
            return [c["id"] for c in json.loads(engine.ask("GET", ROOT, None, bearer[name])[2])["campaigns"]]
        check("lists", [ids(n) for n in ("acme", "other", "all", "watch")],
              [[mine], [yours], [yours, mine], [yours, mine]])
        check("not another's", [engine.ask("GET", f"{ROOT}/{mine}", None, bearer[n])[0]
                                for n in ("acme", "other", "watch")], [200, 404, 200])

        def measured(name):
            text = engine.ask("GET", "/metrics", None, bearer[name])[2].decode()
            return sorted({line.split('tenant="')[1].split('"')[0] for line in text.splitlines()
                           if line.startswith("hayauma_campaign_recipients{")})
        check("metrics", [measured(n) for n in ("both", "watch")], [["acme"], ["acme", "other"]])
        check("orders", [engine.ask("POST", f"{ROOT}/{mine}/{verb}", {}, bearer[n])[0] for n, verb in
                         (("other", "start"), ("watch", "start"), ("other", "cancel"), ("acme", "cancel"))],
              [404, 403, 404, 200])
        check("nobody's", engine.ask("GET", ROOT)[0], 401)


def test_settings_of_tenants():
    """A tenant whose senders are named changes rate and priority of its campaigns, and no pool, not to none either;
    nobody else's."""
    pools = {name: {"sources": {name: {"weight": 1}}} for name in ("bulk", "own")}
    more = {"sources": {name: {"ipv4": f"127.0.0.{n}"} for n, name in enumerate(pools, 11)}, "pools": pools,
            "default_pool": "bulk", "tenants": {"acme": {"senders": ["sender.example"], "pool": "own"}}}
    with Campaigns(trusted_networks=[], more=more) as engine:
        bearer = {name: {"Authorization": "Bearer " + engine.command("token", "add", name, *options).strip()}
                  for name, *options in (("acme", "--tenant", "acme"), ("other", "--tenant", "other"), ("all",))}
        spring = engine.post(ROOT, SPRING, 201, **bearer["acme"])["id"]

        def change(name, **settings):
            status, _, text = engine.ask("PATCH", f"{ROOT}/{spring}", settings, bearer[name])
            return status, json.loads(text)
        status, shown = change("acme", rate="5/s", priority=3)
        check("set", (status, shown.get("rate"), shown.get("priority"), shown.get("pool")), (200, "5/s", 3, "own"))
        check("no pool", [change("acme", pool=pool)[0] for pool in ("bulk", "own", None)], [403, 403, 403])
        check("another's", change("other", rate="none")[0], 404)
        check("nothing is no rate", change("acme", rate=None)[1].get("rate"), "5/s")
        check("whose mail it all is", change("all", pool="bulk")[1]["pool"], "bulk")


def test_pools():
    """The same rules choose its pool as for other mail: campaign, tenant, sender's domain; else what it names."""
    pools = {name: {"sources": {name: {"weight": 1}}} for name in ("bulk", "spare", "own", "news")}
    more = {"sources": {name: {"ipv4": f"127.0.0.{n}"} for n, name in enumerate(pools, 11)}, "pools": pools,
            "default_pool": "bulk", "tenants": {"acme": {"pool": "own"}}, "campaigns": {"spring": {"pool": "news"}},
            "senders": {"*.sender.example": {"pool": "spare"}}}
    with Campaigns(more=more) as engine:
        rules = (({}, "news"), ({"name": "a"}, None), ({"name": "b", "tenant": "acme"}, "own"),
                 ({"name": "c", "envelope_sender": "a@b.Sender.example"}, "spare"),
                 ({"name": "d", "tenant": "acme", "pool": "bulk"}, "bulk"))
        made = [engine.create(**body) for body, _ in rules]
        check("pools", [engine.show(one).get("pool") for one in made], [pool for _, pool in rules])
        engine.add(made[2], csv(0, 3))
        check("rows", {row["pool"] for row in engine.rows("queue", "list")}, {"own"})


def rows_of(engine, campaign, **arguments):
    """All pages of a listing."""
    found, pages, after = [], 0, {}
    while True:
        status, _, text = engine.ask("GET", f"{ROOT}/{campaign}/recipients?" +
                                     urllib.parse.urlencode({**arguments, **after}))
        check(f"{arguments} {text}", status, 200)
        page = json.loads(text)
        found, pages = found + page["recipients"], pages + 1
        if "next" not in page:
            return found, pages
        after = {"after": page["next"]}


def test_recipients():
    """Who waits is listed, page by page, by state and address; of another campaign nobody is."""
    more = {"destinations": {"*": {"retry": ["1h"]}}, "queue": {"shards": 2}}
    with contextlib.closing(TempDir("hayauma-world-")) as temp, contextlib.ExitStack() as stack:
        world = pathlib.Path(temp.path) / "world.yaml"
        world.write_text('default: {defer: {rate: 100%, reply: "451 4.7.1 later"}}\n')
        sink = stack.enter_context(Sink(behaviour=world))
        engine = stack.enter_context(Campaigns(sink.port, more))
        spring, other = engine.create(), engine.create(name="other")
        engine.add(spring, csv(0, 250))
        engine.add(other, csv(0, 20))
        found, pages = rows_of(engine, spring, limit=40)
        check("all", (sorted(r["email"] for r in found), pages >= 7),
              (sorted(f"r{i}@x{i % 7}.example" for i in range(250)), True))
        check("match", sorted(r["email"] for r in rows_of(engine, spring, match="*@X3.example")[0]),
              sorted(f"r{i}@x3.example" for i in range(3, 250, 7)))
        check("none", rows_of(engine, spring, state="held"), ([], 1))
        # What has an end of its own ends then, and says so; of others it is known when.
        far, soon = int(time.time()) + 3600, int(time.time()) + 4
        sale = engine.create(name="sale", expires=soon)
        engine.add(sale, csv(0, 20))
        engine.order(sale, "start")
        single = {"envelope_sender": "n@sender.example", "expires": soon, "content": "From: n@sender.example\n\nx\n",
                  "recipients": [{"email": "single@x1.example"}]}
        check("single", engine.post("/api/inject/v1", single)["success_count"], 1)
        later = engine.create(name="later", expires=far)
        engine.add(later, csv(0, 3))
        check("too late", "when it has expired" in engine.order(later, "start", {"at": far}, 422)["detail"], True)
        check("told", (engine.show(later)["expires_ms"],
                       "What is not delivered expires: the first at " in engine.command("why", "later"),
                       "\nexpires      20" in engine.command("campaign", "show", "later")), (far * 1000, True, True))
        engine.order(other, "start")
        # Behind some the destination is left alone.
        deferred = wait_until("some to be deferred", lambda: rows_of(engine, other, state="deferred")[0])
        check("why", (deferred[0]["attempts"], "451 4.7.1 later" in deferred[0]["last_error"]), (1, True))
        schemas = json.loads(engine.ask("GET", "/api/openapi.json")[2])
        check("document", all(fits(r, schemas["components"]["schemas"]["CampaignRow"], schemas) for r in deferred), True)
        one = deferred[0]["email"]
        check("command", [r["recipient"] for r in engine.rows("campaign", "recipients", "other", "--match", one[:-8] + "*",
                                                              "--state", "deferred")], [one])
        check("some", len(engine.rows("campaign", "recipients", "spring", "--limit", "3")), 3)
        out = pathlib.Path(temp.path) / "out"
        engine.command("queue", "export", "--campaign", "other", "--to", out)
        row = json.loads((out / "recipients.jsonl").read_text().splitlines()[0])
        content, i = json.loads((out / f"{row['id']}.json").read_text())["content"], row["recipient"][1:].partition("@")[0]
        check("exported", (row["recipe"], row["variables"], "subject" in content),
              (True, {"name": f"太郎{i}", "substitutions": {"code": f"c{i}"}}, True))
        check("expired", engine.wait_state(sale, "done")["expired"], 20)
        ends = [r["response"]["content"] for r in engine.wait_records("Expiration", 21)]
        check(f"reason {ends}", all("at the time that was set for it" in text for text in ends), True)
        for wrong in ("state=sent", "limit=0", "limit=x", "after=x", "after=9999", "after=0000zz", "after=" + "0" * 2000):
            check(wrong, engine.ask("GET", f"{ROOT}/{spring}/recipients?{wrong}")[0], 422)
        check("nobody", engine.ask("GET", f"{ROOT}/{'0' * 32}/recipients")[0], 404)


# --- who gets no mail ---

def suppression_api(engine):
    """The list by HTTP, by whose token; single letters; all as the document says."""
    document = json.loads(engine.ask("GET", "/api/openapi.json")[2])
    path, schemas = "/api/suppression/v1", document["components"]["schemas"]

    def ask(method, arguments="", body=None, token=None, want=200, schema=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        status, _, text = engine.ask(method, path + arguments, body, headers)
        check(f"{method} {arguments} {text}", status, want)
        said = json.loads(text)
        check(f"{method} {arguments} {text}", fits(said, schemas[schema if status == 200 else "Problem"], document), True)
        return said

    token = engine.command("token", "add", "acme", "--tenant", "acme").strip()
    whole = ask("GET", schema="SuppressionList")["suppressions"]
    pages, after = [], ""
    while after is not None:
        page = ask("GET", f"?limit=2{after}", schema="SuppressionList")
        pages += page["suppressions"]
        after = "&after=" + urllib.parse.quote(page["next"]) if "next" in page else None
    check("pages", pages, whole)
    check("commands", engine.rows("suppress", "list"), whole)
    check("a tenant's", ask("GET", token=token, schema="SuppressionList")["suppressions"],
          [r for r in whole if r.get("tenant") == "acme"])
    for after in (":a", "abc:a", "acmes:a"):  # of another's listing, or made up
        check(f"a tenant's {after}", ask("GET", f"?after={after}", token=token, schema="SuppressionList")["suppressions"],
              [r for r in whole if r.get("tenant") == "acme"])
    slow = engine.command("token", "add", "slow", "--tenant", "slow", "--rate", "4/h").strip()
    check("counted", [engine.ask("POST", path, {"suppressions": [{"email": f"s{i}{n}@x.example"} for n in range(each)]},
                                 {"Authorization": f"Bearer {slow}"})[0] for i, each in enumerate((1, 1, 2, 1))],
          [200, 200, 200, 429])
    check("added", ask("POST", body={"suppressions": [{"email": "H1@x.example", "reason": "unsubscribed"}, {"email": "x"},
                                                      {"email": "h2@x.example"}, {"mail": 1}]},
                       token=token, schema="SuppressionAdded")["errors"],
          [{"at": 1, "error": "is no mail address", "field": "email"},
           {"at": 3, "error": "unknown field; did you mean 'email'?", "field": "mail"}])
    check("whose", [(r["email"], r["tenant"], r["reason"], r["who"]) for r in
                    ask("GET", "?email=h1@X.example", schema="SuppressionList")["suppressions"]],
          [("h1@x.example", "acme", "unsubscribed", "token acme")])
    letter = {"envelope_sender": "n@sender.example", "content": "From: n@sender.example\n\nx\n", "tenant": "acme",
              "recipients": [{"email": f"h{i}@x.example"} for i in range(1, 4)]}
    check("single", [engine.inject({**letter, **more})["errors"] for more in ({"campaign": "c"}, {}, {"tenant": "shop"})],
          [["h1@x.example: 550 5.7.1 the address is on the suppression list of acme: it unsubscribed",
            "h2@x.example: 550 5.7.1 the address is on the suppression list of acme: it was put there by hand"],
           ["h2@x.example: 550 5.7.1 the address is on the suppression list of acme: it was put there by hand"], []])
    named = {**letter, "content": "From: n@sender.example\nX-Hayauma-Tenant: acme\nX-Hayauma-Campaign: c\n\nx\n"}
    del named["tenant"]
    check("named in the letter", [e.partition(":")[0] for e in engine.inject(named)["errors"]], ["h1@x.example", "h2@x.example"])
    ask("POST", body={"suppressions": [{"email": "h9@x.example", "reason": "complaint"},
                                       {"email": "H9@x.example", "reason": "unsubscribed"}]}, schema="SuppressionAdded")
    check("the stricter", [r["reason"] for r in ask("GET", "?email=h9@x.example", schema="SuppressionList")["suppressions"]],
          ["complaint"])
    check("removed", [ask("DELETE", f"?email=h2@x.example{more}", token=token, schema="SuppressionRemoved")["removed"]
                      for more in ("", "")], [1, 0])
    ask("DELETE", "?email=r1@x1.example&tenant=shop", token=token, want=403)
    for method, wrong, body in (("DELETE", "", None), ("DELETE", "?email=x", None), ("GET", "?limit=0", None), ("GET", "?after=x", None),
                                ("GET", "?email=x", None), ("POST", "", {"suppressions": [{"email": "a@x.example"}] * 10001})):
        ask(method, wrong, body, want=422)
    ask("POST", body={}, want=400)
    for method in ("GET", "DELETE"):  # a misspelt tenant must not mean all
        ask(method, "?email=r1@x1.example&tennant=acme", want=400)
    check("methods", engine.ask("PUT", path)[1]["Allow"], "GET, HEAD, POST, DELETE")


def listed_while_it_waits(engine, sink):
    """Mail that waits is looked up again before its attempt: who came on the list meanwhile gets none of it."""
    letter = {"envelope_sender": "", "content": "From: n@sender.example\n\nx\n", "not_before": time.time() + 1}
    check("taken", engine.inject({**letter, "recipients": [{"email": f"w{i}@x.example"} for i in range(3)]})["fail_count"], 0)
    engine.command("suppress", "add", "W1@x.example", "--reason", "complaint")
    (ended,) = wait_until("the record", lambda: [r for r in engine.records("Bounce") if r["recipient"] == "w1@x.example"])
    check("listed meanwhile", (ended["bounce_classification"], ended["num_attempts"], ended["response"]["content"]),
          ("Suppressed", 0, "not sent: the address is on the suppression list: it complained"))
    check("the others", wait_until("them", lambda: sorted(a for a in arrived(sink) if a[0] == "w") or None),
          ["w0@x.example", "w2@x.example"])


def test_suppressed():
    """Who is on the suppression list gets no letter: neither who was on it before, nor who comes on it while the
    campaign is paused, over a kill -9; who is taken off it does."""
    with Sink() as sink, Campaigns(sink.port) as engine:
        check("add", engine.command("suppress", "add", "R1@X1.example", '"r2"@x2.example', "--reason", "complaint"),
              "2 added, 0 were there already, 0 invalid\n")
        listed = engine.dir / "listed.csv"
        listed.write_text("\ufeffCampaign,Email,Reason,Tenant,Since\r\nspring,r3@x3.example,unsubscribed,acme,2026-11-29T09:00:00+09:00\r\n"
                          ",no address,,,\r\n,r4@x4.example,nonsense,,\r\n,r5@x5.example,,other,\r\n,r1@x1.example,unsubscribed,,\r\n")
        done = subprocess.run([program(), "suppress", "import", listed, "-c", engine.file], capture_output=True, text=True,
                              timeout=60, check=False)
        check(f"import {done}", (done.returncode, done.stdout, "line 3: no address: email is no mail address" in done.stderr,
                                 "line 4: r4@x4.example: reason is not unsubscribed" in done.stderr),
              (1, "2 added, 1 were there already, 2 invalid\n", True, True))
        odd = engine.dir / "odd.csv"  # a tenant that cannot be said must not mean all
        odd.write_bytes(b"email,tenant\no1@x.example,\xe9t\xe9\n" + b"o2@x.example," + b"t" * 65 + b"\n"
                        + b"o" * 200000 + b"@x.example,\no3@x.example,a\x00b\n")
        done = subprocess.run([program(), "suppress", "import", odd, "-c", engine.file], capture_output=True, text=True,
                              timeout=60, check=False)
        check("odd", (done.returncode, done.stdout, [" ".join(line.split()[3:5]) for line in done.stderr.splitlines()]),
              (1, "0 added, 0 were there already, 4 invalid\n", ["line 2:", "line 3:", "line 4:", "line 5:"]))
        engine.kill()
        engine.start()
        check("export", engine.command("suppress", "export").splitlines()[0::3][0], "email,reason,tenant,since,campaign")
        check("one of it", "r3@x3.example,unsubscribed,acme,2026-11-29T00:00:00.000Z,spring" in
              engine.command("suppress", "export", "--tenant", "acme").splitlines(), True)
        check("check", engine.command("suppress", "check", "r3@x3.example", "r9@x9.example", check=False).splitlines(),
              ["r3@x3.example: unsubscribed since 2026-11-29T00:00:00.000Z, for tenant acme, campaign spring, by "
               + engine.rows("suppress", "check", "r3@x3.example")[0]["who"], "r9@x9.example: not on the list"])
        spring = engine.create(tenant="acme")
        first = engine.add(spring, csv(0, 40), Idempotency_Key="a")
        check("first", (first["new"], first["suppressed"], first["suppressed_lines"], first["duplicates"]), (37, 3, [3, 4, 5], 0))
        engine.command("suppress", "remove", "r2@X2.example")
        check("again", engine.add(spring, csv(0, 40), Idempotency_Key="a"), {**first, "again": True})
        check("taken off", engine.add(spring, csv(0, 3))["new"], 1)
        engine.command("suppress", "add", "R10@x3.example", "--reason", "unsubscribed", "--tenant", "acme")
        engine.command("suppress", "add", "r11@x4.example", "--reason", "unsubscribed", "--tenant", "other")
        engine.order(spring, "start")
        done = engine.wait_state(spring, "done")
        check("counts", {k: done[k] for k in ("recipients", "delivered", "failed", "suppressed")},
              {"recipients": 38, "delivered": 37, "failed": 1, "suppressed": 1})
        check("letters", arrived(sink), {f"r{i}@x{i % 7}.example": 1 for i in range(40) if i not in (1, 3, 10)})
        (ended,) = engine.wait_records("Bounce")
        check("record", (ended["recipient"], ended["bounce_classification"], ended["response"]["code"], ended["num_attempts"],
                         ended["response"]["content"]),
              ("r10@x3.example", "Suppressed", 550, 0, "not sent: the address is on the suppression list of acme: it unsubscribed"))
        check("reasons", engine.whole(spring)["report"]["reasons"],
              [{"reason": "Suppressed", "failed": 1, "expired": 0, "deferrals": 0}])
        counters = engine.status()["counters"]
        check("counters", (counters["suppressed_recipients"], counters["notices"]), (5, 0))
        listed_while_it_waits(engine, sink)
        suppression_api(engine)
        for arguments, status in ((("add", "nobody"), 1), (("add",), 2), (("list", "x"), 2), (("bad",), 2), (("import", "/no"), 1),
                                  (("list", "--reason", "x"), 2), (("add", "a@x.example", "--reason", "x"), 1)):
            told = subprocess.run([program(), "suppress", *arguments, "-c", engine.file], capture_output=True, timeout=60,
                                  check=False)
            check(f"{arguments} {told.stderr}", (told.returncode, told.stderr != b""), (status, True))


# --- the command ---

def test_command():
    """hayauma campaign shows and orders what HTTP does."""
    with Sink() as sink, Campaigns(sink.port) as engine:
        check("none", engine.command("campaign", "list"), "")
        spring = engine.create(tenant="acme")
        engine.add(spring, csv(0, 100))
        (row,) = engine.rows("campaign", "list")
        check("json", row, engine.show(spring))
        head, line = engine.command("campaign", "list").splitlines()
        check("columns", (line.split()[:4], max(len(head), len(line)) <= 80), (["spring@acme", "draft", "100", "100"], True))
        check("show", f"id           {spring}\n" in engine.command("campaign", "show", "spring"), True)
        said = engine.command("campaign", "start", spring, "--at",
                              time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 3600)))
        check("start", said, "spring@acme is scheduled: 100 of 100 recipients queued\n")
        check("pause", engine.rows("campaign", "pause", "spring")[0]["state"], "paused")
        told = engine.command("why", "--campaign", "spring")
        check(f"why {told}", ": campaign spring@acme: it is paused\n" in told.replace(".\n", "\n"), True)
        # An operator's suspension is no state of the campaign, and its screens show it all the same.
        engine.command("queue", "suspend", "--campaign", "spring", "--reason", "wrong price")
        told = engine.command("campaign", "show", "spring")
        check(f"suspended {told}", re.search(r"\nsuspended +\ds ago by .*: wrong price\n", told) is not None, True)
        told = engine.command("queue", "suspensions")
        check(f"suspensions {told}", "campaign_tenant" in told or "campaign        spring@acme " not in told, False)
        engine.command("queue", "resume", "--campaign", "spring")
        check("resume", engine.rows("campaign", "resume", "spring")[0]["state"] in ("scheduled", "running"), True)
        asked = subprocess.run([program(), "campaign", "cancel", "spring", "-c", engine.file], capture_output=True,
                               stdin=subprocess.DEVNULL, timeout=60, check=False)
        check("asks", (asked.returncode, b"--yes" in asked.stderr), (2, True))
        check("cancel", engine.rows("campaign", "cancel", "spring", "--yes")[0]["state"], "cancelled")
        engine.create(name="other")
        for arguments, status in ((("show", "nobody"), 1), (("pause", "spring"), 1), (("start",), 2), (("list", "x"), 2),
                                  (("start", "other", "--at", "2099-01-01T00:00:00Z"), 1),
                                  (("pause", "spring", "--at", "x"), 2), (("stop",), 2)):
            done = subprocess.run([program(), "campaign", *arguments, "-c", engine.file], capture_output=True,
                                  timeout=60, check=False)
            check(f"{arguments} {done.stderr}", (done.returncode, done.stderr != b""), (status, True))


def test_openapi():
    """Requests and answers are as the document says."""
    with Campaigns(more={"sources": {"a": {"ipv4": "127.0.0.1"}}, "default_pool": "bulk",
                         "pools": {"bulk": {"sources": {"a": {"weight": 1}}}}}) as engine:
        document = json.loads(engine.ask("GET", "/api/openapi.json")[2])
        schemas = document["components"]["schemas"]
        keys_of(engine, schemas["CampaignRequest"]["properties"]["dkim_domain"]["example"])
        engine.reload()
        made = engine.post(ROOT, {**sample(schemas["CampaignRequest"], document), "expires": int(time.time()) + 9000}, 201)
        check(f"campaign {made}", fits(made, schemas["Campaign"], document), True)
        said = engine.add(made["id"], b"email\na@x.example\nx\na@x.example\n")
        check(f"chunk {said}", fits(said, schemas["ChunkResponse"], document), True)
        row = json.dumps(sample(schemas["Recipient"], document)).encode()
        check("row", engine.add(made["id"], row, "application/x-ndjson")["invalid"], 0)
        listed = json.loads(engine.ask("GET", ROOT)[2])
        check(f"list {listed}", fits(listed, schemas["CampaignList"], document), True)
        started = engine.order(made["id"], "start", {"at": int(time.time()) + 3600})
        whole = engine.whole(made["id"])
        check(f"report {whole}", fits(whole, schemas["Campaign"], document), True)
        check(f"started {started}", (fits(started, schemas["Campaign"], document), started["state"]), (True, "scheduled"))
        text = (TESTS.parent / "engine/http/mail_fields.c").read_text()
        known = {n for n in schemas["CampaignRequest"]["properties"] if f'{{"{n}", JSON_IS_' in text}
        check("fields", known, set(schemas["CampaignRequest"]["properties"]))


if __name__ == "__main__":
    run(globals())
