#!/usr/bin/env python3
"""No room: disk full, records' disk full, map full with and without an old reader.

storage.py [TEST...]. The small file systems are tmpfs, which only root can mount: another user's run
is root in a user namespace of its own, and where there is none, what needs them is skipped."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time

from faults import (Books, Client, Engine, Sink, Skip, TempDir, all_arrived, free_port,
                    queued, rests, run, settings_for, wait_empty, wait_until)

HERE = pathlib.Path(__file__).resolve().parent
REFUSED = "452 4.3.1"


@contextlib.contextmanager
def small_disk(parent, size):
    path = parent / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path],
                      capture_output=True, check=False).returncode != 0:
        raise Skip("cannot mount a tmpfs")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=False)


def fill(disk):
    """Takes all of the space that is left; the file to remove."""
    junk = disk / "junk"
    with open(junk, "wb", buffering=0) as f:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while f.write(bytes(size)) == size:
                    pass
    return junk


class Later:
    """A sink that is not there yet, and an engine that tries it every second."""

    def __init__(self, work, **settings):
        self.sink = Sink(directory=work / "sink")
        self.engine = Engine(settings_for(self.sink, workers=2, routes={
            "*": f"[{self.sink.host}]:{self.sink.port}"}, **settings), directory=work / "engine")

    def end(self):
        self.engine.stop()
        self.sink.stop()


def until_refused(books, engine):
    wait_until("refusals", lambda: all(b.refusals for b in books), 30, process=engine.process)


def flows(books, engine):
    before = [len(b.acknowledged) for b in books]
    wait_until("mail to flow", lambda: all(len(b.acknowledged) > n for b, n in zip(books, before)), 30,
               process=engine.process)


def stop(books):
    for b in books:
        b.stop()
        # Whoever goes on asking hears 421 in the end.
        assert all(reply.startswith((REFUSED, "421 4.7.0")) for _, reply in b.refusals), b.refusals[:5]


def test_disk_full():
    """452 4.3.1 while the disk is full; deliveries go on and settle; then intake resumes by itself."""
    temp = TempDir("hayauma-disk-")
    with small_disk(temp.path, "160m") as disk:
        rig = Later(temp.path, queue={"path": str(disk / "queue")})
        rig.engine.start()
        books = [Books(rig.engine, i, pause_s=0.01) for i in range(4)]
        flows(books, rig.engine)
        junk = fill(disk)
        until_refused(books, rig.engine)
        acknowledged = sum(len(b.acknowledged) for b in books)
        assert acknowledged > 0 and queued(rig.engine) > 0
        wait_until("the log says where", lambda: "queue.intake_refused reason=disk_full "
                   f"path={disk}/queue" in rig.engine.log())
        assert "INTAKE REFUSED: less than 64 MiB" in rig.engine.command("status", "--once")
        rig.sink.start()
        wait_empty(rig.engine)  # deliveries are recorded although nothing is free
        rests(rig.engine, 1, 0.6)
        junk.unlink()
        flows(books, rig.engine)
        stop(books)
        wait_empty(rig.engine)
        all_arrived(books, rig.sink)
        # Messages that the full disk cut off from their 250: one line for all of them.
        assert rig.engine.log().count("queue.accept_failed") <= 2, rig.engine.log()
        rig.end()


def test_restart_on_a_full_disk():
    """What was accepted is delivered by an engine that starts while the disk is full."""
    temp = TempDir("hayauma-disk-")
    with small_disk(temp.path, "160m") as disk:
        rig = Later(temp.path, queue={"path": str(disk / "queue")})
        rig.engine.start()
        books = [Books(rig.engine, i, pause_s=0.01) for i in range(4)]
        flows(books, rig.engine)
        time.sleep(0.5)
        fill(disk)
        until_refused(books, rig.engine)
        for b in books:
            b.stop()
        rig.engine.kill()
        rig.engine.start()
        with Client(rig.engine) as client:
            reply = client.message("u@d1.example")
            assert reply.startswith(REFUSED), reply
        rig.sink.start()
        wait_empty(rig.engine)
        all_arrived(books, rig.sink)
        rig.end()


def test_disk_of_the_records_full():
    """Mail goes on; the lines wait in the queue, and all are there once there is space."""
    temp = TempDir("hayauma-disk-")
    with small_disk(temp.path, "16m") as disk:
        rig = Later(temp.path, records={"path": str(disk / "records"), "segment_size": "64KiB"})
        rig.sink.start()
        rig.engine.start()
        junk = fill(disk)
        books = [Books(rig.engine, i, pause_s=0.005) for i in range(2)]
        for _ in range(20):
            flows(books, rig.engine)
        wait_until("the warning", lambda: "event=records.failed" in rig.engine.log(), 10)
        said = next(line for line in rig.engine.log().splitlines() if "event=records.failed" in line)
        assert f"path={disk / 'records'}" in said and "No space left" in said and "lag_bytes=" in said, said
        assert rig.engine.log().count("event=records.failed") == 1, "each second"
        junk.unlink()
        wait_until("its end", lambda: "event=records.resumed" in rig.engine.log(), 30)
        stop(books)
        wait_empty(rig.engine)
        all_arrived(books, rig.sink)
        wanted = sum(len(b.acknowledged) for b in books)
        lines = rig.engine.dir / "records"
        lines.symlink_to(disk / "records")
        for kind in ("Reception", "Delivery"):
            found = rig.engine.wait_records(kind, wanted)
            assert len(found) == wanted, (kind, len(found), wanted)
        rig.end()


def test_map_full():
    """452 4.3.1 before the map is full; deliveries make room and intake resumes by itself."""
    temp = TempDir("hayauma-map-")
    rig = Later(temp.path, queue={"map_size": "16MiB", "shards": 1})
    rig.engine.start()
    books = [Books(rig.engine, i, size=40000) for i in range(4)]
    until_refused(books, rig.engine)
    rests(rig.engine, 1, 0.6)
    rig.sink.start()
    flows(books, rig.engine)
    stop(books)
    wait_empty(rig.engine)
    all_arrived(books, rig.sink)
    rig.end()


def test_rejections_while_the_map_is_full():
    """They take no room from deliveries: they wait in memory up to a limit, what is beyond is counted,
    and all is recorded when there is room again."""
    temp = TempDir("hayauma-map-")
    rig = Later(temp.path, queue={"map_size": "16MiB", "shards": 1})
    rig.engine.config["routes"]["bad.example"] = "reject"
    rig.engine.config["listeners"][0].update(errors_max=100000)
    rig.engine.start()
    with Client(rig.engine) as client:
        client.expect(client.command("MAIL FROM:<a@sender.example>"), 250)
        client.expect(client.command("RCPT TO:<first@bad.example>"), 550)
        rig.engine.wait_records("Rejection")
        books = [Books(rig.engine, i, size=40000) for i in range(4)]
        until_refused(books, rig.engine)
        # The first are refused by their commit; the door is closed at the committer's next look.
        wait_until("the door to close", lambda: all("queue is full" in b.refusals[-1][1] for b in books))
        for i in range(3000):
            client.expect(client.command(f"RCPT TO:<u{i}@bad.example>"), 550)
    time.sleep(0.5)
    assert len(rig.engine.records("Rejection")) == 1
    rig.sink.start()
    flows(books, rig.engine)
    wait_until("the lines", lambda: any("num_omitted" in r for r in rig.engine.records("Rejection")), 10)
    # With the messages that were put off.
    def counted():
        return sum(r.get("num_omitted", 1) for r in rig.engine.records("Rejection"))
    wait_until("a line of each", lambda: counted() == rig.engine.status()["counters"]["rejected"], 30)
    found = rig.engine.records("Rejection")
    assert counted() >= 3001, (counted(), len(found))
    assert 200 < len(found) < 1000, len(found)
    stop(books)
    rig.end()


def test_quarantine_is_logged():
    """Ten lines at once, however many records are damaged, as it happens and at each start."""
    def logged():
        found = [line for line in engine.log().splitlines() if "queue.quarantined" in line]
        assert all('reason="its content is damaged" queue="d1.example" id=' in line and
                   " shard=0 tree=rows " in line for line in found), found
        return len(found)

    engine = Engine({"routes": {"*": f"[127.0.0.1]:{free_port()}"}, "queue": {"shards": 1},
                     "destinations": {"*": {"retry": ["1h"]}}}).start()
    with Client(engine) as client:
        for _ in range(30):
            client.expect(client.message("u@d1.example", data=b"Subject: x\r\n\r\nwell\r\n"), 250)
    engine.process.stop()
    for file in (engine.dir / "queue").glob("shard-*/data.mdb"):
        file.write_bytes(file.read_bytes().replace(b"\r\nwell\r\n", b"\r\nbell\r\n"))
    assert logged() == 0
    began = time.monotonic()
    engine.start()
    engine.command("queue", "flush", "--all")
    wait_until("the damage", lambda: engine.status()["queue"]["quarantined"] == 30, 20)
    assert 10 <= logged() <= 11 + (time.monotonic() - began) / 6, engine.log()
    before = logged()
    engine.process.stop()
    engine.start()
    assert logged() - before == 10, engine.log()
    engine.stop()


def test_map_full_with_an_old_reader():
    """No page can be used again while the reader stays: 452, no wedge, no duplicate, and all goes on
    when it is gone."""
    temp = TempDir("hayauma-map-")
    rig = Later(temp.path, queue={"map_size": "16MiB", "shards": 1})
    rig.engine.start()
    with subprocess.Popen([sys.executable, HERE / "old_reader.py",
                           rig.engine.dir / "queue/shard-000"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as reader:
        assert reader.stdout.readline() == b"holding\n"
        books = [Books(rig.engine, i, size=40000) for i in range(4)]
        until_refused(books, rig.engine)
        rig.sink.start()
        time.sleep(4)
        with Client(rig.engine) as client:
            reply = client.message("u@d1.example")
            assert reply.startswith(REFUSED), reply
        rests(rig.engine, 2, 0.8)
        reader.stdin.close()
        reader.wait(10)
    flows(books, rig.engine)
    stop(books)
    wait_empty(rig.engine)
    all_arrived(books, rig.sink)
    rig.end()


if __name__ == "__main__":
    own = ["unshare", "--mount", "--map-root-user"]
    if os.geteuid() != 0 and subprocess.run([*own, "true"], capture_output=True,
                                            check=False).returncode == 0:
        os.execvp("unshare", [*own, sys.executable, *sys.argv])
    run(globals())
