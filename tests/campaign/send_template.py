#!/usr/bin/env python3
"""hayauma send --template: checked before it is sent, sent as a campaign, gone on with, and never twice.

send_template.py [TEST...]"""

import json
import os
import subprocess
import time

from campaign import ROOT, Campaigns, Sink, arrived, check, csv, program, run, wait_until

TEMPLATE = {"envelope_sender": "bounce@sender.example",
            "content": {"from": {"email": "news@sender.example"}, "subject": "{{ name }}さん {{ code }}",
                        "headers": {"List-Unsubscribe": "<https://sender.example/{{ code }}>"},
                        "text_body": "Dear {{ name }}: {{ code }}"}}


def command(engine, rows, *arguments, template=None):
    directory = engine.dir
    name = "spring.eml" if isinstance(template, str) else "spring.json"
    (directory / name).write_text(template if isinstance(template, str) else json.dumps(template or TEMPLATE))
    (directory / "list.csv").write_bytes(rows if isinstance(rows, bytes) else rows.encode())
    return [program(), "send", "--template", directory / name, "--to", directory / "list.csv", "--api",
            f"http://127.0.0.1:{engine.web}", *arguments]


def send(engine, rows, *arguments, template=None, status=0):
    done = subprocess.run(command(engine, rows, *arguments, template=template), capture_output=True, text=True,
                          errors="replace", check=False, timeout=120)
    check(f"status, {done.stdout} {done.stderr}", done.returncode, status)
    return done


def far():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86400))


def test_check_and_preview():
    """What is wrong is said with its line, and nothing reaches the engine."""
    with Campaigns() as engine:
        rows = ("email,name,code\n" "a@x1.example,Ann,1\n" "no address,Bob,2\n" "b@x1.example,Bob\n"
                'c@x1.example,"Car,l",3\n' "a@X1.example,Ann,1\n")
        done = send(engine, rows, "--check", status=1)
        check("summary", done.stdout, "2 recipients; lines without one: 2, that name one again: 1; "
              "letters that cannot be made: 0, with missing variables: 0, with the Message-ID of another: 0; "
              + done.stdout[done.stdout.index("the largest"):])
        for words in ("list.csv:3: is no mail address: there is a blank in it", "list.csv:4: has not as many cells",
                      "list.csv:6: email: is there already"):
            assert words in done.stderr, done.stderr
        template = {**TEMPLATE, "content": {**TEMPLATE["content"], "text_body": "{{ nmae }}{{ code.x.y }}"}}
        done = send(engine, "email,name,code\na@x1.example,Ann,1\n", "--check", template=template, status=1)
        assert "cannot be made: 1" in done.stdout and "content.text_body: template, line 1" in done.stderr, done
        done = send(engine, "email,name,code\na@x1.example,Ann,1\n", template=template, status=2)
        assert "letters cannot be made; nothing was sent" in done.stderr, done
        template["content"]["text_body"] = "{{ nmae }}"
        done = send(engine, "email,name,code\na@x1.example,Ann,1\n", "--check", template=template, status=1)
        assert "with missing variables: 1" in done.stdout and "is not given" in done.stderr, done
        done = send(engine, csv(0, 5), "--preview", "2")
        check("previews", done.stdout.count("\nSubject: "), 2)
        assert "r0@x0.example" in done.stdout and "r2@x2.example" not in done.stdout, done.stdout
        japanese = {**TEMPLATE, "content": {**TEMPLATE["content"], "subject": "{{ name }}様、春", "text_body": "桜が咲く"}}
        call = command(engine, "email,name,code\na@x1.example,太郎,1\n", "--preview", "1", template=japanese)
        told = subprocess.run(call, capture_output=True, text=True, timeout=60, check=True).stdout
        assert "\nSubject: =?UTF-8?" in told and "桜が咲く" not in told, told
        terminal, its_end = os.openpty()  # a reader, not a program
        subprocess.run(call, stdout=its_end, stdin=its_end, timeout=60, check=True)
        os.close(its_end)
        told = os.read(terminal, 65536).decode().replace("\r\n", "\n")
        os.close(terminal)
        assert "\nSubject: 太郎様、春\n" in told and "\n桜が咲く\n" in told, told
        send(engine, csv(0, 5), "--check")
        # What all letters have in common: who signs them, how they are told apart, how they are left.
        done = send(engine, csv(0, 5), "--check", "--config", engine.file, status=1)
        assert "From: sender.example has no DKIM key" in done.stderr and done.stderr.count("\n") == 1, done
        plain = "From: news@sender.example\nMessage-ID: <1@sender.example>\n\n" + "{{ code }}" * 400 + "\n"
        done = send(engine, "email,code\na@x1.example,1\nb@x1.example,2\nc@x1.example,333\n", "--check",
                    template={**TEMPLATE, "content": plain}, status=1)
        assert "with the Message-ID of another: 1" in done.stdout and "no List-Unsubscribe field" in done.stdout, done
        assert "list.csv:3: Message-ID: is that of another letter" in done.stderr, done
        assert "list.csv:4: content: a line of more than 998 bytes" in done.stderr, done
        send(engine, csv(0, 5), "--check", "--config", "/nowhere.yaml", status=2)
        # A list as people in Japan have it: full-width characters, blanks around, another charset.
        done = send(engine, "email,code\ntaro＠x.example,1\njiro@x.example　,2\n  hanako@x.example ,3\n", "--check",
                    status=1)
        assert "1 recipient;" in done.stdout and "list.csv:2: is no mail address: its ＠ is full-width" in done.stderr \
            and "list.csv:3: is no mail address: there is a full-width blank" in done.stderr, done
        done = send(engine, b"email,code\na@x.example,\x91\xbe\n", "--check", status=1)
        assert "list.csv:2: is not UTF-8" in done.stderr and "iconv -f CP932" in done.stderr, done
        done = send(engine, csv(0, 5), template={"content": {"text_body": "{{"}}, status=2)
        assert "spring.json: content" in done.stderr, done
        for more, words in (({"poool": "a"}, "spring.json: poool: unknown field; did you mean 'pool'?"),
                            ({"priority": 10}, "spring.json: priority: is not 0 (first) to 9 (last)"),
                            ({"tags": "x"}, "spring.json: tags: must be a list")):
            done = send(engine, csv(0, 5), "--check", template={**TEMPLATE, **more}, status=2)
            assert words in done.stderr, done
        done = send(engine, "name\nx\n", status=2)
        assert "has no column 'email'" in done.stderr, done
        done = send(engine, csv(0, 5), "--campaign", b"spr\xffing", status=2)
        assert "--campaign: cannot use" in done.stderr and "not UTF-8" in done.stderr, done
        began = time.monotonic()  # what no time mends is not tried for half a minute
        done = send(engine, csv(0, 1), "--api", f"https://127.0.0.1:{engine.web}", status=1)
        assert "SSL" in done.stderr and time.monotonic() - began < 15, done
        check("campaigns", json.loads(engine.ask("GET", ROOT)[2])["campaigns"], [])
        # Where HTTP is, the configuration says.
        web = engine.dir / "web.yaml"
        web.write_text('host_name: a.example\nhttp: {listen: "127.0.0.1:%d"}\n' % engine.web)
        call = command(engine, csv(0, 1), "--no-wait", "--config", str(web))
        call[call.index("--api"):call.index("--api") + 2] = []
        told = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
        assert told.returncode == 0 and len(json.loads(engine.ask("GET", ROOT)[2])["campaigns"]) == 1, told
        web.write_text("host_name: a.example\n")
        told = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
        assert told.returncode == 2 and "has no http.listen" in told.stderr, told


