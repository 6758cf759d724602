#!/usr/bin/env python3
"""Reports of TLS (RFC 8460): what was sent to domains under each kind of policy, in a day that is a few
seconds long, as their report says it; who gets one, by mail and by HTTPS; over a crash. nginx has the
policies.

reports.py [TEST...]"""

import email
import email.policy
import gzip
import http.server
import json
import pathlib
import socket
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / name) for name in ("lib", "interop", "hostile", "dns")]
sys.path.insert(0, str(HERE))
from policies import A, HTTPS, TXT, World, merge, policy, txt_data  # noqa: E402
from authority import serving  # noqa: E402
from proc import Failure, wait_until  # noqa: E402
from talk import check, run  # noqa: E402

FROM = "tls-reports@mta.sender.example"


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes reports; `refuse` of them first with 503."""

    def do_POST(self):  # pylint: disable=invalid-name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Content-Type"], body))
        self.send_response(503 if len(self.server.asked) <= self.server.refuse else 201)
        self.end_headers()

    def log_message(self, *_):
        pass


class Reported(World):
    """A world whose domains want reports; day: how long one is."""

    def __init__(self, day="3s", **settings):
        super().__init__()
        self.settings = merge({
            "tls_reports": {"from": FROM, "contact": "postmaster@sender.example", "organization": "Sender",
                            "period": day, "delay": "0s"},
            "destinations": {"*": {"retry": ["1s"], "idle": "100ms"}}}, settings)
        self.domain("collector", None)
        self.collector = None

    def start(self, **more):
        return super().start(**merge(dict(self.settings), more))

    def wants(self, name, record="v=TLSRPTv1; rua=mailto:tls@collector.example"):
        self.names.put(f"_smtp._tls.{name}.example", TXT, *(txt_data(text) for text in record.split("|")))

    def collect(self, refuse=0):
        """An HTTPS server with a certificate that nobody vouches for; its port."""
        self.names.put("collect.example", A, socket.inet_aton(HTTPS))
        server = self.collector = http.server.ThreadingHTTPServer((HTTPS, 0), Collector)
        server.asked, server.refuse = [], refuse
        server.socket = serving(self.authority.self_signed("elsewhere.example")).wrap_socket(
            server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_port

    def mails(self):
        return list(self.servers["mx1.collector.example"].taken)

    def reports(self, name, enough=lambda found: found):
        """The JSON of all reports of a domain that came by mail, once there are enough."""
        def look():
            found = [r for r in map(report_in, self.mails()) if r["domain"] == f"{name}.example"]
            return found if enough(found) else None
        try:
            return wait_until(f"reports of {name}", look, 60, process=self.engine.process)
        except Failure:
            print([(r["domain"], r["policies"]) for r in map(report_in, self.mails())])
            print("\n".join(line for line in self.engine.log().splitlines() if name in line))
            raise

    def finish(self):
        if self.collector:
            self.collector.shutdown()
            self.collector.server_close()
        super().finish()


def report_in(content):
    """What a message says, checked against RFC 8460 5.3 and 4.4."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    check("type", message.get_content_type(), "multipart/report")
    check("report-type", message.get_param("report-type"), "tlsrpt")
    domain = message["TLS-Report-Domain"]
    check("from", message["From"], FROM)
    check("submitter", message["TLS-Report-Submitter"], "mta.sender.example")
    check("TLS-Required", message["TLS-Required"], "No")
    text, packed = message.iter_parts()
    check("parts", (text.get_content_type(), packed.get_content_type()),
          ("text/plain", "application/tlsrpt+gzip"))
    found = json.loads(gzip.decompress(packed.get_content()))
    check("file name", packed.get_filename().startswith(f"mta.sender.example!{domain}!")
          and packed.get_filename().endswith(f"!{found['report-id']}.json.gz"), True)
    check("subject", " ".join(message["Subject"].split()), f"Report Domain: {domain} Submitter: "
          f"mta.sender.example Report-ID: <{found['report-id']}@mta.sender.example>")
    check("keys", set(found), {"organization-name", "date-range", "contact-info", "report-id", "policies"})
    check("who", (found["organization-name"], found["contact-info"]), ("Sender", "postmaster@sender.example"))
    check("range", set(found["date-range"]), {"start-datetime", "end-datetime"})
    for one in found["policies"]:
        failures = one.get("failure-details", [])
        check("sum", sum(f["failed-session-count"] for f in failures),
              one["summary"]["total-failure-session-count"])
    return {**found, "domain": domain, "message": message}


def summary(reports, kind):
    """Over all reports: successes, and failures by their kind, of one type of policy."""
    good, bad = 0, {}
    for one in (p for report in reports for p in report["policies"] if p["policy"]["policy-type"] == kind):
        good += one["summary"]["total-successful-session-count"]
        for failure in one.get("failure-details", []):
            bad[failure["result-type"]] = bad.get(failure["result-type"], 0) + failure["failed-session-count"]
    return good, bad


