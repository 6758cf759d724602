"""Messages as the world writes them."""

import random

HEAD = ("From: A <a@sender.example>\r\nTo: u@x.example\r\nSubject: %s\r\n"
        "Date: Sun, 29 Nov 2026 00:00:00 +0000\r\nMessage-ID: <%s@sender.example>\r\n"
        "MIME-Version: 1.0\r\n")
UTF8 = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"


def plain(name, more="", body="hello\r\n"):
    return (HEAD % (name, name) + more + "\r\n" + body).encode()


MESSAGES = {
    "plain": plain("plain"),
    "folded": plain("folded", "X-Note: a\r\n\tb\r\n  c\r\nReferences: <1@x>\r\n <2@x>\r\n\t<3@x>\r\n"),
    "tabs": plain("tabs", "Comments:\tone\t two \t\r\n", "a\tb \t c\t\r\n\t\r\n  d\r\n"),
    "empty-body": plain("empty-body", body=""),
    "no-body": (HEAD % ("no-body", "no-body")).encode(),
    "trailing-lines": plain("trailing-lines", body="x\r\n\r\n \r\n\t\r\n\r\n\r\n"),
    "only-lines": plain("only-lines", body="\r\n\r\n\r\n"),
    "leading-lines": plain("leading-lines", body="\r\n\r\nx\r\n"),
    "no-final-crlf": plain("no-final-crlf", body="one\r\ntwo"),
    "dots": plain("dots", body=".\r\n..\r\n...\r\n.x\r\n x.\r\n.\r\n\r\n.\r\n"),
    "longest-lines": plain("longest-lines", body=("x" * 998 + "\r\n") * 20 + "." + "y" * 997 + "\r\n"),
    "long-from": ("From: " + ",\r\n ".join(f'"Some Body, {i}" <b{i}@sender.example>'
                                           for i in range(60)) + "\r\n").encode()
    + plain("long-from").split(b"\r\n", 1)[1],
    "long-field": plain("long-field", "X-Long: " + "z" * 980 + "\r\nSubject: " + "w " * 480 + "\r\n"),
    "duplicates": plain("duplicates", "Subject: again\r\nSUBJECT: and again\r\nTo: v@x.example\r\n"
                        "From: second@sender.example\r\nFeedback-ID: 1:2:3:hayauma\r\n"),
    "lists": plain("lists", "List-Unsubscribe: <https://x.example/u?a=1;b=2>,\r\n <mailto:u@x.example>\r\n"
                   "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nList-Id: x <l.x.example>\r\n"
                   "Feedback-ID: c:cust:type:hayauma\r\nPrecedence: bulk\r\n"),
    "eight-bit": plain("eight-bit", UTF8, "早馬が着いた。 \r\nÄÖÜ ß\r\n" * 40),
    "eight-bit-header": plain("eight-bit-header", UTF8 + "Comments: 山田  太郎\r\n", "本文\r\n"),
    "encoded-words": plain("encoded-words", "Comments: =?utf-8?B?5bGx55Sw?= =?utf-8?Q?a_b?=\r\n"),
    "quoted-printable": plain("quoted-printable", "Content-Type: text/plain; charset=utf-8\r\n"
                              "Content-Transfer-Encoding: quoted-printable\r\n", "=E6=97=A9 =\r\n x=20\r\n"),
    "multipart": plain("multipart", 'Content-Type: multipart/mixed; boundary="b"\r\n',
                       "preamble\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n早馬 \r\n"
                       "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: 中\r\n\r\n内\r\n--b--\r\n"),
    "signed-before": b"DKIM-Signature: v=1; a=rsa-sha256; d=old.example; s=x;\r\n\th=from; bh=AA==;\r\n"
                     b"\tb=AAAA\r\n" + plain("signed-before"),
    "no-field": (HEAD % ("no-field", "no-field")).encode() + b"this line is no field\r\nbody\r\n",
    "mbox": b"From a@sender.example Sun Nov 29 00:00:00 2026\r\n" + plain("mbox"),
    "blank-before-colon": plain("blank-before-colon", "Comments : a : b\r\nCc \t: v@x.example,\r\n\tw@x.example\r\n")
    .replace(b"Subject:", b"Subject :"),
    "empty-fields": plain("empty-fields", "Cc:\r\nReply-To: \r\nComments:  \r\n"),
    "from-lines": plain("from-lines", body="From the start\r\n>From here\r\n"),
    "large": plain("large", 'Content-Type: text/plain\r\n', "".join(
        f"{random.Random(i).getrandbits(280):070x}{' ' * (i % 3)}\r\n" for i in range(72000))),
}
