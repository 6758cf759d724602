#!/usr/bin/env python3
"""Reads the golden notices and conversions by convert_pipe with Python's email package.

usage: check.py CONVERT_PIPE
"""
import email
import email.header
import email.policy
import email.utils
import pathlib
import random
import subprocess
import sys

POLICY = email.policy.SMTP.clone(utf8=True, raise_on_defect=False)


def defects(part):
    found = list(part.defects)
    for name, value in part.items():
        found += [(name, d) for d in getattr(value, "defects", [])]
    # The package knows UTF-8 headers (RFC 6532) only at the top.
    if part.is_multipart() and not part.get_content_type().startswith("message/global"):
        for sub in part.get_payload():
            found += defects(sub)
    return found


def blocks_of(raw, status):
    """The groups of fields of the status part, which must be in raw as they are."""
    if status.get_content_type() == "message/delivery-status":  # one message a group
        return [dict(group.items()) for group in status.get_payload() if group.keys()]
    part = raw.split(b"Content-Description: Delivery report\r\n\r\n")[1].split(b"\r\n\r\n--=_")[0]
    return [dict(email.message_from_string(block).items())
            for block in part.decode("utf-8").replace("\r\n", "\n").split("\n\n")]


def check_notice(path):
    raw = path.read_bytes()
    assert all(len(line) <= 998 for line in raw.split(b"\r\n")), "long line"
    assert b"\n" not in raw.replace(b"\r\n", b"") and b"\r" not in raw.replace(b"\r\n", b"")
    m = email.message_from_bytes(raw, policy=POLICY)
    found = defects(m)
    if "utf8" in path.name:  # to the package an address that is not ASCII is always a defect
        found = [d for d in found if not isinstance(d, tuple) or d[0] != "To"]
    assert not found, found
    assert m.get_content_type() == "multipart/report"
    assert m["Auto-Submitted"] == "auto-replied" and m["Date"].datetime is not None
    human, status, returned = m.get_payload()
    assert status.get_content_subtype() == m.get_param("report-type")
    text = human.get_content()
    assert "mail system" in text and "メール配送システム" in text
    per_message, *recipients = blocks_of(raw, status)
    assert per_message["Reporting-MTA"] == "dns; mx.example.jp"
    assert recipients
    for r in recipients:
        assert r["Final-Recipient"].split(";")[0] in ("rfc822", "utf-8")
        assert r["Action"] in ("failed", "delayed", "relayed", "delivered")
        assert len(r["Status"].split(".")) == 3
    assert returned.get_content_type() in ("message/rfc822", "text/rfc822-headers",
                                           "message/global", "message/global-headers")
    if all(b < 128 for b in raw):
        assert b"8bit" not in raw
    return m


def leaves(m):
    """Type, headers without the encoding, and decoded content of every leaf, depth first."""
    if m.is_multipart():
        for sub in m.get_payload():
            yield from leaves(sub)
        return
    headers = [(k, str(v)) for k, v in m.items() if k.lower() != "content-transfer-encoding"]
    yield m.get_content_type(), headers, m.get_payload(decode=True)


WORDS = ["春の", "お知らせ", "hello", "=", "--b", ".", "x" * 200, "é", " ", "\t", "\r\n", "\r\n\r\n",
         "\r\n.", "\r\n--", "From ", "=3D"]


def random_text(rng):
    return "".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 300)))


def random_entity(rng, depth):
    """An entity as text: header lines, empty line, body; its boundary cannot be in its texts."""
    if depth > 0 and rng.random() < 0.6:
        boundary = f"=_{rng.randrange(10**9)}"
        subs = [random_entity(rng, depth - 1) for _ in range(rng.randrange(1, 4))]
        body = "".join(f"--{boundary}\r\n{s}\r\n" for s in subs) + f"--{boundary}--\r\n"
        label = rng.choice(["Content-Transfer-Encoding: 8bit\r\n", ""])
        return (f'Content-Type: multipart/{rng.choice(["mixed", "alternative", "related"])};\r\n'
                f'\tboundary="{boundary}"\r\n{label}\r\n{body}')
    if depth > 0 and rng.random() < 0.2:
        return ("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
                "Subject: inner\r\nMIME-Version: 1.0\r\n" + random_entity(rng, depth - 1))
    label = rng.choice(["Content-Transfer-Encoding: 8bit\r\n",
                        "content-transfer-encoding:\r\n 8BIT\r\n", ""])
    return ("Content-Type: text/plain; charset=utf-8\r\n" + label +
            "X-Other: kept\r\n\r\n" + random_text(rng))


