"""ASGI sessions beyond the contract: the scope, the order of messages, what a client that leaves means, and tasks of the application's own."""

from __future__ import annotations

import json
import socket
import struct
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from python_asgi import LOOPS, command

from passenger_trio.testing.conformance import FakeSupervisor, Loader, eventually, frame, request_head

pytestmark = pytest.mark.os
ON_BOTH = pytest.mark.parametrize("loop", LOOPS)

PREAMBLE = """
import asyncio, contextvars, os, sys

IS_TRIO = "trio" in sys.modules
if IS_TRIO:
    import trio

sleep = trio.sleep if IS_TRIO else asyncio.sleep

def note(text):
    with open(os.environ["NOTES"], "a") as file:
        file.write(text + "\\n")

async def begin(send, **more):
    await send({"type": "http.response.start", "status": 200, **more})

async def chunk(send, body=b"", more_body=True):
    await send({"type": "http.response.body", "body": body, "more_body": more_body})

async def answer(send, body):
    await begin(send)
    await chunk(send, body, False)

async def application(scope, receive, send):
    if scope["type"] != "lifespan":
        await serve(scope, receive, send)
"""


@contextmanager
def serving(root: Path, serve: str, loop: str = "asyncio", **options: Any) -> Iterator[Loader]:
    """A worker whose application is ``serve(scope, receive, send)``."""
    (root / "app.py").write_text(PREAMBLE + textwrap.dedent(serve))
    with FakeSupervisor() as supervisor:
        env = {"NOTES": str(root / "notes")}
        yield supervisor.start(
            command(), root, "app.py", env=env, loop=loop, **{"app_type": "asgi", "threads": 10, **options}
        )


def noted(root: Path, text: str) -> bool:
    return eventually(lambda: (root / "notes").exists() and text in (root / "notes").read_text())


SHOW_SCOPE = """
import json
async def serve(scope, receive, send):
    await answer(send, json.dumps(scope, default=lambda value: value.decode("latin-1")).encode())
"""


@ON_BOTH
def test_the_scope_of_a_request(tmp_path: Path, loop: str) -> None:
    fields = {
        "SCRIPT_NAME": "/gr\xc3\xb6\xc3\x9fe",
        "PATH_INFO": "/a%20b%2Fc/%e2%82%ac%",
        "REQUEST_URI": "/gr%C3%B6%C3%9Fe/a%20b%2Fc/%e2%82%ac%?x=%20y",
        "QUERY_STRING": "x=%20y",
        "CONTENT_TYPE": "text/plain",
        "HTTP_X_CUSTOM": "a\xe9b",
        "HTTP_COOKIE": "a=1; b=2",
        "SERVER_PROTOCOL": "HTTP/1.0",
        "REQUEST_SCHEME": "https",
        "REMOTE_ADDR": "",
        "REMOTE_PORT": "",
    }
    with serving(tmp_path, SHOW_SCOPE, loop) as worker:
        scope = json.loads(worker.request("PUT", "/", fields=fields).body)
    headers = {tuple(header) for header in scope.pop("headers")}
    assert headers >= {
        ("content-type", "text/plain"),
        ("x-custom", "a\xe9b"),
        ("cookie", "a=1; b=2"),
        ("host", "example.test"),
    }
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.0",
        "method": "PUT",
        "scheme": "https",
        "path": "/größe/a b/c/€%",
        "raw_path": "/gr%C3%B6%C3%9Fe/a%20b%2Fc/%e2%82%ac%",
        "query_string": "x=%20y",
        "root_path": "/größe",
        "client": None,
        "server": ["example.test", 80],
        "state": {},
        "extensions": {"http.response.early_hint": {}},
    }


def test_the_raw_path_of_an_absolute_target(tmp_path: Path) -> None:
    fields = {"REQUEST_URI": "http://example.test/b%C3%A4/x%20y", "SCRIPT_NAME": "/b\xc3\xa4", "PATH_INFO": "/x%20y"}
    with serving(tmp_path, SHOW_SCOPE) as worker:
        assert json.loads(worker.request(fields=fields).body)["raw_path"] == "/b%C3%A4/x%20y"


