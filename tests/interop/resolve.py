"""The engine finds exchangers through a real resolver (Unbound) at a real authoritative server
(Knot DNS), and delivers to Postfix."""

import unittest

import case
import mail
import peers
from engine import Engine
from proc import free_port, wait_until

SENDER = "sender@sender.example"
ALIVE, DEAD = "127.0.1.2", "127.0.1.1"  # nothing listens at the second, nor at 127.0.2.n

RECORDS = f"""
alive A {ALIVE}
dead A {DEAD}
preferred MX 10 alive
second MX 10 dead
second MX 20 alive
implicit A {ALIVE}
equal MX 10 alive
equal MX 10 dead
alias CNAME preferred
mxalias MX 10 aliashost
aliashost CNAME alive
null MX 0 .
nohost MX 10 nowhere
broken NS ns.broken
ns.broken A 127.0.0.1
xn--0gv356i MX 10 alive
""" + "".join(f"many MX {n} dead{n}\ndead{n} A 127.0.2.{n}\n" for n in range(1, 21))
RECORDS += "many MX 30 alive\n" + "".join(
    f"many MX {n} spare{n}\nspare{n} A {DEAD}\n" for n in range(40, 300))

REACHED = ("preferred", "second", "implicit", "equal", "mxalias", "many")
postfix = engine = None


def setUpModule():
    global postfix, engine
    port = free_port((ALIVE, DEAD))
    domains = [f"{d}.example" for d in (*REACHED, "alias", "早馬", "xn--0gv356i")]
    mailboxes = ", ".join(f"{{ taro@{d} = taro/ }}" for d in domains)
    postfix = peers.Postfix("postfix.example", ALIVE, port, settings={
        "virtual_mailbox_domains": " ".join(domains),
        "virtual_mailbox_maps": f"inline:{{ {mailboxes} }}"}).start()
    unittest.addModuleCleanup(postfix.stop)
    knot = peers.Knot(RECORDS).start()
    unittest.addModuleCleanup(knot.stop)
    unbound = peers.Unbound(knot).start()
    unittest.addModuleCleanup(unbound.stop)
    engine = Engine({
        "dns": {"servers": [f"{unbound.host}:{unbound.port}"], "port": port, "timeout": "2s"},
        "destinations": {"*": {"retry": {"first": "1s", "max": "1s"}}},
    }).start()
    unittest.addModuleCleanup(engine.stop)


def send(domain, options=()):
    to = f"taro@{domain}"
    case.submit(engine, SENDER, [to], mail.header(domain, SENDER, to) + b"text\r\n", options)
    return to


class Resolve(unittest.TestCase):
    def test_reached(self):
        for name in REACHED:
            with self.subTest(domain=name):
                to = send(f"{name}.example")
                record = engine.wait_records("Delivery", timeout_s=60, recipient=to)[0]
                self.assertEqual(record["peer_address"]["addr"].rpartition(":")[0] or
                                 record["peer_address"]["addr"], ALIVE)
                # 20 are dead, and a session tries five: the third session without an answer is the
                # first attempt, the fourth the second, the fifth finds who is alive.
                self.assertEqual(record["num_attempts"], 3 if name == "many" else 1)

    def test_alias_of_the_domain(self):
        to = send("alias.example")
        engine.wait_records("Delivery", timeout_s=60, recipient=to)

    def test_international_domain(self):
        to = send("早馬.example", ("SMTPUTF8",))
        wait_until(f"delivery to {to}", lambda: [
            r for r in engine.records("Delivery") if r["queue"] in ("xn--0gv356i.example",
                                                                     "早馬.example")], 60)

    def test_permanent_failures(self):
        for domain in ("null.example", "nosuch.example"):
            with self.subTest(domain=domain):
                to = send(domain)
                bounce = engine.wait_records("Bounce", recipient=to)[0]
                self.assertEqual(bounce["response"]["enhanced_code"]["class"], 5)

    def test_transient_failure(self):
        to = send("broken.example")
        engine.wait_records("TransientFailure", timeout_s=60, recipient=to)
        self.assertFalse(engine.records("Bounce", recipient=to))


if __name__ == "__main__":
    case.run("postfix", "dns")
