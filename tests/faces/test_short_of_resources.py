"""No descriptor, no thread, no process, no memory (KE2, KE3): the server lives, says what it lacks, and is as before when it has it again.

Some of it is real (``prlimit``, ``RLIMIT_NPROC``); in the rest one system call after another fails in the supervisor alone (``failing_calls``).
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faces_tools import BEHAVIOURS, in_threads, write_app
from failing_calls import DESCRIPTORS, FailingCalls, failing_calls
from needs import needs

from passenger_trio.admin.client import fetch
from passenger_trio.errors import PassengerError
from passenger_trio.system.sockets import reset_on_close
from passenger_trio.testing import RawClient, Supervisor, eventually

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "storms"))

from storm_tools import as_another_user, interpreter_of_another_user, limit

pytestmark = pytest.mark.os

METHODS = pytest.mark.parametrize("method", ["smart", "direct"])
TWO = ("--min-instances", "2", "--max-pool-size", "2", "-e", "production")
BODY = b"b" * 400_000
"""More than is kept in memory."""


@contextmanager
def failing(*options: str) -> Iterator[tuple[Supervisor, FailingCalls]]:
    """A server whose calls can be made to fail. Its limit on memory is far away, and makes it look at each process's all the time."""
    more = ("--memory-limit", "100G", "--memory-check-interval", "0.1", "--stat-throttle-rate", "0.1")
    with failing_calls() as calls:
        with Supervisor.start(BEHAVIOURS, *TWO, *more, *options, env=calls.environment) as server:
            calls.aim(server)
            try:
                yield server, calls
            finally:
                calls.stop()


def kill_one(server: Supervisor) -> None:
    """A worker, as the kernel sees them: the admin socket may be out of order."""
    family = [(pid, children_of(pid)) for pid in children_of(server.pid)]
    for pid, below in family:
        try:
            if not below and b"sleep" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
                return
        except OSError:
            continue  # it has ended by itself


def use_everything(server: Supervisor, fail: Callable[[], None]) -> None:
    """Each thing that opens a descriptor or takes a thread, once; what comes of it does not matter. A client that is not answered waits for two seconds."""
    stray = int(server.get("/daemon").text)
    fail()
    os.kill(stray, signal.SIGKILL)  # it is the supervisor's by now, and watched by nobody
    kill_one(server)
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
            eventually(lambda: calls.failed)
            calls.stop()
            is_as_before(server)
        log = "\n".join(server.log)
        assert "Traceback" not in log
        assert "please report it" not in log


@METHODS
@pytest.mark.slow
def test_KE2_each_call_that_opens_a_descriptor_fails_in_turn(method: str) -> None:
    with failing("--spawn-method", method) as (server, calls):
        number = 0
        while True:
            use_everything(server, partial(calls.fail, *DESCRIPTORS, skip=number, times=1))
            is_as_before(server)
            if not calls.stop():
                break
            number += 1
        assert number > 20
        log = "\n".join(server.log)
        assert "Traceback" not in log
        assert "please report it" not in log


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
        # A connection in the slow lane costs 40 KB; with its body it was 200.
        assert grown < 200 * 90_000, grown
        for client in streams:
            reset_on_close(client.socket)  # or it might still listen
            client.close()
        eventually(lambda: server.group()["processes"][0]["sessions"] == 0)


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


# -- no thread, no process ----------------------------------------------------------------------------------------


@METHODS
def test_KE3_no_thread_from_the_first_moment_on(method: str) -> None:
    """Fault 2: the gauge, the access log's file, one ``status``, the restart file's poller ended the server. Here each of them, buffers and uploads have no thread."""
    more = ("--memory-limit", "100G", "--memory-check-interval", "0.1", "--stat-throttle-rate", "0.1")
    with failing_calls() as calls:
        calls.fail("thread", error=errno.EAGAIN)
        calls.aim_at_first()
        with Supervisor.start(BEHAVIOURS, *TWO, *more, "--spawn-method", method, env=calls.environment) as server:
            assert server.get("/pid").status == 200
            assert server.post("/echo", BODY).body == BODY  # in memory, and streamed
            slow = server.connect(60)
            slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.send(b"GET /big?3 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            status = server.status()
            assert status["groups"][0]["processes"][0]["memory"] is None
            for resource_name in ("memory", "trace"):
                with pytest.raises(PassengerError, match="no thread"):
                    fetch(str(server.ready["admin_socket"]), f"/v1/{resource_name}")
            kill_one(server)
            server.send_signal(signal.SIGUSR1)
            is_as_before(server)
            assert not server.access_log()
            for text in ("restart.txt is not looked at", "memory of the processes is not measured"):
                server.wait_log(text)
            assert calls.stop() > 5
            # What has waited for one goes on.
            server.wait_access_log("GET /pid")
            server.wait_access_log("POST /echo")
            assert len(slow.read_response().body) == 3 * 1024**2
            slow.close()
            eventually(lambda: server.status()["groups"][0]["processes"][0]["memory"])
            assert fetch(str(server.ready["admin_socket"]), "/v1/memory")["supervisor"]["rss"] > 0
            assert "please report it" not in "\n".join(server.log)


@METHODS
@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOMEM], ids=["EAGAIN", "ENOMEM"])
def test_KE3_F35_no_process_can_be_made(method: str, error: int) -> None:
    """By fork and Popen (a hook is one, too); who is there serves on, and the dead are replaced as soon as it can be."""
    hook = "process_exited=/bin/true"
    with failing("--spawn-method", method, "--hook", hook) as (server, calls):
        calls.fail("fork", "thread", error=error)
        if method == "smart":
            os.kill(server.preloader_pid or 0, signal.SIGKILL)
        first = server.pids[0]
        os.kill(first, signal.SIGKILL)
        eventually(lambda: calls.failed)
        server.wait_log("cannot be started")
        for _ in range(5):
            assert server.get("/pid").status == 200
        calls.stop()
        is_as_before(server)
        assert "please report it" not in "\n".join(server.log)


