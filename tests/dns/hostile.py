#!/usr/bin/env python3
"""The resolver against a server that answers wrongly, late, in pieces, or not at all. Each lookup must
end, in time, with the answer or as a temporary failure.

usage: hostile.py DNS_LOOKUP"""

import errno
import os
import pathlib
import random
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lookup import Checks, Lookup  # noqa: E402

A, MX, AAAA, TLSA, ADDRESS = 1, 15, 28, 52, bytes([192, 0, 2, 1])
AD = 0x20  # of the header's fourth byte
TIMEOUT_MS = 300


def question_of(query):
    """name as text, type, bytes of the question."""
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += query[at] + 1
    return ".".join(labels), struct.unpack(">H", query[at + 1:at + 3])[0], query[12:at + 5]


def wire_name(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def rr(kind, data, ttl=60, owner=b"\xc0\x0c"):
    return owner + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data


def reply(query, records, rcode=0, flags=0x8180, count=None):
    return (query[:2] + struct.pack(">HHHHH", flags | rcode, 1,
                                    len(records) if count is None else count, 0, 0)
            + question_of(query)[2] + b"".join(records))


def good(query):
    """An address for every name, no exchangers, no IPv6."""
    _, kind, _ = question_of(query)
    return reply(query, [rr(A, ADDRESS)] if kind == A else [])


class Server:
    """Answers over UDP and TCP on one port as the handlers of the first label say."""

    def __init__(self, handlers=None, host="127.0.0.1"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.handlers = handlers or {}
        self.asked = 0
        self.ports = set()
        while True:  # until a port is free for both
            self.tcp = socket.socket(family)
            self.udp = socket.socket(family, socket.SOCK_DGRAM)
            self.tcp.bind((host, 0))
            port = self.tcp.getsockname()[1]
            try:
                self.udp.bind((host, port))
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        self.tcp.listen()
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for loop in (self.serve_udp, self.serve_tcp):
            threading.Thread(target=loop, daemon=True).start()

    def handler(self, query):
        return self.handlers.get(question_of(query)[0].split(".")[0].rstrip("0123456789"),
                                 self.handlers.get("*", plain))

    def serve_udp(self):
        while True:
            query, peer = self.udp.recvfrom(65535)
            self.asked += 1
            self.ports.add(peer[1])
            for packet in self.handler(query)(query, None):
                if isinstance(packet, bytes):
                    self.udp.sendto(packet, peer)

    def serve_tcp(self):
        while True:
            stream, _ = self.tcp.accept()
            threading.Thread(target=self.serve_stream, args=(stream,), daemon=True).start()

    def serve_stream(self, stream):
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                head = stream.recv(2, socket.MSG_WAITALL)
                if len(head) < 2:
                    break
                query = stream.recv(struct.unpack(">H", head)[0], socket.MSG_WAITALL)
                for _ in self.handler(query)(query, stream):
                    pass
        except OSError:
            pass
        stream.close()


def plain(query, stream):
    yield good(query)


def silent(query, stream):
    yield from ()


def with_rcode(rcode):
    def answer(query, stream):
        yield reply(query, [], rcode=rcode)
    return answer


def garbage(query, stream):
    dice = random.Random(query[12:])
    for _ in range(20):
        yield query[:2] + dice.randbytes(dice.randrange(600))
        yield query[:2] + b"\x81\x80" + dice.randbytes(dice.randrange(600))
        whole = bytearray(good(query))
        whole[dice.randrange(12 + 1, len(whole))] = dice.randrange(256)
        yield dice.randbytes(2) + bytes(whole[2:])


def cut(query, stream):
    """The last bytes of the only record are missing."""
    yield good(query)[:-3] if question_of(query)[1] == A else good(query)


def counts(query, stream):
    """More records promised than there are."""
    yield reply(query, [rr(A, ADDRESS)], count=65535)


def wrong_question(query, stream):
    yield query[:2] + good(query)[2:12] + wire_name("else.test") + query[-4:]


def wrong_id_first(query, stream):
    yield bytes([query[0] ^ 1]) + good(query)[1:]
    yield good(query)


def not_an_answer(query, stream):
    yield reply(query, [rr(A, ADDRESS)], flags=0x0180)


def empty_datagram(query, stream):
    yield b""
    yield good(query)


def loop_pointer(query, stream):
    yield reply(query, [rr(MX, b"\0\x0a\xc0" + bytes([len(query) + 14])), rr(A, ADDRESS)])


def cname_loop(query, stream):
    yield reply(query, [rr(5, b"\xc0\x0c")])


def soa(owner):
    return rr(6, wire_name("ns.test") + wire_name("root.test") + struct.pack(">IIIII", 1, 60, 60, 60, 30),
              owner=owner)


def alias_step(query, stream):
    """aliasN is a CNAME of aliasN-1, and nothing is said of that: what a server answers that does not
    serve the target's zone. alias0 has an address."""
    name, kind, _ = question_of(query)
    step = int(name.split(".")[0].removeprefix("alias"))
    if step == 0:
        yield good(query)
    else:
        yield reply(query, [rr(5, wire_name(f"alias{step - 1}.test"))])


def alias_circle(query, stream):
    """circle0 -> circle1 -> ... without an end, one CNAME an answer."""
    step = int(question_of(query)[0].split(".")[0].removeprefix("circle"))
    yield reply(query, [rr(5, wire_name(f"circle{step + 1}.test"))])


def alias_gone(query, stream):
    """A CNAME of a name that does not exist."""
    name = question_of(query)[0]
    if name.startswith("aliasgone"):
        yield reply(query, [rr(5, wire_name("missing.test"))])
    else:
        yield reply(query, [], rcode=3)


def alias_denied(query, stream):
    """A CNAME of a name without the data, as the zone's SOA says."""
    message = reply(query, [rr(5, wire_name("bare.test")), soa(wire_name("test"))], count=1)
    yield message[:8] + b"\0\1" + message[10:]


def over_tcp(send):
    """Truncated over UDP; send(stream, message) over TCP."""
    def answer(query, stream):
        if stream is None:
            yield reply(query, [], flags=0x8380)
            return
        message = good(query)
        send(stream, struct.pack(">H", len(message)) + message)
        yield None
    return answer


def by_bytes(stream, message):
    """A few times a byte alone: a loaded machine takes a hundred pauses for a timeout."""
    for i in range(12):
        stream.sendall(message[i:i + 1])
        time.sleep(0.001)
    stream.sendall(message[12:])


def half(stream, message):
    stream.sendall(message[:len(message) // 2])
    stream.close()


def reset(stream, message):
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


def big(query, stream):
    """A full 64 KiB of exchangers, with owner names as costly as can be."""
    if question_of(query)[1] != MX:
        yield good(query)
        return
    if stream is None:
        yield reply(query, [], flags=0x8380)
        return
    records, size = [], 0
    while size < 65000:
        records.append(rr(MX, struct.pack(">H", len(records)) + wire_name(f"h{len(records)}.big")))
        size += len(records[-1])
    message = reply(query, records)
    stream.sendall(struct.pack(">H", len(message)) + message)
    yield None


def endless(stream, message):
    for _ in range(200):
        stream.sendall(struct.pack(">H", 65535) + b"\0" * 65535)


HANDLERS = {
    "ok": plain, "silent": silent, "servfail": with_rcode(2), "refused": with_rcode(5),
    "formerr": with_rcode(1), "notimp": with_rcode(4), "rcode": with_rcode(11),
    "garbage": garbage, "cut": cut, "counts": counts, "wrongquestion": wrong_question,
    "wrongid": wrong_id_first, "notanswer": not_an_answer, "empty": empty_datagram, "pointer": loop_pointer,
    "cnameloop": cname_loop, "tcp": over_tcp(socket.socket.sendall),
    "tcpbytes": over_tcp(by_bytes), "tcphalf": over_tcp(half), "tcpreset": over_tcp(reset),
    "tcpsilent": over_tcp(lambda stream, message: None), "tcpendless": over_tcp(endless),
    "big": big,
}
ALIASES = {"alias": alias_step, "circle": alias_circle, "aliasgone": alias_gone, "missing": alias_gone,
           "denied": alias_denied}
GOOD = {"ok", "wrongid", "tcp", "tcpbytes", "big"}


def check_all(checks, program):
    """One kind of malice after the other, then all at once; the good ones must not suffer."""
    server = Server(HANDLERS)
    for together in (False, True):
        with Lookup(program, [server.address], "-t", str(TIMEOUT_MS), "-r", "2") as lookup:
            names = [f"{name}{i}.test" for name in HANDLERS for i in range(1 + 4 * together)]
            random.Random(1).shuffle(names)
            answers = (lookup.ask_all(names) if together
                       else {name: lookup.ask(name) for name in names})
            for name in names:
                answer, kind = answers[name], name.split(".")[0].rstrip("0123456789")
                if kind == "empty":  # an empty datagram breaks what was asked at that moment
                    continue
                # Together with resets and cut streams a shared stream may fail its neighbours.
                if together and (kind.startswith("tcp") or kind == "big"):
                    continue
                checks.equal(f"{name}: status ({answer['error']}), together {together}",
                             answer["status"], "ok" if kind in GOOD else "temporary")
                checks.true(f"{name}: ended after {answer['took_ms']} ms, together {together}",
                            answer["took_ms"] < 10 * TIMEOUT_MS)
            checks.equal("still works", lookup.ask("ok99.test")["status"], "ok")
            checks.equal("in flight", lookup.counters()["in_flight"], 0)


def check_aliases(checks, program):
    """A CNAME that is answered without its target is followed, not a failure, and not for ever."""
    server = Server(ALIASES)
    rows = [("alias1", "ok", ""), ("alias12", "ok", ""), ("alias13", "temporary", "CNAME chain too long"),
            ("circle0", "temporary", "CNAME chain too long"), ("aliasgone", "no_domain", "no such domain"),
            ("denied", "no_host", "no address")]
    with Lookup(program, [server.address], "-t", str(TIMEOUT_MS)) as lookup:
        for name, status, error in rows:
            server.asked = 0
            answer = lookup.ask(f"{name}.test", "host")
            checks.equal(f"{name}: status ({answer['error']})", answer["status"], status)
            checks.true(f"{name}: {answer['error']!r} has {error!r}", error in answer["error"])
            checks.true(f"{name}: {server.asked} questions", server.asked <= 2 * 13)
        checks.equal("denied: A and AAAA, nothing more", server.asked, 2)
        answer = lookup.ask("alias2.test")  # no MX at the end of the chain: its address is
        checks.equal("alias2 as a mail domain", (answer["status"], answer["implicit"]), ("ok", True))
    with Lookup(program, [server.address], "-t", str(TIMEOUT_MS)) as lookup:  # ends in the middle
        lookup.send(*(f"domain {name}.test" for name, _, _ in rows), "sleep 1")


def validated(query, stream):
    """Says AD of all it says, but where it is asked without AD. alias -> far, which is another answer;
    of near's far the first answer is not validated."""
    name, kind, _ = question_of(query)
    target = {"alias.test": "far.test", "near.test": "far.test"}.get(name)
    if target:
        records = [rr(5, wire_name(target))]
    elif kind == TLSA:
        records = [rr(TLSA, data) for data in (b"\3\1\1" + bytes(32), b"", b"\3\1\1")]
    else:
        records = [rr(A, ADDRESS)] if kind == A else []
    secure = query[3] & AD and name != "near.test"
    yield reply(query, records, flags=0x8180 | (AD if secure else 0))


def large(query, stream):
    """Records beyond 512 bytes, which come over TCP."""
    if question_of(query)[1] != TLSA:
        yield from validated(query, stream)
    elif stream is None:
        yield reply(query, [], flags=0x83a0)
    else:
        message = reply(query, [rr(TLSA, b"\3\0\0" + bytes(1500))] * 4, flags=0x81a0)
        stream.sendall(struct.pack(">H", len(message)) + message)


def check_validated(checks, program):
    """The AD bit is asked for and believed where the configuration says so, and of a whole chain of
    answers."""
    server = Server({"*": validated})
    three = " 35 0 3"
    rows = [("plain.test", "plain.test" + three), ("alias.test", "far.test" + three), ("near.test", None)]
    for options in ((), ("-a",)):
        with Lookup(program, [server.address], "-t", "9000", *options) as lookup:
            for name, tlsa in rows:
                host = lookup.ask(name, "host")["hosts"][0]
                checks.equal(f"TLSA of {name} {options}", host[2:], [tlsa] if tlsa and options else [])
            checks.equal(f"secure {options}", lookup.ask("plain.test")["secure"], bool(options))
    large_one = Server({"*": large})
    with Lookup(program, [large_one.address], "-t", "9000", "-a") as lookup:
        checks.equal("over TCP", lookup.ask("a.test", "host")["hosts"][0][2:], ["a.test" + " 1503" * 4])


BEYOND = "192.0.2.53"  # an address that is not loopback's, in a network of our own


def beyond_loopback(program):
    """Source ports of questions to a resolver beyond loopback (RFC 5452 9.2)."""
    run = subprocess.run
    run(["ip", "link", "set", "lo", "up"], check=True)
    run(["ip", "address", "add", f"{BEYOND}/32", "dev", "lo"], check=True)
    checks, server, count = Checks(), Server({"tcp": over_tcp(socket.socket.sendall)}, host=BEYOND), 2000
    with Lookup(program, [server.address]) as lookup:
        for first in range(0, count, 100):
            answers = lookup.ask_all([f"p{i}.test" for i in range(first, first + 100)], "host")
            checks.equal("statuses", {a["status"] for a in answers.values()}, {"ok"})
        checks.equal("tcp", lookup.ask("tcp.test")["status"], "ok")
    ports = len(server.ports)
    print(f"{server.asked} questions from {ports} source ports")
    checks.true(f"{ports} source ports for {server.asked} questions", ports * 24 > server.asked)
    checks.exit()


def check_ports(checks, program):
    """In a network of its own where that may be had."""
    own = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*own, "ip", "link"], capture_output=True).returncode != 0:
        print("NOT CHECKED: source ports (no network namespace, or no ip)")
        return
    checks.equal("source ports", subprocess.run([*own, sys.executable, __file__, program,
                                                 "beyond-loopback"]).returncode, 0)


def check_failover(checks, program):
    """The next server is asked; one that is silent is not asked first for long."""
    dead, refusing, fine = Server({"*": silent}), Server({"*": with_rcode(5)}), Server()
    with Lookup(program, [dead.address, refusing.address, fine.address], "-t",
                str(TIMEOUT_MS)) as lookup:
        first = lookup.ask("one.test")
        checks.equal("failover", first["status"], "ok")
        checks.true(f"failover waits once: {first['took_ms']}", first["took_ms"] >= TIMEOUT_MS)
        asked = dead.asked
        for i in range(20):
            checks.equal("after failover", lookup.ask(f"more{i}.test")["status"], "ok")
        checks.equal("the dead one is left alone", dead.asked, asked)
    # A server that answers others is not to blame for the names it does not answer.
    first, second = Server(HANDLERS), Server()
    with Lookup(program, [first.address, second.address], "-t", str(TIMEOUT_MS)) as lookup:
        lookup.ask_all(["silent.test", "ok1.test", "ok2.test"], "host")
        asked = second.asked
        checks.true("the silent name went on to the second", asked > 0)
        checks.equal("the first is asked on", lookup.ask("ok3.test")["status"], "ok")
        checks.equal("the second is left alone", second.asked, asked)
    with Lookup(program, [refusing.address], "-t", str(TIMEOUT_MS)) as lookup:
        refusing.asked = 0
        answer = lookup.ask("x.test")
        checks.equal("refused", (answer["status"], answer["error"]),
                     ("temporary", "MX lookup for x.test: resolver answered REFUSED"))
        checks.equal("a refusal is not asked for twice", refusing.asked, 1)
    with Lookup(program, ["127.0.0.1:9"], "-t", str(TIMEOUT_MS)) as lookup:
        answer = lookup.ask("x.test")
        checks.equal("nobody there", (answer["status"], answer["error"]),
                     ("temporary", "MX lookup for x.test: resolver 127.0.0.1:9 cannot be reached"))


def check_close(checks, program):
    """Ends with questions open over UDP and TCP, and with answers that nobody took."""
    server = Server(HANDLERS)
    for wait_ms in (0, 1, 20):
        lookup = Lookup(program, [server.address])
        lookup.send(*(f"domain {name}.test" for name in HANDLERS), f"sleep {wait_ms}")
        lookup.close()
        checks.done += 1


def check_ipv6(checks, program):
    try:
        server = Server({"tcp": over_tcp(socket.socket.sendall)}, host="::1")
    except OSError:
        print("no IPv6 here")
        return
    with Lookup(program, [server.address]) as lookup:
        for name in ("ok.test", "tcp.test"):
            checks.equal(f"{name} over IPv6", lookup.ask(name)["status"], "ok")


def main():
    if sys.argv[2:] == ["beyond-loopback"]:
        beyond_loopback(sys.argv[1])
    checks = Checks()
    check_aliases(checks, sys.argv[1])
    check_validated(checks, sys.argv[1])
    check_ports(checks, sys.argv[1])
    check_all(checks, sys.argv[1])
    check_failover(checks, sys.argv[1])
    check_close(checks, sys.argv[1])
    check_ipv6(checks, sys.argv[1])
    checks.exit()


if __name__ == "__main__":
    main()
