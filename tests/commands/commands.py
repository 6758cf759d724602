#!/usr/bin/env python3
"""The commands as a user calls them: texts, exit codes, what they do to a running engine.

commands.py [TEST...]; HAYAUMA_GOLDEN_UPDATE=1 rewrites the help texts in docs/commands.md."""

import fcntl
import itertools
import json
import os
import pathlib
import pty
import pwd
import re
import select
import signal
import smtplib
import struct
import subprocess
import sys
import termios
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
import talk  # noqa: E402
from authority import Authority  # noqa: E402
from engine import TREE, Engine, Sink, beside, program  # noqa: E402
from proc import TempDir, free_port, wait_until  # noqa: E402

# Under a sanitizer a command takes five times the CPU: every third call is one of the program under test.
PROGRAMS = itertools.cycle((program(), beside(), beside()))
DOCS = TREE / "docs/commands.md"


def run(*arguments, status=0, text=None, env=None):
    """Runs hayauma; its exit status must be status. Returns the finished process."""
    clean = {k: v for k, v in os.environ.items() if k != "HAYAUMA_SOCKET"}
    if "ASAN_OPTIONS" in clean:  # what a command leaves at its end harms nobody; looking for it takes half of its time
        clean["ASAN_OPTIONS"] += ":detect_leaks=0"
    done = subprocess.run([next(PROGRAMS), *map(str, arguments)], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL if text is None else None, input=text,
                          timeout=60, check=False, env={**clean, **(env or {})})
    assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
    return done


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


class Fed(Engine):
    """An engine with 40 recipients in four domains that cannot be delivered yet: their next hop
    refuses connections until there is a sink on its port."""

    def __init__(self):
        self.hop = free_port()
        super().__init__({"routes": {"*": f"[127.0.0.1]:{self.hop}"},
                          "destinations": {"*": {"retry": ["1h"]}}})

    def start(self, timeout_s=60):
        super().start(timeout_s)
        with smtplib.SMTP(self.host, self.port) as smtp:
            for i in range(20):
                smtp.sendmail(f"news{i % 2}@sender.example",
                              [f"u{i}@d{i % 4}.example", f"v{i}@d{i % 4}.example"],
                              f"Subject: number {i}\r\nX-Escape: a\x1b[31mb\r\n\r\nhello {i}\r\n")
        # Until each destination has been tried once and backs off, nothing is still.
        wait_until("four back-offs", lambda: sum(
            d["suspended_until_ms"] > 0 for d in self.status()["destinations"]) == 4)
        return self

    def run(self, *arguments, status=0, text=None):
        return run(*arguments, "-c", self.file, status=status, text=text)

    def count(self, *filters):
        return len(lines(self.run("queue", "list", "--json", *filters).stdout))


def on_terminal(*arguments, send=None, until=b"\0", stop=None, act=None, env=None, columns=80):
    """Runs hayauma on a pseudo-terminal; returns (exit status, output). send: typed once until was
    seen; stop: a signal for it then; act: called in a thread then, with the process id."""
    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        os.environ.update(env or {})
        os.execv(program(), [str(a) for a in (program(), *arguments)])
    output = b""
    acted = False
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if select.select([fd], [], [], 0.1)[0]:
            try:
                piece = os.read(fd, 65536)
            except OSError:
                break
            if not piece:
                break
            output += piece
        if not acted and until in output:
            acted = True
            if send:
                os.write(fd, send)
            if stop:
                os.kill(pid, stop)
            if act:
                threading.Thread(target=act, args=(pid,)).start()
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output.decode()


# --- without an engine ---

def test_usage():
    assert "usage: hayauma <command>" in run(status=2).stderr
    assert "usage: hayauma <command>" in run("--help").stdout
    assert run("help", "queue").stdout == run("queue", "--help").stdout
    assert "did you mean 'status'?" in run("statsu", status=2).stderr
    assert "did you mean 'version'?" in run("vers", status=2).stderr
    assert "did you mean 'quarantine'?" in run("queue", "quar", status=2).stderr
    assert "no such command" in run("help", "nope", status=2).stderr
    assert re.match(r"hayauma \d+\.\d+\.\d+\n", run("version").stdout)
    assert json.loads(run("version", "--json").stdout)["version"]
    for command in (("queue",), ("queue", "lst"), ("queue", "list", "--nope"),
                    ("queue", "list", "--min-age", "5"), ("queue", "list", "--state", "odd"),
                    ("queue", "list", "a.example", "b.example"), ("queue", "list", "--id", "xyz"),
                    ("queue", "show"), ("queue", "export"), ("queue", "cancel"), ("status", "x"),
                    ("status", "--interval", "1"), ("reload", "x"), ("stop", "x"), ("config",),
                    ("config", "chek"), ("config", "docs", "x"), ("version", "x"),
                    ("queue", "--json", "list"), ("queue", "hold"), ("queue", "show", "a.example"),
                    ("queue", "cancel", "a.example"), ("queue", "cancel", "--all"),
                    ("queue", "hold", "a.example", "-n", "1"), ("queue", "quarantine", "export"),
                    ("queue", "cancel", "-y", "--error", ""), ("trace", "--site", ""), ("site", "show", ""),
                    ("campaign", "cancel", "spring"), ("campaign", "recipients", "spring", "--state", "odd"),
                    ("queue", "suspend", "\udcff"), ("queue", "list", "\udcff"), ("why", "\udcff"), ("route", "\udcff@a"),
                    ("trace", "--client", "\udcff"), ("suppress", "add", "\udcff"), ("campaign", "show", "\udcff"),
                    ("source", "show", "\udcff"), ("site", "show", "\udcff"), ("warmup", "pause", "\udcff"),
                    ("warmup", "status", "\udcff"), ("pool", "show", "\udcff")):
        done = run(*command, status=2)
        assert done.stderr and not done.stdout, command


