"""Messages that are hard to carry, and what must be left of them at the other end."""

import imaplib
import poplib
import random


def header(subject, sender, recipient, *more):
    lines = [f"From: {sender}", f"To: {recipient}", f"Subject: {subject}",
             "Date: Sun, 22 Nov 2026 10:00:00 +0900", f"Message-ID: <{subject}@sender.example>",
             "MIME-Version: 1.0", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def attachment(size):
    """A multipart message whose attachment has size bytes, the same ones every time."""
    import base64
    data = base64.encodebytes(random.Random(size).randbytes(size)).replace(b"\n", b"\r\n")
    return (b"--limit\r\nContent-Type: text/plain\r\n\r\nsee the file\r\n--limit\r\n"
            b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            + data + b"--limit--\r\n")


UTF8 = ("Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit")
MIXED = ('Content-Type: multipart/mixed; boundary="limit"',)

# Name: (further header fields, body, MAIL parameters).
BODIES = {
    "plain": ((), b"hello\r\n\r\nworld\r\n", ()),
    "empty": ((), b"", ()),
    "blank-lines": ((), b"\r\n\r\n\r\n", ()),
    "dots": ((), b".\r\n..\r\n...\r\n.x\r\n x.\r\n.\r\n\r\n.\r\n", ()),
    "looks-like-smtp": ((), b"QUIT\r\nRSET\r\nMAIL FROM:<a@b.example>\r\n.\r\nDATA\r\n", ()),
    "from-line": ((), b"From the start\r\n>From here\r\n", ()),
    "longest-lines": ((), (b"x" * 998 + b"\r\n") * 40 + b"." + b"y" * 997 + b"\r\n", ()),
    "eight-bit": (UTF8, "早馬が着いた。\r\nÄÖÜ ß\r\n".encode() * 50, ("BODY=8BITMIME",)),
    "trailing-space": ((), b"tab\t\r\nspace \r\n \r\n", ()),
    "mebibyte": (MIXED, attachment(1 << 20), ()),
}


def split(message):
    """Header and body of what a Maildir, IMAP or POP3 returned, with CRLF line ends."""
    if b"\r\n" not in message:
        message = message.replace(b"\n", b"\r\n")
    head, blank, body = message.partition(b"\r\n\r\n")
    return head + (b"\r\n" if blank else b""), body


def difference(sent, received):
    """What a relay did to a message beyond adding header fields, or None."""
    sent_head, sent_body = split(sent)
    head, body = split(received)
    if body != sent_body:
        at = next((i for i, (a, b) in enumerate(zip(sent_body, body)) if a != b),
                  min(len(sent_body), len(body)))
        return (f"bodies of {len(sent_body)} and {len(body)} bytes differ at {at}: sent "
                f"{sent_body[at:at + 40]!r}, received {body[at:at + 40]!r}")
    fields = head.split(b"\r\n")
    at = 0
    for field in sent_head.split(b"\r\n"):
        try:
            at = fields.index(field, at) + 1
        except ValueError:
            return f"header line {field!r} is missing or out of its place"
    return None


def read_imap(host, port, user, password):
    with imaplib.IMAP4(host, port) as server:
        server.login(user, password)
        server.select("INBOX", readonly=True)
        numbers = server.search(None, "ALL")[1][0].split()
        return [server.fetch(n, "(BODY.PEEK[])")[1][0][1] for n in numbers]


def read_pop3(host, port, user, password):
    poplib._MAXLINE = 4096  # its default is less than a legal line
    server = poplib.POP3(host, port)
    try:
        server.user(user)
        server.pass_(password)
        return [b"\r\n".join(server.retr(n + 1)[1]) + b"\r\n" for n in range(server.stat()[0])]
    finally:
        server.quit()
