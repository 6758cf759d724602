#!/usr/bin/env python3
"""Calls of the engine that fail: syncs, writes, memory.

syscalls.py [TEST...]"""

import errno
import subprocess
import time

from faults import (MALLOC, SIGN, SYNC, WRITE, Books, Client, Engine, Faults, Sink, TempDir, all_arrived,
                    free_port, program, rests, run, settings_for, wait_empty, wait_until)


# The meta page is written in place and is smaller: on a full disk that still works.
PAGE = 4096


class Rig:
    """Engine with failing calls, sink, clients with books."""

    def __init__(self, **settings):
        self.temp = TempDir("hayauma-faults-")
        self.faults = Faults(self.temp.path)
        self.sink = Sink(directory=self.temp.path / "sink").start()
        self.engine = Engine(settings_for(self.sink, workers=2, **settings),
                             directory=self.temp.path / "engine")
        self.engine.env = self.faults.env
        self.engine.start()
        self.books = []

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for books in self.books:
            books.stop()
        if kind is None:
            self.engine.stop()
        else:
            self.engine.process.kill()
        self.sink.stop()
        self.temp.close()

    def clients(self, n=4, **options):
        self.books += [Books(self.engine, len(self.books) + i, **options) for i in range(n)]
        wait_until("mail to flow", lambda: all(len(b.acknowledged) > 3 for b in self.books))

    def acknowledged(self):
        return sum(len(b.acknowledged) for b in self.books)

    def ends_and_restarts(self, duplicates_max):
        """The process must end with 1 and say why; after a restart nothing is missing."""
        assert self.engine.process.wait(10) == 1
        told = self.engine.log()
        assert "queue.failed" in told and "a sync to disk failed" in told, told
        for books in self.books:
            books.stop()
        self.faults.disarm()
        self.engine.start()
        wait_empty(self.engine)
        all_arrived(self.books, self.sink, duplicates_max)


def test_failed_sync_of_the_queue():
    """No 250 after it, exit 1, and everything acknowledged before is there after a restart."""
    for k in (1, 2, 3, 7):
        with Rig() as rig:
            rig.clients()
            rig.faults.arm(SYNC, k, errno.EIO, "data.mdb", repeat=True)
            wait_until("the fault", rig.faults.hits)
            rig.ends_and_restarts(duplicates_max=200)


def test_clock_set_back():
    """Mail of a time when the clock ran 40 days ahead is due within the retry table as soon as it is right
    again, while running and behind a restart, and flush finds all of it."""
    ahead_s = 40 * 86400
    for restart in (False, True):
        closed = free_port()
        with Rig(routes={"down.example": f"[127.0.0.1]:{closed}"},
                 destinations={"*": {"retry": ["1h"]}}) as rig:
            rig.faults.set_clock(ahead_s)
            with Client(rig.engine) as client:
                for i in range(20):
                    client.expect(client.message(f"u{i}@down.example"), 250)
                client.expect(client.message("later@up.example", data=b"Subject: x\r\nX-Hayauma-Not-Before: "
                                             b"%d\r\n\r\nx\r\n" % (time.time() + ahead_s + 7200)), 250)
            rig.engine.wait_records("TransientFailure")
            wait_until("the deferral", lambda: any(r["attempts"] for r in rig.engine.rows("queue", "list")))
            if restart:
                rig.engine.stop()
            rig.faults.set_clock(0)
            if restart:
                rig.engine.start()
            else:
                wait_until("the jump to be told", lambda: "clock.jumped" in rig.engine.log(), 10)
            wait_until("due times put right", lambda: all(
                r["due_ms"] <= (time.time() + 3700) * 1000 for r in rig.engine.rows("queue", "list")
                if r["recipient"] != "later@up.example"), 15)
            assert "queue.due_times_put_right" in rig.engine.log()
            later = [r for r in rig.engine.rows("queue", "list") if r["recipient"] == "later@up.example"]
            assert later[0]["due_ms"] > (time.time() + ahead_s) * 1000, later
            rig.engine.config["routes"]["down.example"] = f"[127.0.0.1]:{rig.sink.port}"
            rig.engine.reload()
            rig.engine.command("queue", "flush", "down.example")
            rig.engine.wait_records("Delivery", 20)


