"""The rows of what comes by HTTP: single letters, and campaigns."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import subprocess
import threading
import time

import servers
from engine import merge, program
from proc import Failure, TempDir, free_port, resident_bytes, wait_port, wait_until
from rows import (LOCALHOST, OwnSink, Row, bench_program, delivered, drained, fill, own_path, own_source,
                  run_json)

ROOT = "/api/campaigns/v1"
CHUNK = 16_384  # recipients of a request: eight transactions
CLIENTS = 4
DOMAINS = 1000


class WithApi(servers.HayaumaRelay):
    """Takes mail by HTTP too, from who has a token."""

    def __init__(self, target, settings=None, directory=None):
        super().__init__(target, merge({"http": {
            "listen": f"{LOCALHOST}:{free_port()}", "connections_per_client_max": 1000}}, settings or {}), directory)
        self.web = int(self.engine.config["http"]["listen"].rpartition(":")[2])
        self.engine.config["http"]["tokens"] = str(self.engine.dir / "tokens")

    def start(self):
        self.engine.write_config()
        self.token = self.engine.command("token", "add", "bench", "--scopes", "admin").strip()
        super().start()
        wait_port((LOCALHOST, self.web), self.engine.process)
        return self

    def connect(self):
        return contextlib.closing(http.client.HTTPConnection(LOCALHOST, self.web, timeout=120))

    def post(self, connection, path, body, kind="application/json"):
        """What a 2xx says."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection.request("POST", path, body, {"Content-Type": kind, "Authorization": f"Bearer {self.token}"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status // 100 != 2:
            raise Failure(f"POST {path}: {answer.status} {text[:500]}")
        return json.loads(text)


# --- single letters ---

# Intake alone is measured: what came in stays, since the only source that could send it is suspended.
HELD = {"sources": {"held": {"ipv4": LOCALHOST}}, "default_pool": "held",
        "pools": {"held": {"sources": {"held": {"weight": 1}}}}}


def intake(how, count, size, **client):
    """Letters of one recipient by SMTP or by HTTP, none of which is sent on: rate and engine CPU."""
    relay, lost = WithApi(f"{LOCALHOST}:1", HELD).start(), 0
    try:
        relay.engine.command("source", "suspend", "held")
        before, start = relay.cpu_s(), time.monotonic()
        if how == "smtp":
            own_source(relay.address(), count, size=size, more=["--rcpt-domains", 100, "--pipeline", client["in_flight"]],
                       sessions=client["sessions"])
        else:
            lost = run_json([bench_program("http_client"), "--requests", count, "--bytes", size, "--connections",
                             client["sessions"], "--domains", 100, "--token", relay.token, LOCALHOST,
                             relay.web])["lost"]
        seconds, cpu = time.monotonic() - start, relay.cpu_s() - before
        queue = relay.engine.status()["queue"]
        if not count <= queue["rows"] <= count + lost:
            raise Failure(f"{queue['rows']} recipients are in the queue, not {count}")
        return {"server": how, "messages": count, "message_bytes": size, **client,
                "messages_per_s": round(count / seconds), "cpu_us_per_message": round(cpu / count * 1e6, 1),
                "connections_lost": lost,
                "messages_per_commit": round(count / max(queue["commits"], 1), 1)}, relay.settings()
    finally:
        relay.stop()


def http_inject(scale):
    """Both with as many messages in flight: 200, as one client may have connections by default, and 512, as the
    main row has."""
    count, size = int(100_000 * scale), 4096
    smtp, _ = intake("smtp", count, size, sessions=64, in_flight=8)
    many, _ = intake("http", count, size, sessions=512)
    lockstep, _ = intake("smtp", count, size, sessions=200, in_flight=1)
    ours, settings = intake("http", count, size, sessions=200)
    few, _ = intake("http", int(count / 5), size, sessions=8)
    row = Row("injections of one 4 KiB letter each over kept HTTP connections, durable, beside SMTP; intake alone",
              [smtp, many, lockstep, ours, few], settings=settings)
    row.want("share of the SMTP intake, 200 messages in flight", ours["messages_per_s"] / lockstep["messages_per_s"],
             ">=", 0.7)
    row.want("share of the SMTP intake, 512 in flight", many["messages_per_s"] / smtp["messages_per_s"], ">=", 0.7)
    row.want("engine CPU us a request", ours["cpu_us_per_message"], "<=", 70)
    return row


