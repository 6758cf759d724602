"""A SOCKS 5 proxy that can also do everything wrong."""

import contextlib
import pathlib
import select
import socket
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from proc import free_port  # noqa: E402


class OddProxy:
    """On a thread of its own, with a thread for each connection. mode:

    good         connects from bind, says so byte by byte, and the greeting with the last of them
    off          takes no connection
    close        closes at once
    http         is another kind of server
    method       takes none of the ways to log in
    login        refuses every password
    slow         says nothing, ever
    refused      answers the request with 5
    half         closes instead of that answer
    silent       never answers it
    """

    def __init__(self, bind, login=None, mode="good", claims="203.0.113.9"):
        self.bind, self.login, self.mode, self.claims = bind, login, mode, claims
        self.host, self.port = "127.0.0.1", free_port()
        self.asked = []  # (address, port) of each request
        self.modes = {}  # of requests for these addresses, instead of mode
        self.open, self.lock = set(), threading.Lock()
        self.listener = None

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def __enter__(self):
        if self.mode != "off":
            self.listen()
        return self

    def __exit__(self, *_):
        self.stop()

    def listen(self):
        listener = socket.create_server((self.host, self.port), backlog=128)
        self.listener = listener
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()

    def stop(self):
        """Takes no connection any more, and ends those that it has."""
        if self.listener:
            with contextlib.suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None
        self.cut()

    def cut(self):
        with self.lock:
            for s in self.open:
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)

    def become(self, mode):
        """Connections that it has end."""
        self.mode = mode
        if mode == "off":
            self.stop()
            return
        if self.listener is None:
            self.listen()
        self.cut()

    def accept(self, listener):
        while True:
            try:
                s, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                self.open.add(s)
            threading.Thread(target=self.guard, args=(s,), daemon=True).start()

    def guard(self, s):
        with contextlib.suppress(OSError, EOFError):
            self.serve(s)
        with self.lock:
            self.open.discard(s)
        s.close()

    @staticmethod
    def take(s, n):
        got = b""
        while len(got) < n:
            more = s.recv(n - len(got))
            if not more:
                raise EOFError
            got += more
        return got

    def serve(self, s):
        mode = self.mode
        if mode in ("close", "http"):
            self.take(s, 3)  # what is unread when a socket is closed makes a reset of its end
        if mode == "close":
            return
        if mode == "http":
            s.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return
        _, count = self.take(s, 2)
        methods = self.take(s, count)
        if mode == "slow":
            self.take(s, 1)
        wanted = 2 if self.login else 0
        s.sendall(bytes((5, wanted if wanted in methods and mode != "method" else 255)))
        if self.login:
            self.check_login(s, mode)
        self.request(s, mode)

    def check_login(self, s, mode):
        user = self.take(s, self.take(s, 2)[1]).decode()
        password = self.take(s, self.take(s, 1)[0]).decode()
        good = (user, password) == self.login and mode != "login"
        s.sendall(bytes((1, 0 if good else 1)))

    def request(self, s, mode):
        to = self.take(s, 10)
        assert to[:4] == b"\5\1\0\1", to
        to = socket.inet_ntoa(to[4:8]), int.from_bytes(to[8:], "big")
        self.asked.append(to)
        mode = self.modes.get(to[0], mode)
        if mode == "refused":
            s.sendall(b"\5\5\0\1\0\0\0\0\0\0")
        elif mode == "silent":
            self.take(s, 1)
        elif mode != "half":
            self.connect(s, to)

    def connect(self, s, to):
        with socket.create_connection(to, source_address=(self.bind, 0)) as out:
            greeting = out.recv(4096)
            answer = b"\5\0\0\1" + socket.inet_aton(self.claims) + (4711).to_bytes(2, "big")
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(len(answer) - 1):
                s.sendall(answer[i:i + 1])
            s.sendall(answer[-1:] + greeting)
            self.relay(s, out)

    @staticmethod
    def relay(s, out):
        other = {s: out, out: s}
        while True:
            for one in select.select([s, out], [], [])[0]:
                got = one.recv(65536)
                if not got:
                    return
                other[one].sendall(got)
