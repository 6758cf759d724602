#!/usr/bin/env python3
"""A slow destination of many domains does not take the memory from the others.

memory.py [TEST...]"""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from engine import Engine, Sink  # noqa: E402
from proc import wait_until  # noqa: E402
from talk import Client, run  # noqa: E402

SLOW, DOMAINS, FAST, BYTES = 3000, 2000, 500, 50 << 10
BODY = "Subject: x\r\n\r\n" + ("y" * 76 + "\r\n") * (BYTES // 78)


def inject(engine, recipients):
    """A message each, as fast as they are taken."""
    with Client(engine, timeout_s=60) as client:
        client.messages([("a@sender.example", to, BODY) for to in recipients], at_once=20)


def taken(sink, domain):
    return sum(any(f.endswith(domain) for f in row) for row in sink.ledger())


def test_slow_mail_leaves_memory_to_fast():
    """Thousands of large messages for thousands of domains behind a slow rate, many times what may be in
    memory: mail for another destination goes at once all the same, also behind a restart."""
    with Sink() as sink, Engine({
            "dns": {"servers": [f"{sink.host}:{sink.dns_port}"], "port": sink.port},
            "queue": {"memory_max": "16MiB"},
            "routes": {"*.slow.example": f"[{sink.host}]:{sink.port}"},
            "destinations": {"*.slow.example": {"rate": "5/s"}}}) as engine:
        inject(engine, [f"u@d{i % DOMAINS}.slow.example" for i in range(SLOW)])
        for name in ("one", "two"):
            start = time.monotonic()
            inject(engine, [f"u{i}@{name}.example" for i in range(FAST)])
            wait_until(f"{FAST} at {name}.example", lambda n=name: taken(sink, f"@{n}.example") >= FAST, 20,
                       process=engine.process)
            print(f"{FAST} at {name}.example: {time.monotonic() - start:.1f} s", flush=True)
            before = taken(sink, ".slow.example")
            wait_until("slow mail goes on", lambda b=before: taken(sink, ".slow.example") > b + 5, 20)
            engine.kill()
            engine.start()


if __name__ == "__main__":
    run(globals())
