#!/usr/bin/env python3
"""Suspensions: what an operator suspended stays in the queue, all of it, whatever happens meanwhile.

suspend.py [TEST...]"""

import concurrent.futures
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from engine import Engine, Sink, program  # noqa: E402
from proc import Failure, wait_until  # noqa: E402
from talk import Client, run  # noqa: E402

RATE = 100  # a second and site
BULK = 1000
# Mail of kind x is all that a suspension may name; that of kind y is none of it.
KINDS = {"x": ("x.example", "spring", "acme"), "y": ("y.example", "autumn", "beta")}


def settings(sink, **more):
    return {"dns": sink.dns(),
            "routes": {"x.example": f"[{sink.host}]:{sink.port}"},
            "destinations": {"*": {"rate": f"{RATE}/s", **more}}}


def scopes(sink):
    return [["x.example"], ["--campaign", "spring"], ["--tenant", "acme"],
            ["--site", f"[{sink.host}]"]]


def inject(engine, count, kind):
    domain, campaign, tenant = KINDS[kind]
    body = (f"X-Hayauma-Campaign: {campaign}\r\nX-Hayauma-Tenant: {tenant}\r\nSubject: {kind}\r\n\r\n"
            "text\r\n")
    with Client(engine) as client:
        client.messages([(f"{kind}@sender.example", f"r{i}@{domain}", body) for i in range(count)])


def came(sink, kind):
    """How many messages of the kind the sink took."""
    return sum(row[3].endswith(KINDS[kind][0]) for row in sink.ledger())


def wait_for(sink, kind, count, timeout_s=60):
    wait_until(f"{count} messages of {kind}", lambda: came(sink, kind) >= count, timeout_s)


def nothing_goes(engine, sink, kind, others):
    """While as many further messages of the kind others go as a second lets, none of kind does."""
    before = came(sink, kind)
    wanted = came(sink, others) + RATE
    inject(engine, RATE, others)  # on a slow machine those from before have all gone
    wait_for(sink, others, wanted)
    if came(sink, kind) != before:
        raise Failure(f"{came(sink, kind) - before} of {kind} went, and it is suspended")


def waits(engine, *arguments):
    """The reasons that rows or groups of a listing wait for."""
    found = [o.get("row", o) for o in engine.rows(*arguments)]  # of show each is in an object
    return {tuple(o.get("wait", {}).get(name) for name in ("reason", "scope", "text"))
            for o in found if "index" in o or "rows" in o}


def check_screens(engine, what):
    scope = what[0][2:] if what[0].startswith("--") else "domain"
    wanted = {("suspended", scope, "complaints")}
    row = engine.rows("queue", "list", "x.example", "--limit", "1")[0]
    for screen in (["queue", "list", "x.example", "--limit", "20"], ["queue", "summary", "x.example"],
                   ["queue", "show", row["id"]]):
        if waits(engine, *screen) != wanted:
            raise Failure(f"{screen} says {waits(engine, *screen)}, not {wanted}")
    shown = [d for d in engine.status()["destinations"] if d["queue"] == "x.example"]
    if [d.get("wait", {}).get("reason") for d in shown] != ["suspended"]:
        raise Failure(f"status says {shown}")
    for screen in (["queue", "list", "x.example"], ["queue", "summary"], ["status"]):
        if f"{scope} {what[-1]}: complaints" not in engine.command(*screen):
            raise Failure(f"{screen} does not say why:\n{engine.command(*screen)}")
    one, = engine.rows("queue", "suspensions")
    if (one["scope"], one["name"], one["reason"]) != (scope, what[-1], "complaints"):
        raise Failure(f"suspensions says {one}")
    rows = int(engine.rows("queue", "summary", "x.example")[0]["rows"])
    if one["rows"] != rows:
        raise Failure(f"suspensions counts {one['rows']} recipients, and {rows} wait")


def check_scope(what):
    """Suspended under traffic: at once, for new mail, behind a restart; resumed all of it goes."""
    with Sink() as sink, Engine(settings(sink)) as engine:
        inject(engine, BULK, "x")
        wait_for(sink, "x", 20)
        engine.command("queue", "suspend", *what, "--reason", "complaints")
        time.sleep(1)  # what was on its way
        nothing_goes(engine, sink, "x", "y")
        inject(engine, 50, "x")
        engine.command("queue", "flush", "x.example")
        nothing_goes(engine, sink, "x", "y")
        check_screens(engine, what)
        engine.kill()
        engine.start()
        nothing_goes(engine, sink, "x", "y")
        check_screens(engine, what)
        engine.command("queue", "resume", *what)
        wait_for(sink, "x", BULK + 50, 60)
        if engine.command("queue", "suspensions") != "":
            raise Failure("something is suspended still")


def test_scopes():
    """Each kind of suspension, with an engine of its own, side by side: they mostly wait."""
    every = [["x.example"], ["--campaign", "spring"], ["--tenant", "acme"], ["--site", "[127.0.0.1]"]]
    with concurrent.futures.ThreadPoolExecutor(len(every)) as pool:
        for done in [pool.submit(check_scope, what) for what in every]:
            done.result()


