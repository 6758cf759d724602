#!/usr/bin/env python3
"""Limits of every kind at many sites from several sources, checked by the receiver's ledger.

shaping.py [TEST...]
shaping.py full [SITES [SOURCES [SECONDS]]]   (1000, 8 and 200; on an idle machine)"""

import collections
import json
import pathlib
import sys
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "egress"))

from egress import Receiver, settings  # noqa: E402
from engine import Engine  # noqa: E402
from proc import Failure, free_port, wait_until  # noqa: E402
from talk import Client, run  # noqa: E402

HOST = "127.0.0.60"
BYTES = 2000  # of a message

# Of each kind: whose it is ("source": each source has it for itself), what it counts, and how it is set.
KINDS = {
    "rate": ("source", "messages"),
    "total_rate": ("all", "messages"),
    "recipient_rate": ("source", "recipients"),
    "total_recipient_rate": ("all", "recipients"),
    "byte_rate": ("source", "bytes"),
    "total_byte_rate": ("all", "bytes"),
    "tenant_rate": ("all", "messages"),
    "tenant_recipient_rate": ("all", "recipients"),
    "tenant_byte_rate": ("all", "bytes"),
    "campaign_rate": ("all", "messages"),
    "campaign_byte_rate": ("all", "bytes"),
    "host_rate": ("all", "messages"),  # each site here has one exchanger
    "host_recipient_rate": ("all", "recipients"),
    "host_byte_rate": ("all", "bytes"),
    "any_tenant_rate": ("all", "messages"),  # of each tenant that the file does not name
}