def test_no_engine():
    for command in (("status",), ("queue", "list"), ("reload",), ("stop",)):
        done = run(*command, "--socket", "/nonexistent/control.sock", status=3)
        assert "cannot reach the engine at /nonexistent/control.sock" in done.stderr
        assert "hayauma serve" in done.stderr


def test_config():
    with_mistake = "workers: 2\nlisen: 3\n"
    temp = TempDir()
    good, bad = temp.path / "good.yaml", temp.path / "bad.yaml"
    good.write_text("host_name: mx.example.com\nworkers: 2\n")
    bad.write_text(with_mistake)
    assert "good (1 listener, 0 routes, 1 destination)" in run("config", "check", good).stdout
    assert run("config", "check", "-q", good).stdout == ""
    for named in (("-c", good), (f"--config={good}",)):  # as other commands have it
        assert f"{good}: good" in run("config", "check", *named).stdout
        assert "host_name: mx.example.com" in run("config", *named, "show").stdout
    run("config", "check", "-c", good, good, status=2)
    run("config", "docs", "-c", good, status=2)
    assert f"{bad}:2:1: unknown key 'lisen'" in run("config", "check", bad, status=1).stderr
    assert "is not there; docs/examples" in run("config", "check", temp.path / "none", status=1).stderr
    shown = run("config", "show", good).stdout
    assert f"\nworkers: 2  # {good}:2\n" in shown
    good.write_text(shown)
    values, again = (re.sub("  # .*", "", s) for s in (shown, run("config", "show", good).stdout))
    assert again == values
    assert "workers: auto" in run("config", "show", "--defaults").stdout
    bad.write_text("listeners: [{listen: '0.0.0.0:25', relay_networks: 0.0.0.0/0}]\n")
    done = run("config", "check", bad)
    assert f"warning: {bad}:1: listener 0.0.0.0:25: " in done.stderr and "anybody may relay" in done.stderr
    bad.write_text("listeners: [{listen: '192.0.2.99:25'}]\nqueue: {path: /none/such/queue}\n"
                   f"records: {{path: {good}}}\n")
    said = run("config", "check", bad).stderr  # what serve would refuse here
    assert "listener 192.0.2.99:25: this machine has no such address" in said, said
    assert f"{bad}:2: queue.path: there is no directory /none/such" in said, said
    assert f"{bad}:3: records.path: {good} is no directory" in said, said
    bad.write_text("user: no-such-user\ngroup: no-such-group\n")
    said = run("config", "check", bad, status=1).stderr
    assert f"{bad}:1:7: user: 'no-such-user' is no user" in said, said
    assert f"{bad}:2:8: group: 'no-such-group' is no group" in said, said
    example = (TREE / "docs/examples/hayauma.yaml").read_text()
    good.write_text(example.replace("user: hayauma", "user: root"))
    assert "no 'user'" not in run("config", "check", good).stderr
    good.write_text("user: nobody\n")
    good.chmod(0o600)
    said = run("config", "check", good, status=os.geteuid() == 0).stderr
    assert (f"{good}: root can read it, but not the engine as user nobody" in said) == (os.geteuid() == 0), said
    if os.geteuid() == 0:  # nobody may not enter the directory, whose files are his otherwise
        inside = temp.path / "inside"
        inside.mkdir(mode=0o700)
        users, own = inside / "users", inside / "own.pem"
        run("user", "add", "shop", "--file", users, text="Canary-Kanarienvogel-4711\n")
        os.chown(users, pwd.getpwnam("nobody").pw_uid, -1)
        own.write_text("".join(p.read_text() for p in Authority(inside / "ca").self_signed("mx.example.com")))
        good.write_text(f"user: nobody\nauth: {{users_file: {users}}}\n"
                        f"destinations: {{'*': {{tls_certificate: {own}}}, d.example: {{sessions_max: 1}}}}\n")
        said = run("config", "check", good, status=1).stderr
        assert said.count(f"users_file: {users}: root can read it") == 1, said
        assert said.count(f"tls_certificate: {own}: root can read it") == 1, said
    good.write_text("dns: {servers: [127.0.0.1, 192.0.2.53]}\n")
    said = run("config", "check", good).stderr
    assert f"warning: {good}:1: dns.servers: 192.0.2.53 is beyond loopback" in said, said
    assert ("warning: no 'user': started by root" in said) == (os.geteuid() == 0), said
    bad.write_text("auth: {users_file: /none/users}\ncredentials_file: /none/credentials\n"
                   "dkim: {keys: [{domain: a.example, selector: s, file: /none/key}]}\n"
                   "certificates: [{chain: /none/chain, key: /none/key}]\n")
    said = run("config", "check", bad, status=1).stderr  # all at once
    for name in ("/none/users", "/none/credentials", "/none/key is not there", "/none/chain"):
        assert name in said, said
    assert "users_file: /none/users" in run("config", "show", bad).stdout
    assert run("config", "docs").stdout == (TREE / "docs/configuration.md").read_text()


