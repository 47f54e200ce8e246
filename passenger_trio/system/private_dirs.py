"""Whether a directory is private: ours, closed to others, and in a place where nobody can put another in its
stead.

The directory is opened without following a symbolic link, and what is open is looked at. Between the look and
a use nobody can slip another one in, because whoever could rename it is excluded by the look at the directory
above.
"""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["make_private", "why_insecure"]

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def make_private(path: str) -> bool:
    """Make a directory that is private, unless it is there. The result says whether it was made.

    :raises OSError: it cannot be made; with ``errno.EPERM``: it is not private, or would not be, and ``strerror``
        says why in words that follow on "it".
    """
    # Before it is made: a directory left in a stranger's place would be in his way.
    above = os.open(os.path.dirname(path), _OPEN_DIRECTORY)
    try:
        problem = _why_unsafe_place(os.fstat(above))
        if problem:
            raise PermissionError(errno.EPERM, problem)
        try:
            os.mkdir(os.path.basename(path), 0o700, dir_fd=above)
            made = True
        except FileExistsError:
            made = False
    finally:
        os.close(above)
    problem = why_insecure(path)
    if problem:
        raise PermissionError(errno.EPERM, problem)
    return made


def why_insecure(path: str) -> str:
    """``""``, or why a directory cannot be trusted to be private, in words that follow on "it"."""
    try:
        fd = os.open(path, _OPEN_DIRECTORY | os.O_NOFOLLOW)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.ENOTDIR):
            return "is a symbolic link, or no directory"
        return f"cannot be opened: {exc.strerror}"
    try:
        status = os.fstat(fd)
        above = os.stat("..", dir_fd=fd)
    finally:
        os.close(fd)
    if status.st_uid != os.geteuid():
        return f"belongs to another user (uid {status.st_uid})"
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        return f"is open to other users (its mode is {mode:04o}; chmod 700 closes it)"
    return _why_unsafe_place(above)


def _why_unsafe_place(above: os.stat_result) -> str:
    if above.st_uid not in (0, os.geteuid()):
        return f"is in a directory of another user (uid {above.st_uid})"
    if above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX:
        return "is in a directory that others can write to (without the sticky bit), so they could replace it"
    return ""
