"""tools/quickstart on a short list: everybody accounted for, nothing left running, and every command
that it prints for a further look works."""

import pathlib
import re
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from engine import TREE, program  # noqa: E402
from proc import TempDir  # noqa: E402

RECIPIENTS = 6000
TOOK_S_MAX = 45  # what it takes alone is 10; a destination that backs off makes it 70 and more


class Quickstart(unittest.TestCase):
    def test_all_of_it(self):
        here = TempDir("hayauma-quickstart-").path / "run"
        done = subprocess.run(
            [sys.executable, TREE / "tools/quickstart.py", "--recipients", str(RECIPIENTS), "--program",
             program(), "--directory", here], cwd=TREE, capture_output=True, text=True, timeout=150,
            check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        row = re.search(r"^all +200 +(\d+) +(\d+) +(\d+) +(\d+) ", done.stdout, re.M)
        mails, delivered, bounced, queued = map(int, row.groups())
        self.assertEqual((mails, queued), (RECIPIENTS, 0))
        self.assertEqual(delivered + bounced, RECIPIENTS)
        self.assertGreater(bounced, 0)
        took_s = float(re.search(r"recipients settled in ([\d.]+) s", done.stdout)[1])
        self.assertLess(took_s, TOOK_S_MAX, done.stdout)
        ledger = {line.split("\t")[3] for line in (here / "received").read_text().splitlines()}
        self.assertEqual(len([r for r in ledger if not r.endswith("@sender.example")]), delivered)
        self.check_report(here, done.stdout, delivered)
        self.check_nothing_runs(here)
        self.check_commands(done.stdout.split("To look further:\n")[1])

    def check_report(self, here, said, delivered):
        """The page is named, is there, and says what the summary says; the last lines have the rate."""
        self.assertRegex(said, r"report, a page for a browser: .*report\.html\n")
        self.assertRegex(said, r"engine CPU per message \d+ us\n")
        self.assertRegex(said, r"Accepted and delivered, the first half: [1-9]\d* messages/s")
        page = (here / "report.html").read_text()
        self.assertIn("newsletter-1", page)
        self.assertIn(str(delivered), page.replace(",", ""))

    def test_nobody_to_send_to(self):
        done = subprocess.run([sys.executable, TREE / "tools/quickstart.py", "--recipients", "0"],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("at least 1", done.stderr)

    def check_nothing_runs(self, here):
        for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.assertNotIn(str(here).encode(), entry.read_bytes(), entry)
            except OSError:  # it ended while we looked
                continue

    def check_commands(self, text):
        commands = [line.split("   #")[0].strip() for line in text.splitlines() if line.strip()]
        self.assertGreater(len(commands), 4)
        for command in commands:
            if "--keep-running" in command:
                continue  # what this test has just run
            with self.subTest(command=command):
                done = subprocess.run(["sh", "-c", command.replace("less ", "cat ")], cwd=TREE,
                                      capture_output=True, timeout=20, check=False)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertTrue(done.stdout)


if __name__ == "__main__":
    unittest.main()
