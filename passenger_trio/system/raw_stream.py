"""A connection, as the request path uses it: a non-blocking stream socket.

The socket is the standard library's, driven by ``trio.lowlevel.wait_readable`` and ``wait_writable``. The class differs
from ``trio.SocketStream`` in two ways, which save time on every request. It waits *before* it reads: at the start of a
wait no data is there yet, so a first ``recv`` would only raise. And it writes without a checkpoint as long as the kernel
takes the bytes (``send_nowait`` is a synchronous function).

Laws: at most one task reads and one task writes at a time. After ``close`` every call that moves
bytes raises ``trio.ClosedResourceError``.
"""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import struct
import sys
import termios
from collections.abc import Callable, Sequence
from typing import Protocol

import trio
from trio.lowlevel import wait_readable, wait_writable

from passenger_trio.system.poller import Registration

__all__ = ["Cuttable", "RawStream", "reset_on_close"]

_PROBES = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 12}
"""Seconds of silence before the kernel probes a peer, seconds between two probes, and the number of
unanswered probes.
"""

# Errors of a broken connection. Where an error could also be the file's, these mean that the peer
# is gone.
_BROKEN = frozenset(
    {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN, errno.ETIMEDOUT, errno.EHOSTUNREACH}
)


class Cuttable(Protocol):
    """Owns a cancel scope, and sets ``cut`` before it cancels the scope: reading a flag costs less
    than asking a scope.
    """

    cut: bool


