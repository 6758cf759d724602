#!/usr/bin/env python3
"""The tests' own tools notice what they are for: each of these was once passed over in silence."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

from cases import Sink, TempDir, ledger_check, run
from engine import TREE, program
from proc import Failure


def script(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


def test_deps_unpack():
    """A package that cannot be unpacked ends it, and its tree is not marked as complete."""
    temp = TempDir()
    fakes, peers = temp.path / "bin", temp.path / "peers"
    fakes.mkdir()
    script(fakes / "apt-get", 'case "$*" in *download*) touch a.deb b.deb ;; esac\n')
    script(fakes / "apt-cache", "exit 0\n")
    script(fakes / "npm", "exit 1\n")
    env = {**os.environ, "PATH": f"{fakes}:{os.environ['PATH']}", "HAYAUMA_PEERS": str(peers)}
    for unpack, status in (('case "$2" in *b.deb) exit 2 ;; esac\n', 1), ("exit 0\n", 0)):
        script(fakes / "dpkg", unpack)
        done = subprocess.run([TREE / "tools/deps", "peers"], env=env, capture_output=True, text=True,
                              timeout=60, check=False)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        trees = sorted(p.name for p in peers.iterdir())
        complete = len(list(peers.glob("*/.complete")))
        if status != 0:
            assert "dpkg cannot unpack b.deb" in done.stderr, done.stderr
            assert not trees and not complete, trees
        else:
            assert trees[:3] == ["dns", "dovecot", "exim"] and complete == len(trees) - 1, trees  # npm fails here


def tools_test(temp, *arguments, deps="exit 0\n"):
    """tools/test in a tree of nothing, where everything builds and one test passes."""
    tree, fakes = temp.path / "tree", temp.path / "bin"
    for directory in (tree / "tools", tree / "tests", fakes):
        directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(TREE / "tools/test", tree / "tools/test")
    (tree / "a_fuzz.c").write_text("")
    script(tree / "tools/deps", deps)
    script(fakes / "cmake", "exit 0\n")
    script(fakes / "ctest", """while [ "$1" != --output-junit ]; do shift; done
printf '<testsuite\\n\\ttests="1"\\n\\tfailures="0"\\n><testcase name="a"><system-out>ok test_a\\n' >"$2"
printf 'skipped test_b: not &lt;root&gt;\\n</system-out></testcase></testsuite>' >>"$2"
""")
    subprocess.run(["git", "init", "-q", tree], check=True)
    subprocess.run(["git", "-C", tree, "add", "a_fuzz.c"], check=True)
    return subprocess.run([tree / "tools/test", *arguments], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PATH": f"{fakes}:{os.environ['PATH']}",
                               "HAYAUMA_FUZZ_SECONDS": "1"}, check=False)


def test_run_of_all():
    """tools/test: cases that were skipped are told, and it fails where fuzz targets are missing."""
    temp = TempDir()
    done = tools_test(temp, "--quick")
    assert done.returncode == 0 and "skipped test_b: not" in done.stdout, done.stdout
    assert done.stdout.endswith("2 passed, 0 failed, 1 skipped\n"), done.stdout
    done = tools_test(temp)
    assert done.returncode == 1 and "not built: a_fuzz" in done.stdout, done.stdout
    assert "1 failed" in done.stdout.splitlines()[-1], done.stdout
    (temp.path / "tree/build/fuzz/bin").mkdir(parents=True)
    script(temp.path / "tree/build/fuzz/bin/a_fuzz", "exit 0\n")
    done = tools_test(temp)
    assert done.returncode == 0 and "0 failed" in done.stdout.splitlines()[-1], done.stdout


def test_run_without_packages():
    """A packages stage that fails is counted, and the summary is the last line as ever."""
    done = tools_test(TempDir(), "--quick", deps="exit 1\n")
    assert done.returncode == 1, done.stdout
    assert done.stdout.endswith("0 passed, 1 failed, 0 skipped\n"), done.stdout


def test_unknown_name():
    done = subprocess.run([sys.executable, __file__, "test_unknown_nam"], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 1 and "no such test: test_unknown_nam;" in done.stderr, done


def test_program():
    """HAYAUMA names the program under test, or nothing runs."""
    before = os.environ.get("HAYAUMA")
    temp = TempDir()
    try:
        for wrong in (temp.path / "none", temp.path, pathlib.Path(__file__).parent / "cases.py"):
            os.environ["HAYAUMA"] = str(wrong)
            try:
                raise AssertionError(f"{wrong} was taken: {program()}")
            except Failure as why:
                assert "is no program" in str(why)
    finally:
        os.environ.pop("HAYAUMA")
        if before is not None:
            os.environ["HAYAUMA"] = before


def test_sink_that_ends_badly():
    """As with a sanitizer's finding, which is an exit status."""
    sink = Sink().start()
    sink.process.kill()
    try:
        sink.stop()
    except Failure as why:
        assert "hayauma sink ended with -9" in str(why), why
        return
    raise AssertionError("a killed sink passed")


def row(recipient, seq, sender="s@source.example", crc="00000001"):
    return "\t".join(("0", "0", sender, recipient, "1", crc, "id", seq)) + "\n"


def test_ledgers():
    """Each thing that may be wrong, and what is not."""
    temp = TempDir()
    bounce = {"type": "Bounce", "sender": "s@source.example", "recipient": "a@b.example",
              "headers": {"X-Seq": "2"}}
    notice = {**bounce, "sender": "", "headers": {}}
    both = [row("a@b.example", "1"), row("a@b.example", "2")]
    cases = (
        (both, both, [], True, {}),
        (both, both[:1], [], False, {"lost": 1}),
        (both, both[:1], [bounce, notice], True, {"ended_otherwise": 1}),
        (both, both[1:], [bounce], False, {"lost": 1, "received_and_bounced": 1}),
        (both, both + [row("a@b.example", "3")], [], False, {"extra": 1}),
        (both, both + [row("s@source.example", "-", sender="-")], [], True, {"extra": 0}),
        (both, both[:1] * 2 + both[1:], [], False, {"duplicates": 1}),
        (both, both[:1] + [row("a@b.example", "2", crc="00000002")], [], False, {"altered": 1}),
    )
    for injected, received, records, well, wanted in cases:
        for name, lines in (("injected", injected), ("received", received),
                            ("records", [json.dumps(r) + "\n" for r in records])):
            (temp.path / name).write_text("".join(lines))
        got, report = ledger_check.check([temp.path / "injected"], [temp.path / "received"],
                                         [temp.path / "records"])
        assert got == well and wanted.items() <= report.items(), (received, records, report)
    (temp.path / "records").write_text(json.dumps({**bounce, "headers": {}}) + "\n")
    try:
        ledger_check.check([temp.path / "injected"], [temp.path / "received"], [temp.path / "records"])
    except ValueError as why:
        assert "records.headers" in str(why)
    else:
        raise AssertionError("a bounce without X-Seq was taken for one of any message")


if __name__ == "__main__":
    run(globals())
