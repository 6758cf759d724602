#!/usr/bin/env python3
"""No descriptors left, nobody to connect to: what the ring does and no preloaded library can fail.

descriptors.py [TEST...]"""

import contextlib
import os
import socket
import subprocess
import sys
import time

from faults import (Books, Client, Engine, Sink, Skip, TempDir, all_arrived, free_port, rests, run,
                    settings_for, wait_empty, wait_until)


def open_files(engine):
    return len(os.listdir(f"/proc/{engine.process.pid}/fd"))


def limited(engine, spare):
    """Restarts the engine so that it may open `spare` files more than it has at rest."""
    engine.start()
    time.sleep(0.3)
    limit = open_files(engine) + spare
    engine.stop()
    engine.prefix = ("prlimit", f"--nofile={limit}:{limit}")
    engine.start()
    return limit


def crowd(engine):
    """Connects until no descriptor is left, or nearly."""
    clients = []
    with contextlib.suppress(OSError):
        while len(clients) < 120:
            clients.append(Client(engine, hello=None))
    return clients


def test_accepting_pauses():
    """Clients take the last descriptors: accepting pauses without spinning and resumes."""
    temp = TempDir("hayauma-files-")
    with Sink(directory=temp.path / "sink") as sink:
        engine = Engine(settings_for(sink, workers=2), directory=temp.path / "engine")
        limited(engine, 30)
        clients = []
        for _ in range(60):
            client = Client(engine, hello=None)
            clients.append(client)
        wait_until("accepting to fail", lambda: "smtp.accept_failed" in engine.log(), 10)
        rests(engine, 3, 0.1)
        lines = engine.log().count("smtp.accept_failed")
        assert lines <= 8, f"{lines} lines about it"
        for client in clients:
            client.close()
        with Client(engine) as client:
            client.expect(client.message("u@d1.example"), 250)
        wait_empty(engine)
        assert len(sink.ledger()) == 1
        rests(engine, 1, 0.1)
        engine.process.require_running()
        engine.stop()


def test_http_pauses():
    """Clients of HTTP take the last descriptors: threads do not spin, and serve when there are some again."""
    temp = TempDir("hayauma-files-")
    web = free_port()
    with Sink(directory=temp.path / "sink") as sink:
        engine = Engine(settings_for(sink, workers=1, http={
            "listen": f"127.0.0.1:{web}", "threads": 2, "tokens": str(temp.path / "tokens")}),
            directory=temp.path / "engine")
        limited(engine, 30)
        clients = [socket.create_connection(("127.0.0.1", web)) for _ in range(60)]
        wait_until("accepting to fail", lambda: "http.accept_failed" in engine.log(), 10)
        rests(engine, 3, 0.1)
        lines = engine.log().count("http.accept_failed")
        assert lines <= 8, f"{lines} lines about it"
        for client in clients:
            client.close()
        with socket.create_connection(("127.0.0.1", web), timeout=10) as client:
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = client.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200"), answer
        engine.stop()


def test_deliveries_wait():
    """Clients hold nearly all descriptors: mail waits for its session and is delivered later."""
    temp = TempDir("hayauma-files-")
    with Sink(directory=temp.path / "sink") as sink:
        engine = Engine(settings_for(sink, workers=1, destinations={
            "*": {"retry": ["1s"], "sessions_max": 50}}), directory=temp.path / "engine")
        limited(engine, 75)
        sender = Client(engine)
        idle = crowd(engine)
        for i in range(100):
            sender.expect(sender.message(f"u{i}@d{i % 10}.example", data=(
                f"X-Seq: {i}\r\n\r\nx\r\n").encode()), 250)
        rests(engine, 3, 0.3)
        for client in idle:
            client.close()
        wait_empty(engine)
        got = {row[7] for row in sink.ledger()}
        assert len(got) == 100, len(got)
        engine.stop()


def test_questions_wait():
    """The resolver finds no descriptor: no destination is blamed, and its mail goes when it does."""
    temp = TempDir("hayauma-files-")
    with Sink(directory=temp.path / "sink") as sink:
        engine = Engine(settings_for(sink, workers=1, destinations={"*": {"retry": ["1h"]}}),
                        directory=temp.path / "engine")
        limited(engine, 75)
        sender = Client(engine)
        idle = crowd(engine)
        wait_until("accepting to fail", lambda: "smtp.accept_failed" in engine.log(), 10)
        for i in range(10):
            sender.expect(sender.message(f"u@d{i}.example"), 250)
        rests(engine, 2, 0.3)
        assert not engine.records("TransientFailure")
        for client in idle:
            client.close()
        wait_empty(engine, 20)
        assert len(sink.ledger()) == 10
        assert not engine.records("TransientFailure")
        engine.stop()


