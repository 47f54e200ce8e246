"""A link: what stands between a client and the server, and does to the connection what a bad client
or a bad network does.

A link listens on a socket of its own, so any client can use it: ``RawClient``, httpx, a WebSocket
client, a program. Each connection has two threads, one for each direction. What they do differently
from a plain relay is the fault (``clients.py``).

Laws: a link never changes a byte of what it passes on; when it has ended, its threads and sockets
are gone.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h11

from passenger_trio.testing.clients import http_client
from passenger_trio.testing.faults.fault import Fault
from passenger_trio.testing.reachable import Reachable
from passenger_trio.testing.run_directory import temporary_directory

if TYPE_CHECKING:
    import httpx2

__all__ = ["Connection", "Link"]

Address = tuple[str, int] | str
_LONGEST = 80
"""Bytes of a directory in which the socket's path has room (``sun_path`` has 107)."""


class Connection:
    """One connection through a link: ``client`` is the socket towards the client, ``server`` that
    towards the server.
    """

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.threads: list[threading.Thread] = []
        self._closed = False
        self._lock = threading.Lock()
        self._parser = h11.Connection(h11.SERVER)

    def request_ends_in(self, data: bytes) -> int | None:
        """The position in ``data`` behind the end of the first request, or None: it goes on."""
        self._parser.receive_data(data)
        while True:
            event = self._parser.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return None
            if isinstance(event, h11.EndOfMessage):
                return len(data) - len(self._parser.trailing_data[0])

    def reset(self) -> None:
        """End both sides with a reset, as a client that crashes does."""
        self._end(socket.SHUT_RD, b"\1\0\0\0\0\0\0\0")

    def close(self) -> None:
        """End both sides. Idempotent."""
        self._end(socket.SHUT_RDWR)

    def _end(self, how: int, linger: bytes = b"") -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for side in (self.server, self.client):
                try:
                    if linger and side.family != socket.AF_UNIX:
                        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    # A thread that waits in this socket wakes up. Until then, closing would not reach the kernel.
                    side.shutdown(how)
                except OSError:
                    pass  # the other side has ended it
                side.close()

    def send_up(self, data: bytes) -> None:
        """Send to the server. What a server no longer reads is dropped: its response is still to reach the client."""
        try:
            self.server.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def half_close(self) -> None:
        """End the sending side towards the server, and no more."""
        self._end_sending(self.server)

    def end_request(self) -> None:
        """The client sends no more: end the sending side towards the server.

        A client that has closed and one that has half-closed look the same here at first. On a Unix socket the kernel
        tells which it is, and also when it closes later: then the server is told by a close.
        """
        if self.client.family == socket.AF_UNIX and self._has_left(0):
            self.close()
            return
        self._end_sending(self.server)
        while self.client.family == socket.AF_UNIX and not self._closed:
            if self._has_left(100):
                self.close()

    def _has_left(self, milliseconds: int) -> bool:
        poll = select.poll()
        try:
            poll.register(self.client, 0)
            return bool(poll.poll(milliseconds))
        except (OSError, ValueError):
            return True  # closed meanwhile

    def end_response(self) -> None:
        """The server sends no more: end the sending side towards the client.

        Closing would reset a client that still sends, and take bytes from it that it has not read.
        """
        self._end_sending(self.client)

    def _end_sending(self, side: socket.socket) -> None:
        with self._lock:
            if not self._closed:
                try:
                    side.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # the other side has ended the connection


class Link(Fault, Reachable):
    """A fault of a client. Send requests through it: ``get``, ``connect``, ``client``, or
    ``address`` for a client of your own.
    """

    hint = "send the request through the fault: fault.get(...), fault.connect(), fault.client() or fault.address"
    receive_buffer = 0
    """Bytes that the kernel may keep for a client that does not read; 0: as many as it likes."""

    directory: Path | None = None
    """Where to make its socket, if the path is short enough; else in the directory of the run."""

    def __init__(self, server: Address, seed: int = 0, **values: Any) -> None:
        super().__init__(seed, **values)
        self._server = server
        self._ended = threading.Event()
        self._connections: list[Connection] = []
        self._home = ""

    # The client's side

    @property
    def address(self) -> Address:
        """For ``RawClient``."""
        if isinstance(self._server, str):
            return os.path.join(self._home, "link")
        name = self._listener.getsockname()
        return str(name[0]), int(name[1])

    @property
    def url(self) -> str:
        """For a client that takes an address and no socket path; without a trailing slash."""
        address = self.address
        return f"unix:{address}" if isinstance(address, str) else f"http://{address[0]}:{address[1]}"

    def client(self, **arguments: Any) -> httpx2.Client:
        """An ``httpx2.Client`` (or ``httpx.Client``, if only that is installed) whose requests go through the link."""
        address = self.address
        client: httpx2.Client = http_client(
            address, "http://localhost" if isinstance(address, str) else self.url, **arguments
        )
        return client

    # The fault

    def begin(self) -> None:
        if isinstance(self._server, str):
            fits = self.directory is not None and len(os.fsencode(self.directory)) < _LONGEST
            self._home = str(temporary_directory("link-", self.directory if fits else None))
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(os.path.join(self._home, "link"))
        else:
            self._listener = socket.socket(socket.AF_INET6 if ":" in self._server[0] else socket.AF_INET)
            self._listener.bind((self._server[0], 0))
        self._listener.listen(64)
        self._acceptor = threading.Thread(target=self._accept, name=f"link {self.name}", daemon=True)
        self._acceptor.start()

    def end(self) -> None:
        self._ended.set()
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not on every kernel for every family; closing follows
        self._acceptor.join(10)
        self._listener.close()
        self.on_end()
        for connection in self._connections:
            connection.close()
        for connection in self._connections:
            for thread in connection.threads:
                thread.join(10)
        if self._home:
            shutil.rmtree(self._home, ignore_errors=True)

    def on_end(self) -> None:
        """Before the connections are closed."""

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # the link ends
            server = socket.socket(socket.AF_UNIX if isinstance(self._server, str) else self._listener.family)
            if self.receive_buffer:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
            try:
                server.connect(self._server)
            except OSError:
                server.close()
                client.close()  # as the server does to it, so does the link to its client
                continue
            if server.family != socket.AF_UNIX:
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(client, server)
            connection.threads = [
                threading.Thread(target=self._run, args=(way, connection), name=f"link {self.name}", daemon=True)
                for way in (self.upward, self.downward)
            ]
            self._connections.append(connection)
            for thread in connection.threads:
                thread.start()

    def _run(self, way: Any, connection: Connection) -> None:
        try:
            way(connection)
        except (OSError, ValueError):
            connection.close()  # one of the sides has ended; select() calls a closed socket a bad value
        except h11.RemoteProtocolError:
            connection.close()  # what the client sends is not HTTP, so this fault has no place in it

    def upward(self, connection: Connection) -> None:
        """From the client to the server, until the client ends its side."""
        while data := connection.client.recv(65536):
            connection.send_up(data)
        connection.end_request()

    def downward(self, connection: Connection) -> None:
        """From the server to the client, until the server ends its side."""
        while data := connection.server.recv(65536):
            connection.client.sendall(data)
        connection.end_response()

    def sleep(self, seconds: float) -> None:
        """Sleep, or until the link ends."""
        self._ended.wait(seconds)
