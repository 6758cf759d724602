"""What the tests of the tools share: running a tool, and a session written by hand."""

import pathlib
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
import ledger_check  # noqa: E402, F401
from engine import Sink, only_program, program  # noqa: E402, F401
from proc import Process, TempDir, free_port, resident_bytes, wait_port, wait_until  # noqa: E402, F401
from talk import Skip, run  # noqa: E402, F401

only_program()


def tool(*arguments, text=None, status=0, timeout_s=60):
    """Runs `hayauma ARGUMENTS`, expects its exit status, returns what it said."""
    done = subprocess.run([program(), *map(str, arguments)], capture_output=True, text=True,
                          input=text, timeout=timeout_s, check=False)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done


class Session:
    """SMTP by hand: sends lines, reads whole replies."""

    def __init__(self, sink, host=None, hello="EHLO me.example", timeout_s=10):
        self.socket = socket.create_connection((host or sink.host, sink.port), timeout=timeout_s)
        self.file = self.socket.makefile("rb")
        if hello:
            self.banner = self.reply()
            self.hello = self.command(hello)

    def reply(self):
        """The reply's lines joined by LF; empty at the end of the stream."""
        lines = []
        while True:
            line = self.file.readline().decode()
            lines.append(line.rstrip("\r\n"))
            if len(line) < 4 or line[3] != "-":
                return "\n".join(lines)

    def command(self, line):
        self.socket.sendall(line.encode() + b"\r\n")
        return self.reply()

    def mail(self, recipient, sender="s@source.example", body="Subject: x\r\n\r\nHello\r\n"):
        """A whole transaction; the first reply that is none of success, or the last."""
        for line in (f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>", "DATA", body + "."):
            reply = self.command(line)
            if reply[:1] not in ("2", "3"):
                break
        if reply[:1] in ("4", "5") and not reply.startswith("421"):
            self.command("RSET")
        return reply

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
