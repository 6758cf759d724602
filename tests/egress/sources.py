#!/usr/bin/env python3
"""Sources and pools, as the receiver sees them: who sends, by which weight and name, within which
limits, while sources are suspended, added and removed, with two workers.

sources.py [TEST...]"""

import itertools
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from egress import Receiver, inject, settings, source  # noqa: E402
from engine import Engine, program  # noqa: E402
from proc import Failure, wait_until  # noqa: E402
from talk import Client, run  # noqa: E402

DOMAINS = [f"d{i}.example" for i in range(40)]  # lanes of both shards
# So few sessions that each source is at its limit all the time: without turns all would send alike.
LIMITS = {"*": {"sessions_max": 4}}


def check_weights(shares, weights, within=0.05):
    total, sum_of = sum(shares.values()), sum(weights.values())
    for name, weight in weights.items():
        due = total * weight / sum_of
        if abs(shares[name] - due) > within * due + 4:
            raise Failure(f"source {name} sent {shares[name]} of {total}, due were {due:.0f}: {shares}")
    if set(shares) - set(weights):
        raise Failure(f"sources {set(shares)} sent, and only {set(weights)} may")


def test_weights():
    """Shares by weight, within 5 %, each source with its own EHLO name; records say who sent."""
    weights = {1: 1, 2: 2, 3: 5}
    pools = {"bulk": {"sources": {f"a{n}": {"weight": w} for n, w in weights.items()}}}
    with Receiver() as sink, Engine(settings(sink, weights, pools, destinations=LIMITS)) as engine:
        inject(engine, 4000, DOMAINS)
        sink.wait_mails(4000)
        check_weights(sink.shares(), weights)
        for _, number, name, _, _ in sink.mails():
            if name != source(number)["ehlo_name"]:
                raise Failure(f"source {number} calls itself {name}")
        for record in engine.wait_records("Delivery", 4000):
            number = record["egress_source"]
            address = record["source_address"]["address"].rpartition(":")[0]
            if record["egress_pool"] != "bulk" or address != source(int(number[1:]))["ipv4"]:
                raise Failure(f"a record says {record}")
        wait_until("the status to have counted all", lambda: sum(
            s["messages"] for s in engine.status()["sources"] if s["state"] == "ok") == 4000)


def test_one_message_each():
    """Many sites with a message each: the sources' shares are by weight there too."""
    weights = {1: 1, 2: 3}
    pools = {"bulk": {"sources": {f"a{n}": {"weight": w} for n, w in weights.items()}}}
    # Without a route each domain has exchangers of its own, so a site of its own.
    with Receiver() as sink, Engine(settings(sink, weights, pools, routes={})) as engine:
        inject(engine, 400, [f"s{i}.example" for i in range(400)])
        sink.wait_mails(400)
        check_weights(sink.shares(), weights, 0.25)


def test_rate():
    """Each source at a site has a rate of its own, and the site one over all: never above."""
    limits = {"*": {"rate": "20/s", "total_rate": "50/s"}}
    with Receiver() as sink, Engine(settings(sink, (1, 2, 3, 4), destinations=limits)) as engine:
        inject(engine, 150, DOMAINS)
        sink.wait_mails(150)
        mails = sink.mails()
        for number, rate in ((1, 20), (2, 20), (3, 20), (4, 20), (None, 50)):
            times = sorted(m[0] for m in mails if number in (m[1], None))
            for i, j in itertools.combinations(range(0, len(times), 5), 2):
                if j - i > rate * (times[j] - times[i] + 50) / 1000 + 1:
                    raise Failure(f"source {number}: {j - i} messages in {times[j] - times[i]} ms")
        seconds = (max(m[0] for m in mails) - min(m[0] for m in mails)) / 1000
        if seconds > 150 / 50 * 3:
            raise Failure(f"50 a second were allowed, and 150 took {seconds:.1f} s")


