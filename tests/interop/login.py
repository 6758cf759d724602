"""Logging in at real servers as a relay's client: Postfix with Dovecot's SASL, Exim. Each refuses the
mail of who has not logged in, and a wrong password costs no mail."""

import contextlib
import unittest

import case
import peers
from engine import Engine
from proc import free_port

USER, PASSWORD = "taro@relay.example", "secret"


class Sasl(peers.Dovecot):
    """Dovecot that tells Postfix who has the right password."""

    def __init__(self, domain, mechanisms="plain"):
        super().__init__(domain)
        self.mechanisms = mechanisms
        self.auth_port = free_port((self.host,))

    def configure(self):
        super().configure()
        file = self.dir / "dovecot.conf"
        file.write_text(file.read_text() + f"""
auth_mechanisms = {self.mechanisms}
auth_failure_delay = 0
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  inet_listener {{
    address = {self.host}
    port = {self.auth_port}
  }}
}}
""")


class Login(unittest.TestCase):
    def relay(self, stack, peer, password=PASSWORD):
        engine = Engine({"routes": {"*": f"[{peer.host}]:{peer.port}"},
                         "destinations": {"*": {"auth_without_tls": True, "retry": ["1s"]}}})
        file = engine.dir / "credentials"
        file.write_text(f"[{peer.host}]:{peer.port} {USER} {password}\n")
        file.chmod(0o600)
        engine.config["credentials_file"] = str(file)
        engine.credentials = file
        return stack.enter_context(engine)

    def check(self, stack, peer):
        with self.assertRaises(Exception):  # without a login there is nothing to be had
            case.submit(peer, "a@sender.example", ["taro@relay.example"], "Subject: no\r\n\r\nx\r\n")
        engine = self.relay(stack, peer, "wrong")
        case.submit(engine, "a@sender.example", ["taro@relay.example"], "Subject: by login\r\n\r\nx\r\n")
        record = engine.wait_records("TransientFailure")[0]
        self.assertEqual((record["response"]["code"], record["response"]["command"]), (535, "AUTH"))
        engine.credentials.write_text(engine.credentials.read_text().replace("wrong", PASSWORD))
        engine.command("reload")
        engine.command("queue", "flush", "--all", "-y")
        peer.wait_mail("taro")
        engine.wait_records("Delivery")
        self.assertFalse(engine.records("Bounce"))

    def test_postfix(self):
        self.postfix("plain")

    def test_postfix_scram(self):
        """Which offers nothing else."""
        self.postfix("scram-sha-256")

    def test_postfix_cram(self):
        self.postfix("cram-md5")

    def postfix(self, mechanisms):
        with contextlib.ExitStack() as stack:
            dovecot = stack.enter_context(Sasl("relay.example", mechanisms))
            self.check(stack, stack.enter_context(peers.Postfix("relay.example", settings={
                "smtpd_sasl_auth_enable": "yes", "smtpd_sasl_type": "dovecot",
                "smtpd_sasl_path": f"inet:{dovecot.host}:{dovecot.auth_port}", "mynetworks": "",
                "smtpd_error_sleep_time": "0",
                "smtpd_client_restrictions": "permit_sasl_authenticated, reject"})))

    def test_exim(self):
        """Which offers LOGIN alone."""
        class Exim(peers.Exim):
            def configure(self):
                super().configure()
                file = self.dir / "exim.conf"
                text = file.read_text().replace("check_rcpt:\n", """check_rcpt:
  deny !authenticated = *
       message = log in first
""")
                file.write_text(text + f"""
begin authenticators
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if and{{{{eq{{$auth1}}{{{USER}}}}}{{eq{{$auth2}}{{{PASSWORD}}}}}}}}}
  server_set_id = $auth1
  server_advertise_condition = yes
""")
        with contextlib.ExitStack() as stack:
            self.check(stack, stack.enter_context(Exim("relay.example")))


if __name__ == "__main__":
    case.run("postfix", "dovecot", "exim")
