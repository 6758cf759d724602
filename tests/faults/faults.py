"""What the tests of failures share: calls that fail, clients that keep books, a resting process."""

import mmap
import os
import pathlib
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from engine import Engine, Example, Sink, beside, merge, program  # noqa: E402, F401
from proc import (Failure, Process, TempDir, cpu_seconds, free_port,  # noqa: E402, F401
                  resident_bytes, wait_until)
from talk import Client, Skip, run  # noqa: E402, F401

WRITE, SYNC, OPEN, MALLOC, SIGN = 1, 2, 3, 4, 5


class Faults:
    """Makes calls of a process fail: faultlib.c."""

    def __init__(self, directory):
        library = os.environ.get("HAYAUMA_FAULTLIB")
        if not library or not pathlib.Path(library).exists():
            raise Skip("HAYAUMA_FAULTLIB names no library")
        self.file = pathlib.Path(directory) / "fault"
        self.file.write_bytes(bytes(4096))
        with open(self.file, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 4096)
        self.env = {"LD_PRELOAD": library, "FAULT_FILE": str(self.file)}

    def arm(self, call, k, err, path="", repeat=False, bytes_min=0):
        """The k-th such call from now fails; repeat: all later ones too."""
        self.map[4:88] = struct.pack("<iiiiI64s", k, err, int(repeat), 0, bytes_min, path.encode())
        self.map[0:4] = struct.pack("<i", call)

    def set_clock(self, ahead_s):
        self.map[88:96] = struct.pack("<q", ahead_s)

    def disarm(self):
        """How often it struck."""
        self.map[0:4] = bytes(4)
        return self.hits()

    def hits(self):
        return struct.unpack("<i", self.map[16:20])[0]


class Books(threading.Thread):
    """A client that puts one message after another in until told to stop, and keeps what it was
    answered: acknowledged numbers, and every other reply."""

    def __init__(self, engine, number=0, size=2000, domains=4, pause_s=0.002):
        super().__init__(daemon=True)
        self.engine, self.base, self.domains, self.pause_s = engine, number * 1_000_000, domains, pause_s
        self.filler = (b"x" * 70 + b"\r\n") * max(1, size // 72)
        self.acknowledged, self.refusals, self.lost = [], [], 0
        self.go, self.sent = True, 0
        self.start()

    def data(self, seq):
        return (f"From: <a@sender.example>\r\nX-Seq: {seq}\r\nSubject: {seq}\r\n\r\n".encode()
                + self.filler)

    def run(self):
        client = None
        while self.go:
            try:
                client = client or Client(self.engine)
                seq = self.base + self.sent
                self.sent += 1
                reply = client.message(f"u{seq}@d{seq % self.domains}.example", data=self.data(seq))
                if reply.startswith("250"):
                    self.acknowledged.append(seq)
                elif reply:
                    self.refusals.append((time.monotonic(), reply))
                    client.command("RSET")
                else:
                    raise ConnectionError
            except (OSError, Failure):
                self.lost += 1
                client = client and client.close()
                time.sleep(0.05)
            time.sleep(self.pause_s)
        if client:
            client.close()

    def stop(self):
        self.go = False
        self.join(30)
        return self


def received(sink):
    """Numbers in the sink's ledger, with how often they came."""
    count = {}
    for row in sink.ledger():
        if row[7] != "-":
            count[int(row[7])] = count.get(int(row[7]), 0) + 1
    return count


def settings_for(sink, **more):
    """Everything goes to the sink; tried again every second."""
    return merge({"dns": sink.dns(negative_ttl_max="1s"),
                  "destinations": {"*": {"retry": ["1s"], "lifetime": "10m"}}}, more)


def queued(engine):
    queue = engine.status()["queue"]
    return queue["rows"] if queue["rows_complete"] else -1


def wait_empty(engine, timeout_s=60):
    wait_until("an empty queue", lambda: queued(engine) == 0, timeout_s, 0.2, engine.process)


def all_arrived(books, sink, duplicates_max=0):
    """Nothing that was acknowledged is missing."""
    got = received(sink)
    missing = [seq for b in books for seq in b.acknowledged if seq not in got]
    again = sum(n - 1 for n in got.values())
    assert not missing, f"{len(missing)} acknowledged messages are missing: {missing[:10]}"
    assert again <= duplicates_max, f"{again} duplicates"


def shown(engine):
    """All that an engine lets anybody read: log, status, queue, configuration, records."""
    return "\n".join([engine.log(), engine.command("status", "--json"),
                      engine.command("queue", "list", "--json"), engine.command("config", "show"),
                      *(p.read_text() for p in (engine.dir / "records").glob("*"))])


def rests(engine, seconds=2.0, share_max=0.25):
    """The process uses little of a CPU: nothing spins."""
    before = cpu_seconds(engine.process.pid)
    time.sleep(seconds)
    used = cpu_seconds(engine.process.pid) - before
    assert used <= share_max * seconds, f"{used:.2f} s of CPU in {seconds} s"