def test_total_sessions():
    """The limit of sessions over all sources holds, and no source is left out for it."""
    limits = {"*": {"sessions_max": 5, "total_sessions_max": 3, "idle": "1s"}}
    text = ("default: {}\nclasses:\n  - {name: one, domains: ['*.example'], connections_max: 3, "
            "latency: {dot: 20ms}, address: 127.0.0.1}\n")
    sink = Receiver()
    sink.behaviour = sink.dir / "behaviour.yaml"
    sink.behaviour.write_text(text)
    with sink, Engine(settings(sink, (1, 2, 3, 4, 5), destinations=limits)) as engine:
        sent = 0
        while sent < 150 or (len(sink.shares()) < 5 and sent < 3000):
            inject(engine, 50, DOMAINS)
            sent += 50
            sink.wait_mails(sent)
        if engine.records("TransientFailure"):
            raise Failure(f"more sessions than the sink takes: {engine.records('TransientFailure')[0]}")
        if len(sink.shares()) != 5:
            raise Failure(f"not all sources sent: {sink.shares()}")


def rate_kept(times, rate, burst=0):
    """In no window are there more than these (times in ms)."""
    times = sorted(times)
    for i, j in itertools.combinations(range(0, len(times), 3), 2):
        if j - i > burst + rate * (times[j] - times[i] + 50) / 1000 + 1:
            raise Failure(f"{j - i} messages in {times[j] - times[i]} ms, at {rate}/s")


def test_source_rate():
    """A source's own rate holds over all sites, each of which would let through more; `why`, `source show`
    and `status` say which limit it is, and where it is set. The other source takes what it may not."""
    with Receiver() as sink:
        config = settings(sink, (1, 2), routes={}, destinations={"*": {"rate": "500/s"}})
        config["sources"]["a1"]["rate"] = "20/s"
        config["sources"]["a2"]["rate"] = "40/s"
        with Engine(config) as engine:
            inject(engine, 240, DOMAINS)
            wait_until("why to name the limit", lambda: "source_rate 20 in 1s of source a1, set at" in
                       engine.command("why", "a1") and "(sources['a1'].rate)" in
                       engine.command("why", "a1"))
            sink.wait_mails(240)
            mails = sink.mails()
            for number, rate in ((1, 20), (2, 40)):
                rate_kept([m[0] for m in mails if m[1] == number], rate)
            seconds = (max(m[0] for m in mails) - min(m[0] for m in mails)) / 1000
            if seconds > 240 / 60 * 3:
                raise Failure(f"60 a second were allowed, and 240 took {seconds:.1f} s")
            text = engine.command("source", "show", "a1")
            if "20/s, set at" not in text or "(sources['a1'].rate)" not in text:
                raise Failure(f"source show a1:\n{text}")


def test_source_rate_opens():
    """Of many sites that wait for one source's rate no more are connected to than it has messages for."""
    with Receiver() as sink:
        config = settings(sink, (1,), routes={})
        config["sources"]["a1"]["rate"] = "30/min"
        with Engine(config) as engine:
            inject(engine, 200, [f"s{i}.example" for i in range(200)])
            sink.wait_mails(3)
            connects = engine.status()["sources"][0]["connects"]
            if connects > 60:
                raise Failure(f"{connects} connections for three messages")


def test_burst():
    """What was not used is there at once, as much as rate_burst says; then the rate. `site show` says it."""
    limits = {"*": {"rate": "5/s", "rate_burst": 30}}
    with Receiver() as sink, Engine(settings(sink, (1,), destinations=limits)) as engine:
        inject(engine, 45, DOMAINS)
        sink.wait_mails(45)
        times = sorted(m[0] for m in sink.mails())
        rate_kept(times, 5, 30)
        if times[29] - times[0] > 4000:
            raise Failure(f"the burst took {times[29] - times[0]} ms")
        if times[44] - times[0] < 2500:
            raise Failure(f"45 messages went in {times[44] - times[0]} ms")
        text = engine.command("site", "show", DOMAINS[0])
        if not re.search(r"rate_burst +30, .*destinations\['\*'\].rate_burst", text):
            raise Failure(f"site show:\n{text}")


def test_source_sessions():
    """So does its number of sessions, with domains that are sites of their own, over both workers; each
    site has its turn."""
    text = ("classes:\n  - {name: all, domains: ['*.example'], connections_max: 4, latency: {dot: 10ms}, "
            "address: 127.0.0.1}\n")
    sink = Receiver()
    sink.behaviour = sink.dir / "behaviour.yaml"
    sink.behaviour.write_text(text)
    with sink:
        config = settings(sink, (1,), routes={})
        config["sources"]["a1"]["sessions_max"] = 2
        with Engine(config) as engine:
            inject(engine, 120, DOMAINS)
            sink.wait_mails(120)
            shown = engine.status()["sources"][0]
            if engine.records("TransientFailure") or shown["connect_failures"]:
                raise Failure(f"the receiver was asked for more than four sessions: {shown}")
            if len({m[4].partition("@")[2] for m in sink.mails()}) != len(DOMAINS):
                raise Failure("not all sites had a turn")


