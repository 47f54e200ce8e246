"""The shared page: memory with a line of numbers for each front. The front writes its own line, and all fronts and the owner read all lines.

A front writes its count of connections when it accepts one, and the other numbers several times a second. A front that has not written for
``STALE`` seconds shows no life: the others accept connections as if it did not exist. Nothing but hints and counters is shared in this way.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator

from passenger_trio.core.accept_gate import Turn, turn
from passenger_trio.late_classes import frozen
from passenger_trio.system.shared_page import SharedPage

__all__ = ["BEAT", "STALE", "Board", "BoardGate", "FrontLine", "Hint"]

BEAT = 0.1
"""Seconds between two writes."""
STALE = 0.5


class Hint(enum.IntEnum):
    """The places of the numbers in a line."""

    HEARTBEAT = 0
    """When the front last wrote, in milliseconds of the monotonic clock; 0: it does not accept."""
    CONNECTIONS = 1
    BUSY = 2
    """Requests in progress."""
    LEASED = 3
    """Slots that the front has."""
    LAG = 4
    """How late its event loop was when it last wrote, in microseconds."""
    ACCEPTED = 5
    REQUESTS = 6
    PID = 7


@frozen
class FrontLine:
    """The content of a line when it was read."""

    pid: int
    connections: int
    busy: int
    leased: int
    lag: float
    """Seconds."""
    alive: bool


class Board:
    """The page of a server with several fronts."""

    def __init__(self, page: SharedPage, fronts: int) -> None:
        self.page = page
        self.lines: list[memoryview] = [page.line(number) for number in range(fronts)]

    @classmethod
    def create(cls, fronts: int) -> Board:
        """:raises OSError: no memory can be shared."""
        return cls(SharedPage.create(fronts, len(Hint)), fronts)

    @classmethod
    def attach(cls, fd: int, fronts: int) -> Board:
        """The page of a descriptor that a front inherited from the owner."""
        return cls(SharedPage(fd, fronts, len(Hint)), fronts)

    def clear(self, number: int) -> None:
        """Clear the line of a front that is gone, so that it no longer counts."""
        line = self.lines[number]
        for at in range(len(Hint)):
            line[at] = 0

    def read(self, number: int, now: float) -> FrontLine:
        """Read the line of a front."""
        line = self.lines[number]
        return FrontLine(
            line[Hint.PID],
            line[Hint.CONNECTIONS],
            line[Hint.BUSY],
            line[Hint.LEASED],
            line[Hint.LAG] / 1e6,
            _is_alive(line, now),
        )

    def beat(self, number: int) -> int:
        """When a front last wrote its line: a number that changes while the front runs; 0: it does not accept."""
        beat: int = self.lines[number][Hint.HEARTBEAT]
        return beat


class BoardGate:
    """Decides whether a front takes the next connection (``core.accept_gate``), by the counts on the page."""

    def __init__(self, board: Board, number: int, count: Callable[[], int], current_time: Callable[[], float]) -> None:
        self._own = board.lines[number]
        self._others = [line for at, line in enumerate(board.lines) if at != number]
        self._count = count
        self._current_time = current_time

    def turn(self) -> Turn:
        """Decide about the next connection."""
        own = self._own[Hint.CONNECTIONS] = self._count()
        return turn(own, self._alive())

    def _alive(self) -> Iterator[int]:
        now = self._current_time()
        return (line[Hint.CONNECTIONS] for line in self._others if _is_alive(line, now))


def _is_alive(line: memoryview, now: float) -> bool:
    beat = line[Hint.HEARTBEAT]
    return beat > 0 and now - beat / 1000 < STALE
