#!/usr/bin/env python3
"""Keys of signatures: made, checked, refused, changed while mail flows, and seen by nobody.

keys.py [TEST...]"""

import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys

from setting import (CHUNKS, FULL, OLD, Engine, Keys, Process, Receiver, Skip, TempDir, World, free_port, hayauma,
                     peers, program, run, signatures, wait_until)

MAIL = b"From: A <a@%s>\r\nTo: u@x.example\r\nSubject: s\r\n\r\nhello\r\n"
LARGE = b"From: A <a@sender.example>\r\nSubject: large\r\n\r\n" + (b"x " * 38 + b"\r\n") * 70_000


def config_of(directory, **settings):
    file = directory / "some.yaml"
    file.write_text(json.dumps(settings))
    return file


def names(found):
    return [(s["d"], s["s"]) for s in found]


def test_keygen_and_check():
    """What keygen prints makes check say good; before, check says what to publish. No key is written
    over, and half a pair is not left."""
    temp = TempDir("hayauma-keygen-")
    keys = Keys(temp.path / "keys")
    printed = keys.make("sender.example")
    assert "dkim:" in printed and "hayauma dkim check sender.example" in printed
    files = sorted((temp.path / "keys").iterdir())
    assert [f.name for f in files] == ["sender.example.s1-ed25519.pem", "sender.example.s1-rsa.pem"]
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
    assert all(len(part) <= 255 for part in re.findall('"([^"]*)"', keys.zone))
    before = [f.read_bytes() for f in files]
    files[0].unlink()
    done = hayauma("dkim", "keygen", "sender.example", "--selector", "s1", "--directory", keys.dir,
                   status=1)
    assert b"File exists" in done.stderr and b"--selector" in done.stderr
    assert [f.name for f in keys.dir.iterdir()] == [files[1].name] and files[1].read_bytes() == before[1]
    files[0].write_bytes(before[0])
    files[0].chmod(0o600)
    zone = peers.Knot("".join(line for line in keys.zone.splitlines(True)) + "other A 127.0.0.1\n")
    why = peers.missing("dns")
    if why:
        raise Skip(why)
    with zone:
        config = config_of(temp.path, dkim={"keys": keys.rows},
                           dns={"servers": [f"127.0.0.1:{zone.port}"], "timeout": "2s"})
        wait_until("good keys", lambda: subprocess.run(
            [program(), "dkim", "check", "-c", config], capture_output=True, check=False,
            timeout=60).returncode == 0, 30, process=zone.process)
        said = hayauma("dkim", "check", "sender.example", "-c", config).stdout.decode()
        assert said.count(": good\n") == 2, said
        template, rows = temp.path / "letter.eml", temp.path / "list.csv"
        template.write_text("From: news@sender.example\nList-Unsubscribe: <mailto:x@sender.example>\n\nx\n")
        rows.write_text("email\na@x.example\n")
        checking = ("send", "--template", template, "--to", rows, "--check", "--config", config)
        assert b"DNS has them" in hayauma(*checking).stdout
        template.write_text("From: news@nosender.example\n\nx\n")
        assert b"nosender.example has no DKIM key" in hayauma(*checking, status=1).stderr
        assert b"has no key of" in hayauma("dkim", "check", "x.example", "-c", config, status=1).stderr
        # Where the configuration names the files, they go there.
        rows = [{"domain": "sender.example", "selector": f"s3-{kind}", "file": str(temp.path / "own" / f"{kind}.pem")}
                for kind in ("rsa", "ed25519")]
        named = config_of(temp.path, dkim={"keys": rows})
        printed = hayauma("dkim", "keygen", "sender.example", "--selector", "s3", "-c", named).stdout.decode()
        assert printed.count("has this key already") == 2 and "dkim:\n" not in printed, printed
        hayauma("config", "check", named)
        deep = temp.path / "no" / "such" / "keys"
        said = hayauma("dkim", "keygen", "sender.example", "--directory", deep, status=1).stderr
        assert b"make its directory first" in said, said
        keys.make("sender.example", "s2")
        config = config_of(temp.path, dkim={"keys": keys.rows}, dns={
            "servers": [f"127.0.0.1:{zone.port}"], "timeout": "2s"})
        said = hayauma("dkim", "check", "-c", config, status=1).stdout.decode()
        assert said.count(": not in DNS\n") == 2 and said.count("IN TXT (") == 2, said
        template.write_text("From: news@sender.example\n\nx\n")
        assert b": not in DNS; " in hayauma(*checking[:-1], config, status=1).stderr
        # Another's key under the name: as after a mistake in the zone.
        keys.rows[0]["file"], keys.rows[2]["file"] = keys.rows[2]["file"], keys.rows[0]["file"]
        config = config_of(temp.path, dkim={"keys": keys.rows[:2]}, dns={
            "servers": [f"127.0.0.1:{zone.port}"], "timeout": "2s"})
        said = hayauma("dkim", "check", "-c", config, status=1).stdout.decode()
        assert ": of another key\n" in said, said
    config = config_of(temp.path, dkim={"keys": keys.rows[:1]}, dns={
        "servers": [f"127.0.0.1:{free_port()}"], "timeout": "100ms", "tries": 1})
    assert b"could not be looked up" in hayauma("dkim", "check", "-c", config, status=1).stdout


