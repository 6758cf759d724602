#!/usr/bin/env python3
"""A host without a route to one address family, in a network of its own: addresses of that family
cost nothing of addresses_max, and those of the other one get the mail at the first attempt.

usage: families.py; exit status 77 where no network namespace may be had"""

import os
import pathlib
import smtplib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "lib")]
from engine import Engine, Sink  # noqa: E402
from hostile import A, AAAA, Server, question_of, reply, rr  # noqa: E402
from proc import Failure, wait_until  # noqa: E402

DOMAINS = 200


def addresses(query, stream):
    """No MX, eight addresses that nothing leads to, two of the sink."""
    name, kind, _ = question_of(query)
    number = int(name.split(".")[0].removeprefix("d"))
    if kind == AAAA:
        yield reply(query, [rr(AAAA, bytes.fromhex("20010db8") + bytes([number, i]) + bytes(10))
                            for i in range(8)])
    elif kind == A:
        yield reply(query, [rr(A, bytes([127, 0, 1, i])) for i in (1, 2)])
    else:
        yield reply(query, [])


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def deliver(server, sink):
    with Engine({"dns": {"servers": [server.address], "ipv6": True, "port": sink.port},
                 "destinations": {"*": {"retry": ["1h"], "addresses_max": 1}}}) as engine:
        with smtplib.SMTP(engine.host, engine.port) as smtp:
            for i in range(DOMAINS):
                smtp.sendmail("a@sender.example", [f"u@d{i}.test"], f"Subject: {i}\r\n\r\nx\r\n")
        wait_until("all ended or deferred", lambda: len(engine.records("Delivery")) +
                   len(engine.records("TransientFailure")) >= DOMAINS)
        deferred = engine.records("TransientFailure")
        log = engine.process.log.read_text()
    if deferred:
        raise Failure(f"{len(deferred)} of {DOMAINS} domains deferred at first try: {deferred[0]}")
    return log


def main():
    ip("link", "set", "lo", "up")
    server = Server({"*": addresses})
    with Sink(host="0.0.0.0") as sink:
        # What has no default route at all, and what has one to nowhere.
        for route in ((), ("unreachable", "default"), ("prohibit", "default"), ("blackhole", "default")):
            if route:
                ip("-6", "route", "add", *route)
            start = time.monotonic()
            log = deliver(server, sink)
            told = log.count("delivery.no_route")
            # As many as there are workers, once each.
            if not route and not 0 < told <= (os.cpu_count() or 1):
                raise Failure(f"delivery.no_route was logged {told} times:\n{log}")
            if route:
                ip("-6", "route", "del", *route)
            print(f"{' '.join(route) or 'no route'}: {DOMAINS} domains delivered at first try in "
                  f"{time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    if not os.environ.get("HAYAUMA_OWN_NETWORK"):
        own = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
        if subprocess.run([*own, "ip", "link"], capture_output=True).returncode != 0:
            print("no network namespace, or no ip")
            sys.exit(77)
        os.environ["HAYAUMA_OWN_NETWORK"] = "1"
        os.execvp("unshare", [*own, sys.executable, *sys.argv])
    main()