@ON_BOTH
def test_early_hints(tmp_path: Path, loop: str) -> None:
    """Behind the start of the response, which is sent with its first body; behind that they come too late."""
    serve = """
        async def serve(scope, receive, send):
            hint = {"type": "http.response.early_hint", "links": [b"</a>; rel=preload", b"</b>; rel=preload"]}
            await begin(send)
            await send(hint)
            await chunk(send, b"one")
            await send(hint)
            await chunk(send, b"two", False)
        """
    with serving(tmp_path, serve, loop) as worker:
        response = worker.request()
        assert "".join(kind for kind, _ in response.frames) == "IRDDE"
        assert response.frames[0][1] == (b"103\0Early Hints\0link\0</a>; rel=preload\0link\0</b>; rel=preload\0")


@ON_BOTH
@pytest.mark.parametrize(
    ("serve", "error"),
    [
        ("await chunk(send, b'x')", "before the start of the response"),
        ("await begin(send); await begin(send)", "was sent twice"),
        ("await send({'type': 'http.response.start', 'status': 99})", "not the status of a response: 99"),
        ("await begin(send, headers=[('a', 'b')])", "must be bytes, not str"),
        ("await begin(send, headers=[(b'', b'b')])", "an empty name"),
        ("await begin(send, headers=[(b'a', b'b\\0c')])", "a byte that HTTP cannot carry"),
        ("await begin(send, headers=[(b'a', b'x' * 200000)])", "longer than"),
        ("await begin(send, headers=5)", "must be a list of names and values, not int"),
        ("await begin(send, headers=[b'abc'])", "must be a name and a value"),
        ("await begin(send); await chunk(send, 'text')", "the body must be bytes, not str"),
        ("await send({'type': 'websocket.accept'})", "cannot be sent in an HTTP session"),
        ("await send({})", "type"),
        ("pass", "returned without sending a whole response"),
    ],
)
def test_mistakes_are_the_applications_errors(tmp_path: Path, loop: str, serve: str, error: str) -> None:
    with serving(tmp_path, f"async def serve(scope, receive, send):\n    {serve}\n", loop) as worker:
        with worker.open() as stream:
            for _ in range(2):
                response = stream.request()
                assert response.error is not None
                assert error in response.error[1]
                assert response.complete
        assert worker.output.wait_for(error)


@ON_BOTH
@pytest.mark.parametrize(
    ("headers", "method", "complete", "frames"),
    [
        ("[]", "GET", True, "RE"),
        ("[(b'content-length', b'0')]", "GET", True, "RE"),
        ("[(b'content-length', b'5')]", "GET", False, "R"),
        ("[(b'content-length', b'5')]", "HEAD", True, "RE"),
        ("[]", "HEAD", True, "RE"),
    ],
)
def test_a_head_alone_is_a_response(
    tmp_path: Path, loop: str, headers: str, method: str, complete: bool, frames: str
) -> None:
    """Fault 27, ED10: the application returns behind ``http.response.start``. The client gets that."""
    serve = f"async def serve(scope, receive, send):\n    await begin(send, headers={headers})\n"
    with serving(tmp_path, serve, loop) as worker, worker.open() as stream:
        response = stream.request(method)
        assert (response.status, response.complete) == (200, complete)
        assert "".join(kind for kind, _ in response.frames) == frames
        if complete:
            assert stream.request(method).status == 200


@ON_BOTH
def test_a_response_that_is_not_finished_is_incomplete(tmp_path: Path, loop: str) -> None:
    serve = "async def serve(scope, receive, send):\n    await begin(send)\n    await chunk(send, b'one')\n"
    with serving(tmp_path, serve, loop) as worker:
        response = worker.request()
        assert (response.body, response.complete) == (b"one", False)
        assert worker.output.wait_for("returned without sending a whole response")


