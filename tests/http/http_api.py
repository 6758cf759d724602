#!/usr/bin/env python3
"""The HTTP side of the engine, by real clients and by hostile ones.

http_api.py [TEST...]"""

import base64
import collections
import contextlib
import email
import email.policy
import gzip
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "lib"), str(HERE.parent / "hostile")]

from engine import Engine, Sink  # noqa: E402
from proc import Failure, free_port, wait_port, wait_until  # noqa: E402
from servers import Server  # noqa: E402
from talk import check, read_all, run  # noqa: E402

LOOPBACK = ["127.0.0.0/8"]
LETTER = {"envelope_sender": "news@sender.example", "recipients": [{"email": "a@x.example"}],
          "content": {"text_body": "hello", "subject": "hi", "from": {"email": "news@sender.example"}}}


def settings(port, **more):
    return {"http": {"listen": f"127.0.0.1:{free_port()}", "trusted_networks": LOOPBACK, **more},
            "routes": {"*": f"[127.0.0.1]:{port}"}}


class Api(Engine):
    def __init__(self, port=1, more=None, **http_more):
        super().__init__({**settings(port, **http_more), **(more or {})})
        self.config["http"].setdefault("tokens", str(self.dir / "tokens"))
        self.web = int(self.config["http"]["listen"].rpartition(":")[2])

    def start(self, timeout_s=60):
        super().start(timeout_s)
        wait_port(("127.0.0.1", self.web), self.process, timeout_s)
        return self

    def ask(self, method, path, body=None, headers=None, timeout_s=60):
        """(status, headers, body)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.web, timeout=timeout_s)
        with contextlib.closing(connection):
            if body is not None and not isinstance(body, (bytes, str)):
                body = json.dumps(body)
            connection.request(method, path, body,
                               {**({"Content-Type": "application/json"} if body is not None else {}),
                                **(headers or {})})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def inject(self, body, **more):
        status, _, text = self.ask("POST", "/api/inject/v1", body, **more)
        if status != 200:
            raise Failure(f"{status} {text}")
        return json.loads(text)

    def raw(self, data, timeout_s=15):
        """All that comes back to these bytes, until the connection ends."""
        with socket.create_connection(("127.0.0.1", self.web), timeout_s) as s:
            with contextlib.suppress(ConnectionError):
                s.sendall(data)
            return read_all(s)


def keys_of(engine, *domains):
    """Gives each domain a DKIM key."""
    file = engine.dir / "dkim.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", file], check=True, timeout=60)
    file.chmod(0o600)
    engine.config["dkim"] = {"keys": [{"domain": d, "selector": "s", "file": str(file)} for d in domains]}


def parsed(content):
    """What a receiver took, as Python's email package sees it."""
    content = re.sub(rb"^\.", b"", content, flags=re.M)
    message = email.message_from_bytes(content, policy=email.policy.SMTP)
    if message.defects or any(p.defects for p in message.walk()):
        raise Failure(f"defects {message.defects} in {content!r}")
    if max(map(len, content.split(b"\r\n"))) > 998 or re.search(rb"[^\r]\n|\r[^\n]", content):
        raise Failure(f"lines of {content!r}")
    return message


def letters(server, count):
    """Letters by their recipient."""
    wait_until(f"{count} letters", lambda: len(server.taken) >= count)
    return {str(m["To"].addresses[0].addr_spec): m for m in map(parsed, server.taken)}


# --- what is sent ---

def test_parts():
    """A letter of all kinds of parts, with personal texts, arrives as it was meant."""
    picture = bytes(random.Random(1).randbytes(3000))
    content = {
        "text_body": "{{ name }}様\n{% for item in items %}- {{ item }}\n{% endfor %}.\nend {{ missing }}",
        "html_body": "<p>{{ name }} {{ raw|safe }} {{ unsafe }}</p>" + "長い行" * 400,
        "amp_html_body": "<html amp4email><body>{{ name }}</body></html>",
        "attachments": [
            {"data": base64.b64encode(picture).decode(), "base64": True, "content_type": "image/png",
             "content_id": "logo@x", "file_name": "logo.png"},
            {"data": "a,b\n", "content_type": "text/csv; charset=utf-8", "file_name": "見積書\r\nX: y.csv"}],
        "headers": {"X-Campaign": "{{ code }}", "List-Unsubscribe": "<https://x.example/u/{{ code }}>"},
        "from": {"email": "news@sender.example", "name": "早馬 \"ニュース\""},
        "reply_to": {"email": "reply@sender.example"},
        "subject": "【お知らせ】{{ name }}様、春のセールが始まりました。ぜひご覧ください。"}
    body = {"envelope_sender": "bounce@sender.example", "content": content,
            "substitutions": {"items": ["one", "二"], "code": "global", "unsafe": "<&>"},
            "recipients": [
                {"email": "taro@x.example", "name": "太郎", "substitutions": {"code": "c1", "raw": "<b>!</b>"}},
                {"email": "hana@y.example", "name": "花子 <b>", "metadata": {"k": [1]}}]}
    server = Server({})
    with Api(server.port) as engine:
        answer = engine.inject(body)
        check("counts", (answer["success_count"], answer["fail_count"], len(answer["ids"])), (2, 0, 2))
        found = letters(server, 2)
        records = {r["recipient"]: r for r in engine.wait_records("Reception", 2)}
    taro, hana = found["taro@x.example"], found["hana@y.example"]
    check("subject", taro["Subject"], content["subject"].replace("{{ name }}", "太郎"))
    check("from", (taro["From"].addresses[0].display_name, taro["From"].addresses[0].addr_spec),
          ("早馬 \"ニュース\"", "news@sender.example"))
    check("to", hana["To"].addresses[0].display_name, "花子 <b>")
    check("fields", (taro["X-Campaign"], hana["X-Campaign"], taro["Reply-To"]),
          ("c1", "global", "reply@sender.example"))
    check("once", [len(taro.get_all(f)) for f in ("Message-ID", "Date", "MIME-Version", "From", "To")], [1] * 5)
    check("no Received of ours", taro.get_all("Received"), None)
    check("structure", [p.get_content_type() for p in taro.walk()],
          ["multipart/mixed", "multipart/related", "multipart/alternative", "text/plain", "text/x-amp-html",
           "text/html", "image/png", "text/csv"])
    parts = [p for p in taro.walk() if not p.is_multipart()]
    check("text", parts[0].get_content(), "太郎様\r\n- one\r\n- 二\r\n.\r\nend \r\n")
    check("html", parts[2].get_content().strip(), "<p>太郎 <b>!</b> &lt;&amp;&gt;</p>" + "長い行" * 400)
    check("html is escaped", "花子 &lt;b&gt;" in [p for p in hana.walk()][5].get_content(), True)
    check("picture", (parts[3].get_content(), parts[3]["Content-ID"], parts[3].get_content_disposition()),
          (picture, "<logo@x>", "inline"))
    check("csv", (parts[4].get_content(), parts[4].get_filename()), ("a,b\n", "見積書__X: y.csv"))
    check("record", (records["hana@y.example"]["reception_protocol"], records["hana@y.example"]["id"] in
                     answer["ids"], records["hana@y.example"]["meta"]["k"]), ("HTTP", True, [1]))


