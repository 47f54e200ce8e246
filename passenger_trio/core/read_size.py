"""How much of a stream to read in one step: much if it comes in large pieces, little if it comes in small ones.

The cost of a step depends on the number of pieces, not of bytes: 64 KiB can be one frame, or ten
thousand. A reader asks ``limit``, and reports afterwards what it found. A stream of small pieces is a
flood until it shows otherwise (``is_flood``). Each step of a flood waits for its turn among all floods.
So together they cost the clients of other applications one step per turn of the event loop (KE7).
"""

from __future__ import annotations

__all__ = ["STEP", "ReadSize"]

STEP = 64
"""Pieces handled in one step; each costs a few microseconds."""
_FEW = 8
_FACTOR = 4


class ReadSize:
    """The read size of one stream. All sizes are bytes.

    :param first: the limit of the first read, when nothing is known. :param least: the lowest limit. :param most: the
        highest limit.
    """

    __slots__ = ("_least", "_most", "is_flood", "limit")

    def __init__(self, first: int, least: int, most: int) -> None:
        assert 0 < least <= first <= most
        self._least = least
        self._most = most
        self.limit = first
        self.is_flood = False
        """Whether the last read contained many pieces."""

    def found(self, size: int, pieces: int) -> None:
        """A read returned ``size`` bytes that contained ``pieces`` pieces."""
        if pieces > STEP:
            self.is_flood = True
            self.limit = max(self._least, self.limit // _FACTOR)
        elif pieces <= _FEW:
            self.is_flood = False
            if size >= self.limit:
                self.limit = min(self._most, self.limit * _FACTOR)
