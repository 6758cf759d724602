"""Drives dns_lookup: commands in, answers out."""

import json
import subprocess


class Lookup:
    def __init__(self, program, servers, *options):
        argv = [str(program), *options]
        for server in servers:
            argv += ["-s", server]
        self.child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      text=True, bufsize=1)

    def send(self, *lines):
        self.child.stdin.write("".join(line + "\n" for line in lines))
        self.child.stdin.flush()

    def read(self):
        line = self.child.stdout.readline()
        if not line:
            raise SystemExit(f"dns_lookup ended with {self.child.wait()}")
        return json.loads(line)

    def ask(self, name, kind="domain"):
        self.send(f"{kind} {name}", "wait")
        return self.read()

    def ask_all(self, names, kind="domain"):
        """Answers by name; all are looked up at once."""
        self.send(*(f"{kind} {name}" for name in names), "wait")
        answers = [self.read() for _ in names]
        return {answer["name"]: answer for answer in answers}

    def counters(self):
        self.send("counters")
        return self.read()

    def close(self):
        """Ends it; a crash or a leak that a sanitizer found fails the test."""
        self.child.stdin.close()
        status = self.child.wait(30)
        if status != 0:
            raise SystemExit(f"dns_lookup ended with {status}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.close()
        else:
            self.child.kill()
            self.child.wait()


class Checks:
    """Counts what is wrong and says it."""

    def __init__(self):
        self.done = self.wrong = 0

    def equal(self, what, got, want):
        self.done += 1
        if got != want:
            self.wrong += 1
            print(f"WRONG {what}: {got!r}, expected {want!r}")

    def true(self, what, got):
        self.equal(what, bool(got), True)

    def exit(self):
        print(f"{self.done} checks, {self.wrong} wrong")
        raise SystemExit(1 if self.wrong or not self.done else 0)