def test_docs():
    """The help texts in docs/commands.md are those of the program, and fit a screen."""
    text = DOCS.read_text()

    def replace(block):
        said = run(*block[1].split()[1:]).stdout
        assert max(map(len, said.splitlines())) <= 80, block[1]
        return f"```console\n$ {block[1]}\n{said}```"

    want = re.sub(r"```console\n\$ (hayauma[^\n]* --help)\n.*?```", replace, text, flags=re.S)
    if os.environ.get("HAYAUMA_GOLDEN_UPDATE"):
        DOCS.write_text(want)
    else:
        assert text == want, "docs/commands.md is not what --help says; HAYAUMA_GOLDEN_UPDATE=1"
    for name in commands():
        assert f"\n## {name}\n" in text, name


def commands():
    return re.findall(r"^  (\w+)  ", run("--help").stdout, flags=re.M)


def test_completion():
    """A shell completes what the help texts say."""
    def words(*before):
        return [line.split("\t")[0] for line in run("completion", "words", *before).stdout.splitlines()]

    def bash(*typed):
        script = 'source <("$0" completion bash); COMP_WORDS=("$0" "$@"); COMP_CWORD=$#; _hayauma; ' \
            'printf "%s\\n" "${COMPREPLY[@]}"'
        return subprocess.run(["bash", "--norc", "-c", script, program(), *typed], capture_output=True, text=True,
                              check=True, timeout=20).stdout.split()

    assert words("") == commands() == words("help", "")
    assert words("queue", "quarantine", "") == ["list", "show", "export", "purge"]
    assert words("user", "") == ["add", "passwd", "remove", "list"]
    assert words("source", "") == ["list", "show", "suspend", "resume"]
    assert {"--template", "--eml"} <= set(words("send", "-")) and "--to" in words("source", "-")
    assert words("queue", "list", "--state", "") == [] == words("nope", "") == words("why", "")
    assert bash("qu") == ["queue"] and bash("queue", "sus") == ["suspend", "suspensions"]
    assert bash("status", "--int") == ["--interval"] and bash("queue", "export", "--to", "") == []
    assert "_describe" in run("completion", "zsh").stdout
    assert "usage" in run("completion", "csh", status=2).stderr


# --- with one ---

def test_look():
    with Fed() as engine:
        status = engine.status()
        assert status["queue"]["rows"] == 40 and status["queue"]["messages"] == 20
        assert status["counters"]["received_messages"] == 20
        assert {d["queue"] for d in status["destinations"]} == {f"d{i}.example" for i in range(4)}
        assert all(d["rows"] == 10 for d in status["destinations"])
        table = engine.run("status", "--once").stdout
        assert "40 recipients, 20 messages" in table and "Connection refused" in table

        assert engine.count() == 40
        assert engine.count("d1.example") == 10
        assert engine.count("D1.Example") == 10
        assert engine.count("--queue", "d*.example", "--recipient", "u*") == 20
        assert engine.count("--sender", "news0@*") == 20
        assert engine.count("--error", "refused", "--min-attempts", "1") >= 4
        assert engine.count("--max-age", "1h") == 40
        assert engine.count("--min-age", "1h") == 0
        assert engine.count("--limit", "7") == 7 and engine.count("--limit", "39") == 39  # the last row is one too many
        assert "is no limit" in engine.run("queue", "list", "--limit", "0", status=2).stderr
        engine.run("route", "x@d1.example")
        text = engine.run("queue", "list").stdout
        assert text.split("\n")[0].split()[:5] == ["MESSAGE", "AGE", "NEXT", "TRIES", "RECIPIENT"]
        assert len(text.splitlines()) == 41 and "u1@d1.example" in text

        groups = lines(engine.run("queue", "summary", "--json").stdout)
        assert sum(g["rows"] for g in groups) == 40 and len(groups) == 4

        row = lines(engine.run("queue", "list", "--json", "--recipient", "u5@d1.example").stdout)[0]
        shown = engine.run("queue", "show", row["id"]).stdout
        assert "news1@sender.example" in shown and "Subject: number 5" in shown
        assert "to u5@d1.example" in shown and "to v5@d1.example" in shown
        expires = [datetime.fromisoformat(t) for t in re.findall(r"expires (\S+)", shown)]
        assert len(expires) == 2, shown
        assert all(2 < (t - datetime.now(timezone.utc)) / timedelta(days=1) <= 3 for t in expires)
        same = [line["row"] for line in lines(engine.run("queue", "show", "--json", row["id"]).stdout)
                if "row" in line and line["row"]["index"] == row["index"]]
        for one in (row, *same):  # by two clocks, of which each is cut to milliseconds
            one.get("wait", {}).pop("until_ms", None)
        assert same == [row], same
        assert "\x1b" not in shown and "a?[31mb" in shown
        assert engine.run("queue", "list", row["id"]).stdout.count("d1.example") == 2
        content = engine.run("queue", "export", row["id"]).stdout
        assert content.startswith("Received: ") and content.endswith("hello 5\n")
        done = engine.run("queue", "show", "0" * 32, status=1)
        assert "no message with this id" in done.stderr
        assert "'abc' is no message id" in engine.run("queue", "show", "abc", status=2).stderr
        assert "which message?" in engine.run("queue", "show", status=2).stderr
        done = engine.run("queue", "list", "u5@d1.example", status=2)
        assert "--recipient u5@d1.example or --sender u5@d1.example" in done.stderr, done.stderr
        assert engine.run("queue", "quarantine", "--json").stdout == ""

        where = engine.dir / "exported"
        engine.run("queue", "export", "--sender", "news0@*", "--to", where)
        rows = lines((where / "recipients.jsonl").read_text())
        assert len(rows) == 20 and len({r["id"] for r in rows}) == 10
        for r in rows:
            assert b"hello" in (where / f"{r['id']}.eml").read_bytes()
        assert len(list(where.iterdir())) == 11
        done = engine.run("queue", "export", "--all", "--to", where, status=1)
        assert "is no empty directory" in done.stderr
        where = engine.dir / "empty"
        where.mkdir(mode=0o755)
        engine.run("queue", "export", "d1.example", "--to", where)
        assert {p.stat().st_mode & 0o777 for p in where.iterdir()} == {0o600}


