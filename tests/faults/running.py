#!/usr/bin/env python3
"""Starting, stopping, reloading, privileges, systemd.

running.py [TEST...]"""

import contextlib
import ctypes
import json
import os
import pathlib
import pwd
import signal
import socket
import subprocess
import time

from faults import (Books, Client, Engine, Failure, Process, Sink, Skip, TempDir, free_port,
                    program, queued, run, settings_for, wait_empty, wait_until)

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
WALL = 0x40000000  # waitpid(): threads too
IO_URING_ENTER = 426  # the number of the system call


def serve(engine, *arguments, env=None, prefix=(), timeout_s=20):
    """A start that must fail: its exit status and what it said."""
    engine.write_config()
    done = subprocess.run([*prefix, program(), "serve", "-c", engine.file, *arguments],
                          capture_output=True, text=True, timeout=timeout_s, check=False,
                          env={**os.environ, **(env or {})})
    return done.returncode, done.stdout + done.stderr


class Silent:
    """A server that accepts mail up to the dot, then says nothing until told to."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.peer = None

    def take(self):
        """Reads one message up to its dot, without answering that."""
        self.peer = self.listener.accept()[0]
        self.peer.settimeout(10)
        self.peer.sendall(b"220 silent.example ESMTP\r\n")
        text = b""
        answered = 0
        while True:
            text += self.peer.recv(65536)
            lines = text.split(b"\r\n")[:-1]
            if b"DATA" in lines and b"." in lines:
                return
            for line in lines[answered:]:
                if not line.startswith((b"EHLO", b"MAIL", b"RCPT", b"DATA")):
                    break
                self.peer.sendall(b"354 go\r\n" if line == b"DATA" else b"250 ok\r\n")
                answered += 1

    def close(self):
        if self.peer:
            self.peer.close()
        self.listener.close()


def test_second_start_on_the_same_queue():
    with Engine() as engine:
        second = Engine({"queue": {"path": engine.config["queue"]["path"]}})
        status, said = serve(second)
        assert status == 1 and engine.config["queue"]["path"] in said, said
        assert "another" in said or "in use" in said or "already" in said, said
        with Client(engine) as client:
            client.expect(client.message("u@d1.example"), 250)


def test_records_of_another_engine():
    """Their retention and compression would take each other's segments."""
    with Engine() as engine:
        path = engine.config["records"]["path"]
        status, said = serve(Engine({"records": {"path": path}}))
        assert status == 1 and "records.path" in said, said


def test_address_in_use():
    with Engine() as engine, socket.create_server(("127.0.0.1", 0)) as taken:
        second = Engine({"listeners": [{"listen": f"127.0.0.1:{taken.getsockname()[1]}"}]})
        status, said = serve(second)
        assert status == 1 and said.count("smtp.listen_failed") == 1, said
        assert str(taken.getsockname()[1]) in said and "ddress already in use" in said, said
        assert not (second.dir / "queue").exists(), "the queue was touched"
        assert engine.process.running()


def test_address_is_a_file():
    """What is there is somebody's; the log says what to do."""
    engine = Engine()
    file = engine.dir / "smtp.sock"
    file.write_text("precious")
    for path, what in ((file, "remove it"), (engine.dir / "none/smtp.sock", "make its directory")):
        status, said = serve(Engine({"listeners": [{"listen": f"unix:{path}"}]}))
        assert status == 1 and said.count("smtp.listen_failed") == 1 and what in said, said
    assert file.read_text() == "precious"
    engine.stop()


def test_address_of_another_engine():
    """SO_REUSEPORT would let two engines of one user take each other's clients."""
    with Engine() as engine:
        listen = engine.config["listeners"][0]["listen"]
        status, said = serve(Engine({"listeners": [{"listen": listen}]}))
        assert status == 1 and listen in said and "ddress already in use" in said, said
        assert "action=" in said, said
        assert f'listeners="{listen}"' in engine.log()