def test_dry_run():
    """`dkim sign` prints what would go out."""
    temp = TempDir("hayauma-dry-")
    keys = Keys(temp.path / "keys")
    keys.make("sender.example")
    config = config_of(temp.path, dkim={"keys": keys.rows})
    mail = MAIL % b"sender.example"
    out = hayauma("dkim", "sign", "-c", config, text=mail.replace(b"\r\n", b"\n")).stdout
    assert out.endswith(mail) and len(signatures(out)) == 2, out
    done = hayauma("dkim", "sign", "-c", config, text=MAIL % b"other.example", status=1)
    assert b"no key signs mail from other.example" in done.stderr
    assert b"stdin is no message" in hayauma("dkim", "sign", "-c", config, text=b"", status=1).stderr


def test_refused_files():
    """A key that others can read starts nothing and changes nothing, and the words say what to do."""
    temp = TempDir("hayauma-loose-")
    keys = Keys(temp.path / "keys")
    keys.make("sender.example")
    key = temp.path / "keys/sender.example.s1-rsa.pem"
    config = config_of(temp.path, dkim={"keys": keys.rows}, queue={"path": str(temp.path / "q")},
                       records={"path": "none"}, control_socket=str(temp.path / "c"),
                       listeners=[{"listen": f"127.0.0.1:{free_port()}"}])
    hayauma("config", "check", config)
    for mode in (0o644, 0o660, 0o604):
        key.chmod(mode)
        for done in (hayauma("config", "check", config, status=1),
                     hayauma("serve", "-c", config, status=78)):
            assert b"can be used by others than its owner; chmod 600 it" in done.stderr, done.stderr
            assert f"{config}:1: dkim.keys: {key}".encode() in done.stderr, done.stderr
    key.chmod(0o600)
    receiver = Receiver(FULL)
    world = World({"full": receiver}, {}, keys)
    key.chmod(0o644)
    done = subprocess.run([program(), "reload", "-c", world.engine.file], capture_output=True,
                          check=False, timeout=60)
    assert done.returncode == 1 and b"chmod 600" in done.stdout + done.stderr, done
    world.send(MAIL % b"sender.example", "u@full.example")
    assert len(signatures(world.wait("full", 1)[0][1])) == 2
    key.unlink()  # as long as the engine has it, it signs
    world.send(MAIL % b"sender.example", "v@full.example")
    assert len(signatures(world.wait("full", 2)[1][1])) == 2
    world.finish()


