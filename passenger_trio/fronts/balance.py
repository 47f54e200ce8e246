"""The owner's part of the balance of fronts: it looks at the shared page and says there how many fronts are active (``core/fronts/active_fronts.py``)."""

from __future__ import annotations

import trio

from passenger_trio.core.fronts.active_fronts import ActiveFronts, Load
from passenger_trio.fronts.heartbeats import BEAT, Board, Hint
from passenger_trio.system.syscalls import cpus

__all__ = ["Balance"]

_QUIET = 0.4
"""Cores for each active front. With less, the next look is after ``_REST``."""
_REST = 0.25
"""Seconds."""


class Balance:
    """``run`` is its task."""

    def __init__(self, board: Board, fronts: int) -> None:
        self._board = board
        self._active = ActiveFronts(fronts, cpus())
        self._last: dict[int, tuple[int, int]] = {}
        """Number of a front -> its heartbeat (milliseconds) and its processor time (microseconds) when they last changed."""
        self._cpu: dict[int, float] = {}
        """Number of a front -> cores that it wanted between its last two heartbeats."""
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
        cpu, full, connections, slots = 0.0, 0.0, 0, 0
        for number in alive:
            line = board.lines[number]
            beat, used = line[Hint.HEARTBEAT], line[Hint.CPU]
            last_beat, last_used = self._last.get(number, (beat, used))
            if beat != last_beat:
                # A front that was started again begins at zero.
                self._cpu[number] = max(0, used - last_used) / 1000 / max(1, beat - last_beat)
            self._last[number] = beat, used
            if line[
                Hint.CONNECTIONS
            ]:  # what a front does without any is no load: it has just started, and builds its classes
                cpu += self._cpu.get(number, 0.0)
            full += line[Hint.FULL] / 1000
            connections += line[Hint.CONNECTIONS]
            slots += line[Hint.LEASED]
        return Load(cpu, full, connections, slots)
