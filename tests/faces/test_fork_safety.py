"""OP15: an application is forked only if that is safe; what it holds is put right, or found and told of. Real servers, real applications.

Starts the command: its preloader, and which spawn method it chooses, are the subject.
"""

from __future__ import annotations

import os
import shutil
import socketserver
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from faces_tools import APPS, run_command, write_app
from needs import needs

from passenger_trio.testing import Supervisor
from passenger_trio.testing.harness import eventually, is_running

pytestmark = pytest.mark.os

ANSWER = """
import os
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer(environ["PATH_INFO"]).encode()]
"""


class Lines(socketserver.StreamRequestHandler):
    """A database: a line is asked, and a moment later the same line is the answer."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            time.sleep(0.002)
            self.wfile.write(line)


class Database(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def database() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="pt-db-") as directory:
        path = os.path.join(directory, "db")
        with Database(path, Lines) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield path
            finally:
                server.shutdown()
                thread.join()


def answers(server: Supervisor, count: int = 100) -> list[tuple[int, str]]:
    """(the row that was asked for, what came), several at a time."""
    with ThreadPoolExecutor(6) as clients:
        bodies = clients.map(lambda number: server.get(f"/row/{number}").body.decode(), range(count))
        return list(enumerate(bodies))


def wrong(found: list[tuple[int, str]]) -> list[tuple[int, str]]:
    return [(number, body) for number, body in found if not body.startswith(f"row {number} in ")]


def spawn_method(server: Supervisor) -> tuple[str, list[str]]:
    """What is used, and the kinds of what was found."""
    method = server.group()["spawn_method"]
    return method["used"], sorted({hazard["kind"] for hazard in method["hazards"]})


THREE = ("--min-instances", "3", "--max-pool-size", "3")


def test_no_answer_of_django_is_another_visitors() -> None:
    """Fault 6: a query in ``AppConfig.ready`` leaves a connection. It is closed before the fork, and each process has one of its own."""
    with database() as path, Supervisor.start(APPS / "django_database", *THREE, "--env", f"DATABASE={path}") as server:
        found = answers(server)
        assert wrong(found) == []
        assert len({body.rpartition(" ")[2] for _, body in found}) > 1, "one process served all"
        assert spawn_method(server) == ("smart", [])
        assert server.preloader_pid is not None


SOCKET = (
    """
import socket
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.environ["DATABASE"])
file = connection.makefile("rb")
def answer(path):
    connection.sendall(b"row " + path.rpartition("/")[2].encode() + b"\\n")
    return "%s in %d" % (file.readline().decode().strip(), os.getpid())
"""
    + ANSWER
)


def test_no_answer_on_a_plain_socket_is_another_visitors(tmp_path: Path) -> None:
    """Fault 6: a socket that was opened while the application was loaded cannot be put right: every process has loaded it anew."""
    write_app(tmp_path, "import os\n" + SOCKET)
    with database() as path, Supervisor.start(tmp_path, *THREE, "--env", f"DATABASE={path}") as server:
        found = answers(server)
        assert wrong(found) == []
        assert len({body.rpartition(" ")[2] for _, body in found}) > 1, "one process served all"
        assert spawn_method(server) == ("direct", ["socket"])
        assert server.preloader_pid is None
        line = server.wait_log("is not safe to fork")
        for words in ("a Unix connection to", "each other's answers", "on_event", "--spawn-method smart"):
            assert words in line


TICKING = (
    """
import os
from apscheduler.schedulers.background import BackgroundScheduler
with open("loads", "a") as loads:
    loads.write("%d\\n" % os.getpid())
ticks = []
scheduler = BackgroundScheduler()
scheduler.add_job(lambda: ticks.append(1), "interval", seconds=0.05)
scheduler.start()
def answer(path):
    return "%d %d" % (os.getpid(), len(ticks))