def test_sessions_of_other_workers():
    """Sources of which each worker has all sessions, and waits for those of the other, are shared soon."""
    with Receiver() as sink, Engine(settings(sink, range(1, 201), destinations={"*": {"sessions_max": 2}})) as engine:
        inject(engine, 2000, DOMAINS)
        sink.wait_mails(2000)
        times = sorted(int(row[0]) for row in sink.ledger())
        print(f"2000 messages took {times[-1] - times[0]} ms")
        if times[-1] - times[0] > 6000:
            raise Failure(f"2000 messages took {times[-1] - times[0]} ms")


def test_source_line():
    """A site that waits for a session of its own keeps no other site of the source waiting."""
    sink = Receiver()
    sink.behaviour = sink.dir / "behaviour.yaml"
    sink.behaviour.write_text("classes:\n  - {name: slow, domains: [slow.example], latency: {dot: 100s}, "
                              "address: 127.0.0.1}\n")
    with sink:
        config = settings(sink, (1,), routes={}, workers=1, drain_timeout="1s",
                          destinations={"*": {"sessions_max": 1}})
        config["sources"]["a1"]["sessions_max"] = 100
        with Engine(config) as engine:
            inject(engine, 30, ["slow.example"])
            wait_until("the slow site to lack a session", lambda: "sessions_max" in
                       engine.command("why", "slow.example"))
            inject(engine, 40, DOMAINS, first=30)
            sink.wait_mails(40, 60)


def test_suspend():
    """Suspended under load, the source sends nothing more and the others by weight; it is so behind
    kill -9; resumed it sends again. With all suspended nothing goes, and the screens say why."""
    weights = {1: 1, 2: 1, 3: 2}
    pools = {"bulk": {"sources": {f"a{n}": {"weight": w} for n, w in weights.items()}}}
    limits = {"*": {"sessions_max": 100, "total_rate": "400/s"}}
    with Receiver() as sink, Engine(settings(sink, weights, pools, destinations=limits)) as engine:
        inject(engine, 2000, DOMAINS)
        sink.wait_mails(200)
        engine.command("source", "suspend", "a2", "--reason", "listed")
        wait_until("its sessions to be idle", lambda: sink.shares(len(sink.ledger()) - 20)[2] == 0)
        done = len(sink.ledger())
        sink.wait_mails(done + 300)
        check_weights(sink.shares(done), {1: 1, 3: 2}, 0.1)
        engine.kill()
        engine.start()
        done = len(sink.ledger())
        sink.wait_mails(done + 100)
        if 2 in sink.shares(done):
            raise Failure("a2 sends behind a crash, and it is suspended")
        state = {s["name"]: s["state"] for s in engine.status()["sources"]}
        if state != {"a1": "ok", "a2": "suspended", "a3": "ok"}:
            raise Failure(f"status says {state}")
        inject(engine, 500, DOMAINS)  # on a slow machine little may be left
        engine.command("source", "resume", "a2")
        done = len(sink.ledger())
        sink.wait_mails(done + 300)
        if sink.shares(done)[2] < 40:
            raise Failure(f"a2 was resumed, and sends little: {sink.shares(done)}")
        for name in ("a1", "a2", "a3"):
            engine.command("source", "suspend", name, "--reason", "all of them")
        check_all_suspended(engine, sink)
        engine.command("source", "resume", "a3")
        sink.wait_mails(2600)  # all of it


def check_all_suspended(engine, sink):
    def reasons():
        rows = engine.rows("queue", "list", "--limit", "20")
        return {(r.get("wait", {}).get("reason"), r.get("wait", {}).get("scope")) for r in rows}

    inject(engine, 50, DOMAINS)
    wait_until("the screens to say why", lambda: reasons() == {("suspended", "source")})
    before = len(sink.ledger())
    inject(engine, 50, DOMAINS)
    if len(sink.ledger()) != before:
        raise Failure("all sources are suspended, and mail goes")


