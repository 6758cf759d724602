"""What the tests of signatures share: receivers that keep what they take, keys, a zone with them."""

import contextlib
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
sys.path.insert(0, str(HERE.parent / "interop"))
import peers  # noqa: E402, F401
from engine import Engine, merge, program  # noqa: E402, F401
from proc import Failure, Process, TempDir, free_port, wait_until  # noqa: E402, F401
from talk import Client, Listener, Skip, run  # noqa: E402, F401

FULL = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 60000000")
CHUNKS = (*FULL, "CHUNKING")
OLD = ("PIPELINING",)


class Receiver(Listener):
    """Takes mail by DATA and BDAT. `taken`: (recipients, content, size said in MAIL). hook, if there
    is one, is called with each command's verb and its connection before the answer."""

    def __init__(self, offers, hook=None):
        self.offers, self.hook, self.taken = offers, hook, []
        super().__init__()

    def session(self, peer):
        with peer, contextlib.suppress(OSError):
            lines = peer.makefile("rb")
            recipients, size, chunks = [], None, b""
            peer.sendall(b"220 peer.example ESMTP\r\n")
            while line := lines.readline():
                words = line.decode().split()
                verb = words[0].upper()
                if self.hook:
                    self.hook(verb, peer)
                if verb == "EHLO":
                    offers = ["peer.example", *self.offers]
                    peer.sendall("".join(f"250{'-' if i < len(offers) - 1 else ' '}{o}\r\n"
                                         for i, o in enumerate(offers)).encode())
                elif verb == "MAIL":
                    recipients, chunks = [], b""
                    said = re.search(rb"SIZE=(\d+)", line)
                    size = int(said[1]) if said else None
                    peer.sendall(b"250 ok\r\n")
                elif verb == "RCPT":
                    recipients.append(line.decode().split("<")[1].split(">")[0])
                    peer.sendall(b"250 ok\r\n")
                elif verb == "DATA":
                    peer.sendall(b"354 go\r\n")
                    content = []
                    while (text := lines.readline()) not in (b".\r\n", b""):
                        content.append(text[1:] if text.startswith(b".") else text)
                    if not text:
                        return
                    self.taken.append((recipients, b"".join(content), size))
                    peer.sendall(b"250 taken\r\n")
                elif verb == "BDAT":
                    chunk = lines.read(int(words[1]))
                    if len(chunk) < int(words[1]):
                        return
                    chunks += chunk
                    if words[-1].upper() == "LAST":
                        self.taken.append((recipients, chunks, size))
                    peer.sendall(b"250 taken\r\n")
                elif verb == "QUIT":
                    peer.sendall(b"221 bye\r\n")
                    return
                else:
                    peer.sendall(b"250 ok\r\n")

    def contents(self, user):
        return [content for recipients, content, _ in self.taken
                if any(r.startswith(f"{user}@") for r in recipients)]


def hayauma(*arguments, status=0, text=None):
    done = subprocess.run([program(), *map(str, arguments)], capture_output=True, timeout=60,
                          check=False, **({"input": text} if text is not None
                                          else {"stdin": subprocess.DEVNULL}))
    if done.returncode != status:
        raise Failure(f"hayauma {arguments}: {done.returncode}, not {status}\n"
                      f"{done.stdout.decode()}\n{done.stderr.decode()}")
    return done


class Keys:
    """Keys that `hayauma dkim keygen` made: their files, and the zone lines that it printed."""

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        self.zone, self.rows = "", []

    def make(self, domain, selector="s1", kinds=("rsa", "ed25519"), **more):
        printed = hayauma("dkim", "keygen", domain, "--selector", selector, "--directory",
                          self.dir).stdout.decode()
        self.zone += "".join(f"{line}\n" for line in printed.splitlines() if line[:1] != ";")
        for kind in kinds:
            self.rows.append({"domain": domain, "selector": f"{selector}-{kind}",
                              "file": str(self.dir / f"{domain}.{selector}-{kind}.pem"), **more})
        return printed

    def published(self):
        """Name of each key in DNS: its record."""
        return {entry.split(".example. ")[0] + ".example": "".join(re.findall('"([^"]*)"', entry))
                for entry in self.zone.split(" )\n") if entry}


def signatures(content):
    """The DKIM-Signature fields at the top, unfolded, as dictionaries of their tags."""
    found = []
    head = re.sub(rb"\r\n[ \t]+", b" ", content.split(b"\r\n\r\n", 1)[0]).decode("utf-8", "replace")
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name != "DKIM-Signature":
            break
        found.append({k.strip(): v.strip() for k, _, v in (
            tag.partition("=") for tag in value.split(";"))})
    return found


class World:
    """An engine that signs, and receivers, each for a domain of its name."""

    def __init__(self, receivers, dkim, keys=None, settings=None):
        self.temp = TempDir("hayauma-dkim-")
        self.receivers = receivers
        self.engine = Engine(merge({
            "workers": 2, "log_level": "debug",
            "routes": {f"{name}.example": f"[127.0.0.1]:{r.port}" for name, r in receivers.items()},
            "destinations": {"*": {"retry": ["1s"], "lifetime": "10m"}},
            "dkim": {"keys": keys.rows if keys else [], **dkim},
        }, settings or {}), directory=self.temp.path / "engine").start()

    def send(self, data, *recipients, sender="a@sender.example", chunked=False):
        with Client(self.engine) as client:
            if not chunked:
                stuffed = b"\r\n".join(b"." + line if line.startswith(b".") else line
                                       for line in data.split(b"\r\n"))
                client.expect(client.message(*recipients, sender=sender, data=stuffed), 250)
                return
            client.envelope(*recipients, sender=sender)
            client.send(b"BDAT %d LAST\r\n" % len(data) + data)
            client.expect(client.reply(), 250)

    def wait(self, name, count, timeout_s=40):
        receiver = self.receivers[name]
        wait_until(f"{count} at {name}, there are {len(receiver.taken)}",
                   lambda: len(receiver.taken) >= count, timeout_s, process=self.engine.process)
        return receiver.taken

    def counters(self):
        return self.engine.status()["counters"]

    def finish(self):
        self.engine.stop(timeout_s=60)
        for receiver in self.receivers.values():
            receiver.close()
