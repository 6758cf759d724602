#!/usr/bin/env python3
"""Kills the engine with SIGKILL at random moments under load, again and again, and compares ledgers.

  kill9.py [--rounds N] [--seed N] [--messages N]

An injector writes its ledger only after each 250; the receiver writes its own before each 250. When all
has ended: nothing acknowledged is lost, nothing is altered, and whatever arrived twice arrived first
within the declared window before a kill (queue/DESIGN.md): the transaction was past its final dot and not
yet settled. Mail comes for eight domains, for a hot one, and in messages of many recipients, whose rows lie
in all shards.
"""

import argparse
import collections
import json
import pathlib
import random
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

import ledger_check  # noqa: E402
from engine import Engine, Sink, beside  # noqa: E402
from proc import Process, TempDir, wait_until  # noqa: E402

# What was in the receiver's socket when its sender died is still taken: four messages of a pipeline, each
# 50 ms late in the slow class.
AFTERMATH_MS = 400
WINDOW_MS = 1000  # a settle waits at most 20 ms for company, then for the commit before it and its own
SHARDS = 4
MANY = 100  # recipients of a message that lies in all shards
# By sender: part of the messages, and how they are made.
SOURCES = {"source": (0.65, ["--rate", "1000", "--rcpt-domains", "8", "--size", "1k-20k", "--dot-lines"]),
           "hot": (0.345, ["--rate", "600", "--size", "1k"]),
           "many": (0.005, ["--rate", "8", "--rcpt-domains", "4", "--recipients-per-message", str(MANY)])}


def settings(sink):
    return {
        "dns": sink.dns(ipv6=False),
        "listeners": [{"listen": "127.0.0.1:0", "sessions_per_client_max": 1000}],
        "destinations": {"*": {"retry": ["1s"], "lifetime": "10m"}},
        "queue": {"shards": SHARDS},
    }


def configure(engine, sink):
    extra = settings(sink)
    extra["listeners"][0]["listen"] = f"{engine.host}:{engine.port}"
    engine.config["queue"].update(extra.pop("queue"))
    engine.config.update(extra)
    engine.config["records"]["headers"] = ["X-Seq"]  # what ledger_check goes by


def queued(engine):
    status = engine.status()
    queue = status.get("status", status)["queue"]
    return queue["rows"] if queue["rows_complete"] else -1


def unexplained_duplicates(injected, sink_ledger, kills_ms):
    """Messages that came twice although no kill followed shortly behind the earlier time, and the injector
    did not put them in twice (it had lost a 250: `session` of its ledger counts that)."""
    again = collections.Counter()
    for ledger in injected:
        for row in ledger_check.read_ledger(ledger):
            again[(row.seq, row.recipient)] += int(row.session)
    times = collections.defaultdict(list)
    for row in ledger_check.read_ledger(sink_ledger):
        if row.seq != "-":  # else a notice of the engine's own, to the injector's return path
            times[(row.seq, row.recipient)].append(int(row.time_ms))
    bad = []
    for key, came in times.items():
        came.sort()
        alone = [t for t in came[:-1] if not any(-AFTERMATH_MS <= kill - t <= WINDOW_MS
                                                 for kill in kills_ms)]
        # What a later time and the kill nearest to each has to say, in ms.
        bad += [(key, [t - came[0] for t in came], [min((k - t for k in kills_ms if k >= t), default=None)
                                                    for t in came], again[key])
                for _ in alone[again[key]:]]
    return bad, sum(len(came) - 1 for came in times.values())


def start_sources(work, engine, messages):
    sources, first = {}, 1
    for name, (part, how) in SOURCES.items():
        count = int(messages * part)
        argv = ["--sessions", "8", "--messages", count, "--seq-start", first, "--retry", "--from",
                f"{name}@source.example", "--ledger", work.path / name, *how]
        sources[name] = Process([beside(), "source", "--to", f"{engine.host}:{engine.port}", *argv],
                                work.path / f"{name}.log")
        first += count
    return sources


def uneven(records):
    """Shards with more or less than their part of the recipients of messages in all shards, by the records
    of their deliveries: each shard has its own segments."""
    rows = collections.Counter()
    for file in ledger_check.record_files(records):
        rows[int(file.name.split("-")[1])] += sum(
            r["type"] == "Delivery" and r["sender"] == "many@source.example"
            for r in ledger_check.read_records(file))
    share = rows.total() / SHARDS
    return [(shard, rows[shard], share) for shard in range(SHARDS) if abs(rows[shard] - share) > 0.1 * share]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--messages", type=int, default=0, help="default: 600 a round")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    messages = options.messages or 600 * options.rounds
    print(f"seed {options.seed}, {options.rounds} rounds, {messages} messages")

    work = TempDir("hayauma-kill9-")
    sink = Sink(behaviour=HERE / "behaviour.yaml", directory=work.path / "sink").start()
    engine = Engine(directory=work.path / "engine")
    configure(engine, sink)
    engine.start()
    sources = start_sources(work, engine, messages)
    ledgers = [work.path / name for name in sources]
    kills_ms = []
    for _ in range(options.rounds):
        time.sleep(rng.uniform(0.05, 0.8))
        engine.kill()
        kills_ms.append(int(time.time() * 1000))
        engine.start()
    status = [source.wait(120) for source in sources.values()]
    wait_until("the queue to end", lambda: queued(engine) == 0, 120, every_s=0.5,
               process=engine.process)
    engine.stop()
    sink.stop()

    well, report = ledger_check.check(ledgers, [sink.ledger_file], [work.path / "engine/records"],
                                      duplicates_max=10**9)
    bad, duplicates = unexplained_duplicates(ledgers, sink.ledger_file, kills_ms)
    spread = uneven(work.path / "engine/records")
    print(f"injected {report['injected']}, received {report['received']}, "
          f"ended otherwise {report['ended_otherwise']}, lost {report['lost']}, "
          f"altered {report['altered']}, duplicates {duplicates} of which unexplained {len(bad)}, "
          f"source exit {status}")
    if not well or bad or any(status) or report["received_and_bounced"] > 0 or spread:
        print(report["examples"], bad[:10], spread)
        for (_, recipient), *_ in bad[:3]:
            print(*(json.dumps(r) for r in ledger_check.read_records(work.path / "engine/records")
                    if r["recipient"] == recipient), sep="\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
