"""Sources on loopback, and a sink that tells who its mail came from."""

import collections
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from engine import Sink  # noqa: E402
from proc import wait_until  # noqa: E402
from talk import Client  # noqa: E402


def source(number):
    return {"ipv4": f"127.0.0.{10 + number}", "ehlo_name": f"a{number}.sender.example"}


class Receiver(Sink):
    """A sink that writes its sessions down."""

    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        self.sessions_file = self.dir / "sessions"
        self.arguments = (*self.arguments, "--sessions", self.sessions_file)

    def peers(self):
        """Who each session is from: session -> (address, EHLO name)."""
        try:
            lines = self.sessions_file.read_text().split("\n")[:-1]
        except FileNotFoundError:
            lines = []
        return {row[1]: (row[2], row[3]) for row in (line.split("\t") for line in lines)}

    def mails(self):
        """(time in ms, source's number, EHLO name, sender, recipient) of each."""
        rows, peers = self.ledger(), self.peers()
        return [(int(row[0]), int(peers[row[1]][0].split(".")[3]) - 10, peers[row[1]][1], row[2], row[3])
                for row in rows]

    def shares(self, since=0):
        """How many came from each source, behind the first so many."""
        return collections.Counter(mail[1] for mail in self.mails()[since:])

    def wait_mails(self, count, timeout_s=60):
        wait_until(f"{count} messages at the sink", lambda: len(self.ledger()) >= count, timeout_s)


def settings(sink, sources, pools=None, **more):
    """Configuration of an engine whose mail goes to the sink, as one site, with sources of these
    numbers."""
    config = {"workers": 2, "routes": {"*": f"[{sink.host}]:{sink.port}"}, "dns": sink.dns(),
              "sources": {f"a{n}": source(n) for n in sources}}
    if pools:
        config["pools"] = pools
    return {**config, **more}


def inject(engine, count, domains=("x.example",), header="", sender="a@sender.example", first=0):
    body = f"{header}Subject: test\r\n\r\ntext\r\n"
    with Client(engine) as client:
        client.messages([(sender, f"r{first + i}@{domains[i % len(domains)]}", body)
                         for i in range(count)])
