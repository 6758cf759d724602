"""SMTP by hand from both ends, and a runner for test functions."""

import contextlib
import os
import socket
import sys
import threading
import time
import traceback

from proc import Failure, wait_until

SKIPPED = 77
MESSAGE = b"From: <a@sender.example>\r\nSubject: test\r\n\r\nhello\r\n"


class Skip(Exception):
    """This machine lacks what a case needs."""


def run(module):
    """Runs module's test_* functions, or those named on the command line, and exits."""
    names, failed, passed = sys.argv[1:], 0, 0
    unknown = [name for name in names if not name.startswith("test_") or name not in module]
    if unknown:
        sys.exit(f"no such test: {' '.join(unknown)}; there are: "
                 f"{' '.join(name for name in module if name.startswith('test_'))}")
    for name, function in list(module.items()):
        if not name.startswith("test_") or (names and name not in names):
            continue
        began = time.monotonic()
        try:
            function()
            passed += 1
            print(f"ok {name} ({time.monotonic() - began:.1f} s)", flush=True)
        except Skip as why:
            print(f"skipped {name}: {why}", flush=True)
        except Exception:  # pylint: disable=broad-except
            failed += 1
            print(f"FAILED {name}\n{traceback.format_exc()}", flush=True)
            if os.environ.get("HAYAUMA_KEEP"):
                break
    sys.exit(1 if failed else 0 if passed else SKIPPED)


def check(what, got, wanted):
    if got != wanted:
        raise Failure(f"{what}: {got!r}, not {wanted!r}")


def read_all(connection):
    """All that comes until the end of the connection, which must come."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            got += part
    return got


class Client:
    """A session with the engine: sends bytes, reads replies. Closes without QUIT."""

    def __init__(self, engine, hello="client.example", source=None, host=None, timeout_s=15,
                 port=None, receive_buffer=0):
        self.socket = socket.socket(socket.AF_INET6 if ":" in (host or "") else socket.AF_INET)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout_s)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((host or engine.host, port or engine.port))
        self.file = self.socket.makefile("rb")
        if hello:
            self.expect(self.reply(), 220)
            self.expect(self.command(f"EHLO {hello}"), 250)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    def reset(self):
        """Ends with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def announce(self, header, together):
        """A balancer's header, in one packet with what is sent next or not."""
        self.socket.sendall(header, socket.MSG_MORE if together else 0)

    def encrypt(self, context, name="mta.sender.example"):
        """The session's handshake, here and now."""
        self.file.close()
        self.socket = context.wrap_socket(self.socket, server_hostname=name,
                                          suppress_ragged_eofs=False)
        self.file = self.socket.makefile("rb")

    def starttls(self, context, name="mta.sender.example", hello="client.example"):
        self.expect(self.command("STARTTLS"), 220)
        self.encrypt(context, name)
        return self.expect(self.command(f"EHLO {hello}"), 250)

    @staticmethod
    def expect(reply, *codes):
        if not reply or int(reply[:3]) not in codes:
            raise Failure(f"expected {codes}, got {reply!r}")
        return reply

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def reply(self):
        """A whole reply, lines joined by newlines; '' at the end of the connection."""
        lines = []
        while True:
            try:
                line = self.file.readline().decode(errors="replace")
            except ConnectionError:
                return ""
            if not line.endswith("\r\n"):
                return ""
            lines.append(line[:-2])
            if line[3:4] != "-":
                return "\n".join(lines)

    def command(self, line):
        """'' when the connection has ended."""
        try:
            self.send(f"{line}\r\n")
        except ConnectionError:
            return ""
        return self.reply()

    def envelope(self, *recipients, sender="a@sender.example"):
        self.expect(self.command(f"MAIL FROM:<{sender}>"), 250)
        for recipient in recipients:
            self.expect(self.command(f"RCPT TO:<{recipient}>"), 250)

    def message(self, *recipients, sender="a@sender.example", data=MESSAGE):
        """One message; the reply to its end, or to the first command that was refused."""
        for line in (f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{r}>" for r in recipients), "DATA"):
            reply = self.command(line)
            if reply[:1] not in ("2", "3"):
                return reply
        self.send(data + b".\r\n")
        return self.reply()

    def messages(self, mails, at_once=200):
        """(sender, recipient, data) each, at_once of them in a round trip; all must be accepted."""
        for first in range(0, len(mails), at_once):
            some = mails[first:first + at_once]
            self.send("".join(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\n"
                              f"BDAT {len(data)} LAST\r\n{data}" for sender, recipient, data in some))
            for _ in range(3 * len(some)):
                self.expect(self.reply(), 250)

    def ended(self, timeout_s=10):
        """Whether the engine closes the connection in time, whatever it says before."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                if not self.socket.recv(65536):
                    return True
            except ConnectionError:
                return True
            except TimeoutError:
                break
        return False


def forwarder(port, silent=()):
    """A port that leads to port, as a balancer's or a router's does. Peers of these addresses are taken, and hear
    nothing."""
    def copy(come, go):
        with contextlib.suppress(OSError):
            while data := come.recv(65536):
                go.sendall(data)
            go.shutdown(socket.SHUT_WR)

    def run_it():
        kept = []
        while True:
            peer, address = listener.accept()
            if address[0] in silent:
                kept.append(peer)
                continue
            to = socket.create_connection(("127.0.0.1", port))
            for pair in ((peer, to), (to, peer)):
                threading.Thread(target=copy, args=pair, daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=run_it, daemon=True).start()
    return listener.getsockname()[1]


class Listener(threading.Thread):
    """A server: session(peer) of each connection runs in a thread of its own. What sessions look at must
    be there before this class's __init__, which begins to take them."""

    def __init__(self, host="127.0.0.1", port=0):
        super().__init__(daemon=True)
        self.listener = socket.create_server((host, port))
        self.port = self.listener.getsockname()[1]
        self.sessions = 0
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                peer = self.listener.accept()[0]
                self.sessions += 1
                threading.Thread(target=self.session, args=(peer,), daemon=True).start()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes run()
        self.listener.close()


def sessions(engine):
    return engine.status()["gauges"]["sessions_in"]


def wait_no_sessions(engine, timeout_s=10):
    """Also the one that saw the port open: a session counts until its socket is closed."""
    wait_until("all sessions to end", lambda: sessions(engine) == 0, timeout_s,
               process=engine.process)
