"""Applications for real spawners, a spawn_listener that listens, and sessions with what they spawn."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from passenger_trio.codecs.head import Head
from passenger_trio.codecs.session_protocol import encode_request
from passenger_trio.options import AppOptions
from passenger_trio.spawning.app_spec import AppSpec, make_app_spec
from passenger_trio.spawning.detect import detect
from passenger_trio.spawning.spawn_listener import SpawnListener
from passenger_trio.spawning.spawner import LiveProcess

APPS = Path(__file__).resolve().parent.parent / "apps"
FAKE_LOADER = APPS / "loaders" / "fake_loader.py"
HELLO = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""
SOON = 5.0
"""Seconds in which what is to happen soon must have happened."""


def spec_of(root: Path, directory: Path, **options: object) -> AppSpec:
    """The specification of the application in ``root``, with its sockets in ``directory``."""
    app = AppOptions(root=str(root), python=sys.executable, **options)  # type: ignore[arg-type]
    return make_app_spec(app, detect(app), os.environ, str(directory))


def hello_spec(directory: Path, **options: object) -> AppSpec:
    return spec_of(APPS / "python" / "hello", directory, **options)


def command_spec(directory: Path, command: str, **options: object) -> AppSpec:
    """The specification of a program that is started by a shell command; ``{python} {program}`` is the one of the tests."""
    words = {"python": sys.executable, "program": APPS / "generic" / "program.py"}
    app = AppOptions(root=str(APPS / "generic"), app_start_command=command.format(**words), **options)  # type: ignore[arg-type]
    return make_app_spec(app, detect(app), os.environ, str(directory))


def written_spec(root: Path, source: str, directory: Path, **options: object) -> AppSpec:
    """The specification of an application that is written here."""
    root.mkdir(exist_ok=True)
    (root / "passenger_wsgi.py").write_text(source)
    return spec_of(root, directory, **options)


def fake_spec(behaviour: str, directory: Path, **options: object) -> AppSpec:
    """The specification of a loader that does not keep its contract."""
    return attrs.evolve(hello_spec(directory, **options), command=(sys.executable, str(FAKE_LOADER), behaviour))


@asynccontextmanager
async def open_spawn_listener(directory: Path) -> AsyncIterator[SpawnListener]:
    spawn_listener = SpawnListener(str(directory / "spawn.sock"))
    async with trio.open_nursery() as nursery:
        await nursery.start(spawn_listener.serve)
        yield spawn_listener
        nursery.cancel_scope.cancel()


PAIRS = {
    "REQUEST_METHOD": "GET",
    "REQUEST_URI": "/",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/",
    "QUERY_STRING": "",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "REMOTE_ADDR": "127.0.0.1",
    "REMOTE_PORT": "1",
    "REQUEST_SCHEME": "http",
    "HTTP_X_REQUEST_ID": "x",
}


_OF_CONNECTION = ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "REMOTE_PORT", "REQUEST_SCHEME")


def request(path: str = "/") -> bytes:
    pairs = {**PAIRS, "PATH_INFO": path, "REQUEST_URI": path}
    return encode_request("".join(f"{name}\0{value}\0" for name, value in pairs.items()).encode())


async def ask(process: LiveProcess, path: str = "/") -> bytes:
    """The body of the answer to one request, on a stream of its own."""
    stream = process.connect_nowait()
    head = Head(b"GET", path.encode(), path.encode(), b"", b"1.1", b"localhost", [])
    pairs = "".join(f"{name}\0{PAIRS[name]}\0" for name in _OF_CONNECTION).encode()
    try:
        with trio.fail_after(SOON):
            wire, _ = process.worker_protocol.request(
                head, pairs, b"", False, b"HTTP_X_REQUEST_ID\0x\0", b"", True, None
            )
            await stream.send_all(wire)
            answer = b""
            while (whole := process.worker_protocol.read_whole_response(answer, b"GET")) is None:
                data = await stream.recv()
                assert data, "it answers nothing"
                answer += data
        head, body, _ = whole
        assert head.startswith(b"200\0")
        return body
    finally:
        stream.close()


async def wait_exit(process: LiveProcess, seconds: float = SOON) -> int | None:
    """Wait for its end; its status."""
    with trio.fail_after(seconds):
        await process.wait_exit()
    return await process.wait_exit_status()


async def end(*processes: LiveProcess) -> None:
    """End processes and let go of them."""
    for process in processes:
        process.signal_group(signal.SIGKILL)
        await wait_exit(process)
        process.close()
