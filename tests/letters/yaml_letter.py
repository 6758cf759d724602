#!/usr/bin/env python3
"""Letters in YAML, as `hayauma send --template letter.yaml` takes them: what they become, and mistakes with their line.

yaml_letter.py [TEST...]"""


import email
import email.policy
import subprocess

import parsers  # noqa: F401  (sets the path)
from engine import program  # noqa: E402
from proc import TempDir  # noqa: E402
from talk import check, run  # noqa: E402

LETTER = """\
# A newsletter.
subject: "{{ name }}さん、春のお知らせ"
from: "早馬ニュース <news@sender.example>"
reply_to: {email: reply@sender.example, name: Reply}
envelope_sender: bounce@sender.example
template_dialect: Handlebars
headers:
  List-Unsubscribe: <https://sender.example/u/{{code}}>
text: |
  {{> greet}}

  {{#each items}}
    {{> item}}
  {{/each}}
  {{footer.address}}
html: "<p>{{name}}</p>{{> greet}}"
partials:
  greet: "Dear {{name}}:"
  item: |
    - {{title}}
      {{price}} yen
substitutions:
  items: [{title: One, price: 100}, {title: 二, price: "0200"}]
  footer: {address: "1-2-3 Chiyoda"}
attachments:
  - pictures/logo.png
  - {file: pictures/logo.png, name: 表紙.png, type: image/x-other, id: cover@x}
"""


def send(text, *arguments, status=0):
    temp = TempDir("hayauma-yaml-")
    (temp.path / "pictures").mkdir()
    (temp.path / "pictures" / "logo.png").write_bytes(b"\x89PNG\0\xff")
    (temp.path / "letter.yaml").write_text(text)
    (temp.path / "list.csv").write_text("email,name,code\na@x.example,Ann,7\n")
    done = subprocess.run([program(), "send", "--template", "letter.yaml", "--to", "list.csv", *arguments],
                          cwd=temp.path, capture_output=True, text=True, timeout=60, check=False)
    temp.close()
    check(f"status of {done.stdout} {done.stderr}", done.returncode, status)
    return done


def test_letter():
    """All of it arrives in the letter; attachments are found from the file's directory on."""
    text = send(LETTER, "--preview", "1").stdout.partition("\n\n")[2]
    m = email.message_from_string(text, policy=email.policy.SMTP)
    check("header", (m["Subject"], str(m["From"]), str(m["Reply-To"]), m["List-Unsubscribe"]),
          ("Annさん、春のお知らせ", "早馬ニュース <news@sender.example>", "Reply <reply@sender.example>",
           "<https://sender.example/u/7>"))
    plain, html, inline, attached = [p for p in m.walk() if not p.is_multipart()]
    check("text", plain.get_content().replace("\r\n", "\n"),
          "Dear Ann:\n  - One\n    100 yen\n  - 二\n    0200 yen\n1-2-3 Chiyoda\n")
    check("html", html.get_content().strip(), "<p>Ann</p>Dear Ann:")
    check("inline", (inline.get_filename(), inline.get_content_type(), inline["Content-ID"]),
          ("表紙.png", "image/x-other", "<cover@x>"))
    check("attached", (attached.get_filename(), attached.get_content_type(), attached.get_payload(decode=True)),
          ("logo.png", "image/png", b"\x89PNG\0\xff"))
    check("checked", "1 recipient; lines without one: 0" in send(LETTER, "--check").stdout, True)


def test_unsubscribe_url():
    """What the engine may know of each letter is not missing here."""
    said = send(LETTER.replace("text: |", "missing_variables: fail\ntext: |\n  {{unsubscribe_url}}"), "--check").stdout
    check("no variable is missing", "cannot be made: 0, with missing variables: 0" in said, True)


def test_mistakes():
    """Each is said with file and line, and what the file calls it; all of a kind at once."""
    def said(old, new):
        return send(LETTER.replace(old, new), "--check", status=2).stderr

    for old, new, wanted in (
            ("subject:", "sujbect:", ["letter.yaml:2:1: unknown key 'sujbect'; did you mean 'subject'?"]),
            ("text: |", "text: [", ["letter.yaml:"]),
            ("  - pictures/logo.png\n", "  - missing.png\n", ["letter.yaml:26:5: ./missing.png: No such file"]),
            ("id: cover@x", "ids: cover@x", ["letter.yaml:25:1: attachments: 'ids': want file, type, name, id"]),
            ("{{#each items}}", "{{#each items}", ["letter.yaml:9: text: template, line 3"]),
            ("Dear {{name}}:", "Dear {{name", ["letter.yaml:9: text: template, partial 'greet', line 1"]),
            ("u/{{code}}>", "u/{{code>", ["letter.yaml:8: headers.List-Unsubscribe: template, line 1"]),
            ("subject: \"{{ name", "html: x\nsubject: \"{{ name", ["letter.yaml:"]),  # a key twice
            ("Handlebars", "Velocity", ["letter.yaml:6: template_dialect: 'Velocity' is not known here"]),
            ("from: \"早馬ニュース <news@sender.example>\"", "from: [a]\nreplyto: x",
             ["letter.yaml:3:1: from: want a text", "letter.yaml:4:1: unknown key 'replyto'; did you mean 'reply_to'?"])):
        text = said(old, new)
        for words in wanted:
            check(f"{words!r} in {text!r}", words in text, True)
    check("no mapping", "want keys" in send("- a\n", "--check", status=2).stderr, True)
    check("empty", "letter.yaml" in send("", "--check", status=2).stderr, True)


if __name__ == "__main__":
    run(globals())