def test_what_cannot_be_opened():
    """Each in one line that names the file, and exit status 1; a user that there is not is a mistake in the
    configuration's."""
    engine = Engine()
    blocker = engine.dir / "file"
    blocker.write_text("")
    for setting in ("queue", "records"):
        other = Engine({setting: {"path": str(blocker / setting)}})
        status, said = serve(other)
        assert status == 1 and str(blocker / setting) in said and "memory" not in said, (setting, status, said)
    other = Engine({"control_socket": str(blocker / "control.sock")})
    status, said = serve(other)
    assert status == 1 and "control.sock" in said, said
    status, said = serve(Engine({"user": "no-such-user"}))
    assert status == 78 and "no-such-user" in said, said


def test_starts_that_say_what_to_change():
    """An address space without room for the map, a shard that is gone, a disk that is read-only."""
    engine = Engine({"queue": {"map_size": "64GiB", "shards": 2}})
    status, said = serve(engine, prefix=("prlimit", f"--as={8 << 30}"))
    if "Sanitizer" not in said:  # which wants more of it itself
        assert status == 1 and "queue.map_size" in said and "LimitAS" in said, said
    engine.start()
    engine.process.stop(20)
    data = engine.dir / "queue/shard-001/data.mdb"
    data.rename(engine.dir / "data.mdb")
    status, said = serve(engine)
    assert status == 1 and f"{data} is missing" in said, said
    (engine.dir / "data.mdb").rename(data)
    # The first shard says what the queue is: it is not made anew either.
    first = engine.dir / "queue/shard-000"
    first.rename(engine.dir / "first")
    status, said = serve(engine)
    assert status == 1 and f"{first}/data.mdb is missing" in said and not first.exists(), said
    (engine.dir / "first").rename(first)
    # A copy of a queue of more shards, unpacked over this one.
    more = engine.dir / "queue/shard-002"
    more.mkdir()
    engine.start()
    engine.process.stop(20)
    assert f"event=queue.foreign_shard path={more} " in engine.log(), engine.log()
    if os.geteuid() == 0:
        disk = engine.dir / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", disk], check=False).returncode == 0:
            status, said = serve(Engine({"queue": {"path": str(disk / "queue")}}))
            subprocess.run(["umount", disk], check=True)
            assert status == 1 and "read-only" in said and "owner" not in said, said


def test_limit_of_file_sizes():
    """As a full disk: 452, and the engine lives."""
    engine = Engine({"queue": {"shards": 1}, "workers": 1})
    engine.prefix = ("prlimit", f"--fsize={8 << 20}")
    with engine, Client(engine) as client:
        replies = []
        while not replies or replies[-1].startswith("250"):
            assert len(replies) < 1000
            replies.append(client.message("u@d1.example", data=b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 1500))
        assert replies[-1].startswith("452") and len(replies) > 10, replies[-1]
        engine.process.require_running()


def test_start_with_a_mistake():
    """An exit status of its own, with which systemd does not try again; the file, the line and the hint."""
    status, said = serve(Engine({"lisen": 3}))
    assert status == 78 and "lisen" in said and "hayauma.yaml:" in said, (status, said)
    unit = (pathlib.Path(__file__).resolve().parents[2] / "docs/examples/hayauma.service").read_text()
    assert "RestartPreventExitStatus=78\n" in unit


def test_control_answers_before_the_greeting():
    """Whoever saw a 220 finds an engine to ask."""
    engine = Engine()
    engine.write_config()
    process = Process([program(), "serve", "-c", engine.file], engine.dir / "log")
    greeting = b""
    while not greeting:
        with contextlib.suppress(OSError), socket.create_connection((engine.host, engine.port)) as peer:
            greeting = peer.recv(100)
            assert socket.socket(socket.AF_UNIX).connect_ex(engine.config["control_socket"]) == 0
    assert process.stop(20) == 0


