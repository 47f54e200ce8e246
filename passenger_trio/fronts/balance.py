"""The owner's part of the balance of fronts: it looks at the shared page and says there how many fronts are active (``core/fronts/active_fronts.py``).

It measures, and decides nothing: what the fronts have written, what is idle of the processors (``system/processor_time.py``), and what is left of the server's
quota (``system/processor_quota.py``). These are read only while the fronts are busy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from passenger_trio.core.fronts.active_fronts import ActiveFronts, Load
from passenger_trio.core.fronts.idle_cores import IdleCores
from passenger_trio.fronts.heartbeats import BEAT, Board, Hint
from passenger_trio.system.processor_quota import cpus, processor_quota
from passenger_trio.system.processor_time import idle_time
from passenger_trio.system.syscalls import processors

__all__ = ["Balance"]

_QUIET = 0.4
"""Cores for each active front. With less, the next look is after ``_REST``."""
_REST = 0.25
"""Seconds."""


class Balance:
    """``run`` is its task."""

    def __init__(self, board: Board, fronts: int, idle: Callable[[], float | None] | None = None) -> None:
        """:param idle: returns the seconds for which the processors of the server had nothing to do, added up; None: the kernel's."""
        self._board = board
        self._active = ActiveFronts(fronts, cpus())
        self._last: dict[int, tuple[int, int, int]] = {}
        """Number of a front -> its heartbeat (milliseconds) and its processor times (microseconds), wanted and used, when they last changed."""
        self._cpu: dict[int, tuple[float, float]] = {}
        """Number of a front -> cores that it wanted between its last two heartbeats, and cores that it used."""
        self._idle = idle or partial(idle_time, processors())
        self._quota = processor_quota()
        self._idle_cores = IdleCores(self._quota.cores)
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
        if cpu < _QUIET * self._active.count:
            self._idle_cores.rest()
            return Load(cpu, full, connections, slots, used)
        return Load(cpu, full, connections, slots, used, self._idle_cores.look(now, self._idle(), self._quota.used()))