def test_whole_message():
    """A message as one text: rendered, its header in ASCII, private fields obeyed and taken off."""
    text = ("From: 早馬 <news@sender.example>\nTo: \"{{ name }}\" <{{ email }}>\n"
            "Subject: {{ name }}さん\nX-Hayauma-Campaign: spring\nBcc: secret@x.example\n"
            "Content-Type: text/plain; charset=utf-8\n\n{{ name }}さん\n.\n")
    server = Server({})
    with Api(server.port) as engine:
        engine.inject({"envelope_sender": "", "content": text,
                       "recipients": [{"email": "a@x.example", "name": "花子"}],
                       "trace_headers": {"received_header": True}})
        engine.inject({"envelope_sender": "b@sender.example", "template_dialect": "Static",
                       "content": "Subject: {{ x }}\r\nTo: b@x.example\r\n\r\n{{ y }}",
                       "recipients": [{"email": "b@x.example"}]})
        found = letters(server, 2)
        (record,) = engine.wait_records("Reception", recipient="a@x.example")
    m = found["a@x.example"]
    check("header", (m["Subject"], m["From"].addresses[0].display_name, m["Bcc"], m["X-Hayauma-Campaign"]),
          ("花子さん", "早馬", None, None))
    check("body", m.get_content(), "花子さん\r\n.\r\n")
    check("received", " with HTTP id " in m["Received"], True)
    check("campaign", record["meta"].get("campaign"), "spring")
    check("static", (found["b@x.example"]["Subject"], found["b@x.example"].get_payload()),
          ("{{ x }}", "{{ y }}\r\n"))


def test_no_variable_makes_a_field():
    """Line ends in variables: of header fields, names, addresses; in whole messages and in parts."""
    evil = "x\r\nBcc: victim@x.example\r\n\r\ninjected"
    whole = "From: {{ e }} <n@sender.example>\nTo: {{ email }}\nSubject: {{ e }}\nX: {{ e }}\n\n{{ e }}"
    parts = {"text_body": "t", "subject": "{{ e }}", "from": {"email": "n@sender.example", "name": "{{ e }}"},
             "headers": {"X-Any": "{{ e }}", "X-Own": evil}, "reply_to": {"email": "r@sender.example", "name": "{{e}}"}}
    server = Server({})
    with Api(server.port) as engine:
        for n, content in enumerate((whole, parts)):
            engine.inject({"envelope_sender": "n@sender.example", "content": content,
                           "recipients": [{"email": f"r{n}@x.example", "name": evil,
                                           "substitutions": {"e": evil}}]})
        found = letters(server, 2)
    for m in found.values():
        if set(m.keys()) - {"From", "To", "Subject", "X", "X-Any", "X-Own", "Reply-To", "Message-ID", "Date",
                            "MIME-Version", "Content-Type", "Content-Transfer-Encoding"}:
            raise Failure(f"fields {m.keys()}")
        check("subject", " ".join(m["Subject"].split()), "x Bcc: victim@x.example injected")
    check("body", found["r0@x.example"].get_payload().startswith("x\r\nBcc:"), True)


def test_failed_recipients():
    """Some recipients fail, each with its reason; the others are sent to."""
    server = Server({})
    body = {"envelope_sender": "n@sender.example",
            "content": {"text_body": "{{ user.name }}", "from": {"email": "n@sender.example"}},
            "recipients": [{"email": "no address"}, {"email": "b@x.example"},
                           {"email": "c@no.example", "substitutions": {"user": {"name": "x"}}},
                           {"email": "d@x.example", "substitutions": {"user": {"name": "dora"}}}]}
    with Api(server.port, {"routes": {"no.example": "reject", "*": f"[127.0.0.1]:{server.port}"}}) as engine:
        answer = engine.inject(body)
        check("counts", (answer["success_count"], answer["fail_count"]), (1, 3))
        check("failed", answer["failed_recipients"], ["no address", "b@x.example", "c@no.example"])
        for error, part in zip(answer["errors"], ("5.1.3", "content.text_body: template, line 1, column", "5.7.1")):
            check(error, part in error, True)
        check("sent", list(letters(server, 1)), ["d@x.example"])
        answer = engine.inject({**body, "recipients": []})
        check("nobody", (answer["success_count"], answer["ids"]), (0, []))


def test_dialects():
    """The same letter by each language; in none does a value make a header."""
    server = Server({})
    with Api(server.port) as engine:
        for dialect, loop in (("Jinja", "{% for i in items %}{{ i }},{% endfor %}"),
                              ("Handlebars", "{{#each items}}{{this}},{{/each}}"), ("Mustache", "{{#items}}{{.}},{{/items}}")):
            engine.inject({
                "envelope_sender": "b@s.example", "template_dialect": dialect,
                "recipients": [{"email": f"{dialect.lower()}@x.example", "name": "太郎 <>",
                                "substitutions": {"items": ["1", "<2>"], "evil": "x\r\nBcc: y@z.example\r\n\r\nbody"}}],
                "content": {"from": {"email": "n@s.example"}, "subject": "{{ name }} {{ evil }}",
                            "text_body": "{{ name }} " + loop, "html_body": "<p>{{ name }} " + loop}})
        found = letters(server, 3)
    for address, m in found.items():
        check(address, (m["Subject"], m["Bcc"]), ("太郎 <> x  Bcc: y@z.example    body", None))
        text, page = (p.get_content().strip() for p in m.iter_parts())
        check(address, (text, page), ("太郎 <> 1,<2>,", "<p>太郎 &lt;&gt; 1,&lt;2&gt;,"))