def test_drain_finishes_what_is_past_the_dot():
    """SIGTERM: the message behind its dot is waited for and settled, the next is not begun; idle clients
    hear 421."""
    silent = Silent()
    engine = Engine({"routes": {"*": f"[127.0.0.1]:{silent.port}"}, "drain_timeout": "20s",
                     "destinations": {"*": {"sessions_max": 1}}})
    engine.start()
    idle = Client(engine)
    with Client(engine) as client:
        client.expect(client.message("u@d1.example"), 250)
        silent.take()
        client.expect(client.message("later@d1.example"), 250)
        wait_until("it to wait in memory", lambda: engine.status()["gauges"]["in_memory"] == 2)
    began = time.monotonic()
    engine.process.send(signal.SIGTERM)
    assert idle.reply().startswith("421 4.3.2"), "an idle client hears nothing"
    time.sleep(1)
    engine.process.require_running()
    silent.peer.sendall(b"250 2.0.0 taken\r\n")
    assert silent.peer.recv(4096) == b"QUIT\r\n"
    assert engine.process.wait(10) == 0
    assert time.monotonic() - began < 10
    assert len(engine.records("Delivery")) == 1
    engine.config["routes"] = {"*": f"[127.0.0.1]:{free_port()}"}
    engine.start()
    assert queued(engine) == 1
    engine.stop()
    silent.close()


def test_drain_limit():
    """A peer that never answers the dot: exit 0 at the limit, the mail stays queued."""
    silent = Silent()
    engine = Engine({"routes": {"*": f"[127.0.0.1]:{silent.port}"}, "drain_timeout": "2s"})
    engine.start()
    busy = Client(engine)
    busy.envelope("v@d1.example")
    busy.command("DATA")
    with Client(engine) as client:
        client.expect(client.message("u@d1.example"), 250)
    silent.take()
    began = time.monotonic()
    engine.process.send(signal.SIGTERM)
    assert engine.process.wait(12) == 0, engine.process.tail()
    assert 1.5 < time.monotonic() - began < 8, time.monotonic() - began
    busy.close()
    silent.close()
    engine.config["routes"] = {"*": f"[127.0.0.1]:{free_port()}"}
    engine.start()
    assert queued(engine) == 1
    engine.stop()


def test_second_sigterm():
    """It does not wait for the limit."""
    silent = Silent()
    engine = Engine({"routes": {"*": f"[127.0.0.1]:{silent.port}"}, "drain_timeout": "60s"})
    engine.start()
    with Client(engine) as client:
        client.expect(client.message("u@d1.example"), 250)
    silent.take()
    engine.process.send(signal.SIGTERM)
    time.sleep(0.5)
    engine.process.require_running()
    engine.process.send(signal.SIGTERM)
    assert engine.process.wait(8) in (0, 1), engine.process.tail()
    silent.close()
    engine.config["routes"] = {"*": f"[127.0.0.1]:{free_port()}"}
    engine.start()
    assert queued(engine) == 1
    engine.stop()


def test_drain_under_load():
    """Stopped at full speed again and again: nothing lost, nothing twice."""
    temp = TempDir("hayauma-drain-")
    with Sink(directory=temp.path / "sink") as sink:
        engine = Engine(settings_for(sink, workers=2), directory=temp.path / "engine").start()
        books = [Books(engine, i, pause_s=0) for i in range(4)]
        for _ in range(4):
            time.sleep(0.7)
            began = time.monotonic()
            engine.stop()
            assert time.monotonic() - began < 3, "clients that wait for an answer hold it up"
            engine.start()
        for b in books:
            b.stop()
        wait_empty(engine)
        engine.stop()
        got = [row[7] for row in sink.ledger() if row[7] != "-"]
        wanted = {str(s) for b in books for s in b.acknowledged}
        assert not wanted - set(got), f"{len(wanted - set(got))} lost"
        assert len(got) == len(set(got)), f"{len(got) - len(set(got))} duplicates"


