"""Notices changes in a directory (inotify(7)): created, written, removed and renamed files.

It does not tell which file has changed: its caller looks. A directory of any size costs nothing while nothing changes."""

from __future__ import annotations

import ctypes
import os
import struct

import trio

__all__ = ["DirectoryWatch"]

_IN_CLOSE_WRITE, _IN_MOVED_FROM, _IN_MOVED_TO, _IN_CREATE = 0x8, 0x40, 0x80, 0x100
_IN_DELETE, _IN_DELETE_SELF, _IN_MOVE_SELF, _IN_ATTRIB = 0x200, 0x400, 0x800, 0x4
_IN_ONLYDIR = 0x01000000
_CHANGES = _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
_GONE = _IN_DELETE_SELF | _IN_MOVE_SELF
_EVENT = struct.Struct("iIII")
"""Watch, mask, cookie, length of the name that follows."""

_libc = ctypes.CDLL(None, use_errno=True)


class DirectoryWatch:
    """Close it, or use it in a ``with`` block."""

    def __init__(self, path: str) -> None:
        """:raises OSError: there is no such directory, or the kernel has no watch left."""
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            _checked(_libc.inotify_add_watch(self._fd, os.fsencode(path), _CHANGES | _GONE | _IN_ATTRIB | _IN_ONLYDIR))
        except OSError:
            self.close()
            raise

    async def wait_changed(self) -> bool:
        """Return when something has changed since the last time; False: the directory itself is gone, or elsewhere.
        Always a checkpoint.
        """
        await trio.lowlevel.wait_readable(self._fd)
        is_there = True
        while True:
            try:
                events = os.read(self._fd, 65536)
            except BlockingIOError:
                return is_there
            place = 0
            while place < len(events):
                _, mask, _, length = _EVENT.unpack_from(events, place)
                place += _EVENT.size + length
                is_there = is_there and not mask & _GONE

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> DirectoryWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
