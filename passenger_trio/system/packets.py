"""A pair of sockets that carries whole messages, and descriptors with them (SOCK_SEQPACKET, SCM_RIGHTS).

Laws:

* A message arrives whole or not at all, and in order. An empty message means the end, so none is sent.
* Sending never waits: a message that the kernel does not take now is left to the caller.
* A receiver that wants no descriptors gets none: the kernel drops them.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence

import trio
from trio.lowlevel import wait_readable, wait_writable

__all__ = ["MAX_PACKET", "Packets", "packet_pair"]

MAX_PACKET = 65536
"""The longest message, in bytes."""
_BUFFER = 1024 * 1024
_FD = array.array("i").itemsize


def packet_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets.

    :raises OSError: no descriptor is left.
    """
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return pair


class Packets:
    """One end of a pair. One task receives at a time."""

    def __init__(self, sock: socket.socket, *, takes_descriptors: int = 0) -> None:
        """:param takes_descriptors: the most descriptors that come with a message."""
        sock.setblocking(False)
        self._sock = sock
        self._room = socket.CMSG_SPACE(takes_descriptors * _FD) if takes_descriptors else 0

    def send_nowait(self, message: bytes, descriptors: Sequence[int] = ()) -> bool:
        """Send a message, with copies of the descriptors. False: the kernel does not take it now.

        :raises trio.BrokenResourceError: the other end is gone.
        :raises trio.ClosedResourceError: this end was closed.
        """
        assert 0 < len(message) <= MAX_PACKET
        if self._sock.fileno() < 0:
            raise trio.ClosedResourceError
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self._sock.sendmsg([message], rights)
        except BlockingIOError:
            return False
        except OSError as error:
            raise trio.BrokenResourceError(error.strerror) from error
        return True

    async def wait_writable(self) -> None:
        """Return when the kernel may take a message, or the other end is gone."""
        await wait_writable(self._sock)

    async def wait_readable(self) -> None:
        """Return when there is a message, or the other end is gone."""
        await wait_readable(self._sock)

    def receive_nowait(self) -> tuple[bytes, list[int]]:
        """The next message, and the descriptors that came with it, which the caller owns.

        :raises trio.WouldBlock: there is none now.
        :raises trio.EndOfChannel: the other end is gone.
        :raises trio.BrokenResourceError: a message was longer than ``MAX_PACKET``, or the kernel had no
            descriptor left for what came with it.
        """
        if self._sock.fileno() < 0:
            raise trio.ClosedResourceError
        try:
            message, rights, flags, _ = self._sock.recvmsg(MAX_PACKET, self._room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            raise trio.WouldBlock from None
        except ConnectionResetError:
            raise trio.EndOfChannel from None
        except OSError as error:
            raise trio.BrokenResourceError(error.strerror) from error
        descriptors = array.array("i")
        for level, kind, data in rights:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[: len(data) - len(data) % _FD])
        if not message or flags & socket.MSG_TRUNC or (self._room and flags & socket.MSG_CTRUNC):
            for descriptor in descriptors:
                os.close(descriptor)
            if not message:
                raise trio.EndOfChannel
            raise trio.BrokenResourceError("a message, or a descriptor with it, was cut off")
        return message, list(descriptors)

    def spare_descriptor(self) -> None:
        """Make sure that this program may have one descriptor more: the next message is lost with its descriptor if it may not.

        :raises OSError: it may not.
        """
        os.close(os.dup(self._sock.fileno()))

    def close(self) -> None:
        """Idempotent. The other end sees the end."""
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