def test_sighup():
    """A wrong file changes nothing and says what is wrong; a right one applies."""
    with Engine() as engine:
        listener = engine.config["listeners"][0]

        def refused_at_three():
            with Client(engine) as client:
                client.envelope("a@d1.example", "b@d1.example")
                return client.command("RCPT TO:<c@d1.example>").startswith("452 4.5.3")

        assert not refused_at_three()
        good = json.dumps(engine.config)
        engine.file.write_text(good[:-1] + ', "lisen": 1}')
        engine.process.send(signal.SIGHUP)
        wait_until("the complaint", lambda: "serve.reload_failed" in engine.log(), 10)
        assert "lisen" in engine.log()
        assert "\\x0a" not in engine.log()
        listener["recipients_max"] = 2
        engine.file.write_text(json.dumps({**engine.config, "workers": 7, "nonsense": []}))
        engine.process.send(signal.SIGHUP)
        wait_until("the complaint", lambda: "nonsense" in engine.log(), 10)
        assert not refused_at_three()
        engine.file.write_text(json.dumps({**engine.config, "workers": 7}))
        engine.process.send(signal.SIGHUP)
        wait_until("the reload", lambda: "serve.reloaded" in engine.log(), 10)
        assert "workers" in engine.log().split("serve.reloaded")[1]
        assert "\\x0a" not in engine.log()
        wait_until("the new limit", refused_at_three, 10)


def test_a_smarthost_comes_back():
    """One worker finds that it works again: mail of all destinations goes on, also of other workers."""
    temp = TempDir("hayauma-back-")
    sink = Sink(directory=temp.path / "sink")
    engine = Engine({"workers": 2, "routes": {"*": f"[{sink.host}]:{sink.port}"},
                     "destinations": {"*": {"retry": ["10m"]}}},
                    directory=temp.path / "engine").start()
    domains = [f"d{i}.example" for i in range(12)]
    with Client(engine) as client:
        for domain in domains * 3:
            client.expect(client.message(f"u@{domain}"), 250)
    # The first recipient of each is tried and deferred; the others wait for the destination.
    wait_until("every destination to wait", lambda: engine.status()["counters"]["deferred"] >= 12, 20)
    with sink:
        engine.command("queue", "flush", "--domain", domains[0])
        wait_until("mail of all to go on", lambda: {row[3] for row in sink.ledger()} >= {
            f"u@{domain}" for domain in domains}, 20)
    engine.stop()
    temp.close()


def test_resolver_is_silent():
    """The log and the recipient's error name the resolver that does not answer; many lookups make one
    line a minute and worker."""
    port = free_port()
    settings = {"workers": 2, "dns": {"servers": [f"127.0.0.1:{port}"], "timeout": "200ms", "tries": 1}}
    with Engine(settings) as engine:
        with Client(engine) as client:
            for i in range(20):
                client.expect(client.message(f"u@d{i}.example"), 250)
        said = f"resolver 127.0.0.1:{port} cannot be reached"
        wait_until("the log to name it", lambda: f'event=dns.silent error="{said}"' in engine.log(), 20)
        wait_until("all recipients to be told", lambda: len(
            [r for r in engine.rows("queue", "list") if said in r.get("last_error", "")]) == 20, 30)
        if (n := engine.log().count("dns.silent")) > 2:
            raise Failure(f"{n} lines")


def test_privileges():
    """With 'user' all threads become it, and it can write all that it needs."""
    if os.geteuid() != 0:
        raise Skip("not root")
    nobody = pwd.getpwnam("nobody")
    temp = TempDir("hayauma-user-")
    for name in ("sink", "engine"):
        (temp.path / name).mkdir()
    os.chown(temp.path / "engine", nobody.pw_uid, nobody.pw_gid)
    with Sink(directory=temp.path / "sink") as sink:
        path = temp.path / "engine/smtp.sock"
        engine = Engine(settings_for(sink, user="nobody"), directory=temp.path / "engine")
        engine.config["listeners"].append({"listen": f"unix:{path}"})
        engine.start()
        assert path.stat().st_uid == nobody.pw_uid and path.stat().st_gid == nobody.pw_gid
        tasks = list(pathlib.Path(f"/proc/{engine.process.pid}/task").iterdir())
        assert len(tasks) > 3
        for task in tasks:
            try:
                status = (task / "status").read_text()
            except (FileNotFoundError, ProcessLookupError):  # it has read its list, and ended
                continue
            ids = next(x for x in status.splitlines() if x.startswith("Uid:")).split()[1:]
            assert set(ids) == {str(nobody.pw_uid)}, ids
        with Client(engine) as client:
            client.expect(client.message("u@d1.example"), 250)
        wait_empty(engine)
        engine.wait_records("Delivery")
        engine.process.send(signal.SIGHUP)
        wait_until("the reload", lambda: "serve.reloaded" in engine.log(), 10)
        engine.kill()
        engine.start()
        engine.stop()
        assert len(sink.ledger()) == 1


