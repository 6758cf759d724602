#!/usr/bin/env python3
"""Intake sessions at their edges: ends, reloads, drains, Unix sockets.

intake.py [TEST...]"""

import json
import os
import pathlib
import signal
import socket
import stat
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from engine import Engine, Sink  # noqa: E402
from proc import Failure, TempDir, free_port, wait_until  # noqa: E402
from talk import Client, read_all, run, wait_no_sessions  # noqa: E402

BODY = b"Subject: x\r\n\r\n" + b"y" * 70 + b"\r\n"


def chunked(body):
    return (b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@d.example>\r\nBDAT %d LAST\r\n" % len(body)
            + body)


CHUNKED = chunked(BODY)


def listens(engine):
    try:
        socket.create_connection((engine.host, engine.port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_half_close_gets_every_reply():
    """A client may end its sending side and wait: everything it sent is answered."""
    for count in (1, 500):
        with Engine() as engine, Client(engine) as client:
            client.send(CHUNKED * count + b"QUIT\r\n")
            client.socket.shutdown(socket.SHUT_WR)
            got = read_all(client.socket)
            if got.count(b"queued as") != count or not got.endswith(b"221 2.0.0 bye\r\n"):
                raise Failure(f"{got.count(b'queued as')} of {count}, then {got[-60:]}")


def test_pipelined_transactions_commit_together():
    """A session's next transaction is submitted while its earlier ones commit: fewer commits than
    messages. What is kept of a client that is far ahead is no part of its messages."""
    count = 500
    for body in (BODY, BODY + (b"y" * 70 + b"\r\n") * 30):
        messages = chunked(body) * count
        with Engine() as engine, Client(engine) as client:
            sender = threading.Thread(target=client.send, args=(messages + b"QUIT\r\n",))
            sender.start()
            got = read_all(client.socket)
            sender.join()
            if got.count(b"queued as") != count:
                raise Failure(f"{got.count(b'queued as')} of {count}, then {got[-60:]}")
            commits = engine.status()["queue"]["commits"]
            if commits > count // 2:  # a sanitizer's parser hardly keeps up with the disk
                raise Failure(f"{commits} commits of {count} messages of one session")


def test_replies_stay_in_order_while_messages_commit():
    """Whatever is said behind a message that commits waits for its 250."""
    script = [(CHUNKED, "250 250 Q"), (b"RSET\r\n", "250"), (b"FOO\r\n", "500"),
              (b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<x@@y>\r\nDATA\r\nRSET\r\n", "250 501 554 250"),
              *((CHUNKED.replace(b"d.ex", b"%c.ex" % c), "250 250 Q") for c in b"efghijk"),
              (b"MAIL FROM:<@>\r\n", "501"),
              (b"MAIL FROM:<a@sender.example> SIZE=99999999999\r\n", "552"),
              (b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@d.example>\r\nBDAT 3\r\nabc"
               b"RSET\r\nEHLO again.example\r\n", "250 250 250 250 250"), (b"NOOP\r\n", "250"),
              (b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@d.example>\r\nDATA\r\n", "250 250 354"),
              (BODY + b".\r\n", "Q"), (b"VRFY x\r\n", "252")]
    rounds = 100
    for end, last in ((b"QUIT\r\n", "221"), (b"", "")):
        with Engine({"queue": {"shards": 3}}) as engine, Client(engine) as client:
            client.send(b"".join(text for text, _ in script) * rounds + end)
            client.socket.shutdown(socket.SHUT_WR)
            lines = [line for line in read_all(client.socket).decode().split("\r\n")
                     if line and line[3] == " "]
            wanted = (" ".join(codes for _, codes in script).split() * rounds + last.split())
            found = ["Q" if "queued as" in line else line[:3] for line in lines]
            if found != wanted:
                at = next((i for i, (a, b) in enumerate(zip(found, wanted)) if a != b), len(found))
                raise Failure(f"reply {at} of {len(found)}, {len(wanted)} wanted: {lines[at - 3:at + 3]}, "
                              f"not {wanted[at:at + 3]}")
            ids = [line.split()[-1] for line in lines if "queued as" in line]
            if ids != sorted(ids):  # ids are in the order of the messages
                raise Failure("a 250 was given for another message")
            if engine.status()["counters"]["received_messages"] != len(ids):
                raise Failure("messages and answers differ")


def test_last_word_reaches_a_client_that_talks_on():
    with Engine() as engine:
        for _ in range(5):
            with Client(engine) as client:
                client.send(b"FOO\r\n" * 40 + b"x" * 300000)
                client.socket.shutdown(socket.SHUT_WR)
                got = read_all(client.socket)
                if b"421 4.7.0 too many errors" not in got:
                    raise Failure(f"ended with {got[-80:]}")


def test_who_is_named_twice_gets_one_copy():
    """Local parts by case, domains without; other notices asked for make another recipient."""
    many = [f"u{i}@d.example" for i in range(10000)]
    body = f"X-Hayauma-Not-Before: {int(time.time()) + 3600}\r\n".encode() + BODY
    for to, kept in ((["a@d.example", "a@D.Example"], ["a@d.example"]),
                     (["a@d.example", "A@d.example", "a@e.example", "A@D.EXAMPLE"],
                      ["a@d.example", "A@d.example", "a@e.example"]),
                     (["a@d.example> NOTIFY=NEVER", "a@d.example", "a@D.example> NOTIFY=NEVER"],
                      ["a@d.example", "a@d.example"]),
                     (['"b@c"@d.example', '"b@d"@d.example'], ['"b@c"@d.example', '"b@d"@d.example']),
                     (many + many, many)):
        engine = Engine()
        engine.config["listeners"][0]["recipients_max"] = 50000
        with engine, Client(engine) as client:
            client.send(b"MAIL FROM:<a@sender.example>\r\n" + b"".join(
                f"RCPT TO:<{r}{'' if '>' in r else '>'}\r\n".encode() for r in to)
                + b"BDAT %d LAST\r\n" % len(body) + body + b"QUIT\r\n")
            client.socket.shutdown(socket.SHUT_WR)
            got = read_all(client.socket)
            if got.count(b"250 2.1.5") != len(to):
                raise Failure(f"{got.count(b'250 2.1.5')} of {len(to)} taken: {got[:1000]}")
            listed = json.loads("[" + ",".join(engine.command(
                "queue", "list", "--json", "--limit", 50000).splitlines()) + "]")
            found = sorted(row["recipient"] for row in listed)
            if found != sorted(kept):
                raise Failure(f"{found[:10]} instead of {kept[:10]}")


def test_each_recipient_has_the_lifetime_of_its_destination():
    settings = {"destinations": {"short.example": {"lifetime": "1h"}, "long.example": {"lifetime": "9d"}}}
    wanted = {"a@short.example": 3600, "a@long.example": 9 * 86400, "a@d.example": 3 * 86400}
    for order in (sorted(wanted), sorted(wanted, reverse=True)):
        with Engine(settings) as engine, Client(engine) as client:
            client.expect(client.message(*order), 250)
            found = {r["recipient"]: (r["expires_ms"] - r["created_ms"]) // 1000
                     for r in engine.rows("queue", "list")}
            if found != wanted:
                raise Failure(f"{found} instead of {wanted}")


def test_only_what_needs_smtputf8_asks_for_it():
    """A Japanese domain is A-labels to all, and a header is downgraded; an address that no server without
    SMTPUTF8 could take is refused."""
    ja, label = "日本語.example", "xn--wgv71a119e.example"
    text = "Subject: x\r\n\r\n本文\r\n".encode()
    parts = ("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
             "Content-Description: 本文\r\n\r\nx\r\n--b--\r\n").encode()
    behaviour = TempDir("hayauma-intake-").path / "behaviour.yaml"
    behaviour.write_text("default: {without: [smtputf8, dsn]}\n")
    with Sink(behaviour) as sink, Engine({"dns": sink.dns()}) as engine:
        with Client(engine) as client:
            for mail, rcpt, content in (
                    (f"a@{ja}", f"b@{ja}> NOTIFY=SUCCESS ORCPT=utf-8;b@{ja}", text),
                    ("a@d.example", f"送り先@{ja}>", text), (f"送り主@{ja}", "c@d.example>", text),
                    ("a@d.example", f"head@{ja}>", "Subject: 件名\r\n\r\nx\r\n".encode()),
                    ("a@d.example", f"parts@{ja}>", parts)):
                client.expect(client.command(f"MAIL FROM:<{mail}> SMTPUTF8 BODY=8BITMIME"), 250)
                client.expect(client.command(f"RCPT TO:<{rcpt}"), 250)
                client.expect(client.command("DATA"), 354)
                client.send(content + b".\r\n")
                client.expect(client.reply(), 250)
        bounces = engine.wait_records("Bounce", 3)  # two, and the notice to the sender of one
        delivered = sorted((r["sender"], r["recipient"]) for r in engine.wait_records("Delivery", 5))
        wanted = sorted([(f"a@{label}", f"b@{label}"), ("", f"a@{label}"), ("", "a@d.example"),
                         ("a@d.example", f"head@{label}"), ("a@d.example", f"parts@{label}")])
        if delivered != wanted:
            raise Failure(f"{delivered} instead of {wanted}")
        if any(b["response"]["enhanced_code"] != {"class": 5, "subject": 6, "detail": 7}
               for b in bounces):
            raise Failure(f"bounced otherwise: {bounces}")


def test_received_is_ascii():
    """A client's UTF-8 name is A-labels in Received, since the message may need no SMTPUTF8; what
    is no name is marked."""
    with Engine({"routes": {"*": "[127.0.0.1]:1"}}) as engine:
        for name, wanted in (("日本語.example", "xn--wgv71a119e.example"), ("a.example", "a.example"),
                             ("\u2028.example", "???.example")):
            with Client(engine, hello=name) as client:
                reply = client.expect(client.message("b@d.example"), 250)
            content = engine.command("queue", "export", reply.split()[-1])
            if not content.startswith(f"Received: from {wanted} ("):
                raise Failure(f"{wanted}: {content[:300]}")


def two_listeners(engine):
    """engine with a second listener; both take two sessions."""
    first = {"listen": f"{engine.host}:{engine.port}", "sessions_max": 2}
    second = {"listen": f"{engine.host}:{free_port((engine.host,))}", "sessions_max": 2}
    engine.config["listeners"] = [first, second]
    return [int(listener["listen"].rpartition(":")[2]) for listener in (first, second)]


def test_reload_while_sessions_last():
    """Listeners in another order: the counts of sessions stay with their listeners."""
    engine = Engine({"workers": 2})
    ports = two_listeners(engine)
    with engine:
        wait_no_sessions(engine)
        old = [Client(engine, port=ports[0]) for _ in range(2)]
        engine.config["listeners"].reverse()
        engine.config["host_name"] = "other.example"
        engine.write_config()
        engine.process.send(signal.SIGHUP)
        wait_until("the reload", lambda: "serve.reloaded" in engine.log(), process=engine.process)
        for client in old:
            client.expect(client.message("b@d.example"), 250)
            client.close()
        for port in ports:
            wait_no_sessions(engine)
            new = [Client(engine, port=port) for _ in range(2)]
            with Client(engine, hello=None, port=port) as third:
                third.expect(third.reply(), 421)
            for client in new:
                client.expect(client.message("b@d.example"), 250)
                client.close()


def test_drain_says_goodbye_to_a_busy_session():
    """In a transaction when the drain begins: it is finished, then the client hears 421."""
    with Engine() as engine, Client(engine) as client:
        client.envelope("b@d.example")
        client.expect(client.command("DATA"), 354)
        engine.process.send(signal.SIGTERM)
        wait_until("the drain", lambda: "serve.draining" in engine.log(), process=engine.process)
        time.sleep(0.3)
        client.send(BODY + b".\r\n")
        client.expect(client.reply(), 250)
        client.expect(client.reply(), 421)
        began = time.monotonic()
        engine.stop()
        if time.monotonic() - began > 5:
            raise Failure("the drain waited for an idle session")


def test_drain_sends_clients_elsewhere():
    """Nobody listens any more, and a transaction without content ends at the client's next command."""
    with Engine({"workers": 2}) as engine:
        clients = [Client(engine) for _ in range(3)]
        for client in clients:
            client.expect(client.command("MAIL FROM:<a@sender.example>"), 250)
        for client in clients[1:]:
            client.expect(client.command("RCPT TO:<b@d.example>"), 250)
        clients[2].expect(clients[2].command("DATA"), 354)
        engine.process.send(signal.SIGTERM)
        wait_until("refused connections", lambda: not listens(engine), 5, process=engine.process)
        for client, command in zip(clients, ("RCPT TO:<b@d.example>", "DATA")):
            client.expect(client.command(command), 421)
        clients[2].send(BODY + b".\r\n")
        clients[2].expect(clients[2].reply(), 250)
        clients[2].expect(clients[2].reply(), 421)


def test_unix_socket():
    """A Unix listener takes mail for anywhere, also after a crash that left its file."""
    temp = TempDir("hayauma-unix-")
    path = str(temp.path / "smtp.sock")
    engine = Engine(directory=temp.path / "engine")
    engine.config["listeners"].append({"listen": f"unix:{path}"})
    for _ in range(2):
        engine.start()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(15)
            connection.connect(path)
            connection.sendall(b"EHLO client.example\r\n" + CHUNKED + b"QUIT\r\n")
            got = read_all(connection)
        if b"queued as" not in got:
            raise Failure(f"not taken: {got}")
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if mode != 0o660:
            raise Failure(f"its mode is {mode:o}")
        engine.kill()
    temp.close()


def test_unix_socket_has_the_mode_wanted():
    temp = TempDir("hayauma-unix-")
    path = str(temp.path / "smtp.sock")
    engine = Engine(directory=temp.path / "engine")
    engine.config["listeners"].append({"listen": f"unix:{path}", "mode": "0600"})
    engine.start()
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode != 0o600:
        raise Failure(f"its mode is {mode:o}")
    engine.stop()
    temp.close()


def test_socket_files_go_with_the_engine():
    """Those of listeners and of the control socket, at a stop; not when they are another's by then."""
    temp = TempDir("hayauma-unix-")
    path = str(temp.path / "smtp.sock")
    engine = Engine(directory=temp.path / "engine")
    engine.config["listeners"].append({"listen": f"unix:{path}"})
    paths = (path, engine.config["control_socket"])
    engine.start()
    engine.stop()
    assert not any(map(os.path.exists, paths)), paths
    engine.start()
    for path in paths:
        os.unlink(path)
    others = [socket.socket(socket.AF_UNIX) for _ in paths]
    for other, path in zip(others, paths):
        other.bind(path)
        other.listen()
    engine.stop()
    assert all(map(os.path.exists, paths)), paths
    for other in others:
        other.close()
    temp.close()


if __name__ == "__main__":
    run(globals())