@ON_BOTH
def test_what_is_sent_behind_a_whole_response_is_ignored(tmp_path: Path, loop: str) -> None:
    serve = """
        async def serve(scope, receive, send):
            await answer(send, b"whole")
            await chunk(send, b"more")
            await begin(send)
            note((await receive())["type"])
        """
    with serving(tmp_path, serve, loop) as worker, worker.open() as stream:
        assert stream.request().body == b"whole"
        assert stream.request().body == b"whole"
        assert noted(tmp_path, "http.disconnect\nhttp.disconnect\n")
        assert "raceback" not in worker.output.text()


@ON_BOTH
def test_an_error_behind_a_whole_response_is_in_the_log(tmp_path: Path, loop: str) -> None:
    serve = "async def serve(scope, receive, send):\n    await answer(send, b'whole')\n    {}['background']\n"
    with serving(tmp_path, serve, loop) as worker, worker.open() as stream:
        assert stream.request().complete
        assert worker.output.wait_for("KeyError: 'background'")
        assert stream.request().complete


@ON_BOTH
@pytest.mark.parametrize("how", ["abort", "end of file", "closed"])
def test_a_client_that_leaves_is_noticed_while_nothing_is_sent(tmp_path: Path, loop: str, how: str) -> None:
    """On asyncio ``receive`` says so; on Trio the application is cancelled."""
    serve = """
        async def serve(scope, receive, send):
            try:
                await begin(send)
                await chunk(send, b"one")
                await receive()
                if IS_TRIO:
                    await trio.sleep_forever()
                event = await receive()
                for _ in range(3):
                    await chunk(send, b"nobody has this")
                note(event["type"])
            except BaseException as error:
                note(type(error).__name__)
                raise
        """
    with serving(tmp_path, serve, loop, threads=1) as worker:
        with worker.open() as stream:
            stream.begin()
            assert stream.next_frame() is not None
            assert stream.next_frame() == ("D", b"one")
            if how == "abort":
                stream.send(frame("A"))
                assert stream.next_frame() == ("E", b"\1")
            elif how == "end of file":
                stream.socket.shutdown(socket.SHUT_WR)
                while stream.next_frame() is not None:
                    pass
        assert noted(tmp_path, "Cancelled" if loop == "trio" else "http.disconnect")
        worker.shut_down()
        assert worker.exit_status() == 0
        assert "raceback" not in worker.output.text()


@ON_BOTH
def test_a_client_that_leaves_in_the_middle_of_an_upload_that_nobody_reads(tmp_path: Path, loop: str) -> None:
    """The stream is full, and is not read any more: its end is seen all the same."""
    serve = """
        async def serve(scope, receive, send):
            note("begun")
            try:
                while IS_TRIO or not os.path.exists(os.environ["NOTES"] + ".gate"):
                    await sleep(0.002)
                note((await receive())["type"])
            except BaseException as error:
                note(type(error).__name__)
                raise
        """
    with serving(tmp_path, serve, loop) as worker, worker.open() as stream:
        stream.send(frame("H", request_head("POST", "/")))
        stream.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            stream.send(*[frame("D", b"x" * 10_000)] * 1000)
        assert noted(tmp_path, "begun")
        stream.socket.shutdown(socket.SHUT_WR)
        if loop == "asyncio":
            (tmp_path / "notes.gate").touch()
        assert noted(tmp_path, "Cancelled" if loop == "trio" else "http.disconnect")


def test_who_goes_on_sending_to_nobody_is_stopped(tmp_path: Path) -> None:
    """Dropping is what the specification wants; but such an application would never end."""
    serve = """
        sys.modules["passenger_trio_loader.asgi.session"].SEND_TO_GONE_TIME = 0.05
        async def serve(scope, receive, send):
            await begin(send)
            try:
                while True:
                    await chunk(send, b"x")
            except OSError as error:
                note(type(error).__name__)
                raise
        """
    with serving(tmp_path, serve) as worker:
        with worker.open() as stream:
            stream.begin()
            assert stream.next_frame() is not None
        assert noted(tmp_path, "ConnectionAbortedError")
        worker.shut_down()
        assert worker.exit_status() == 0
        assert "raceback" not in worker.output.text()


