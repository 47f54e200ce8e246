"""The listening sockets of a server, and the accept loop of each.

Laws: a socket stays open as long as the configuration names it. When an address changes, the new sockets are opened
before the old ones are closed, so somebody listens at any time. A socket that is closed first accepts the connections
that wait in its queue."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack

import trio

from passenger_trio.core.option_values import parse_mode
from passenger_trio.errors import ReloadRefused
from passenger_trio.options import ServerOptions
from passenger_trio.server.front import Front
from passenger_trio.server.listening.bind import bind
from passenger_trio.server.listening.listener import Listener

__all__ = ["Listeners"]


class Listeners:
    """All listeners of a server."""

    def __init__(self, sockets: Sequence[socket.socket], front: Front, *, are_given: bool) -> None:
        """:param are_given: whether a program has opened the sockets, so that no option names their addresses."""
        self._front = front
        self._are_given = are_given
        self._listeners = [Listener(sock, front, owns_file=not are_given) for sock in sockets]
        self._scopes: dict[Listener, trio.CancelScope] = {}
        self._accepting: trio.Nursery | None = None
        self._clients: trio.Nursery | None = None

    @property
    def urls(self) -> list[str]:
        """The addresses, for people."""
        return [listener.url for listener in self._listeners]

    def accept(self, accepting: trio.Nursery, clients: trio.Nursery) -> None:
        """Begin to accept. The loops run in ``accepting`` until it is cancelled, connections in ``clients``."""
        self._accepting, self._clients = accepting, clients
        for listener in self._listeners:
            self._start(listener)

    def _start(self, listener: Listener) -> None:
        assert self._accepting is not None
        scope = self._scopes[listener] = trio.CancelScope()
        self._accepting.start_soon(self._run, listener, scope)

    async def _run(self, listener: Listener, scope: trio.CancelScope) -> None:
        assert self._clients is not None
        with scope:
            await self._front.kernel.supervise("a listener", listener.run, self._clients)

    def open_new(self, before: ServerOptions, after: ServerOptions, undo: ExitStack) -> list[socket.socket]:
        """Open the sockets that only ``after`` has; none if the address is the same.

        :param undo: closes them, unless ``change`` takes them over.
        :raises BindError: an address cannot be listened on.
        :raises ReloadRefused: a program has opened the sockets.
        """
        if self._are_given:
            raise ReloadRefused("the listening sockets are the program's: their address cannot be changed")
        return bind(after, undo) if _place(before) != _place(after) else []

    def change(self, before: ServerOptions, after: ServerOptions, opened: Sequence[socket.socket]) -> None:
        """Listen as ``after`` says, with the sockets that ``open_new`` has opened."""
        if not opened:
            for listener in self._listeners:
                listener.set_backlog(after.socket_backlog)
            if after.socket and before.socket_mode != after.socket_mode:
                os.chmod(os.path.abspath(after.socket), parse_mode(after.socket_mode))
            return
        if self._accepting is None:
            for sock in opened:  # the server has begun to stop meanwhile
                Listener(sock, self._front).close()
            return
        old, self._listeners = self._listeners, [Listener(sock, self._front) for sock in opened]
        for listener in self._listeners:
            self._start(listener)
        for listener in old:
            self._scopes.pop(listener).cancel()
            self._end(listener)

    def drain(self) -> None:
        """After the end of the loops: accept the connections that have come by now, and close the sockets."""
        self._accepting = None
        for listener in self._listeners:
            self._end(listener)

    def _end(self, listener: Listener) -> None:
        with self._front.kernel.contain("a listener"):
            if self._clients is not None:  # None: other processes accept
                listener.accept_waiting(self._clients)
        with self._front.kernel.contain("a listener"):
            listener.close()

    def close(self) -> None:
        """Close all sockets. Idempotent."""
        for listener in self._listeners:
            listener.close()


def _place(options: ServerOptions) -> tuple[object, ...]:
    return (options.socket,) if options.socket else (options.address, options.port)
