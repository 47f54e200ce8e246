"""Whether a directory is private: it belongs to us, is closed to other users, and cannot be
replaced by another user.

The directory is opened without following a symbolic link, and the open descriptor is checked. No
other user can replace the directory between the check and a use: the check of the parent directory
excludes every user that could rename it.
"""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["make_private", "why_insecure"]

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def make_private(path: str) -> bool:
    """Make a private directory unless it exists. Returns whether it was made.

    :raises OSError: the directory cannot be made. With ``errno.EPERM``: it is not private, or would
        not be; ``strerror`` gives the reason, to follow on "it".
    """
    # Check before making it: a directory left in another user's place would be in that user's way.
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
    """``""``, or why the directory is not private, in words that follow on "it"."""
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
