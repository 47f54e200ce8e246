"""The shared page: memory with a line of numbers for each front, and one for the owner. Each writes its own line, and all read all lines.

A front writes its count of connections when it accepts one and when one ends, and the other numbers several times a second. A front that has not written for
``STALE`` seconds shows no life: the others accept connections as if it did not exist. The owner writes how many fronts are active
(``core/fronts/active_fronts.py``): the first ones of those that show life. Nothing but hints and counters is shared in this way.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import trio

from passenger_trio.core.accept_gate import Turn, turn, turn_when_full
from passenger_trio.late_classes import frozen
from passenger_trio.system.shared_page import SharedPage

__all__ = ["BEAT", "FULL", "STALE", "Board", "BoardGate", "FrontLine", "Hint"]

BEAT = 0.1
"""Seconds between two writes."""
STALE = 0.5
FULL = 1000


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
    CPU = 8
    """Processor time that the front has wanted (``system/processor_time.py``), in microseconds."""
    FULL = 9
    """How full its limits are: the fullest, in thousandths (``FULL``)."""
    STILL = 10
    """1: the server stops, and the front has got to know it. It moves no connection any more."""
    USED = 11
    """Processor time that the front has got, in microseconds."""
    MOST = 12
    """Connections that the front may have."""


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
    active: bool


class Board:
    """The page of a server with several fronts."""

    def __init__(self, page: SharedPage, fronts: int) -> None:
        self.page = page
        self.lines: list[memoryview] = [page.line(number) for number in range(fronts)]
        self._owners_line = page.line(fronts)

    @classmethod
    def create(cls, fronts: int) -> Board:
        """:raises OSError: no memory can be shared."""
        return cls(SharedPage.create(fronts + 1, len(Hint)), fronts)

    @classmethod
    def attach(cls, fd: int, fronts: int) -> Board:
        """The page of a descriptor that a front inherited from the owner."""
        return cls(SharedPage(fd, fronts + 1, len(Hint)), fronts)

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
            self.is_active(number, now),
        )

    def beat(self, number: int) -> int:
        """When a front last wrote its line: a number that changes while the front runs; 0: it does not accept."""
        beat: int = self.lines[number][Hint.HEARTBEAT]
        return beat

    def is_full(self, number: int) -> bool:
        """Whether a front has said that it takes no more connections."""
        full: int = self.lines[number][Hint.FULL]
        return full >= FULL

    def room(self, number: int) -> int:
        """How many connections more a front may have, as far as it has said."""
        line = self.lines[number]
        return 0 if self.is_full(number) else max(0, line[Hint.MOST] - line[Hint.CONNECTIONS])

    def is_still(self, now: float) -> bool:
        """Whether the server stops, and no front that shows life moves connections any more."""
        return all(self.lines[number][Hint.STILL] for number in self.alive(now))

    def alive(self, now: float) -> list[int]:
        """The numbers of the fronts that show life."""
        return [number for number, line in enumerate(self.lines) if _is_alive(line, now)]

    @property
    def active(self) -> int:
        """How many of the fronts are active; 0: all."""
        count: int = self._owners_line[0]
        return count

    @active.setter
    def active(self, count: int) -> None:
        self._owners_line[0] = count

    def active_numbers(self, now: float) -> list[int]:
        """The numbers of the active fronts."""
        alive = self.alive(now)
        return alive[: self.active or len(alive)]

    def is_active(self, number: int, now: float) -> bool:
        """Whether a front is active. One that has not shown life yet is, if no front before it is."""
        before = sum(other < number for other in self.alive(now))
        return not self.active or before < self.active


class BoardGate:
    """Decides whether a front takes the next connection (``core.accept_gate``), by the counts on the page."""

    def __init__(
        self,
        board: Board,
        number: int,
        count: Callable[[], int],
        is_full: Callable[[], bool],
        current_time: Callable[[], float],
    ) -> None:
        """:param count: returns the number of connections of this front. :param is_full: returns whether it may have no more."""
        self._board = board
        self._number = number
        self._own = board.lines[number]
        self._count = count
        self._is_full = is_full
        self._current_time = current_time
        self._opened = trio.Event()

    def turn(self) -> Turn:
        """Decide about the next connection."""
        now = self._current_time()
        own = self._own[Hint.CONNECTIONS] = self._count()
        board, lines, number = self._board, self._board.lines, self._number
        if not board.is_active(number, now):
            return Turn.LEAVE
        others = [one for one in board.active_numbers(now) if one != number]
        if self._is_full():
            room_elsewhere = any(board.room(one) for one in board.alive(now) if one != number)
            counts = [(lines[one][Hint.CONNECTIONS], one) for one in others]
            return turn_when_full((own, number), counts, room_elsewhere=room_elsewhere)
        return turn(own, (lines[one][Hint.CONNECTIONS] for one in others if board.room(one)))

    def connection_ended(self) -> None:
        """Tell the others that there is room: they would close idle connections for new ones if they thought that nobody has any."""
        own = self._own
        own[Hint.CONNECTIONS] = self._count()
        if own[Hint.FULL] >= FULL and not self._is_full():
            own[Hint.FULL] = FULL - 1

    @property
    def is_open(self) -> bool:
        """Whether the front is active now."""
        return self._board.is_active(self._number, self._current_time())

    async def wait_open(self) -> None:
        """Return when the front is active. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while not self.is_open:
            await self._opened.wait()

    def look(self) -> None:
        """Called several times a second: wake those who wait, if the front is active."""
        if self.is_open:
            opened, self._opened = self._opened, trio.Event()
            opened.set()


def _is_alive(line: memoryview, now: float) -> bool:
    beat = line[Hint.HEARTBEAT]
    return beat > 0 and now - beat / 1000 < STALE
