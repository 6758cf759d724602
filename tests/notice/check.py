#!/usr/bin/env python3
"""Reads the golden notices and conversions by convert_pipe with Python's email package.

usage: check.py CONVERT_PIPE
"""
import email
import email.policy
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
    assert not defects(m), defects(m)
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
    print(f"{len(notices)} notices, 300 conversions: the same to Python's email package")


if __name__ == "__main__":
    main()