class Site:
    """A domain with an exchanger and a limit of its own."""

    def __init__(self, number, sources, rates):
        self.kind = list(KINDS)[number % len(KINDS)]
        self.limit = self.kind.removeprefix("any_")
        whose, self.counts = KINDS[self.kind]
        self.each = whose == "source"
        self.domain = f"d{number}.p.example"
        self.name = f"mx1.{self.domain}"
        self.share = f"s{number}"
        self.rate = rates[number // len(KINDS) % len(rates)]  # a minute
        self.burst = [0, 5][number // len(KINDS) % 2]
        if self.counts == "bytes":
            self.rate, self.burst = self.rate * BYTES, self.burst * BYTES
        one = {"bytes": BYTES, "recipients": 3, "messages": 1}[self.counts]
        self.mails = self.rate / one * (sources if self.each else 1) / 60  # a second
        self.bursts = self.burst / one * (sources if self.each else 1)

    def configure(self, config):
        unit = "B" if self.counts == "bytes" else ""
        key = self.limit.removeprefix("tenant_").removeprefix("campaign_")
        burst = f"{key}_burst" if key.split("_")[-2:-1] in ([], ["total"], ["host"]) else key.replace("_rate", "_burst")
        limits = {key: f"{self.rate}{unit}/min", burst: f"{self.burst}{unit}" if self.burst else "none"}
        if self.kind.startswith("any_tenant_"):
            config["tenants"].setdefault("*", {"sites": {}})["sites"][self.name] = limits
        elif self.kind.startswith("tenant_"):
            config["tenants"][self.share] = {"sites": {self.name: limits}}
        elif self.kind.startswith("campaign_"):
            config["campaigns"][self.share] = {"sites": {self.name: limits}}
        else:
            config["destinations"][self.domain] = limits

    def message(self, number):
        """What is put in: of recipients three in each message."""
        who = {"tenant": "Tenant", "campaign": "Campaign"}.get(self.limit.split("_", maxsplit=1)[0])
        head = f"X-Hayauma-{who}: {self.share}\r\n" if who else ""
        body = f"{head}Subject: {number}\r\n\r\n"
        body += ("x" * 76 + "\r\n") * ((BYTES - len(body)) // 78 if self.counts == "bytes" else 1)
        many = 3 if self.counts == "recipients" else 1
        rcpts = "".join(f"RCPT TO:<r{number}-{i}@{self.domain}>\r\n" for i in range(many))
        return f"MAIL FROM:<a@sender.example>\r\n{rcpts}BDAT {len(body)} LAST\r\n{body}", 2 + many


def put_in(engine, sites, seconds):
    """What the limits let through in so long, and a little more."""
    with Client(engine, timeout_s=120) as client:
        texts, replies, awaited = [], 0, 0
        for site in sites:
            for number in range(int(site.mails * seconds + site.bursts) + 5):
                text, expected = site.message(number)
                texts.append(text)
                replies += expected
                if replies < 600:
                    continue
                client.send("".join(texts))
                for _ in range(awaited):  # of those before: the engine has always more to do
                    client.expect(client.reply(), 250)
                texts, replies, awaited = [], 0, replies
        client.send("".join(texts))
        for _ in range(awaited + replies):
            client.expect(client.reply(), 250)


def sent_mails(engine):
    """recipient -> (when it was sent, in ms; size), as the engine has recorded it."""
    sent = {}
    for file in (engine.dir / "records").glob("*"):
        with open(file, encoding="utf-8") as lines:
            for line in lines:
                if line.startswith('{"type":"Delivery"') and line.endswith("\n"):
                    r = json.loads(line)
                    sent[r["recipient"]] = (r["timestamp_ms"] - r["transaction_ms"], r["size"])
    return sent


def both_ends(sink, engine, sites):
    """(site, source or None) -> [(received, sent, how much)], times in ms."""
    peers, limits = sink.peers(), collections.defaultdict(list)
    by_domain = {site.domain: site for site in sites}
    rows = sink.ledger()
    if len({row[3] for row in rows}) != len(rows):
        raise Failure("something came twice")
    sent = wait_until("all that came to be recorded", lambda: (
        lambda found: found if all(row[3] in found for row in rows) else None)(sent_mails(engine)), 20)
    for row in rows:
        site, (at, size) = by_domain[row[3].split("@")[1]], sent[row[3]]
        source = peers[row[1]][0] if site.each else None
        limits[site, source].append((int(row[0]), at, size if site.counts == "bytes" else 1))
    return limits


def too_early_ms(events, rate, burst):
    """By how much something went earlier than the limit lets it, at most: a bucket that leaks at the rate has never
    more in it than the burst, and one. Then no window has more than the burst, what the rate gives, and one."""
    level, last, most = 0, events[0][0], 0
    for at, amount in events:
        level = max(0, level - rate * (at - last))
        last, most = at, max(most, (level - burst) / rate)
        level += amount
    return most


def used_of(events, rate, since_ms, until_ms, end_ms):
    """How much of a limit was used from the last one before since_ms to the first behind until_ms."""
    before = [at for at, _ in events if at <= since_ms]
    behind = [at for at, _ in events if at >= until_ms]
    first, last = max(before, default=since_ms), min(behind, default=end_ms)
    return sum(amount for at, amount in events if first < at <= last) / (rate * (last - first))


def world(sink, sites, sources, **more):
    sink.behaviour = sink.dir / "world.yaml"
    sink.behaviour.write_text(f'classes: [{{name: p, domains: ["*.p.example"], address: {HOST}}}]\n')
    config = settings(sink, range(1, sources + 1), routes={}, tenants={}, campaigns={},
                      destinations={"*": {"sessions_max": 2}}, **more)
    for site in sites:
        site.configure(config)
    config["tenants"] = config["tenants"] or {"nobody": {}}
    return config


def measure(sink, engine, sites, seconds, used_min, meanwhile=None):
    """All mail is there before the first of it goes. When it has gone for a while, what goes in so many seconds is
    looked at. Both ends count: no limit may be exceeded by what the engine has sent, and at the receiver by no more
    than the way there took longer for one than for another, as it does where a machine is overloaded."""
    for source in engine.config["sources"]:
        engine.command("source", "suspend", source)
    begun = time.monotonic()
    settling = seconds * 0.02 + 2 + 90 / min(site.rate / (BYTES if site.counts == "bytes" else 1) for site in sites)
    clients = [threading.Thread(target=put_in, args=(engine, sites[i::16], seconds * 1.3 + 20)) for i in range(16)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    print(f"put in within {time.monotonic() - begun:.0f} s", flush=True)
    if sink.ledger():
        raise Failure("something went while its source was suspended")
    for source in engine.config["sources"]:
        engine.command("source", "resume", source)
    begun = time.monotonic()
    if meanwhile:
        meanwhile()
    time.sleep(max(0, begun + settling - time.monotonic()))
    since_ms = time.time() * 1000
    time.sleep(seconds + settling)
    limits = both_ends(sink, engine, sites)
    judge(limits, {site.kind for site in sites}, (since_ms, since_ms + seconds * 1000, time.time() * 1000), used_min)


def judge(limits, kinds, times, used_min):
    early, early_there, wrong, least, way = [], [], [], {}, []
    for (site, source), mails in limits.items():
        rate = site.rate / 60000
        sent = sorted((at, amount) for _, at, amount in mails)
        came = sorted((at, amount) for at, _, amount in mails)
        took = [there - here for there, here, _ in mails]
        early.append(too_early_ms(sent, rate, site.burst))
        early_there.append(too_early_ms(came, rate, site.burst))
        if early[-1] > 3 or early_there[-1] > max(took) - min(took) + 3 or min(took) < -3:  # of rounded times
            wrong.append((site.kind, site.name, source, early[-1], early_there[-1], mails[:50]))
        used = used_of(came, rate, *times)
        least[site.kind] = min(used, least.get(site.kind, 9))
        way += took
    way.sort()
    print(f"{len(limits)} limits, {len(way)} recipients; at most {max(early):.1f} ms too early when sent, "
          f"{max(early_there):.1f} ms when received, {sum(e > 10 for e in early_there)} limits by more than 10 ms; the "
          f"way took {way[len(way) // 2]} ms, at most {way[-1]}; {len(wrong)} violations; used at least:",
          ", ".join(f"{kind} {100 * used:.1f} %" for kind, used in least.items()), flush=True)
    if wrong:
        raise Failure(f"{len(wrong)} limits were exceeded, the first: {wrong[0]}")
    if set(least) != kinds or min(least.values()) < used_min:
        raise Failure(f"a limit was not used: {least}")


def told(engine, site):
    """`why` names the limit, and where it is set."""
    def does():
        one, = engine.rows("why", site.domain)
        for hold in one["holds"]:
            limit = hold.get("wait", {}).get("limit", {})
            if limit.get("name") == site.limit and "hayauma.yaml:" in limit["set"]:
                return True
        return False

    wait_until(f"why {site.domain} to name {site.limit}", does, 20, process=engine.process)


def held_seconds(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        lines = answer.read().decode().split("\n")
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines
            if line.startswith("hayauma_limit_held_seconds_total{")}


def test_all_kinds():
    """Every kind at two sites, from three sources: no limit is exceeded, nor by a reload; each is used,
    and told by why, and the seconds that mail waited for it are counted."""
    sites = [Site(i, 3, [360, 720]) for i in range(2 * len(KINDS))]
    port = free_port(("127.0.0.1",))
    sink = Receiver()
    config = world(sink, sites, 3, http={"listen": f"127.0.0.1:{port}", "trusted_networks": ["127.0.0.0/8"]})
    with sink, Engine(config) as engine:
        def look():
            for site in sites[:len(KINDS)]:
                told(engine, site)
            engine.reload()
            kinds = {site.limit for site in sites}
            wait_until("seconds held by each limit", lambda: kinds <= {
                name for name, s in held_seconds(port).items() if s > 0}, 20, process=engine.process)

        measure(sink, engine, sites, 6, 0.9, look)


def test_recipients_together():
    """A message to many goes to as many at once as the burst lets through, then to one by one; the session
    stays for them, however long it may be idle else."""
    with Receiver() as sink:
        limits = {"recipient_rate": "5/s", "recipient_burst": 4, "idle": "50ms"}
        with Engine(settings(sink, [1], destinations={"*": limits})) as engine:
            with Client(engine) as client:
                reply = client.message(*(f"r{i}@x.example" for i in range(10)), data=b"Subject: x\r\n\r\nx\r\n")
                client.expect(reply, 250)
            sink.wait_mails(10)
            together = list(collections.Counter((int(row[0]), row[1]) for row in sink.ledger()).items())
            level, last = 0, together[0][0][0]
            for (at, _), count in together:  # a bucket that leaks at the rate, and a second for a slow machine
                level, last = max(0, level - (at - last) * 5 / 1000) + count, at
                if level > 5 + 5:
                    raise Failure(f"recipients of one transaction after the other: {together}")
            if together[0][1] != 5:
                raise Failure(f"the first transaction has not what the burst lets through: {together}")
            if len({row[1] for row in sink.ledger()}) > 2:  # ended by chance at most once
                raise Failure(f"sessions for each message: {together}")


def test_signatures_count():
    """What a rate of bytes counts is the message as it goes out: its signature is most of a short one. A
    message that the peer cannot take, and sees nothing of, gives its leave back."""
    sink = Receiver()
    sink.behaviour = sink.dir / "world.yaml"
    sink.behaviour.write_text(
        f'classes: [{{name: p, domains: [x.example], address: {HOST}, without: [smtputf8]}}]\n')
    with sink:
        config = settings(sink, [1], routes={}, destinations={"*": {"byte_rate": "5kB/s"}})
        with Engine(config) as engine:
            with Client(engine) as client:
                body = "Subject: x\r\n\r\n" + ("x" * 76 + "\r\n") * 6000  # a minute and a half
                client.send(f"MAIL FROM:<a@sender.example> SMTPUTF8\r\nRCPT TO:<\u00fc@x.example>\r\n"
                            f"BDAT {len(body)} LAST\r\n{body}")
                for _ in range(3):
                    client.expect(client.reply(), 250)
            engine.wait_records("Bounce", 1)
            engine.command("dkim", "keygen", "sender.example", "--selector", "s1", "--directory", str(engine.dir))
            key, = engine.dir.glob("*s1-rsa*.pem")
            engine.config["dkim"] = {"keys": [{"domain": "sender.example", "selector": "s1-rsa", "file": str(key)}]}
            engine.reload()
            with Client(engine) as client:
                client.messages([("a@sender.example", f"r{i}@x.example", "From: a@sender.example\r\n\r\nx\r\n")
                                 for i in range(40)])
            sink.wait_mails(20)
            rows = sink.ledger()[:20]
            took, seconds = sum(int(row[4]) for row in rows[:-1]), (int(rows[-1][0]) - int(rows[0][0])) / 1000
            if took > 5000 * (seconds + 0.5) + 2000 or took < 19 * 500:
                raise Failure(f"{took} bytes in {seconds} s at 5000/s")


def sessions_at_once(records, host):
    """How many sessions with the host had mail at one time, from the first to the last of each."""
    spans, times = {}, []
    for record in records:
        if record["peer_address"]["name"] == host:
            ended = record["timestamp_ms"]
            began = ended - record["transaction_ms"] + 1
            first, last = spans.get(record["session_id"], (began, ended))
            spans[record["session_id"]] = (min(first, began), max(last, ended))
    for first, last in spans.values():
        times += [(first, 1), (last, -1)]
    most = now = 0
    for _, step in sorted(times):
        now += step
        most = max(most, now)
    return most


def level_of(times_ms, per_s):
    """The most that was in a bucket that leaks at the rate."""
    level = most = 0
    times_ms = sorted(times_ms)
    last = times_ms[0]
    for at in times_ms:
        level, last = max(0, level - (at - last) * per_s / 1000) + 1, at
        most = max(most, level)
    return most


def test_exchangers():
    """One exchanger has so many sessions at a time over all sources, then the next one is taken; while
    all have as many mail waits, and why says so. So it is with rates of messages and connections: each exchanger
    gets what it may, and both sources send."""
    sink = Receiver()
    sink.behaviour = sink.dir / "world.yaml"
    sink.behaviour.write_text(
        f'classes: [{{name: p, domains: [p.example], address: [{HOST}, 127.0.0.61], exchangers: 2, '
        'latency: {dot: 50ms}}, '
        '{name: q, domains: [q.example], address: [127.0.0.62, 127.0.0.63], exchangers: 2}]\n')
    config = settings(sink, [1, 2], routes={}, destinations={
        "q.example": {"sessions_max": 2, "host_rate": "10/s", "host_connect_rate": "1/s"},
        "*": {"sessions_max": 9, "host_sessions_max": 2, "pipeline_max": 1}})
    with sink, Engine(config) as engine:
        with Client(engine) as client:
            client.messages([("a@sender.example", f"r{i}@p.example", "Subject: x\r\n\r\nx\r\n") for i in range(200)])
            client.messages([("a@sender.example", f"r{i}@q.example", "Subject: x\r\n\r\nx\r\n") for i in range(60)])

        def says(domain, *words):
            return all(word in engine.command("why", domain) for word in words)

        wait_until("why to name the exchangers' limit", lambda: says(
            "p.example", "2 of 2 sessions", "host_sessions_max, set at"), 20, process=engine.process)
        wait_until("why to name their rate", lambda: says("q.example", "host_rate 10 in 1s, set at"), 20, process=engine.process)
        sink.wait_mails(260)
        records = engine.wait_records("Delivery", 260)
        most = {host: sessions_at_once(records, host) for host in ("mx1.p.example", "mx2.p.example")}
        if most != {"mx1.p.example": 2, "mx2.p.example": 2}:
            raise Failure(f"sessions at a time: {most}")
        if {r["egress_source"] for r in records} != {"a1", "a2"}:
            raise Failure("one of the sources had no turn")
        for host in ("mx1.q.example", "mx2.q.example"):
            own = [r for r in records if r["peer_address"]["name"] == host]
            sent = [r["timestamp_ms"] - r["transaction_ms"] for r in own]
            begun = {r["session_id"]: at for r, at in reversed(list(zip(own, sent)))}
            print(host, len(own), "messages", level_of(sent, 10), "connections", level_of(begun.values(), 1),
                  collections.Counter(r["egress_source"] for r in own))
            if level_of(sent, 10) > 1 + 5 or len(own) < 20:  # half a second for a slow machine
                raise Failure(f"rate of {host}: {len(own)}, {sorted(sent)}")
            if level_of(begun.values(), 1) > 1 + 0.6:
                raise Failure(f"connections to {host}: {begun}")


def test_exchangers_workers():
    """Workers share the one session that an exchanger may have: none waits until another has no more mail."""
    sink = Receiver()
    sink.behaviour = sink.dir / "world.yaml"
    sink.behaviour.write_text(
        f'classes: [{{name: p, domains: [p.example], address: [{HOST}], latency: {{dot: 50ms}}}}]\n')
    config = settings(sink, [1], routes={}, workers=2, destinations={
        "*": {"host_sessions_max": 1, "pipeline_max": 1}})
    engine = Engine(config)
    engine.config["listeners"][0]["idempotency_header"] = "X-Key"  # whose hash chooses the shard
    with sink, engine:
        with Client(engine) as client:
            client.messages([("a@sender.example", f"r{i}@p.example", f"X-Key: {i}\r\nSubject: x\r\n\r\nx\r\n")
                             for i in range(160)])
        records = engine.wait_records("Delivery", 160)
        sessions = {r["session_id"] for r in records}
        if not 3 <= len(sessions) <= 20:  # two: one worker behind the other
            raise Failure(f"{len(sessions)} sessions")
        if sessions_at_once(records, "mx1.p.example") != 1:
            raise Failure("more than one at a time")


def test_urgent_between_workers():
    """What a rate lets through is the most urgent mail's, whichever worker has it."""
    bulk = [f"d{i}.example" for i in range(8)]  # with both workers
    with Receiver() as sink:
        limits = {"total_rate": "10/s"}
        with Engine(settings(sink, [1], workers=2, destinations={"*": limits})) as engine:
            body = "X-Hayauma-Priority: {}\r\nSubject: x\r\n\r\nx\r\n"
            with Client(engine) as client:
                client.messages([("a@sender.example", f"r{i}@{bulk[i % 8]}", body.format(9)) for i in range(96)])
            sink.wait_mails(3)
            with Client(engine) as client:
                client.messages([("a@sender.example", f"u{i}@urgent.example", body.format(1)) for i in range(16)])
            before = len(sink.ledger())

            def urgent():
                return [i for i, row in enumerate(sink.ledger()[before:]) if row[3].endswith("@urgent.example")]

            wait_until("the urgent mail", lambda: len(urgent()) >= 16, 60, process=engine.process)
            first, last = urgent()[0], urgent()[15]
            print(f"bulk before the urgent mail: {first}, between it: {last - first - 15}")
            if first > 20 or last - first - 15 > 4:  # else by chance one for each
                raise Failure(f"bulk between the urgent mail: {urgent()}")


def test_urgent_sessions():
    """Sessions that are kept for urgent mail: it goes at once while the others are busy for long, in either worker,
    and nothing else goes by them."""
    sink = Receiver()
    sink.behaviour = sink.dir / "world.yaml"
    sink.behaviour.write_text(
        f'classes: [{{name: p, domains: ["*"], address: {HOST}, exchanger: p.example, latency: {{dot: 1500ms}}}}]\n')
    config = settings(sink, [1], routes={}, workers=2, destinations={
        "*": {"sessions_max": 4, "urgent_sessions": 2, "pipeline_max": 1, "idle": "1s"}})
    with sink, Engine(config) as engine:
        body = "X-Hayauma-Priority: {}\r\nSubject: x\r\n\r\nx\r\n"
        with Client(engine) as client:
            client.messages([("a@sender.example", f"b{i}@d{i % 8}.example", body.format(9)) for i in range(12)])
            wait_until("two sessions", lambda: engine.status()["sources"][0]["sessions"] == 2, 20, process=engine.process)
            wait_until("why to name what is kept", lambda: "2 of 2 sessions, urgent_sessions of source a1" in (
                engine.command("why", "d0.example") + engine.command("why", "d1.example")), 20, process=engine.process)
            client.messages([("a@sender.example", f"u{i}@d{i}.example", body.format(1)) for i in range(2)])

        def urgent_of(records):
            return [r for r in records if r["recipient"].startswith("u")]

        wait_until("the urgent mail", lambda: len(urgent_of(engine.records("Delivery"))) == 2, 30, process=engine.process)
        records = engine.records("Delivery")
        urgent = urgent_of(records)
        waited = [r["queue_ms"] - r["transaction_ms"] for r in urgent]
        bulk = sessions_at_once([r for r in records if r not in urgent], "mx1.p.example")
        print(f"urgent mail waited for {waited} ms; {bulk} sessions with other mail")
        if max(waited) > 1000 or bulk > 2:
            raise Failure(f"urgent mail waited for {waited} ms; {bulk} sessions with other mail")
        if {r["session_id"] for r in urgent} & {r["session_id"] for r in records if r not in urgent}:
            raise Failure("other mail went by a session that is kept for urgent mail")


def test_urgent_sessions_of_a_provider():
    """A provider's sites share its sessions, and stand in line for them: urgent mail of one site does not wait behind
    other mail of others for the sessions that are kept for it."""
    sink = Receiver()
    sink.behaviour = sink.dir / "world.yaml"
    sink.behaviour.write_text("classes:\n" + "".join(
        f"- {{name: c{i}, domains: [d{i}.example], address: 127.0.0.{60 + i}, exchanger: mx.p{i}.example, "
        "latency: {dot: 4s}}\n" for i in range(4)))
    config = settings(sink, [1], routes={}, workers=1, providers={"p": {
        "mx": [f"p{i}.example" for i in range(4)], "sessions_max": 3, "urgent_sessions": 1, "pipeline_max": 1}})
    with sink, Engine(config) as engine:
        body = "X-Hayauma-Priority: {}\r\nSubject: x\r\n\r\nx\r\n"
        with Client(engine) as client:
            client.messages([("a@sender.example", f"b{i}@d{i % 2}.example", body.format(9)) for i in range(4)])
            wait_until("two sessions", lambda: engine.status()["sources"][0]["sessions"] == 2, 20, process=engine.process)
            client.messages([("a@sender.example", "b4@d2.example", body.format(9))])  # stands in line
            time.sleep(0.5)
            client.messages([("a@sender.example", "u@d3.example", body.format(1))])
        urgent = next(r for r in engine.wait_records("Delivery", 6, 60) if r["recipient"].startswith("u"))
        waited = urgent["queue_ms"] - urgent["transaction_ms"]
        print(f"urgent mail waited for {waited} ms")
        if waited > 1500:
            raise Failure(f"urgent mail waited for {waited} ms")


def test_tenant_sessions():
    """A tenant has so many sessions at a time at a site, over both workers, or so many that begin to have its mail
    in a time, and why says so; others' mail goes by further ones."""
    sink = Receiver()
    sink.behaviour = sink.dir / "world.yaml"
    sink.behaviour.write_text(
        f'classes: [{{name: p, domains: ["*"], address: {HOST}, exchanger: p.example, latency: {{dot: 120ms}}}}]\n')
    config = settings(sink, [1], routes={}, workers=2, destinations={"*": {"sessions_max": 6, "pipeline_max": 1}},
                      tenants={"acme": {"sites": {"*": {"sessions_max": 2}}},
                               "slow": {"sites": {"*": {"connect_rate": "1/s"}}}})
    with sink, Engine(config) as engine:
        with Client(engine) as client:
            client.messages([("a@sender.example", f"r{i}@d{i % 8}.example",
                              f"X-Hayauma-Tenant: {('acme', 'slow', 'other', 'acme', 'other')[i % 5]}\r\n"
                              "Subject: x\r\n\r\nx\r\n") for i in range(200)])

        def says(tenant, *words):
            return all(word in engine.command("why", "--tenant", tenant) for word in words)

        wait_until("why to name the tenant's limit", lambda: says(
            "acme", "2 of 2 sessions", "tenant_sessions_max, set at"), 20, process=engine.process)
        wait_until("why to name the rate at which sessions begin", lambda: says(
            "slow", "tenant_connect_rate 1 in 1s, set at", "'slow'].sites['*'].connect_rate"), 20, process=engine.process)
        records = engine.wait_records("Delivery", 200)
        status = engine.status()
        took = {row["tenant"]: row["delivered"] for row in status["tenants"]}
        if took != {"acme": 80, "slow": 40, "other": 80}:
            raise Failure(f"counters of tenants: {status['tenants']}")
        site, = status["source_sites"]
        if (site["source"], site["site"], site["attempts"], site["delivered"]) != ("a1", "mx1.p.example", 200, 200):
            raise Failure(f"counters of the source at the site: {site}")
        # Mail of the other one goes by the session that has some of it: its rate holds it for moments.
        route, = engine.rows("route", "r@d0.example", "--tenant", "acme")
        if route["held_s"].get("tenant_sessions_max", 0) < 0.2:
            raise Failure(f"seconds held: {route['held_s']}")
        begun = {}
        for r in sorted(records, key=lambda r: r["timestamp_ms"] - r["transaction_ms"]):
            if r["meta"]["tenant"] == "slow":
                begun.setdefault(r["session_id"], r["timestamp_ms"] - r["transaction_ms"])
        if level_of(begun.values(), 1) > 1 + 0.7:
            raise Failure(f"sessions that began to have the slow tenant's mail: {begun}")
        most = {}
        for tenant in ("acme", "other"):
            times = []
            for r in records:
                if r["meta"]["tenant"] == tenant:
                    times += [(r["timestamp_ms"] - r["transaction_ms"] + 1, 1), (r["timestamp_ms"], -1)]
            now = most[tenant] = 0
            for _, step in sorted(times):
                now += step
                most[tenant] = max(most[tenant], now)
        if "200 delivered" not in engine.command("site", "show", "d0.example"):
            raise Failure(f"counters: {engine.command('site', 'show', 'd0.example')}")
        if most["acme"] != 2 or most["other"] < 2:
            raise Failure(f"sessions at a time: {most}")


def test_tenants_in_turn():
    """A session that serves many tenants in turn begins to have the mail of each once."""
    sink = Receiver()
    sink.behaviour = sink.dir / "world.yaml"
    sink.behaviour.write_text(
        f'classes: [{{name: p, domains: ["*"], address: {HOST}, exchanger: p.example}}]\n')
    config = settings(sink, [1], routes={}, workers=1, destinations={"*": {"sessions_max": 1}},
                      tenants={"*": {"sites": {"*": {"connect_rate": "1/h"}}}})
    with sink, Engine(config) as engine, Client(engine) as client:
        client.messages([("a@sender.example", f"r{i}@d.example",
                          f"X-Hayauma-Tenant: t{i % 6}\r\nSubject: x\r\n\r\nx\r\n") for i in range(30)])
        sink.wait_mails(30)


def test_tenant_sessions_at_a_provider():
    """The sites of a provider take turns at what a tenant may have there: one with much mail keeps no others."""
    sink = Receiver()
    sink.behaviour = sink.dir / "world.yaml"
    sink.behaviour.write_text("classes:\n" + "".join(
        f"- {{name: c{i}, domains: [d{i}.example], address: 127.0.0.{60 + i}, exchanger: mx.p{i}.example, "
        "latency: {dot: 40ms}}\n" for i in range(5)))
    config = settings(sink, [1], routes={}, workers=1, destinations={"*": {"sessions_max": 6}},
                      providers={"p": {"mx": [f"p{i}.example" for i in range(5)]}},
                      tenants={"acme": {"sites": {"p": {"sessions_max": 1}}}})
    with sink, Engine(config) as engine:
        with Client(engine) as client:
            body = "X-Hayauma-Tenant: acme\r\nSubject: x\r\n\r\nx\r\n"
            client.messages([("a@sender.example", f"r{i}@d0.example", body) for i in range(250)])
            sink.wait_mails(5)
            client.messages([("a@sender.example", f"r@d{i}.example", body) for i in range(1, 5)])
        sink.wait_mails(254, 90)
        places = [i for i, row in enumerate(sink.ledger()) if not row[3].endswith("@d0.example")]
        print("the others:", places)
        if places[0] > 200:
            raise Failure(f"the others' mail: {places}")


def full(sites=1000, sources=8, seconds=200):
    """The row of the manual's chapter."""
    all_sites = [Site(i, sources, [10, 20, 40, 60]) for i in range(sites)]
    sink = Receiver()
    config = world(sink, all_sites, sources, queue={"map_size": "16GiB", "intake_memory_max": "1GiB"})
    with sink, Engine(config) as engine:
        measure(sink, engine, all_sites, seconds, 0.97)


if __name__ == "__main__":
    if sys.argv[1:2] == ["full"]:
        full(*map(int, sys.argv[2:]))
    else:
        run(globals())
