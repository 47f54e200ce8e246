"""No thread, no process, no memory (KE3): the server lives, does without or waits, and is as before when it has them again.

Some of it is real (``RLIMIT_NPROC`` as another user, ``RLIMIT_AS``); in the rest calls fail in the supervisor alone (``failing_calls``).

Starts the command: faults are injected into its own calls.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest
from faces_tools import BEHAVIOURS, in_threads, write_app
from failing_calls import failing_calls
from needs import needs
from short_server import BODY, METHODS, TWO, failing, is_as_before, use_everything

from passenger_trio.admin.client import fetch
from passenger_trio.errors import PassengerError
from passenger_trio.testing import Supervisor, eventually

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "storms"))

from storm_tools import as_another_user, interpreter_of_another_user, limit

pytestmark = pytest.mark.os


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
            slow.send(b"GET /big?24 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            # It does not read. So it holds its worker, because more is to come than the kernel and the server keep in memory; whoever answers now is the other one, which may be killed.
            eventually(lambda: any(process["sessions"] for process in server.group()["processes"]))
            victim = int(server.get("/pid").text)
            status = server.status()
            assert status["groups"][0]["processes"][0]["memory"] is None
            for resource_name in ("memory", "trace"):
                with pytest.raises(PassengerError, match="refused a thread"):
                    fetch(str(server.ready["admin_socket"]), f"/v1/{resource_name}")
            os.kill(victim, signal.SIGKILL)
            server.send_signal(signal.SIGUSR1)
            is_as_before(server)
            assert not server.access_log()
            for text in ("cannot look at restart.txt", "cannot measure the memory"):
                server.wait_log(text)
            assert calls.stop() > 5
            # What has waited for one goes on.
            server.wait_access_log("GET /pid")
            server.wait_access_log("POST /echo")
            assert len(slow.read_response().body) == 24 * 1024**2
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
            16, lambda _: (server.post("/echo", BODY).body == BODY, len(server.status()["groups"]))
        ):
            assert answer == (True, 1)
        eventually(lambda: any("can't start new thread" in line or "no_thread" in line for line in server.log), 60)
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

        def no_thread_was_had() -> bool:
            """Threads that Trio keeps from before are used first; so it is asked for as many again and again."""
            for answer in in_threads(
                6, lambda _: (server.post("/echo", BODY).body == BODY, len(server.status()["groups"]))
            ):
                assert answer == (True, 1)
            return any("can't start new thread" in line or "no_thread" in line for line in server.log)

        eventually(no_thread_was_had, 60)
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
    """What starts them opens more: a death pipe, probes of ports, /proc/net. By kind of call, and then no process at all."""
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