def waits(engine):
    """Recipient -> why it waits."""
    return {row["recipient"]: row.get("wait", {}) for row in engine.rows("queue", "list", "--limit", "20")}


def suspended_with_mail(engine, domain):
    """Mail for the domain comes while the only source is suspended, and waits for it."""
    engine.command("source", "suspend", "a1")
    inject(engine, 1, [domain])
    wait_until("the source to be waited for", lambda: waits(engine) and all(
        w.get("scope") == "source" for w in waits(engine).values()))


def test_resume_where_connects_fail():
    """Behind a suspension mail for a site that refuses connects is tried, and backs off by the retry
    table for what the site does; a reload amid the suspension changes nothing of that."""
    def tried(domain):
        return any(r["recipient"].endswith(domain) for r in engine.records("TransientFailure"))

    with Receiver() as sink, Engine(settings(
            sink, (1,), workers=1, routes={"*": "[127.0.0.94]:2599"},
            destinations={"*": {"retry": ["1s"]}})) as engine:
        inject(engine, 1, ["before.example"])
        wait_until("the site to be found down", lambda: tried("before.example"))
        for domain, reload in (("amid.example", False), ("reload.example", True)):
            suspended_with_mail(engine, domain)
            listed = engine.command("queue", "suspensions").splitlines()[1].split()
            if listed[:3] != ["source", "a1", "-"]:
                raise Failure(f"suspensions says {listed}")
            if reload:
                engine.command("reload")
            engine.command("source", "resume", "a1")
            wait_until(f"{domain} to be tried", lambda d=domain: tried(d), 20)
            wait_until("the site's answer to be shown", lambda d=domain: waits(engine)[
                f"r0@{d}"].get("reason") == "back_off" and "127.0.0.94" in str(waits(engine)))


def test_resume_at_a_limit():
    """Resumed at the limit of its rate, the source is waited for no longer, and the limit is."""
    with Receiver() as sink, Engine(settings(
            sink, (1,), workers=1, destinations={"*": {"rate": "1/h"}})) as engine:
        inject(engine, 1, ["first.example"])
        sink.wait_mails(1)
        suspended_with_mail(engine, "second.example")
        engine.command("source", "resume", "a1")
        wait_until("the rate to be named", lambda: waits(engine)["r0@second.example"].get(
            "reason") == "rate", 20)


def test_overflow():
    """The overflow pool sends what the pool may not, and nothing else."""
    pools = {"first": {"sources": {"a1": {}}, "overflow": "spare"}, "spare": {"sources": {"a2": {}}}}
    limits = {"*": {"rate": "20/s"}}
    with Receiver() as sink, Engine(settings(sink, (1, 2), pools, default_pool="first",
                                             destinations=limits)) as engine:
        inject(engine, 10)  # at once: more than a1 may
        sink.wait_mails(10)
        if set(sink.shares()) != {1, 2}:
            raise Failure(f"a2 should help a1: {sink.shares()}")
        for i in range(4):  # one at a time: never more than a1 may
            inject(engine, 1, first=100 + i)
            sink.wait_mails(11 + i)
            time.sleep(0.1)  # in which a1 may send two
        if sink.shares(10) != {1: 4}:
            raise Failure(f"a1 had room for these: {sink.shares(10)}")
        engine.command("source", "suspend", "a1")
        inject(engine, 10, first=200)
        sink.wait_mails(24)
        if sink.shares(14) != {2: 10}:
            raise Failure(f"a1 is suspended: {sink.shares(14)}")


def test_overflow_of_slow_sources():
    """That a source's sessions are slow is no reason for the overflow pool to send."""
    pools = {"first": {"sources": {"a1": {}}, "overflow": "spare"}, "spare": {"sources": {"a2": {}}}}
    sink = Receiver()
    sink.behaviour = sink.dir / "behaviour.yaml"
    sink.behaviour.write_text("classes: [{name: slow, domains: ['*'], latency: {dot: 1300ms}, address: 127.0.0.1}]\n")
    with sink, Engine(settings(sink, (1, 2), pools, default_pool="first", workers=1, destinations={
            "*": {"sessions_max": 1, "pipeline_max": 1}})) as engine:
        inject(engine, 3)
        sink.wait_mails(3)
        if set(sink.shares()) != {1}:
            raise Failure(f"a2 sent what a1 could: {sink.shares()}")