def check_conversion(pipe, text):
    raw = text.encode("utf-8")
    if not raw.endswith(b"\r\n"):
        raw += b"\r\n"
    done = subprocess.run([pipe], input=raw, stdout=subprocess.PIPE, timeout=20)
    assert done.returncode == 0, (done.returncode, raw)
    out = done.stdout
    assert all(b < 128 for b in out)
    if all(b < 128 for b in raw):
        assert out == raw
    # Encoded lines are short; lines of parts that were 7-bit already are as they were.
    before = email.message_from_bytes(raw, policy=POLICY)
    after = email.message_from_bytes(out, policy=POLICY)
    assert len(defects(after)) <= len(defects(before)), (defects(after), out)
    assert list(leaves(before)) == list(leaves(after)), (raw, out)


# --- headers in UTF-8 that become ASCII, as a reader sees them ---

SUBJECTS = ["春の", "お知らせ", "【重要】", "hello", "world", "a", "x" * 40, "🎉", "é", "(株)", "=",
            "=?utf-8?q?=E5=A4=8F?=", "?=", "会員様限定セールのご案内(11月30日まで)", "\t", "100%", "\"引用\"",
            "ｶﾅ", "長" * 60]
PEOPLE = ["山田 太郎", "株式会社 早馬", "O'Neil", "John Smith", "é", "鈴木", "名 John 前", "ＡＢＣ", "渡邊, 次郎",
          "営業部 (東京)", "a\\b 日", "長い名前の会社" * 8]
FILES = ["請求書.pdf", "2026年11月 御見積書 (控え).pdf", "写真'1'.jpg", "été 100%.txt", "長い名前" * 20 + ".docx", "日.x"]


def random_subject(rng):
    words = [rng.choice(SUBJECTS) for _ in range(rng.randrange(1, 12))] + ["終"]
    text = words[0]
    for word in words[1:]:
        text += rng.choice([" ", " ", "  ", "\r\n ", "\r\n\t"]) + word
    return text


def quoted(name):
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def random_mailbox(rng):
    name = rng.choice(PEOPLE)
    plain = not any(c in name for c in '(),\\"')
    name = name if plain and rng.random() < 0.5 else quoted(name)
    address = f"u{rng.randrange(100)}@" + rng.choice(["a.example", "日本語.example", "ドメイン名例.jp"])
    return rng.choice([f"{name} <{address}>", f"{name}<{address}>", address, f"<{address}>"])


def random_mailboxes(rng):
    return rng.choice([", ", ",", ",\r\n "]).join(random_mailbox(rng)
                                                for _ in range(rng.randrange(1, 6)))


def random_parameter(rng, name):
    file = rng.choice(FILES)
    form = rng.randrange(4)
    if form == 0 and len(file) > 4:
        return f'{name}*0={quoted(file[:3])};\r\n\t{name}*1={quoted(file[3:])}', file
    if form == 1 and not any(c in file for c in " ()'%"):
        return f"{name}={file}", file
    return f"{name}={quoted(file)}", file


def random_japanese_mail(rng):
    """A message as Japanese senders and simple scripts make it, and the names of its files."""
    name, one = random_parameter(rng, "name")
    filename, two = random_parameter(rng, "filename")
    body = rng.choice(["本文です。\r\n", "plain\r\n", "\x1b$BF|K\\8l\x1b(B\r\n"])
    charset = "iso-2022-jp" if "\x1b" in body else "utf-8"
    text = (f"From: {random_mailbox(rng)}\r\nTo: {random_mailboxes(rng)}\r\n"
            f"Cc: {random_mailboxes(rng)}\r\nSubject: {random_subject(rng)}\r\n"
            f"X-Comment: {random_subject(rng)}\r\nX-Plain: as  it \r\n\tis\r\n"
            "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
            f"Content-Type: text/plain; charset={charset}\r\n"
            f"Content-Description: {random_subject(rng)}\r\n\r\n{body}\r\n--b\r\n"
            f"Content-Type: application/octet-stream; {name}\r\n"
            f"Content-Disposition: attachment;\r\n {filename}; size=3\r\n"
            "Content-Transfer-Encoding: base64\r\n\r\nQUJD\r\n--b--\r\n")
    return text, one, two