@ON_BOTH
def test_a_send_that_is_cancelled_tears_no_frame(tmp_path: Path, loop: str) -> None:
    serve = """
        async def impatient(call):
            if IS_TRIO:
                with trio.move_on_after(0.02) as scope:
                    await call
                return scope.cancelled_caught
            try:
                await asyncio.wait_for(call, 0.02)
            except asyncio.TimeoutError:
                return True

        async def serve(scope, receive, send):
            await begin(send)
            note(str(await impatient(chunk(send, b"x" * 20_000_000))))
            await chunk(send, b"the end", False)
        """
    with serving(tmp_path, serve, loop) as worker, worker.open() as stream:
        stream.begin()
        assert noted(tmp_path, "True")
        response = stream.response()
        assert response.complete
        assert response.body == b"x" * 20_000_000 + b"the end"
        assert stream.socket.fileno() >= 0


@ON_BOTH
def test_messages_of_several_tasks_do_not_mix(tmp_path: Path, loop: str) -> None:
    serve = """
        async def serve(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})

            async def talk(number):
                for _ in range(20):
                    await send({"type": "websocket.send", "bytes": bytes((number,)) * 100_000})

            if IS_TRIO:
                async with trio.open_nursery() as nursery:
                    for number in range(5):
                        nursery.start_soon(talk, number)
            else:
                await asyncio.gather(*[talk(number) for number in range(5)])
        """
    with serving(tmp_path, serve, loop) as worker, worker.open() as stream:
        stream.begin("GET", "/", fields={"REQUEST_SCHEME": "ws"})
        assert stream.next_frame() == ("W", b"")
        counts = dict.fromkeys(range(5), 0)
        for _ in range(100):
            found = stream.next_frame()
            assert found is not None
            kind, data = found
            assert kind == "B"
            assert data == data[:1] * 100_000
            counts[data[0]] += 1
        assert set(counts.values()) == {20}
        assert stream.next_frame() == ("C", struct.pack(">H", 1000))


@ON_BOTH
def test_sessions_see_nothing_of_each_others_context(tmp_path: Path, loop: str) -> None:
    """Also where a session has made its stream to be read again."""
    serve = """
        user = contextvars.ContextVar("user", default="nobody")
        async def serve(scope, receive, send):
            before = user.get()
            user.set("somebody")
            size = 0
            while True:
                event = await receive()
                size += len(event["body"])
                await sleep(0)
                if not event["more_body"]:
                    break
            await answer(send, b"%s %d" % (before.encode(), size))
        """
    with serving(tmp_path, serve, loop, threads=1) as worker, worker.open() as stream:
        for size in (0, 1_000_000, 0, 1_000_000):
            assert stream.request("POST", "/", b"x" * size).body == b"nobody %d" % size
        stream.close()
        # The listener, too: the worker takes one stream at a time.
        assert worker.request().body == b"nobody 0"


def test_an_exit_in_a_task_of_the_applications_own_does_not_end_the_worker(tmp_path: Path) -> None:
    serve = """
        async def leave():
            sys.exit(7)
        async def serve(scope, receive, send):
            task = asyncio.ensure_future(leave())
            await sleep(0.01)
            await answer(send, b"still here")
        """
    with serving(tmp_path, serve) as worker:
        assert worker.request().body == b"still here"
        assert worker.request().body == b"still here"
        assert worker.output.wait_for("SystemExit: 7")


def test_signals_are_heard_although_an_event_loop_runs(tmp_path: Path) -> None:
    """An application that takes signals through its event loop takes the wake-up descriptor with them."""
    serve = """
        import signal
        async def serve(scope, receive, send):
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, note, "usr1")
            os.kill(os.getpid(), signal.SIGUSR1)
            await answer(send, b"taken")
        """
    with serving(tmp_path, serve) as worker:
        assert worker.request().body == b"taken"
        assert noted(tmp_path, "usr1")
        worker.kill(15)
        assert worker.exit_status() == 0