"""
    + ANSWER
)


def test_a_scheduler_that_is_started_at_import_ticks(tmp_path: Path) -> None:
    """Fault 7: it ticks in every process, ``status`` and the log say why none is forked, and nothing is loaded twice."""
    write_app(tmp_path, TICKING)
    with Supervisor.start(tmp_path, *THREE) as server:
        ticks: dict[str, int] = {}

        def all_tick() -> bool:
            for _ in range(6):
                pid, count = server.get("/").body.decode().split()
                ticks[pid] = int(count)
            return len(ticks) == 3 and all(count > 2 for count in ticks.values())

        with ThreadPoolExecutor(3) as clients:  # the processes take turns only if they are busy
            eventually(lambda: all(list(clients.map(lambda _: all_tick(), range(3)))), 30)
        assert spawn_method(server) == ("direct", ["thread"])
        assert sorted((tmp_path / "loads").read_text().split()) == sorted(ticks), "it was loaded by another"
        assert "APScheduler" in server.wait_log("is not safe to fork")
        assert len([line for line in server.log if "is not safe to fork" in line]) == 1
        status = run_command("status", str(server.instance_dir)).stdout
        assert "direct (auto); not safe to fork: the thread APScheduler" in status


def test_a_restart_looks_again(tmp_path: Path) -> None:
    """A verdict is for one version of the code."""
    write_app(tmp_path, TICKING)
    with Supervisor.start(tmp_path) as server:
        assert spawn_method(server) == ("direct", ["thread"])
        write_app(tmp_path, "def answer(path): return 'forked'\n" + ANSWER)
        done = run_command("restart", "--wait", "--instance", str(server.instance_dir))
        assert done.returncode == 0, done.stderr
        assert server.get("/").body == b"forked"
        assert spawn_method(server) == ("smart", [])
        assert server.preloader_pid is not None


def test_smart_warns_and_forks(tmp_path: Path) -> None:
    """Explicit ``smart`` forks whatever was found, and says what."""
    write_app(tmp_path, TICKING)
    with Supervisor.start(tmp_path, "--spawn-method", "smart") as server:
        assert server.get("/").body.split()[0] != b"%d" % (server.preloader_pid or 0)
        assert spawn_method(server) == ("smart", ["thread"])
        line = server.wait_log("although that is not safe")
        assert "APScheduler" in line
        assert "--spawn-method auto" in line


def test_direct_asks_nothing(tmp_path: Path) -> None:
    write_app(tmp_path, TICKING)
    with Supervisor.start(tmp_path, "--spawn-method", "direct") as server:
        assert spawn_method(server) == ("direct", [])
        assert not [line for line in server.log if "safe" in line]


# --- fault 8: exit hooks ----------------------------------------------------------------------------------------------

KEEPING = {
    "TemporaryDirectory": "import tempfile\nkept = tempfile.TemporaryDirectory()\nname = kept.name\n",
    "rmtree": "import atexit, shutil, tempfile\nname = tempfile.mkdtemp()\natexit.register(shutil.rmtree, name)\n",
    "function": (
        "import atexit, shutil, tempfile\nname = tempfile.mkdtemp()\n"
        "@atexit.register\ndef clean():\n    shutil.rmtree(name)\n"
    ),
    "Process": (
        "import multiprocessing, time\n"
        "kept = multiprocessing.Process(target=time.sleep, args=(600,), daemon=True)\nkept.start()\nname = str(kept.pid)\n"
    ),
}


def there(name: str) -> bool:
    return is_running(int(name)) if name.isdecimal() else os.path.isdir(name)


def kept_things(server: Supervisor, count: int) -> dict[int, str]:
    """Pid -> what that process uses, of so many processes."""
    found: dict[int, str] = {}

    def one(_: int) -> None:
        pid, name = server.get("/").body.decode().split()
        found[int(pid)] = name

    def all_of_them() -> bool:
        with ThreadPoolExecutor(4) as clients:
            list(clients.map(one, range(8)))
        return len(found) >= count

    eventually(all_of_them, 30)
    return found


@pytest.mark.parametrize("method", ["auto", "smart"])
@pytest.mark.parametrize("kind", KEEPING)
def test_exit_hooks_run_once_and_in_the_right_process(tmp_path: Path, kind: str, method: str) -> None:
    """Fault 8: what was made at import survives a worker's retirement, and the preloader's, for those that use it; at the end nothing is left."""
    slow = "def answer(path):\n    time.sleep(0.02)\n    return '%d %s' % (os.getpid(), name)\n"
    write_app(tmp_path, f"import os, time\n{KEEPING[kind]}{slow}{ANSWER}")
    options = ("--min-instances", "2", "--max-pool-size", "2", "--max-preloader-idle-time", "200ms")
    with Supervisor.start(tmp_path, "--spawn-method", method, *options) as server:
        before = kept_things(server, 2)
        names = set(before.values())
        assert len(names) == (2 if method == "auto" else 1)
        assert all(map(there, names))
        retired, *others = before
        os.kill(retired, 15)
        eventually(lambda: not is_running(retired))
        eventually(lambda: len(server.pids) == 2)
        for pid in others:
            assert there(before[pid]), "a sibling lost what it uses"
        if method == "auto":
            eventually(lambda: not there(before[retired]), what="its own is removed with it")
        names |= set(kept_things(server, 1).values())
    eventually(lambda: not any(map(there, names)), what="what is left at the end")


@pytest.mark.parametrize("method", ["auto", "smart"])
def test_what_ruby_makes_at_its_start_survives_a_retirement(tmp_path: Path, method: str) -> None:
    """Fault 8, for Ruby: ``mktmpdir`` with ``at_exit``."""
    needs(shutil.which("ruby") is not None, "Ruby")
    (tmp_path / "config.ru").write_text(
        "require 'tmpdir'\nrequire 'fileutils'\nDIR = Dir.mktmpdir(nil, Dir.pwd)\nat_exit { FileUtils.remove_entry(DIR) }\n"
        "run ->(_) { sleep 0.02; [200, { 'content-type' => 'text/plain' }, [\"#{Process.pid} #{DIR}\"]] }\n"
    )
    options = ("--min-instances", "2", "--max-pool-size", "2", "--max-preloader-idle-time", "200ms")
    with Supervisor.start(tmp_path, "--spawn-method", method, *options) as server:
        before = kept_things(server, 2)
        names = set(before.values())
        assert len(names) == (2 if method == "auto" else 1)
        retired, *others = before
        os.kill(retired, 15)
        eventually(lambda: not is_running(retired))
        assert all(there(before[pid]) for pid in others), "a sibling lost what it uses"
        assert there(before[retired]) == (method == "smart")
        eventually(lambda: len(server.pids) == 2)
        names |= set(kept_things(server, 1).values())
    eventually(lambda: not any(map(there, names)), what="what is left at the end")


def test_an_asgi_application_with_a_thread(tmp_path: Path) -> None:
    """Fault 7, on an event loop: the preloader goes on as a process whose lifespan is run, and the thread with it."""
    source = """
import os, threading, time
ticks = []
def tick():
    while True:
        ticks.append(1)
        time.sleep(0.01)
threading.Thread(target=tick, daemon=True).start()
started = []
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        started.append(os.getpid())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return await send({"type": "lifespan.shutdown.complete"})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d %d %s" % (os.getpid(), len(ticks), repr(started).encode())})
"""
    write_app(tmp_path, source, "passenger_asgi.py")
    with Supervisor.start(tmp_path, "--min-instances", "2") as server:
        assert spawn_method(server) == ("direct", ["thread"])
        pid = server.get("/").body.split()[0].decode()
        assert pid.isdecimal()
        assert server.get("/").body.split()[2] in (b"[%d]" % number for number in server.pids)
        eventually(lambda: int(server.get("/").body.split()[1]) > 5)
        assert len(server.pids) == 2
