"""The documents are true as far as a program can tell: commands and options in them exist, YAML in
them passes its check, links, sections, paths and functions lead somewhere."""

import http.server
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from authority import Authority  # noqa: E402
from engine import TREE, program  # noqa: E402
from proc import free_port  # noqa: E402

PAGES = sorted([*TREE.glob("*.md"), *TREE.glob("docs/**/*.md"), *TREE.glob("queue/*.md")])
COMMAND = re.compile(r"(?:^|[\s/(`])hayauma ((?:[a-z]+)(?: [^|#`\n]*)?)")


def blocks(page, *languages):
    """(line number, text) of the fenced blocks in one of languages."""
    found, inside, lines, start = [], None, [], 0
    for number, line in enumerate(page.read_text(encoding="utf-8").split("\n"), 1):
        if line.startswith("```"):
            if inside is not None and inside in languages:
                found.append((start, "\n".join(lines) + "\n"))
            inside = line[3:].strip() if inside is None else None
            lines, start = [], number
        elif inside is not None:
            lines.append(line)
    return found


def run(*arguments):
    return subprocess.run([program(), *arguments], capture_output=True, text=True, timeout=20,
                          check=False)


def with_keys(text, directory):
    """text with its keys and its certificates, which a check reads, in directory."""
    place = "/etc/hayauma/dkim"
    for domain, selector in set(re.findall(place + r"/([\w.-]+)\.([\w-]+)-(?:rsa|ed25519)\.pem", text)):
        run("dkim", "keygen", domain, "--selector", selector, "--directory", directory)
    text = text.replace(place, directory)
    for number, (chain, key) in enumerate(re.findall(r"chain: (/etc/[^,\s]+), key: (/etc/[^}\s]+)}", text)):
        files = Authority(directory).self_signed("mx.example.com", name=f"tls{number}")
        text = text.replace(chain, str(files[0])).replace(key, str(files[1]))
    for own in set(re.findall(r"tls_certificate: (/etc/[^,}\s]+)", text)):
        chain, key = Authority(directory).self_signed("client.example.com", name="own")
        both = pathlib.Path(directory, "own.both")
        both.write_bytes(pathlib.Path(chain).read_bytes() + pathlib.Path(key).read_bytes())
        both.chmod(0o600)
        text = text.replace(own, str(both))
    if "/etc/hayauma/letter.keys" in text:
        keys = str(pathlib.Path(directory, "letter.keys"))
        run("letters", "keygen", "--file", keys)
        text = text.replace("/etc/hayauma/letter.keys", keys)
    for one in set(re.findall(r"client_ca_file: (/etc/[^,}\s]+)", text)):
        text = text.replace(one, str(Authority(directory).self_signed("clients", name="clients")[0]))
    return text


