"""Accepts connections from a listening socket.

Each listener has one accept loop. Laws:

* An accepted connection is served or closed, never forgotten. An error in one connection costs only that one (KE1).
* When descriptors run out (R36, F31), idle connections are closed. If that is not enough, new ones wait in the kernel's queue. There is no busy loop.
* If several fronts share a socket, each leaves connections to fronts that have fewer (``core/accept_gate.py``).
* When draining begins, the connections in the kernel's queue are accepted, then no more.
"""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING

import trio

from passenger_trio.core.accept_gate import Turn
from passenger_trio.core.descriptors import SHORT_OF_DESCRIPTORS
from passenger_trio.log_lines import server as lines
from passenger_trio.server.front import AcceptGate, Front
from passenger_trio.server.http.peer import Peer
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.system.unix_peers import peer_credentials

if TYPE_CHECKING:
    from passenger_trio.server.http.connection import Connection

__all__ = ["Listener"]

_BURST = 32
"""Connections accepted before other tasks get their turn."""
_PAUSE = 0.1
"""Seconds until the next attempt to accept when descriptors are short."""
_AFTER_OTHERS = 0.001
"""Seconds for which a front lets fronts with fewer connections accept first."""
_CLOSED = 0.01
"""Seconds for which a front that has too many connections does not watch the socket."""


class Listener:
    """One listening socket. ``run`` is its accept loop."""

    def __init__(self, sock: socket.socket, front: Front, *, owns_file: bool = True) -> None:
        """:param owns_file: whether closing the listener removes the file of a Unix socket."""
        self._owns_file = owns_file
        self._sock = sock
        self._front = front
        self._is_unix = sock.family == socket.AF_UNIX
        self._path = sock.getsockname() if self._is_unix else ""
        path = os.fsencode(self._path).replace(b"\0", b"@")  # of an abstract socket
        self._unix_pairs = (
            _listener_pairs("localhost", 80) + b"REMOTE_ADDR\0\0REMOTE_PORT\0\0SERVER_SOCKET\0%b\0" % path
        )
        if not self._is_unix:
            host, port = sock.getsockname()[:2]
            # Behind a wildcard each connection has an address of its own.
            self._own = None if host in ("0.0.0.0", "::") else _listener_pairs(host, port)

    @property
    def url(self) -> str:
        """The address, for people."""
        if self._is_unix:
            return f"unix:{self._path}"
        host, port = self._sock.getsockname()[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    async def run(self, clients: trio.Nursery) -> None:
        """Accept until cancelled; connections run in ``clients``."""
        front = self._front
        while True:
            if front.gate is not None:
                await front.gate.wait_open()
            await trio.lowlevel.wait_readable(self._sock)
            for turn in range(_BURST):
                if front.gate is not None and not await self._is_ours(front.gate):
                    break
                if not front.takes_connection:
                    # It is known that a client waits only the first time. Making room without a waiting client would close an idle connection for nothing.
                    if not turn and self._has_client() and not front.make_room():
                        # Every connection has a request in hand: newcomers wait in the kernel's queue.
                        await trio.sleep(_PAUSE)
                    # Connections that were told to end stay open until their tasks have run.
                    break
                try:
                    sock, address = self._sock.accept()
                except BlockingIOError:
                    break
                except OSError as exc:
                    # Others than these are about a connection that broke before it was accepted.
                    if exc.errno in SHORT_OF_DESCRIPTORS:
                        front.short_of_descriptors(f"cannot accept connections: {exc.strerror}")
                        await trio.sleep(_PAUSE)
                    break
                self._begin(sock, address, clients)

    async def _is_ours(self, gate: AcceptGate) -> bool:
        """Whether to accept the connection that waits, where other fronts accept from the same socket."""
        turn = gate.turn()
        if turn is Turn.LAST:
            await trio.sleep(_AFTER_OTHERS)
            turn = gate.turn()
        if turn is Turn.LEAVE:
            await trio.sleep(_CLOSED)
            return False
        return True

    def _has_client(self) -> bool:
        """Whether a connection still waits: another front may have taken it meanwhile."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def accept_waiting(self, clients: trio.Nursery) -> None:
        """The server drains: accept the connections that have come by now, up to the ceiling.

        The kernel has already completed these connections, and their requests may have arrived. Closing the socket would reset them.
        """
        while self._front.takes_connection:
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno in SHORT_OF_DESCRIPTORS:
                    break
                continue
            self._begin(sock, address, clients)

    def _begin(self, sock: socket.socket, address: tuple[str, int], clients: trio.Nursery) -> None:
        front = self._front
        front.accepted += 1
        with front.kernel.contain("a new connection", "it is closed") as containment:
            try:
                connection = self._connection(sock, address)
            except OSError:
                sock.close()  # it broke, and the kernel no longer knows its peer
                return
            front.connections.add(connection)  # it counts from now on, and not when its task first runs
            clients.start_soon(connection.run)
        if containment.error is not None:
            sock.close()

    def set_backlog(self, backlog: int) -> None:
        """Change the length of the kernel's queue. Connections in it are kept."""
        self._sock.listen(backlog)

    def close(self) -> None:
        """Close the socket, and remove its file. Idempotent: by a second call the path may belong to another server."""
        if self._sock.fileno() < 0:
            return
        self._sock.close()
        if self._is_unix and self._owns_file:
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass
            except PermissionError as error:  # the server has become another user (--user) since it made the file
                lines.socket_stays(path=self._path, reason=str(error.strerror))

    def _connection(self, sock: socket.socket, address: tuple[str, int]) -> Connection:
        from passenger_trio.server.http.connection import (
            Connection,  # here: the start of the server does not wait for it (DE10)
        )

        sock.setblocking(False)
        if self._is_unix:
            # R11: the kernel names the peer's user. A peer on a Unix socket has no address, and none is invented (ED2).
            user = peer_credentials(sock).uid
            peer = Peer("unix", self._front.trusted.trusts_user(user), self._unix_pairs, user)
            return Connection(self._front, RawStream(sock), peer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = address[:2]
        own = self._own or _listener_pairs(*sock.getsockname()[:2])
        pairs = b"%sREMOTE_ADDR\0%s\0REMOTE_PORT\0%d\0" % (own, host.encode(), port)
        return Connection(self._front, RawStream(sock), Peer(host, self._front.trusted.trusts(host), pairs))


def _listener_pairs(host: str, port: int) -> bytes:
    return b"REQUEST_SCHEME\0http\0SERVER_NAME\0%s\0SERVER_PORT\0%d\0" % (host.encode(), port)
