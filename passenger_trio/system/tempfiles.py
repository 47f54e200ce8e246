"""Files without a name: written by one process, read back by it, and gone with their last descriptor, however that process ends.

``open_unlinked`` asks for ``O_TMPFILE``, which never has a name; a file system that has no such thing (NFS, some FUSE) gets a file of a random name, created
exclusively, that is unlinked before anything is written. The mode is 0600 either way, and ``O_EXCL`` keeps others from linking it (R34).

These calls wait for a disk, and never for a socket; whoever has an event loop opens, writes and receives in a thread. ``send_file`` waits when what is to be read is no longer
in the page cache.
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
# What a file system says that does not know O_TMPFILE; EISDIR is the answer of a kernel that does not.
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})
_AT_ONCE = 262144
ROOM = 1024
"""Bytes that framing may add to what came."""

Take = Callable[[memoryview], tuple[Sequence[bytes | memoryview], int]]


def open_unlinked(directory: str) -> int:
    """A new file in ``directory``, as a descriptor.

    :raises OSError: the directory is not there, cannot be written to, ...
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
    """Where temporary files are: ``$TMPDIR``, or the first of ``/tmp`` and ``/var/tmp`` that takes a file, or ``/tmp``.

    (``tempfile.gettempdir`` would take the working directory as well, which is often the application, and raises where there is none.)
    """
    candidates = [os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp"]
    found = (path for path in candidates if os.path.isabs(path) and takes_files(path))
    return next(found, "/tmp")


def open_and_unlink(directory: str) -> int:
    """The same for file systems without ``O_TMPFILE``."""
    descriptor, path = tempfile.mkstemp(prefix="buffer.", dir=directory)
    try:
        os.unlink(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_at(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> tuple[int, int | None]:
    """(bytes written, the number of the error that stopped it before all was, or None)."""
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
    """As ``write_at``. There are no more pieces than the kernel takes at once (1024)."""
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
    """What came of ``receive_at``."""

    written: int
    """Bytes."""
    rest: bytes = b""
    """What was to be written behind them, and could not be."""
    error: int | None = None
    """The file's."""
    untaken: bytes = b""
    """What came behind that, and is not for the file."""
    broken: bool = False
    """The connection is broken, which the kernel tells once."""


def receive_at(sock: socket.socket, descriptor: int, offset: int, most: int, take: Take | None = None) -> Received:
    """Receive from a socket that does not block straight into a file, until about ``most`` bytes are written (never more) or the socket has no more now.

    It does not wait for the network: a sender who is slow costs the thread nothing.

    :param take: makes of what came what is written, and of how many bytes of it; it is called no more when that was not all. It may add ``ROOM`` bytes.

    A good end of the connection is left to the next who reads it.
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
    """Hand bytes of a file to a socket that does not block; how many it took, 0 if the file ends before ``offset``.

    :raises BlockingIOError: the socket takes nothing now.
    :raises OSError: of the socket, or of the file.
    """
    try:
        return os.sendfile(sock, descriptor, offset, count)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
    # A file system that sendfile(2) cannot read from.
    data = os.pread(descriptor, min(count, 262144), offset)
    return os.write(sock, data) if data else 0


def truncate(descriptor: int) -> None:
    """Empty a file. About 30 us for each MiB that it had."""
    os.ftruncate(descriptor, 0)


def free_space(directory: str) -> int:
    """Bytes that an ordinary user could write there, 0 if that cannot be known."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize
