"""Requests of the program that embeds the server: the client's end of a socket pair, without TCP (LI4).

The other end is served by a ``Connection`` like any client's. So a request passes the queue, the limits
and the buffers: a program that reads slowly holds no process. h11 frames the client's end.

Laws: the connection counts like a client's, and is drained like one. Leaving the block closes it, and
the server learns that its client has left (R28). An error of the body's iterator is raised unchanged.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import h11
import trio

from passenger_trio.app_response import AppResponse, Fields, named
from passenger_trio.errors import CheckoutError, IncompleteResponse, PoolShutDown
from passenger_trio.server.front import Front
from passenger_trio.server.http.connection import Connection
from passenger_trio.server.http.peer import Peer
from passenger_trio.system.raw_stream import RawStream

__all__ = ["Body", "request"]

Body = bytes | Iterable[bytes] | AsyncIterable[bytes]
"""A request body. Anything but ``bytes`` is streamed, and sent in chunks (RFC 9112 section 7.1)."""

_PAIRS = (
    b"REQUEST_SCHEME\0http\0SERVER_NAME\0localhost\0SERVER_PORT\x0080\0REMOTE_ADDR\0\0REMOTE_PORT\0\0SERVER_SOCKET\0\0"
)
"""The program has no address, and none is invented (ED2)."""


class _Client:
    """The client's end: h11 over a Trio stream."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self._ended = False

    async def send(self, head: h11.Request, body: Body) -> None:
        """Send the request. The server may answer, and close, before it has read the body."""
        try:
            await self._send(head)
            if isinstance(body, bytes):
                if body:
                    await self._send(h11.Data(data=body))
            elif isinstance(body, AsyncIterable):
                async for piece in body:
                    await self._send(h11.Data(data=piece))
            else:
                for piece in body:
                    await self._send(h11.Data(data=piece))
            await self._send(h11.EndOfMessage())
        except trio.BrokenResourceError:
            pass  # there may be a response all the same

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self.stream.send_all(data)

    async def head(self) -> h11.Response:
        """The response's head, after any interim ones."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event

    async def piece(self) -> bytes | None:
        """The next bytes of the body; None at its end.

        :raises IncompleteResponse: the response ended before it was complete.
        """
        while not self._ended:
            event = await self._next()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            self._ended = isinstance(event, h11.EndOfMessage)
        await trio.lowlevel.checkpoint()
        return None

    async def _next(self) -> object:
        while True:
            try:
                event = self._http.next_event()
                if event is not h11.NEED_DATA:
                    await trio.lowlevel.checkpoint()
                    return event
                self._http.receive_data(await self.stream.receive_some())
            except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
                raise IncompleteResponse(f"the response ended before it was complete: {error}") from error


@asynccontextmanager
async def request(
    front: Front,
    clients: trio.Nursery | None,
    method: str,
    target: str,
    host: str,
    headers: Fields,
    body: Body,
) -> AsyncIterator[AppResponse]:
    """Send one request, and yield its response. Read the response's body inside the block.

    :param clients: the nursery of the clients; None: the server accepts no requests.
    :param target: path and query, as in a request line.
    :raises PoolShutDown: the server accepts no more requests.
    :raises CheckoutError: too many connections are open.
    :raises IncompleteResponse: there is no response, or only a part of one.
    """
    client = _Client(_connect(front, clients))
    head = _head(method, target, host, headers, body)
    failure: BaseException | None = None
    async with client.stream, trio.open_nursery() as sending:

        async def send() -> None:
            nonlocal failure
            try:
                await client.send(head, body)
            except trio.Cancelled:
                raise
            except BaseException as error:  # noqa: BLE001  the body's own, raised below, outside of the nursery's group
                failure = error
                sending.cancel_scope.cancel()

        sending.start_soon(send)
        try:
            response = await client.head()
            yield AppResponse(response.status_code, named(response.headers.raw_items()), client.piece)
        except trio.Cancelled:
            raise
        except BaseException as error:  # noqa: BLE001  raised below, outside of the nursery's group
            failure = failure or error
        sending.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _connect(front: Front, clients: trio.Nursery | None) -> trio.SocketStream:
    if clients is None or front.draining:
        raise PoolShutDown
    if not front.takes_connection:
        front.make_room()
        raise CheckoutError("too many connections are open")
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    front.accepted += 1
    connection = Connection(front, RawStream(theirs), Peer("in-process", True, _PAIRS))
    front.connections.add(connection)  # it counts from now on, and not when its task first runs
    clients.start_soon(connection.run)
    ours.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(ours))


def _head(method: str, target: str, host: str, headers: Fields, body: Body) -> h11.Request:
    """The head of the request.

    :raises h11.LocalProtocolError: the arguments make no valid HTTP request.
    """
    fields = list(headers.items() if isinstance(headers, Mapping) else headers)
    names = {name.lower() for name, _ in fields}
    if "host" not in names:
        fields.insert(0, ("Host", host))
    if isinstance(body, bytes):
        if (body or method in ("POST", "PUT", "PATCH")) and not names & {"content-length", "transfer-encoding"}:
            fields.append(("Content-Length", str(len(body))))
    elif not names & {"content-length", "transfer-encoding"}:
        fields.append(("Transfer-Encoding", "chunked"))
    if "connection" not in names:
        fields.append(("Connection", "close"))
    return h11.Request(method=method, target=target, headers=fields)