def test_look_after_a_restart():
    """Why mail waits is told although nothing was tried since."""
    with Engine({"routes": {"*": f"[127.0.0.1]:{free_port()}"},
                 "destinations": {"*": {"retry": ["1h"]}}}) as engine:
        with smtplib.SMTP(engine.host, engine.port) as smtp:
            for i in range(5):
                smtp.sendmail("a@sender.example", [f"u@d{i}.example"], f"Subject: {i}\r\n\r\nx\r\n")
        wait_until("five deferrals", lambda: len(engine.records("TransientFailure")) == 5)
        engine.process.stop()
        Engine.start(engine)
        table = engine.run_ok("status", "--once").split("DESTINATION")[1]
        assert table.count("Connection refused") == 5, table
        assert engine.status()["counters"]["deferred"] == 0


WORLD = """
classes:
  - {name: busy, domains: [busy.example], address: 127.0.0.3,
     defer: {rate: 1, at: banner, reply: "421 4.3.2 no room today"}}
  - {name: slow, domains: [slow.example], latency: {rcpt: 300s}}
  - {name: broken, domains: [broken.example], dns: servfail}
  - {name: silent, domains: [silent.example], dns: timeout}
"""
# Of each destination: what holds its mail, and what every screen says of it.
WAITS = {"busy.example": ("back_off", "mx1.busy.example: 421 4.3.2 no room today"),
         "paced.example": ("rate", "our rate limit: next in "),
         "slow.example": ("sessions", "session limit"),
         "broken.example": ("no_route", "no route, again in "),
         "silent.example": ("lookup", "looking up its route")}


class Waiting(Engine):
    """An engine whose mail waits for something else at each destination of WAITS."""

    def __init__(self):
        self.temp_world = TempDir()
        (self.temp_world.path / "world.yaml").write_text(WORLD)
        self.sink = Sink(self.temp_world.path / "world.yaml").start()
        super().__init__({
            "drain_timeout": "1s",
            "dns": self.sink.dns(timeout="30s"),  # a lookup that outlasts the test
            "sources": {"here": {"ipv4": "127.0.0.1", "ipv6": "2001:db8::13"}},
            "destinations": {"*": {"retry": ["1h"]}, "paced.example": {"rate": "1/h"},
                             "slow.example": {"sessions_max": 1}}})

    def start(self, timeout_s=60):
        super().start(timeout_s)
        with smtplib.SMTP(self.host, self.port) as smtp:
            for domain in WAITS:
                for i in range(3):
                    smtp.sendmail("a@sender.example", [f"u{i}@{domain}"], f"Subject: {i}\r\n\r\nx\r\n")
        return self

    def stop(self, timeout_s=60):
        super().stop(timeout_s)
        self.sink.stop()


def test_why_mail_waits():
    """Status, summary, list and show say what holds mail, until when, and who said so."""
    with Waiting() as engine:
        def reasons():
            return {d["queue"]: d.get("wait", {}).get("reason")
                    for d in engine.status()["destinations"]}

        wanted = {domain: reason for domain, (reason, _) in WAITS.items()}
        wait_until("all five reasons", lambda: reasons() == wanted)
        groups = {g["queue"]: g for g in lines(engine.run_ok("queue", "summary", "--json"))}
        now_ms = time.time() * 1000
        for domain, (reason, text) in WAITS.items():
            rows = lines(engine.run_ok("queue", "list", "--json", domain))
            waiting = [r for r in rows if "wait" in r]
            assert waiting and {r["wait"]["reason"] for r in waiting} == {reason}, (domain, rows)
            assert groups[domain]["wait"]["reason"] == reason
            for until in (r["wait"].get("until_ms") for r in waiting):
                timed = reason in ("back_off", "rate", "no_route")
                assert (until is not None) == timed and (not timed or until > now_ms), (domain, until)
            shown = engine.run_ok("queue", "show", waiting[-1]["id"])
            listed = engine.run_ok("queue", "list", domain)
            assert f"waits: {text}" in shown or "\n   waits: back-off " in shown and text in shown, shown
            assert text in listed, listed
            assert not re.search(r" now +\d+ u2@", listed) or reason == "sessions", listed
            for screen in (engine.run_ok("queue", "summary"), engine.run_ok("status", "--once")):
                line = next(line for line in screen.splitlines() if line.startswith(domain))
                assert text in line, (domain, screen)
        # A probe took the first; the others were never tried, and still say why they wait.
        row = [r for r in lines(engine.run_ok("queue", "list", "--json", "busy.example"))
               if r["attempts"] == 0][0]
        assert row["wait"]["host"] == "mx1.busy.example", row
        assert row["wait"]["error"] == "421 4.3.2 no room today", row
        shown = engine.run_ok("queue", "list", "busy.example")
        assert re.search(r" (1h)?\d+m +0 u", shown), shown
        held = engine.run_ok("queue", "hold", "busy.example")
        assert "3 recipients held" in held
        assert all("wait" not in r
                   for r in lines(engine.run_ok("queue", "list", "--json", "busy.example")))


