"""No descriptor (KE2), and bodies that nobody wants: the server lives, says what it lacks, and is as before when it has it again.

Some of it is real (``prlimit``); in the rest one system call after another fails in the supervisor alone (``failing_calls``).

Starts the command: its limits are the subject.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faces_tools import BEHAVIOURS, write_app
from failing_calls import DESCRIPTORS
from short_server import BODY, METHODS, TWO, failing, is_as_before, kill_one, use_everything

from passenger_trio.errors import PassengerError
from passenger_trio.system.raw_stream import reset_on_close
from passenger_trio.testing import RawClient, Supervisor, eventually

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "storms"))

from storm_tools import limit

pytestmark = pytest.mark.os


@METHODS
def test_KE2_no_call_that_opens_a_descriptor_succeeds(method: str) -> None:
    """Fault 1, by kind of call; then all of them, because the whole system has none."""
    with failing("--spawn-method", method) as (server, calls):
        for kinds, error in (
            (("open", "opendir"), errno.EMFILE),
            (("socket", "pipe2"), errno.EMFILE),
            (("accept4",), errno.EMFILE),
            (("pidfd_open",), errno.EMFILE),
            (DESCRIPTORS, errno.ENFILE),
        ):
            use_everything(server, partial(calls.fail, *kinds, error=error))
            eventually(lambda: calls.failed, what=f"{kinds} fail")
            calls.stop()
            is_as_before(server)
        log = "\n".join(server.log)
        assert "Traceback" not in log
        assert "please report it" not in log


@METHODS
@pytest.mark.slow
def test_KE2_each_call_that_opens_a_descriptor_fails_in_turn(method: str) -> None:
    """From the moment on in which a worker is killed until there is another one. What looks at the processes all the time makes calls, too: here it does so less often."""
    with failing("--spawn-method", method, gauges="0.5") as (server, calls):
        number = spared = 0
        while spared < 3:  # not each round has as many
            seen = len(server.log)
            use_everything(server, partial(calls.fail, *DESCRIPTORS, skip=number, times=1))
            eventually(lambda seen=seen: calls.failed or any("is ready after" in line for line in server.log[seen:]))
            failed = calls.stop()
            is_as_before(server)
            spared += not failed
            number += 1
        assert number > 20
        log = "\n".join(server.log)
        assert "Traceback" not in log
        assert "please report it" not in log


@METHODS
def test_KE2_slow_clients_until_no_descriptor_is_left(method: str) -> None:
    """Fault 1 as it was found: each client holds a socket and a file of 8 MB, more of them come than there is room for, and workers die meanwhile."""
    most_open = 256
    options = ("--spawn-method", method, "--data-buffer-max", "3G")
    with Supervisor.start(BEHAVIOURS, *TWO, *options, prefix=("prlimit", f"--nofile={most_open}")) as server:
        stray = int(server.get("/daemon").text)
        clients = []
        for _ in range(most_open):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(10)
            client.connect(server.address)
            client.sendall(b"GET /big?8 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            clients.append(client)
        most = 0
        for turn in range(4):
            most = max(most, len(server.descriptors()))
            kill_one(server)
            if turn == 1:
                os.kill(stray, signal.SIGKILL)
            # The operator sees it: what clients may hold leaves enough for that.
            status = eventually(lambda: recovered_status(server), 30)
            assert status["connections"]["open"] + len(buffers(server)) <= most_open - 64
            time.sleep(0.5)
        assert most > most_open // 2
        assert server.process.poll() is None
        for client in clients:
            client.close()
        is_as_before(server)
        assert not buffers(server)
        log = "\n".join(server.log)
        assert "Traceback" not in log
        assert "please report it" not in log


def recovered_status(server: Supervisor) -> dict[str, Any]:
    try:
        return server.status()
    except (OSError, PassengerError):
        return {}


def buffers(server: Supervisor) -> list[str]:
    """The files without a name that it has open."""
    return [name for name in server.descriptors() if "(deleted)" in name]


@METHODS
def test_KE2_the_limit_itself_is_lowered_and_raised_again(method: str) -> None:
    """Really no descriptor: what is open stays, and nothing can be opened. Then there is room, and the server is as before."""
    with Supervisor.start(BEHAVIOURS, *TWO, "--spawn-method", method) as server:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        for _ in range(2):
            use_everything(server, lambda: limit(server, "nofile", 8))
            limit(server, "nofile", soft)
            is_as_before(server)
        assert "Traceback" not in "\n".join(server.log)


EVENTS = """
async def app(scope, receive, send):
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b"data: %d\\n\\n" % size, "more_body": True})
    if scope["path"] == "/stream":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    await send({"type": "http.response.body", "body": b"data: end\\n\\n"})
"""


def test_fault_30_event_streams_after_posts_keep_no_bodies(tmp_path: Path) -> None:
    """300 of them kept 59 MiB, and the disk of those that were longer."""
    write_app(tmp_path, EVENTS, "asgi.py")
    with Supervisor.start(tmp_path, "-e", "production", "--max-concurrent-requests-per-process", "400") as server:
        assert server.post("/", BODY).status == 200
        streams: list[RawClient] = []

        def open_streams(count: int, size: int) -> None:
            for _ in range(count):
                client = server.connect()
                client.send(b"POST /stream HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
                client.send(b"x" * size)
                seen = b""
                while b"data: %d" % size not in seen:
                    seen += client.receive()
                streams.append(client)

        open_streams(60, 120_000)
        before = rss(server.pid)
        open_streams(200, 120_000)
        grown = rss(server.pid) - before
        open_streams(5, 1_000_000)
        assert server.status()["buffers"]["disk"] == 0
        assert len(server.status()["groups"][0]["processes"]) == 1
        # A connection in the slow path costs 40 KB; with its body it was 200.
        assert grown < 200 * 90_000, grown
        for client in streams:
            reset_on_close(client.socket)  # or it might still listen
            client.close()
        eventually(lambda: server.group()["processes"][0]["sessions"] == 0)


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
