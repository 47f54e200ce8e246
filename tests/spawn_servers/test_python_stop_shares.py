"""Fault 20: a worker that is told to stop divides its time. Whatever its handlers do, they are cancelled, the application is shut down, and the exit hooks run."""

from __future__ import annotations

import signal
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from passenger_trio_loader.stopping import MAX_RESERVED, stop_schedule
from python_asgi import LOOPS
from python_asgi import command as asgi_command
from python_wsgi import ROOT
from python_wsgi import command as wsgi_command

from passenger_trio.testing.conformance import FakeSupervisor, Loader, Stream, eventually, frame, request_head

pytestmark = pytest.mark.os
ON_BOTH = pytest.mark.parametrize("loop", LOOPS)
TIMEOUT = 2.0

ASGI = """
import LOOP as loop, asyncio, atexit, os, sys, threading, time
def note(text):
    with open(os.environ["EVENTS"], "a") as file:
        file.write(text + "\\n")
atexit.register(note, "atexit")

async def forever():
    await loop.Event().wait()

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        note("lifespan.shutdown")
        if os.environ.get("HANGS"):
            await forever()
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    try:
        await handle(path, scope, receive, send)
    finally:
        note("ended " + path)

async def handle(path, scope, receive, send):
    kind = path.partition("/gone")[0]
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        note("began " + path)
        while kind == "/ws-push":
            await send({"type": "websocket.send", "text": "x"})
            await loop.sleep(0.02)
        await forever()
    if kind == "/wait":
        note("began " + path)
        await forever()
    if kind == "/blocks":
        note("began " + path)
        time.sleep(600)
    if kind == "/thread":
        note("began " + path)
        if loop is asyncio:
            await loop.get_running_loop().run_in_executor(None, time.sleep, 600)
        else:
            await loop.to_thread.run_sync(time.sleep, 600)
    if kind == "/stubborn":
        note("began " + path)
        while True:
            try:
                await forever()
            except BaseException:
                note("no")
                if loop is not asyncio:
                    time.sleep(0.01)
    content_type = b"text/event-stream" if kind.startswith("/sse") else b"text/plain"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})
    if kind in ("/queue", "/sse-queue"):
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        note("began " + path)
        await forever()
    if kind == "/after":
        await send({"type": "http.response.body", "body": b"x"})
        note("began " + path)
        await forever()
    note("began " + path)
    while True:
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await loop.sleep(0.02)
"""
KINDS = ("/stream", "/queue", "/wait", "/after", "/sse-queue", "/ws-push", "/ws-queue")
WEBSOCKET = {"REQUEST_SCHEME": "ws"}


@contextmanager
def serving(
    root: Path, source: str, *, loop: str = "", env: dict[str, str] | None = None, **options: Any
) -> Iterator[Loader]:
    (root / "app.py").write_text(source.replace("LOOP", loop))
    command, kind = (asgi_command(), "asgi") if loop else (wsgi_command(), "wsgi")
    with FakeSupervisor() as supervisor:
        yield supervisor.start(
            command,
            root,
            "app.py",
            env={"EVENTS": str(root / "events"), **(env or {})},
            **{"app_type": kind, "loop": loop or "asyncio", "threads": 0, "shutdown_timeout": TIMEOUT, **options},
        )


def events(root: Path) -> list[str]:
    path = root / "events"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def begin(worker: Loader, open_streams: ExitStack, path: str) -> Stream:
    stream = open_streams.enter_context(worker.open())
    if path.startswith("/ws"):
        stream.begin("GET", path, fields=WEBSOCKET)
    else:
        stream.begin("GET", path)
    return stream


def begin_upload(worker: Loader, open_streams: ExitStack, path: str) -> None:
    """Its end is never sent."""
    open_streams.enter_context(worker.open()).send(frame("H", request_head("POST", path)), frame("D", b"half"))


@ON_BOTH
def test_every_kind_of_handler_that_never_ends(tmp_path: Path, loop: str) -> None:
    """Fault 20: fourteen kinds in one worker, seven of them with the client present and seven with it gone."""
    with ExitStack() as streams, serving(tmp_path, ASGI, loop=loop) as worker:
        paths = [kind + gone for kind in KINDS for gone in ("", "/gone")]
        opened = {path: begin(worker, streams, path) for path in paths}
        eventually(lambda: len(events(tmp_path)) >= len(paths))
        for path in paths:
            if path.endswith("/gone"):
                opened[path].close()
        worker.shut_down()
        assert worker.exit_status() == 0
        found = events(tmp_path)
        assert found[-2:] == ["lifespan.shutdown", "atexit"]
        assert {line for line in found if line.startswith("ended")} == {"ended " + path for path in paths}
        assert opened["/wait"].response().status == 503
        assert not opened["/queue"].response().complete
        assert "are cancelled" in worker.output.text()


