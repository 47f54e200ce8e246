"""A server without processes and without listeners: connections over socket pairs in front of a pool of ``DummySpawner``.

``async with serving(worker)`` gives a ``World``; ``World.connect`` a client. When the block ends, every client has left, every connection has
ended, and every exchange must have given its session back: that is checked for each test that uses this.

A worker is a function ``(process, stream)``, as of ``DummySpawner``; ``requests`` reads what it is sent, ``respond`` and the frames below
are what it may answer.
"""

from __future__ import annotations

import functools
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import h11
import trio
import trio.testing
from held_clock import HeldClock

from passenger_trio.core.model import GroupKey
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.pool.pool import Pool
from passenger_trio.server.front import Front
from passenger_trio.server.http.connection import Connection
from passenger_trio.server.http.peer import Peer
from passenger_trio.server.logs.access_record import AccessRecord
from passenger_trio.server.mounts import Route
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner
from passenger_trio.system.raw_stream import RawStream

__all__ = [
    "Answer",
    "Client",
    "Request",
    "Signal",
    "Worker",
    "World",
    "data",
    "end",
    "error",
    "frame",
    "get",
    "head",
    "interim",
    "post",
    "requests",
    "respond",
    "serving",
    "simulated",
    "wait_end",
    "whole",
    "without_date",
]

Worker = Callable[[DummyProcess, RawStream], Awaitable[None]]