def test_who_signs():
    """The author's domain, one above that signs for it, the default, and the platform besides. Records
    say who; the sender of the envelope does not matter."""
    temp = TempDir("hayauma-who-")
    keys = Keys(temp.path / "keys")
    keys.make("sender.example")
    keys.make("up.example", kinds=("rsa",), subdomains=True)
    keys.make("fallback.example", kinds=("ed25519",))
    keys.make("platform.example", kinds=("rsa",))
    world = World({"full": Receiver(FULL)}, {"platform": "platform.example"}, keys)
    platform = ("platform.example", "s1-rsa")
    cases = {"sender.example": [("sender.example", "s1-rsa"), platform, ("sender.example", "s1-ed25519")],
             "sub.sender.example": [platform],
             "a.b.up.example": [("up.example", "s1-rsa"), platform],
             "other.example": [platform]}
    for i, (author, want) in enumerate(cases.items()):
        world.send(MAIL % author.encode(), f"u{i}@full.example", sender="x@elsewhere.example")
        content = world.wait("full", i + 1)[i][1]
        assert names(signatures(content)) == want, (author, signatures(content))
        assert world.engine.wait_records("Delivery", recipient=f"u{i}@full.example")[0]["dkim"] == [
            f"{s}._domainkey.{d}" for d, s in want]
    # Without a platform but with a default; then with neither.
    for i, (dkim, want) in enumerate((
            ({"default": "fallback.example"}, [("fallback.example", "s1-ed25519")]), ({}, []))):
        world.engine.config["dkim"] = {"keys": keys.rows, **dkim}
        world.engine.reload()
        world.send(MAIL % b"other.example", f"w{i}@full.example")
        content = world.wait("full", 5 + i)[4 + i][1]
        assert names(signatures(content)) == want, signatures(content)
    assert "dkim" not in world.engine.wait_records("Delivery", recipient="w1@full.example")[0]
    world.finish()


def test_rotation():
    """New keys sign from the reload on, mail that waits too; the old ones sign nothing more."""
    temp = TempDir("hayauma-rotate-")
    keys = Keys(temp.path / "keys")
    keys.make("sender.example", "old")
    closed = free_port()
    world = World({"full": Receiver(FULL)}, {}, keys, {"routes": {"later.example": f"[127.0.0.1]:{closed}"}})
    world.send(MAIL % b"sender.example", "u@full.example", "w@later.example")
    assert {s["s"] for s in signatures(world.wait("full", 1)[0][1])} == {"old-rsa", "old-ed25519"}
    keys.rows = []
    keys.make("sender.example", "new")
    world.engine.config["dkim"]["keys"] = keys.rows
    world.engine.config["routes"]["later.example"] = world.engine.config["routes"]["full.example"]
    world.engine.reload()
    later = world.wait("full", 2)[1]
    assert later[0] == ["w@later.example"], later
    assert {s["s"] for s in signatures(later[1])} == {"new-rsa", "new-ed25519"}
    world.finish()


def test_once_for_all():
    """A content is signed once in each worker, whatever the number of its recipients and transactions;
    all get the same bytes."""
    temp = TempDir("hayauma-once-")
    keys = Keys(temp.path / "keys")
    keys.make("sender.example")
    world = World({"one": Receiver(FULL), "two": Receiver(CHUNKS)}, {}, keys, {
        "destinations": {"*": {"recipients_max": 1, "retry": ["1s"], "lifetime": "10m"}}})
    everyone = [f"u{i}@{name}.example" for i in range(40) for name in ("one", "two")]
    world.send(MAIL % b"sender.example", *everyone)
    contents = {t[1] for name in ("one", "two") for t in world.wait(name, 40)}
    assert len(contents) <= 2, len(contents)
    assert 1 <= world.counters()["signed_messages"] <= 2, world.counters()
    world.finish()


