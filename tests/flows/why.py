#!/usr/bin/env python3
"""`hayauma why` and `route` say what holds mail: in each state the right reason, of which limit, set
where, from which answer; and nothing of what the mail says.

why.py [TEST...]"""

import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from engine import Engine, Sink, program  # noqa: E402
from proc import Failure, wait_until  # noqa: E402
from talk import Client, check, read_all, run  # noqa: E402

CANARY = "canary-7f3a"  # in what no screen of these shows
COUNT = 4  # messages for each subject
WORLD = {"classes": [
    {"name": "busy", "domains": ["busy.example"], "address": "127.0.0.3",
     "defer": {"rate": 1, "at": "banner", "reply": "421 4.3.2 no room today"}},
    {"name": "slow", "domains": ["slow.example", "two.example"], "latency": {"rcpt": "300s"}},
    {"name": "later", "domains": ["later.example"],
     "defer": {"rate": 1, "reply": "450 4.2.0 come later"}},
    {"name": "silent", "domains": ["silent.example"], "dns": "timeout"},
    {"name": "broken", "domains": ["broken.example", "cracked.example"], "dns": "servfail"}]}


def settings(sink):
    return {
        "workers": 2, "drain_timeout": "1s", "dns": sink.dns(timeout="30s"),
        "sources": {"plain": {"ipv4": "127.0.0.1"}, "new": {"ipv4": "127.0.0.61"},
                    "away": {"ipv4": "192.0.2.99"}, "idle": {"ipv4": "127.0.0.62"},
                    "spare": {"ipv4": "127.0.0.63"}},
        "pools": {"main": {"sources": {"plain": {}, "spare": {}}, "engaged": "warm"}, "warm": {"sources": {"new": {}}},
                  "lost": {"sources": {"away": {}}}, "rest": {"sources": {"idle": {}}}},
        "default_pool": "main",
        "campaigns": {"heating": {"pool": "warm"}, "missing": {"pool": "lost"},
                      "resting": {"pool": "rest"}},
        "warmup": {"schedules": {"mine": {"steps": [24, 25, 26]}},
                   "sources": {"new": {"schedule": "mine"}}},
        "destinations": {"*": {"retry": ["50m"]}, "paced.example": {"rate": "2/h"},
                         "paced-all.example": {"total_rate": "2/h"},
                         "slow.example": {"sessions_max": 1},
                         "two.example": {"total_sessions_max": 1},
                         "begun.example": {"connect_rate": "1/h", "session_messages_max": 1},
                         "hosted.example": {"host_rate": "1/h"}, "daily.example": {"total_rate": "3/d"},
                         "quiet.example": {"quiet_hours": quiet_now(), "time_zone": "Asia/Tokyo"}}}


def quiet_now():
    """Hours in Tokyo that last an hour more at least."""
    hour = time.gmtime().tm_hour + 9
    return f"{hour % 24}-{(hour + 1) % 24 + 1}"  # midnight as an end is 24


def line_of(engine, domain, key):
    """Where the file gives the key of a destination: every key has a line of its own."""
    lines = engine.file.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if f'"{domain}"' in line)
    at = next(i for i in range(at, len(lines)) if f'"{key}"' in lines[i])
    return f"{engine.file}:{at + 1}"


def inject(engine, domain, campaign="", tenant=""):
    names = {"Campaign": campaign, "Tenant": tenant}
    body = "".join(f"X-Hayauma-{name}: {value}\r\n" for name, value in names.items() if value)
    body += f"Subject: {CANARY}\r\n\r\n{CANARY}\r\n"
    with Client(engine) as client:
        client.messages([("a@sender.example", f"r{i}@{domain}", body) for i in range(COUNT)])


