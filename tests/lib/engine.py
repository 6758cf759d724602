"""The engine and its sink as processes of a test."""

import json
import os
import pathlib
import pwd
import signal
import socket
import subprocess
import threading

from proc import Failure, Process, TempDir, free_port, wait_port, wait_until

TREE = pathlib.Path(__file__).resolve().parent.parent.parent


def named(variable):
    """The executable that an environment variable names; nothing in its place: that would test another build."""
    wanted = os.environ.get(variable)
    if wanted and (not os.access(wanted, os.X_OK) or not pathlib.Path(wanted).is_file()):
        raise Failure(f"{variable}={wanted} is no program")
    return pathlib.Path(wanted) if wanted else None


def program():
    """The executable under test: $HAYAUMA, else the release build, else the dev build."""
    if wanted := named("HAYAUMA"):
        return wanted
    for path in (TREE / "build/release/bin/hayauma", TREE / "build/dev/bin/hayauma"):
        if path.exists():
            return path
    raise Failure("no hayauma executable; build one or set HAYAUMA")


def beside():
    """What asks the engine under test and stands for its peers: $HAYAUMA_BESIDE, else the program under test.
    tools/test names a plain build where that is one with a sanitizer, in which a command takes a third of a
    second of CPU. Tests of commands and of the sink run these under the sanitizer (only_program())."""
    return named("HAYAUMA_BESIDE") or program()


def only_program():
    """For a test whose subject is what others use: all of it is the program under test."""
    os.environ.pop("HAYAUMA_BESIDE", None)


def merge(base, extra):
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value
    return base


class Segment:
    """A file of event records. Each line is read once, however often a test looks."""

    def __init__(self, path):
        self.path, self.offset, self.found = path, 0, []
        self.lock = threading.Lock()

    def records(self):
        with self.lock:
            return self.read()

    def read(self):
        if self.path.suffix == ".zst":  # it has ended
            if not self.found:
                text = subprocess.run(["zstd", "-dcq", self.path], capture_output=True, check=True).stdout
                self.found = [json.loads(line) for line in text.splitlines()]
            return self.found
        with open(self.path, "rb") as file:
            if file.seek(0, os.SEEK_END) < self.offset:  # another one of its name
                self.offset, self.found = 0, []
            file.seek(self.offset)
            whole = file.read().rpartition(b"\n")[0]  # the last line may be half written
        if whole:
            self.offset += len(whole) + 1
            self.found += [json.loads(line) for line in whole.decode().split("\n")]
        return self.found


class Engine:
    """`hayauma serve` with one listener on loopback; settings are merged over the configuration,
    which is written as JSON, YAML's subset."""

    prefix = ()  # a command in front, such as prlimit
    arguments = ()  # further ones of serve
    env = None  # variables to add

    def __init__(self, settings=None, host="127.0.0.1", directory=None):
        self.temp = None
        if directory is None:
            self.temp = TempDir("hayauma-engine-")
            directory = self.temp.path
        self.dir = pathlib.Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.host, self.port = host, free_port((host,))
        self.config = merge({
            "host_name": "mta.sender.example",
            "control_socket": str(self.dir / "control.sock"),
            "queue": {"path": str(self.dir / "queue"), "map_size": "1GiB"},
            "records": {"path": str(self.dir / "records")},
            "dns": {"servers": ["127.0.0.1:1"], "ipv6": False},
            "listeners": [{"listen": f"{host}:{self.port}"}],
        }, settings or {})
        self.file = self.dir / "hayauma.yaml"
        self.process = None
        self.segments = {}

    def write_config(self):
        self.file.write_text(json.dumps(self.config, indent=2) + "\n")

    def start(self, timeout_s=60):
        self.write_config()
        self.process = Process([*self.prefix, program(), "serve", "-c", self.file, *self.arguments],
                               self.dir / "log", env=self.env)
        wait_port((self.host, self.port), self.process, timeout_s)
        wait_port(self.config["control_socket"], self.process, timeout_s)  # the last to open
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def stop(self, timeout_s=60):
        """A clean end, which must succeed."""
        if self.process:
            status = self.process.stop(timeout_s)
            if status != 0:
                raise Failure(f"hayauma serve ended with {status}:\n{self.process.tail()}")
            self.process = None
        if self.temp:
            self.temp.close()

    def kill(self):
        """As a crash: the queue stays for a start()."""
        self.process.send(signal.SIGKILL)
        self.process.child.wait()

    def command(self, *arguments, check=True):
        done = subprocess.run([beside(), *map(str, arguments), "-c", str(self.file)],
                              capture_output=True, text=True, timeout=60, check=False)
        if check and done.returncode != 0:
            raise Failure(f"hayauma {' '.join(map(str, arguments))}: {done.returncode}\n{done.stderr}")
        return done.stdout

    def status(self):
        """What `hayauma status --json` prints, from the control socket itself: tests ask often, and under a
        sanitizer a command takes a third of a second of CPU."""
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(60)
            try:
                channel.connect(self.config["control_socket"])
                channel.sendall(b'{"op":"status","destinations":1000}\n')
                return json.loads(channel.makefile("rb").readline())["status"]
            except (OSError, ValueError, KeyError) as why:
                raise Failure(f"status: {why!r}") from None

    def rows(self, *arguments):
        """What a command lists, an object a line."""
        return [json.loads(line) for line in self.command(*arguments, "--json").splitlines()]

    def reload(self):
        """With the configuration as it is now; what the command says."""
        self.write_config()
        return self.command("reload")

    def log(self):
        return (self.dir / "log").read_text(errors="replace")

    def records(self, kind=None, recipient=None):
        """All event records so far, or those of one type, or of one recipient."""
        found = []
        for path in sorted((self.dir / "records").glob("*")):
            found += self.segments.setdefault((path, path.stat().st_ino), Segment(path)).records()
        return [r for r in found if kind in (None, r["type"]) and recipient in (None, r.get("recipient"))]

    def wait_records(self, kind, count=1, timeout_s=30, recipient=None):
        def enough():
            found = self.records(kind, recipient)
            return found if len(found) >= count else None

        return wait_until(f"{count} {kind} records of {recipient or 'anybody'}", enough, timeout_s,
                          process=self.process)