class Documented(unittest.TestCase):
    help_of = {}

    def help_for(self, command):
        if command not in self.help_of:
            done = run(command, "--help")
            self.help_of[command] = done.stdout if done.returncode == 0 else None
        return self.help_of[command]

    def test_commands_and_options(self):
        checked = 0
        for page in PAGES:
            for start, text in blocks(page, "", "sh", "console"):
                for line in re.sub(r"\\\n\s*", "", text).split("\n"):
                    command = COMMAND.search(line)
                    if not line.startswith(("$ ", "# ", "  hayauma", "hayauma")) or not command:
                        continue
                    words = command.group(1).split()
                    with self.subTest(page=page.name, block=start, line=line):
                        text_of_help = self.help_for(words[0])
                        if words[0] == "send" and "--template" in words:
                            text_of_help = run("send", "--template", "--help").stdout
                        self.assertIsNotNone(text_of_help, f"there is no command {words[0]}")
                        for word in words[1:]:
                            if word.startswith("--") and word != "--help":
                                self.assertIn(word.split("=")[0], text_of_help)
                                checked += 1
        self.assertGreater(checked, 0, "no option found in any page: the pattern is wrong")

    def test_alerts(self):
        """What an alert says to do first is there to be done."""
        text = (TREE / "docs/examples/monitoring/alerts.yaml").read_text(encoding="utf-8")
        found = re.findall(r"hayauma (queue|warmup|campaign|source|site|token) ([a-z]+)", text)
        for command, action in found:
            with self.subTest(command=command, action=action):
                self.assertRegex(self.help_for(command), rf"\b{action}\b")
        self.assertGreater(len(found), 5)

    def test_yaml(self):
        examples = TREE.glob("docs/examples/*.yaml")
        found = [*((page, *block) for page in PAGES for block in blocks(page, "yaml")),
                 *((page, 1, re.sub("^user: .*", "", page.read_text(encoding="utf-8"), flags=re.M))
                   for page in examples)]
        for page, start, text in found:
            with self.subTest(page=page.name, block=start), \
                    tempfile.TemporaryDirectory() as keys, \
                    tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                for key in ("users_file", "credentials_file", "password_file"):  # these must be there
                    secret = pathlib.Path(file.name + key)
                    if re.search(f"{key}: /", text):
                        secret.touch(mode=0o600)
                        secret.write_text("secret\n" if key == "password_file" else "", encoding="utf-8")
                        self.addCleanup(secret.unlink)
                        text = re.sub(f"{key}: [^\\s}}]+", f"{key}: {secret}", text)
                file.write(with_keys(text, keys))
                file.flush()
                if re.search("^classes:", text, re.M):  # a behaviour of the sink's
                    done = run("sink", "--listen", f"127.0.0.1:{free_port()}", "--duration", "100ms",
                               "--behaviour", file.name)
                else:
                    done = run("config", "check", file.name)
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_links_and_paths(self):
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
                if "://" not in target and not target.startswith("mailto:"):
                    with self.subTest(page=page.name, link=target):
                        self.assertTrue((page.parent / target).exists())
            for path in re.findall(r"`((?:tools|bench|tests|docs|engine|queue|dns|\.ci)/[\w./-]+)", text):
                with self.subTest(page=page.name, path=path):
                    self.assertTrue((TREE / path).exists() or list(TREE.glob(path + ".*")))

    def test_anchors(self):
        """A link into a page finds one section, and only one: titles that are linked stand once."""
        titles = {}
        for page in PAGES:
            text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
            titles[page] = [re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "]", title).lower()).replace(" ", "-")
                            for title in re.findall(r"^#+ +(.+?) *$", text, re.M)]
        for page in PAGES:
            for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
                other = (page.parent / target).resolve() if target else page
                if "://" not in target and other in titles:
                    with self.subTest(page=page.name, link=f"{target}#{anchor}"):
                        self.assertEqual(titles[other].count(anchor), 1)

    def test_records_to_webhook(self):
        """The example posts whole lines of the types that it is asked for, once more after a refusal, and goes on
        where it was, over compression too."""
        took, refusals = [], [503]

        class Application(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                events = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = refusals.pop() if refusals else 204
                if status == 204:
                    took.extend(event["id"] for event in events)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_):
                pass

        def until(ids):
            ends = time.monotonic() + 20
            while took != ids:
                self.assertLess(time.monotonic(), ends, took)
                time.sleep(0.05)

        def line(kind, name):
            return json.dumps({"type": kind, "id": name}) + "\n"

        with tempfile.TemporaryDirectory() as place, \
                http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            records = pathlib.Path(place, "records")
            records.mkdir()
            first = records / "10-0-9.jsonl"
            first.write_text(line("Bounce", "a") + line("Reception", "b") + line("Delivery", "c")[:10])
            command = [TREE / "docs/examples/records-to-webhook", records, f"http://127.0.0.1:{server.server_port}/",
                       pathlib.Path(place, "state")]
            with subprocess.Popen(command, stderr=subprocess.PIPE) as follower:
                until(["a"])
                with first.open("a") as f:
                    f.write(line("Delivery", "c")[10:])
                until(["a", "c"])
                time.sleep(0.2)  # its state is written behind the answer
                follower.kill()
                self.assertIn(b"again in 1 s", follower.stderr.read())
            first.write_text(first.read_text() + line("Expiration", "d"))
            subprocess.run(["zstd", "-q", "--rm", first], check=True)
            (records / "10-0-10.jsonl").write_text(line("Unsubscription", "e"))
            with subprocess.Popen(command) as follower:
                until(["a", "c", "d", "e"])
                follower.kill()
            server.shutdown()

    def test_functions(self):
        """Where a page says to look at function(), there is one."""
        sources = "\n".join(path.read_text(encoding="utf-8") for folder in
                            ("engine", "queue", "dns", "sts", "tls", "tools") for path in (TREE / folder).glob("**/*.[ch]"))
        defined = set(re.findall(r"^(?:[a-z_][^\n;=#]*?[ *])?([a-z_0-9]+)\(", sources, re.M))
        for page in (TREE / "docs/ARCHITECTURE.md", TREE / "README.md", TREE / "queue/DESIGN.md"):
            for name in re.findall(r"`([a-z_0-9]+)\(\)`", page.read_text(encoding="utf-8")):
                with self.subTest(page=page.name, function=name):
                    self.assertIn(name, defined)
        self.assertIn("lane_update", defined)


if __name__ == "__main__":
    unittest.main()