def test_what_is_reported():
    """Policies that are enforced, tested, and none at all, with exchangers that do well and such that
    do not. Who publishes no record, or two, gets none; nobody hears of reports."""
    world = Reported()
    world.domain("good", policy("enforce", "mx1.good.example", "*.also.example"))
    world.domain("wrong", policy("enforce", "mx1.wrong.example"), "wrong")
    world.domain("stripped", policy("enforce", "mx1.stripped.example"), "stripped")
    world.domain("tested", policy("testing", "mx1.tested.example"), "expired")
    world.domain("gone", policy("enforce", "mx1.gone.example"), more="return 404;")
    world.domain("plain", None, "stripped")
    world.domain("silent", None)
    world.domain("twice", None)
    for name in ("good", "wrong", "stripped", "tested", "gone", "plain", "collector"):
        world.wants(name)
    world.wants("twice", "v=TLSRPTv1; rua=mailto:a@collector.example|v=TLSRPTv1; rua=mailto:b@collector.example")
    world.start()
    for name in ("good", "good", "wrong", "stripped", "tested", "gone", "plain", "silent", "twice"):
        world.send(name)
    good = world.reports("good", lambda found: summary(found, "sts")[0] >= 2)
    check("good", summary(good, "sts"), (2, {}))
    policy_of = good[0]["policies"][0]["policy"]
    check("policy", policy_of, {
        "policy-type": "sts", "policy-domain": "good.example",
        "policy-string": ["version: STSv1", "mode: enforce", "mx: mx1.good.example", "mx: *.also.example",
                          "max_age: 86400"],
        "mx-host": ["mx1.good.example", "*.also.example"]})
    for name, result in (("wrong", "certificate-host-mismatch"), ("stripped", "starttls-not-supported"),
                         ("tested", "certificate-expired")):
        found = world.reports(name, lambda found, result=result: result in summary(found, "sts")[1])
        check(name, (summary(found, "sts")[0], set(summary(found, "sts")[1])), (0, {result}))
        failure = found[0]["policies"][0]["failure-details"][0]
        check(f"{name}: exchanger", (failure["receiving-mx-hostname"], failure["receiving-ip"],
                                     failure["sending-mta-ip"]),
              (f"mx1.{name}.example", world.server(name).listener.getsockname()[0], "127.0.0.1"))
    found = world.reports("gone", lambda found: summary(found, "sts")[1] and summary(found, "no-policy-found")[0])
    check("gone", summary(found, "sts")[1], {"sts-policy-fetch-error": 1})
    found = world.reports("plain")
    check("plain", summary(found, "no-policy-found"), (0, {"starttls-not-supported": 1}))
    check("range", found[0]["date-range"]["start-datetime"] <= found[0]["date-range"]["end-datetime"], True)
    before = len(world.reports("good"))  # a day later reports would tell of those mails
    world.send("good", "later")
    world.reports("good", lambda found: len(found) > before)
    check("reports of reports", "tls_reports.report domain=collector.example" in world.engine.log(), False)
    check("who got one", {report_in(m)["domain"] for m in world.mails()} &
          {"silent.example", "twice.example", "collector.example"}, set())
    records = world.engine.records("Delivery", "tls@collector.example")
    check("their campaign", {r["meta"]["campaign"] for r in records}, {"@tls-reports"})
    world.finish()


def test_despite_tls():
    """A report reaches a domain whose exchangers fail its own policy, in plaintext where need be."""
    world = Reported()
    world.domain("broken", policy("enforce", "mx1.broken.example"), "stripped")
    world.wants("broken", "v=TLSRPTv1; rua=mailto:tls@broken.example")
    world.start()
    world.send("broken")
    taken = wait_until("the report", lambda: world.server("broken").taken, 60, process=world.engine.process)
    found = report_in(taken[0])
    check("what it says", "starttls-not-supported" in summary([found], "sts")[1], True)
    record = world.engine.wait_records("Delivery")[0]
    check("how it went", (record["recipient"], "tls_cipher" in record), ("tls@broken.example", False))
    check("the mail waits", world.engine.records("Delivery", "u@broken.example"), [])
    world.finish()


def test_https():
    """Posted with any certificate, and mailed with a signature, as one report; not more often to one
    mail domain than target_max says."""
    world = Reported(day="2s")
    key = world.temp.path / "dkim.pem"
    world.authority.openssl("genrsa", "-out", key, 2048)
    key.chmod(0o600)
    port = world.collect()
    world.domain("posted", policy("none", "mx1.posted.example"))
    world.wants("posted", f"v=TLSRPTv1; rua=https://collect.example:{port}/v1?a=b,mailto:tls@collector.example,"
                "mailto:a@victim.example,mailto:b@victim.example")
    world.start(tls_reports={"target_max": 1}, dkim={"keys": [{"domain": "mta.sender.example", "selector": "s1", "file": str(key)}]})
    world.send("posted")
    asked = wait_until("a report", lambda: world.collector.asked, 60, process=world.engine.process)
    path, kind, body = asked[0]
    check("request", (path, kind), ("/v1?a=b", "application/tlsrpt+gzip"))
    found = json.loads(gzip.decompress(body))
    check("summary", found["policies"], [{
        "policy": {"policy-type": "no-policy-found", "policy-domain": "posted.example"},
        "summary": {"total-successful-session-count": 1, "total-failure-session-count": 0}}])
    mailed = world.reports("posted")
    check("the same", mailed[0]["report-id"], found["report-id"])
    check("signed", "d=mta.sender.example" in mailed[0]["message"]["DKIM-Signature"], True)
    wait_until("the log", lambda: "tls_reports.posted" in world.engine.log(), 20)
    check("victims", [r["recipient"] for r in world.engine.records("Reception")
                      if r["recipient"].endswith("@victim.example")], ["a@victim.example"])
    check("said", 'target="victim.example"' in world.engine.log(), True)
    world.finish()


def test_crash():
    """What was stored before a crash is in the report of the day, which is sent after it."""
    world = Reported(day="10s", log_level="debug")
    world.domain("kept", policy("none", "mx1.kept.example"))
    world.wants("kept")
    world.start()
    world.send("kept")
    wait_until("the counts to be stored", lambda: "tls_reports.stored" in world.engine.log(), 60)
    world.engine.kill()
    world.engine.start()
    check("the report", summary(world.reports("kept"), "no-policy-found"), (1, {}))
    world.finish()


if __name__ == "__main__":
    run(globals())
