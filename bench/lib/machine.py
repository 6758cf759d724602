"""What a figure was measured on: the machine, the versions, the disk's own sync time."""

import os
import pathlib
import platform
import re
import subprocess
import time


def first_line(argv):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    return (done.stdout or done.stderr).split("\n")[0].strip()


def describe(directory, program):
    """directory: where queues are kept."""
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    mount = first_line(["findmnt", "-no", "SOURCE,FSTYPE,OPTIONS", "--target", str(directory)])
    return {
        "cpu": cpu.group(1).strip() if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory.group(1)) / 2**20, 1) if memory else None,
        "kernel": platform.release(),
        "queue_file_system": mount,
        "load_at_start": round(os.getloadavg()[0], 2),
        "hayauma": first_line([str(program), "version"]),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def percentile(sorted_values, share):
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


def sync_ms(directory, count=200, pause_s=0.0):
    """Median and 99th percentile of a 4 KiB append with fdatasync, in ms."""
    path = pathlib.Path(directory) / "sync-probe"
    taken = []
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(count):
            start = time.perf_counter()
            os.write(fd, b"x" * 4096)
            os.fdatasync(fd)
            taken.append((time.perf_counter() - start) * 1000)
            time.sleep(pause_s)
    finally:
        os.close(fd)
        path.unlink()
    taken.sort()
    return {"median_ms": round(percentile(taken, 0.5), 3), "p99_ms": round(percentile(taken, 0.99), 3)}
