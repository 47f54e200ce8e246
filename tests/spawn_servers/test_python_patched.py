"""Applications that replace what the loader stands on: gevent and eventlet patch sockets, threads, ``fork`` and ``waitpid`` while they are loaded.

Fault 9: whatever a loader needs after the application was loaded is bound before, and what such an application serves it serves as it is meant to.
"""

from __future__ import annotations

import textwrap
import threading
from pathlib import Path

import pytest
from python_asgi import command as asgi_command
from python_wsgi import command

from passenger_trio.testing.conformance import FakeSupervisor, Loader, eventually

pytestmark = pytest.mark.os

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    # Its resolver imports whatever HTTP client is installed, and that may import Trio, which cannot be imported behind the patch.
    "eventlet": "import os; os.environ['EVENTLET_NO_GREENDNS'] = 'yes'; "
    "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()",
    "threads only": "from gevent import monkey; monkey.patch_thread()",
    "nothing": "",
}
APP = """
{patch}
import os, threading, time
ticks = []
def tick():
    while True:
        time.sleep(0.01)
        ticks.append(1)
together = 0
most = 0
def application(environ, start_response):
    global together, most
    path = environ["PATH_INFO"]
    if path == "/together":
        together += 1
        most = max(most, together)
        until = time.monotonic() + 20
        while most < 2 and time.monotonic() < until:
            time.sleep(0.005)
        together -= 1
        body = b"%d" % most
    elif path == "/start":
        threading.Thread(target=tick, daemon=True).start()
        body = b"started"
    elif path == "/ticks":
        body = b"%d" % len(ticks)
    elif path == "/large":
        body = b"x" * 3000000
    elif path == "/echo":
        body = environ["wsgi.input"].read()
    else:
        body = b"hello"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture(params=PATCHES)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(textwrap.dedent(APP).format(patch=PATCHES[request.param]))
    return tmp_path


def at_once(worker: Loader, path: str, count: int) -> list[bytes]:
    bodies: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: bodies.append(worker.request("GET", path).body), daemon=True)
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return bodies


@pytest.mark.parametrize("preloaded", [False, True], ids=["started", "forked"])
def test_several_threads_serve_at_the_same_time(root: Path, preloaded: bool) -> None:
    """Fault 9: with two threads, two requests are in the application at once, streams that wait hold nobody up, and it stops."""
    with FakeSupervisor() as supervisor:
        loader = supervisor.start(command(preload=preloaded), root, "app.py", threads=2)
        worker = supervisor.fork(loader) if preloaded else loader
        assert at_once(worker, "/together", 2) == [b"2", b"2"]
        with worker.open() as idle:
            assert idle.request("GET", "/hello").body == b"hello"
            assert worker.request("GET", "/large").body == b"x" * 3000000
            assert worker.request("POST", "/echo", b"y" * 500000).body == b"y" * 500000
            worker.shut_down()
            assert worker.wait_gone() < 10
            assert idle.ended()
    assert "Traceback" not in worker.output.text()


@pytest.mark.parametrize("root", ["gevent", "eventlet", "nothing"], indirect=True)
def test_one_thread_lets_background_work_run(root: Path) -> None:
    """A greenlet, or thread, that a request started runs while the worker waits, for a head and for a connection."""
    with FakeSupervisor() as supervisor:
        worker = supervisor.start(command(), root, "app.py")
        assert worker.request("GET", "/start").body == b"started"
        assert eventually(lambda: int(worker.request("GET", "/ticks").body) > 5)
        worker.shut_down()
        assert worker.wait_gone() < 10


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_what_runs_since_the_import(tmp_path: Path, library: str) -> None:
    """OP15: gevent's hub is made anew in each process, with its greenlets, which are memory. In a new hub of eventlet's what waits would be lost."""
    source = textwrap.dedent(APP).format(patch=PATCHES[library])
    source += f"import {library}\n{library}.spawn(tick)\n{library}.sleep(0.02)\n"
    (tmp_path / "app.py").write_text(source)
    with FakeSupervisor() as supervisor:
        preloader = supervisor.start(command(preload=True), tmp_path, "app.py")
        hazards = [hazard["kind"] for hazard in preloader.messages[-1]["hazards"]]
        assert hazards == ([] if library == "gevent" else ["epoll"])
        if library == "eventlet":
            return
        for worker in [supervisor.fork(preloader) for _ in range(2)]:
            before = int(worker.request("GET", "/ticks").body)
            assert eventually(lambda worker=worker, before=before: int(worker.request("GET", "/ticks").body) > before)
            assert at_once(worker, "/large", 2) == [b"x" * 3000000] * 2


@pytest.mark.parametrize("root", ["gevent", "eventlet"], indirect=True)
def test_the_preloader_reaps(root: Path) -> None:
    """Fault 9: ``os.waitpid`` is the kernel's own, so no zombie is left, and every exit is told."""
    with FakeSupervisor() as supervisor:
        preloader = supervisor.start(command(preload=True), root, "app.py")
        for _ in range(3):
            worker = supervisor.fork(preloader)
            assert worker.request().body == b"hello"
            worker.shut_down()
            exited = preloader.expect("child_exited", 10)
            assert (exited["pid"], exited["status"]) == (worker.pid, 0)
            assert not Path(f"/proc/{worker.pid}").exists()


