#!/usr/bin/env python3
"""Compares what was put in with what came out.

  ledger_check.py --injected FILE.. --received FILE.. [--records PATH..] [--duplicates-max N] [--json]

--injected: ledgers of `hayauma source` (a line per recipient whose 250 arrived); --received: ledgers of
`hayauma sink`; --records: the engine's event records, files or directories of segments, for bounces.
The format of a ledger is described in tools/sink/sink_ledger.h.

Every injected (X-Seq, recipient) must have been received unaltered or have a bounce or expiration
record of its own: the engine writes X-Seq into its records (records.headers: [X-Seq]). What came and
was never put in is wrong too, but for notices, which have no sender. A message received more often than its 250s explain is a duplicate; what the injector itself had
to send again because it lost its connection behind the end of the message is not counted.
Exit status: 0 when nothing is lost, altered or extra and duplicates are within --duplicates-max
(default 0), 1 when not, 2 for unreadable input.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys

FINAL = {"Bounce", "Expiration", "AdminBounce"}
SHOWN_MAX = 10

Row = collections.namedtuple("Row", "time_ms session sender recipient size crc message_id seq")


def read_ledger(path):
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            fields = line.rstrip("\n").split("\t")
            if len(fields) != len(Row._fields) or not line.endswith("\n"):
                raise ValueError(f"{path}:{number}: not a ledger line")
            yield Row(*fields)


def record_files(path):
    path = pathlib.Path(path)
    return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


def read_records(path):
    """Event records; the last line of an open segment may be half written."""
    for file in record_files(path):
        if file.name.endswith(".zst"):
            text = subprocess.run(["zstd", "-dcq", file], capture_output=True, check=True).stdout
        else:
            text = file.read_bytes()
        for line in text.split(b"\n")[:-1]:
            yield json.loads(line)


def ended_otherwise(paths):
    """(X-Seq, recipient) that bounced or expired, with how often; notices, which have no sender and
    no X-Seq, are left out."""
    ended = collections.Counter()
    for path in paths:
        for record in read_records(path):
            if record["type"] not in FINAL or not record["sender"]:
                continue
            if "X-Seq" not in record["headers"]:
                raise ValueError(f"{path}: a {record['type']} without X-Seq; set records.headers: [X-Seq]")
            ended[record["headers"]["X-Seq"], record["recipient"]] += 1
    return ended


def compare(injected, received, ended):
    """Rows of both sides and a Counter of (X-Seq, recipient) with a final failure. Returns counts and examples."""
    wanted, again = {}, collections.Counter()
    for row in injected:
        key = (row.seq, row.recipient)
        # Each further line is a 250 of its own; `session` of a source is what it may have put in
        # without learning of it.
        again[key] += int(row.session) + (key in wanted)
        wanted[key] = (row.size, row.crc)
    came = collections.Counter()
    altered, extra = [], set()
    for row in received:
        key = (row.seq, row.recipient)
        if row.sender == "-" and key not in wanted:
            continue
        came[key] += 1
        if key not in wanted:
            extra.add(key)
        elif wanted[key] != (row.size, row.crc):
            altered.append(key)
    lost = [key for key in wanted if key not in came and ended[key] == 0]
    duplicated = {key: n - 1 - again[key] for key, n in came.items() if n - 1 > again[key]}
    both = [key for key in came if key in wanted and ended[key] > again[key]]
    return {
        "injected": len(wanted), "received": sum(came.values()), "ended_otherwise": len(ended),
        "lost": len(lost), "altered": len(altered), "duplicates": sum(duplicated.values()),
        "received_and_bounced": len(both), "extra": len(extra),
        "examples": {name: [list(key) for key in keys[:SHOWN_MAX]] for name, keys in
                     (("lost", lost), ("altered", altered), ("duplicates", list(duplicated)),
                      ("received_and_bounced", both), ("extra", list(extra))) if keys},
    }


def check(injected, received, records=(), duplicates_max=0, extra_max=0):
    """Of paths. extra_max: where a source gave up without an answer, its message may have been taken. Returns (whether all is well, the report)."""
    report = compare((row for path in injected for row in read_ledger(path)),
                     (row for path in received for row in read_ledger(path)),
                     ended_otherwise(records))
    well = (report["lost"] == 0 and report["altered"] == 0 and report["extra"] <= extra_max and
            report["duplicates"] + report["received_and_bounced"] <= duplicates_max)
    return well, report


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--injected", nargs="+", required=True)
    parser.add_argument("--received", nargs="+", required=True)
    parser.add_argument("--records", nargs="+", default=[])
    parser.add_argument("--duplicates-max", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        well, report = check(options.injected, options.received, options.records,
                             options.duplicates_max)
    except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as error:
        print(f"ledger_check: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name}: {value}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
