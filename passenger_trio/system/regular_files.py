"""Reading a file that somebody else wrote: a regular one, and no more of it than is wanted (R47).

A FIFO or a device in a file's stead would be waited for, or read for ever: what is there is opened without waiting, and looked at before it is read. A link is
followed: these are files that an operator may have linked (a shared configuration). What must not be a link is opened where its directory is ours
(``private_dirs``, ``admin/instances.py``).
"""

from __future__ import annotations

import os
import stat

__all__ = ["read_regular"]


def read_regular(path: str, most: int) -> bytes | None:
    """The first ``most`` bytes; None: there is no such file, or it is none to read (a directory, a FIFO, a device).

    :raises OSError: it may not be read, or the disk refuses.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        with open(fd, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(fd)