def test_what_the_application_has_left_running_is_cancelled_at_the_end(tmp_path: Path) -> None:
    serve = """
        tasks = []
        async def linger():
            try:
                await asyncio.sleep(60)
            finally:
                note("cancelled")
        async def serve(scope, receive, send):
            tasks.append(asyncio.ensure_future(linger()))
            await sleep(0)
            await answer(send, b"")
        """
    with serving(tmp_path, serve) as worker:
        assert worker.request().complete
        worker.shut_down()
        assert worker.exit_status() == 0
        assert (tmp_path / "notes").read_text() == "cancelled\n"


def test_a_websocket_application_on_trio_that_only_sends_ends_with_its_client(tmp_path: Path) -> None:
    serve = """
        async def serve(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            try:
                while True:
                    await send({"type": "websocket.send", "text": "tick"})
                    await trio.sleep(0.001)
            finally:
                note("ended")
        """
    with serving(tmp_path, serve, "trio") as worker, worker.open() as stream:
        stream.begin("GET", "/", fields={"REQUEST_SCHEME": "ws"})
        assert stream.next_frame() == ("W", b"")
        assert stream.next_frame() == ("T", b"tick")
        stream.send(frame("C"))
        while (found := stream.next_frame()) == ("T", b"tick"):
            pass
        assert found == ("E", b"")
        assert noted(tmp_path, "ended")
        assert stream.socket.fileno() >= 0


@ON_BOTH
def test_a_websocket_that_is_accepted_before_its_request_has_ended(tmp_path: Path, loop: str) -> None:
    serve = """
        async def serve(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": (await receive())["text"]})
        """
    with serving(tmp_path, serve, loop) as worker, worker.open() as stream:
        stream.send(frame("H", request_head("GET", "/", {"REQUEST_SCHEME": "ws"})))
        assert stream.next_frame() == ("W", b"")
        stream.send(frame("E"), frame("T", b"hello"))
        assert stream.next_frame() == ("T", b"hello")


@ON_BOTH
def test_a_worker_that_its_supervisor_has_left_ends_without_a_word(tmp_path: Path, loop: str) -> None:
    """Tasks, threads and streams in the middle of something are no news then."""
    serve = """
        import atexit, threading, time
        atexit.register(print, "the hooks were run")
        async def serve(scope, receive, send):
            await begin(send)
            await chunk(send, b"one")
            if IS_TRIO:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep, 60)
                    nursery.start_soon(receive)
                    nursery.start_soon(trio.to_thread.run_sync, time.sleep, 0.1)
            else:
                task = asyncio.ensure_future(asyncio.sleep(60))
                loop = asyncio.get_running_loop()
                await asyncio.gather(task, receive(), receive(), loop.run_in_executor(None, time.sleep, 0.1))
        """
    with serving(tmp_path, serve, loop) as worker:
        streams = [worker.open() for _ in range(5)]
        for stream in streams:
            stream.begin()
            assert stream.next_frame() is not None
            assert stream.next_frame() == ("D", b"one")
        worker.close_control()
        assert worker.wait_gone() < 1.0
        assert worker.output.wait_for("the hooks were run")
        assert worker.output.text() == "the hooks were run\n"
        for stream in streams:
            stream.close()


@ON_BOTH
def test_any_number_of_sessions(tmp_path: Path, loop: str) -> None:
    """``threads`` 0: nobody waits in the listen queue."""
    serve = """
        async def serve(scope, receive, send):
            await begin(send)
            await chunk(send, b"one")
            await receive()
            await receive()
        """
    with serving(tmp_path, serve, loop, threads=0) as worker:
        assert worker.messages[-1]["sockets"][0]["concurrency"] == 0
        streams = [worker.open() for _ in range(150)]
        for stream in streams:
            stream.begin()
        for stream in streams:
            assert stream.next_frame() is not None
            assert stream.next_frame() == ("D", b"one")
            stream.close()
        worker.shut_down()
        assert worker.exit_status() == 0