def test_peers_that_go():
    """Peers that hang up while a large message is being signed, and a stop in the midst of it: each
    message arrives once, signed."""
    temp = TempDir("hayauma-go-")
    keys = Keys(temp.path / "keys")
    keys.make("sender.example")
    gone = []

    def hang_up(verb, peer):
        if verb == "EHLO" and len(gone) < 4:
            gone.append(verb)
            peer.sendall(b"250 peer.example\r\n")
            raise OSError
    receiver = Receiver(FULL, hang_up)
    world = World({"full": receiver}, {}, keys)
    for i in range(6):
        world.send(LARGE, f"u{i}@full.example")
    status = world.engine.process.stop(60)
    assert status == 0, (status, world.engine.process.tail(60))
    world.engine.start()
    world.wait("full", 6, 90)
    assert len(world.engine.wait_records("Delivery", 6)) == 6
    assert sorted(t[0][0] for t in receiver.taken) == [f"u{i}@full.example" for i in range(6)]
    assert all(len(signatures(t[1])) == 2 and t[1].endswith(LARGE[-1000:]) for t in receiver.taken)
    assert world.counters()["sign_failures"] == 0
    world.finish()


def test_nothing_of_a_key():
    """No line of a key's file, and none of its bytes in hex or base64, in logs (all of them), records,
    answers of the control socket or printed configurations."""
    temp = TempDir("hayauma-canary-")
    keys = Keys(temp.path / "keys")
    keys.make("sender.example")
    receiver = Receiver(OLD)
    world = World({"full": receiver}, {}, keys)
    world.send(MAIL % b"sender.example", "u@full.example")
    world.send(MAIL % b"sender.example", "u@nowhere.example")
    world.wait("full", 1)
    said = "".join(world.engine.command(*c) for c in (
        ("status", "--json"), ("queue", "list", "--json"), ("config", "show"), ("config", "check"),
        ("reload",)))
    pid = world.engine.process.pid
    listing = open(f"/proc/{pid}/cmdline", "rb").read() + open(f"/proc/{pid}/environ", "rb").read()
    world.finish()
    files = [f for f in world.temp.path.rglob("*") if f.is_file() and "queue" not in f.parts[-2:]]
    everything = said.encode() + listing + b"".join(f.read_bytes() for f in files)
    assert b"s1-rsa" in everything  # it looks at the right place
    for row in keys.rows:
        text = open(row["file"], "rb").read()
        lines = [line for line in text.split(b"\n") if line and not line.startswith(b"-----")]
        assert len(lines) >= 1
        for line in lines:
            assert line not in everything, line
            for part in (line[i:i + 24] for i in range(0, len(line) - 24, 4)):
                assert part not in everything, part
    assert b"PRIVATE KEY" not in everything


class Cores:
    """A directory where whoever is started within leaves its core dump."""

    def __enter__(self):
        pattern = open("/proc/sys/kernel/core_pattern", encoding="ascii").read().strip()
        if pattern.startswith(("|", "/")):
            raise Skip(f"cores go to {pattern}")
        self.temp, self.here = TempDir("hayauma-core-"), os.getcwd()
        self.limit = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, self.limit[1]))
        os.chdir(self.temp.path)
        subprocess.run([sys.executable, "-c", "import os; os.abort()"], check=False)
        if not self.found():
            self.__exit__()
            raise Skip("this machine writes no cores")
        for core in self.found():
            core.unlink()
        return self

    def found(self):
        return list(self.temp.path.glob("core*"))

    def __exit__(self, *_):
        os.chdir(self.here)
        resource.setrlimit(resource.RLIMIT_CORE, self.limit)


def test_no_core():
    """An engine leaves no core dump behind, with signing keys or without: there are others in its memory,
    and mail."""
    with Cores() as cores:
        engine = Engine(directory=cores.temp.path / "e")
        engine.start()
        engine.process.send(signal.SIGQUIT)
        engine.process.wait()
        assert not cores.found(), cores.found()


def writing(fifo):
    """Its writing end, once somebody reads it."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_no_core_of_a_start():
    """Nor while it reads what it was started with: keys and passwords come with that."""
    with Cores() as cores:
        file = cores.temp.path / "hayauma.yaml"
        os.mkfifo(file)
        starting = Process([program(), "serve", "-c", file], cores.temp.path / "log")
        writer = wait_until("an engine that reads", lambda: writing(file), process=starting)
        starting.send(signal.SIGQUIT)  # while it waits for what we do not write
        assert starting.wait() == -signal.SIGQUIT
        os.close(writer)
        assert not cores.found(), cores.found()


if __name__ == "__main__":
    run(globals())
