"""OP15: what a preloader finds in a Python application, what it puts right, and what forked workers have of their own."""

from __future__ import annotations

import os
import socketserver
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from python_wsgi import command

from preloader_ends import check_exit_hooks
from passenger_trio.testing.conformance import FakeSupervisor, Loader, LoaderFailed, eventually

pytestmark = pytest.mark.os

TAIL = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(answer()).encode()]
"""


@contextmanager
def preloader_of(directory: Path, source: str, **options: object) -> Iterator[tuple[FakeSupervisor, Loader]]:
    answer = "" if "def answer" in source else "def answer(): return 'hello'\n"
    (directory / "app.py").write_text(textwrap.dedent(source) + answer + TAIL)
    with FakeSupervisor() as supervisor:
        yield supervisor, supervisor.start(command(preload=True), directory, "app.py", **options)


def kinds(preloader: Loader) -> list[str]:
    return sorted({hazard["kind"] for hazard in preloader.messages[-1]["hazards"]})


HARMLESS = {
    "nothing": "",
    "frameworks": "import django, django.db, flask, fastapi, litestar, quart",
    "NumPy, whose OpenBLAS has threads": "import numpy; numpy.ones((200, 200)) @ numpy.ones((200, 200))",
    "SQLite": "import sqlite3; c = sqlite3.connect('a.db'); c.execute('create table a (b)'); c.commit()",
    "a log file": "import logging; logging.basicConfig(filename='log'); logging.warning('hello')",
    "a pool of threads that has none yet": "from concurrent.futures import ThreadPoolExecutor; e = ThreadPoolExecutor(3)",
    "a pool of threads that has ended": (
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(3) as e: e.submit(int).result()\n"
    ),
    "a thread that is about to end": "import threading, time; threading.Thread(target=time.sleep, args=(0.02,)).start()",
    "a program that has ended": "import subprocess; p = subprocess.Popen(['true'])",
    "an idle event loop": "import asyncio; loop = asyncio.new_event_loop(); asyncio.set_event_loop(loop)",
    "an event loop that has run": "import asyncio; asyncio.run(asyncio.sleep(0))",
    "the resource tracker": (
        "from multiprocessing.shared_memory import SharedMemory\n"
        "s = SharedMemory(create=True, size=10)\ns.close()\ns.unlink()\n"
    ),
    "an exit hook that removes nothing": "import atexit\natexit.register(print, 'bye')\nx = [1]\natexit.register(x.remove, 1)\n",
    "a client that has not connected": "import httpx; client = httpx.Client(timeout=3)",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_no_false_alarm(tmp_path: Path, name: str) -> None:
    """What common frameworks hold when they have been imported keeps nobody from forking."""
    with preloader_of(tmp_path, HARMLESS[name] + "\n") as (supervisor, preloader):
        assert preloader.messages[-1]["hazards"] == []
        assert supervisor.fork(preloader).request().body == b"hello"


HAZARDS = {
    "thread": "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n",
    "socket": "import socket\na = socket.socket()\na.bind(('127.0.0.1', 0))\na.listen()\n",
    "pipe": "import os\nends = os.pipe()\n",
    "epoll": "import select\ne = select.epoll()\n",
    "inotify": "import ctypes\nassert ctypes.CDLL(None).inotify_init1(0o2000000) > 0\n",
    "descriptor": "import ctypes\nassert ctypes.CDLL(None).eventfd(0, 0o2000000) > 0\n",
    "process": "import subprocess\np = subprocess.Popen(['sleep', '600'])\n",
    "exit_hook": "import tempfile\nd = tempfile.TemporaryDirectory(dir='.')\n",
}


@pytest.mark.parametrize("kind", HAZARDS)
def test_what_cannot_be_shared_is_found(tmp_path: Path, kind: str) -> None:
    with preloader_of(tmp_path, HAZARDS[kind]) as (_, preloader):
        assert kinds(preloader) == [kind]


HOOKS = {
    "a function of the library": "atexit.register(shutil.rmtree, 'd')",
    "a partial": "atexit.register(functools.partial(shutil.rmtree, 'd'))",
    "a function": "@atexit.register\ndef clean():\n    shutil.rmtree('d')\n",
    "a lambda": "atexit.register(lambda: [os.unlink(name) for name in os.listdir('d')])",
    "a method": "import pathlib\natexit.register(pathlib.Path('d').rmdir)\n",
    "a process": "import subprocess\np = subprocess.Popen(['true'])\np.wait()\natexit.register(p.terminate)\n",
    "a finalizer": "import weakref\nclass A: pass\na = A()\nweakref.finalize(a, shutil.rmtree, 'd')\n",
}


@pytest.mark.parametrize("name", HOOKS)
def test_exit_hooks_that_remove_something_are_found(tmp_path: Path, name: str) -> None:
    source = f"import atexit, functools, os, shutil\n{HOOKS[name]}\n"
    with preloader_of(tmp_path, source) as (_, preloader):
        assert kinds(preloader) == ["exit_hook"]
    with preloader_of(tmp_path, source + "\natexit.unregister(clean)\n" if "clean" in source else "") as (_, preloader):
        assert kinds(preloader) == [], "one that was taken back"


def test_a_hook_of_each_process_and_one_of_the_preloaders(tmp_path: Path) -> None:
    """Fault 8: a forked worker runs what is its own; what removes something is run once, by the preloader, when its last worker has ended."""
    source = """
        import atexit, os, shutil
        os.mkdir("shared")
        atexit.register(shutil.rmtree, "shared")
        atexit.register(lambda: open("ran", "a").write("%d\\n" % os.getpid()))
    """
    with preloader_of(tmp_path, source) as (supervisor, preloader):
        check_exit_hooks(supervisor, preloader, tmp_path)


def test_the_supervisors_end_is_the_preloaders_and_its_hooks_run(tmp_path: Path) -> None:
    """A preloader that has hooks to run waits for its workers, but no longer than the last second allows."""
    source = "import atexit, os, shutil\nos.mkdir('shared')\natexit.register(shutil.rmtree, 'shared')\n"
    with preloader_of(tmp_path, source) as (supervisor, preloader):
        worker = supervisor.fork(preloader)
        worker.close_control()
        preloader.close_control()
        assert preloader.wait_gone() < 1.0
        assert not (tmp_path / "shared").exists()
    with preloader_of(tmp_path, source) as (supervisor, preloader):
        worker = supervisor.fork(preloader)
        preloader.close_control()
        assert preloader.wait_gone() < 1.0
        assert (tmp_path / "shared").is_dir(), "a worker that lives on uses it"
        assert worker.request().body == b"hello"


def test_a_named_temporary_file_is_its_makers(tmp_path: Path) -> None:
    """Fault 8, its kin: it has no exit hook, but is removed when the object ends, as it does with any process."""
    source = "import tempfile\nf = tempfile.NamedTemporaryFile(dir='.')\ndef answer(): return f.name\n"
    with preloader_of(tmp_path, source) as (supervisor, preloader):
        first, second = supervisor.fork(preloader), supervisor.fork(preloader)
        name = first.request().body.decode()
        first.shut_down()
        first.wait_gone()
        assert os.path.exists(name)
        assert second.request().body.decode() == name


def test_a_worker_that_closes_its_makers_temporary_file_leaves_it(tmp_path: Path) -> None:
    """HO5, fault 8: what a worker itself has made goes when it closes it, and nothing else."""
    source = """
        import os, tempfile
        f = tempfile.NamedTemporaryFile(dir=".")
        def answer():
            f.close()
            own = tempfile.NamedTemporaryFile(dir=".")
            own.close()
            return "%s %d" % (f.name, os.path.exists(own.name))
    """
    with preloader_of(tmp_path, source) as (supervisor, preloader):
        name, own = supervisor.fork(preloader).request().body.decode().split()
        assert os.path.exists(name)
        assert own == "0"


def test_a_temporary_directory_of_the_preloader_outlives_a_worker(tmp_path: Path) -> None:
    """HO5, fault 8: its finalizer is run when a process exits, but by the preloader alone."""
    source = """
        import os, tempfile, weakref
        shared = tempfile.TemporaryDirectory(dir=".")
        weakref.finalize(shared, lambda: open("ran", "a").write("%d\\n" % os.getpid()))
        def answer(): return shared.name
    """
    with preloader_of(tmp_path, source) as (supervisor, preloader):
        first, second = supervisor.fork(preloader), supervisor.fork(preloader)
        name = first.request().body.decode()
        first.shut_down()
        first.wait_gone()
        assert (tmp_path / "ran").read_text().split() == [str(first.pid)], "it has run the finalizers that are its own"
        assert (tmp_path / name).is_dir()
        second.shut_down()
        preloader.shut_down()
        preloader.wait_gone()
        assert not (tmp_path / name).exists()


def test_a_worker_leads_its_group_before_its_preloader_has_seen_to_it(tmp_path: Path) -> None:
    """HO5: here the preloader comes back from the fork when the worker has told of its group."""
    source = """
        import os, time
        from multiprocessing import util
        def tell(_):
            with open("told", "w") as file:
                file.write("%d %d" % (os.getpid(), os.getpgrp()))
            os.rename("told", "group")
        def wait():
            until = time.monotonic() + 30
            while not os.path.exists("group") and time.monotonic() < until:
                time.sleep(0.005)
        util.register_after_fork(util, tell)
        os.register_at_fork(after_in_parent=wait)
    """
    with preloader_of(tmp_path, source) as (supervisor, preloader):
        worker = supervisor.fork(preloader)
        assert (tmp_path / "group").read_text().split() == [str(worker.pid)] * 2


def test_random_numbers_differ(tmp_path: Path) -> None:
    """R44. NumPy's global generator, too, is seeded anew in each forked worker."""
    source = """
        import random, numpy
        random.seed(1)
        numpy.random.seed(1)
        numpy.random.random()
        numbers = []
        def answer(): return "%r %r" % (random.random(), numpy.random.random())
    """
    with preloader_of(tmp_path, source) as (supervisor, preloader):
        drawn = [supervisor.fork(preloader).request().body.split() for _ in range(3)]
        assert len({python for python, _ in drawn}) == 3
        assert len({numpy for _, numpy in drawn}) == 3


