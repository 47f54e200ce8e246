"""What is read off a running server: its processes, their processor time and memory, its system calls; and the load generator.

A server's processes are its descendants, and whoever holds its listening socket (Passenger's core is no descendant of the program that
was started). Its *own* processes are those that run no application: for ours and for Passenger that is a real question, the peers
whose workers are the application have no such part, and all of theirs are counted.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

Figures = dict[str, Any]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_APPLICATION = (b"loader", b"passenger_trio: ", b"Passenger AppPreloader", b"Passenger RubyApp", b"wsgi-loader")
"""What the command line of a process of ours, or of Passenger's, has in it that runs an application."""

BROWSER_HEADERS = (
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "http://localhost/articles/17?page=2"),
    ("Upgrade-Insecure-Requests", "1"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Priority", "u=0, i"),
    ("Cookie", "session=eyJ1c2VyIjoxNywiY3NyZiI6ImE4NGU2In0.Zx9b2A.kq3; theme=dark; consent=1"),
)


# -- processes ------------------------------------------------------------------------------------------------------


def family(pid: int, port: int) -> list[int]:
    """The process that was started, those that hold the listening socket of ``port``, and the descendants of both."""
    found: list[int] = []
    queue = [pid, *_listeners(port)]
    while queue:
        one = queue.pop()
        if one in found:
            continue
        children = []
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                children += [int(word) for word in (task / "children").read_text().split()]
        except OSError:
            continue  # it has ended
        found.append(one)
        queue += children
    return found


def own(pids: Iterable[int]) -> list[int]:
    """Those that run no application."""
    return [pid for pid in pids if not any(word in command_of(pid) for word in _APPLICATION)]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _listeners(port: int) -> list[int]:
    """Who holds the listening TCP socket of a port. For what is this user's."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
            inodes.add(f"socket:[{fields[9]}]")
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and inodes:
            try:
                if any(os.readlink(link) in inodes for link in (directory / "fd").iterdir()):
                    found.append(int(directory.name))
            except OSError:
                continue
    return found


def started(pid: int) -> float:
    """When a process began, in seconds since the machine did."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]) / _TICKS


def cpu(pids: Iterable[int]) -> float:
    """Seconds of processor time that these have used until now."""
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / _TICKS
    return total


def rss(pids: Iterable[int]) -> int:
    """Bytes."""
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        except OSError:
            continue
    return total


def pss(pids: Iterable[int]) -> int:
    """Bytes; what is shared counts in shares."""
    total = 0
    for pid in pids:
        match = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        assert match is not None
        total += int(match[1]) * 1024
    return total


# -- load -----------------------------------------------------------------------------------------------------------


def wrk(url: str, seconds: float, connections: int = 32, headers: Iterable[tuple[str, str]] = ()) -> tuple[int, float]:
    """(requests, seconds). One thread.

    :raises RuntimeError: a request was not answered with 2xx, or a connection broke.
    """
    words = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}", "--timeout", "20"]
    for name, value in headers:
        words += ["-H", f"{name}: {value}"]
    begun = time.perf_counter()
    out = subprocess.run([*words, url], check=True, capture_output=True, text=True).stdout
    took = time.perf_counter() - begun
    trouble = re.search(r"Non-2xx.*|Socket errors: connect \d+, read (\d+), write \d+, timeout \d+", out)
    match = re.search(r"([0-9]+) requests in", out)
    if match is None or not int(match[1]):
        raise RuntimeError(f"no request was answered\n{out}")
    # A server without keep-alive closes each connection, which wrk may see as an error of reading.
    if trouble and (trouble[1] is None or int(trouble[1]) > int(match[1]) // 100 + 1):
        raise RuntimeError(f"errors under load: {trouble[0]}")
    return int(match[1]), took


def system_calls(pid: int, url: str, seconds: float) -> tuple[float, dict[str, float]]:
    """System calls of one process, all its threads, for each request: (all, by name). ``strace`` slows it, and counts all the same."""
    out = Path(os.environ.get("TMPDIR", "/tmp")) / f"strace.{pid}.{os.getpid()}"
    tracer = subprocess.Popen(
        ["strace", "-c", "-f", "-o", str(out), "-p", str(pid)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        assert tracer.stderr is not None
        tracer.stderr.readline()  # "attached": from now on it counts
        requests, _ = wrk(url, seconds)
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)
        rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", out.read_text(), re.MULTILINE)
    finally:
        if tracer.poll() is None:
            tracer.kill()
            tracer.wait()
        assert tracer.stderr is not None
        tracer.stderr.close()
        out.unlink(missing_ok=True)
    calls = {name: int(count) / requests for count, name in rows if name != "total"}
    # What is under a hundredth is of the clock and not of requests.
    return sum(calls.values()), {name: round(count, 2) for name, count in calls.items() if count >= 0.01}


# -- words ----------------------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Of everything that takes part."""
    found = {
        "kernel": platform.release().partition("-")[0],
        "cores": str(os.cpu_count()),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for package in ("trio", "h11", "wsproto", "gunicorn", "uwsgi", "hypercorn", "uvicorn", "waitress", "flask"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    for name, *words in (
        ("Ruby", "ruby", "-e", "print RUBY_VERSION"),
        ("Phusion Passenger", "passenger", "--version"),
        ("puma", "puma", "--version"),
        ("Rails", "ruby", "-e", "begin; require 'rails'; print Rails.version; rescue LoadError; end"),
    ):
        if shutil.which(words[0]):
            out = subprocess.run(words, capture_output=True, text=True, check=False).stdout
            match = re.search(r"\d+(\.\d+)+", out)
            if match:
                found[name] = match[0]
    return found


def version_of(python: str) -> str:
    """``"PyPy 3.11.11 (7.3.19)"``, ``"CPython 3.11.2"``."""
    code = (
        "import platform, sys; p = getattr(sys, 'pypy_version_info', None); "
        "print(platform.python_implementation(), platform.python_version(), '(%d.%d.%d)' % p[:3] if p else '')"
    )
    out = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    return " ".join(out.split())


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def spread(values: Iterable[float], digits: int = 0) -> str:
    values = list(values)
    return f"{min(values):.{digits}f}-{max(values):.{digits}f}"


def table(title: str, columns: tuple[str, ...], rows: dict[str, tuple[str, ...]]) -> None:
    """Print it: names to the left, everything else to the right."""
    widths = [max(len(column), *(len(row[at]) for row in rows.values())) for at, column in enumerate(columns)]
    first = max(len(title), *map(len, rows))
    print(
        "  ".join([title.ljust(first), *(column.rjust(width) for column, width in zip(columns, widths, strict=True))])
    )
    for name, row in rows.items():
        print("  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(row, widths, strict=True))]))
    sys.stdout.flush()