def test_sends():
    """Everybody gets one letter; the same call again sends nothing."""
    with Sink() as sink, Campaigns(sink.port) as engine:
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        done = send(engine, csv(0, 1000), "--priority", "2", "--rate", "9k/s", "--expires", expires)
        assert "1000 of 1000 delivered" in done.stdout, done
        wanted = {f"r{i}@x{i % 7}.example": 1 for i in range(1000)}
        check("each once", arrived(sink), wanted)
        (campaign,) = json.loads(engine.ask("GET", ROOT)[2])["campaigns"]
        check("campaign", (campaign["name"], campaign["priority"], campaign["state"], campaign["rate"]),
              ("spring", 2, "done", "9000/s"))
        check("expires", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(campaign["expires_ms"] / 1000)), expires)
        # The same call says what became of it; what is not the same is not taken for it.
        again = "--priority", "2", "--rate", "9k/s", "--expires", expires
        done = send(engine, csv(0, 1000), *again)
        assert campaign["id"] in done.stdout and "1000 of 1000 delivered" in done.stdout, done
        other = {**TEMPLATE, "content": {**TEMPLATE["content"], "subject": "April"}}
        for rows, template, words in ((csv(0, 1001), TEMPLATE, "began with another list: give another --campaign"),
                                      (csv(0, 1000), other, "was made with another letter")):
            done = send(engine, rows, *again, template=template, status=1)
            assert words in done.stderr and campaign["id"] in done.stderr, done
        done = send(engine, csv(0, 10), template={**TEMPLATE, "name": "more"})
        assert done.stdout.startswith("more: "), done
        check("each once", arrived(sink), {**wanted, **{f"r{i}@x{i % 7}.example": 2 for i in range(10)}})