def simulated(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """An async test, or an async function that a test calls, in simulated time: whenever all wait, the clock jumps."""

    @functools.wraps(test)
    def run(*arguments: Any, **more: Any) -> None:
        clock = trio.testing.MockClock(autojump_threshold=0)
        try:
            trio.run(functools.partial(test, *arguments, **more), clock=clock)
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            raise error from None

    return run


# -- the worker's side ----------------------------------------------------------------------------------------------


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    return kind + len(payload).to_bytes(4, "big") + payload


def head(status: int = 200, *fields: bytes, reason: bytes = b"OK") -> bytes:
    """An ``R`` frame; a field is ``b"Name: value"``."""
    return frame(b"R", _pairs(status, reason, fields))


def interim(status: int, *fields: bytes, reason: bytes = b"Hints") -> bytes:
    return frame(b"I", _pairs(status, reason, fields))


def data(payload: bytes) -> bytes:
    return frame(b"D", payload)


def end(flags: int = 0) -> bytes:
    return frame(b"E", bytes([flags]) if flags else b"")


def error(name: bytes = b"ValueError", message: bytes = b"no", traceback: bytes = b"Traceback ...") -> bytes:
    return frame(b"X", b"".join(text + b"\0" for text in (name, message, traceback)))


def whole(body: bytes = b"ok", status: int = 200, flags: int = 0) -> bytes:
    return head(status, b"Content-Type: text/plain") + (data(body) if body else b"") + end(flags)


def _pairs(status: int, reason: bytes, fields: tuple[bytes, ...]) -> bytes:
    texts = [b"%d" % status, reason]
    for field in fields:
        name, value = field.split(b": ", 1)
        texts += [name, value]
    return b"".join(text + b"\0" for text in texts)


@attrs.frozen
class Request:
    """What a worker was asked."""

    pairs: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.pairs["REQUEST_URI"]


class requests:
    """The requests of one stream, each when it is whole: ``async for request in requests(stream)``. It ends with the stream."""

    def __init__(self, stream: RawStream) -> None:
        self._stream = stream
        self._held = b""

    def __aiter__(self) -> requests:
        return self

    async def __anext__(self) -> Request:
        pairs: dict[str, str] = {}
        body = b""
        while True:
            start = await self._take(5)
            kind, payload = start[:1], await self._take(int.from_bytes(start[1:], "big"))
            if kind == b"H":
                texts = payload.decode("latin-1").split("\0")[:-1]
                pairs = dict(zip(texts[::2], texts[1::2], strict=True))
            elif kind == b"D":
                body += payload
            else:
                assert kind == b"E", kind
                return Request(pairs, body)

    async def _take(self, size: int) -> bytes:
        while len(self._held) < size:
            try:
                more = await self._stream.recv()
            except trio.BrokenResourceError:
                more = b""
            if not more:
                raise StopAsyncIteration
            self._held += more
        taken, self._held = self._held[:size], self._held[size:]
        return taken


async def wait_end(stream: RawStream) -> None:
    """Until the supervisor has ended the stream, which is its word for abort."""
    try:
        while await stream.recv():
            pass
    except trio.BrokenResourceError:
        pass


def respond(answer: bytes | Callable[[Request], bytes] = b"") -> Worker:
    """A worker that gives the same bytes to every request, or what the function makes of it."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            await stream.send_all(answer(request) if callable(answer) else answer or whole())

    return serve


# -- the client's side ----------------------------------------------------------------------------------------------


def get(path: str = "/", *fields: str, version: str = "1.1", method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: localhost", *fields, "", ""]).encode()


def post(body: bytes, path: str = "/", *fields: str) -> bytes:
    return get(path, f"Content-Length: {len(body)}", *fields, method="POST") + body


@attrs.frozen
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]
    complete: bool = True


@attrs.define(eq=False)
class Client:
    """The other end of one connection."""

    stream: RawStream
    connection: Connection
    ended: trio.Event = attrs.field(factory=trio.Event)
    """The connection's task has ended."""
    outer: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Around the connection's task: cancelling it is what the end of the server's grace does."""
    _data: bytes = b""

    def send(self, *pieces: bytes) -> None:
        """At once; it must fit into the socket's buffer."""
        for piece in pieces:
            assert self.stream.send_nowait(piece) == len(piece)

    async def send_slowly(self, pieces: list[bytes]) -> None:
        """Each piece when everybody has done what could be done with those before it."""
        for piece in pieces:
            self.send(piece)
            await trio.testing.wait_all_tasks_blocked()

    async def receive(self) -> bytes:
        """What comes next; ``b""`` at the end."""
        if self._data:
            taken, self._data = self._data, b""
            return taken
        try:
            return await self.stream.recv()
        except trio.BrokenResourceError:
            return b""

    def put_back(self, data: bytes) -> None:
        """Received, and to be received again."""
        self._data = data + self._data

    async def receive_all(self) -> bytes:
        pieces = []
        while piece := await self.receive():
            pieces.append(piece)
        return b"".join(pieces)

    async def answer(self, method: str = "GET") -> Answer:
        """The next final response, by h11.

        :raises ConnectionError: the connection ended before one began.
        """
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "localhost")]))
        connection.send(h11.EndOfMessage())
        begun: h11.Response | None = None
        body = b""
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError:
                assert begun is not None
                return _answer(begun, body, complete=False)
            if event is h11.NEED_DATA:
                piece = await self.receive()
                if not piece and begun is None:
                    raise ConnectionError("the connection ended before a response began")
                connection.receive_data(piece)
            elif isinstance(event, h11.Response):
                begun = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert begun is not None
                self._data = connection.trailing_data[0] + self._data
                return _answer(begun, body, complete=True)

    async def ask(self, path: str = "/") -> Answer:
        self.send(get(path))
        return await self.answer()

    async def at_end(self) -> bool:
        return not await self.receive()

    def send_eof(self) -> None:
        self.stream.send_eof()

    def close(self) -> None:
        """On a socket pair the server sees that as a half-close."""
        self.stream.close()

    def reset(self) -> None:
        """Close so that the server sees a broken connection: a socket that is closed with unread bytes in it does that."""
        if self.connection.stream.fd >= 0:
            self.connection.stream.socket.send(b"x")
        self.stream.close()


def _answer(begun: h11.Response, body: bytes, complete: bool) -> Answer:
    fields = {name.decode().lower(): value.decode("latin-1") for name, value in begun.headers.raw_items()}
    return Answer(begun.status_code, body, fields, complete)


def without_date(wire: bytes) -> bytes:
    """Responses as they are on the wire, without what differs from run to run."""
    return re.sub(rb"[0-9a-f]{8}-[0-9a-f]+", b"ID", re.sub(rb"Date: [^\r]*", b"Date:", wire))


# -- in between -----------------------------------------------------------------------------------------------------


class Records:
    """Stands where the access log stands, and keeps the records. It has the one method that the request path calls."""

    def __init__(self) -> None:
        self.records: list[AccessRecord] = []

    def record(self, record: AccessRecord) -> None:
        self.records.append(record)


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        return listener.accept()[0], theirs