def test_KE3_another_user_at_his_limit_on_processes() -> None:
    """Really: RLIMIT_NPROC, which does not bind root. The limit is as low as it can be for the pool, then lower; requests, uploads and the operator are answered all the time."""
    python = interpreter_of_another_user()
    needs(bool(python), "root, which becomes another user by setpriv, and a Python that he may start")
    options = (
        *TWO,
        "--python",
        python,
        "--spawn-method",
        "direct",
        "--memory-limit",
        "100G",
        "--memory-check-interval",
        "0.1",
    )
    with Supervisor.start(BEHAVIOURS, *options, prefix=as_another_user()) as server:
        limit(server, "nproc", 1)
        victim, other = server.pids
        os.kill(victim, signal.SIGKILL)
        server.wait_log("cannot be started", timeout=30)
        assert server.get("/pid").text == str(other)
        # More at a time than there are threads that rest.
        for answer in in_threads(
            6, lambda _: (server.post("/echo", BODY).body == BODY, len(server.status()["groups"]))
        ):
            assert answer == (True, 1)
        server.wait_log("can't start new thread")
        limit(server, "nproc", 1000)
        is_as_before(server)
        assert "please report it" not in "\n".join(server.log)


@METHODS
def test_KE3_memory_is_short(method: str) -> None:
    """Really ENOMEM: there is room for what a request needs, and none for the stack of a thread. (Where the interpreter gets none for its own small things, no Python program lives on.)"""
    with Supervisor.start(
        BEHAVIOURS, *TWO, "--spawn-method", method, prefix=("prlimit", f"--stack={256 * 1024**2}")
    ) as server:
        size = int(Path(f"/proc/{server.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        use_everything(server, lambda: limit(server, "as", size + 48 * 1024**2))
        for answer in in_threads(
            6, lambda _: (server.post("/echo", BODY).body == BODY, len(server.status()["groups"]))
        ):
            assert answer == (True, 1)
        eventually(lambda: any("can't start new thread" in line or "no_thread" in line for line in server.log))
        limit(server, "as", "unlimited")
        is_as_before(server)
        assert "please report it" not in "\n".join(server.log)


GENERIC = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"%d" % os.getpid()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def test_KE2_KE3_programs_that_serve_http(tmp_path: Path) -> None:
    """What starts them opens more: a lifeline, probes of ports, /proc/net. By kind of call, and then no process at all."""
    write_app(tmp_path, GENERIC, "program.py")
    words = ("--app-start-command", f"exec {sys.executable} program.py", "--max-pool-size", "1", "-e", "production")
    with failing_calls() as calls:
        with Supervisor.start(tmp_path, *words, env=calls.environment) as server:
            calls.aim(server)

            def serves() -> int:
                try:
                    answer = server.get("/")
                except OSError:
                    return 0
                return int(answer.text) if answer.status == 200 else 0

            pid = serves()
            for kinds, error in (
                (("open", "opendir"), errno.EMFILE),
                (("socket",), errno.EMFILE),
                (("pipe2", "pidfd_open"), errno.EMFILE),
                (("fork",), errno.EAGAIN),
            ):
                calls.fail(*kinds, error=error)
                os.kill(pid, signal.SIGKILL)
                eventually(lambda: calls.failed)
                time.sleep(0.5)
                calls.stop()
                old, pid = pid, eventually(serves, 60)
                assert old != pid
            assert server.process.poll() is None
            assert "please report it" not in "\n".join(server.log)