def columns_of(line):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def test_screens_fit():
    """80 columns fit, with what holds mail below its line; 200 have it behind."""
    with Waiting() as engine:
        wait_until("a back-off", lambda: any(
            d.get("wait", {}).get("reason") == "back_off" for d in engine.status()["destinations"]))
        for columns in (80, 200):
            for command in (("why", "busy.example"), ("queue", "list"), ("queue", "summary"), ("status", "--once")):
                status, output = on_terminal(*command, "-c", engine.file, columns=columns)
                assert status == 0, output
                widest = max(output.splitlines(), key=columns_of)
                assert columns_of(widest) <= columns, (command, columns, widest)
                if columns == 200 and command[0] != "why":
                    assert columns_of(widest) > 100, (command, output)
                assert "421 4.3.2" in output or columns == 80 and command[0] == "status", output
            assert re.search(r"back-off [\dhm]+: mx1.busy", output), output
        name, reason = "with-a-long-name-" * 3 + "x.example", "値段が違う, and more words than a line has"
        engine.command("queue", "suspend", name, "--reason", reason)
        engine.command("suppress", "add", f"{'somebody-' * 6}@{name}", "--tenant", "a-tenant-with-a-long-name")
        for command in (("queue", "suspensions"), ("suppress", "list"), ("site", "list"), ("source", "list"),
                        ("pool", "list"), ("pool", "show", "default"), ("route", "x@busy.example"), ("site", "show", "busy.example")):
            output = on_terminal(*command, "-c", engine.file)[1]
            assert len(output.splitlines()) > 1, output
            assert columns_of(max(output.splitlines(), key=columns_of)) <= 80, (command, output)
        assert re.search(r"^here +ok .*\n +2001:db8::13 is missing$", engine.command("source", "list"), flags=re.M)
        assert "sends over its other family alone" in engine.log()
        shown = engine.command("pool", "show", "default")
        assert re.search(r"^source +here, weight 1: ok, \d+ sessions?, \d+ messages?$", shown, flags=re.M), shown
        assert "'hayauma pool list' shows them" in run("pool", "show", "nope", "-c", engine.file, status=1).stderr
        assert name in engine.command("queue", "suspensions") and f"@{name} " in engine.command("suppress", "list")


def test_actions():
    with Fed() as engine:
        assert "10 recipients held" in engine.run("queue", "hold", "d0.example").stdout
        assert engine.count("--state", "held") == 10
        for action in ("hold", "flush", "cancel", "expire"):
            done = engine.run("queue", action, "nosuch.example", "-y", status=1)
            assert done.stdout == "no recipient matches\n", done
        assert engine.run("queue", "release", "--all").stdout  # of all there may be none
        engine.run("queue", "hold", "d0.example")
        assert "no recipient matches" in engine.run("queue", "hold", "d0.example", status=1).stdout
        assert "no recipient matches" in engine.run("queue", "flush", "d0.example", status=1).stdout
        assert "10 recipients released" in engine.run("queue", "release", "d0.example").stdout
        assert engine.count("--state", "held") == 0
        assert "say which, or --all" in engine.run("queue", "hold", status=2).stderr
        assert "--limit" in engine.run("queue", "hold", "d1.example", "-n", "1", status=2).stderr

        done = engine.run("queue", "cancel", "d1.example", status=2)  # nobody to ask
        assert "--yes" in done.stderr
        assert engine.count("d1.example") == 10
        asked = ("queue", "cancel", "d1.example", "-c", engine.file)
        status, output = on_terminal(*asked, until=b"[y/N]", send=b"n\n")
        assert status == 1 and "cancel 10 recipients?" in output and "nothing was changed" in output
        assert engine.count("d1.example") == 10
        status, output = on_terminal(*asked, until=b"[y/N]", send=b"y\n")
        assert status == 0 and "10 recipients cancelled" in output
        assert engine.count("d1.example") == 0
        ended = engine.wait_records("AdminBounce", 10)
        assert len(ended) == 10
        assert all(r["response"]["content"] == "cancelled by the administrator" for r in ended)

        row = lines(engine.run("queue", "list", "--json", "d2.example", "-n", "1").stdout)[0]
        assert "2 recipients cancelled" in engine.run("queue", "cancel", row["id"]).stdout
        assert "8 recipients expired" in engine.run("queue", "expire", "d2.example", "-y").stdout
        engine.wait_records("Expiration", 8)
        assert engine.count("d2.example") == 0

        engine.run("queue", "hold", "d3.example")
        engine.run("queue", "cancel", "sender.example", "-y")  # the notices
        sink = ["--listen", f"127.0.0.1:{engine.hop}"]
        with Sink(arguments=sink):
            engine.run("queue", "flush", "--all")
            engine.wait_records("Delivery", 10)
            wait_until("only what is held", lambda: engine.count() == 10)
            assert engine.count("d3.example", "--state", "held") == 10
            engine.run("queue", "release", "--all")
            engine.run("queue", "flush", "--all")  # its back-off is another matter
            wait_until("an empty queue", lambda: engine.count() == 0)
        assert len(engine.wait_records("Delivery", 20)) == 20