@ON_BOTH
@pytest.mark.parametrize("path", ["/blocks", "/thread", "/stubborn"])
def test_what_cannot_be_cancelled_costs_only_itself(tmp_path: Path, loop: str, path: str) -> None:
    """Fault 20: a handler that blocks the event loop, a thread that it waits for, a handler that refuses: the exit hooks run all the same."""
    with ExitStack() as streams, serving(tmp_path, ASGI, loop=loop) as worker:
        begin(worker, streams, path)
        eventually(lambda: events(tmp_path) == ["began " + path])
        worker.shut_down()
        assert worker.exit_status() == 0
        found = events(tmp_path)
        assert found.count("atexit") == 1
        if path == "/stubborn" or (path, loop) == ("/thread", "asyncio"):
            assert "lifespan.shutdown" in found


@ON_BOTH
def test_a_shutdown_that_hangs_leaves_time_for_the_exit_hooks(tmp_path: Path, loop: str) -> None:
    with serving(tmp_path, ASGI, loop=loop, env={"HANGS": "1"}) as worker:
        worker.shut_down()
        assert worker.exit_status() == 0
        assert events(tmp_path) == ["lifespan.shutdown", "atexit"]


@ON_BOTH
def test_sigterm_says_the_same(tmp_path: Path, loop: str) -> None:
    with ExitStack() as streams, serving(tmp_path, ASGI, loop=loop) as worker:
        begin(worker, streams, "/wait")
        eventually(lambda: events(tmp_path) == ["began /wait"])
        worker.kill(signal.SIGTERM)
        assert worker.exit_status() == 0
        assert events(tmp_path)[1:] == ["ended /wait", "lifespan.shutdown", "atexit"]


@ON_BOTH
def test_a_part_of_a_head_is_not_waited_for(tmp_path: Path, loop: str) -> None:
    with ExitStack() as streams, serving(tmp_path, ASGI, loop=loop) as worker:
        streams.enter_context(worker.open()).send(frame("H", b"x" * 50)[:20])
        worker.shut_down()
        assert worker.exit_status() == 0
        assert events(tmp_path) == ["lifespan.shutdown", "atexit"]


WSGI = """
import atexit, os, threading, time
def note(text):
    with open(os.environ["EVENTS"], "a") as file:
        file.write(text + "\\n")
atexit.register(note, "atexit")

def application(environ, start_response):
    path = environ["PATH_INFO"]
    note("began " + path)
    try:
        if path == "/sleeps":
            time.sleep(600)
        if path == "/computes":
            while True:
                sum(range(1000))
        if path == "/reads":
            environ["wsgi.input"].read()
        if path == "/locks":
            threading.Event().wait()
        start_response("200 OK", [])
        if path == "/streams":
            return streams()
        return [b""]
    finally:
        note("ended " + path)

def streams():
    try:
        while True:
            yield b"x" * 100000
    finally:
        note("closed")
"""
HANGING = ("/sleeps", "/computes", "/reads", "/locks", "/streams")


@pytest.mark.parametrize("path", HANGING)
def test_a_wsgi_handler_in_the_main_thread(tmp_path: Path, path: str) -> None:
    """Fault 20: one thread is the main thread, and a signal interrupts whatever it does."""
    with ExitStack() as streams, serving(tmp_path, WSGI, threads=1) as worker:
        begin_upload(worker, streams, path)
        eventually(lambda: "began " + path in events(tmp_path))
        worker.shut_down()
        assert worker.exit_status() == 0
        assert events(tmp_path) == [
            "began " + path,
            "ended " + path,
            *(["closed"] if path == "/streams" else []),
            "atexit",
        ]


