"""Takes over the listening sockets that an embedding program has opened, instead of opening any (``bind``)."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack

import trio

from passenger_trio.errors import BindError

__all__ = ["GivenListener", "take_over"]

GivenListener = socket.socket | trio.SocketListener
"""A listening socket that an embedding program has opened."""


def take_over(listeners: Sequence[GivenListener], resources: ExitStack) -> list[socket.socket]:
    """Make listening sockets that a program has opened ready for a ``Listener``. From now on the server owns them and closes them, as
    ``trio.serve_listeners`` does. The program keeps the file of a Unix socket.

    :raises BindError: one of them is no listening stream socket.
    """
    taken = []
    for given in listeners:
        if isinstance(given, trio.SocketListener):
            sock = socket.socket(fileno=os.dup(given.socket.fileno()))
            given.socket.close()
        else:
            sock = given
        resources.callback(sock.close)
        taken.append(sock)
    for sock in taken:
        if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise BindError(f"listeners: {sock!r} is not a TCP or Unix stream socket")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise BindError(f"listeners: {sock!r} does not listen; call listen() on it first")
        sock.setblocking(False)
    return taken