def test_changes():
    """Options change a campaign that is there, or are refused; long variables are told before anything is sent."""
    with Campaigns() as engine:
        later = "--campaign", "later", "--no-wait", "--at", far().replace("Z", ".500Z"), "--tag", "vip", "--tag", "朝"
        send(engine, csv(0, 5), *later)
        (one,) = json.loads(engine.ask("GET", ROOT)[2])["campaigns"]
        check("as it was made", (one["state"], one["tags"], one.get("rate")), ("scheduled", ["vip", "朝"], None))
        send(engine, csv(0, 5), *later, "--rate", "7/s", "--priority", "3")
        one = engine.show(one["id"])
        check("changed", (one["state"], one["rate"], one["priority"]), ("scheduled", "7/s", 3))
        for more, words in ((("--at", "2020-01-01T00:00:00Z"), "was given another time to start"),
                            (("--expires", far()), "was made with another letter, sender, time of expiry"),
                            (("--tag", "more"), "was made with another letter, sender, time of expiry"),
                            (("--pool", "none"), "there is no such pool")):
            done = send(engine, csv(0, 5), *later, *more, status=1)
            assert words in done.stderr, done
        done = send(engine, csv(0, 5), *later, "--rate", "much", status=2)
        assert "--rate: is no rate" in done.stderr, done
        check("as it was", engine.show(one["id"]), one)
        done = send(engine, csv(0, 5), "--campaign", "when", "--at", "tomorrow", status=2)
        assert "'tomorrow' is no time" in done.stderr, done
        check("no draft is left", [c["name"] for c in json.loads(engine.ask("GET", ROOT)[2])["campaigns"]], ["later"])
        # Whom a whole message is of is its sender; where that is nobody, or differs by recipient, it must be said.
        message = "To: x\nFrom: News <news@sender.example>\nSubject: {{ name }}\n\n{{ code }}\n"
        send(engine, csv(0, 5), "--campaign", "eml", "--no-wait", "--at", far(), template=message)
        done = send(engine, csv(0, 5), "--campaign", "eml", "--no-wait", "--at", far(), "--from", "b@sender.example",
                    template=message, status=1)
        assert "was made with another letter, sender" in done.stderr, done
        for author in ("{{ name }}@sender.example", "a@sender.example, b@sender.example", ""):
            done = send(engine, csv(0, 5), "--check", template=message.replace("News <news@sender.example>", author), status=2)
            assert "give --from" in done.stderr, done
        long = f"email,name,code\na@x.example,Ann,1\nb@x.example,Bob,{'x' * 3100}\n"
        for more, status in ((("--check",), 1), ((), 2)):
            done = send(engine, long, "--campaign", "long", *more, status=status)
            assert "list.csv:3: name and variables take 3" in done.stderr, done


def test_goes_on():
    """A call that was killed while it sent the list, or later, is gone on with."""
    with Sink() as sink, Campaigns(sink.port) as engine:
        spring = engine.create(**TEMPLATE, rate="4000/s")  # or it may be over before the kill
        engine.add(spring, csv(0, 600))
        with subprocess.Popen(command(engine, csv(0, 9000)), stdout=subprocess.DEVNULL) as killed:
            wait_until("more of the list", lambda: engine.show(spring)["recipients"] > 600)
            killed.kill()
        done = send(engine, csv(0, 9000))
        assert "9000 of 9000 delivered" in done.stdout and spring in done.stdout, done
        check("each once", arrived(sink), {f"r{i}@x{i % 7}.example": 1 for i in range(9000)})


def test_other_tenants():
    """Who may see campaigns of several tenants goes on with none of another tenant's that has the name."""
    with Sink() as sink, Campaigns(sink.port, more={"tenants": {"acme": {}}}) as engine:
        token = engine.dir / "acme.token"
        token.write_text(engine.command("token", "add", "acme", "--tenant", "acme"))
        theirs = engine.create(**TEMPLATE, tenant="acme")
        engine.add(theirs, csv(5000, 10))
        send(engine, csv(0, 100))
        check("each once", arrived(sink), {f"r{i}@x{i % 7}.example": 1 for i in range(100)})
        check("theirs", {k: engine.show(theirs)[k] for k in ("state", "recipients")},
              {"state": "draft", "recipients": 10})
        done = send(engine, csv(0, 100), "--token-file", token)  # which is of the tenant, goes on with it
        assert theirs in done.stdout and "110 of 110" in done.stdout, done
        done = send(engine, csv(0, 100), "--token-file", token)
        assert theirs in done.stdout and "110 of 110" in done.stdout, done
        send(engine, csv(0, 10), "--campaign", "more", template={**TEMPLATE, "tenant": "acme"})
        all_of_them = json.loads(engine.ask("GET", ROOT)[2])["campaigns"]
        check("tenant", [c["tenant"] for c in all_of_them if c["name"] == "more"], ["acme"])


if __name__ == "__main__":
    run(globals())
