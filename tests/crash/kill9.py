#!/usr/bin/env python3
"""Kills the engine with SIGKILL at random moments under load, again and again, and compares ledgers.

  kill9.py [--rounds N] [--seed N] [--messages N]

An injector writes its ledger only after each 250; the receiver writes its own before each 250. When all
has ended: nothing acknowledged is lost, nothing is altered, and whatever arrived twice arrived first
within the declared window before a kill (queue/DESIGN.md): the transaction was past its final dot and not
yet settled.
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
from engine import Engine, Sink, program  # noqa: E402
from proc import Process, TempDir, wait_until  # noqa: E402

# What was in the receiver's socket when its sender died is still taken: four messages of a pipeline, each
# 50 ms late in the slow class.
AFTERMATH_MS = 400
WINDOW_MS = 1000  # a settle waits at most 20 ms for company, then for the commit before it and its own


def settings(sink):
    return {
        "dns": sink.dns(ipv6=False),
        "listeners": [{"listen": "127.0.0.1:0", "sessions_per_client_max": 1000}],
        "destinations": {"*": {"retry": ["1s"], "lifetime": "10m"}},
    }


def configure(engine, sink):
    extra = settings(sink)
    extra["listeners"][0]["listen"] = f"{engine.host}:{engine.port}"
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
    for row in ledger_check.read_ledger(injected):
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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--messages", type=int, default=0, help="default: 800 a round")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    messages = options.messages or 800 * options.rounds
    print(f"seed {options.seed}, {options.rounds} rounds, {messages} messages")

    work = TempDir("hayauma-kill9-")
    sink = Sink(behaviour=HERE / "behaviour.yaml", directory=work.path / "sink").start()
    engine = Engine(directory=work.path / "engine")
    configure(engine, sink)
    engine.start()
    ledger = work.path / "injected"
    source = Process([program(), "source", "--to", f"{engine.host}:{engine.port}", "--sessions", "20",
                      "--messages", messages, "--rate", "1600", "--rcpt-domains", "8", "--size", "1k-20k",
                      "--dot-lines", "--retry", "--ledger", ledger], work.path / "source.log")
    kills_ms = []
    for _ in range(options.rounds):
        time.sleep(rng.uniform(0.05, 0.8))
        engine.kill()
        kills_ms.append(int(time.time() * 1000))
        engine.start()
    status = source.wait(120)
    wait_until("the queue to end", lambda: queued(engine) == 0, 120, every_s=0.5,
               process=engine.process)
    engine.stop()
    sink.stop()

    well, report = ledger_check.check([ledger], [sink.ledger_file], [work.path / "engine/records"],
                                      duplicates_max=10**9)
    bad, duplicates = unexplained_duplicates(ledger, sink.ledger_file, kills_ms)
    print(f"injected {report['injected']}, received {report['received']}, "
          f"ended otherwise {report['ended_otherwise']}, lost {report['lost']}, "
          f"altered {report['altered']}, duplicates {duplicates} of which unexplained {len(bad)}, "
          f"source exit {status}")
    if not well or bad or status != 0 or report["received_and_bounced"] > 0:
        print(report["examples"], bad[:10])
        for (_, recipient), *_ in bad[:3]:
            print(*(json.dumps(r) for r in ledger_check.read_records(work.path / "engine/records")
                    if r["recipient"] == recipient), sep="\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