@attrs.define(eq=False)
class World:
    """A front, its pool, and who is connected."""

    pool: Pool
    front: Front
    spawner: DummySpawner
    nursery: trio.Nursery
    records: list[AccessRecord]
    clients: list[Client] = attrs.field(factory=list)

    def connect(self, *, send_buffer: int = 0, trusted: bool = True, tcp: bool = False) -> Client:
        """A client on a socket pair.

        :param send_buffer: of the server's side, in bytes; 0 leaves the system's. :param tcp: on a connection of the loopback.
        """
        ours, theirs = _tcp_pair() if tcp else socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        if send_buffer:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        pairs = b"SERVER_NAME\0localhost\0"
        connection = Connection(self.front, RawStream(ours), Peer("127.0.0.1", trusted, pairs))
        client = Client(RawStream(theirs), connection)
        self.nursery.start_soon(self._run, client)
        self.clients.append(client)
        return client

    async def _run(self, client: Client) -> None:
        try:
            with client.outer:
                await client.connection.run()
        finally:
            client.ended.set()

    @property
    def process(self) -> DummyProcess:
        """The newest process."""
        return self.spawner.processes[-1]

    @property
    def sessions(self) -> int:
        """Open now, in the whole pool."""
        return sum(p.sessions for group in self.pool.statistics().groups for p in group.processes)

    @property
    def queue_length(self) -> int:
        return sum(group.queue_length for group in self.pool.statistics().groups)

    @property
    def processed(self) -> int:
        return sum(p.processed for group in self.pool.statistics().groups for p in group.processes)

    async def until(self, fact: Callable[[], object]) -> None:
        """Wait for a fact, in the simulated time of the test."""
        with trio.fail_after(600):
            while not fact():  # noqa: ASYNC110 - the server tells nobody
                await trio.sleep(0.001)


class Signal:
    """Runs ``action`` in the very step in which other sockets, written to together with ``give``, wake their tasks: before or after them, as
    Trio's shuffle wants it. So a test that does this some dozen times has seen both orders.
    """

    def __init__(self, world: World, action: Callable[[], None]) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._ours, self._theirs = RawStream(ours), theirs
        self._action = action
        world.nursery.start_soon(self._run)

    async def _run(self) -> None:
        await self._ours.recv()
        self._action()
        self._ours.close()

    def give(self) -> None:
        self._theirs.send(b"x")
        self._theirs.close()


@asynccontextmanager
async def serving(
    worker: Worker | None = None,
    *,
    options: ServerOptions | None = None,
    app: AppOptions | None = None,
    limits: GroupLimits | None = None,
    pool_limits: PoolLimits | None = None,
    spawner: DummySpawner | None = None,
    deadline: float = 3600.0,
) -> AsyncIterator[World]:
    """A world with one process that is ready. At the end everything must have been given back."""
    pool = Pool(pool_limits or PoolLimits(max_pool_size=1))
    key = GroupKey("app", "test")
    spawner = spawner or DummySpawner(serve=worker or respond())
    records = Records()
    with trio.fail_after(deadline):
        async with trio.open_nursery() as nursery, trio.open_nursery() as connections:
            await nursery.start(pool.run)
            await pool.add_group(key, limits or GroupLimits(), spawner, 1.0)
            while not pool.processes:
                await pool.changed.wait()
            front = Front(options or ServerOptions(), pool, [Route(key, app or AppOptions())], records)  # type: ignore[arg-type]
            front.spill.limiter = HeldClock()  # type: ignore[assignment]
            nursery.start_soon(front.deadline_scanner.run)
            await nursery.start(front.poller.run)
            world = World(pool, front, spawner, connections, records.records)
            try:
                yield world
            finally:
                for client in world.clients:
                    client.close()
            for client in world.clients:
                await client.ended.wait()
            assert not front.connections
            assert world.sessions == 0, "an exchange has not given its session back"
            assert world.queue_length == 0, "an exchange has not left its place in the queue"
            for process in pool.processes.values():
                assert process.streams == len(process.idle_streams), "a stream is counted that is closed"
            pool.shut_down()
            await pool.empty.wait()
            nursery.cancel_scope.cancel()