def test_one_message():
    """Messages of one recipient, in whichever shard, are found by their id."""
    with Engine({"routes": {"*": f"[127.0.0.1]:{free_port()}"}, "queue": {"shards": 3},
                 "destinations": {"*": {"retry": ["1h"]}}}) as engine:
        with smtplib.SMTP(engine.host, engine.port) as smtp:
            for i in range(8):
                smtp.sendmail("a@sender.example", [f"u@d{i}.example"], f"Subject: {i}\r\n\r\nx\r\n")
        wait_until("eight deferrals", lambda: len(engine.records("TransientFailure")) == 8, 90)
        rows = lines(engine.run_ok("queue", "list", "--json"))
        assert len(rows) == 8
        for left, row in zip(range(7, -1, -1), rows):
            assert f"to {row['recipient']}" in engine.run_ok("queue", "show", row["id"])
            found = lines(engine.run_ok("queue", "list", "--json", row["id"]))
            assert [r["recipient"] for r in found] == [row["recipient"]]
            for action, past in (("hold", "held"), ("release", "released"), ("cancel", "cancelled")):
                assert engine.run_ok("queue", action, row["id"]) == f"1 recipient {past}\n"
            done = run("queue", "hold", row["id"], "-c", engine.file, status=1)
            assert done.stdout == "no recipient matches\n"
            assert len(lines(engine.run_ok("queue", "list", "--json"))) == left


def spoil(engine, text):
    """Changes a bit of text wherever a stopped engine's queue has it."""
    for file in (engine.dir / "queue").glob("shard-*/data.mdb"):
        stored = file.read_bytes()
        file.write_bytes(stored.replace(text, bytes([text[0] ^ 1]) + text[1:]))


def test_quarantine():
    with Fed() as engine:
        row = lines(engine.run("queue", "list", "--json", "--recipient", "u5@d1.example").stdout)[0]
        engine.process.stop()
        spoil(engine, b"hello 5\r\n")
        Engine.start(engine)
        engine.run("queue", "flush", "--all")
        wait_until("the damage", lambda: engine.status()["queue"]["quarantined"] == 2)

        found = lines(engine.run("queue", "quarantine", "--json").stdout)
        assert {(q["id"], q["recipient"], q["sender"]) for q in found} == {
            (row["id"], "u5@d1.example", "news1@sender.example"),
            (row["id"], "v5@d1.example", "news1@sender.example")}, found
        name = found[0]["record"]
        done = engine.run("queue", "quarantine")
        assert done.stdout.count(": d1.example, message") == 2 and name in done.stdout
        assert "content is damaged" in done.stdout and "2 damaged records" in done.stderr
        assert engine.run("queue", "quarantine", "list", name).stdout.count("d1.example,") == 1
        assert engine.run("queue", "quarantine", "list", "d2.example").stdout == ""
        shown = engine.run("queue", "quarantine", "show", row["id"]).stdout
        assert shown.count("@d1.example") >= 2 and "64 31 2e 65 78 61" in shown
        assert "chosen by record" in engine.run("queue", "quarantine", "-t", "u*", status=2).stderr
        assert "no such action" in engine.run("queue", "quarantine", "prge", status=2).stderr

        where = engine.dir / "damaged"
        engine.run("queue", "quarantine", "export", "--to", where)
        assert len(lines((where / "records.jsonl").read_text())) == 2
        assert b"d1.example\0" in (where / f"{name}.key").read_bytes()
        assert b"@d1.example" in (where / f"{name}.value").read_bytes()
        assert b"iello 5" in (where / f"{row['id']}.content").read_bytes()
        assert len(list(where.iterdir())) == 6

        assert "--all" in engine.run("queue", "quarantine", "purge", status=2).stderr
        assert "--yes" in engine.run("queue", "quarantine", "purge", "--all", status=2).stderr
        done = engine.run("queue", "quarantine", "purge", name)
        assert done.stdout == "1 damaged record purged\n", done.stdout
        done = engine.run("queue", "quarantine", "purge", name, status=1)
        assert done.stdout == "no damaged record matches\n", done
        engine.run("queue", "quarantine", "purge", "d1.example", "-y")
        assert engine.run("queue", "quarantine", "--json").stdout == ""
        ended = engine.wait_records("AdminBounce", 2)
        assert {r["recipient"] for r in ended} == {"u5@d1.example", "v5@d1.example"}
        assert all(r["id"] == row["id"] and r["response"]["code"] == 551 for r in ended)
        status = engine.status()["queue"]
        assert status["quarantined"] == 0 and status["messages"] == 19, status


def test_plan():
    """The plan begins on the sending day of its zone and fits the terminal, and ends where nothing changes."""
    temp = TempDir()
    file = temp.path / "hayauma.yaml"

    def configure(**warmup):
        warmup["sources"] = {"new": {}}
        file.write_text(json.dumps({"sources": {"new": {"ipv4": "192.0.2.11"}}, "warmup": warmup}))
        return ("warmup", "plan", "-c", file)

    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):  # 25 hours apart
        for _ in range(2):  # midnight may come between
            day = str(datetime.now(ZoneInfo(zone)).date())
            first = lines(run(*configure(time_zone=zone), "--json").stdout)[0]["day"]
            if first == day:
                break
        assert first == day, (zone, first, day)
    for columns in (80, 200):
        said = on_terminal(*configure(), "--list", "300k", columns=columns)[1].splitlines()
        wide = [len(line) for line in said if "#" in line]
        assert 60 < max(wide) <= columns and min(wide) < max(wide) - 5, (columns, said)
    said = run(*configure(providers={"google": {"promote": False}}), "--volume", "10k").stdout
    assert "no cap changes behind day 32: a pause" in said and "never reached" in said, said[-400:]
    temp.close()


