#!/usr/bin/env python3
"""Runs the commands of the documents: every console block under a line <!-- run -->, page by page,
against an engine and a sink on loopback. Usage: runnable.py [PAGE...]

Lines that begin with "$ " are run by a shell and must succeed; the lines below one are what it prints,
where … stands for anything. Documents say what is true of a real host, so here its paths lead into the
test's directory, sudo is nothing, systemctl and the default port are stood in for by small programs."""

import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from authority import Authority  # noqa: E402
from engine import TREE, Sink, program  # noqa: E402
from proc import Failure, TempDir, free_port, wait_port, wait_until  # noqa: E402

MARK = "<!-- run -->"
PAGES = [TREE / "README.md", TREE / "README.ja.md", *sorted((TREE / "docs").glob("*.md"))]
MUST_RUN = {"README.md": 8, "README.ja.md": 4, "manual.md": 20, "from-postfix.md": 5, "source.md": 3}
ASKS = re.compile(r"(sudo )?(hayauma (queue (list|summary|count)|status)|sh -c '(tail|grep) )")

HAYAUMA = """#!/bin/sh
# Port 25 of the documents is {port} here.
command=$1; shift
case $command in
send) set -- --server 127.0.0.1:{port} "$@" ;;
sink) set -- --dns 127.0.0.1:{dns} "$@" ;;
esac
case $command in
config) # the file's default place
    verb=$1; shift
    [ $# -gt 0 ] || [ "$verb" = docs ] || set -- {etc}/hayauma.yaml
    set -- "$verb" "$@" ;;
serve) case $* in *-c*) ;; *) set -- -c {etc}/hayauma.yaml ;; esac ;;
esac
exec {program} "$command" "$@"
"""
SYSTEMCTL = """#!/bin/sh
# What systemd does with docs/examples/hayauma.service, as far as the documents go.
start() {{
    hayauma serve >>{dir}/journal 2>&1 & echo $! >{dir}/pid
    for _ in $(seq 100); do [ -S {run}/control.sock ] && return 0; sleep 0.05; done
    return 1
}}
case $1 in
start) start ;;
stop) hayauma stop >/dev/null ;;
restart) hayauma stop >/dev/null && start ;;
reload) hayauma reload >>{dir}/journal ;;
*) exit 64 ;;
esac
"""


def blocks(page):
    """(line number, text) of the console blocks under MARK."""
    lines = page.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines):
        if line.strip() != MARK:
            continue
        if number + 1 >= len(lines) or lines[number + 1].strip() != "```console":
            raise Failure(f"{page.name}:{number + 1}: no console block under {MARK}")
        end = lines.index("```", number + 2)
        yield number + 3, "\n".join(lines[number + 2:end])


def commands(block):
    """[command, expected output] of a block."""
    found = []
    for line in block.replace("\\\n", "").split("\n"):
        if line.startswith("$ "):
            found.append([line[2:], []])
        elif found:
            found[-1][1].append(line)
        else:
            raise Failure(f"output before the first command: {line!r}")
    return [(command, "\n".join(expected)) for command, expected in found]


def matches(expected, printed):
    """Whether printed is what a document says: … is anything, runs of spaces are equal."""
    pieces = [r"\s+".join(re.escape(word) for word in piece.split(" ") if word)
              for piece in re.sub(r"\s+", " ", expected.strip()).split("…")]
    return re.fullmatch(r"\s*" + r"[\s\S]*".join(pieces) + r"\s*", printed) is not None


