"""A client that sends exactly the given bytes, at the given pace, and reads responses with h11.

It notes what it asks for and what comes, for the timeline of a test that has no tap. A request is known by its first line, if that is sent in one piece.
"""

from __future__ import annotations

import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable

import h11

from passenger_trio.late_classes import frozen
from passenger_trio.testing.exchange import Exchange

__all__ = ["RawClient", "Response"]

_REQUEST_LINE = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.[01]\r\n")


@frozen
class Response:
    """One response. ``complete`` is False when the connection ended in the middle of it."""

    status: int
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    complete: bool = True

    def header(self, name: str) -> str | None:
        """The first field of that name, in any case."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)

    @property
    def text(self) -> str:
        return self.body.decode()


class RawClient:
    """One connection. ``address`` is ``(host, port)``, or the path of a Unix socket."""

    def __init__(
        self,
        address: tuple[str, int] | str,
        timeout: float = 30.0,
        source: str = "",
        note: Callable[[Exchange], None] | None = None,
    ) -> None:
        """:param source: the local address to connect from.
        :param note: called with each request when it is sent; what comes of it is written into the object later.
        """
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                # Connecting to a Unix socket never takes time, but with a timeout a full queue
                # would be an error.
                self.socket.connect(address)
                self.socket.settimeout(timeout)
            except BaseException:
                self.socket.close()
                raise
        else:
            self.socket = socket.create_connection(address, timeout, (source, 0) if source else None)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""
        self._note = note
        self._connected = time.time()
        self._asked: deque[Exchange] = deque()
        """Requests whose responses have not been read, the oldest first. Empty if nobody wants to know."""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        """Send each piece in its own write."""
        for piece in pieces:
            if self._note is not None and (line := _REQUEST_LINE.match(piece)):
                self._ask(self._note, line[1], line[2])
            self.socket.sendall(piece)
        if self._asked:
            self._asked[-1].sent = time.time()

    def _ask(self, note: Callable[[Exchange], None], method: bytes, target: bytes) -> None:
        exchange = Exchange(0, self._connected, method.decode(), target.decode("latin-1"), begun=time.time())
        self._asked.append(exchange)
        note(exchange)

    def send_eof(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def get(self, path: str = "/", headers: Iterable[tuple[str, str]] = ()) -> Response:
        """GET on this connection, which stays open."""
        return self.request("GET", path, headers)

    def request(
        self,
        method: str,
        path: str = "/",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        host: str = "localhost",
    ) -> Response:
        """Send a plain request, with a Content-Length if it has a body, and read the response."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return self.read_response(method)

    def receive(self, size: int = 65536) -> bytes:
        """Some bytes that no response has consumed; ``b""`` at EOF or after a reset."""
        data = self._receive(size)
        if self._asked:
            self._asked[0].outcome = "read as bytes"
        return data

    def _receive(self, size: int = 65536) -> bytes:
        if self._data:
            data, self._data = self._data, b""
            return data
        try:
            data = self.socket.recv(size)
        except ConnectionResetError:
            data = b""
        if self._asked:
            now, oldest = time.time(), self._asked[0]
            oldest.first_byte = (oldest.first_byte or now) if data else oldest.first_byte
            oldest.ended = now
        return data

    def receive_all(self) -> bytes:
        """Everything up to the end of the connection."""
        pieces = []
        while data := self.receive():
            pieces.append(data)
        return b"".join(pieces)

    def read_response(self, method: str = "GET") -> Response:
        """Read the next final response.

        :raises ConnectionError: the connection ended before a response began.
        """
        response = self._read_response(method)
        if self._asked:
            exchange = self._asked.popleft()
            exchange.status, exchange.size = response.status, len(response.body)
            exchange.outcome = "complete" if response.complete else "cut short"
        return response

    def _read_response(self, method: str) -> Response:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "localhost")]))
        connection.send(h11.EndOfMessage())
        head: h11.Response | None = None
        body: list[bytes] = []
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError:
                if head is None:
                    raise
                return _response(head, body, complete=False)
            if event is h11.NEED_DATA:
                data = self._receive()
                if not data and head is None:
                    raise ConnectionError("the connection ended before a response began")
                connection.receive_data(data)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                self._data = connection.trailing_data[0] + self._data
                return _response(head, body, complete=True)
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionError("the connection ended before a response began")

    def at_end(self) -> bool:
        """Whether the server ended the connection. Waits for that, or for bytes."""
        return not self.receive()


def _response(head: h11.Response, body: list[bytes], complete: bool) -> Response:
    headers = tuple((bytes(name), bytes(value)) for name, value in head.headers.raw_items())
    return Response(head.status_code, bytes(head.reason), headers, b"".join(body), complete)
