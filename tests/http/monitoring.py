#!/usr/bin/env python3
"""The alert rules and the dashboard of docs/examples/monitoring, by Prometheus itself: it scrapes a
working engine, evaluates every rule, and answers every question of the dashboard.

monitoring.py [TEST...]"""

import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / name) for name in ("lib", "interop", "hostile", "http")]

import peers  # noqa: E402
from engine import TREE, Sink  # noqa: E402
from http_api import LETTER, Api  # noqa: E402
from proc import Failure, Process, TempDir, free_port, wait_port, wait_until  # noqa: E402
from talk import check, run  # noqa: E402

EXAMPLES = TREE / "docs/examples/monitoring"
BIN = peers.TREES / "prometheus/usr/bin"
METRIC = re.compile(r"\bhayauma_\w+")
# What a plain engine has no series of: its sources are not warmed up, no recipient waits.
MAY_BE_EMPTY = ("warmup_", "wait_recipients", "source_up")


class Prometheus:
    """Scrapes engine every 200 ms; begins with the rules of EXAMPLES."""

    def __init__(self, engine):
        self.temp = TempDir("hayauma-prometheus-")
        self.port = free_port()
        file = self.temp.path / "prometheus.yml"
        file.write_text(json.dumps({
            "global": {"scrape_interval": "200ms", "evaluation_interval": "200ms"},
            "rule_files": [str(EXAMPLES / "alerts.yaml")],
            "scrape_configs": [{"job_name": "hayauma",
                                "static_configs": [{"targets": [f"127.0.0.1:{engine.web}"]}]}]}))
        self.process = Process([BIN / "prometheus", f"--config.file={file}",
                                f"--storage.tsdb.path={self.temp.path / 'data'}",
                                f"--web.listen-address=127.0.0.1:{self.port}"], self.temp.path / "log")

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=30):
                return True
        except urllib.error.HTTPError:
            return False

    def ask(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            raise Failure(f"{query}: {refused.read().decode()}") from refused

    def query(self, expression):
        return self.ask("query", query=expression)["result"]

    def rules(self):
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def __enter__(self):
        wait_port(("127.0.0.1", self.port), self.process, 60)
        wait_until("Prometheus to be ready", self.ready, 60)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.temp.close()


def questions():
    """(title, expression) of the dashboard, with its variables filled in."""
    for panel in json.loads((EXAMPLES / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", []):
            text = target["expr"].replace("$job", "hayauma").replace("$instance", ".*")
            yield panel["title"], text.replace("$__rate_interval", "5s")


def scraped(prometheus):
    found = prometheus.ask("targets")["activeTargets"]
    if found and found[0]["health"] == "down":
        raise Failure(f"the scrape failed: {found[0]['lastError']}")
    return found and found[0]["health"] == "up"


def promtool(*arguments, **more):
    done = subprocess.run([BIN / "promtool", *arguments], capture_output=True, timeout=60, check=False, **more)
    if done.returncode:
        raise Failure(f"promtool {arguments}: {done.returncode}\n{(done.stdout + done.stderr).decode()}")


def test_rules_and_dashboard():
    """Prometheus takes the metrics (it reads OpenMetrics strictly), each name in the rules and the
    dashboard is one of theirs, each expression is evaluated, each panel of the dashboard shows
    something, and an alert that is due comes."""
    with Sink() as sink, Api(sink.port) as engine:
        engine.inject({**LETTER, "tenant": "acme"})
        promtool("check", "rules", EXAMPLES / "alerts.yaml")
        with Prometheus(engine) as prometheus:
            wait_until("a scrape", lambda: scraped(prometheus), 60)
            wait_until("two scrapes", lambda: prometheus.query(
                "count_over_time(hayauma_intake_open[60s]) > 1"), 60)
            names = set(prometheus.ask("label/__name__/values"))
            asked = [text for _, text in questions()] + [rule["query"] for rule in prometheus.rules()]
            absent = {name for text in asked for name in METRIC.findall(text)} - names
            check("names that the engine does not have", {
                name for name in absent if not any(part in name for part in MAY_BE_EMPTY)}, set())
            empty = [title for title, text in questions()
                     if not any(part in text for part in MAY_BE_EMPTY) and not prometheus.query(text)]
            check("panels without data", empty, [])
            wait_until("every rule to be evaluated", lambda: all(
                rule["health"] == "ok" for rule in prometheus.rules()), 60)
            check("alerts of an engine that is well", [
                rule["name"] for rule in prometheus.rules() if rule["state"] == "firing"], [])
            engine.stop()
            wait_until("the alert of an engine that is gone", lambda: any(
                rule["name"] == "HayaumaDown" and rule["state"] != "inactive"
                for rule in prometheus.rules()), 60)


if __name__ == "__main__":
    absent = peers.missing("prometheus")
    if absent:
        print(absent)
        sys.exit(1 if os.environ.get("HAYAUMA_REQUIRE_PEERS") else 77)
    run(globals())
