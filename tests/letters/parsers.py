#!/usr/bin/env python3
"""Rendered letters parse the same with Python's email package, GMime and Perl's MIME::Parser: what is read is what
was meant, in UTF-8 and in ISO-2022-JP.

parsers.py [TEST...]"""

import base64
import csv
import email
import email.policy
import io
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import unicodedata

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
from engine import program  # noqa: E402
from proc import Failure, TempDir  # noqa: E402
from talk import Skip, check, run  # noqa: E402

WORDS = ["春の", "お知らせ", "ガギグゲゴ", "山田太郎", "様", "Hayauma", "newsletter", "２０２６年", "、", "。", "特価", "一二三",
         "ポイント", "1,250", "ヴァイオリン", "【重要】", "♪", "Ω", "ж", "=?x?=", "…"]
BEYOND = ["髙", "①", "é", "한글", "😀", "𠮷"]  # of ISO-2022-JP; the first are what carriers' forms are full of


def have_perl():
    if subprocess.run(["perl", "-MMIME::Parser", "-MMail::Address", "-e", "1"], capture_output=True).returncode:
        raise Skip("no MIME::Parser: libmime-tools-perl")


def rendered(content, email_="taro@example.jp", name="", variables=None, status=0):
    """The letter's bytes, or with a status what was said instead."""
    temp = TempDir("hayauma-letters-")
    template, people = temp.path / "t.json", temp.path / "l.csv"
    template.write_text(json.dumps({"content": content}))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["email", "name", *(variables or {})])
    writer.writerow([email_, name, *(variables or {}).values()])
    people.write_text(out.getvalue())
    what = ["--preview", "1"] if status == 0 else ["--check"]
    done = subprocess.run([program(), "send", "--template", template, "--to", people, *what], capture_output=True,
                          timeout=60, check=False)
    temp.close()
    if done.returncode != status:
        raise Failure(f"{done.returncode}: {done.stdout} {done.stderr}")
    return done.stderr.decode() if status else done.stdout.partition(b"\n\n")[2][:-1]


# --- what each reads ---

def by_python(letter):
    m = email.message_from_bytes(letter, policy=email.policy.SMTP)
    if m.defects or any(p.defects for p in m.walk()):
        raise Failure(f"{m.defects} in {letter!r}")

    def addresses(field):
        return [x for a in m[field].addresses for x in (a.display_name or None, a.addr_spec)]

    def part(p):
        text = p.get_content_maintype() == "text"
        return [p.get_content_type(),
                p.get_content() if text else base64.b64encode(p.get_payload(decode=True)).decode(), p.get_filename()]

    return {"subject": m["Subject"], "from": addresses("From"), "to": addresses("To"),
            "parts": [part(p) for p in m.walk() if not p.is_multipart()]}


def by_program(command, letter):
    done = subprocess.run(command, input=letter, capture_output=True, timeout=60, check=False)
    if done.returncode:
        raise Failure(f"{command}: {done.stderr.decode()} of {letter[:2000]!r}")
    return json.loads(done.stdout)


def plain(found):
    """Line ends apart, which a reader may show as he likes."""
    parts = [[kind, re.sub("\r\n", "\n", text).rstrip("\n") if kind.startswith("text/") else text, name]
             for kind, text, name in found["parts"]]
    return {**found, "parts": parts}


def check_same(letter, want):
    if re.search(rb"[^\r]\n|\r[^\n]|[\x80-\xff]", letter) or max(map(len, letter.split(b"\r\n"))) > 998:
        raise Failure(f"lines of {letter[:2000]!r}")
    readers = {"email": by_python(letter), "GMime": by_program([os.environ["GMIME_READ"]], letter),
               "MIME::Parser": by_program(["perl", HERE / "mime_parser.pl"], letter)}
    for name, found in readers.items():
        for key, value in plain(want).items():
            check(f"{name}: {key}", plain(found)[key], value)


def sentence(rng, words, most):
    return "".join(rng.choice(words) for _ in range(rng.randint(1, most)))