# --- metrics ---

def scrape(scale):
    """GET /metrics while many sites have mail; none of it may be sent, so that workers do nothing else."""
    sites, times = max(int(10_000 * scale), 100), 20
    routes = {f"d{i}.example": f"[127.{1 + i // 62500}.{i // 250 % 250}.{i % 250 + 1}]:1" for i in range(sites)}
    relay, took = WithApi(f"{LOCALHOST}:1", {**HELD, "routes": routes}).start(), []
    try:
        relay.engine.command("source", "suspend", "held")
        with relay.connect() as connection:
            for first in range(0, sites, 1000):
                relay.post(connection, "/api/inject/v1", {
                    "envelope_sender": "a@b.example", "content": "From: a@b.example\n\nx\n",
                    "recipients": [{"email": f"a@d{i}.example"} for i in range(first, min(first + 1000, sites))]})
        wait_until("the sites", lambda: relay.engine.status()["gauges"]["sites"] == sites, 60)
        time.sleep(61)  # the turn of the last minute that took most CPU is asked for
        cpu = relay.cpu_s()
        with relay.connect() as connection:
            for _ in range(times):
                start = time.monotonic()
                connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {relay.token}"})
                text = connection.getresponse().read().decode()
                took.append(time.monotonic() - start)
        cpu = relay.cpu_s() - cpu
        turn = max(float(line.split()[1]) for line in text.splitlines()
                   if line.startswith("hayauma_turn_cpu_longest_lately_seconds{"))
        row = Row("a scrape of /metrics, each site with mail", [{
            "server": "hayauma", "sites": sites, "bytes": len(text), "median_ms": round(sorted(took)[times // 2] * 1e3, 1),
            "longest_ms": round(max(took) * 1e3, 1), "cpu_ms": round(cpu / times * 1e3, 1),
            "longest_turn_cpu_ms": round(turn * 1e3, 1)}])
        row.want("ms a scrape, the longest", max(took) * 1e3, "<=", 50)
        row.want("longest turn meanwhile, ms of CPU", turn * 1e3, "<=", 20)
        return row
    finally:
        relay.stop()


# --- campaigns ---

def newsletter(size=6144, domain="bench.example"):
    """A letter of that size, text and HTML, with four variables in an eighth of its lines."""
    def text(size, before, after):
        lines, n = [], 0
        while sum(map(len, lines)) < size:
            lines.append(f"{before}We have packed the spring collection for you, with free delivery."
                         + (" {{ %s }}" % ("name", "city", "code", "points")[n // 8 % 4] if n % 8 == 0 else "")
                         + f"{after}\n")
            n += 1
        return "".join(lines)

    return {"envelope_sender": f"news@{domain}",
            "content": {"from": {"email": f"news@{domain}", "name": "News"}, "subject": "{{ name }}, your spring",
                        "headers": {"List-Unsubscribe": "<https://news.bench.example/u/{{ code }}>",
                                    "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"},
                        "text_body": text((size - 800) // 3, "", ""),
                        "html_body": text((size - 800) // 3 * 2, "<p>", "</p>")}}


def recipient(n):
    return (f"hanako.yamada.{n}@d{n % DOMAINS}.example", "Hanako Yamada", "Kyoto", f"a7f3c2{n:08x}", str(n % 5000))


def chunks(count):
    """Bodies of requests, and how many bytes the variables of all are."""
    bodies, variables = [], 0
    for first in range(0, count, CHUNK):
        rows = [recipient(n) for n in range(first, min(first + CHUNK, count))]
        variables += sum(len(json.dumps({"name": name, "substitutions": {
            "city": city, "code": code, "points": points}}, separators=(",", ":")))
            for _, name, city, code, points in rows)
        bodies.append(("email,name,city,code,points\n" + "".join(f"{','.join(r)}\n" for r in rows)).encode())
    return bodies, variables


class Peak(threading.Thread):
    """The most memory that a process had, of its own and with what it has mapped of files."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.anonymous, self.resident, self.over = pid, 0, 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.1):
            with contextlib.suppress(OSError):
                status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
                self.anonymous = max(self.anonymous, int(status.split("RssAnon:")[1].split()[0]) * 1024)
                self.resident = max(self.resident, resident_bytes(self.pid))

    def stop(self):
        self.over.set()
        self.join()


def on_disk(relay):
    """Bytes that the queue has of the disk, and those of them that are in use."""
    blocks = sum(f.stat().st_blocks * 512 for f in (relay.engine.dir / "queue").rglob("*") if f.is_file())
    return blocks, relay.engine.status()["queue"]["map_used_bytes"]


def upload(relay, campaign, bodies, count):
    """All recipients, by several connections at once: what that took."""
    left, lock = iter(bodies), threading.Lock()

    def client():
        added = 0
        with relay.connect() as connection:
            while True:
                with lock:
                    body = next(left, None)
                if body is None:
                    return added
                added += relay.post(connection, f"{ROOT}/{campaign}/recipients", body, "text/csv")["new"]

    cpu, start = relay.cpu_s(), time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        added = sum(f.result() for f in [pool.submit(client) for _ in range(CLIENTS)])
    seconds, cpu = time.monotonic() - start, relay.cpu_s() - cpu
    if added != count:
        raise Failure(f"{added} recipients were new, not {count}")
    return {"recipients_per_s": round(count / seconds), "cpu_us_per_recipient": round(cpu / count * 1e6, 2)}


def order(relay, campaign, verb):
    with relay.connect() as connection:
        return relay.post(connection, f"{ROOT}/{campaign}/{verb}", {})


def create(relay, letter):
    with relay.connect() as connection:
        return relay.post(connection, ROOT, {"name": "spring", **letter})["id"]


def pause_s(relay, campaign):
    """From the request for a pause to the end of the last letter: until none ends for a second."""
    start = last = time.monotonic()
    asked = threading.Thread(target=order, args=(relay, campaign, "pause"))
    asked.start()
    done = delivered(relay.engine)
    while time.monotonic() - last < 1 and time.monotonic() - start < 30:
        now = delivered(relay.engine)
        if now != done:
            done, last = now, time.monotonic()
    asked.join()
    return last - start


def send_all(relay, sink, count, bytes_each, campaign, verb):
    """From an order until the sink has the rest of count letters."""
    before, cpu, start = delivered(relay.engine), relay.cpu_s(), time.monotonic()
    order(relay, campaign, verb)
    summary = sink.summary(180)
    seconds, cpu, sent = time.monotonic() - start, relay.cpu_s() - cpu, count - before
    return {"letters": sent, "letter_bytes": summary["bytes"] // count if not bytes_each else bytes_each,
            "messages_per_s": round(sent / seconds), "cpu_us_per_message": round(cpu / sent * 1e6, 1),
            "sink_cpu_us": summary["cpu_us_per_message"]}


SESSIONS = {"destinations": {"*": {"sessions_max": 64, "session_messages_max": "none"}}}


def drain_stored(count, size):
    temp, sink = TempDir("hayauma-drain-"), OwnSink(count)
    fill(temp.path / "queue", "--recipients", count, "--domains", DOMAINS, "--size", size)
    took, _, _ = drained(temp, sink, count, SESSIONS)
    return {"server": "drain", "message_bytes": size, **took}


def rendering_us():
    """CPU of one letter alone, by the micro-benchmark; None: it is not built."""
    try:
        bench = bench_program("letter_bench")
    except Failure:
        return None
    done = subprocess.run([bench, "--benchmark_format=json", "--benchmark_filter=7bit"], capture_output=True,
                          text=True, check=True, timeout=60)
    return json.loads(done.stdout)["benchmarks"][0]["cpu_time"] / 1000


def campaign(scale):
    count, few = int(1_000_000 * scale), int(300_000 * scale)
    main, _ = own_path(4096, int(200_000 * scale))
    bodies, variables = chunks(count)
    sink = OwnSink(count)
    relay = WithApi(sink.address, SESSIONS).start()
    peak = Peak(relay.engine.process.pid)
    try:
        one = create(relay, newsletter())
        file, used = on_disk(relay)
        added = upload(relay, one, bodies, count)
        file_after, used_after = on_disk(relay)
        order(relay, one, "start")
        wait_until("letters to go", lambda: delivered(relay.engine) > count / 100, 30, 0.01)
        paused = pause_s(relay, one)
        queued = count - delivered(relay.engine)
        sent = send_all(relay, sink, count, 0, one, "resume")
        peak.stop()
    finally:
        relay.stop()
        sink.stop()
    stored = drain_stored(few, sent["letter_bytes"])
    rendering = rendering_us()
    disk = {"disk_bytes_per_recipient": round((file_after - file) / count, 1),
            "used_bytes_per_recipient": round((used_after - used) / count, 1),
            "variables_bytes": round(variables / count, 1)}
    ours = {"server": "hayauma", "recipients": count, **added, **disk, "queued_at_pause": queued,
            "pause_s": round(paused, 3), **sent, "anonymous_mib": round(peak.anonymous / 2**20, 1),
            "resident_mib": round(peak.resident / 2**20, 1)}
    row = Row("a campaign with four variables a recipient: its list over HTTP, a pause, and 6 KiB letters to the last",
              [{**main, "server": "smtp"}, ours, stored], settings=relay.settings())
    row.want("recipients/s added, times the main row's intake", added["recipients_per_s"] / main["messages_per_s"],
             ">=", 5)
    row.want("bytes of disk a recipient, beyond the variables",
             disk["disk_bytes_per_recipient"] - disk["variables_bytes"], "<=", 250)
    row.want("s from a pause to the last letter", paused, "<=", 1)
    row.want("letters/s against a drain of stored messages of that size",
             sent["messages_per_s"] / stored["messages_per_s"], ">=", 0.8)
    if rendering is not None:
        row.results.append({"server": "letter_bench", "render_us": round(rendering, 2)})
        row.want("CPU us of rendering a letter", rendering, "<=", 10)
    row.want("MiB of the engine's own memory, at most", peak.anonymous / 2**20, "<=", 300)
    return row


# --- signed ---

def signatures_per_core(algorithm):
    """What `openssl speed` makes of them, a second of one core, all cores at work."""
    cores = os.cpu_count()
    mark, column = {"rsa2048": ("+F2:", 3), "ed25519": ("+F6:", 4)}[algorithm]
    done = subprocess.run(["openssl", "speed", "-mr", "-seconds", "4", "-multi", str(cores), algorithm],
                          capture_output=True, text=True, check=True, timeout=60)
    return float([line for line in done.stdout.split("\n") if line.startswith(mark)][-1].split(":")[column]) / cores


def campaign_sent(count, kinds):
    """A whole campaign, signed by keys of these kinds."""
    temp, sink = TempDir("hayauma-keys-"), OwnSink(count)
    subprocess.run([program(), "dkim", "keygen", "bench.example", "--selector", "s", "--directory", temp.path],
                   check=True, capture_output=True)
    keys = [{"domain": "bench.example", "selector": f"s-{kind}", "file": str(temp.path / f"bench.example.s-{kind}.pem")}
            for kind in kinds]
    relay = WithApi(sink.address, {**SESSIONS, "dkim": {"keys": keys}}).start()
    try:
        one = create(relay, newsletter())
        bodies, _ = chunks(count)
        upload(relay, one, bodies, count)
        sent = send_all(relay, sink, count, 0, one, "start")
        return {"server": "+".join(kinds) or "unsigned", **sent,
                "signed": relay.engine.status()["counters"]["signed_messages"]}
    finally:
        relay.stop()
        sink.stop()
        temp.close()


def campaign_signed(scale):
    unsigned = campaign_sent(int(200_000 * scale), [])
    row = Row("a campaign's 6 KiB letters, each signed", [unsigned])
    for kind, algorithm, count in (("ed25519", "ed25519", 200_000), ("rsa", "rsa2048", 50_000)):
        speed, sent = signatures_per_core(algorithm), campaign_sent(int(count * scale), [kind])
        if sent["signed"] != sent["letters"]:
            raise Failure(f"{sent['signed']} of {sent['letters']} were signed")
        cost_us = sent["cpu_us_per_message"] - unsigned["cpu_us_per_message"]
        row.results += [{"server": "openssl speed", f"{algorithm}_per_core_and_s": round(speed)}, sent]
        row.want(f"{kind}: share of openssl speed, the delivery's CPU subtracted", 1e6 / speed / cost_us, ">=", 0.85)
    return row


ROWS = {"http-inject": http_inject, "scrape": scrape, "campaign": campaign, "campaign-signed": campaign_signed}
