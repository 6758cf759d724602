"""What tools/quickstart runs once the release is built: engine and sink on loopback, a newsletter with a
greeting for each of a list that is the same every time, as a campaign; progress, a summary from the event
records, and the campaign's report as a page."""

import argparse
import collections
import csv
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

TREE = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = TREE / "build/release/bin/hayauma"
EXAMPLE = TREE / "docs/examples/newsletter"
HERE = TREE / "build/quickstart"
LETTER = EXAMPLE / "greeting.eml"
SENDER = "news-bounces@sender.example"
CAMPAIGN = "newsletter-1"
LIMIT_S = 120  # for the delivery; then what is left is shown as queued

# Class of domains: how many of them, and its share of the recipients.
CLASSES = {
    "fast": (100, 0.60), "slow": (20, 0.08), "busy": (20, 0.08), "defers": (20, 0.08),
    "greylists": (15, 0.05), "unknown": (15, 0.06), "drops": (5, 0.03), "refuses": (2, 0.01),
    "gone": (2, 0.005), "nomail": (1, 0.005),
}
NAMES = ("sato suzuki takahashi tanaka ito watanabe yamamoto nakamura kobayashi kato yoshida yamada "
         "sasaki yamaguchi matsumoto inoue kimura hayashi shimizu smith jones taylor brown").split()