def test_systemd():
    """READY, WATCHDOG, RELOADING, STOPPING, at a socket as systemd's."""
    for abstract in (False, True):
        engine = Engine()
        path = f"\0hayauma-{os.getpid()}" if abstract else str(engine.dir / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(path)
            notify.settimeout(10)
            engine.env = {"NOTIFY_SOCKET": path.replace("\0", "@"), "WATCHDOG_USEC": "1000000"}
            engine.start()
            assert notify.recv(1000) == b"READY=1"
            times = []
            for _ in range(3):
                assert notify.recv(1000) == b"WATCHDOG=1"
                times.append(time.monotonic())
            assert times[2] - times[0] < 2, times
            engine.process.send(signal.SIGHUP)
            seen = []
            while b"READY=1" not in seen:
                seen.append(notify.recv(1000))
            reloading = [s for s in seen if s.startswith(b"RELOADING=1")]
            assert reloading, seen
            assert b"MONOTONIC_USEC=" in reloading[0], "Type=notify-reload wants its time"
            engine.process.send(signal.SIGTERM)
            seen = []
            while b"STOPPING=1" not in seen:
                seen.append(notify.recv(1000))
            assert engine.process.wait(10) == 0


def test_watchdog_of_a_stuck_worker():
    """One thread that stands still ends WATCHDOG=1, and so the service, although all others go on."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long] * 4
    engine = Engine({"workers": 2})
    path = str(engine.dir / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        engine.env = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"}
        with engine:
            tid = next(int(p.parent.name) for p in
                       pathlib.Path(f"/proc/{engine.process.pid}/task").glob("*/comm")
                       if p.read_text().strip() == "worker-1")
            # Not within a lock that all need, the log's say: where it waits for events.
            state = pathlib.Path(f"/proc/{engine.process.pid}/task/{tid}/syscall")
            wait_until("worker-1 waits", lambda: state.read_text().startswith(f"{IO_URING_ENTER} "))
            if ptrace(PTRACE_SEIZE, tid, 0, 0) != 0:
                raise Skip(f"ptrace: {os.strerror(ctypes.get_errno())}")
            ptrace(PTRACE_INTERRUPT, tid, 0, 0)
            os.waitpid(tid, WALL)
            try:
                notify.settimeout(2)
                with contextlib.suppress(TimeoutError):
                    for _ in range(20):
                        notify.recv(1000)
                    raise Failure("WATCHDOG=1 goes on")
                wait_until("a word about it", lambda: "serve.worker_stuck" in engine.log())
            finally:
                ptrace(PTRACE_DETACH, tid, 0, 0)
            assert notify.recv(1000) == b"WATCHDOG=1"


def test_workers():
    temp = TempDir("hayauma-workers-")
    engine = Engine(directory=temp.path)
    engine.arguments = ("--workers", "3")
    with engine:
        assert engine.status()["workers"] == 3
        names = [p.read_text().strip() for p in
                 pathlib.Path(f"/proc/{engine.process.pid}/task").glob("*/comm")]
        assert sum(n.startswith("worker-") for n in names) == 3, names
    for wrong in ("0", "65", "x", "-1"):
        status, said = serve(engine, "--workers", wrong)
        assert status == 2 and "--workers" in said, (status, said)


def test_io_uring_is_off():
    """One clear message, exit status 1, and the queue is not touched."""
    library = os.environ.get("HAYAUMA_NOURING")
    if not library:
        raise Skip("HAYAUMA_NOURING names no program")
    engine = Engine()
    for number, word in (("1", "io_uring"), ("38", "CONFIG_IO_URING")):
        status, said = serve(engine, "--workers", "2", prefix=(library, number))
        assert status == 1 and word in said and said.count("worker.io_failed") == 1, (status, said)
        assert not (engine.dir / "queue").exists()


if __name__ == "__main__":
    run(globals())