class RawStream:
    """A connected, non-blocking stream socket."""

    __slots__ = ("_recv", "_send", "_sock", "fd", "idle_since", "registration")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.fd: int = sock.fileno()
        self.idle_since: float = 0.0
        """For a keeper of idle streams: since when the stream is idle, in monotonic seconds."""
        self.registration: Registration | None = None
        """Set while the poller watches the stream."""
        # Bind the methods once: this saves two attribute look-ups on every request.
        self._recv = sock.recv
        self._send = sock.send

    async def wait_readable(self) -> None:
        """Return when bytes, or the end, have arrived.

        :raises trio.ClosedResourceError: the stream is closed, before or meanwhile.
        """
        if self.fd < 0:
            raise trio.ClosedResourceError
        await wait_readable(self._sock)

    async def recv(self, size: int = 65536, owner: Cuttable | None = None) -> bytes:
        """Some bytes; ``b""`` at EOF. Waits first, then reads.

        :param owner: of a scope around the call. If the scope is cancelled in the same step in
            which bytes arrive, the cancellation is delivered here, before the bytes are read.
            Otherwise it would come at the next checkpoint, which may belong to other work.
        :raises trio.BrokenResourceError: the connection is broken.
        """
        if self.fd < 0:
            raise trio.ClosedResourceError
        while True:
            await wait_readable(self._sock)
            if owner is not None and owner.cut:
                await trio.lowlevel.checkpoint()
            try:
                return self._recv(size)
            except BlockingIOError:
                continue  # a spurious wake-up
            except OSError as exc:
                raise self._failed(exc) from exc

    def recv_nowait(self, size: int = 65536) -> bytes:
        """Read the bytes that have arrived.

        :raises trio.WouldBlock: none have.
        :raises trio.BrokenResourceError: the connection is broken.
        """
        if self.fd < 0:
            raise trio.ClosedResourceError
        try:
            return self._recv(size)
        except BlockingIOError:
            raise trio.WouldBlock from None
        except OSError as exc:
            raise trio.BrokenResourceError(exc.strerror) from exc

    async def recv_into(self, buffer: memoryview | bytearray) -> int:
        """Read into ``buffer``. Returns the number of bytes, 0 at EOF. Waits first, then reads."""
        if self.fd < 0:
            raise trio.ClosedResourceError
        while True:
            await wait_readable(self._sock)
            try:
                return self._sock.recv_into(buffer)
            except BlockingIOError:
                continue
            except OSError as exc:
                raise self._failed(exc) from exc

    def recv_into_nowait(self, buffer: memoryview | bytearray) -> int:
        """As ``recv_into``, for bytes that have arrived.

        :raises trio.WouldBlock: none have.
        """
        if self.fd < 0:
            raise trio.ClosedResourceError
        try:
            return self._sock.recv_into(buffer)
        except BlockingIOError:
            raise trio.WouldBlock from None
        except OSError as exc:
            raise trio.BrokenResourceError(exc.strerror) from exc

    @property
    def waiting(self) -> int:
        """Bytes that have arrived and are unread (FIONREAD); 0 if that is unknown."""
        if self.fd < 0:
            return 0
        try:
            return int.from_bytes(fcntl.ioctl(self.fd, termios.FIONREAD, bytes(4)), sys.byteorder)
        except OSError:
            return 0

    @property
    def undelivered(self) -> int:
        """Bytes that were sent and that the peer has not acknowledged (SIOCOUTQ), also after the
        peer has broken the connection; 0 if that is unknown.
        """
        if self.fd < 0:
            return 0
        try:
            return int.from_bytes(fcntl.ioctl(self.fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            return 0

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Hand the kernel the bytes that it takes now. Returns their number, possibly 0. Never
        waits.

        :raises trio.BrokenResourceError: the connection is broken.
        """
        if self.fd < 0:
            raise trio.ClosedResourceError
        try:
            return self._send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise trio.BrokenResourceError(exc.strerror) from exc

    @property
    def takes_more(self) -> bool:
        """Whether ``wait_writable`` would return at once: the kernel takes bytes, or the connection
        is broken.
        """
        if self.fd < 0:
            return False
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return bool(poll.poll(0))

    def sendmsg_nowait(self, pieces: Sequence[bytes | bytearray | memoryview]) -> int:
        """As ``send_nowait``, for several pieces in one system call."""
        if self.fd < 0:
            raise trio.ClosedResourceError
        try:
            return self._sock.sendmsg(pieces)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise trio.BrokenResourceError(exc.strerror) from exc

    def send_file_nowait(
        self, send_file: Callable[[int, int, int, int], int], file: int, offset: int, count: int
    ) -> int:
        """Hand bytes of a file to the kernel with ``send_file`` (``tempfiles.send_file``). Returns
        the number that it takes now, 0 if the file ends before ``offset``.

        :raises trio.BrokenResourceError: the connection is broken.
        :raises BlockingIOError: the connection takes no bytes now.
        :raises OSError: the file cannot be read.
        """
        if self.fd < 0:
            raise trio.ClosedResourceError
        try:
            return send_file(self.fd, file, offset, count)
        except OSError as exc:
            if exc.errno in _BROKEN:
                raise trio.BrokenResourceError(exc.strerror) from exc
            raise

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``. Always a checkpoint.

        :raises trio.BrokenResourceError: the connection is broken; the number of bytes sent is
            unknown.
        """
        if self.fd < 0:
            raise trio.ClosedResourceError
        rest = memoryview(data)
        while True:
            await wait_writable(self._sock)
            rest = rest[self.send_nowait(rest) :]
            if not rest:
                return

    async def wait_writable(self) -> None:
        """Return when the kernel takes bytes, or the connection is broken."""
        if self.fd < 0:
            raise trio.ClosedResourceError
        await wait_writable(self._sock)

    def send_eof(self) -> None:
        """Half-close: no byte follows. A connection that is already gone is not an error."""
        if self.fd >= 0:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def reset_on_close(self) -> None:
        """Make ``close`` send RST where the protocol has one (R25: an HTTP/1.0 client must see a truncation)."""
        if self.fd >= 0 and self._sock.family != socket.AF_UNIX:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def probe_peer(self) -> None:
        """Let the kernel check whether a peer that has sent FIN still exists. If it does not, the
        connection breaks.

        A half-close and a close look the same. But a half-closed peer answers probes as long as it
        lives. The kernel of a closed one forgets the connection, on most systems in a minute
        (``tcp_fin_timeout``), and then answers that it does not know the connection. (A Unix socket
        reports a close at once.)
        """
        if self.fd >= 0 and self._sock.family != socket.AF_UNIX:
            for option, value in _PROBES.items():
                self._sock.setsockopt(socket.IPPROTO_TCP, option, value)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def unregister(self) -> None:
        """The poller stops watching the stream. Idempotent."""
        registration, self.registration = self.registration, None
        if registration is not None:
            registration.unregister()

    def close(self) -> None:
        if self.fd >= 0:
            self.unregister()
            self.fd = -1
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def _failed(self, exc: OSError) -> trio.BrokenResourceError | trio.ClosedResourceError:
        """The error for a read that failed after a wait: the stream may have been closed in between."""
        return trio.ClosedResourceError() if self.fd < 0 else trio.BrokenResourceError(exc.strerror)

    @property
    def socket(self) -> socket.socket:
        return self._sock


def reset_on_close(sock: socket.socket) -> None:
    """Make the close of this TCP socket send RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
