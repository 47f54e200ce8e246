"""The owner's part of the balance of fronts: it looks at the shared page and says there how many fronts are active (``core/fronts/active_fronts.py``).

It measures, and decides nothing: what the fronts have written, and what is idle of the processors (``system/processor_time.py``). Idle time varies from look to
look, so the lower one of the last value and of an average is told; and it is read only while the fronts are busy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import trio

from passenger_trio.core.fronts.active_fronts import ActiveFronts, Load
from passenger_trio.fronts.heartbeats import BEAT, Board, Hint
from passenger_trio.system.processor_time import idle_time
from passenger_trio.system.syscalls import processors

__all__ = ["Balance"]

_QUIET = 0.4
"""Cores for each active front. With less, the next look is after ``_REST``."""
_REST = 0.25
"""Seconds."""
_SMOOTH = 8
"""Looks. What is idle between two looks varies by more than what it is to be compared with."""


class Balance:
    """``run`` is its task."""

    def __init__(self, board: Board, fronts: int, idle: Callable[[], float | None] | None = None) -> None:
        """:param idle: returns the seconds for which the processors of the server had nothing to do, added up; None: the kernel's."""
        self._board = board
        numbers = processors()
        self._active = ActiveFronts(fronts, len(numbers))
        self._last: dict[int, tuple[int, int, int]] = {}
        """Number of a front -> its heartbeat (milliseconds) and its processor times (microseconds), wanted and used, when they last changed."""
        self._cpu: dict[int, tuple[float, float]] = {}
        """Number of a front -> cores that it wanted between its last two heartbeats, and cores that it used."""
        self._idle = idle or partial(idle_time, numbers)
        self._idle_before: tuple[float, float] | None = None
        """The last look: when, and the seconds. None: it was of a quiet server, which needs no other front."""
        self._usually_idle = 0.0
        """Cores, on an average that begins with none: the less is idle, the longer it takes to be sure."""
        self._has_ended = False
        board.active = self._active.count

    async def run(self) -> None:
        """Decide until cancelled."""
        pause = _REST
        while True:
            await trio.sleep(pause)
            if self._has_ended:
                return
            now = trio.current_time()
            load = self._load(now)
            self._board.active = self._active.look(now, load)
            # A quiet server's owner mostly sleeps: a look finds all its code cold, and costs half a millisecond.
            pause = _REST if load.cpu < _QUIET * self._active.count else BEAT

    def end(self) -> None:
        """The server stops: no connection moves from now on. (One that was under way to a front that has ended would be lost.)"""
        self._has_ended = True
        self._board.active = 0

    def _load(self, now: float) -> Load:
        board = self._board
        alive = board.alive(now)
        cpu, used, full, connections, slots = 0.0, 0.0, 0.0, 0, 0
        for number in alive:
            line = board.lines[number]
            beat, wants, gets = line[Hint.HEARTBEAT], line[Hint.CPU], line[Hint.USED]
            last_beat, last_wants, last_gets = self._last.get(number, (beat, wants, gets))
            if beat != last_beat:
                # A front that was started again begins at zero.
                us = 1000 * max(1, beat - last_beat)
                self._cpu[number] = max(0, wants - last_wants) / us, max(0, gets - last_gets) / us
            self._last[number] = beat, wants, gets
            if line[Hint.CONNECTIONS]:
                # What a front does without any is no load: it has just started, and builds its classes.
                wanted, got = self._cpu.get(number, (0.0, 0.0))
                cpu += wanted
                used += got
            full += line[Hint.FULL] / 1000
            connections += line[Hint.CONNECTIONS]
            slots += line[Hint.LEASED]
        is_quiet = cpu < _QUIET * self._active.count
        return Load(cpu, full, connections, slots, used, self._idle_cores(now, is_quiet))

    def _idle_cores(self, now: float, is_quiet: bool) -> float:
        """How many cores nobody uses. The first look at a server that is busy cannot know it yet: none."""
        if is_quiet:
            self._idle_before = None
            return math.inf
        seconds = self._idle()
        if seconds is None:
            return math.inf
        before, self._idle_before = self._idle_before, (now, seconds)
        if before is None or now <= before[0]:
            self._usually_idle = 0.0
            return 0.0
        idle = (seconds - before[1]) / (now - before[0])
        self._usually_idle += (idle - self._usually_idle) / _SMOOTH
        return min(idle, self._usually_idle)
