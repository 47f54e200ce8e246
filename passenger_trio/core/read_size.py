"""How much of a stream is read in one step: much where it comes in large pieces, little where it comes in small ones.

What a step costs is the number of pieces, not the number of bytes: 64 KiB can be one frame, or ten thousand. Who reads asks ``limit``, and tells afterwards what
it found. A stream of small pieces is a flood until it shows otherwise (``is_flood``): each of its steps waits for its turn among all floods, so that together they
cost the clients of other applications one step for each turn of the event loop (KE7).
"""

from __future__ import annotations

__all__ = ["STEP", "ReadSize"]

STEP = 64
"""Pieces that are handled in one step; each costs a few microseconds."""
_FEW = 8
_FACTOR = 4


class ReadSize:
    """Of one stream. All sizes are bytes.

    :param first: for the first read, when nothing is known. :param least: never less. :param most: never more.
    """

    __slots__ = ("_least", "_most", "is_flood", "limit")

    def __init__(self, first: int, least: int, most: int) -> None:
        assert 0 < least <= first <= most
        self._least = least
        self._most = most
        self.limit = first
        self.is_flood = False
        """Whether the last read had many pieces."""

    def found(self, size: int, pieces: int) -> None:
        """A read gave ``size`` bytes, and ``pieces`` were in them."""
        if pieces > STEP:
            self.is_flood = True
            self.limit = max(self._least, self.limit // _FACTOR)
        elif pieces <= _FEW:
            self.is_flood = False
            if size >= self.limit:
                self.limit = min(self._most, self.limit * _FACTOR)
