"""Files without a name: one process writes and reads them. They vanish with their last descriptor,
however that process ends.

``open_unlinked`` uses ``O_TMPFILE``, which never creates a name. A file system without it (NFS,
some FUSE) gets a file with a random name, created exclusively and unlinked before anything is
written. The mode is 0600 either way, and ``O_EXCL`` keeps other users from linking the file (R34).

These calls wait for a disk, never for a socket. A caller with an event loop opens, writes and
receives in a thread. ``send_file`` waits if the bytes are no longer in the page cache.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

from passenger_trio.system.syscalls import O_TMPFILE

__all__ = [
    "ROOM",
    "Received",
    "Take",
    "default_directory",
    "free_space",
    "open_and_unlink",
    "open_unlinked",
    "receive_at",
    "send_file",
    "takes_files",
    "truncate",
    "write_at",
]

_FLAGS = os.O_RDWR | os.O_EXCL | os.O_CLOEXEC
# Errors of a file system without O_TMPFILE; EISDIR is the error of a kernel without it.
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})
_AT_ONCE = 262144
ROOM = 1024
"""Bytes that framing may add to the received bytes."""

Take = Callable[[memoryview], tuple[Sequence[bytes | memoryview], int]]


def open_unlinked(directory: str) -> int:
    """A new file in ``directory``, as a descriptor.

    :raises OSError: the directory does not exist, is not writable, ...
    """
    try:
        return os.open(directory, _FLAGS | O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    return open_and_unlink(directory)


def takes_files(directory: str) -> bool:
    """Whether ``open_unlinked`` can make a file in ``directory`` now."""
    try:
        os.close(open_unlinked(directory))
    except OSError:
        return False
    return True


def default_directory() -> str:
    """The directory for temporary files: ``$TMPDIR``, or the first of ``/tmp`` and ``/var/tmp`` in
    which a file can be made, or ``/tmp``.

    (``tempfile.gettempdir`` also takes the working directory, which is often the application's, and
    raises where no directory works.)
    """
    candidates = [os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp"]
    found = (path for path in candidates if os.path.isabs(path) and takes_files(path))
    return next(found, "/tmp")


def open_and_unlink(directory: str) -> int:
    """As ``open_unlinked``, for file systems without ``O_TMPFILE``."""
    descriptor, path = tempfile.mkstemp(prefix="buffer.", dir=directory)
    try:
        os.unlink(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_at(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> tuple[int, int | None]:
    """Returns the number of bytes written, and the number of the error that stopped the write
    early, or None.
    """
    written = 0
    with memoryview(data) as view:
        while written < len(view):
            try:
                count = os.pwrite(descriptor, view[written:], offset + written)
            except OSError as error:
                return written, error.errno or errno.EIO
            if not count:
                return written, errno.EIO
            written += count
    return written, None


def write_pieces_at(descriptor: int, pieces: Sequence[bytes | memoryview], offset: int) -> tuple[int, int | None]:
    """As ``write_at``, for at most as many pieces as the kernel takes in one call (1024)."""
    if not pieces:
        return 0, None
    try:
        written = os.pwritev(descriptor, pieces, offset)
    except OSError as error:
        return 0, error.errno or errno.EIO
    if written == sum(map(len, pieces)):
        return written, None
    more, failed = write_at(descriptor, b"".join(pieces)[written:], offset + written)
    return written + more, failed


class Received(NamedTuple):
    """The result of ``receive_at``."""

    written: int
    """Bytes."""
    rest: bytes = b""
    """Bytes that follow the written ones and could not be written."""
    error: int | None = None
    """The error number of the file."""
    untaken: bytes = b""
    """Bytes that were received after those, and do not belong in the file."""
    broken: bool = False
    """The connection is broken. The kernel reports that once."""


def receive_at(sock: socket.socket, descriptor: int, offset: int, most: int, take: Take | None = None) -> Received:
    """Receive from a non-blocking socket straight into a file, until about ``most`` bytes are
    written (never more) or the socket has no more now.

    It does not wait for the network: a slow sender costs the thread nothing.

    :param take: converts received bytes: returns the pieces to write, and the number of bytes that
        it took. If it did not take all, it is not called again. It may add ``ROOM`` bytes.

    A clean EOF is left to the next reader of the connection.
    """
    buffer = memoryview(bytearray(min(most, _AT_ONCE)))
    total = 0
    room = most if take is None else most - ROOM
    while total < room:
        try:
            count = sock.recv_into(buffer[: room - total])
        except BlockingIOError:
            break
        except OSError:
            return Received(total, broken=True)
        if not count:
            break
        pieces, taken = ([buffer[:count]], count) if take is None else take(buffer[:count])
        written, error = write_pieces_at(descriptor, pieces, offset + total)
        total += written
        untaken = bytes(buffer[taken:count])
        if error is not None:
            return Received(total, b"".join(pieces)[written:], error, untaken)
        if untaken:
            return Received(total, untaken=untaken)
    return Received(total)


def send_file(sock: int, descriptor: int, offset: int, count: int) -> int:
    """Hand bytes of a file to a non-blocking socket. Returns the number that it took, 0 if the file
    ends before ``offset``.

    :raises BlockingIOError: the socket takes no bytes now.
    :raises OSError: the socket or the file failed.
    """
    try:
        return os.sendfile(sock, descriptor, offset, count)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
    # sendfile(2) cannot read from this file system.
    data = os.pread(descriptor, min(count, 262144), offset)
    return os.write(sock, data) if data else 0


def truncate(descriptor: int) -> None:
    """Empty a file. Takes about 30 us for each MiB of it."""
    os.ftruncate(descriptor, 0)


def free_space(directory: str) -> int:
    """Bytes that an ordinary user could write in the directory; 0 if that is unknown."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize
