"""Whether a user can reach what an application needs: its interpreter, its directory and its startup file (OP8).

The application's user has other permissions than root, who started the server. So the server checks before the first request
whether the program can be started at all. ``core.users.is_allowed`` judges permission bits. If they refuse, this module asks the
kernel, as that user, because access lists may allow more than the bits show.

Law: an application that this module refuses could not start. One that it accepts may still fail."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator

from passenger_trio.core.users import is_allowed
from passenger_trio.spawning.accounts import remembered

__all__ = ["what_is_closed"]

_SEARCH, _READ = 1, 4
_PATIENCE = 10.0
"""Seconds."""
_MOST = 256
_OPEN: set[tuple[str, int, int, tuple[int, ...]]] = set()
"""Paths that a user is known to reach: thousands of applications have the same few interpreters."""


def what_is_closed(path: str, uid: int, gid: int, groups: tuple[int, ...], *, runs: bool) -> str:
    """The part of a path that is closed to a user; ``""``: none is known to be. Blocking.

    :param path: absolute; a file or a directory.
    :param runs: whether it is a program to run; otherwise a file to read, or a directory to enter.
    """
    key = path, uid, gid, groups
    if key in _OPEN or (not runs and _is_plainly_open(path, uid, gid, groups)):
        return ""
    for part, is_last in _parts(path):
        try:
            status = os.stat(part)
        except OSError:
            return ""  # the spawn reports it
        is_directory = stat.S_ISDIR(status.st_mode)
        wanted = _SEARCH if not is_last or runs or is_directory else _READ
        if not is_allowed(uid, {gid, *groups}, status.st_uid, status.st_gid, status.st_mode, wanted):
            return part if _is_refused(path, uid, gid, groups, "-x" if runs or os.path.isdir(path) else "-r") else ""
    if runs:
        if len(_OPEN) >= _MOST:
            _OPEN.clear()
        _OPEN.add(key)
    return ""


def _is_plainly_open(path: str, uid: int, gid: int, groups: tuple[int, ...]) -> bool:
    """Whether permission bits open the path, and no part of it is a link, which is nearly always so. Directories that thousands of
    applications have in common are examined once (OP5). False: the caller must examine every part.
    """
    directory = os.path.dirname(path)
    if not _is_open_way(os.path.dirname(directory), uid, gid, groups):
        return False
    return _allows(directory, uid, gid, groups, _SEARCH) and _allows(path, uid, gid, groups, _READ)


@remembered
def _is_open_way(directory: str, uid: int, gid: int, groups: tuple[int, ...]) -> bool:
    above = os.path.dirname(directory)
    if above != directory and not _is_open_way(above, uid, gid, groups):
        return False
    return _allows(directory, uid, gid, groups, _SEARCH)


def _allows(path: str, uid: int, gid: int, groups: tuple[int, ...], wanted: int) -> bool:
    """Whether permission bits allow the access. :param wanted: the access to a file. For a directory, the right to enter is checked instead."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    if stat.S_ISLNK(status.st_mode):
        return False
    if stat.S_ISDIR(status.st_mode):
        wanted = _SEARCH
    return is_allowed(uid, {gid, *groups}, status.st_uid, status.st_gid, status.st_mode, wanted)


def _parts(path: str) -> Iterator[tuple[str, bool]]:
    """Every directory on the way to the path, then the path itself. The same for the target of each link."""
    for whole in dict.fromkeys((path, os.path.realpath(path))):
        names = whole.strip(os.sep).split(os.sep)
        for end in range(1, len(names) + 1):
            yield os.sep + os.sep.join(names[:end]), end == len(names)


def _is_refused(path: str, uid: int, gid: int, groups: tuple[int, ...], test: str) -> bool:
    try:
        asked = subprocess.run(
            ["/bin/sh", "-c", f'test {test} "$0"', path],
            user=uid,
            group=gid,
            extra_groups=list(groups),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return asked.returncode == 1