def test_times_and_names():
    """not_before, expires, priority, campaign and tenant are what the queue shows."""
    with Api() as engine:
        engine.config["routes"] = {}
        soon = int(time.time()) + 3600
        engine.inject({**LETTER, "campaign": "spring", "tenant": "acme", "priority": 2, "not_before": soon,
                       "deferred_spool": True, "deferred_generation": False,
                       "expires": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(soon + 60))})
        (row,) = engine.rows("queue", "list")
        check("row", (row["priority"], row["campaign"], row["tenant"], row["due_ms"] // 1000,
                      abs(row["expires_ms"] // 1000 - soon - 60) <= 1), (2, "spring", "acme", soon, True))


POOLS = {"sources": {"a": {"ipv4": "127.0.0.1"}, "b": {"ipv4": "127.0.0.2"}}, "default_pool": "few",
         "pools": {"few": {"sources": {"a": {"weight": 1}}}, "bulk": {"sources": {"b": {"weight": 1}}}}}


def test_pool():
    """A pool that the request names, or its message; one that there is not is refused."""
    with Sink() as sink, Api(sink.port, POOLS) as engine:
        engine.inject({**LETTER, "pool": "bulk", "recipients": [{"email": "one@x.example"}]})
        engine.inject({**LETTER, "recipients": [{"email": "two@x.example"}]})
        engine.inject({**LETTER, "recipients": [{"email": "three@x.example"}],
                       "content": "From: a@x.example\nX-Hayauma-Pool: bulk\n\nx"})
        records = {r["recipient"].partition("@")[0]: r for r in engine.wait_records("Delivery", 3)}
        check("pools", {n: (r["egress_pool"], r["egress_source"]) for n, r in records.items()},
              {"one": ("bulk", "b"), "two": ("few", "a"), "three": ("bulk", "b")})
        status, _, text = engine.ask("POST", "/api/inject/v1", {**LETTER, "pool": "none"})
        check(f"no pool {text}", (status, json.loads(text)["field"]), (422, "pool"))


def many(count, **more):
    return {**LETTER, "recipients": [{"email": f"r{i}@x{i % 9}.example"} for i in range(count)], **more}


def test_key():
    """A request with a key is carried out once; another one with its key is refused, and so is the same
    while it is under way."""
    body = {**many(600), "idempotency_key": "朝のニュース 1"}
    body["recipients"][7] = {"email": "no address"}
    pools = {"sources": {"s": {"ipv4": "127.0.0.1"}}, "pools": {"bulk": {"sources": {"s": {}}}}}
    with Api(more={"routes": {}, **pools}, trusted_networks=[]) as engine:
        mine, other = (engine.command("token", "add", name, "--scopes", "inject").strip()
                       for name in ("mine", "other"))
        headers = {"Authorization": f"Bearer {mine}"}
        busy = threading.Event()

        def hurry():
            while not busy.is_set():
                if engine.ask("POST", "/api/inject/v1", body, headers)[0] == 409:
                    busy.set()

        first = engine.inject(body, headers=headers)
        check("counts", (first["success_count"], first["fail_count"]), (599, 1))
        check("again", engine.inject(body, headers=headers), first)
        by_head = {**headers, "Idempotency-Key": "head"}
        said = engine.inject(LETTER, headers=by_head)
        check("by the head", engine.inject(LETTER, headers=by_head), said)
        for more, key, status in (({}, "朝".encode(), 200), ({}, "", 400), ({"idempotency_key": "body"}, "head", 400),
                                  ({"idempotency_key": "head"}, "head", 409), ({"tags": ["a"]}, "head", 409)):
            check(f"{more} {key}", engine.ask("POST", "/api/inject/v1", {**LETTER, **more}, {**headers, "Idempotency-Key": key})[0], status)
        rows = {r["id"] for r in engine.rows("queue", "list")}
        check("ids", rows >= {*first["ids"], *said["ids"]} and len(rows), 599 + 2)
        status, _, text = engine.ask("POST", "/api/inject/v1", {**body, "campaign": "c"}, headers)
        check(f"another {text}", (status, json.loads(text)["field"]), (409, "idempotency_key"))
        others = engine.inject(body, headers={"Authorization": f"Bearer {other}"})
        check("another's", set(others["ids"]) & rows, set())
        # A repeat hears its first answer whatever has changed since, and takes nothing from a rate.
        slow = {"Authorization": "Bearer " + engine.command("token", "add", "slow", "--scopes", "inject", "--rate", "3/h").strip()}
        short = {**many(2), "idempotency_key": "short", "expires": int(time.time()) + 2, "pool": "bulk"}
        short["recipients"][1] = {"email": "no address"}
        said = engine.inject(short, headers=slow)
        engine.config.pop("pools")
        engine.config.pop("sources")
        engine.reload()
        wait_until("its time", lambda: time.time() > short["expires"])
        check("expired since", [engine.inject(short, headers=slow) for _ in range(3)], [said] * 3)
        status, _, text = engine.ask("POST", "/api/inject/v1", {**short, "idempotency_key": "other"}, slow)
        check(f"another {text}", (status, json.loads(text)["field"]), (422, "expires"))
        big = {**many(20000), "idempotency_key": "big"}
        body = big
        threads = [threading.Thread(target=hurry) for _ in range(2)]
        for t in threads:
            t.start()
        wait_until("a second one to be refused", busy.is_set)
        for t in threads:
            t.join()
        check("all of it, once", engine.inject(big, headers=headers)["success_count"], 20000)
        check("each once", len({r["recipient"] for r in engine.rows("queue", "list")}), 20000 + 1)


def test_key_and_kill():
    """A request with a key that a crash cut is sent again: each letter is accepted once."""
    body, parts = {**many(20000), "idempotency_key": "k"}, 0
    with Api(more={"routes": {}}) as engine:
        def cut():
            with contextlib.suppress(OSError, http.client.HTTPException):
                engine.ask("POST", "/api/inject/v1", body)

        for _ in range(3):
            before = engine.status()["queue"]["rows"]
            thread = threading.Thread(target=cut)
            thread.start()
            wait_until("some of it", lambda: engine.status()["queue"]["rows"] > before or not thread.is_alive())
            engine.kill()
            thread.join()
            engine.start()
            parts += 0 < engine.status()["queue"]["rows"] < 20000
        check("a part of it was accepted", parts > 0, True)
        answer = engine.inject(body)
        check("answer", (answer["success_count"], len(set(answer["ids"]))), (20000, 20000))
        rows = collections.Counter(r["recipient"] for r in engine.rows("queue", "list"))
        check("each once", (len(rows), set(rows.values())), (20000, {1}))


# --- what is refused ---

REFUSED = [
    ({"x": 1}, 400, "x"),
    ({**LETTER, "recipents": []}, 400, "recipents"),
    ({k: v for k, v in LETTER.items() if k != "content"}, 400, "content"),
    ({**LETTER, "recipients": [{"email": "a@x.example", "emial": 1}]}, 400, "recipients[0].emial"),
    ({**LETTER, "recipients": [{}]}, 400, "recipients[0].email"),
    ({**LETTER, "recipients": {"email": "a@x.example"}}, 400, "recipients"),
    ({**LETTER, "recipients": ["a@x.example"]}, 400, "recipients[0]"),
    ({**LETTER, "envelope_sender": "not an address"}, 422, "envelope_sender"),
    ({**LETTER, "template_dialect": "Liquid"}, 422, "template_dialect"),
    ({**LETTER, "content": "{{ broken"}, 422, "content"),
    ({**LETTER, "content": {"amp_html_body": "x", "from": {"email": "a@b.example"}}}, 422, "content"),
    ({**LETTER, "content": {"text_body": "x"}}, 422, "content.from"),
    ({**LETTER, "content": {**LETTER["content"], "headers": {"From": "x"}}}, 422, "content.headers.From"),
    ({**LETTER, "content": {**LETTER["content"], "headers": {"Bad name": "x"}}}, 422, "content.headers.Bad name"),
    ({**LETTER, "content": {**LETTER["content"], "headers": {"Content-Type": "x"}}}, 422,
     "content.headers.Content-Type"),
    ({**LETTER, "content": {**LETTER["content"], "attachments": [{"data": "x", "content_type": "multipart/x"}]}},
     422, "content.attachments[0]"),
    ({**LETTER, "content": {**LETTER["content"], "attachments":
                            [{"data": "*", "content_type": "a/b", "base64": True}]}}, 422, "content.attachments[0]"),
    ({**LETTER, "content": {**LETTER["content"], "attachments":  # without its padding
                            [{"data": "aGk", "content_type": "a/b", "base64": True}]}}, 422, "content.attachments[0]"),
    ({**LETTER, "tenant": "a b"}, 422, "tenant"), ({**LETTER, "priority": 10}, 422, "priority"),
    ({**LETTER, "idempotency_key": ""}, 422, "idempotency_key"),
    ({**LETTER, "idempotency_key": "長" * 257}, 422, "idempotency_key"),
    ({**LETTER, "not_before": "soon"}, 422, "not_before"), ({**LETTER, "expires": 1}, 422, "expires"),
    ({**LETTER, "not_before": time.time() + 7200.5, "expires": time.time() + 3600}, 422, "expires"),
    ({**LETTER, "not_before": -1.5}, 422, "not_before"), ({**LETTER, "not_before": 1e300}, 422, "not_before"),
    ({**LETTER, "trace_headers": {"header_name": "Subject"}}, 422, "trace_headers.header_name"),
    ({**LETTER, "trace_headers": {"include_meta_names": [1]}}, 400, "trace_headers.include_meta_names"),
    ({**LETTER, "tags": ["a", ""]}, 422, "tags[1]"), ({**LETTER, "tags": ["x"] * 11}, 422, "tags[10]"),
    ({**LETTER, "dkim_domain": "sender.example"}, 422, "dkim_domain"), ({**LETTER, "dkim_domain": ""}, 422, "dkim_domain"),
    ({**LETTER, "deferred_spool": 1}, 400, "deferred_spool"),
    (b'{"a":' * 40 + b"1" + b"}" * 40, 400, ""), (b"[" * 1000000, 400, ""), (b"[1]", 400, ""), (b"", 400, ""),
    (b'{"a": 1e999}', 400, ""), (b'{"a": 99999999999999999999999}', 400, ""), (b'{"a": "\xff"}', 400, ""),
    (b'{"a": "\\u0000"}', 400, ""), (b'{"a": 1, "a": 2}', 400, ""), (b"[" + b"1," * 1000001 + b"1]", 400, ""),
    (b'{"a": 1} x', 400, ""), (b'"\\ud800"', 400, ""),
]


def test_refused():
    """Each mistake is answered with its place, and nothing of the request is sent."""
    with Api() as engine:
        for body, status, field in REFUSED:
            got, headers, text = engine.ask("POST", "/api/inject/v1", body)
            said = json.loads(text)
            check(f"{str(body)[:100]}: {said}",
                  (got, said["status"], said.get("field", ""), headers["Content-Type"]),
                  (status, status, field, "application/problem+json"))
        for method, path, headers, status in (
                ("GET", "/api/inject/v1", {}, 405), ("POST", "/nothing", {}, 404), ("PUT", "/metrics", {}, 405),
                ("POST", "/api/inject/v1", {"Content-Type": "text/plain"}, 415),
                ("POST", "/api/inject/v1", {"Content-Encoding": "br"}, 415)):
            check(f"{method} {path} {headers}",
                  engine.ask(method, path, LETTER if method != "GET" else None, headers)[0], status)
        # Who comes from another service is told what things are called here.
        for more, words in (({"personalizations": []}, 'here it is recipients: [{"email"'), ({"subject": "x"}, "here it is content.subject"),
                            ({"recipients": [{"email": "a@x.example", "custom_args": {}}]}, "here it is metadata"),
                            ({"recipients": ["a@x.example"]}, 'must be an object: {"email": "a@example.com"}'),
                            ({"content": {**LETTER["content"], "from": "a@x.example"}}, "must be an object: {"),
                            ({"envelope_sender": "N <a@x.example>"}, "is no mail address: write it alone")):
            said = json.loads(engine.ask("POST", "/api/inject/v1", {**LETTER, **more})[2])
            check(f"{more}: {said}", words in said["detail"], True)
        # What one recipient's letter is refused for has the field that the request has.
        said = engine.inject({**LETTER, "missing_variables": "fail", "content": {**LETTER["content"], "subject": "{{ x }}"}})
        check("subject", "content.subject: template, line 1" in said["errors"][0], True)
        check("nothing sent", engine.status()["counters"]["received_messages"], 0)
        engine.inject(LETTER)


def test_codings():
    """gzip and deflate are taken; a bomb, half a body, or one that is not so coded, is none."""
    plain = json.dumps(LETTER).encode()
    bomb = gzip.compress(b" " * (200 << 20))
    with Api(body_max="1MiB") as engine:
        for coding, body, status in (("gzip", gzip.compress(plain), 200), ("deflate", zlib.compress(plain), 200),
                                     ("identity", plain, 200), ("gzip", plain, 400),
                                     ("gzip", gzip.compress(plain[:9]) + gzip.compress(b"") + gzip.compress(plain[9:]), 200), ("gzip", b"", 400),
                                     ("gzip", gzip.compress(plain)[:-9], 400), ("gzip", gzip.compress(plain) + b"x", 400),
                                     ("gzip", bomb, 413), ("gzip, gzip", gzip.compress(gzip.compress(plain)), 415)):
            check(coding, engine.ask("POST", "/api/inject/v1", body, {"Content-Encoding": coding})[0], status)
        check("memory", engine.status()["gauges"]["intake_bytes"], 0)
        done = subprocess.run(["curl", "-s", "--json", "@-", "-H", "Content-Encoding: gzip",
                               f"http://127.0.0.1:{engine.web}/api/inject/v1"], input=gzip.compress(plain),
                              capture_output=True, timeout=60, check=False)
        check("curl", json.loads(done.stdout)["success_count"], 1)


def head(*fields, path="/api/inject/v1"):
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Connection: close", "Content-Type: application/json", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def test_framing():
    """Lengths that two readers would read otherwise, bad chunks, too much: refused, or cut, never mail."""
    text = json.dumps(LETTER).encode()
    length = f"Content-Length: {len(text)}"
    chunked = "Transfer-Encoding: chunked"
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(text), text)
    cases = [
        (head(length, length) + text, b"400"), (head(length, "Content-Length: 1") + text, b"400"),
        (head(length, chunked) + chunks, b"400"), (head(chunked, chunked) + chunks, b"400"),
        (head("Transfer-Encoding: gzip, chunked") + chunks, b"501"), (head("Content-Length: -1") + text, b"400"),
        (head("Content-Length: +5") + text, b"400"), (head("Content-Length: 0x10") + text, b"400"),
        (head("Content-Length: 99999999999999999999999") + text, b"4"), (head(f"{length},{len(text)}") + text, b"400"),
        (head(f"Content-Length : {len(text)}") + text, b"400"), (head(f"Content-Length:\r\n {len(text)}") + text, b"400"),
        (head(length, "X y: z") + text, b"400"),
        (head("Content-Length: 999999999") + text, b"413"), (head(length, "Host: y") + text, b"400"),
        (head(length, "Authorization: Bearer x", "Authorization: Bearer y") + text, b"400"),
        (head(chunked) + b"zz\r\n" + text, None), (head(chunked) + b"-1\r\n" + text, None),
        (head(chunked) + b"fffffffffffffffff\r\n" + text, None), (head(chunked) + b"5\r\nabcdefgh\r\n0\r\n\r\n", None),
        (head(chunked) + b"100000\r\n" + b"x" * 0x100000 + b"\r\n0\r\n\r\n", b"413"),
        (head(length) + text[:-5], None), (b"POST / HTTP/9.9\r\n\r\n", None), (b"\0" * 1000, None),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 200000 + b"\r\n\r\n", None),
    ]
    with Api(body_max="512KiB", idle_timeout="2s") as engine:  # what is missing is not waited for
        for data, want in cases:
            got = engine.raw(data)
            status = got[9:12]
            if want is None and status[:1] not in (b"", b"4", b"5"):
                raise Failure(f"{data[:150]!r}: {got[:100]!r}")
            if want is not None and not status.startswith(want):
                raise Failure(f"{data[:150]!r}: {got[:100]!r}, expected {want}")
        check("nothing sent", engine.status()["counters"]["received_messages"], 0)
        got = engine.raw(head(chunked) + chunks)
        check(f"chunks: {got}", got[9:12], b"200")
        with socket.create_connection(("127.0.0.1", engine.web)) as s:  # longer than the library has room for
            s.sendall(head(chunked) + b"5;" + b"x" * 30000)
            time.sleep(0.2)
            before = cpu_s(engine)
            time.sleep(1)
            check("no thread spins", cpu_s(engine) - before < 0.1, True)
        with socket.create_connection(("127.0.0.1", engine.web), 15) as s:  # who sends no more waits for answers
            s.sendall((head(length) + text).replace(b"Connection: close\r\n", b"") * 20)
            s.shutdown(socket.SHUT_WR)
            check("half closed", read_all(s).count(b"HTTP/1.1 200"), 20)
        for data, want in odd_requests(text):
            got = engine.raw(data)
            check(f"{data[:150]}: {got}", re.findall(rb"HTTP/1.1 (\d+)", got), want)


def cpu_s(engine):
    fields = pathlib.Path(f"/proc/{engine.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def odd_requests(text):
    """What is seldom seen, and what it gets."""
    def get(target, *fields):
        return "\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *fields, "", ""]).encode()

    length, close, typed = f"Content-Length: {len(text)}", "Connection: close", "Content-Type: application/json"
    post = head(length) + text
    for data, *want in (
            (get("http://other:81/health/live", close), b"200"), (get("HTTPS://x", close), b"404"),
            (get("/%68ealth/live", close), b"200"), (get("/health/live%00", close), b"404"),
            (get("/api/suppression/v1?tenant", close), b"400"), (get("/api/suppression/v1?limit=1&limit=2", close), b"400"),
            (get("/api/suppression/v1?limit=%001", close), b"422"),
            (get("/nothing") + get("/metrics", "Authorization: Bearer x") + get("/health/live", close), b"404", b"401", b"200"),
            (head(length, "X: a\rTransfer-Encoding: chunked") + text, b"400"),
            (head(f"Content-Length: {len(text) + 3}") + b"\xef\xbb\xbf" + text, b"200"),
            (post.replace(typed.encode(), b'Content-Type: Application/JSON;x=y; Charset="UTF-8"'), b"200"),
            (post.replace(typed.encode(), b"Content-Type: application/json; charset=iso-2022-jp"), b"415"),
            (post.replace(b"Connection: close\r\n", b"") + get("/health/live") + post, b"200", b"200", b"200"),
            (head("Transfer-Encoding: Chunked") + b"%x;a=\"b c\"\r\n%s\r\n0\r\nContent-Length: 3\r\n\r\n" % (len(text), text), b"200"),
            (head(length, "Expect: 100-continue") + text, b"100", b"200")):
        yield data, want


# --- who may ---

def test_senders_of_a_tenant():
    """A token's tenant says whose mail it may send: the envelope's for all, From for each letter."""
    engine = Api(trusted_networks=[], more={"tenants": {"acme": {"senders": ["sender.example", "<>"]}, "free": {}}})
    keys_of(engine, "sender.example", "x.example")
    with engine:
        bearer = {name: engine.command("token", "add", name, *options).strip() for name, *options in (
            ("acme", "--tenant", "acme"), ("free", "--tenant", "free"), ("none",))}

        def post(name, sender="a@sender.example", author="news@sender.example", **more):
            body = {**LETTER, "envelope_sender": sender, **more,
                    "content": {**LETTER["content"], "from": {"email": author}}}
            status, _, text = engine.ask("POST", "/api/inject/v1", body,
                                         {"Authorization": f"Bearer {bearer[name]}"})
            return status, json.loads(text)
        for arguments in (("acme",), ("acme", "<>"), ("free", "a@x.example", "a@y.example"),
                          ("none", "a@x.example", "a@y.example")):
            status, answer = post(*arguments)
            check(str(arguments), (status, answer.get("fail_count")), (200, 0))
        status, answer = post("acme", "a@x.example")
        check("envelope", (status, "in the list of tenant acme" in str(answer)), (403, True))
        for name, domain, status in (("acme", "x.example", 403), ("acme", "SENDER.example", 200), ("none", "x.example", 200)):
            check(f"key {name} {domain}", post(name, dkim_domain=domain)[0], status)
        status, answer = post("acme", author="a@x.example")
        check("from", (status, answer["fail_count"]), (200, 1))
        check("why", answer["errors"][0].endswith(
            "550 5.7.1 From: has an address that is not in the list of tenant acme"), True)


def test_tokens():
    """No token, no mail; scopes and tenants hold; a removed token ends at once; the file keeps none."""
    with Api(trusted_networks=[]) as engine:
        bearer = {}
        for name, *options in (("app",), ("watch", "--scopes", "read"), ("shop", "--tenant", "acme"),
                               ("root", "--scopes", "admin,inject")):
            bearer[name] = engine.command("token", "add", name, *options).strip()
            if bearer[name] in (engine.dir / "tokens").read_text():
                raise Failure("the token itself is in the file")
        check("mode", (engine.dir / "tokens").stat().st_mode & 0o777, 0o600)
        check("list", [line.split()[:3] for line in engine.command("token", "list").splitlines()],
              [["TOKEN", "SCOPES", "TENANT"], ["app", "inject", "-"], ["watch", "read", "-"],
               ["shop", "inject", "acme"], ["root", "inject,admin", "-"]])

        def post(name, body=None, **headers):
            if name:
                headers["Authorization"] = f"Bearer {bearer[name]}"
            return engine.ask("POST", "/api/inject/v1", body or LETTER, headers)[0]

        def scrape(name):
            return engine.ask("GET", "/metrics", None, {"Authorization": f"Bearer {bearer[name]}"})[0]
        check("posts", [post(n) for n in (None, "app", "watch", "shop", "root")], [401, 200, 403, 200, 200])
        check("scrapes", [scrape(n) for n in ("app", "watch", "root")], [403, 200, 200])
        check("other tenant", post("shop", {**LETTER, "tenant": "other"}), 403)
        check("pool of a tenant", post("shop", {**LETTER, "pool": "default"}), 403)
        check("wrong", engine.ask("POST", "/api/inject/v1", LETTER, {"Authorization": "Bearer hym_x"})[0], 401)
        basic = base64.b64encode(f"any:{bearer['app']}".encode()).decode()
        check("basic", engine.ask("POST", "/api/inject/v1", LETTER, {"Authorization": f"Basic {basic}"})[0], 200)
        long = {**LETTER, "content": {**LETTER["content"], "text_body": "x" * 5000000}}
        check("who sends much hears it too", [post(n, long) for n in (None, "watch", "app")], [401, 403, 200])
        check("health is open", engine.ask("GET", "/health/ready")[0], 200)
        check("twice", engine.command("token", "add", "app", check=False), "")
        bearer["slow"] = engine.command("token", "add", "slow", "--rate", "3/h").strip()
        check("rate", [post("slow", {**LETTER, "recipients": [{"email": "no address"}] * 2}), post("slow", LETTER)],
              [200, 200])
        status, headers, text = engine.ask("POST", "/api/inject/v1", LETTER, {
            "Authorization": f"Bearer {bearer['slow']}"})
        check("rate is used", (status, 1100 < int(headers["Retry-After"]) <= 1201, "rate" in json.loads(text)["detail"]),
              (429, True, True))
        check("rate in the list", [r.get("rate") for r in engine.rows("token", "list")], [None] * 4 + ["3/h"])
        engine.command("token", "remove", "slow")
        engine.command("token", "remove", "app")
        check("removed", post("app"), 401)
        records = [r for r in engine.wait_records("Reception", 6) if r["peer_address"]["name"] != "slow"]
        check("names", sorted((r["peer_address"]["name"], r["meta"].get("tenant")) for r in records),
              [("app", None)] * 3 + [("root", None), ("shop", "acme")])
        file = engine.dir / "tokens"
        good = file.read_text()
        file.write_text("spoilt\n")
        check("a spoilt file lets nobody in", [post("root"), post(None)], [503, 401])
        file.unlink()
        file.mkdir()
        check("nor does one that cannot be read", [post("root"), post("root")], [503, 503])
        file.rmdir()
        file.write_text(good)
        check("mended", post("root"), 200)
        logged = [line for line in engine.log().splitlines() if "event=http.tokens" in line]
        check("lines in the log", len(logged), 2)
        # The configuration may name a file of users that is still to be made.
        engine.config["auth"] = {"users_file": str(engine.dir / "users")}
        engine.write_config()
        check("list", len(engine.command("token", "list").splitlines()), 4)
        rows = {r["name"]: (r["scopes"], r.get("tenant")) for r in engine.rows("token", "list")}
        check("rows", (rows["root"], rows["shop"]), ((["inject", "admin"], None), (["inject"], "acme")))
        engine.command("token", "add", "more")


# --- load, pressure, ends ---

def test_concurrent():
    """Many at once over kept connections: each letter once."""
    threads, requests, recipients = 8, 15, 20

    def client(n):
        connection = http.client.HTTPConnection("127.0.0.1", engine.web, timeout=120)
        for i in range(requests):
            body = {**LETTER, "recipients": [{"email": f"t{n}i{i}r{r}@x{r % 3}.example"} for r in range(recipients)]}
            connection.request("POST", "/api/inject/v1", json.dumps(body), {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            ids.extend(answer["ids"])
        connection.close()
    ids = []
    with Sink() as sink, Api(sink.port) as engine:
        running = [threading.Thread(target=client, args=(n,)) for n in range(threads)]
        for t in running:
            t.start()
        for t in running:
            t.join()
        total = threads * requests * recipients
        check("ids", (len(ids), len(set(ids))), (total, total))
        wait_until("all to arrive", lambda: len(sink.ledger()) >= total, 60)
        check("each once", max(collections.Counter(row[3] for row in sink.ledger()).values()), 1)
        check("connections", engine.status()["counters"]["http_requests"], threads * requests)


def test_kill9():
    """What was answered 2xx arrives, and exactly once, whatever kill -9 falls between."""
    rng = random.Random()
    promised, stop = [], threading.Event()

    def client(n):
        i = 0
        while not stop.is_set():
            i += 1
            names = [f"c{n}-{i}-{r}@x{r % 2}.example" for r in range(rng.choice((1, 5, 300)))]
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                status, _, text = engine.ask("POST", "/api/inject/v1", {
                    **LETTER, "recipients": [{"email": name} for name in names]})
                if status == 200:
                    failed = set(json.loads(text)["failed_recipients"])
                    promised.extend(name for name in names if name not in failed)
    # The sink is down until the end: no delivery is cut by a kill, so that none may come twice.
    port = free_port()
    with Api(port, {"destinations": {"*": {"retry": ["1s"]}}}) as engine:
        clients = [threading.Thread(target=client, args=(n,)) for n in range(3)]
        for t in clients:
            t.start()
        for _ in range(3):
            before = len(promised)
            wait_until("answers", lambda: len(promised) > before + 100)
            time.sleep(rng.random() / 4)
            engine.kill()
            engine.start()
        stop.set()
        for t in clients:
            t.join()
        sink = Sink()
        sink.port = port
        with sink:
            engine.command("queue", "flush", "--all", "--yes", check=False)
            wait_until("an empty queue", lambda: engine.status()["queue"]["rows"] == 0, 120,
                       process=engine.process)
            arrived = collections.Counter(row[3] for row in sink.ledger())
    lost = [name for name in promised if arrived[name] != 1]
    if lost:
        raise Failure(f"{len(lost)} of {len(promised)} not exactly once: {lost[:3]}")


def test_slow_uploads():
    """Hundreds who trickle: others are served meanwhile, memory stays, and their time ends."""
    with Api(request_timeout="4s", idle_timeout="60s", connections_per_client_max=600,
             body_max="8MiB") as engine:
        slow = []
        for _ in range(400):
            s = socket.create_connection(("127.0.0.1", engine.web))
            s.sendall(head("Content-Length: 5000000") + b"{")
            slow.append(s)
        began = time.monotonic()
        engine.inject(LETTER)
        for s in slow[:100]:  # bytes now and then do not help
            with contextlib.suppress(OSError):
                s.sendall(b" ")
        engine.inject(LETTER)
        check("ready", engine.ask("GET", "/health/ready")[0], 200)

        def ended(s):
            s.setblocking(False)
            try:
                return s.recv(1000) == b""
            except BlockingIOError:
                return False
            except ConnectionError:
                return True
        wait_until("their end", lambda: all(map(ended, slow)), 30)
        if time.monotonic() - began < 2:
            raise Failure("they ended at once")
        for s in slow:
            s.close()
        wait_until("no connections", lambda: engine.status()["gauges"]["http_connections"] == 0)
        check("memory", engine.status()["gauges"]["intake_bytes"], 0)


def test_crowd():
    """All connections are taken by who brings next to nothing: they make room for others, and who uploads stays."""
    body = json.dumps(LETTER).encode()
    with Api(more={"routes": {}}, connections_max=4, threads=1, idle_timeout="60s") as engine:
        taken = [socket.create_connection(("127.0.0.1", engine.web)) for _ in range(4)]
        for s in taken[1:]:
            s.sendall(b"POST /api/inject/v1 HT")
        taken[0].sendall(head(f"Content-Length: {len(body) + 1000000}") + b" " * 1000000)
        wait_until("all taken", lambda: engine.status()["gauges"]["http_connections"] == 4)
        engine.inject(LETTER)
        taken[0].sendall(body)
        check("the upload", taken[0].recv(1000).split(b" ")[1], b"200")
        for s in taken:
            s.close()


def test_large_request():
    """While a thread has a large request, others of it are served."""
    body = gzip.compress(json.dumps({**LETTER, "content": {**LETTER["content"], "text_body": "x" * (8 << 20)}}).encode())
    answers = []
    with Api(more={"routes": {}}, threads=1) as engine:
        for path in ("/api/inject/v1", "/api/campaigns/v1"):  # the latter refuses it, but reads it first
            large = threading.Thread(target=lambda to=path: answers.append(
                engine.ask("POST", to, body, {"Content-Encoding": "gzip"})[0]))
            large.start()
            meanwhile = 0
            while large.is_alive():
                check("live", engine.ask("GET", "/health/live")[0], 200)
                meanwhile += 1
            check(f"{meanwhile} meanwhile", meanwhile > 5, True)
        check("answers", answers, [200, 400])
        wait_until("its memory", lambda: engine.status()["gauges"]["intake_bytes"] == 0)


def test_pressure():
    """Without room: 503 with Retry-After, and mail again when there is some."""
    with Api(more={"queue": {"intake_memory_max": "4MiB"}}, body_max="32MiB") as engine:
        engine.config["queue"]["path"] = str(engine.dir / "queue")
        hold = socket.create_connection(("127.0.0.1", engine.web))
        hold.sendall(head("Content-Length: 2900000") + b" " * 2800000)
        wait_until("its bytes", lambda: engine.status()["gauges"]["intake_bytes"] > 2000000)
        big = {**LETTER, "content": {**LETTER["content"], "text_body": "x" * 2000000}}
        status, headers, _ = engine.ask("POST", "/api/inject/v1", big)
        check("pressure", (status, headers.get("Retry-After")), (503, "5"))
        hold.close()
        wait_until("room again", lambda: engine.ask("POST", "/api/inject/v1", LETTER)[0] == 200)


def test_full_queue():
    """A queue that gets full amid requests: what was counted is there, no more and no less."""
    with Api(more={"queue": {"map_size": "16MiB", "shards": 1}, "routes": {}}) as engine:
        body = {**LETTER, "content": {**LETTER["content"], "text_body": "x " * 20000},
                "recipients": [{"email": f"a{i}@x.example"} for i in range(60)]}
        promised, ends = 0, []
        while len(ends) < 3:
            status, headers, text = engine.ask("POST", "/api/inject/v1", body)
            said = json.loads(text)
            promised += said.get("success_count", 0)
            if status == 200:
                check("all are told", said["success_count"] + said["fail_count"], 60)
            else:
                check("refusal", (status, headers.get("Retry-After")), (503, "5"))
            if status != 200 or said["fail_count"]:
                ends.append(said)
        check("rows", engine.status()["queue"]["rows"], promised)
        # The committer looks at its room now and then.
        wait_until("not ready", lambda: engine.ask("GET", "/health/ready")[0] == 503)
        _, _, text = engine.ask("GET", "/health/ready")
        check(f"ready: {text}", "full" in json.loads(text)["detail"], True)


def test_drain():
    """A drain: not ready, no mail; who is under way gets the answer."""
    release = threading.Event()

    def late(peer):
        release.wait(60)
        peer.sendall(b"250 taken\r\n")
    stall = Server({"dot": late})
    with Api(stall.port) as engine:
        engine.inject(LETTER)
        wait_until("the delivery", lambda: "DATA" in stall.heard)
        engine.process.send(signal.SIGTERM)

        def ready():
            with contextlib.suppress(OSError, http.client.HTTPException):
                return engine.ask("GET", "/health/ready")[0]
            return None
        wait_until("not ready", lambda: ready() == 503)
        check("no mail", engine.ask("POST", "/api/inject/v1", LETTER)[0], 503)
        check("live", engine.ask("GET", "/health/live")[0], 200)
        release.set()
        check("end", engine.process.wait(60), 0)
        engine.process = None


# --- metrics ---

def families(text):
    """Parses OpenMetrics text as strictly as these series need; {family: {labels: value}}."""
    lines = text.split("\n")
    if lines[-2:] != ["# EOF", ""]:
        raise Failure(f"ends with {lines[-2:]}")
    found, family, kind = {}, None, None
    suffixes = {"counter": ("_total",), "gauge": ("",), "info": ("_info",), "summary": ("_count", "_sum"),
                "histogram": ("_bucket", "_count", "_sum")}
    for line in lines[:-2]:
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            if family in found:
                raise Failure(f"{family} twice")
            found[family] = {}
        elif line.startswith("# HELP "):
            check(line, line.split(" ")[2], family)
        else:
            m = re.fullmatch(r'([a-z0-9_]+)(\{(?:[a-z]+="(?:[^"\\]|\\.)*",?)+\})? ([-+.0-9e]+)', line)
            if not m or m[1] not in [family + s for s in suffixes[kind]]:
                raise Failure(f"{line!r} in {family}, {kind}")
            if m[1] + (m[2] or "") in found[family]:
                raise Failure(f"{line!r} twice")
            found[family][m[1] + (m[2] or "")] = float(m[3])
    return found


def test_metrics():
    """All there and true; series are bounded whatever the number of sites."""
    with Api() as engine:
        engine.config["routes"] = {}
        routes = {f"d{i}.example": f"[127.0.0.1]:{i + 2}" for i in range(150)}
        engine.config["routes"] = routes
        engine.reload()
        engine.inject({**LETTER, "tenant": "acme", "recipients":
                       [{"email": f"a{n}@d{i}.example"} for i in range(150) for n in range(1 + (i == 7))]})
        def scrape():
            said = engine.ask("GET", "/metrics")
            return b'hayauma_tenant_recipients{tenant="acme"} 151\n' in said[2] and said

        # Workers hear of what others stored a moment later.
        status, headers, text = wait_until("all lanes", scrape, 20)
        found = families(text.decode())
        check("type", (status, headers["Content-Type"].split(";")[0]), (200, "application/openmetrics-text"))
        check("received", found["hayauma_received_messages"]["hayauma_received_messages_total"], 151)
        check("queue", found["hayauma_queue_recipients"]["hayauma_queue_recipients"], 151)
        check("tenant", found["hayauma_tenant_recipients"], {'hayauma_tenant_recipients{tenant="acme"}': 151})
        sites = found["hayauma_site_recipients"]
        check("sites", (len(sites) <= 101, sum(sites.values())), (True, 151))
        turns = found["hayauma_turn_seconds"]
        check("turns", turns["hayauma_turn_seconds_count"] > 0, True)
        longest = found["hayauma_turn_longest_seconds"]
        check("longest turns", (len(longest), min(longest.values()) > 0), (engine.status()["workers"], True))
        check("by CPU", min(found["hayauma_turn_cpu_longest_seconds"].values()) > 0, True)
        check("answers", found["hayauma_http_answers"]
              ['hayauma_http_answers_total{endpoint="inject",class="2xx"}'], 1)
        for name in ("hayauma_queue_commit_seconds", "hayauma_queue_due_age_seconds", "hayauma_listener_sessions",
                     "hayauma_sessions_in_begun", "hayauma_intake_open", "hayauma_draining", "hayauma_build"):
            check(name, name in found and len(found[name]) > 0, True)
        waits = found["hayauma_wait_recipients"]
        check("waits", (len(waits) >= 14, sum(waits.values()) <= 151), (True, True))
        check("source", found["hayauma_source_up"], {'hayauma_source_up{source="default"}': 1})
        check("HEAD", engine.ask("HEAD", "/metrics")[::2], (200, b""))
        for name, reply in (("gone", b"550 5.1.1 no such user\r\n"), ("full", b"452 4.2.2 full\r\n")):
            routes[f"{name}.example"] = f"[127.0.0.1]:{Server({'RCPT': reply}).port}"
        engine.reload()
        engine.inject({**LETTER, "tenant": "shop", "recipients": [
            {"email": f"{n}@{d}.example"} for n in "ab" for d in ("gone", "full")]})
        want = {'hayauma_refusals_total{classification="InvalidRecipient",outcome="failed"}': 2,
                'hayauma_refusals_total{classification="QuotaIssues",outcome="deferred"}': 2}
        wait_until("refusals by what they mean", lambda: want.items() <= families(
            engine.ask("GET", "/metrics")[2].decode())["hayauma_refusals"].items())
        found = families(engine.ask("GET", "/metrics")[2].decode())
        check("bounces of the tenant", found["hayauma_tenant_mail_bounced_by"], {
            'hayauma_tenant_mail_bounced_by_total{tenant="shop",classification="InvalidRecipient"}': 2})
        check("bounces of the source", list(found["hayauma_source_site_bounced_by"].values()), [2])
        shop, = (row for row in engine.status()["tenants"] if row["tenant"] == "shop")
        check("bounces in the status", (shop["bounced"], shop["bounced_by"]), (2, {"InvalidRecipient": 2}))

        # What waits in memory for a rate is late too; the mail above waits for servers that are not there.
        routes["slow.example"] = f"[127.0.0.1]:{Server({}).port}"
        engine.config["destinations"] = {"slow.example": {"rate": "1/h"}}
        engine.reload()
        engine.inject({**LETTER, "recipients": [{"email": f"{n}@slow.example"} for n in "abc"]})
        wait_until("late mail", lambda: families(engine.ask("GET", "/metrics")[2].decode())
                   ["hayauma_queue_due_age_seconds"]["hayauma_queue_due_age_seconds"] > 0.5)


def test_metrics_of_a_tenant():
    """A token that has a tenant is told of that tenant's mail alone, and of nothing of the process."""
    with Api(more={"routes": {}}, trusted_networks=[]) as engine:
        bearer = {name: engine.command("token", "add", name, "--scopes", "admin", *more).strip()
                  for name, *more in (("all",), ("acme", "--tenant", "acme"), ("idle", "--tenant", "idle"))}

        def scrape(name):
            status, _, text = engine.ask("GET", "/metrics", None, {"Authorization": f"Bearer {bearer[name]}"})
            check("status", status, 200)
            return text.decode()

        for tenant, count in (("acme", 3), ("rival", 5)):
            engine.inject({**LETTER, "tenant": tenant, "recipients": [
                {"email": f"r{i}@{tenant}-{i % 2}.example"} for i in range(count)]},
                headers={"Authorization": f"Bearer {bearer['all']}"})
        wait_until("all of it to be counted", lambda: families(scrape("all"))["hayauma_tenant_recipients"] == {
            f'hayauma_tenant_recipients{{tenant="{t}"}}': n for t, n in (("acme", 3), ("rival", 5))})
        text = scrape("acme")
        found = families(text)
        check("names", [name for name in ("rival", "default") if name in text], [])
        check("tenant", found["hayauma_tenant_recipients"], {'hayauma_tenant_recipients{tenant="acme"}': 3})
        check("sites", sum(found["hayauma_site_recipients"].values()), 3)
        check("waits", sum(found["hayauma_wait_recipients"].values()) <= 3, True)
        check("families", set(found), {"hayauma_" + name for name in (
            "build", "queue_due_age_seconds", "site_recipients", "site_in_flight", "tenant_recipients",
            "tenant_in_flight", "wait_recipients", "campaign_recipients", "draining")})
        check("idle", [n for n in ("rival", "acme") if n in scrape("idle")], [])


# --- other clients ---

def test_clients():
    """curl and Node's fetch, with bodies of several sizes."""
    node = """
        const [url, size] = process.argv.slice(1);
        const body = {envelope_sender: "n@sender.example", recipients: [{email: "node@x.example"}],
                      content: {text_body: "早".repeat(Number(size)), from: {email: "n@sender.example"}}};
        const r = await fetch(url, {method: "POST", body: JSON.stringify(body),
                                    headers: {"Content-Type": "application/json"}});
        console.log(r.status, (await r.json()).success_count);"""
    with Sink() as sink, Api(sink.port) as engine:
        url = f"http://127.0.0.1:{engine.web}/api/inject/v1"
        sent = 0
        for size in (1, 300000, 3000000):
            body = json.dumps({**LETTER, "content": {**LETTER["content"], "text_body": "x" * size}})
            for more in ([], ["-H", "Transfer-Encoding: chunked"], ["--http1.0"]):
                done = subprocess.run(["curl", "-s", "-S", "--json", "@-", *more, url], input=body.encode(),
                                      capture_output=True, timeout=60, check=False)
                check(f"curl {size} {more}: {done}", json.loads(done.stdout or b"{}").get("success_count"), 1)
                sent += 1
            if shutil.which("node"):
                done = subprocess.run(["node", "--input-type=module", "-e", node, url, str(size // 3)],
                                      capture_output=True, timeout=60, check=False)
                check(f"node {size}: {done}", done.stdout, b"200 1\n")
                sent += 1
        wait_until("all to arrive", lambda: len(sink.ledger()) >= sent)


def sample(schema, document):
    """A value with everything that the schema has, by its examples."""
    if "$ref" in schema:
        return sample(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    if "example" in schema:
        return schema["example"]
    if "oneOf" in schema:
        return sample(schema["oneOf"][-1], document)
    if schema["type"] == "array":
        return [sample(schema["items"], document)]
    return {name: sample(one, document) for name, one in schema["properties"].items()}


def fits(value, schema, document):
    """Whether an answer has what the schema says, and nothing else."""
    if "$ref" in schema:
        return fits(value, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    if schema["type"] == "array":
        return isinstance(value, list) and all(fits(one, schema["items"], document) for one in value)
    if schema["type"] == "object":
        return (set(schema["required"]) <= set(value) <= set(schema["properties"]) and
                all(fits(value[n], schema["properties"][n], document) for n in value))
    return isinstance(value, {"integer": int, "string": str, "boolean": bool}[schema["type"]])


def test_openapi():
    """The document is of this server: its paths are there, a request with every field is taken, answers
    are as it says, and it knows all fields that the server knows."""
    with Api(more=POOLS) as engine:
        document = json.loads(engine.ask("GET", "/api/openapi.json")[2])
        for path, methods in document["paths"].items():
            for method in methods:
                status, _, text = engine.ask(method.upper(), path, {} if method == "post" else None)
                check(f"{path} {text}", str(status) in methods[method]["responses"], True)
                if status >= 400:
                    check(text, fits(json.loads(text), document["components"]["schemas"]["Problem"], document), True)
        schemas = document["components"]["schemas"]
        request = sample(schemas["InjectRequest"], document)
        request["expires"] = int(time.time()) + 3600
        keys_of(engine, request["dkim_domain"])
        engine.reload()
        check("all fields", sorted(request), sorted(schemas["InjectRequest"]["properties"]))
        answer = engine.inject(request)
        check("answer", (fits(answer, schemas["InjectResponse"], document), answer["success_count"]), (True, 1))
        sources = [HERE.parent.parent / "engine" / file for file in ("http/injection.c", "mail/recipe.c")]
        known = set(re.findall(r'\{"(\w+)",\s+JSON_IS_', "".join(file.read_text() for file in sources)))
        known -= {"sender_rule", "marks", "return_path", "unsubscribe", "unsubscribe_mailto",
                  "feedback_id"}  # of what is stored
        said = {n for s in ("InjectRequest", "Recipient", "Content", "Attachment") for n in schemas[s]["properties"]}
        said |= {"received_header", "supplemental_header", "header_name", "include_meta_names"}
        check("fields", said, known)


def test_reload():
    """What can change changes with a reload; what cannot is said."""
    with Api() as engine:
        engine.config["http"].update({"trusted_networks": [], "threads": 7})
        said = engine.reload()
        check(said, "http.threads" in said, True)
        check("token", engine.ask("POST", "/api/inject/v1", LETTER)[0], 401)


def test_many_at_once():
    """As many requests at once as the library takes events at a time, on connections that are kept: all are
    answered, at once. A client has no more connections than it may have."""
    with Api(connections_per_client_max=130, threads=1) as engine, contextlib.ExitStack() as stack:
        clients = []
        for count in (126, 127, 128, 129, 130):
            while len(clients) < count:
                clients.append(stack.enter_context(socket.create_connection(("127.0.0.1", engine.web), 10)))
            for _ in range(2):  # behind the first time they wait for the next one
                os.kill(engine.process.pid, signal.SIGSTOP)
                for client in clients:
                    client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                os.kill(engine.process.pid, signal.SIGCONT)
                for client in clients:
                    answer = b""
                    while not answer.endswith(b"live\n"):
                        answer += (more := client.recv(4096))
                        if not more:
                            raise Failure(f"{count} at once: closed behind {answer}")
        check("one more", engine.raw(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"), b"")
        clients.pop().close()
        wait_until("its place", lambda: b"live" in engine.raw(
            b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))


def test_gone_before_the_answer():
    """Clients that break off while their letters are stored: the letters are mail, and no request is left."""
    body = json.dumps(LETTER).encode()
    ask = (b"POST /api/inject/v1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
           b"Content-Length: %d\r\n\r\n" % len(body) + body)
    reset = struct.pack("ii", 1, 0)  # close() sends RST
    with Api(threads=1) as engine:
        for n in range(20):
            clients = [socket.create_connection(("127.0.0.1", engine.web), 10) for _ in range(40)]
            for client in clients:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            os.kill(engine.process.pid, signal.SIGSTOP)
            for client in clients:
                client.sendall(ask)
            os.kill(engine.process.pid, signal.SIGCONT)
            time.sleep(n % 10 / 1000)
            for client in clients:
                client.close()
        check("one who stays", engine.inject(LETTER)["success_count"], 1)
        wait_until("no connection", lambda: engine.status()["gauges"]["http_connections"] == 0)
        check("memory", engine.status()["gauges"]["intake_bytes"], 0)


def sockets_waited_for(engine):
    """How many sockets each epoll instance of the process waits for, the most last."""
    counts, fds = [], pathlib.Path(f"/proc/{engine.process.pid}/fd")
    for fd in fds.iterdir():
        with contextlib.suppress(OSError):
            if "eventpoll" in os.readlink(fd):
                waited = re.findall(r"^tfd: +(\d+)", (fds.parent / "fdinfo" / fd.name).read_text(), re.M)
                counts.append(sum(os.readlink(fds / n).startswith("socket") for n in waited))
    return sorted(counts)


def test_shared_out():
    """Each thread has as many connections as the others, in whatever moment they come. Who comes when there are as
    many as may be waits until one goes."""
    ask = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with Api(connections_max=40, connections_per_client_max=100, threads=2) as engine, contextlib.ExitStack() as stack:
        clients = []
        for each in (10, 20):
            clients += [stack.enter_context(socket.create_connection(("127.0.0.1", engine.web), 10)) for _ in range(20)]
            wait_until(f"{each} each", lambda n=each: sockets_waited_for(engine)[-2:] == [n, n])
        late = stack.enter_context(socket.create_connection(("127.0.0.1", engine.web), 10))
        late.sendall(ask)
        clients[0].close()
        check("behind the first that goes", read_all(late).endswith(b"live\n"), True)


def test_all_leave_at_once():
    """Where all connections that there may be end in one moment, further ones are served."""
    with Api(connections_max=3, threads=1) as engine:
        for _ in range(3):
            with contextlib.ExitStack() as stack:
                clients = [stack.enter_context(socket.create_connection(("127.0.0.1", engine.web), 10))
                           for _ in range(3)]
                for client in clients:
                    client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                    answer = b""
                    while not answer.endswith(b"live\n"):
                        answer += (more := client.recv(4096))
                        if not more:
                            raise Failure(f"closed behind {answer}")
                os.kill(engine.process.pid, signal.SIGSTOP)
            os.kill(engine.process.pid, signal.SIGCONT)
            check("live", engine.ask("GET", "/health/live", timeout_s=10)[0], 200)


if __name__ == "__main__":
    run(globals())