def test_a_lock_of_logging_that_was_held_at_the_fork(tmp_path: Path) -> None:
    """A thread that logs while the process is forked: the workers can log all the same."""
    source = """
        import logging, threading, time
        logging.basicConfig(filename="log")
        handler = logging.getLogger().handlers[0]
        def hold():
            handler.acquire()
            time.sleep(600)
        threading.Thread(target=hold, daemon=True).start()
        time.sleep(0.1)
        def answer():
            logging.warning("from a worker")
            return "logged"
    """
    with preloader_of(tmp_path, source) as (supervisor, preloader):
        assert supervisor.fork(preloader).request().body == b"logged"
        assert "from a worker" in (tmp_path / "log").read_text()


def test_each_worker_has_an_event_loop_of_its_own(tmp_path: Path) -> None:
    """A loop that was made at import, and that requests run: it is no hazard, because what it waits with is made anew."""
    source = """
        import asyncio, time
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        async def work():
            await loop.run_in_executor(None, time.sleep, 0.002)
            return "done"
        def answer(): return loop.run_until_complete(work())
    """
    with preloader_of(tmp_path, source) as (supervisor, preloader):
        assert kinds(preloader) == []
        workers = [supervisor.fork(preloader) for _ in range(2)]
        with ThreadPoolExecutor(2) as clients:
            for _ in range(30):
                # With one epoll descriptor for both, each would be woken by what was meant for the other, and sleep on.
                assert list(clients.map(lambda worker: worker.request().body, workers)) == [b"done", b"done"]