class Example(Engine):
    """With the configuration of a page of docs/examples. replace: what stands in for what a real host has,
    such as addresses and paths; of the settings those are added that the page does not have."""

    def __init__(self, page, replace, settings=None, directory=None):
        super().__init__(settings, directory=directory)
        self.page = TREE / "docs/examples" / page
        self.replace = {"user: hayauma": f"user: {pwd.getpwuid(os.getuid()).pw_name}", **replace}

    def write_config(self):
        text = self.page.read_text()
        for old, new in self.replace.items():
            if old not in text:
                raise Failure(f"{self.page.name} has no {old}")
            text = text.replace(old, new)
        more = {key: value for key, value in self.config.items() if f"\n{key}:" not in text}
        self.file.write_text(text + "".join(f"{key}: {json.dumps(value)}\n" for key, value in more.items()))


class Sink:
    """`hayauma sink`: mail on host:port, DNS on dns_port, a ledger of what it took."""

    def __init__(self, behaviour=None, arguments=(), host="127.0.0.1", directory=None):
        self.temp = None
        if directory is None:
            self.temp = TempDir("hayauma-sink-")
            directory = self.temp.path
        self.dir = pathlib.Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.host, self.port, self.dns_port = host, free_port((host,)), free_port((host,))
        self.behaviour, self.arguments = behaviour, arguments
        self.ledger_file = self.dir / "ledger"
        self.process = None

    def start(self):
        argv = [beside(), "sink", "--listen", f"{self.host}:{self.port}", "--dns",
                f"{self.host}:{self.dns_port}", "--ledger", self.ledger_file, *self.arguments]
        if self.behaviour:
            argv += ["--behaviour", self.behaviour]
        self.process = Process(argv, self.dir / "sink.log")
        wait_port((self.host, self.port), self.process)
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """A clean end, which must succeed: a sanitizer's finding is the sink's exit status."""
        if self.process:
            process, self.process = self.process, None
            status = process.stop()
            if status != 0:
                raise Failure(f"hayauma sink ended with {status}:\n{process.tail()}")
        if self.temp:
            self.temp.close()

    def dns(self, **more):
        """`dns` of an engine whose mail is to come here."""
        return {"servers": [f"{self.host}:{self.dns_port}"], "port": self.port, **more}

    def ledger(self):
        """Rows of the ledger, as lists of fields."""
        try:
            lines = self.ledger_file.read_text().split("\n")[:-1]
        except FileNotFoundError:
            lines = []
        return [line.split("\t") for line in lines]
