"""The spill quota: how much all buffers together may use on disk, and when to try the disk again after an error.

This module knows byte counts, error numbers and times. It never opens a file, and never knows which buffer asks.

Laws:

* The files of all buffers together never exceed ``limit`` bytes: each write reserves its bytes before it begins.
* After an error no buffer tries the disk before the time in ``FAULTS`` has passed. If the error was that no file could be
  opened, files that are open are still written.
* Each error is counted. At most one a minute is logged.
"""

from __future__ import annotations

import errno
from collections import Counter
from typing import Final

from passenger_trio.core.buffer_sizes import THRESHOLD
from passenger_trio.errors import InvariantBroken

__all__ = ["FAULTS", "SpillQuota"]

FAULTS: Final = {
    errno.ENOSPC: ("no_space", 1.0),
    errno.EDQUOT: ("no_space", 1.0),
    errno.EFBIG: ("file_too_large", 1.0),
    errno.EIO: ("input_output", 1.0),
    errno.EMFILE: ("no_descriptor", 1.0),
    errno.ENFILE: ("no_descriptor", 1.0),
    errno.EAGAIN: ("no_thread", 1.0),
    errno.ENOMEM: ("no_memory", 1.0),
    errno.ENOENT: ("unavailable", 10.0),
    errno.ENOTDIR: ("unavailable", 10.0),
    errno.EACCES: ("unavailable", 10.0),
    errno.EPERM: ("unavailable", 10.0),
    errno.EROFS: ("unavailable", 10.0),
}
"""Error of a write or an open -> the word under which it is counted, and the seconds until the disk is tried again
(F27 to F32). EAGAIN means that no thread could be started."""

_OF_NEW_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""Errors of opening a file, after which files that are open can still be written."""

_OTHER: Final = ("other", 1.0)
_LOG_EVERY: Final = 60.0
_SHARE: Final = 0.8
"""The limit, as a share of the space that is free at the start, if ``--data-buffer-max`` sets none."""


class SpillQuota:
    """What all buffers together may use on disk, and whether the disk is usable. The only owner of these numbers."""

    __slots__ = ("_logged", "_open_at", "_retry_at", "errors", "limit", "paused", "spilled", "used")

    def __init__(self, limit: int, free: int = 0) -> None:
        """:param limit: bytes on disk; 0: a share of ``free``, the bytes that are free now."""
        self.limit: int = limit or int(free * _SHARE)
        self.used: int = 0
        """Bytes on disk: the lengths of all files."""
        self.spilled: int = 0
        """Bytes ever written."""
        self.paused: int = 0
        """How often a producer had to pause."""
        self.errors: Counter[str] = Counter()
        """Counted by the words of ``FAULTS``; ``quota``: the limit was reached; ``read``: reading back failed."""
        self._retry_at = self._open_at = float("-inf")
        self._logged = float("-inf")

    def usable(self, now: float, *, new_file: bool = False) -> bool:
        """Whether to try a write: the quota must have room for a whole threshold. ``new_file``: the file is not open yet."""
        open_at = self._open_at if new_file else self._retry_at
        return now >= self._retry_at and now >= open_at and self.limit - self.used >= THRESHOLD

    def exhausted(self, now: float) -> bool:
        """Whether ``usable`` is false because of the limit."""
        return now >= self._retry_at and self.limit - self.used < THRESHOLD

    def retry_in(self, now: float) -> float:
        """Seconds until asking again is useful. At the limit: once a second, as buffers release room."""
        return self._retry_at - now if now < self._retry_at else 1.0

    def reserve(self, wanted: int) -> int:
        """How many bytes of ``wanted`` may be written; they count from now on."""
        granted = max(0, min(wanted, self.limit - self.used))
        self.used += granted
        return granted

    def release(self, count: int) -> None:
        """``count`` bytes have left the disk, or were not written."""
        if not 0 <= count <= self.used:
            raise InvariantBroken("more disk space was released than was reserved")
        self.used -= count

    def failed(self, error: int | None, now: float) -> str:
        """A write or an open failed: no buffer tries again before the time of ``FAULTS``. Returns the word for it."""
        word, wait = FAULTS.get(error or 0, _OTHER)
        self.errors[word] += 1
        if error in _OF_NEW_FILES:
            self._open_at = max(self._open_at, now + wait)
        else:
            self._retry_at = max(self._retry_at, now + wait)
        return word

    def worth_a_line(self, now: float) -> bool:
        """Whether a fault may be logged: one line a minute, for all kinds together."""
        if now - self._logged < _LOG_EVERY:
            return False
        self._logged = now
        return True
