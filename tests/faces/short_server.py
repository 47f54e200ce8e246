"""What the tests of a server that is short of something share: a server whose calls fail, everything that a server does once, and how one knows that it is as before."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faces_tools import BEHAVIOURS
from failing_calls import FailingCalls, failing_calls

from passenger_trio.errors import PassengerError
from passenger_trio.testing import Supervisor, eventually

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "storms"))


__all__ = [
    "BODY",
    "METHODS",
    "TWO",
    "children_of",
    "failing",
    "is_as_before",
    "kill_one",
    "recovered",
    "use_everything",
]

METHODS = pytest.mark.parametrize("method", ["smart", "direct"])
TWO = ("--min-instances", "2", "--max-pool-size", "2", "-e", "production")
BODY = b"b" * 400_000
"""More than is kept in memory."""


@contextmanager
def failing(*options: str, gauges: str = "0.1") -> Iterator[tuple[Supervisor, FailingCalls]]:
    """A server whose calls can be made to fail. Its limit on memory is far away, and makes it look at each process's all the time.

    :param gauges: seconds between two looks.
    """
    more = ("--memory-limit", "100G", "--memory-check-interval", gauges, "--stat-throttle-rate", "0.1")
    with failing_calls() as calls:
        with Supervisor.start(BEHAVIOURS, *TWO, *more, *options, env=calls.environment) as server:
            calls.aim(server)
            try:
                yield server, calls
            finally:
                calls.stop()


def kill_one(server: Supervisor) -> None:
    """A worker, as the kernel sees them: the admin socket may be out of order."""
    for pid in children_of(server.pid):
        try:
            if (
                b"loader" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ):  # not the shell that watches over the server, nor a stray
                os.kill(next(iter(children_of(pid)), pid), signal.SIGKILL)  # a fork, rather than its preloader
                return
        except OSError:
            continue  # it has ended by itself


def use_everything(server: Supervisor, fail: Callable[[], None]) -> None:
    """Each thing that opens a descriptor or takes a thread, once; what comes of it does not matter. A client that is not answered waits for two seconds.

    The worker that is killed has served a request to its end. Of one that has not, its group would say that it does not start, and wait longer each time.
    """
    eventually(lambda: not server.group()["restarting"])  # nobody replaces a worker that was on its way out
    stray = int(server.get("/daemon").text)
    victim = int(server.get("/pid").text)
    eventually(lambda: served(server, victim))
    fail()
    os.kill(stray, signal.SIGKILL)  # it is the supervisor's by now, and watched by nobody
    os.kill(victim, signal.SIGKILL)
    server.send_signal(signal.SIGUSR1)
    for method, path, body in (("GET", "/pid", b""), ("POST", "/echo", BODY)):
        try:
            with server.connect(2) as client:
                client.request(method, path, body=body)
        except (OSError, AssertionError):
            continue
    slow = server.connect(2)
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.send(b"GET /big?3 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    try:
        server.status()
    except (OSError, PassengerError):
        pass
    time.sleep(0.1)
    slow.close()


def served(server: Supervisor, pid: int) -> bool:
    """Whether a worker has served a session to its end."""
    return any(process["pid"] == pid and process["processed"] for process in server.group()["processes"])


def is_as_before(server: Supervisor) -> None:
    """It lives; and it serves, starts processes and answers its operator."""
    assert server.process.poll() is None, server.log_tail
    eventually(lambda: server.process.poll() is not None or recovered(server), 45, "it is as before")
    assert server.process.poll() is None, server.log_tail


def recovered(server: Supervisor) -> bool:
    try:
        return (
            len(server.pids) == 2
            and server.get("/pid").status == 200
            and server.post("/echo", BODY).body == BODY
            and server.status()["buffers"]["disk"] == 0
        )
    except (OSError, PassengerError):
        return False


def children_of(pid: int) -> set[int]:
    """Of the whole family, as the kernel sees it."""
    found: set[int] = set()
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found |= {child, *children_of(child)}
    except OSError:
        pass  # it has ended by itself
    return found
