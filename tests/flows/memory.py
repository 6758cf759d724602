#!/usr/bin/env python3
"""A slow destination of many domains does not take the memory from the others.

memory.py [TEST...]"""

import pathlib
import sys
import threading
import time

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "lib"), str(TESTS / "hostile")]

from servers import Server  # noqa: E402
from engine import Engine, Sink  # noqa: E402
from proc import TempDir, wait_until  # noqa: E402
from talk import Client, run  # noqa: E402

SLOW, DOMAINS, FAST, BYTES = 3000, 2000, 500, 50 << 10
BODY = "Subject: x\r\n\r\n" + ("y" * 76 + "\r\n") * (BYTES // 78)

LARGE = b"Subject: x\r\n\r\n" + (b"y" * 76 + b"\r\n") * (4 << 20 >> 6)
URGENT = b"X-Hayauma-Priority: 0\r\nSubject: urgent\r\n\r\nx\r\n"


def inject(engine, recipients):
    """A message each, as fast as they are taken."""
    with Client(engine, timeout_s=60) as client:
        client.messages([("a@sender.example", to, BODY) for to in recipients], at_once=20)


def taken(sink, domain, user=""):
    return sum(any(f.endswith(domain) and f.startswith(user) for f in row) for row in sink.ledger())


def test_slow_mail_leaves_memory_to_fast():
    """Thousands of large messages for thousands of domains behind a slow rate, many times what may be in
    memory: mail for another destination goes at once all the same, also behind a restart."""
    with Sink() as sink, Engine({
            "dns": sink.dns(),
            "queue": {"memory_max": "16MiB"},
            "routes": {"*.slow.example": f"[{sink.host}]:{sink.port}"},
            "destinations": {"*.slow.example": {"rate": "5/s"}}}) as engine:
        inject(engine, [f"u@d{i % DOMAINS}.slow.example" for i in range(SLOW)])
        for name in ("one", "two"):
            start = time.monotonic()
            inject(engine, [f"u{i}@{name}.example" for i in range(FAST)])
            wait_until(f"{FAST} at {name}.example", lambda n=name: taken(sink, f"@{n}.example") >= FAST, 60,
                       process=engine.process)
            print(f"{FAST} at {name}.example: {time.monotonic() - start:.1f} s", flush=True)
            before = taken(sink, ".slow.example")
            wait_until("slow mail goes on", lambda b=before: taken(sink, ".slow.example") > b + 5, 20)
            engine.kill()
            engine.start()


def test_priority_where_lanes_wait_for_room():
    """Memory is short, and a thousand lanes of bulk wait for room at a slow relay: urgent mail passes
    them, for a domain too that had some before."""
    bulk, temp = 1600, TempDir("hayauma-memory-")
    behaviour = temp.path / "behaviour.yaml"
    behaviour.write_text("""
default: {latency: {dot: 200ms}}
classes: [{name: stuck, domains: [stuck0.example, stuck1.example, stuck2.example], latency: {dot: 100s}}]
""")
    with Sink(behaviour) as sink, Engine({
            "dns": sink.dns(),
            "workers": 1, "queue": {"memory_max": "16MiB"}, "drain_timeout": "1s",
            "routes": {"*.bulk.example": f"[{sink.host}]:{sink.port}"},
            "destinations": {"*": {"sessions_max": 3}}}) as engine:
        with Client(engine, timeout_s=60) as client:
            for i in range(3):  # more than half of memory_max
                client.expect(client.message(f"u@stuck{i}.example", data=LARGE), 250)
            wait_until("memory is short", lambda: engine.status()["gauges"]["sessions_out"] == 3, 60)
            client.messages([("a@sender.example", f"u@d{i % (bulk // 2)}.bulk.example", BODY[:78 * 130 + 14])
                             for i in range(bulk)], at_once=20)
            for number in range(3):
                before = taken(sink, ".bulk.example")
                client.expect(client.message(f"urgent{number}@d1.bulk.example", data=URGENT), 250)
                wait_until("urgent mail", lambda n=number: taken(sink, "@d1.bulk.example", f"urgent{n}"), 20)
                passed = taken(sink, ".bulk.example") - before
                assert passed < 100, f"{passed} went before urgent mail {number}"
            assert taken(sink, ".bulk.example") < bulk, "nothing was in its way"


def test_stuck_peers_leave_memory():
    """Peers that say nothing at the dot are sent half as much again as may be in memory, one of them for
    a new domain each time. Mail for another goes at once all the same, memory keeps its bound, and
    status says what the stuck mail waits for. When the peers answer all of it goes, each once."""
    peers, each, answer = 4, 20, threading.Event()
    hogs = [Server({"dot": lambda peer: (answer.wait(), peer.sendall(b"250 ok\r\n"))}) for _ in range(peers)]
    good = Server({})
    with Engine({
            "workers": 1, "queue": {"memory_max": "16MiB"}, "drain_timeout": "1s",
            "routes": {"good.example": f"[127.0.0.1]:{good.port}",
                       **{f"*.hog{i}.example": f"[127.0.0.1]:{hog.port}" for i, hog in enumerate(hogs)}}}) as engine:
        def memory():
            return engine.status()["gauges"]["memory_bytes"]

        def rests():
            before = memory()
            time.sleep(0.5)
            return before > 8 << 20 and memory() == before

        with Client(engine, timeout_s=60) as client:
            for n in range(each):
                for i in range(peers):
                    domain = f"d{n if i == 0 else 0}.hog{i}.example"
                    client.expect(client.message(f"u{n}@{domain}", data=LARGE[:300 << 10] + b"\r\n"), 250)
            wait_until("no more is sent", rests, 60, process=engine.process)
            assert memory() < (16 << 20) * 5 // 4 + (1 << 20), memory()
            waits = {d["queue"]: d.get("wait", {}).get("reason") for d in engine.status()["destinations"]}
            assert "memory" in waits.values(), waits
            for n in range(50):
                client.expect(client.message(f"u{n}@good.example"), 250)
        wait_until("50 at good.example", lambda: len(good.taken) == 50, 60, process=engine.process)
        assert not any(hog.taken for hog in hogs)
        answer.set()
        wait_until("stuck mail goes", lambda: engine.status()["counters"]["delivered"] == peers * each + 50, 30,
                   process=engine.process)
        assert [len(hog.taken) for hog in hogs] == [each] * peers


if __name__ == "__main__":
    run(globals())