@pytest.mark.parametrize("root", ["gevent", "eventlet"], indirect=True)
@pytest.mark.parametrize("preloaded", [False, True], ids=["started", "forked"])
def test_the_supervisors_end_is_the_workers(root: Path, preloaded: bool) -> None:
    """Gone within a second, as any other worker."""
    with FakeSupervisor() as supervisor:
        loader = supervisor.start(command(preload=preloaded), root, "app.py", threads=2)
        worker = supervisor.fork(loader) if preloaded else loader
        with worker.open() as stream:
            assert stream.request("GET", "/hello").body == b"hello"
            worker.close_control()
            assert worker.wait_gone() < 1.0


def test_an_error_is_told_where_no_descriptor_is_left(tmp_path: Path) -> None:
    """Fault 34: what is needed to report an error was loaded before: 500 and a traceback in the log, no silent 502."""
    (tmp_path / "app.py").write_text(
        textwrap.dedent("""
            import os
            kept = []
            def application(environ, start_response):
                try:
                    while True:
                        kept.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    pass
                raise RuntimeError("nothing is left")
        """)
    )
    with FakeSupervisor() as supervisor:
        worker = supervisor.start(("prlimit", "--nofile=64", *command()), tmp_path, "app.py")
        with worker.open() as stream:
            response = stream.request("GET", "/hello")
        assert response.error is not None
        assert response.error[:2] == ("RuntimeError", "nothing is left")
        assert worker.output.wait_for("RuntimeError: nothing is left")


@pytest.mark.parametrize("how", ["asgi", "forked", "guessed to be wsgi"])
def test_an_ASGI_application_that_gevent_has_patched(tmp_path: Path, how: str) -> None:
    """Fault 9, its kin: gevent takes ``epoll`` out of ``select``, and the ASGI loader looked it up when it served; where WSGI was guessed it is itself imported then."""
    (tmp_path / "app.py").write_text(
        textwrap.dedent("""
            from gevent import monkey; monkey.patch_all()
            async def application(scope, receive, send):
                assert scope["type"] == "http"
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"hello"})
        """)
    )
    with FakeSupervisor() as supervisor:
        interface = {"app_type": "wsgi", "guessed": True} if "wsgi" in how else {"app_type": "asgi"}
        make = command if "wsgi" in how else asgi_command
        loader = supervisor.start(make(preload=how == "forked"), tmp_path, "app.py", **interface)
        worker = supervisor.fork(loader) if how == "forked" else loader
        with worker.open() as stream:
            assert stream.request("GET", "/hello").body == b"hello"
        worker.shut_down()
        worker.wait_gone()
