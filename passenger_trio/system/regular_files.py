"""Reads a file that another program wrote: only a regular file, and only a limited number of bytes
(R47).

A FIFO would block, and a device could be endless. So the file is opened without waiting, and
checked before it is read. Links are followed: an operator may link these files (a shared
configuration). Files that must not be links are opened in a directory of our own (``private_dirs``,
``admin/instances.py``).
"""

from __future__ import annotations

import os
import stat

__all__ = ["read_regular"]

_PIECE = 65536


def read_regular(path: str, most: int) -> bytes | None:
    """The first ``most`` bytes. None: the file does not exist or is not regular (a directory, a
    FIFO, a device).

    :raises OSError: permission is denied, or the disk refuses.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        piece = os.read(fd, min(most, _PIECE))
        if len(piece) == min(status.st_size, most) and piece:
            return piece  # all of it, as nearly always (a file of /proc has no size)
        pieces, left = [piece], most - len(piece)
        while left > 0 and (piece := os.read(fd, min(left, _PIECE))):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)
