"""Processes that a test starts, and ends by their pids; addresses to run them on."""

import atexit
import ctypes
import fcntl
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time


class Failure(Exception):
    """What a test waited for did not come."""


class TempDir:
    """A directory on disk that is removed at exit, unless HAYAUMA_KEEP is set."""

    def __init__(self, prefix="hayauma-", parent=None):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self.path.chmod(0o755)  # servers that drop privileges must pass
        self._owner = os.getpid()
        atexit.register(self.close)

    def close(self):
        if os.getpid() != self._owner or not self.path.exists():
            return
        if not os.environ.get("HAYAUMA_KEEP"):
            shutil.rmtree(self.path, ignore_errors=True)


LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1


def die_with_parent():
    """So that a test that is killed, as CTest does after its time, leaves nothing running."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A child process in its own session, with its output in a file."""

    def __init__(self, argv, log, env=None, cwd=None, stdin=subprocess.DEVNULL):
        self.argv = [str(a) for a in argv]
        self.log = pathlib.Path(log)
        with open(self.log, "ab") as out:
            self.child = subprocess.Popen(
                self.argv, stdin=stdin, stdout=out, stderr=out, cwd=cwd,
                env={**os.environ, **(env or {})}, start_new_session=True,
                preexec_fn=die_with_parent)
        self.pid = self.child.pid
        atexit.register(self.kill)

    def running(self):
        return self.child.poll() is None

    def tail(self, lines=30):
        try:
            text = self.log.read_text(errors="replace").splitlines()
        except OSError:
            text = []
        return "\n".join(text[-lines:])

    def send(self, number):
        if self.running():
            self.child.send_signal(number)

    def wait(self, timeout_s=30):
        try:
            return self.child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.argv[0]} still runs after {timeout_s} s:\n{self.tail()}") from None

    def stop(self, timeout_s=30):
        """SIGTERM, then its exit status."""
        self.send(signal.SIGTERM)
        return self.wait(timeout_s)

    def kill(self):
        if self.running():
            self.child.kill()
        self.child.wait()

    def require_running(self):
        if not self.running():
            raise Failure(f"{' '.join(self.argv[:3])} ended with {self.child.returncode}:\n"
                          f"{self.tail()}")


def wait_until(what, condition, timeout_s=30, every_s=0.05, process=None):
    """Calls condition() until it returns something true, and returns that."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if process:
            process.require_running()
        if time.monotonic() > end:
            detail = f":\n{process.tail()}" if process else ""
            raise Failure(f"waited {timeout_s} s for {what}{detail}")
        time.sleep(every_s)


def can_connect(address):
    """address: (host, port) or the path of a Unix socket."""
    family = socket.AF_INET
    if isinstance(address, (str, pathlib.Path)):
        family, address = socket.AF_UNIX, str(address)
    elif ":" in address[0]:
        family = socket.AF_INET6
    with socket.socket(family) as s:
        s.settimeout(5)
        try:
            s.connect(address)
        except OSError:
            return False
        return True


def wait_port(address, process=None, timeout_s=30):
    wait_until(f"a listener on {address}", lambda: can_connect(address), timeout_s, process=process)


_ports = open(pathlib.Path(tempfile.gettempdir(), f"hayauma-ports-{os.getuid()}"), "ab")


def _reserved(port):
    """Whether this process has the port to itself among the tests that run now: two servers of one user
    would both listen on it, and share its clients. A lock on a byte goes with its process."""
    try:
        fcntl.lockf(_ports, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def free_port(hosts=("127.0.0.1",), kinds=(socket.SOCK_STREAM,)):
    """A port that is free on all of hosts now, and below those that the kernel gives to clients: one of
    these could otherwise connect to itself while its server restarts, and keep the port from it."""
    for _ in range(200):
        port = random.randrange(10240, 32000)
        if not _reserved(port):
            continue
        try:
            for host in hosts:
                for kind in kinds:
                    with socket.socket(socket.AF_INET, kind) as s:
                        s.bind((host, port))
            return port
        except OSError:
            continue
    raise Failure(f"no free port on {hosts}")


def process_tree(pid):
    """pid and all its descendants."""
    children = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                stat = pathlib.Path(entry.path, "stat").read_text()
            except OSError:
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, ()))
    return found


def cpu_seconds(pid):
    """CPU time of pid and its descendants, ended ones included as far as their parents waited."""
    ticks = 0
    for member in process_tree(pid):
        try:
            stat = pathlib.Path(f"/proc/{member}/stat").read_text()
        except OSError:
            continue
        ticks += sum(int(field) for field in stat.rpartition(")")[2].split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid):
    """Under ThreadSanitizer a third of it: beside each byte lie several of its own."""
    shadow = 3 if "libtsan" in pathlib.Path(f"/proc/{pid}/maps").read_text() else 1
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 // shadow
    return 0