class Waiting(Engine):
    """An engine whose mail waits for something else in each domain."""

    def __init__(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as file:
            json.dump(WORLD, file)
        self.world = pathlib.Path(file.name)
        self.sink = Sink(behaviour=file.name).start()
        super().__init__(settings(self.sink))

    def start(self, timeout_s=60):
        super().start(timeout_s)
        self.command("queue", "suspend", "s1.example", "--reason", "complaints", "--for", "2h")
        self.command("queue", "suspend", "--campaign", "spring", "--reason", "wrong text")
        self.command("queue", "suspend", "--tenant", "acme")
        self.command("queue", "suspend", "--site", "mx1.s4.example")
        self.command("source", "suspend", "idle", "--reason", "listed")
        self.command("source", "suspend", "spare")
        for domain in ("busy", "paced", "paced-all", "slow", "two", "begun", "hosted", "daily", "quiet", "later",
                       "broken", "cracked", "s1", "s4"):
            inject(self, f"{domain}.example")
        inject(self, "s2.example", campaign="spring")
        inject(self, "s3.example", tenant="acme")
        inject(self, "heat.example", campaign="heating")
        inject(self, "lost.example", campaign="missing")
        inject(self, "rest.example", campaign="resting")
        return self

    def stop(self, timeout_s=60):
        super().stop(timeout_s)
        self.sink.stop()
        self.world.unlink()

    def why(self, *subject):
        one, = self.rows("why", *subject)
        return one

    def reason(self, *subject):
        """The first hold once some mail of the subject waits, and what is said of it in words."""
        def waits():
            found = [h for h in self.why(*subject)["holds"] if h["state"] == "waits"]
            return found[0] if found else None

        hold = wait_until(f"mail of {subject} to wait", waits, 20, process=self.process)
        text = self.command("why", *subject)
        if CANARY in text or CANARY in json.dumps(hold):
            raise Failure(f"why {subject} shows what the mail says: {text}")
        return hold, text


def told(engine, subject, reason, *words, **members):
    """The subject's mail waits for this, and the sentence has these words."""
    def is_it():
        hold, text = engine.reason(*subject)
        return (hold, text) if hold["wait"]["reason"] == reason else None

    hold, text = wait_until(f"{subject} to wait for {reason}", is_it, 20, process=engine.process)
    for word in words:
        if word not in text:
            raise Failure(f"why {subject} does not say {word!r}:\n{text}{hold}")
    for name, value in members.items():
        if hold["wait"].get(name) != value:
            raise Failure(f"why {subject}: {name} is not {value!r}: {hold}")
    return hold


def check_limits(engine):
    where = line_of(engine, "paced.example", "rate")
    hold = told(engine, ["paced.example"], "rate", "our rate limit: next in ", "rate 2 in 1h00m",
                "of source plain", where, "The settings let 2 messages an hour through",
                "Next attempt in ", source="plain")
    limit = hold["wait"]["limit"]
    check("the limit", (limit["name"], limit["max"], limit["period_ms"]), ("rate", 2, 3600000))
    check("the ceiling", hold["per_hour"], 2)
    if hold["next_ms"] <= time.time() * 1000 or not 1 <= hold["hours"] <= 2:
        raise Failure(f"next attempt, hours: {hold}")
    hold = told(engine, ["--site", "mx1.paced-all.example"], "rate", "total_rate 2 in 1h00m",
                line_of(engine, "paced-all.example", "total_rate"))
    check("the limit", hold["wait"]["limit"]["name"], "total_rate")
    hold = told(engine, ["slow.example"], "sessions", "1 of 1 sessions, sessions_max of source plain",
                line_of(engine, "slow.example", "sessions_max"))
    check("used", (hold["wait"]["limit"]["used"], hold["wait"]["limit"]["max"]), (1, 1))
    told(engine, ["two.example"], "sessions", "1 of 1 sessions, total_sessions_max",
         line_of(engine, "two.example", "total_sessions_max"))
    # No session is open, and none may begin: that is a rate.
    told(engine, ["begun.example"], "rate", "our rate limit: next in ", "; connect_rate 1 in 1h00m",
         line_of(engine, "begun.example", "connect_rate"), "The settings let 1 message an hour through")
    told(engine, ["hosted.example"], "rate", "our rate limit: next in ", "; host_rate 1 in 1h00m",
         line_of(engine, "hosted.example", "host_rate"), "The settings let 1 message an hour through")
    hold = told(engine, ["daily.example"], "rate", "total_rate 3 in 1d00h",
                "The settings let 3 messages a day through", "takes 1d")
    check("the ceiling", (hold["per_hour"], hold["hours"]), (0.125, hold["recipients"] * 8))
    quiet = engine.config["destinations"]["quiet.example"]["quiet_hours"]
    told(engine, ["quiet.example"], "quiet_hours", f": {quiet} Asia/Tokyo, set at ",
         line_of(engine, "quiet.example", "quiet_hours"), "Next attempt in ")


def check_suspensions(engine):
    told(engine, ["s1.example"], "suspended", "for 1h59m more: domain s1.example: complaints; by ",
         scope="domain", text="complaints")
    told(engine, ["spring"], "suspended", "campaign spring: wrong text", scope="campaign")
    told(engine, ["acme"], "suspended", "tenant acme", scope="tenant")
    told(engine, ["s4.example"], "suspended", "site mx1.s4.example", scope="site")
    told(engine, ["rest.example"], "suspended", "source idle: listed", scope="source")
    hold = told(engine, ["idle"], "suspended", scope="source", name="idle")
    check("mail of the source", hold["recipients"], COUNT)
    # Of the mail that another source sends, what keeps this one from it.
    found = {h["queue"]: h.get("wait", {}).get("name") for h in engine.why("spare")["holds"]}
    check("what keeps 'spare' from sending", found.get("slow.example"), "spare")
    check("what 'idle' is", engine.why("idle")["is"], ["source"])
    check("a site in other letters", engine.why("--site", "MX1.s4.Example")["is"], ["site"])
    engine.command("queue", "resume", "--site", "MX1.S4.example")
    engine.command("queue", "suspend", "--site", "MX1.s4.Example")
    inject(engine, "s4.example")
    told(engine, ["s4.example"], "suspended", "site mx1.s4.example", scope="site")
    for command in ("route", "x@rest.example", "--campaign", "resting"), ("site", "show", "x.example"):
        text = engine.command(*command)
        wanted = r"idle.*: suspended \d+s ago by .+: listed" if command[0] == "route" else r"spare.*suspended \d+s ago"
        if not re.search(wanted, text):
            raise Failure(f"{command} does not say by whom a source is suspended: {text}")
    text = engine.command("queue", "flush", "s1.example")
    if not re.search(r"\n4 stay: suspended \d+s ago, for .* more: domain s1.example: complaints; by ", text):
        raise Failure(f"a flush says nothing of the suspension: {text}")


def check_destinations(engine):
    hold = told(engine, ["busy.example"], "back_off", "mx1.busy.example: 421 4.3.2 no room today",
                "; answered ", host="mx1.busy.example", error="421 4.3.2 no room today")
    if not 0 < time.time() * 1000 - hold["wait"]["answered_ms"] < 60000:
        raise Failure(f"when did it answer? {hold}")
    told(engine, ["broken.example"], "no_route", " for broken.example from pool main: no route, again in ")
    told(engine, ["cracked.example"], "no_route", " for cracked.example from pool main: no route, again in ")
    check("domains without a route, told apart", sorted(
        h["queue"] for h in engine.why("plain")["holds"] if h.get("wait", {}).get("reason") == "no_route"),
        ["broken.example", "cracked.example"])
    told(engine, ["heating"], "warmup", "of 24 today", "stage 1 of 3", "warmup.sources['new']",
         f"{engine.file}:", " an hour through", source="new")
    told(engine, ["lost.example"], "source", "no source of its pool has an address or a proxy to send from")
    text = engine.command("why", "away")
    if "192.0.2.99 is none of this machine's" not in text:
        raise Failure(f"why away: {text}")
    one, = engine.rows("route", "x@lost.example", "--campaign", "missing")
    check("its state to route", one["sources"][0]["state"], "missing")
    text = engine.command("route", "x@lost.example", "--campaign", "missing")
    if "this machine holds none of its addresses" not in text:
        raise Failure(f"route: {text}")


def check_rest(engine):
    def later():
        hold, = engine.why("later.example")["holds"]
        return hold if hold["state"] == "later" else None

    hold = wait_until("each recipient's deferral", later, 20, process=engine.process)
    check("the answer", hold["last_error"], "450 4.2.0 come later")
    text = engine.command("why", "later.example")
    if not re.search(r"4 recipients are due in [45]\dm or later; the last attempt heard: 450 4.2.0 come "
                     r"later \(mx1.later.example, \d+s ago\).\nNext attempt in [45]\dm.\n", text):
        raise Failure(f"why later.example says {text}")
    row = engine.rows("queue", "list", "s1.example", "--limit", "1")[0]
    told(engine, [row["id"]], "suspended", "(message)", "domain s1.example", scope="domain")
    shown = engine.command("queue", "show", row["id"])
    if "; by " not in shown:  # as why says it
        raise Failure(f"queue show: {shown}")
    engine.command("queue", "hold", "later.example")
    wait_until("it to be held", lambda: "are held by 'hayauma queue hold'" in engine.command(
        "why", "later.example"), 10, process=engine.process)
    check("an empty one", engine.command("why", "nothing.example"),
          "nothing.example: nothing is queued for a domain, campaign, tenant or site of that name.\n")
    check("one of a scope", engine.command("why", "--tenant", "nobody"), "nobody: nothing is queued.\n")
    found = {d["queue"]: d.get("wait", {}).get("limit", {}).get("name")
             for d in engine.status()["destinations"]}
    check("status has the same", (found["paced.example"], found["slow.example"]),
          ("rate", "sessions_max"))


def check_route(engine):
    """Where mail would go is told by the rules and the limits that mail meets, and none is sent."""
    before = len(engine.sink.ledger()), engine.status()["queue"]["rows"]
    one, = engine.rows("route", "x@Paced.example", "--from", "a@sender.example")
    check("domain, pool, rule", (one["domain"], one["pool"], one["rule"].split(",")[0], one["engaged"]),
          ("paced.example", "main", "default_pool", "warm"))
    marked, = engine.rows("route", "x@paced.example", "--header", "X-Hayauma-Engaged: yes")
    check("pool of engaged mail", (marked["pool"], re.sub(":[0-9]+", "", marked["rule"])),
          ("warm", f"pools['main'].engaged, {engine.file}; default_pool, {engine.file}"))
    check("site, next hop", (one["site"], one["next_hop"], one["lookup"]),
          ("mx1.paced.example", "mx", "ok"))
    check("exchangers", [(e["host"], e["address"]) for e in one["exchangers"]],
          [("mx1.paced.example", f"127.0.0.1:{engine.sink.port}")])
    rate = next(limit for limit in one["limits"] if limit["name"] == "rate")
    check("the rate", (rate["value"], rate["set"].split(" ")[0]),
          ("2/h", line_of(engine, "paced.example", "rate")))
    source, spare = one["sources"]
    check("its sources", [(s["name"], s["state"]) for s in (source, spare)],
          [("plain", "ok"), ("spare", "suspended")])
    if source["rate_ms"] <= one["now_ms"]:
        raise Failure(f"its rate is used up, and nothing says so: {source}")

    text = engine.command("route", "x@heat.example", "--header", "x-hayauma-campaign: heating")
    for word in ("pool         warm, by campaigns['heating'].pool, ", "mx1.heat.example", "tls          may",
                 "new, weight 1, 127.0.0.61: ok", "stage 1 of 3, ", " of 24 today", "sessions_max 20"):
        if word not in text:
            raise Failure(f"route does not say {word!r}:\n{text}")
    one, = engine.rows("route", "x@other.example", "--campaign", "heating", "--tenant", "acme")
    check("its stream", one["sources"][0]["warmup"]["provider"], "default")
    check("suspended", [s["scope"] for s in one["suspensions"]], ["tenant"])
    one, = engine.rows("route", "s1.example", "--header", "X-Hayauma-Pool: rest")
    check("suspended", ([s["name"] for s in one["suspensions"]], one["sources"][0]["state"]),
          (["s1.example"], "suspended"))
    one, = engine.rows("route", "x@broken.example")
    check("no route", (one["lookup"], "sources" in one), ("temporary", False))
    for arguments, code in ((["x@"], 1), (["x@nowhere.invalid"], 1), (["x@broken.example"], 0),
                            (["x@a.example", "--header", "X-Hayauma-Pool: none"], 1),
                            (["x@a.example", "--header", "Subject: x"], 2), ([], 2)):
        done = subprocess.run([program(), "route", *arguments, "-c", engine.file], check=False,
                              capture_output=True, text=True, timeout=60)
        check(f"route {arguments}", done.returncode, code)
    check("what was sent, what is queued", (len(engine.sink.ledger()),
                                            engine.status()["queue"]["rows"]), before)


def ask(engine, request):
    """A connection to the control channel with the request sent."""
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(engine.config["control_socket"])
    peer.sendall(json.dumps(request).encode() + b"\n")
    return peer


def check_stop(engine):
    """A lookup under way does not hold up the end, which answers it."""
    waiting = ask(engine, {"op": "route", "recipient": "x@silent.example"})
    with ask(engine, {"op": "version"}) as other:
        other.recv(4096)  # the worker has the first by then
    engine.process.send(signal.SIGTERM)
    check("the answer", json.loads(read_all(waiting))["error"]["message"], "the engine is stopping")


def test_why():
    """Each reason, with what it is told of; a message, a source; later, held, nothing. Dry runs."""
    with Waiting() as engine:
        check_limits(engine)
        check_suspensions(engine)
        check_destinations(engine)
        check_rest(engine)
        check_route(engine)
        check_stop(engine)


if __name__ == "__main__":
    run(globals())