def test_bound():
    """Mail for one domain, or of one campaign, comes from one source; suspended, another one's."""
    for selection in ("domain", "campaign"):
        pools = {"bulk": {"sources": {f"a{n}": {} for n in (1, 2, 3)}, "selection": selection}}
        with Receiver() as sink, Engine(settings(
                sink, (1, 2, 3), pools, destinations={"slow.example": {"rate": "1/h"}})) as engine:
            for i in range(12):
                inject(engine, 40, [f"d{i}.example"], f"X-Hayauma-Campaign: c{i}\r\n")
            sink.wait_mails(480)
            found = {}
            for _, number, _, _, recipient in sink.mails():
                found.setdefault(recipient.partition("@")[2], set()).add(number)
            if any(len(numbers) != 1 for numbers in found.values()):
                raise Failure(f"{selection}: several sources for one: {found}")
            if len(set.union(*found.values())) < 2:
                raise Failure(f"{selection}: all by one source: {found}")
            number = next(iter(found["d0.example"]))
            engine.command("source", "suspend", f"a{number}")
            inject(engine, 20, ["d0.example"], "X-Hayauma-Campaign: c0\r\n", first=1000)
            sink.wait_mails(500)
            after = sink.shares(480)
            if number in after or len(after) != 1:
                raise Failure(f"{selection}: a{number} is suspended, and its mail came from {after}")
            inject(engine, 5, ["slow.example"], "X-Hayauma-Campaign: c0\r\n", first=2000)
            sink.wait_mails(501)
            if selection == "domain":
                continue
            waits = [4 if n == number or n in after else 0 for n in (1, 2, 3)]
            wait_until(f"why to tell each source's mail: {waits}", lambda w=waits: w == [
                engine.rows("why", f"a{n}")[0]["recipients"] for n in (1, 2, 3)], 10)
            if "suspended" not in engine.command("why", f"a{number}").splitlines()[1]:
                raise Failure(engine.command("why", f"a{number}"))


def test_rules():
    """Header, campaign, tenant, sender domain, client network and listener choose the pool, in this
    order; a listener that lets nobody choose takes the fields off all the same."""
    names = ["header", "campaign", "tenant", "sender", "client", "listener", "default"]
    pools = {name: {"sources": {f"a{n}": {}}} for n, name in enumerate(names, 1)}
    with Receiver() as sink:
        engine = Engine(settings(
            sink, range(1, 8), pools, default_pool="default",
            tenants={"t": {"pool": "tenant"}}, campaigns={"c": {"pool": "campaign"}},
            senders={"s.example": {"pool": "sender"}, "*.s.example": {"pool": "sender"}}))
        own = engine.config["listeners"][0]
        own.update(pool="listener", clients={"127.0.0.9/32": {"pool": "client"}})
        plain = {"listen": f"127.0.0.2:{engine.port}", "headers": []}
        engine.config["listeners"].append(plain)
        x = "X-Hayauma-"
        cases = [
            ("header", f"{x}Pool: header\r\n{x}Campaign: c\r\n{x}Tenant: t\r\n", "s.example", "127.0.0.9"),
            ("campaign", f"{x}Campaign: c\r\n{x}Tenant: t\r\n", "s.example", "127.0.0.9"),
            ("tenant", f"{x}Tenant: t\r\n", "s.example", "127.0.0.9"),
            ("sender", "", "s.example", "127.0.0.9"), ("sender", "", "b.s.example", "127.0.0.9"),
            ("client", "", "o.example", "127.0.0.9"), ("listener", "", "o.example", None)]
        with engine:
            for i, (name, header, sender, client) in enumerate(cases):
                with Client(engine, source=client) as session:
                    session.messages([(f"u@{sender}", f"{name}{i}@x.example", f"{header}\r\ntext\r\n")])
            with Client(engine, host="127.0.0.2") as session:
                session.messages([("u@o.example", "default@x.example",
                                   f"{x}Pool: header\r\n{x}Tenant: t\r\n\r\ntext\r\n")])
            with Client(engine) as session:
                refused = session.message("r@x.example", data=f"{x}Pool: nosuch\r\n\r\nx\r\n".encode())
            if not refused.startswith("550 5.6.0 X-Hayauma-Pool: there is no such pool"):
                raise Failure(f"an unknown pool got {refused}")
            sink.wait_mails(len(cases) + 1)
            for _, number, _, _, recipient in sink.mails():
                wanted = recipient.partition("@")[0].rstrip("0123456789")
                if names[number - 1] != wanted:
                    raise Failure(f"{recipient} went by {names[number - 1]}")
            row = {r["egress_pool"] for r in engine.wait_records("Delivery", len(cases) + 1)}
            if row != set(names):
                raise Failure(f"records name the pools {row}")


