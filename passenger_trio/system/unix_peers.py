"""Which process is at the other end of a Unix socket, as the kernel says; and connecting to one only if it is the expected one."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from passenger_trio.late_classes import frozen
from passenger_trio.system.pidfd import is_readable
from passenger_trio.system.syscalls import SO_PEERCRED, SO_PEERPIDFD

if TYPE_CHECKING:
    from passenger_trio.system.raw_stream import RawStream

__all__ = ["PeerCredentials", "connect_unix_nowait", "peer_credentials", "peer_lives"]


@frozen
class PeerCredentials:
    """The process at the other end, as the kernel reports it (SO_PEERCRED): on the listening side,
    the process that called ``connect``; on the connecting side, the process that called ``listen``.
    """

    pid: int
    uid: int
    gid: int


def peer_credentials(sock: socket.socket) -> PeerCredentials:
    """The peer of a Unix socket."""
    raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERCRED, struct.calcsize("3i"))
    return PeerCredentials(*struct.unpack("3i", raw))


def peer_lives(sock: socket.socket) -> bool:
    """Whether the process in the credentials of a Unix socket still lives.

    Another process may keep the socket of a process that has ended, and the pid may belong to a
    third one by now. So a live process under that pid proves nothing. Before Linux 6.5 this cannot
    be checked, and the pid is trusted.

    :raises OSError: no descriptor (EMFILE, ENFILE) or memory is left.
    """
    try:
        pidfd = sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return error.errno == errno.ENOPROTOOPT
    try:
        return not is_readable(pidfd)
    finally:
        os.close(pidfd)


def connect_unix_nowait(path: str, believe: Callable[[PeerCredentials], bool] | None = None) -> RawStream:
    """Connect to a Unix stream socket. On Linux that never waits.

    :param believe: whether the listening process is the expected one. A path does not show which
        process has bound it, but the kernel records the credentials of the process that called
        ``listen``. No byte is sent before they are checked. A process that has ended is never
        believed (``peer_lives``).
    :raises BlockingIOError: the listen queue is full.
    :raises OSError: no process listens there; with ``errno.EPERM``: an unexpected process does.
    """
    from passenger_trio.system.raw_stream import (
        RawStream,  # with Trio, which is not there yet when the first loader connects (DE10)
    )

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
        if believe is not None and not (believe(listener := peer_credentials(sock)) and peer_lives(sock)):
            raise PermissionError(errno.EPERM, f"pid {listener.pid} listens on its socket")
    except BaseException:
        sock.close()
        raise
    return RawStream(sock)
