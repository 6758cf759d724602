#!/usr/bin/env python3
"""hayauma user: the file that it writes, and what it refuses.

users.py [TEST...]"""

import concurrent.futures
import json
import os
import pathlib
import pty
import re
import select
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from engine import program  # noqa: E402
from proc import TempDir  # noqa: E402
from talk import run  # noqa: E402


def user(*arguments, status=0, password="geheim\n"):
    done = subprocess.run([program(), "user", *map(str, arguments)], input=password,
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, (arguments, done)
    return done


def test_life():
    """add, list, passwd, remove; what else is in the file stays as it is."""
    temp = TempDir("hayauma-users-")
    file = temp.path / "users"
    user("add", "shop", "--file", file, "--senders", "shop.example,<>", "--tenant", "t",
         "--priority", 3, "--rate", "10/min", "--pool", "p")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().startswith("shop:$y$")
    file.write_text("# ours\n" + file.read_text() + "\n# the end")
    for method, prefix in (("bcrypt", "$2b$"), ("sha512", "$6$")):
        user("add", method, "--file", file, "--method", method)
        assert f"\n{method}:{prefix}" in file.read_text()
    rows = [json.loads(line) for line in user("list", "--json", "--file", file).stdout.splitlines()]
    assert rows[0] == {"name": "shop", "method": "yescrypt", "senders": ["shop.example", "<>"],
                       "from": [], "tenant": "t", "pool": "p", "priority": 3, "rate": "10/min"}
    assert [r["name"] for r in rows] == ["shop", "bcrypt", "sha512"]
    listed = user("list", "--file", file).stdout
    assert "senders=shop.example,<> tenant=t pool=p priority=3 rate=10/min" in listed
    assert "$" not in listed
    user("add", "esp", "--file", file, "--senders", "b.example", "--from", "a.example,*.a.example")
    assert ":senders=b.example from=a.example,*.a.example\n" in file.read_text()
    user("remove", "esp", "--file", file)
    before = file.read_text().split("\n")
    user("passwd", "shop", "--file", file, password="another\n")
    after = file.read_text().split("\n")
    assert [a == b for a, b in zip(after, before)] == [i != 1 for i in range(len(before))]
    assert after[1].rpartition(":")[2] == before[1].rpartition(":")[2]
    user("remove", "bcrypt", "--file", file)
    assert file.read_text().split("\n") == [l for l in after if not l.startswith("bcrypt")]
    assert os.listdir(temp.path) == ["users"]


def test_scram_keys():
    """Keys of SCRAM in the place of a hash; who has keys keeps them with another password, and where all
    have them a new user gets them."""
    temp = TempDir("hayauma-users-")
    file = temp.path / "users"
    user("add", "a", "--file", file, "--method", "scram-sha-256", "--tenant", "t")
    assert re.fullmatch(r"a:\{SCRAM-SHA-256\}15000,[^,:]{24},[^,:]{44},[^,:]{44}:tenant=t\n", file.read_text())
    user("add", "b", "--file", file)
    rows = [json.loads(line) for line in user("list", "--json", "--file", file).stdout.splitlines()]
    assert [(r["name"], r["method"]) for r in rows] == [("a", "scram-sha-256"), ("b", "scram-sha-256")]
    user("add", "c", "--file", file, "--method", "sha512")
    user("add", "d", "--file", file)
    before = file.read_text()
    for name in ("a", "c", "d"):
        user("passwd", name, "--file", file, password="another\n")
    methods = [line.split(":")[1][:4] for line in file.read_text().splitlines()]
    assert methods == ["{SCR", "{SCR", "$6$r", "$y$j"] and file.read_text() != before
    done = user("passwd", "a", "--file", file, password="\u017fecret\n", status=1)
    assert "printable ASCII" in done.stderr
    assert "{" not in user("list", "--file", file).stdout


def test_links():
    """The file is what its name leads to when it is opened; whoever changes that meanwhile gets nobody to
    read or give away another file. A link in the end is followed once."""
    temp = TempDir("hayauma-users-")
    real, link = temp.path / "real", temp.path / "users"
    user("add", "a", "--file", real)
    link.symlink_to(real)
    user("add", "b", "--file", link)
    assert link.is_symlink() and real.read_text().count("\n") == 2
    link.unlink()
    link.mkdir()
    assert user("list", "--file", link, status=1).stderr
    link.rmdir()
    os.mkfifo(link)
    assert "is no file" in user("list", "--file", link, status=1).stderr


def test_refused():
    temp = TempDir("hayauma-users-")
    file = temp.path / "users"
    user("add", "shop", "--file", file)
    text = file.read_text()
    for arguments, password, said in (
            (("add", "shop"), "x\n", "is there already"),
            (("add", "a:b"), "x\n", "is not"), (("add", "a b"), "x\n", "is not"),
            (("add", "a\nb"), "x\n", ""), (("add", ""), "x\n", "is not"),
            (("add", "x"), "", "no password"), (("add", "x"), "\n", "no password"),
            (("add", "x"), "p" * 600 + "\n", "longer than 511"),
            (("add", "x"), "secret\0more\n", "byte 7 of the password is a control byte (0x00)"),
            (("passwd", "shop"), "secret\r\n", "(0x0d): lines are to end in LF alone"),
            (("add", "x", "--method", "bcrypt"), "p" * 73 + "\n", "bcrypt does not take"),
            (("add", "x", "--method", "md5"), "x\n", "--method is"),
            (("add", "x", "--senders", "a.example b.example"), "x\n", "no field"),
            (("add", "x", "--rate", "fast"), "x\n", "no rate"),
            (("passwd", "nobody"), "x\n", "there is no nobody"),
            (("passwd", "sho"), "x\n", "there is no sho"),
            (("remove", "nobody"), "", "there is no nobody")):
        done = user(*arguments, "--file", file, status=1, password=password)
        assert said in done.stderr, (arguments, done.stderr)
        assert file.read_text() == text, arguments
    for arguments in ((), ("ad",), ("add",), ("add", "x", "password"), ("list", "x"),
                      ("add", "x", "--password", "y")):
        assert user(*arguments, "--file", file, status=2).stderr
    assert "did you mean 'add'?" in user("ad", status=2).stderr
    file.chmod(0o644)
    assert "chmod 600" in user("add", "x", "--file", file, status=1).stderr
    assert file.read_text() == text
    assert "its directory does not exist" in user("add", "x", "--file", temp.path / "none/users", status=1).stderr


def test_of_a_configuration():
    """The file is the one that the configuration names, there or not; config check looks into it."""
    temp = TempDir("hayauma-users-")
    config, file = temp.path / "hayauma.yaml", temp.path / "users"
    config.write_text("listeners: [{listen: '127.0.0.1:587', auth: required, auth_without_tls: yes}]"
                      f"\nauth: {{users_file: {file}}}\n")

    def check():
        done = subprocess.run([program(), "config", "check", config], capture_output=True, text=True,
                              check=False, timeout=60)
        return done.stdout + done.stderr
    said = check()
    assert f"{file}: cannot be read: No such file" in said and "user add NAME' makes it" in said, said
    assert f"{config}:2: auth.users_file names this file" in said, said
    user("add", "shop", "-c", config)
    assert "good" in check()
    file.write_text("shop:secret\n")
    assert f"{file}:1: user shop: no whole hash" in check() and "secret" not in check()
    file.chmod(0o640)
    assert "chmod 600" in check()
    config.write_text("")
    assert "no auth.users_file" in user("list", "-c", config, status=1).stderr
    assert "--file" in user("list", "-c", temp.path / "none", status=1).stderr


def test_at_once():
    """Two who change the file wait for each other, and a reader finds it whole at any time."""
    temp = TempDir("hayauma-users-")
    file = temp.path / "users"
    user("add", "first", "--file", file)
    link = temp.path / "link"
    link.symlink_to(file)  # stays one
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        adds = [pool.submit(user, "add", f"u{i}", "--file", link if i % 2 else file)
                for i in range(16)]
        while not all(a.done() for a in adds):
            rows = user("list", "--json", "--file", file).stdout.splitlines()
            assert rows and all(json.loads(r) for r in rows)
        for a in adds:
            a.result()
    names = {json.loads(r)["name"] for r in user("list", "--json", "--file", file).stdout.splitlines()}
    assert names == {"first", *(f"u{i}" for i in range(16))} and link.is_symlink()


def test_terminal():
    """The password is asked for twice, and does not show."""
    temp = TempDir("hayauma-users-")
    file = temp.path / "users"

    def ask(first, second):
        pid, fd = pty.fork()
        if pid == 0:
            os.execv(program(), ["hayauma", "user", "add", "shop", "--file", str(file)])
        output, answers, end = b"", [(b"Password of shop: ", first), (b"Once more: ", second)], time.monotonic() + 30
        while time.monotonic() < end:
            if select.select([fd], [], [], 0.1)[0]:
                try:
                    piece = os.read(fd, 4096)
                except OSError:
                    break
                if not piece:
                    break
                output += piece
            if answers and answers[0][0] in output:
                os.write(fd, answers.pop(0)[1])
        os.close(fd)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output
    status, output = ask(b"geheim-1\n", b"geheim-2\n")
    assert status == 1 and b"the two differ" in output and not file.exists(), output
    status, output = ask(b"geheim-1\n", b"geheim-1\n")
    assert status == 0 and file.exists() and b"geheim" not in output, output


if __name__ == "__main__":
    run(globals())
