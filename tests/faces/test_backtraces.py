"""OP17: what a process is doing, shown by `passenger-trio backtrace`, by a start that times out, and by ``Pool.backtrace``.

Starts the command: the command `backtrace`, and starts that time out, are the subject.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from faces_tools import HELLO, clients, run_command
from needs import needs

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

WSGI = """
import ctypes, threading, time

never = threading.Lock()
never.acquire()


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [{"/": hello, "/lock": wait_for_lock, "/c": compute_in_c}[environ["PATH_INFO"]]()]


def hello():
    return b"hello"


def wait_for_lock():
    never.acquire()


def compute_in_c():
    library = ctypes.PyDLL(None)  # keeps the interpreter's lock
    until = time.monotonic() + 100
    while time.monotonic() < until:  # a signal ends a sleep
        library.sleep(20)
"""
ASGI = """
import asyncio


async def application(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"].endswith("/await"):
        await wait_in_vain()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def wait_in_vain():
    await asyncio.get_running_loop().create_future()
"""
RUBY = """
NEVER = Queue.new
def wait_in_vain = NEVER.pop
def wait_in_a_thread = Thread.new { Thread.current.name = "helper"; wait_in_vain }.join
run ->(env) { wait_in_a_thread if env["PATH_INFO"] == "/lock"; [200, {}, ["hello"]] }
"""
NODE = """
const http = require('http');
function computeForEver() { for (;;) { Math.sqrt(2); } }
http.createServer((request, response) => {
  if (request.url.endsWith('/compute')) computeForEver();
  if (!request.url.endsWith('/await')) response.end('hello');
}).listen(process.env.PORT || 3000);
"""
TRIO = """
import trio
async def application(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"].endswith("/await"):
        await wait_in_vain()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
async def wait_in_vain():
    await trio.sleep_forever()
"""
QUICK = ("--shutdown-timeout", "1")


def app_in(folder: Path, text: str, name: str) -> Path:
    folder.mkdir()
    (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    """Two applications whose requests can hang."""
    home = tmp_path_factory.mktemp("backtraces")
    threads = app_in(home / "threads", WSGI, "wsgi.py")
    tasks = app_in(home / "tasks", ASGI, "asgi.py")
    arguments = (
        "--app",
        f"/tasks={tasks}",
        "--min-instances",
        "2",
        "--spawn-method",
        "smart",
        "--retry",
        "off",
        *QUICK,
    )
    with Supervisor.start(threads, *arguments, env={"BACKTRACE_SECRET": "of the environment"}) as server:
        yield server


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    """Applications of other languages, and of Trio."""
    needs(bool(shutil.which("ruby") and shutil.which("node")), "Ruby and Node.js")
    home = tmp_path_factory.mktemp("others")
    for name, text, file in (("ruby", RUBY, "config.ru"), ("node", NODE, "app.js"), ("trio", TRIO, "asgi.py")):
        app_in(home / name, text, file)
    tables = [f'[[app]]\nroot = "{name}"\nbase_uri = "/{name}"\nretry = "off"\n' for name in ("ruby", "node", "trio")]
    (home / "passenger-trio.toml").write_text("\n".join(tables) + 'loop = "trio"\n')
    with Supervisor.start(home, *QUICK) as server:
        yield server


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/ruby/lock", ["thread helper (sleep)", "wait_in_vain", "main thread", "wait_in_a_thread"]),
        ("/node/compute", ["main thread", "computeForEver"]),
        ("/node/await", ["main thread", "waits for events", "report", "nodejsVersion", "handle: "]),
        ("/trio/await", ["Trio task", "in wait_in_vain", "main thread"]),
    ],
)
def test_a_request_that_hangs_in_another_language(others: Supervisor, path: str, wanted: list[str]) -> None:
    """OP17: all threads of Ruby, in a lock; Node.js while it computes, and its report while it waits; Trio's tasks."""
    with clients(1) as send:
        send(others, path)
        pid = eventually(lambda: pid_with(others, path))
        text = ""

        def shows_all() -> bool:
            nonlocal text
            text = backtrace(others, str(pid))
            return not [word for word in wanted if word not in text]

        try:
            eventually(shows_all, 30)
        except AssertionError:
            raise AssertionError(f"{path}: {text}") from None
        os.kill(pid, signal.SIGKILL)  # its client gets an answer


def backtrace(server: Supervisor, *words: str) -> str:
    done = run_command("backtrace", *words, "--instance", str(server.instance_dir))
    assert done.returncode == 0, done
    assert "of the environment" not in done.stdout
    return done.stdout


def pid_with(server: Supervisor, path: str) -> int:
    """The process that has the request for a path in hand."""
    done = run_command("requests", "--json", "--instance", str(server.instance_dir))
    return next((one["pid"] for one in json.loads(done.stdout)["requests"] if one["path"] == path and one["pid"]), 0)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/lock", ["main thread", "in wait_for_lock", "never.acquire()"]),
        ("/tasks/await", ["asyncio task", "in wait_in_vain", "main thread"]),
        ("/c", ["does not answer", "most recent call first", "in compute_in_c", "as the kernel sees them"]),
    ],
)
def test_a_request_that_hangs(server: Supervisor, path: str, wanted: list[str]) -> None:
    """OP17: in a lock, in an await, and in C code that keeps the interpreter's lock."""
    with clients(1) as send:
        send(server, path)
        pid = eventually(lambda: pid_with(server, path))
        text = eventually(lambda: next((t for t in [backtrace(server, str(pid))] if wanted[1] in t), ""), 60)
        assert text.startswith(f"process {pid} of ")
        assert [word for word in wanted if word not in text] == [], text
        os.kill(pid, signal.SIGKILL)  # its client gets an answer


def test_all_of_an_application_with_its_preloader(server: Supervisor) -> None:
    """OP17: an application's name shows all its processes; what does not exist is refused."""

    def roles() -> list[str]:
        return re.findall(r"^(\w+) \d+ of threads\b", backtrace(server, "threads"), re.MULTILINE)

    eventually(lambda: roles() == ["preloader", "process", "process"], 60)
    assert " of tasks" not in backtrace(server, "threads")
    done = run_command("backtrace", "1", "--instance", str(server.instance_dir))
    assert done.returncode == 1
    assert "no process 1 of an application runs" in done.stderr
    done = run_command("backtrace", "nobody", "--instance", str(server.instance_dir))
    assert done.returncode == 1
    assert "there is no application 'nobody'" in done.stderr


def test_a_start_that_hangs_in_an_import(tmp_path: Path) -> None:
    """OP17: while it hangs, the command shows where; when its time is over, the report of the start does by itself."""
    app = app_in(tmp_path / "slow", f"import deep\n{HELLO}", "wsgi.py")
    (app / "deep.py").write_text("import time\n\n\ndef hang():\n    time.sleep(60)\n\n\nhang()\n")
    server = Supervisor.start(app, "--start-timeout", "15", *QUICK, wait=False)
    with server:
        text = ""

        def look() -> bool:
            nonlocal text
            done = run_command("backtrace", "slow", "--instance", str(server.instance_dir))
            text = done.stdout
            return "in hang" in text

        eventually(look, 40)
        assert 'deep.py", line 5, in hang' in text
        failed = eventually(lambda: [line for line in server.log if "in hang" in line], 40)
        assert "[error " in failed[0]