def case(rng, words, charset):
    """A letter's content, and what is to be read."""
    # Of a name in two encoded words Python's parser shows the white space between them (RFC 2047 6.2: nobody should).
    name, subject = sentence(rng, words, 6)[:8], sentence(rng, words, 40)
    text = "\n".join(sentence(rng, words, 30) for _ in range(rng.randint(1, 12)))
    content = {"from": {"email": "news@sender.example", "name": "早馬 \"News\" 便り"}, "subject": "{{ s }}",
               "text_body": "{{ t }}\n", "charset": charset}
    parts = [["text/plain", text, None]]
    if rng.random() < 0.5:
        content["html_body"] = "<p>{{ n }}</p>\n" + "長い行" * 400
        parts.append(["text/html", f"<p>{html(name)}</p>\n" + "長い行" * 400, None])
    if rng.random() < 0.3:
        data = rng.randbytes(200)
        content["attachments"] = [{"data": base64.b64encode(data).decode(), "base64": True,
                                   "content_type": "image/png", "file_name": "図.png"}]
        parts.append(["image/png", base64.b64encode(data).decode(), "図.png"])
    return content, name, {"s": subject, "t": text, "n": name}, {
        "subject": subject, "from": ["早馬 \"News\" 便り", "news@sender.example"], "to": [name, "taro@example.jp"],
        "parts": parts}


def html(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


# --- tests ---

def test_same():
    """Generated letters, in either charset."""
    have_perl()
    rng = random.Random(12)
    for charset in ("utf-8", "iso-2022-jp"):
        for _ in range(6):
            content, name, variables, want = case(rng, WORDS + (BEYOND if charset == "utf-8" else []), charset)
            check_same(rendered(content, name=name, variables=variables), want)


def test_iso_2022_jp():
    """The header's words begin and end in ASCII, as does each line of the body, which is 7bit."""
    content = {"from": {"email": "n@s.example", "name": "早馬"}, "subject": "春のお知らせ" * 12 + " 終",
               "text_body": "一行目\n{{ name }}様\nASCII\n.点\n", "charset": "ISO-2022-JP"}
    letter = rendered(content, name="ﾔﾏﾀﾞ ﾀﾛｳ")
    head, _, body = letter.partition(b"\r\n\r\n")
    words = re.findall(rb"=\?ISO-2022-JP\?B\?(\S+?)\?=", head)
    check("words", len(words) > 5 and b"utf-8" not in head.lower(), True)
    for word in words:
        raw = base64.b64decode(word)
        check("begins and ends in ASCII", (raw[:3], raw[-3:]), (b"\x1b$B", b"\x1b(B"))
    check("lines", max(map(len, head.split(b"\r\n"))) <= 76, True)
    check("7bit", b"charset=iso-2022-jp\r\nContent-Transfer-Encoding: 7bit" in head, True)
    check("full-width", body.decode("iso2022_jp"), "一行目\r\nヤマダ タロウ様\r\nASCII\r\n.点\r\n")
    check("each line", [line.count(b"\x1b$B") == line.count(b"\x1b(B") for line in body.split(b"\r\n")], [True] * 5)
    check("who has only ASCII", b"us-ascii" in rendered({**content, "text_body": "plain\n"}, name="x"), True)
    check("name", by_python(letter)["to"][0], unicodedata.normalize("NFKC", "ﾔﾏﾀﾞ ﾀﾛｳ"))
    if shutil.which("nkf"):
        seen = subprocess.run(["nkf", "-Jw"], input=body, capture_output=True, check=True).stdout.decode()
        check("nkf", seen, "一行目\r\nヤマダ タロウ様\r\nASCII\r\n.点\r\n")
        seen = subprocess.run(["nkf", "-w", "-m"], input=head, capture_output=True, check=True).stdout.decode()
        check("nkf", "春のお知らせ" * 12 in re.sub(r"\r?\n[ \t]*", "", seen), True)


def test_beyond():
    """What has no code in ISO-2022-JP is written in UTF-8, that text alone; or the recipient gets no letter."""
    content = {"from": {"email": "n@s.example"}, "subject": "お知らせ", "text_body": "{{ name }}様\n",
               "charset": "iso-2022-jp"}
    letter = rendered(content, name="髙橋")
    check("falls back", (b"charset=utf-8" in letter, b"Subject: =?ISO-2022-JP?B?" in letter,
                         by_python(letter)["parts"][0][1]), (True, True, "髙橋様\r\n"))
    said = rendered({**content, "charset_fallback": "fail"}, name="髙橋", status=1)
    check("fails", "has U+9AD9, which ISO-2022-JP does not have" in said, True)
    for wrong, word in (({"charset": "euc-jp"}, "content.charset"),
                        ({"charset_fallback": "?"}, "content.charset_fallback")):
        check("refused", word in rendered({**content, **wrong}, status=2), True)


if __name__ == "__main__":
    run(globals())