def test_reload():
    """Under load a reload adds a source, and removes another one, which then sends nothing more. Of a pool that is
    gone, and that mail waits for, the log says who sends instead."""
    limits = {"*": {"total_rate": "300/s"}}
    pools = {"all": {"sources": {"a1": {}, "a2": {}}}, "old": {"sources": {"a2": {}}}, "idle": {"sources": {"a1": {}}}}
    with Receiver() as sink, Engine(settings(sink, (1, 2), pools, default_pool="all", destinations=limits)) as engine:
        engine.command("queue", "suspend", "held.example")
        inject(engine, 3, ["held.example"], header="X-Hayauma-Pool: old\r\n", first=2000)
        inject(engine, 900, DOMAINS)
        sink.wait_mails(150)
        engine.config["sources"] = {f"a{n}": source(n) for n in (2, 3)}
        engine.config["pools"] = {"all": {"sources": {"a2": {}, "a3": {}}}}
        engine.reload()
        if re.findall("serve.pool_gone (.*)", engine.log()) != ["pool=old instead=all"]:
            raise Failure(f"which pools are gone: {engine.log()}")
        wait_until("a3 to send, a1 no more",
                   lambda: set(sink.shares(max(0, len(sink.ledger()) - 40))) == {2, 3})
        done = len(sink.ledger())
        sink.wait_mails(900)
        check_weights(sink.shares(done), {2: 1, 3: 1}, 0.1)
        if len(sink.ledger()) != 900:
            raise Failure("a message was sent twice")


def test_screens():
    """source list and show, pool list, a source that there is not."""
    pools = {"bulk": {"sources": {"a1": {"weight": 2}, "a2": {}}, "overflow": "spare"},
             "spare": {"sources": {"a2": {}}}}
    with Receiver() as sink, Engine(settings(sink, (1, 2), pools, default_pool="bulk")) as engine:
        engine.command("source", "suspend", "a1", "--for", "1h")
        for words in (["source", "list"], ["source", "show", "a1"], ["pool", "list"]):
            text = engine.command(*words)
            rows = engine.rows(*words)
            for word in (["bulk", "spare", "a1 2"] if words[0] == "pool" else ["a1", "suspended"]):
                if word not in text:
                    raise Failure(f"{words} lacks {word}:\n{text}")
            if len(rows) != (1 if "show" in words else 2):
                raise Failure(f"{words} --json: {rows}")
        listed = engine.command("queue", "suspensions")
        if "source" not in listed or "a1" not in listed:
            raise Failure(f"suspensions says {listed}")
        for words in (["source", "suspend", "nosuch"], ["source", "show", "nosuch"],
                      ["source", "resume", "a2"], ["source", "suspend"],
                      ["trace", "--source", "nosuch", "--for", "1s"]):
            done = subprocess.run([program(), *words, "-c", engine.file], capture_output=True, text=True,
                                  check=False)
            if done.returncode not in (1, 2) or not done.stderr:
                raise Failure(f"{words}: {done.returncode} {done.stderr}")


def test_many():
    """Three hundred sources take turns."""
    many = {f"m{i}": {"ipv4": f"127.0.{1 + i // 100}.{1 + i % 100}"} for i in range(300)}
    with Receiver() as sink, Engine({**settings(sink, ()), "sources": many}) as engine:
        inject(engine, 1200)
        sink.wait_mails(1200)
        used = {r["egress_source"] for r in engine.wait_records("Delivery", 1200)}
        if len(used) < 200:
            raise Failure(f"{len(used)} of 300 sources sent 1200 messages")


if __name__ == "__main__":
    run(globals())
