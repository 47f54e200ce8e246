"""How much of a stream to read in one step: much if it comes in large pieces, little if it comes in small ones.

The cost of a step depends on the number of pieces, not of bytes: 64 KiB can be one frame, or ten
thousand. A reader asks ``limit``, and reports afterwards what it found. A stream of small pieces is a
flood until it shows otherwise (``is_flood``). Each step of a flood waits for its turn among all floods.
So together they cost the clients of other applications one step per turn of the event loop (KE7). A flood
of tiny pieces is *heavy* (``flood_share``): lines of a table or of a text are longer.
"""

from __future__ import annotations

import math

__all__ = ["STEP", "ReadSize", "SmallReads"]

STEP = 64
"""Pieces handled in one step; each costs a few microseconds."""
_FEW = 8
_FACTOR = 4
_TINY = 32
"""A piece of at least so many bytes, on average and with its framing, is not tiny."""
_SMALL = 1024
"""A read of at least so many bytes is not small."""
_SOON, _PAUSE = 0.02, 0.1
"""Seconds between two reads: at most ``_SOON`` is typical of a flood, ``_PAUSE`` or more is not. (A flood that waits for its turn is read less often.)"""
_IN_A_ROW = 16


class ReadSize:
    """The read size of one stream. All sizes are bytes.

    :param first: the limit of the first read, when nothing is known. :param least: the lowest limit. :param most: the
        highest limit.
    """

    __slots__ = ("_least", "_most", "is_flood", "is_heavy", "limit")

    def __init__(self, first: int, least: int, most: int) -> None:
        assert 0 < least <= first <= most
        self._least = least
        self._most = most
        self.limit = first
        self.is_flood = False
        """Whether the last read contained many pieces."""
        self.is_heavy = False
        """Whether those pieces were tiny."""

    def found(self, size: int, pieces: int) -> None:
        """A read returned ``size`` bytes that contained ``pieces`` pieces."""
        if pieces > STEP:
            self.is_flood = True
            self.is_heavy = size < _TINY * pieces
            self.limit = max(self._least, self.limit // _FACTOR)
        elif pieces <= _FEW:
            self.is_flood = self.is_heavy = False
            if size >= self.limit:
                self.limit = min(self._most, self.limit * _FACTOR)


class SmallReads:
    """Whether a stream is read very often, and very little each time.

    A process that writes byte after byte to a reader that keeps up never has many pieces in one read, and yet costs a step for each.
    Fewer than fifty reads in a second are no flood: that is more than people read.
    """

    __slots__ = ("_at", "_row", "are_flood")

    def __init__(self) -> None:
        self._at = -math.inf
        """When the last read was, in monotonic seconds."""
        self._row = 0
        """Small reads in a row, each soon after the one before."""
        self.are_flood = False

    def found(self, size: int, now: float) -> None:
        """A read returned ``size`` bytes at ``now``, in monotonic seconds."""
        gap, self._at = now - self._at, now
        if size >= _SMALL or gap >= _PAUSE:
            self._row, self.are_flood = 0, False
        elif gap < _SOON:
            self._row += 1
            if self._row >= _IN_A_ROW:
                self.are_flood = True
        else:
            self._row = 0