def test_slow_disk():
    """While commits take seconds, what waits for them counts against intake_memory_max."""
    with Rig(queue={"intake_memory_max": "8MiB"}) as rig:
        rig.faults.arm(SYNC, 1, 0, "data.mdb", repeat=True)
        clients = [Client(rig.engine) for _ in range(16)]
        line = b"x" * 98 + b"\r\n"
        for i, c in enumerate(clients):
            c.envelope(f"u{i}@d1.example")
            c.expect(c.command("DATA"), 354)
            c.send(line * 20000 + b".\r\n")
        time.sleep(0.5)
        held = rig.engine.status()["gauges"]["intake_bytes"]
        assert 2 << 20 < held <= 8 << 20, held
        replies = [c.reply()[:9] for c in clients]
        assert set(replies) == {"250 2.0.0", "452 4.3.1"}, replies
        rig.faults.disarm()
        for c in clients:
            c.close()
        wait_empty(rig.engine)
        wait_until("memory to be free", lambda: rig.engine.status()["gauges"]["intake_bytes"] == 0, 10)
        assert len(rig.sink.ledger()) == replies.count("250 2.0.0")


def test_write_error_of_the_queue():
    """EIO of a device that is not full is no shortage of space: fatal, as a failed sync."""
    with Rig() as rig:
        rig.clients()
        rig.faults.arm(WRITE, 3, errno.EIO, "data.mdb", repeat=True)
        wait_until("the fault", rig.faults.hits)
        rig.ends_and_restarts(duplicates_max=200)


def test_no_space_once():
    """One write without space: 452 or a retry inside, and the process lives."""
    with Rig() as rig:
        rig.clients()
        for k in (1, 2, 5):
            rig.faults.arm(WRITE, k, errno.ENOSPC, "data.mdb", bytes_min=PAGE)
            wait_until("the fault", rig.faults.hits, process=rig.engine.process)
            before = rig.acknowledged()
            wait_until("mail to flow again", lambda: rig.acknowledged() > before + 20,
                       process=rig.engine.process)
        for books in rig.books:
            assert all(r.startswith("452 4.3.1") for _, r in books.stop().refusals), books.refusals
        wait_empty(rig.engine)
        all_arrived(rig.books, rig.sink)


def test_no_space_for_a_while():
    """452 4.3.1 while no write finds space, without spinning; then mail flows again by itself."""
    with Rig() as rig:
        rig.clients(pause_s=0.02)

        def named():  # where mail was under way when room ran out
            rig.faults.arm(WRITE, 1, errno.ENOSPC, "data.mdb", repeat=True, bytes_min=PAGE)
            wait_until("refusals", lambda: all(b.refusals for b in rig.books), process=rig.engine.process)
            for _ in range(20):
                if any(d.get("wait", {}).get("reason") == "disk" for d in rig.engine.status()["destinations"]):
                    return True
                time.sleep(0.1)
            rig.faults.disarm()
            before = rig.acknowledged()
            wait_until("mail to flow", lambda: rig.acknowledged() > before + 20, process=rig.engine.process)
            return False

        wait_until("the disk to be named", named, process=rig.engine.process)
        queue = next(d["queue"] for d in rig.engine.status()["destinations"]
                     if d.get("wait", {}).get("reason") == "disk")
        wait_until("why to say so", lambda: "the queue's disk or map is full" in rig.engine.command(
            "why", queue), process=rig.engine.process)
        before = rig.acknowledged()
        rests(rig.engine, 2, 0.6)
        assert rig.acknowledged() <= before + len(rig.books), "acknowledged without a commit"
        rig.faults.disarm()
        before = rig.acknowledged()
        wait_until("mail to flow again", lambda: rig.acknowledged() > before + 20,
                   process=rig.engine.process)
        for books in rig.books:
            assert all(r.startswith("452 4.3.1") for _, r in books.stop().refusals), books.refusals
        wait_empty(rig.engine)
        all_arrived(rig.books, rig.sink)


