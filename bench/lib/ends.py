"""Both ends of a measured path: Postfix's smtp-source and smtp-sink, and Hayauma's own."""

import os
import pathlib
import subprocess
import time

import peers
from proc import Failure, Process, TempDir, free_port, wait_port

POSTFIX = peers.TREES / "postfix/usr"
POSTFIX_ENV = {"LD_LIBRARY_PATH": str(POSTFIX / "lib/postfix")}


class PostfixSink:
    """smtp-sink. What it took is seen in the bytes that it read, which costs it nothing: its own
    counters take a fifth of its speed, and its -M ends it before its last replies."""

    def __init__(self):
        self.temp = TempDir("hayauma-smtp-sink-")
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process = Process([POSTFIX / "sbin/smtp-sink", "-u", "root", self.address, "4096"],
                               self.temp.path / "log", env=POSTFIX_ENV, cwd=self.temp.path)
        wait_port(("127.0.0.1", self.port), self.process)

    def bytes_read(self):
        io = pathlib.Path(f"/proc/{self.process.pid}/io").read_text()
        return int(io.split("rchar: ")[1].split()[0])

    def wait(self, bytes_min, timeout_s):
        """Until at least bytes_min were read and no more come; when the last ones came."""
        end = time.monotonic() + timeout_s
        last, last_at = 0, time.monotonic()
        while True:
            now, read = time.monotonic(), self.bytes_read()
            if read != last:
                last, last_at = read, now
            elif read >= bytes_min and now - last_at > 0.5:
                return last_at
            if now > end:
                raise Failure(f"smtp-sink took {read} bytes of {bytes_min} in {timeout_s} s")
            time.sleep(0.02)

    def stop(self):
        self.process.kill()
        self.temp.close()


def postfix_source_argv(address, count, size, sessions):
    return [str(POSTFIX / "sbin/smtp-source"), "-d", "-s", str(sessions), "-m", str(count), "-l",
            str(size), "-f", "sender@source.example", "-t", "someone@sink.example", address]


def postfix_source(address, count, size, sessions):
    """Sends count messages, keeping its sessions open; returns once all were accepted."""
    done = subprocess.run(postfix_source_argv(address, count, size, sessions),
                          env={**os.environ, **POSTFIX_ENV}, capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise Failure(f"smtp-source: {done.stderr}")


def through(relay_of, count, size, sessions, timeout_s=120):
    """Messages through a relay between smtp-source and smtp-sink; relay_of(target) makes it, None
    is the two without a server between. Returns rate and CPU per message."""
    sink = PostfixSink()
    relay = relay_of(sink.address).start() if relay_of else None
    try:
        target = "%s:%d" % relay.address() if relay else sink.address
        cpu = relay.cpu_s() if relay else 0
        start = time.monotonic()
        postfix_source(target, count, size, sessions)
        accepted_s = time.monotonic() - start
        taken_s = sink.wait(count * size, timeout_s) - start
        cpu = relay.cpu_s() - cpu if relay else 0
        return {
            "server": relay.name if relay else "none",
            "version": relay.version if relay else "",
            "messages": count, "message_bytes": size, "sessions": sessions,
            "messages_per_s": round(count / taken_s, 1),
            "accepted_per_s": round(count / accepted_s, 1),
            "cpu_us_per_message": round(cpu / count * 1e6, 1),
            "settings": relay.settings() if relay else "",
        }
    finally:
        if relay:
            relay.stop()
        sink.stop()
