"""A front's part of a limit that all fronts have together: divided, never multiplied.

Law: the parts of all fronts add up to the whole, as long as there is at least one for each.
"""

from __future__ import annotations

from passenger_trio.late_classes import frozen

__all__ = ["ALONE", "Share"]


@frozen
class Share:
    """Front ``number``, counted from 0, of ``fronts``."""

    number: int = 0
    fronts: int = 1

    def part(self, whole: int) -> int:
        """This front's part; 0 (no limit) stays 0, and every front gets at least 1."""
        if not whole:
            return 0
        return max(1, whole // self.fronts + (self.number < whole % self.fronts))


ALONE = Share()