def ascii_domain(domain):
    return domain.encode("idna").decode()


def people_of(raw, field):
    """With the package's older reader: the newer one puts a space between encoded words of a name,
    which RFC 2047 6.2 says is none."""
    m = email.message_from_string(raw.decode("utf-8"))
    for name, address in email.utils.getaddresses([m[field].replace("\r\n", "")]):
        local, domain = address.rsplit("@", 1)
        name = str(email.header.make_header(email.header.decode_header(name)))
        yield name, f"{local}@{ascii_domain(domain)}"


def seen(raw):
    """What a reader sees of a message. The package reads UTF-8 headers from text only, and contents
    from bytes."""
    m = email.message_from_string(raw.decode("utf-8"), policy=POLICY)
    text, file = m.get_payload()
    text_bytes, file_bytes = email.message_from_bytes(raw, policy=POLICY).get_payload()
    return {"people": [list(people_of(raw, f)) for f in ("From", "To", "Cc")],
            "subject": m["Subject"], "comment": m["X-Comment"], "plain": m["X-Plain"],
            "description": text["Content-Description"], "text": text_bytes.get_content(),
            "content": file_bytes.get_content(),
            "size": file["Content-Disposition"].params["size"],
            "files": (file["Content-Type"].params.get("name"), file.get_filename())}


def check_headers(pipe, seed):
    rng = random.Random(seed)
    text, one, two = random_japanese_mail(rng)
    raw = text.encode("utf-8")
    for mode in ("headers", "all"):
        done = subprocess.run([pipe, mode], input=raw, stdout=subprocess.PIPE, timeout=20)
        assert done.returncode == 0, (done.returncode, raw)
        out = done.stdout
        heads = [out.split(b"\r\n\r\n")[0], *(p.split(b"\r\n\r\n")[0] for p in out.split(b"\r\n--b")[1:])]
        assert all(b < 128 for head in heads for b in head), (mode, heads)
        assert mode == "headers" or all(b < 128 for b in out)
        for head in heads:
            for line in head.split(b"\r\n"):
                assert len(line) <= 76 or b"=?UTF-8?" not in line, line
        assert b"X-Plain: as  it \r\n\tis\r\n" in out
        before, after = seen(raw), seen(out)
        for key in before:
            if key != "files":
                assert before[key] == after[key], (mode, key, before[key], after[key], out.decode())
        assert after["files"] == (one, two), (
            mode, after["files"], one, two, out.decode())


def main():
    folder = pathlib.Path(__file__).parent
    notices = sorted(folder.glob("*.eml"))
    assert len(notices) >= 4, "no golden notices"
    for path in notices:
        try:
            check_notice(path)
        except AssertionError as e:
            sys.exit(f"{path}: {e!r}")
        # A returned 8-bit message must survive the way through a 7-bit peer.
        if "utf8" not in path.name:
            check_conversion(sys.argv[1], path.read_bytes().decode("utf-8"))
    for seed in range(300):
        rng = random.Random(seed)
        try:
            check_conversion(sys.argv[1], "Subject: x\r\nMIME-Version: 1.0\r\n" +
                             random_entity(rng, 3))
        except AssertionError as e:
            sys.exit(f"seed {seed}: {e!r}")
    for seed in range(400):
        try:
            check_headers(sys.argv[1], seed)
        except AssertionError as e:
            sys.exit(f"headers, seed {seed}: {e!r}")
    print(f"{len(notices)} notices, 300 conversions, 400 headers: "
          "the same to Python's email package")


if __name__ == "__main__":
    main()
