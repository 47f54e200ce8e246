"""What it costs an application to write to its standard output (OP20): under ours, and under gunicorn, in turns.

    python tests/bench/output.py [lines ...]

A WSGI application prints so many lines, each flushed, in one request, and answers how long that took. Standard error of the server is a file, and a pipe that
is read. Goal: at most twice gunicorn's time, and no line lost.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import IO

APP = """
import time
def application(environ, start_response):
    count = int(environ["PATH_INFO"][1:] or 0)
    begun = time.monotonic()
    for number in range(count):
        print("line", number, "of what an application has to say", flush=True)
    body = b"%.4f" % (time.monotonic() - begun)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
ROUNDS = 3
GOAL = 2.0
MARK = b"of what an application has to say"


def command(server: str, root: Path, port: int) -> list[str]:
    if server == "gunicorn":
        words = ["gunicorn", "--chdir", str(root), "-b", f"127.0.0.1:{port}", "-t", "300", "passenger_wsgi:application"]
        return [sys.executable, "-m", *words]
    words = ["start", str(root), "-p", str(port), "-e", "production", "--instance-dir", str(root / "i")]
    if os.geteuid() == 0:
        words += ["--user", "root"]  # as gunicorn, which runs its application as whoever starts it
    return [sys.executable, "-m", "passenger_trio", *words]


class Reader(threading.Thread):
    """Counts the lines that come out of a pipe."""

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.lines = 0
        self._pipe = pipe

    def run(self) -> None:
        while data := os.read(self._pipe.fileno(), 65536):
            self.lines += data.count(MARK)


@contextmanager
def running(server: str, where: str) -> Iterator[tuple[str, Path, Reader | None]]:
    with tempfile.TemporaryDirectory() as directory, socket.socket() as free:
        root = Path(directory)
        (root / "passenger_wsgi.py").write_text(APP)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        path = root / "log"
        with path.open("wb") as file:
            output = subprocess.PIPE if where == "pipe" else file
            # Standard output and error are one: gunicorn's application writes to the first, ours to the second.
            process = subprocess.Popen(command(server, root, port), stdout=output, stderr=subprocess.STDOUT, cwd=root)
        reader: Reader | None = None
        if process.stdout is not None:
            reader = Reader(process.stdout)
            reader.start()
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url)
            yield url, path, reader
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            if reader is not None:
                reader.join(60)


def _wait(url: str) -> None:
    for _ in range(1200):
        try:
            _ask(url, 0)
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{url} does not answer")


def _ask(url: str, lines: int) -> float:
    with urllib.request.urlopen(f"{url}/{lines}", timeout=300) as response:
        return float(response.read())


def measure(server: str, where: str, lines: int) -> tuple[float, int]:
    """Seconds, and the lines that came out."""
    with running(server, where) as (url, path, reader):
        took = _ask(url, lines)
        if reader is None:
            seen = _count(path)
            while seen < lines and (more := (time.sleep(0.5), _count(path))[1]) > seen:
                seen = more
            return took, seen
    return took, reader.lines


def _count(path: Path) -> int:
    return path.read_bytes().count(MARK)


def main() -> int:
    good = True
    for lines in [int(word) for word in sys.argv[1:]] or [20_000, 200_000]:
        for where in ("file", "pipe"):
            times: dict[str, list[float]] = {"passenger_trio": [], "gunicorn": []}
            lost = 0
            for _ in range(ROUNDS):
                for server, found in times.items():
                    took, seen = measure(server, where, lines)
                    found.append(took)
                    lost += lines - seen
            ours, theirs = median(times["passenger_trio"]), median(times["gunicorn"])
            print(
                f"{lines:7} lines to a {where}: {ours:.2f} s, gunicorn {theirs:.2f} s, ratio {ours / theirs:.2f}, lost {lost}"
            )
            good = good and ours <= GOAL * theirs and not lost
    print("good" if good else "MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