def test_records_cannot_be_written():
    """Mail goes on; the lines wait in the queue and are written when that works again."""
    with Rig() as rig:
        rig.clients(2)
        for err in (errno.ENOSPC, errno.EIO):
            rig.faults.arm(WRITE, 1, err, "/records/", repeat=True)
            wait_until("the fault", rig.faults.hits, process=rig.engine.process)
            before = rig.acknowledged()
            wait_until("mail to flow on", lambda: rig.acknowledged() > before + 50,
                       process=rig.engine.process)
            rig.faults.disarm()
        rig.faults.arm(SYNC, 1, errno.EIO, "/records/")
        wait_until("a failed sync of records", rig.faults.hits, process=rig.engine.process)
        for books in rig.books:
            assert not books.stop().refusals, books.refusals
        wait_empty(rig.engine)
        all_arrived(rig.books, rig.sink)
        n = rig.acknowledged()
        for kind in ("Reception", "Delivery"):
            found = rig.engine.wait_records(kind, n)
            assert len(found) == n, (kind, len(found), n)


def test_no_memory_for_content():
    """A large message that finds no memory costs a refusal of that message and nothing else."""
    with Rig() as rig:
        big = b"From: <a@b.example>\r\n\r\n" + b"y" * 70 + b"\r\n" + (b"z" * 76 + b"\r\n") * 40000
        refused = 0
        for k in range(1, 12):
            with Client(rig.engine) as client:
                rig.faults.arm(MALLOC, k, errno.ENOMEM, bytes_min=1 << 20)
                reply = client.message("big@d1.example", data=big)
                hit = rig.faults.disarm()
                assert reply[:4] in ("250 ", "451 ", "452 "), reply
                assert rig.engine.process.running()
                refused += hit and reply[:3] != "250"
                Client.expect(client.message("small@d1.example"), 250)
        assert refused > 0, "no allocation of content failed"
        wait_empty(rig.engine)
        sizes = {row[4] for row in rig.sink.ledger() if row[3] == "big@d1.example"}
        assert len(sizes) <= 2, sizes  # whole, or not at all


def test_out_of_memory_anywhere():
    """Any one allocation fails: the engine answers, or stops at once and loses nothing."""
    with Rig() as rig:
        rig.clients(2)
        stops = 0
        for k in (1, 3, 10, 30, 100, 300, 1000, 3000):
            rig.faults.arm(MALLOC, k, errno.ENOMEM)
            wait_until("the fault", lambda: rig.faults.hits() or not rig.engine.process.running())
            time.sleep(0.2)
            rig.faults.disarm()
            if not rig.engine.process.running():
                stops += 1
                rig.engine.start()
        for books in rig.books:
            books.stop()
        wait_empty(rig.engine)
        all_arrived(rig.books, rig.sink, duplicates_max=stops * 200)
        print(f"  stopped {stops} times of 8")


def test_signatures_fail():
    """Mail that should be signed and cannot be is deferred, with the reason, and never sent unsigned;
    other mail flows. Later it goes out signed."""
    temp = TempDir("hayauma-signs-")
    keys = temp.path / "keys"
    subprocess.run([program(), "dkim", "keygen", "signed.example", "--selector", "s", "--directory", keys],
                   check=True, capture_output=True)
    with Rig(dkim={"keys": [{"domain": "signed.example", "selector": "s-rsa",
                             "file": str(keys / "signed.example.s-rsa.pem")}]}) as rig:
        rig.faults.arm(SIGN, 1, errno.EIO, repeat=True)
        with Client(rig.engine) as client:
            for author in ("signed.example", "other.example"):
                data = f"From: <a@{author}>\r\nSubject: x\r\n\r\nx\r\n".encode()
                Client.expect(client.message(f"u@{author}", data=data), 250)
        first = rig.engine.wait_records("TransientFailure")[0]
        assert first["recipient"] == "u@signed.example" and first["response"]["code"] == 451, first
        assert first["response"]["enhanced_code"] == {"class": 4, "subject": 7, "detail": 5}, first
        assert "dkim" not in first, first
        rig.engine.wait_records("Delivery")
        assert [row[3] for row in rig.sink.ledger()] == ["u@other.example"], rig.sink.ledger()
        rig.faults.disarm()
        signed = next(r for r in rig.engine.wait_records("Delivery", 2)
                      if r["recipient"] == "u@signed.example")
        assert signed["dkim"] == ["s-rsa._domainkey.signed.example"], signed
        assert rig.engine.status()["counters"]["sign_failures"] >= 1


if __name__ == "__main__":
    run(globals())
