#!/usr/bin/env python3
"""hayauma source: what it sends is what its ledger says, also when the server fails it."""

import collections
import json
import pathlib
import signal
import time

from cases import Process, Sink, TempDir, free_port, ledger_check, program, run, tool, wait_until


def send(sink, *arguments, status=0, name="injected"):
    """Runs source into sink; its summary and its ledger."""
    ledger = sink.dir / name
    done = tool("source", "--to", f"{sink.host}:{sink.port}", "--ledger", ledger, "--json",
                *arguments, status=status)
    return json.loads(done.stdout), ledger


def behaving(text, arguments=()):
    sink = Sink(arguments=arguments)
    sink.behaviour = sink.dir / "b.yaml"
    sink.behaviour.write_text(text)
    return sink


def test_all_ways_to_send():
    ways = ([], ["--no-chunking"], ["--no-pipelining", "--no-chunking"], ["--pipeline", "1"],
            ["--dot-lines", "--no-chunking"], ["--dot-lines"], ["--eight-bit"],
            ["--size", "600-70000"], ["--size", "1k,2k,300k", "--sessions", "3"],
            ["--recipients-per-message", "7"], ["--messages-per-session", "9"], ["--from", ""])
    with Sink() as sink:
        for number, way in enumerate(ways):
            summary, ledger = send(sink, "--messages", "200", "--seq-start", 1000 * number, *way,
                                   name=f"injected{number}")
            assert summary["accepted"] == 200 and not summary["errors"], (way, summary)
            well, report = ledger_check.check([ledger], [sink.ledger_file], extra_max=10**9)
            assert well, (way, report)
        assert report["extra"] == (len(ways) - 2) * 200 + 200 * 7, report


def test_sizes_and_bodies():
    with Sink() as sink:
        send(sink, "--messages", "500", "--size", "2k-4k")
        rows = list(ledger_check.read_ledger(sink.ledger_file))
        sizes = [int(row.size) for row in rows]
        assert min(sizes) >= 2048 and max(sizes) <= 4096 and len(set(sizes)) > 300
        assert len({row.crc for row in rows}) == 500
        assert sorted(int(row.seq) for row in rows) == list(range(1, 501))


def test_the_same_seed_gives_the_same_recipients():
    with Sink() as sink:
        took = []
        for name in ("a", "b"):
            _, ledger = send(sink, "--messages", "300", "--rcpt-domains", "50", "--seed", "5", name=name)
            took.append(sorted(row.recipient for row in ledger_check.read_ledger(ledger)))
        assert took[0] == took[1]


def test_distributions():
    with Sink() as sink:
        (sink.dir / "domains").write_text("# ours\nbig.example\n\nmiddle.example\r\nsmall.example\n")
        _, ledger = send(sink, "--messages", "3000", "--domains", sink.dir / "domains",
                         "--distribution", "zipf")
        counts = collections.Counter(row.recipient.split("@")[1]
                                     for row in ledger_check.read_ledger(ledger))
        assert set(counts) == {"big.example", "middle.example", "small.example"}
        assert abs(counts["big.example"] / 3000 - 6 / 11) < 0.05, counts
        assert abs(counts["small.example"] / 3000 - 2 / 11) < 0.05, counts


def test_rate_and_duration():
    with Sink() as sink:
        start = time.monotonic()
        summary, _ = send(sink, "--rate", "500", "--duration", "1s")
        assert 0.9 < time.monotonic() - start < 3
        assert 400 <= summary["accepted"] <= 510, summary


def test_refusals_are_failures():
    with behaving("classes: [{name: r, domains: [d1.example], refuse: {rate: 50%}}]") as sink:
        summary, ledger = send(sink, "--messages", "400", status=1)
        assert 120 < summary["failed"] < 280 and summary["errors"][0]["text"].startswith("rcpt: 550")
        assert ledger_check.check([ledger], [sink.ledger_file])[0]
        assert summary["accepted"] == len(sink.ledger())