def test_asked_in_another_way():
    """What people ask first, and the commands do not have: the answer leads on, and is not a wrong one."""
    said = run("why", "a@d1.example", status=2).stderr
    assert "'hayauma why d1.example'" in said and "--recipient a@d1.example" in said, said
    for theirs, ours in (("delete", "cancel"), ("retry", "flush"), ("ls", "list")):
        assert f"here it is '{ours}'" in run("queue", theirs, "d1.example", status=2).stderr
    for theirs, ours in (("top", "status"), ("flush", "queue flush"), ("mailq", "queue list")):
        assert f"here it is 'hayauma {ours}'\n" in run(theirs, status=2).stderr
    if not os.path.exists("/etc/hayauma/hayauma.yaml"):  # no file is no mistake, as for rules
        assert "no source is being warmed up" in run("warmup", "plan", status=1).stderr
    unusual = "421 4.7.28 Our system has detected an unusual rate of mail originating from your IP address"
    temp = TempDir()
    directory = temp.path
    file = directory / "hayauma.yaml"
    file.write_text("host_name: mx1.example.com\n")
    said = run("rules", unusual, "-c", file, status=1).stderr
    assert "of no known provider" in said and "google (google-source)" in said, said
    said = run("rules", unusual, "-c", file, "--provider", "gogle", status=2).stderr
    assert "no provider 'gogle'; did you mean 'google'?" in said, said
    assert "google-source" in run("rules", unusual, "-c", file, "--provider", "google").stdout
    said = run("rules", "421 4.7.28 Gmail has detected an unusual rate of email.", "-c", file,
               "--provider", "google").stdout
    assert "google-rate " in said and "suspend source and domains 10m" in said, said
    assert run("rules", "499 4.9.9 nobody says this", "-c", file, status=1).stderr == "no rule reads it\n"
    taken = directory / "taken"
    taken.write_text("")
    file.write_text(json.dumps({"queue": {"path": f"{taken}/q"}, "records": {"path": str(directory)},
                                "control_socket": f"{directory}/s",
                                "listeners": [{"listen": f"unix:{directory}/l"}]}))
    said = run("serve", "-c", file, status=1).stderr
    assert "the queue directory cannot be made: check the path and its owner (Not a directory)" in said, said
    with Engine() as engine:
        done = run("queue", "suspend", "--site", "gmail.com", "-c", engine.file)
        assert "no site has this name now" in done.stderr, done
        engine.run_ok("queue", "resume", "--site", "gmail.com")


def test_reload():
    with Engine() as engine:
        assert engine.run_ok("reload") == "configuration applied\n"
        other = engine.file.with_name("other.yaml")  # names the same socket, and is not what the engine reads
        other.write_text(engine.file.read_text())
        done = run("reload", "-c", other)
        assert done.stdout == "configuration applied\n" and f"not {other}" in done.stderr, done
        engine.config["workers"] = 3
        engine.config["log_level"] = "debug"
        engine.file.write_text(json.dumps(engine.config))
        for _ in range(2):  # it is still so the second time
            assert "not applied: workers:" in engine.run_ok("reload")
        engine.file.write_text(json.dumps({**engine.config, "lisen": 1}))
        socket = engine.config["control_socket"]
        done = run("reload", "--socket", socket, status=1)
        assert "unknown key 'lisen'" in done.stderr and "nothing was changed" in done.stderr
        # A file that was just spoilt does not put its engine out of reach.
        done = run("reload", "-c", engine.file, status=1)
        assert "unknown key 'lisen'" in done.stderr and "nothing was changed" in done.stderr
        assert "pid" in engine.run_ok("status", "--once")
        # Who names a file gets the engine of that file, or none.
        engine.file.write_text(json.dumps({"control_sockt": socket}))
        for command in ("reload", "status", "stop"):
            done = run(command, "-c", engine.file, status=2, env={"HAYAUMA_SOCKET": socket})
            assert f"{engine.file}:1:3: unknown key 'control_sockt'" in done.stderr, done.stderr
        for nothing in "# nothing\n", "":  # its defaults would send mail round every route
            engine.file.write_text(nothing)
            done = run("reload", "--socket", socket, status=1)
            assert "no key in it" in done.stderr and "nothing was changed" in done.stderr, done
        engine.file.write_text('{"lisen": ')
        done = run("status", "-c", engine.file, status=2)
        assert "YAML" in done.stderr and "use --socket" in done.stderr


def test_open_relay():
    """It is warned of at the start and at a reload."""
    engine = Engine()
    engine.config["listeners"].append(
        {"listen": f"0.0.0.0:{free_port()}", "relay_networks": ["::/0"]})
    with engine:
        log = engine.log()
        assert log.count("level=warn event=serve.config ") == 1 and "anybody may relay" in log, log
        engine.run_ok("reload")
        assert engine.log().count("anybody may relay") == 2


def test_reload_keeps_names():
    """A name that needs a restart is not changed here and there before it."""
    with Fed() as engine:
        engine.config["host_name"] = "two.test"
        engine.config["listeners"][0]["errors_max"] = 7
        engine.config["queue"]["shards"] = 7
        engine.file.write_text(json.dumps(engine.config))
        said = engine.run_ok("reload")
        assert "not applied: host_name: mta.sender.example -> two.test needs a restart" in said, said
        assert re.search(r"queue\.shards: \S+ -> 7 needs a new queue", said), said
        status = engine.status()
        assert (status["host_name"], status["node_id"]) == ("mta.sender.example",) * 2, status
        with smtplib.SMTP(engine.host, engine.port) as smtp:
            assert b"mta.sender.example" in smtp.ehlo()[1]
            smtp.sendmail("a@sender.example", ["u@d9.example"], "Subject: 9\r\n\r\nx\r\n")
        record = engine.wait_records("Reception", 21)[-1]
        assert record["nodeid"] == "mta.sender.example", record
        assert "two.test" not in engine.run("queue", "export", record["id"]).stdout
        engine.process.stop()
        Engine.start(engine)
        assert engine.status()["host_name"] == "two.test"


