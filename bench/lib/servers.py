"""The servers that are compared as relays: Hayauma, and Postfix and OpenSMTPD tuned for throughput.
Each takes mail at host:port and sends all of it to target, a "host:port"."""

import pathlib
import sys

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TREE / "tests/lib"), str(TREE / "tests/interop")]
import peers  # noqa: E402
from engine import Engine, merge, program  # noqa: E402
from machine import first_line  # noqa: E402
from proc import cpu_seconds  # noqa: E402


def version_of(tree, package):
    """Version of an unpacked package, from its changelog's name for lack of a status file."""
    changelog = peers.TREES / tree / "usr/share/doc" / package / "changelog.Debian.gz"
    return first_line(["sh", "-c", f"zcat {changelog} | head -1"]).split(";")[0]


class HayaumaRelay:
    name = "hayauma"

    def __init__(self, target, settings=None, directory=None):
        host, port = target.rsplit(":", 1)
        self.engine = Engine(merge({
            "queue": {"map_size": "16GiB"},
            "log_level": "warn",
            "routes": {"*": f"[{host}]:{port}"},
            "destinations": {"*": {"sessions_max": 100, "session_messages_max": "none"}},
            "listeners": [],
        }, settings or {}), directory=directory)
        self.engine.config["listeners"] = [
            {"listen": f"{self.engine.host}:{self.engine.port}", "sessions_per_client_max": 5000}]
        self.version = first_line([str(program()), "version"])

    def start(self):
        self.engine.start()
        return self

    def address(self):
        return self.engine.host, self.engine.port

    def cpu_s(self):
        return cpu_seconds(self.engine.process.pid)

    def settings(self):
        return self.engine.config

    def stop(self):
        self.engine.stop()


class PostfixRelay:
    """Tuned as its TUNING_README and bulk senders do: many processes, high concurrency, no
    input throttling, no address probes, no per-client accounting."""

    name = "postfix"
    tuning = {
        "default_process_limit": 200, "smtpd_client_connection_count_limit": 0,
        "smtpd_client_event_limit_exceptions": "127.0.0.0/8", "smtpd_peername_lookup": "no",
        "smtpd_error_sleep_time": "0s", "in_flow_delay": "0s", "initial_destination_concurrency": 50,
        "default_destination_concurrency_limit": 100,
        "smtp_destination_concurrency_failed_cohort_limit": 100,
        "qmgr_message_active_limit": 100000, "qmgr_message_recipient_limit": 100000,
        "minimal_backoff_time": "60s", "max_use": 10000, "max_idle": "100s",
        "smtp_connection_cache_on_demand": "yes", "smtp_connection_reuse_count_limit": 10000,
        "hash_queue_depth": 1, "enable_long_queue_ids": "yes", "smtputf8_enable": "no",
        "smtpd_relay_restrictions": "permit_mynetworks, reject", "smtpd_recipient_restrictions": "",
        "receive_override_options": "no_unknown_recipient_checks, no_address_mappings, no_milters",
        "virtual_mailbox_domains": "", "virtual_mailbox_maps": "", "disable_mime_input_processing": "yes",
        "header_size_limit": 102400, "cleanup_service_name": "cleanup", "trace_service_name": "trace",
    }

    def __init__(self, target, settings=None):
        host, port = target.rsplit(":", 1)
        self.peer = peers.Postfix("postfix.example", relayhost=f"[{host}]:{port}",
                                  settings={**self.tuning, **(settings or {})})
        self.version = version_of("postfix", "postfix")

    def start(self):
        self.peer.start()
        return self

    def address(self):
        return self.peer.host, self.peer.port

    def cpu_s(self):
        return cpu_seconds(self.peer.process.pid)

    def settings(self):
        return self.tuning

    def stop(self):
        self.peer.stop()


class OpenSmtpdRelay:
    """Its scheduler and its transfer agent allow more than by default; it never syncs its queue."""

    name = "opensmtpd"

    class Peer(peers.OpenSmtpd):
        target = ""

        def configure(self):
            host, port = self.target.rsplit(":", 1)
            self.write("smtpd.conf", f"""
smtp limit max-mails 100000
smtp limit max-rcpt 1000
mta limit session-transaction-delay 0
mta max-deferred 1000000
queue ttl 1d
mta limit conn-delay-host 0
mta limit conn-delay-route 0
mta limit conn-delay-source 0
mta limit conn-delay-connector 0
mta limit conn-delay-relay 0
mta limit conn-delay-domain 0
mta limit max-conn-per-host 100
mta limit max-conn-per-source 100
mta limit max-conn-per-connector 100
mta limit max-conn-per-route 100
mta limit max-conn-per-relay 100
mta limit max-conn-per-domain 100
mta limit session-mail-max 100000
mta limit task-hiwat 10000
mta limit task-lowat 5000
mta limit task-release 1000
scheduler limit max-inflight 50000
listen on {self.host} port {self.port} hostname mx.{self.domain}
action "relay" relay host "smtp://{host}:{port}"
match from any for any action "relay"
""", 0o600)
            self.prepare = "install -d -m 711 /var/spool/smtpd && cp /bin/true /usr/sbin/sendmail"

        def argv(self):
            return ["/usr/sbin/smtpd", "-d", "-f", self.dir / "smtpd.conf"]

    def __init__(self, target):
        self.peer = self.Peer("opensmtpd.example")
        self.peer.target = target
        self.version = version_of("opensmtpd", "opensmtpd")

    def start(self):
        self.peer.start()
        return self

    def address(self):
        return self.peer.host, self.peer.port

    def cpu_s(self):
        return cpu_seconds(self.peer.process.pid)

    def settings(self):
        return (self.peer.dir / "smtpd.conf").read_text()

    def stop(self):
        self.peer.stop()