def make_list(path, count):
    """The subscribers: email, name, language; the same ones every time."""
    chance = random.Random(2026)
    domains = [f"mail{n:02}.{kind}.example" for kind, (number, _) in CLASSES.items()
               for n in range(1, number + 1)]
    weights = [share / number for number, share in CLASSES.values() for _ in range(number)]
    with open(path, "w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(["email", "name", "language"])
        for n, domain in enumerate(chance.choices(domains, weights, k=count)):
            name = chance.choice(NAMES)
            rows.writerow([f"{name}.{n}@{domain}", name.capitalize(), chance.choice(["ja", "ja", "en"])])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Servers:
    """Engine and sink, which end with us whatever happens."""

    def __init__(self):
        self.mail_port, self.dns_port, self.smtp_port, self.http_port = (free_port() for _ in range(4))
        self.config = HERE / "hayauma.yaml"
        self.running = []

    def configure(self):
        self.config.write_text(f"""# Written by tools/quickstart.
host_name: mta.sender.example
control_socket: {HERE}/control.sock
log_level: warn
queue:
  path: {HERE}/queue
  map_size: 4GiB
records:
  path: {HERE}/records
dns:
  servers: ["127.0.0.1:{self.dns_port}"]   # hayauma sink
  port: {self.mail_port}
  ipv6: no
listeners:
  - listen: "127.0.0.1:{self.smtp_port}"
http:
  listen: "127.0.0.1:{self.http_port}"
  trusted_networks: ["127.0.0.0/8"]        # no token is needed
destinations:
  # Real retries begin after minutes; here they must be seen before you are bored.
  "*": {{sessions_max: 20, retry: {{first: 3s, max: 4s, jitter: 20%}}}}
""")

    def start(self, arguments, log):
        with open(HERE / log, "w", encoding="utf-8") as out:
            child = subprocess.Popen([PROGRAM, *arguments], stdout=out, stderr=out,
                                     stdin=subprocess.DEVNULL)
        self.running.append((child, log))
        return child

    def start_all(self):
        listens = [a for n in range(2, 11) for a in ("--listen", f"127.0.0.{n}:{self.mail_port}")]
        self.start(["sink", *listens, "--dns", f"127.0.0.1:{self.dns_port}", "--behaviour",
                    EXAMPLE / "behaviour.yaml", "--ledger", HERE / "received"], "sink.log")
        self.start(["serve", "-c", self.config], "engine.log")
        self.wait_ready()

    def require_running(self):
        for child, log in self.running:
            if child.poll() is not None:
                sys.exit(f"quickstart: {log.split('.')[0]} ended with {child.returncode}:\n"
                         + (HERE / log).read_text()[-2000:])

    def wait_ready(self):
        for port, host in ((self.mail_port, "127.0.0.10"), (self.smtp_port, "127.0.0.1"),
                           (self.http_port, "127.0.0.1")):
            for _ in range(200):
                self.require_running()
                with socket.socket() as probe:
                    if probe.connect_ex((host, port)) == 0:
                        break
                time.sleep(0.05)
            else:
                sys.exit(f"quickstart: nothing answers on {host}:{port}; see {HERE}")

    def status(self):
        done = subprocess.run([PROGRAM, "status", "--json", "-c", self.config],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.require_running()
            return None
        return json.loads(done.stdout)

    def campaign(self):
        """The campaign as the engine shows it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/api/campaigns/v1", timeout=10) as answer:
            return json.load(answer)["campaigns"][0]

    def report(self, page):
        subprocess.run([PROGRAM, "campaign", "report", CAMPAIGN, "--html", page, "-c", self.config], check=True,
                       capture_output=True)

    def stop(self):
        for child, _ in reversed(self.running):
            if child.poll() is None:
                child.terminate()
        for child, _ in reversed(self.running):
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.running = []


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


class Ledger:
    """What became of every recipient, from the event records as they are written."""

    def __init__(self):
        self.offsets = {}
        self.ended = {}  # recipient: type of its last record
        self.waiting = set()  # deferred, and not ended yet
        self.counts = collections.defaultdict(collections.Counter)
        self.reasons = collections.defaultdict(collections.Counter)

    def read(self):
        for segment in sorted((HERE / "records").glob("*")):
            with open(segment, "rb") as lines:
                lines.seek(self.offsets.get(segment, 0))
                text = lines.read()
            whole = text.rfind(b"\n") + 1
            self.offsets[segment] = self.offsets.get(segment, 0) + whole
            for line in text[:whole].splitlines():
                self.add(json.loads(line))

    def add(self, record):
        address, event = record.get("recipient"), record["type"]
        kind = kind_of(address) if isinstance(address, str) else None
        if kind is None:  # a reception, or one of our own notices to the sender
            return
        if event == "TransientFailure":
            self.waiting.add(address)
        elif event in ("Delivery", "Bounce", "Expiration"):
            self.waiting.discard(address)
            self.ended[address] = event
        else:
            return
        self.counts[kind][event] += 1
        if event != "Delivery":
            self.reasons[kind][reason(record)] += 1

    def sent(self):
        return sum(c["Delivery"] for c in self.counts.values())


def watch(servers, ledger, sending, total):
    """The progress line, until everything ended; returns the time it took, the peak rate, and that of
    the first half, which no retry has held up."""
    live = sys.stdout.isatty()
    half = 0.0
    start, shown, peak = time.monotonic(), 0.0, 0.0
    history = collections.deque([(start, 0)], maxlen=12)  # of about three seconds
    while True:
        servers.require_running()
        ledger.read()
        now, ended, sent = time.monotonic(), len(ledger.ended), ledger.sent()
        history.append((now, ended))
        rate = (ended - history[0][1]) / (now - history[0][0])
        peak = max(peak, rate if len(history) == history.maxlen else 0)
        half = half or (ended / (now - start) if 2 * ended >= total else 0)
        finished = ended == total and sending.poll() is not None
        failed = sending.poll() not in (None, 0)
        if live or finished or now - shown > 2:
            left = clock((total - ended) / rate) if rate > 0 else "-:--"
            line = (f"sent {sent:6}   deferred {len(ledger.waiting):5}   bounced {ended - sent:5}   "
                    f"{rate:6.0f}/s   left {left}")
            print(f"\r{line} " if live else line, end="" if live else "\n", flush=True)
            shown = now
        if finished or failed or now - start > LIMIT_S:
            if live:
                print()
            return now - start, max(peak, rate), half
        time.sleep(0.25)


def reason(record):
    """Why, as one short text: the peer's words without what differs from mail to mail."""
    response = record.get("response") or {}
    code = response.get("enhanced_code") or {}
    numbers = [str(response.get("code") or "")]
    if code:
        numbers.append("{class}.{subject}.{detail}".format(**code))
    words, _, rest = (response.get("content") or "").partition(": ")
    if words.startswith("while waiting for"):  # where it broke, and behind that how: that is the reason
        words = rest
    return " ".join([*filter(None, numbers), words])[:50].strip()


def kind_of(address):
    labels = address.rpartition("@")[2].split(".")
    return labels[-2] if len(labels) == 3 and labels[-2] in CLASSES else None


def summarise(ledger, recipients):
    print(f"\n{'class':10} {'domains':>7} {'mails':>7} {'delivered':>9} {'bounced':>8} {'queued':>7} "
          f"{'deferrals':>9}  why")
    sums = collections.Counter()
    for kind, (domains, _) in CLASSES.items():
        c = ledger.counts[kind]
        row = {"domains": domains, "mails": recipients[kind], "delivered": c["Delivery"],
               "bounced": c["Bounce"] + c["Expiration"], "deferrals": c["TransientFailure"]}
        row["queued"] = row["mails"] - row["delivered"] - row["bounced"]
        sums.update(row)
        print_row(kind, row, "; ".join(
            f"{n} x {text}" for text, n in ledger.reasons[kind].most_common(2)))
    print_row("all", sums, "")
    return sums


def print_row(name, row, why):
    print(f"{name:10} {row['domains']:7} {row['mails']:7} {row['delivered']:9} {row['bounced']:8} "
          f"{row['queued']:7} {row['deferrals']:9}  {why}".rstrip())


def look_further(config):
    program, here = os.path.relpath(PROGRAM), os.path.relpath(HERE)
    example, config = os.path.relpath(EXAMPLE), os.path.relpath(config)
    lines = [
        (f"less {example}/greeting.eml", "the letter's template"),
        (f"less {example}/behaviour.yaml", "how it was received"),
        (f"head -n 3 {here}/received", "the receiver's own ledger"),
        (f"grep -h '\"type\":\"Bounce\"' {here}/records/* | head -n 2", "event records"),
        (f"{program} config show {config}", "every setting in force"),
        (f"{program} sink --help", "a receiver as bad as you like"),
        ("tools/quickstart --keep-running", "leaves it up for hayauma status and hayauma queue"),
    ]
    width = max(len(command) for command, _ in lines)
    print("\nNothing is left running. To look further:")
    for command, what in lines:
        print(f"  {command:{width}}   # {what}")


def count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return int(text)


def main():
    global PROGRAM, HERE
    parser = argparse.ArgumentParser(prog="tools/quickstart")
    parser.add_argument("--recipients", type=count, default=20000, metavar="N")
    parser.add_argument("--keep-running", action="store_true")
    parser.add_argument("--program", type=pathlib.Path, default=PROGRAM)
    parser.add_argument("--directory", type=pathlib.Path, default=HERE, help="for all that it writes")
    options = parser.parse_args()
    PROGRAM, HERE = options.program, options.directory

    if HERE.exists() and any(HERE.iterdir()) and not (HERE / "hayauma.yaml").exists():
        sys.exit(f"quickstart: {HERE} is not from an earlier run; it would be emptied")
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir(parents=True)
    subscribers = HERE / "subscribers.csv"
    make_list(subscribers, options.recipients)
    with open(subscribers, encoding="utf-8") as lines:
        recipients = collections.Counter(kind_of(row["email"]) for row in csv.DictReader(lines))

    servers = Servers()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        servers.configure()
        servers.start_all()
        print(f"engine on 127.0.0.1:{servers.smtp_port}, receiver on 127.0.0.2-10:{servers.mail_port}, "
              f"its DNS on 127.0.0.1:{servers.dns_port}; files in {os.path.relpath(HERE)}/")
        print(f"sending {os.path.relpath(LETTER)}, each with a greeting of its own, to {options.recipients} "
              f"recipients in {sum(n for n, _ in CLASSES.values())} domains")
        sending = servers.start(
            ["send", "--template", LETTER, "--to", subscribers, "--campaign", CAMPAIGN, "--from", SENDER, "--api",
             f"http://127.0.0.1:{servers.http_port}", "--no-wait", "--quiet"], "send.log")
        servers.running.pop()
        ledger = Ledger()
        took_s, peak, half = watch(servers, ledger, sending, options.recipients)
        if sending.poll() != 0:
            sending.terminate()
            sys.exit("quickstart: hayauma send failed:\n" + (HERE / "send.log").read_text()[-2000:])
        status, campaign = servers.status(), servers.campaign()
        servers.report(HERE / "report.html")
        if options.keep_running:
            program, config = os.path.relpath(PROGRAM), os.path.relpath(servers.config)
            print(f"running until Ctrl-C; try\n  {program} status -c {config}\n"
                  f"  {program} queue list -c {config}", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        if not options.keep_running:
            sys.exit(130)
    finally:
        servers.stop()
    sums = summarise(ledger, recipients)
    list_s = (campaign["starts_ms"] - campaign["created_ms"]) / 1000
    cpu_us = status["process"]["cpu_us"] / max(status["counters"]["delivered"], 1)
    print(f"\n{len(ledger.ended)} recipients settled in {took_s:.1f} s, retries included; at best "
          f"{peak:.0f} messages/s; engine CPU per message {cpu_us:.0f} us")
    print(f"The list was durable {list_s:.1f} s after the campaign was made. The campaign's report, a page for a "
          f"browser: {os.path.relpath(HERE / 'report.html')}")
    print(f"Accepted and delivered, the first half: {half:.0f} messages/s with {len(os.sched_getaffinity(0))} "
          "cores, sender and receiver on them too. The figure of README on this machine: bench/run main")
    look_further(servers.config)
    if sums["queued"]:
        sys.exit(f"quickstart: {sums['queued']} recipients were still queued")


if __name__ == "__main__":
    main()