def test_retry_until_all_are_taken():
    faults = """
default:
  defer: [{rate: 20%, at: rcpt}, {rate: 10%, at: dot}]
  drop: [{rate: 5%, at: dot, how: rst}, {rate: 5%, at: mail, how: fin}, {rate: 5%, at: body},
         {rate: 5%, at: kept}]
"""
    for extra in ([], ["--no-chunking"], ["--pipeline", "1", "--recipients-per-message", "3"]):
        with behaving(faults) as sink:
            summary, ledger = send(sink, "--messages", "120", "--retry", *extra)
            well, report = ledger_check.check([ledger], [sink.ledger_file], duplicates_max=10**9)
            assert well and summary["accepted"] == 120 and summary["sent_again"] > 0, (report, summary)
            # Dropped behind the end of the message: taken twice, and the ledger knows.
            assert len(list(ledger_check.read_ledger(ledger))) == report["injected"]
            assert report["received"] > report["injected"] and report["duplicates"] == 0, report


def test_without_retry_a_drop_is_a_failure():
    with behaving("default: {drop: {rate: 1, at: dot}}") as sink:
        summary, _ = send(sink, "--messages", "10", "--sessions", "2", status=1)
        assert summary["accepted"] == 0 and summary["errors"], summary


def test_server_killed_and_restarted():
    sink = Sink(arguments=["--workers", "2"]).start()
    ledger = sink.dir / "injected"
    source = Process([program(), "source", "--to", f"{sink.host}:{sink.port}", "--retry", "--rate",
                      "3000", "--messages", "6000", "--ledger", ledger, "--json"], sink.dir / "out")
    for _ in range(4):
        time.sleep(0.3)
        sink.process.kill()
        sink.start()
    assert source.wait(60) == 0, source.tail()
    assert sink.process.stop() == 0
    well, report = ledger_check.check([ledger], [sink.ledger_file])
    assert well and report["injected"] == 6000, report


def minds(pid, number):
    """Whether a signal would not simply end the process: it is blocked or caught."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return any(int(line.split()[1], 16) >> number - 1 & 1 for line in status.splitlines()
               if line.startswith(("SigBlk:", "SigCgt:")))


def test_signals():
    temp = TempDir()
    with Sink() as sink:
        to = f"{sink.host}:{sink.port}"
        source = Process([program(), "source", "--to", to, "--rate", "200", "--messages", "1M",
                          "--json"], temp.path / "out")
        wait_until("mail", lambda: len(sink.ledger()) > 20)
        source.send(signal.SIGINT)
        assert source.wait(10) == 0  # drained: all that was made was taken
        summary = json.loads((temp.path / "out").read_text())
        assert summary["accepted"] == summary["messages"] == len(sink.ledger())
    # Nobody listens: a second signal is not needed to end, but ends at once.
    source = Process([program(), "source", "--to", to, "--retry"], temp.path / "out2")
    wait_until("it minds signals", lambda: minds(source.pid, signal.SIGINT))
    source.send(signal.SIGINT)
    assert source.wait(10) in (0, 1)


def test_nobody_listens():
    done = tool("source", "--to", f"127.0.0.1:{free_port()}", "--messages", "5", status=1)
    assert "Connection refused" in done.stdout, done


def test_wrong_options():
    for arguments in (["--size", "10"], ["--size", "5k-2k"], ["--sessions", "0"], ["--rate", "fast"],
                      ["--to", ":"], ["--distribution", "odd"], ["--domains", "/nonexistent"],
                      ["--from", "nobody"], ["surplus"], ["--nosuch"]):
        done = tool("source", *arguments, status=2)
        assert done.stderr, arguments
    assert "--rcpt-domains N" in tool("source", "--help").stdout
    # Whoever looks for the addresses that mail is sent from sends no mail by that.
    assert "(--to)" in tool("source", status=2).stderr
    for action, wrong in (("source", "lst"), ("pool", "lst"), ("site", "lst"), ("campaign", "lst")):
        assert "did you mean 'list'?" in tool(action, wrong, status=2).stderr


if __name__ == "__main__":
    run(globals())