def test_reload_of_a_route():
    """The first attempt behind it takes the new route."""
    with Fed() as engine, Sink() as sink:
        tried = len(engine.records("TransientFailure"))
        engine.config["routes"]["*"] = f"[127.0.0.1]:{sink.port}"
        engine.file.write_text(json.dumps(engine.config))
        engine.run_ok("reload")
        engine.run("queue", "flush", "--all")
        engine.wait_records("Delivery", 40)
        assert len(engine.records("TransientFailure")) == tried


def test_reload_to_reject():
    """What is queued for a domain whose route now rejects ends by our word, not by the domain's."""
    with Fed() as engine:
        engine.config["routes"]["d0.example"] = "reject"
        engine.file.write_text(json.dumps(engine.config))
        engine.run_ok("reload")
        engine.run("queue", "flush", "--all")
        for record in engine.wait_records("Bounce", 10):
            response = record["response"]
            assert record["recipient"].endswith("@d0.example") and response["code"] == 550, record
            assert "our configuration rejects" in response["content"], record
            assert record["bounce_classification"] == "PolicyRelated" and not response["command"]
        notices = [r for r in engine.records("Reception") if r["reception_protocol"] == "internal"]
        assert len(notices) == 10
        for record in notices:  # one recipient: it is named (docs/records.md)
            assert (record["sender"], record["queue"]) == ("", "sender.example"), record
            assert record["recipient"].endswith("@sender.example"), record


def test_terminal():
    with Fed() as engine:
        status, output = on_terminal("status", "-i", "100ms", "-c", engine.file, until=b"d3.example",
                                     stop=signal.SIGINT)
        assert status == 0, output
        assert output.startswith("\x1b[?1049h") and output.endswith("\x1b[?1049l")
        status, output = on_terminal("status", "-c", engine.file, until=b"DESTINATION",
                                     stop=signal.SIGTERM)
        assert status == 0 and output.endswith("\x1b[?1049l")

        shown, restarted = threading.Event(), threading.Event()

        def interrupt(pid):
            shown.set()
            restarted.wait(30)
            time.sleep(1)
            os.kill(pid, signal.SIGINT)

        with ThreadPoolExecutor() as pool:  # over a restart it stays, and shows the new engine
            live = pool.submit(on_terminal, "status", "-i", "100ms", "-c", engine.file, until=b"d3.example",
                               act=interrupt)
            shown.wait(30)
            engine.kill()
            time.sleep(0.5)
            Engine.start(engine)
            restarted.set()
            status, output = live.result()
        assert status == 0 and "NO ANSWER from the engine for 0s" in output, output
        last = output.rpartition("\x1b[H")[2]
        assert "NO ANSWER" not in last and f"pid {engine.process.child.pid}, up" in last, last


def test_output_lost():
    """Whoever sees exit 0 has all of the output: each command that prints says when it could not."""
    with Fed() as engine, Sink() as sink, open("/dev/full", "wb") as full:
        at, message = ("-c", engine.file), TREE / "docs/examples/hayauma.yaml"
        row = lines(engine.run_ok("queue", "list", "--json"))[0]
        commands = [("help",), ("--version",), ("version",), ("version", "--json"),
                    ("queue", "list", *at), ("queue", "list", "--json", *at), ("queue", "summary", *at),
                    ("queue", "show", row["id"], *at),
                    ("queue", "hold", row["id"], *at),
                    ("status", *at), ("status", "--json", *at), ("reload", *at),
                    ("config", "check", engine.file), ("config", "show", engine.file),
                    ("config", "docs"), ("queue", "export", row["id"], *at),
                    ("send", "--server", f"127.0.0.1:{engine.port}", "--from", "a@b.example",
                     "c@d.example", "--subject", "x", "--text", message),
                    ("source", "--to", f"127.0.0.1:{sink.port}", "--messages", "1")]
        commands += [(name, "--help") for name in
                     re.findall(r"^  (\w+)  ", run("--help").stdout, flags=re.M)]
        for command in commands + [("stop", *at)]:
            done = subprocess.run([program(), *map(str, command)], stdout=full,
                                  stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                                  timeout=60, check=False)
            assert done.returncode == 1, (command, done.returncode, done.stderr)
            assert "could not be written" in done.stderr, (command, done.stderr)
        assert engine.process.wait(30) == 0


def test_stop():
    engine = Engine().start()
    # By itself, whatever starts it: no thread may gain privileges by a program it starts.
    for thread in pathlib.Path(f"/proc/{engine.process.child.pid}/task").iterdir():
        assert "\nNoNewPrivs:\t1\n" in (thread / "status").read_text(), thread
    assert run("stop", "-c", engine.file).stdout == "stopped\n"
    assert engine.process.wait(30) == 0
    assert not pathlib.Path(engine.config["control_socket"]).exists()
    run("stop", "-c", engine.file, status=3)


def test_pipe_closed():
    """A reader that goes away ends the command, without a word."""
    with Fed() as engine:
        done = subprocess.run(f"'{program()}' queue list -c '{engine.file}' | head -n 1", shell=True,
                              capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout.startswith("MESSAGE") and "Broken" not in done.stderr


Engine.run_ok = lambda self, *arguments: run(*arguments, "-c", self.file).stdout


if __name__ == "__main__":
    talk.run(globals())