def test_few_sessions_for_many_destinations():
    """One session in all may be open: it is not kept idle while other destinations wait."""
    temp = TempDir("hayauma-files-")
    with Sink(directory=temp.path / "sink") as sink:
        engine = Engine(settings_for(sink, workers=1, destinations={
            "*": {"retry": ["1s"], "idle": "1h"}}), directory=temp.path / "engine")
        limited(engine, 20)
        with Client(engine) as client:
            for i in range(10):
                client.expect(client.message(f"u{i}@d{i}.example"), 250)
        wait_empty(engine, 30)
        assert len(sink.ledger()) == 10
        engine.stop()


def test_no_local_ports():
    """More sessions to one address than there are ports: they wait, nobody is blamed for it, and status
    says what is lacking. In a network of its own, with few ports."""
    if "HAYAUMA_PORTS" not in os.environ:
        inside = subprocess.run(
            ["unshare", "-rn", "sh", "-c", "ip link set lo up && echo 40000 40059 > "
             "/proc/sys/net/ipv4/ip_local_port_range && exec \"$@\"", "sh", sys.executable, __file__,
             "test_no_local_ports"], env={**os.environ, "HAYAUMA_PORTS": "few"}, check=False,
            capture_output=True, text=True)
        if "unshare failed" in inside.stderr or "Operation not permitted" in inside.stderr:
            raise Skip("no network namespaces here")
        assert inside.returncode == 0, inside.stdout + inside.stderr
        return
    temp = TempDir("hayauma-ports-")
    (temp.path / "behaviour.yaml").write_text("default: {latency: {dot: 1s}}\n")
    with Sink(temp.path / "behaviour.yaml", directory=temp.path / "sink") as sink:
        engine = Engine(settings_for(sink, destinations={"*": {
            "sessions_max": 200, "session_messages_max": 10, "pipeline_max": 1, "retry": ["1h"]}}),
                        directory=temp.path / "engine")
        with engine:
            with Client(engine) as client:
                for i in range(200):
                    client.expect(client.message(f"u{i}@d1.example"), 250)
            wait_until("the reason in the status", lambda: "shortage" in [
                d.get("wait", {}).get("reason") for d in engine.status()["destinations"]], 20, 0.05)
            wait_empty(engine)
            assert len(sink.ledger()) == 200
            assert not engine.records("TransientFailure")
            assert 1 <= engine.log().count("delivery.shortage") <= 2, engine.log()  # once a worker


def test_nobody_to_connect_to():
    """Refused, unreachable, silent, with a full backlog: mail is deferred, other mail flows."""
    temp = TempDir("hayauma-connect-")
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
        fillers.append(filler)
    refusing = socket.socket()  # nobody else may listen there meanwhile
    refusing.bind(("127.0.0.1", 0))
    with Sink(directory=temp.path / "sink") as sink:
        timeouts = {"timeouts": {"connect": "1s"}}
        engine = Engine(settings_for(sink, dns={"ipv6": True}, routes={
            "refused.example": f"[127.0.0.1]:{refusing.getsockname()[1]}",
            "unreachable.example": "[2001:db8::1]:25",
            "backlog.example": f"[127.0.0.1]:{full.getsockname()[1]}"},
            destinations={"*": timeouts}), directory=temp.path / "engine")
        engine.start()
        books = Books(engine)
        bad = ("refused", "unreachable", "backlog")
        with Client(engine) as client:
            for name in bad:
                client.expect(client.message(f"u@{name}.example"), 250)
        for name in bad:
            wait_until(f"the deferral of {name}", lambda: any(
                r["recipient"] == f"u@{name}.example" for r in engine.records("TransientFailure")),
                       process=engine.process)
        for record in engine.records("TransientFailure"):
            assert record["response"]["code"] == 451, record
            assert (record["response"]["enhanced_code"]["class"],
                    record["response"]["enhanced_code"]["subject"]) == (4, 4), record
        before = len(books.acknowledged)
        rests(engine, 2, 0.6)
        assert len(books.acknowledged) > before
        books.stop()
        wait_until("the good mail", lambda: len(
            {row[7] for row in sink.ledger()} - {"-"}) == len(books.acknowledged))
        all_arrived([books], sink)
        engine.stop()
    for filler in (*fillers, full, refusing):
        filler.close()


if __name__ == "__main__":
    run(globals())
