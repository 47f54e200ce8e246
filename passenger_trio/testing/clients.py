"""Clients of a live application: HTTP by httpx2 (or httpx), WebSockets by trio-websocket.

httpx2 comes first because it is the one that is maintained: httpx has had no release since 2024, and Starlette's own
TestClient has moved to it. Both have the same names.
"""

from __future__ import annotations

import functools
import importlib
import queue
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any, TypeVar

import trio

__all__ = [
    "MissingClient",
    "WebSocket",
    "WebSockets",
    "async_client",
    "http_client",
    "httpx_module",
    "open_websocket",
    "over_unix_socket",
]

_TIME = 30.0
_WAIT = 10.0

T = TypeVar("T")


class MissingClient(ImportError):
    """A client is not installed. The text names the extra."""


def _module(*names: str) -> ModuleType:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingClient(f"{names[0]} is not installed: pip install 'passenger-trio[testing]'")


def httpx_module() -> ModuleType:
    """httpx2, or httpx if only that is installed.

    :raises MissingClient: neither is.
    """
    return _module("httpx2", "httpx")


def over_unix_socket(address: str | tuple[str, int]) -> dict[str, Any]:
    """What a transport of httpx is made with.

    A transport reads the certificates of all authorities when it is made, which takes longer than all else that a test with one request does (TH3).
    On a Unix socket nobody speaks TLS.
    """
    return {"uds": address, "verify": _trusts_nobody()} if isinstance(address, str) else {}


@functools.cache
def _trusts_nobody() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def http_client(address: str | tuple[str, int], url: str, **options: Any) -> Any:
    """:raises MissingClient: neither httpx2 nor httpx is installed."""
    httpx = httpx_module()
    transport = httpx.HTTPTransport(**over_unix_socket(address))
    return httpx.Client(**{"transport": transport, "base_url": url, "timeout": _TIME, **options})


def async_client(address: str | tuple[str, int], url: str, **options: Any) -> Any:
    """:raises MissingClient: neither httpx2 nor httpx is installed."""
    httpx = httpx_module()
    transport = httpx.AsyncHTTPTransport(**over_unix_socket(address))
    return httpx.AsyncClient(**{"transport": transport, "base_url": url, "timeout": _TIME, **options})


@asynccontextmanager
async def open_websocket(address: str | tuple[str, int], path: str, **options: Any) -> AsyncIterator[Any]:
    """:raises MissingClient: trio-websocket is not installed."""
    trio_websocket = _module("trio_websocket")
    stream: trio.abc.Stream
    if isinstance(address, str):
        stream = await trio.open_unix_socket(address)
    else:
        stream = await trio.open_tcp_stream(*address)
    async with stream, trio.open_nursery() as nursery:
        websocket = await trio_websocket.wrap_client_stream(nursery, stream, "localhost", path, **options)
        async with websocket:
            yield websocket


class WebSockets:
    """Opens WebSockets for tests that are not asynchronous: they live in a Trio thread, which ends with ``close``."""

    def __init__(self, address: Callable[[], str | tuple[str, int]]) -> None:
        self._address = address
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._finished = trio.Event()
        self._open: list[WebSocket] = []

    def __call__(self, path: str = "/", **options: Any) -> WebSocket:
        """Open a WebSocket.

        :param options: as of ``trio_websocket.open_websocket``: ``subprotocols``, ``extra_headers``.
        :raises trio_websocket.HandshakeError: the application refuses.
        """
        self._run_thread()
        connection = self.run(lambda: self._connect(path, options))
        websocket = WebSocket(self, connection)
        self._open.append(websocket)
        return websocket

    def run(self, function: Callable[[], Awaitable[T]], within: float = _TIME) -> T:
        """Call an asynchronous function in the thread, and return its result.

        :raises TimeoutError: it takes longer.
        """

        async def bounded() -> T:
            try:
                with trio.fail_after(within):
                    return await function()
            except trio.TooSlowError:
                raise TimeoutError(f"nothing came within {within:g} s") from None

        return trio.from_thread.run(bounded, trio_token=self._token)

    def close(self) -> None:
        """Close all of them, and end the thread."""
        if self._thread is None:
            return
        while self._open:
            self._open.pop().close()
        trio.from_thread.run_sync(self._finished.set, trio_token=self._token)
        self._thread.join()
        self._thread = None
        self._finished = trio.Event()

    async def _connect(self, path: str, options: dict[str, Any]) -> Any:
        assert self._nursery is not None
        connected: trio.MemorySendChannel[Any]
        connected, result = trio.open_memory_channel(1)

        async def live() -> None:
            try:
                async with open_websocket(self._address(), path, **options) as connection:
                    connected.send_nowait(connection)
                    await self._finished.wait()
            except* Exception as errors:  # noqa: BLE001  it belongs to the caller
                error: BaseException = errors
                while isinstance(error, BaseExceptionGroup):
                    error = error.exceptions[0]
                try:
                    connected.send_nowait(error)
                except trio.WouldBlock:
                    pass  # the caller has its connection, which knows how it ended

        self._nursery.start_soon(live)
        found = await result.receive()
        if isinstance(found, BaseException):
            raise found
        return found

    def _run_thread(self) -> None:
        if self._thread is not None:
            return
        _module("trio_websocket")
        started: queue.SimpleQueue[trio.lowlevel.TrioToken] = queue.SimpleQueue()

        async def main() -> None:
            async with trio.open_nursery() as self._nursery:
                started.put(trio.lowlevel.current_trio_token())
                await self._finished.wait()
                self._nursery.cancel_scope.deadline = trio.current_time() + _WAIT

        self._thread = threading.Thread(target=trio.run, args=(main,), name="passenger_ws")
        self._thread.start()
        self._token = started.get()


class WebSocket:
    """One WebSocket, for a test that is not asynchronous."""

    def __init__(self, owner: WebSockets, connection: Any) -> None:
        self._owner = owner
        self.connection = connection
        """The ``trio_websocket.WebSocketConnection``."""

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, message: str | bytes) -> None:
        """:raises trio_websocket.ConnectionClosed: it is closed."""
        self._owner.run(lambda: self.connection.send_message(message))

    def receive(self, timeout: float = _WAIT) -> str | bytes:
        """The next message.

        :raises trio_websocket.ConnectionClosed: it is closed; ``reason`` has the code.
        :raises TimeoutError: none came.
        """
        message: str | bytes = self._owner.run(self.connection.get_message, timeout)
        return message

    def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close it, and wait for the answer. A second call does nothing."""
        self._owner.run(lambda: self.connection.aclose(code, reason))

    @property
    def closed(self) -> Any:
        """None while it is open, then ``trio_websocket.CloseReason``: ``code``, ``reason``."""
        return self.connection.closed