def ended(pid):
    """Whether pid is gone, or waits only for a parent that does not look."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Host:
    """A directory that stands in for the host of the documents, its smarthost being a sink."""

    def __init__(self):
        self.temp = TempDir("hayauma-docs-")
        self.dir = self.temp.path
        self.at = {name: self.dir / name for name in ("etc", "run", "lib", "log", "bin", "work")}
        for path in self.at.values():
            path.mkdir()
        chain, key = Authority(self.dir / "authority").self_signed("relay.example.com")
        self.port = free_port()
        self.sink = Sink(directory=self.dir / "sink",
                         arguments=["--tls-certificate", chain, "--tls-key", key])
        self.env = {**os.environ, "PATH": f"{self.at['bin']}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8",
                    "HAYAUMA_SOCKET": str(self.at["run"] / "control.sock")}
        self.replace = {"/etc/hayauma": self.at["etc"], "/run/hayauma": self.at["run"],
                        "/var/lib/hayauma": self.at["lib"], "/var/log/hayauma": self.at["log"],
                        "127.0.0.1:25 ": f"127.0.0.1:{self.port} ", "sudo -u hayauma ": "",
                        "sudo ": ""}
        self.write()

    def write(self):
        values = {"port": self.port, "dns": free_port(), "program": program(), "dir": self.dir, **self.at}
        for name, text in (("hayauma", HAYAUMA), ("systemctl", SYSTEMCTL)):
            path = self.at["bin"] / name
            path.write_text(text.format(**values))
            path.chmod(0o755)
        example = (TREE / "docs/examples/smarthost.yaml").read_text()
        for old, new in (("127.0.0.1:25", f"127.0.0.1:{self.port}"),
                         ("[relay.example.com]:25", f"[127.0.0.1]:{self.sink.port}"),
                         ("/etc/hayauma", str(self.at["etc"])),
                         ("user: hayauma", f"user: {pwd.getpwuid(os.getuid()).pw_name}")):
            if old not in example:
                raise Failure(f"docs/examples/smarthost.yaml has no {old}")
            example = example.replace(old, new)
        (self.at["etc"] / "hayauma.yaml").write_text(
            f"{example}\nqueue: {{path: {self.at['lib']}/queue}}\nrecords: {{path: {self.at['log']}}}\n"
            f"control_socket: {self.at['run']}/control.sock\n")
        made = self.shell("hayauma dkim keygen example.com --selector s1 --directory /etc/hayauma/dkim "
                          "-c /etc/hayauma/hayauma.yaml")
        if made.returncode != 0:
            raise Failure(made.stdout)

    def shell(self, command):
        for old, new in self.replace.items():
            command = command.replace(old, str(new))
        return subprocess.run(["bash", "-c", command], cwd=self.at["work"], env=self.env, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=30, check=False)

    def run(self, command, expected):
        """Delivery takes its moment: an answer that does not match is asked for again. Only what
        changes nothing may be repeated."""
        for attempt in range(30):
            done = self.shell(command)
            for old, new in self.replace.items():
                if old.startswith("/"):
                    done.stdout = done.stdout.replace(str(new), old)
            good = done.returncode == 0 and (not expected or matches(expected, done.stdout))
            if good or not ASKS.match(command):
                break
            time.sleep(0.1 + attempt / 50)
        return good, done

    def __enter__(self):
        self.sink.start()
        started = self.shell("systemctl start hayauma")
        if started.returncode != 0:
            raise Failure((self.dir / "journal").read_text() + started.stdout)
        wait_port(str(self.at["run"] / "control.sock"))
        return self

    def __exit__(self, *_):
        self.shell("hayauma stop")
        pid = int((self.dir / "pid").read_text())
        try:
            wait_until("the engine to end", lambda: ended(pid))
        except Failure:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            self.sink.stop()
            self.temp.close()


def check_page(page):
    """Runs its blocks in order; returns how many commands ran."""
    ran = 0
    found = list(blocks(page))
    if not found:
        return 0
    with Host() as host:
        for line, block in found:
            for command, expected in commands(block):
                good, done = host.run(command, expected)
                if not good:
                    raise Failure(f"{page.name}, block at line {line}: $ {command}\nended with "
                                  f"{done.returncode} and printed\n{done.stdout}\ninstead of\n{expected}")
                ran += 1
    return ran


def check_unit():
    """systemd finds nothing wrong with the unit, and little exposed, where it is installed."""
    verify = shutil.which("systemd-analyze")
    unit = (TREE / "docs/examples/hayauma.service").read_text()
    for command in re.findall(r"^Exec\w+=/usr/local/bin/hayauma (\w+)", unit, re.M):
        subprocess.run([program(), command, "--help"], stdout=subprocess.DEVNULL, check=True)
    if verify is None:
        return
    temp = TempDir("hayauma-unit-")
    file = temp.path / "hayauma.service"
    file.write_text(unit.replace("/usr/local/bin/hayauma", str(program())))
    done = subprocess.run([verify, "verify", file], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "hayauma.service" in line]
    temp.close()
    if said:
        raise Failure("\n".join(said))
    done = subprocess.run([verify, "security", "--offline=true", "--threshold=20", "--no-pager",
                           TREE / "docs/examples/hayauma.service"], capture_output=True, text=True, check=False)
    if done.returncode != 0 or "exposure level" not in done.stdout:  # above 2.0
        raise Failure(done.stdout[-300:] + done.stderr)


def main():
    wanted = [pathlib.Path(arg).resolve() for arg in sys.argv[1:]] or PAGES
    failed = 0
    for page in wanted:
        try:
            ran = check_page(page)
            if ran < MUST_RUN.get(page.name, 0):
                raise Failure(f"{page.name}: only {ran} commands are runnable; is its mark {MARK}?")
        except Failure as why:
            print(f"FAILED {why}")
            failed += 1
        else:
            print(f"{page.name}: {ran} commands")
    check_unit()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