def test_two_scopes():
    """Mail is suspended until the last that holds it is resumed."""
    with Sink() as sink, Engine(settings(sink)) as engine:
        all_scopes = scopes(sink)
        for what in all_scopes:
            engine.command("queue", "suspend", *what)
        inject(engine, 20, "x")
        for what in all_scopes:
            nothing_goes(engine, sink, "x", "y")
            if came(sink, "x") > 0:  # before anything else was looked at
                raise Failure(f"{came(sink, 'x')} of suspended mail went")
            engine.command("queue", "resume", *what)
        wait_for(sink, "x", 20)


def test_for():
    """--for ends by itself, also when the engine does not run at that time, and is not back behind
    the next start."""
    with Sink() as sink, Engine(settings(sink)) as engine:
        for stopped in (False, True):
            engine.command("queue", "suspend", "x.example", "--for", "3s")
            inject(engine, 5, "x")
            time.sleep(1)
            wanted = 5 if stopped else 0
            if came(sink, "x") != wanted:
                raise Failure(f"{came(sink, 'x')} of suspended mail went")
            if stopped:
                engine.kill()
                time.sleep(3)
                engine.start()
            wait_for(sink, "x", wanted + 5, 15)
            wait_until("no suspension", lambda: not engine.rows("queue", "suspensions"), 5)
        engine.kill()
        engine.start()
        if engine.rows("queue", "suspensions"):
            raise Failure("it is back")


def test_expires():
    """The lifetime of suspended mail goes on: of what waits in the store, and of what came later."""
    with Sink() as sink, Engine(settings(sink, lifetime="3s", retry={"first": "1s"})) as engine:
        for what in ["x.example"], ["--site", f"[{sink.host}]"]:
            engine.command("queue", "suspend", *what)
            inject(engine, 300, "x")
            before = len(engine.records("Expiration"))
            records = engine.wait_records("Expiration", before + 300, 60)
            if "suspension" not in records[-1]["response"]["content"]:
                raise Failure(f"it expired for another reason: {records[-1]}")
            engine.command("queue", "resume", *what)
        if came(sink, "x") != 0:
            raise Failure(f"{came(sink, 'x')} of suspended mail went")


def test_expires_where_nothing_is_loaded():
    """Mail of many domains that outlived its lifetime while nothing ran, and is suspended: it ends all the
    same, though nothing loads it; what is still to live stays."""
    with Sink() as sink, Engine(settings(sink, lifetime="4s")) as engine:
        engine.command("queue", "suspend", "--campaign", "spring")
        with Client(engine) as client:
            client.messages([("x@sender.example", f"r@d{i}.example", "X-Hayauma-Campaign: spring\r\n\r\ntext\r\n")
                             for i in range(500)])
        engine.config["destinations"]["*"]["lifetime"] = "1h"
        engine.reload()
        inject(engine, 20, "x")
        engine.kill()
        ended = len(engine.records("Expiration"))
        time.sleep(5)
        engine.start()
        ends = engine.wait_records("Expiration", 500, 60)
        left = engine.rows("queue", "list", "x.example")
        if ended == 500 or len(ends) != 500 or len(left) != 20 or came(sink, "x") != 0:
            raise Failure(f"{ended} of {len(ends)} ended before the restart, {len(left)} of x are left, "
                          f"{came(sink, 'x')} went")


def refused(engine, *arguments):
    done = subprocess.run([program(), "queue", *arguments, "-c", str(engine.file)],
                          capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def test_refusals():
    """What cannot be meant is refused, with what to do."""
    with Sink() as sink, Engine(settings(sink)) as engine:
        cases = [(("resume", "x.example"), 1, "'hayauma queue suspensions' lists what is"),
                 (("resume", "--campaign", "spring"), 1, "campaign 'spring' is not suspended"),
                 (("suspend",), 2, "say which"),
                 (("suspend", "x.example", "--tenant", "acme"), 2, "at a time"),
                 (("suspend", "*.example"), 2, "one domain, no pattern"),
                 (("suspend", "x.example", "--for", "soon"), 2, "duration"),
                 (("suspend", "--tenant", "a" * 300), 2, "longer than 255"),
                 (("suspensions", "x.example"), 2, "it lists all"),
                 (("suspend", "--campaign", "srping"), 0, "no mail of this campaign is queued now"),
                 (("resume", "--campaign", "srping"), 0, "")]
        for arguments, code, text in cases:
            got = refused(engine, *arguments)
            if got[0] != code or text not in got[1]:
                raise Failure(f"{arguments}: {got}")
        engine.command("queue", "suspend", "X.Example")  # a domain in any case
        engine.command("queue", "suspend", "例え.jp")
        names = {one["name"] for one in engine.rows("queue", "suspensions")}
        if names != {"x.example", "xn--r8jz45g.jp"}:
            raise Failure(f"suspended are {names}")
        engine.command("queue", "resume", "例え.JP")
        engine.command("queue", "resume", "x.example")


if __name__ == "__main__":
    run(globals())