# --- databases --------------------------------------------------------------------------------------------------------


class Lines(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.server.connections.append(self)  # type: ignore[attr-defined]
        while line := self.rfile.readline():
            self.wfile.write(line)


class Database(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


SQLALCHEMY = """
    import os, socket, types
    from sqlalchemy import create_engine
    from sqlalchemy.dialects import registry
    from sqlalchemy.engine.default import DefaultDialect

    class Cursor:
        description = [("line", None, None, None, None, None, None)]
        rowcount = 1
        def __init__(self, connection): self.connection = connection
        def execute(self, query, parameters=None):
            self.connection.sock.sendall(query.encode() + b"\\n")
            self.rows = [(self.connection.file.readline().decode().strip(),)]
        def fetchone(self): return self.rows.pop() if self.rows else None
        def fetchall(self): rows, self.rows = self.rows, []; return rows
        def close(self): pass

    class Connection:
        def __init__(self):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(os.environ["DATABASE"])
            self.file = self.sock.makefile("rb")
        def cursor(self): return Cursor(self)
        def commit(self): pass
        def rollback(self): pass
        def close(self):
            self.file.close()
            self.sock.close()

    class Dialect(DefaultDialect):
        name = driver = "lines"
        supports_statement_cache = True
        @classmethod
        def import_dbapi(cls):
            return types.SimpleNamespace(paramstyle="qmark", Error=Exception, connect=lambda *a, **k: Connection())
        def initialize(self, connection): pass

    globals()["Dialect"] = Dialect
    registry.register("lines", __name__, "Dialect")
    engine = create_engine("lines://")
    def ask(what):
        with engine.connect() as connection:
            return connection.exec_driver_sql(what).fetchone()[0]
    assert ask("at import") == "at import"
    def answer(): return ask("row %d" % os.getpid())
"""


def test_connections_of_sqlalchemy_are_closed_before_the_fork(tmp_path: Path) -> None:
    """Fault 6: what waits in a pool is closed; each worker opens a connection of its own."""
    with Database(str(tmp_path / "db"), Lines) as server:
        server.connections = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            with preloader_of(tmp_path, SQLALCHEMY, env={"DATABASE": str(tmp_path / "db")}) as (supervisor, preloader):
                assert preloader.messages[-1]["hazards"] == []
                for worker in [supervisor.fork(preloader) for _ in range(2)]:
                    assert worker.request().body == b"row %d" % worker.pid
                assert len(server.connections) == 3  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


# --- on_event ---------------------------------------------------------------------------------------------------------

EVENTS = """
    import atexit, os, passenger_trio_events
    from passenger_trio_events import on_event
    told = []
    def note(text):
        with open("told", "a") as file:
            file.write("%d %s\\n" % (os.getpid(), text))
    @on_event("starting_worker_process")
    def start(forked):
        note("starting %s" % forked)
    @on_event("stopping_worker_process")
    def stop():
        note("stopping")
    atexit.register(note, "exit")
"""


@pytest.mark.parametrize("how", ["started", "forked", "served"])
def test_events(tmp_path: Path, how: str) -> None:
    """A worker tells of its start, with whether it was forked, before it serves, and of its end before the exit hooks; a preloader of neither."""
    (tmp_path / "app.py").write_text(textwrap.dedent(EVENTS) + "def answer(): return 'hello'\n" + TAIL)
    with FakeSupervisor() as supervisor:
        worker = loader = supervisor.start(command(preload=how != "started"), tmp_path, "app.py")
        if how == "forked":
            worker = supervisor.fork(loader)
        elif how == "served":
            loader.send({"type": "serve"})
            loader.expect("ready")
        assert (tmp_path / "told").read_text() == f"{worker.pid} starting {how == 'forked'}\n"
        assert worker.request().body == b"hello"
        worker.shut_down()
        worker.wait_gone()
        assert (tmp_path / "told").read_text().splitlines()[1:] == [f"{worker.pid} stopping", f"{worker.pid} exit"]


def test_an_event_that_fails(tmp_path: Path) -> None:
    """At the start: a start that failed, explained. At the end: told of, and the exit hooks run."""
    source = (
        EVENTS
        + """
    @on_event("stopping_worker_process")
    def fail():
        raise KeyError("at the end")
    @on_event("starting_worker_process")
    def start(forked):
        if os.path.exists("fail"): raise KeyError("at the start")
    """
    )
    with preloader_of(tmp_path, source) as (supervisor, preloader):
        worker = supervisor.fork(preloader)
        worker.shut_down()
        worker.wait_gone()
        assert "at the end" in worker.output.text()
        assert f"{worker.pid} exit" in (tmp_path / "told").read_text()
        (tmp_path / "fail").touch()
        with pytest.raises(LoaderFailed, match="at the start"):
            supervisor.fork(preloader)


def test_an_event_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(LoaderFailed, match="unknown event 'moon'"):
        with preloader_of(tmp_path, "from passenger_trio_events import on_event\non_event('moon', print)\n"):
            pass


# --- timeouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_a_default_timeout_of_the_application_is_not_ours(tmp_path: Path, threads: int) -> None:
    """Section F: a stream that is idle, and one whose body comes slowly, outlast ``socket.setdefaulttimeout``."""
    (tmp_path / "app.py").write_text(
        "import socket\nsocket.setdefaulttimeout(0.05)\n"
        "def application(environ, start_response):\n"
        "    body = environ['wsgi.input'].read()\n"
        "    start_response('200 OK', [])\n"
        "    return [b'read ', body]\n"
    )
    with FakeSupervisor() as supervisor:
        worker = supervisor.start(command(), tmp_path, "app.py", threads=threads)
        with worker.open() as stream:
            assert stream.request("GET", "/").body == b"read "
            time.sleep(0.2)
            assert stream.request("GET", "/").body == b"read "
            head, body = stream.encode("POST", "/", b"x" * 10)
            stream.send(head)
            time.sleep(0.2)
            stream.send(body)
            assert stream.response().body == b"read " + b"x" * 10
        assert eventually(lambda: worker.request("GET", "/").body == b"read ")
