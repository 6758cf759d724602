"""Rows of TLS at large: sessions that wait, and strangers' handshakes beside mail."""

import contextlib
import multiprocessing
import signal
import socket
import statistics
import threading
import time

from authority import Authority, careless
from proc import TempDir, free_port, wait_until
from rows import LOCALHOST, SLOW, OwnSink, Row, delivered, engine_on, fill, longest_turns, own_source
from servers import HayaumaRelay


def own_bytes(process):
    """Of memory that is the process's own: pages of the queue's file are the kernel's to take back."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def idle_in(count, chain, key):
    relay = HayaumaRelay(f"{LOCALHOST}:1", {"certificates": [{"chain": str(chain), "key": str(key)}]})
    relay.engine.config["listeners"][0].update({"tls": "implicit", "idle_timeout": "1h", "sessions_max": 2 * count,
                                                "sessions_per_client_max": 2 * count})
    context, clients = careless(), []

    def more(n):
        for _ in range(n):
            client = context.wrap_socket(socket.create_connection((LOCALHOST, relay.engine.port), 30))
            client.recv(512)
            client.sendall(b"EHLO c.example\r\n")
            client.recv(4096)
            clients.append(client)
        time.sleep(1)
        return own_bytes(relay.engine.process)

    relay.start()
    try:
        before = more(50)  # what the first one brings is no session's
        after = more(count)
    finally:
        relay.engine.process.send(signal.SIGKILL)
        relay.engine.process.child.wait()
        for client in clients:
            client.close()
    return {"server": "hayauma", "side": "in", "sessions": count,
            "kib_per_session": round((after - before) / count / 1024, 2)}


def idle_out(count, chain, key):
    """Each has carried mail."""
    temp = TempDir("hayauma-idle-")
    fill(temp.path / "queue", "--recipients", count * 2, "--domains", 200, "--size", 512)
    sink = OwnSink(behaviour=SLOW, more=("--tls-certificate", chain, "--tls-key", key))
    relay = engine_on(temp.path, sink.address, {"destinations": {"*": {
        "tls": "encrypt", "idle": "1h", "sessions_max": 50, "session_messages_max": "none", "pipeline_max": 1}}})
    relay.start()
    engine = relay.engine
    try:
        wait_until("the first ones", lambda: delivered(engine) >= 50, 120, 0.5)
        before = own_bytes(engine.process)
        engine.config["destinations"]["*"]["sessions_max"] = count + 50
        engine.reload()
        wait_until("all mail", lambda: delivered(engine) >= 2 * count, 600, 0.5)
        sessions = engine.status()["gauges"]["sessions_out"]
        after = own_bytes(engine.process)
        sessions -= 50
    finally:
        sink.stop()
        engine.process.send(signal.SIGKILL)
        engine.process.child.wait()
        temp.close()
    return {"server": "hayauma", "side": "out", "sessions": sessions,
            "kib_per_session": round((after - before) / sessions / 1024, 2)}


def tls_idle(scale):
    count = int(10_000 * scale)
    temp = TempDir("hayauma-tls-")
    chain, key = Authority(temp.path).self_signed("mx.example")
    results = [idle_in(count, chain, key), idle_out(count, chain, key)]
    row = Row("sessions of TLS 1.3 that wait: memory that is not the queue's file, beyond the start", results)
    for result in results:
        row.want(f"{result['side']}: KiB of a session", result["kib_per_session"], "<=", 28)
    temp.close()
    return row


# --- strangers ---

def shake(port, per_s, seconds, made):
    """So many handshakes a second, each of a connection of its own, and nothing behind it."""
    context, begin = careless(), time.monotonic()
    for i in range(int(per_s * seconds)):
        time.sleep(max(0, begin + i / per_s - time.monotonic()))
        with contextlib.suppress(OSError):
            with context.wrap_socket(socket.create_connection((LOCALHOST, port), 10)):
                made.value += 1


def plain_session(port):
    """Seconds from the connection to the 250 of a message."""
    begin = time.monotonic()
    with socket.create_connection((LOCALHOST, port), 30) as client:
        lines = client.makefile("rb")
        for said in (b"", b"HELO p.example\r\n", b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<u@p.example>\r\n",
                     b"DATA\r\n", b"Subject: x\r\n\r\nx\r\n.\r\n"):
            client.sendall(said)
            assert lines.readline()[:1] in b"23"
        return time.monotonic() - begin


def strangers_beside_mail(seconds, per_s):
    """So many handshakes a second beside mail at full speed; sessions in plaintext, one after the other."""
    temp = TempDir("hayauma-tls-")
    chain, key = Authority(temp.path).self_signed("mx.example")
    sink, port = OwnSink(), free_port()
    relay = HayaumaRelay(sink.address, {"certificates": [{"chain": str(chain), "key": str(key)}]})
    relay.engine.config["listeners"][0]["tls"] = "none"
    relay.engine.config["listeners"].append({"listen": f"{LOCALHOST}:{port}", "tls": "implicit",
                                             "sessions_per_client_max": 5000})
    relay.start()
    made = [multiprocessing.Value("L", 0) for _ in range(2)]
    strangers = [multiprocessing.Process(target=shake, args=(port, per_s / 2, seconds, one)) for one in made if per_s]
    mail = {}
    source = threading.Thread(target=lambda: mail.update(own_source(relay.address(), duration_s=int(seconds))))
    try:
        source.start()
        for one in strangers:
            one.start()
        end, took = time.monotonic() + seconds, []
        while time.monotonic() < end - 1:
            took.append(plain_session(relay.engine.port))
            time.sleep(0.02)
        source.join()
        for one in strangers:
            one.join()
        status = relay.engine.status()
    finally:
        relay.stop()
        sink.stop()
        temp.close()
    return {"server": "hayauma", "handshakes_per_s": round(sum(v.value for v in made) / seconds),
            "plain_sessions": len(took), "p50_ms": round(statistics.median(took) * 1e3, 1),
            "p99_ms": round(statistics.quantiles(took, n=100)[98] * 1e3, 1), **longest_turns(status),
            "messages_per_s": round(mail.get("messages_per_second", 0))}, relay.settings()


def tls_strangers(scale):
    """Without strangers first: what a session waits for then is the mail's own load, on two cores that the
    mail's source and sink, the strangers' clients and the measuring program use too."""
    seconds = max(5, 20 * scale)
    alone, _ = strangers_beside_mail(seconds, 0)
    result, settings = strangers_beside_mail(seconds, 500)
    row = Row("strangers' TLS handshakes beside mail at full speed", [alone, result], settings=settings)
    row.want("handshakes/s", result["handshakes_per_s"], ">=", 450)
    row.want("p99 of a session in plaintext, to its 250 (ms)", result["p99_ms"], "<=", 50)
    row.want("longest turn, ms of CPU", result["longest_turn_cpu_ms"], "<=", 20)
    return row


ROWS = {"tls-idle": tls_idle, "tls-strangers": tls_strangers}
