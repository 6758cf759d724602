"""What the tests with real peers share: when they run, and sending by SMTP."""

import os
import smtplib
import sys
import unittest

import peers

SKIPPED = 77


def run(*trees):
    """Runs the calling module's tests; without the peers it needs it is skipped, and fails where
    HAYAUMA_REQUIRE_PEERS says that they must be there."""
    why = peers.missing(*trees)
    if why:
        print(why)
        sys.exit(1 if os.environ.get("HAYAUMA_REQUIRE_PEERS") else SKIPPED)
    unittest.main(verbosity=2, failfast=bool(os.environ.get("HAYAUMA_KEEP")))


def submit(engine, sender, recipients, message, options=()):
    """One message by Python's client; raises what the engine refuses."""
    with smtplib.SMTP(engine.host, engine.port, local_hostname="client.example", timeout=30) as s:
        refused = s.sendmail(sender, recipients, message, mail_options=list(options))
    if refused:
        raise smtplib.SMTPRecipientsRefused(refused)