def test_wsgi_handlers_in_threads(tmp_path: Path) -> None:
    """Fault 20, and its limit: in a thread, what computes and what waits for our streams is interrupted; what sleeps in C is not. The exit hooks run."""
    with ExitStack() as streams, serving(tmp_path, WSGI, threads=len(HANGING)) as worker:
        for path in HANGING:
            begin_upload(worker, streams, path)
        eventually(lambda: {"began " + path for path in HANGING} <= set(events(tmp_path)))
        worker.shut_down()
        assert worker.exit_status() == 0
        found = events(tmp_path)
        assert {"ended /computes", "ended /reads", "closed", "atexit"} <= set(found)
        assert found[-1] == "atexit"
        assert found.count("atexit") == 1


def test_a_wsgi_handler_in_a_thread_where_no_descriptor_is_left(tmp_path: Path) -> None:
    """Fault 34: what interrupts threads is loaded before the application is; loaded at the stop it was not to be had."""
    source = WSGI.replace(
        "            while True:\n                sum(range(1000))\n",
        textwrap.indent(
            textwrap.dedent("""
                kept = []
                try:
                    while True:
                        try:
                            kept.append(os.open("/dev/null", os.O_RDONLY))
                        except OSError:
                            pass
                finally:
                    for descriptor in kept:
                        os.close(descriptor)
            """),
            " " * 12,
        ),
    )
    assert source != WSGI
    (tmp_path / "app.py").write_text(source)
    with ExitStack() as streams, FakeSupervisor() as supervisor:
        worker = supervisor.start(
            ("prlimit", "--nofile=64", *wsgi_command()),
            tmp_path,
            "app.py",
            env={"EVENTS": str(tmp_path / "events")},
            app_type="wsgi",
            threads=2,
            shutdown_timeout=TIMEOUT,
        )
        begin_upload(worker, streams, "/computes")
        eventually(lambda: "began /computes" in events(tmp_path))
        worker.shut_down()
        worker.exit_status()
        assert "ended /computes" in events(tmp_path)
        assert "cannot be interrupted" not in worker.output.text()


def test_wsgi_handlers_in_threads_of_our_own(tmp_path: Path) -> None:
    """Fault 20: where gevent has made greenlets of threads and left sockets as they are, the loader has threads of the operating system, and interrupts those."""
    source = "from gevent import monkey; monkey.patch_thread()\n" + WSGI
    with ExitStack() as streams, serving(tmp_path, source, threads=2) as worker:
        begin_upload(worker, streams, "/computes")
        assert eventually(lambda: "began /computes" in events(tmp_path))
        worker.shut_down()
        assert worker.exit_status() == 0
        assert events(tmp_path) == ["began /computes", "ended /computes", "atexit"]
        assert "cannot be interrupted" not in worker.output.text()


def test_a_thread_of_the_application_that_never_ends(tmp_path: Path) -> None:
    """Fault 20: the interpreter would wait for it before it runs the exit hooks."""
    source = WSGI + "threading.Thread(target=time.sleep, args=(600,)).start()\n"
    with serving(tmp_path, source, threads=1) as worker:
        worker.shut_down()
        assert worker.exit_status() == 0
        assert events(tmp_path) == ["atexit"]


def test_a_main_thread_that_comes_back_while_its_exit_hooks_are_run_for_it_does_not_run_them_again(
    tmp_path: Path,
) -> None:
    """Fault 20: a call into C that nothing interrupts (SIGIO, here) ends in the last share, in which another thread runs the hooks."""
    source = WSGI.replace('"atexit")', '"atexit")\natexit.register(time.sleep, 0.8)') + textwrap.dedent("""
        import signal
        def application(environ, start_response):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
            note("began")
            while "first" not in open(os.environ["EVENTS"]).read():
                time.sleep(0.01)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
            start_response("200 OK", [])
            return [b"late"]
        atexit.register(note, "first")
        """)
    with ExitStack() as streams, serving(tmp_path, source, threads=1) as worker:
        begin(worker, streams, "/")
        assert eventually(lambda: events(tmp_path) == ["began"])
        worker.shut_down()
        assert worker.exit_status() == 0
        assert events(tmp_path) == ["began", "first", "atexit"]


@pytest.mark.parametrize("timeout", [0.0, 0.5, 4.0, 10.0, 60.0, 3600.0])
def test_the_shares(timeout: float) -> None:
    """Sessions have half of the time at least; what comes behind them has three equal parts of the rest, 15 s in all at most."""
    cancel, give_up, leave = stop_schedule(timeout)
    assert cancel == max(timeout / 2, timeout - MAX_RESERVED)
    assert give_up - cancel == pytest.approx(leave - give_up) == pytest.approx(timeout - leave)
