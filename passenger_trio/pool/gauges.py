"""The gauges: measure the memory of the processes periodically, and pass the sizes to the policy.

Normally only groups with a memory limit are measured. If the memory decides how many processes there are
(``core/processes_by_memory``), all groups and the server itself are measured. In this case the first process of an application is measured as
soon as it is ready, because it may have to make room for another one before the next round. (If it ends even earlier, the
size counts that it had when it was ready: ``process_facts``.)

One round is one hop to a dedicated thread, because reading
``smaps_rollup`` is slow. A process's size is its proportional share of memory (PSS), or its resident set if the PSS is
unknown. If no thread can be started, the round is left out. Idle processes are measured more rarely (``core.processes_to_measure``),
unless their group has a memory limit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence

import trio

from passenger_trio.core.model import ProcessId
from passenger_trio.core.processes_to_measure import Rounds
from passenger_trio.log_lines import processes as lines
from passenger_trio.pool.pool import Pool
from passenger_trio.system.memory_limit import MemoryLimit, memory_limit
from passenger_trio.system.process_gauges import measure
from passenger_trio.system.threads import NoThread, in_thread

__all__ = ["Gauges"]


class Gauges:
    """``run`` is its task."""

    def __init__(self, pool: Pool, interval: float) -> None:
        """:param interval: seconds between two rounds."""
        self._pool = pool
        self.interval = interval
        self._limiter = trio.CapacityLimiter(1)
        self.others: Callable[[], Sequence[int]] = list
        """Returns the pids of the server's own processes, its fronts."""
        self._rounds: Rounds[int] = Rounds()
        self._preloaders: dict[int, int] = {}
        """Pid of a preloader -> its size, as last measured."""

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            with trio.move_on_after(self.interval):
                await self._pool.stranger_came.wait()
            self._pool.stranger_came = trio.Event()
            await self.look()

    async def look(self, *, even_if_fixed: bool = False) -> None:
        """One round.

        :param even_if_fixed: measure as if the memory decided already, because it is about to.
        """
        fits = even_if_fixed or self._pool.fits_memory
        pids = {
            id: process.live.pid
            for id, process in self._pool.processes.items()
            if fits or self._pool.limits_memory(process.group)
        }
        own = [os.getpid(), *self.others()] if fits else []
        preloaders = (
            {one.pid: len(home.keepers) for home in self._pool.group_tasks.values() for one in home.preloaders}
            if fits
            else {}
        )
        if fits:
            pids, preloaders = self._due(pids, preloaders)
        if not pids and not own:
            return
        try:
            sizes, of_server, of_preloaders, limit = await in_thread(
                _measure, pids, own, list(preloaders), limiter=self._limiter, abandon_on_cancel=True
            )
        except NoThread as error:
            lines.memory_unmeasured(processes=len(pids), reason=str(error))
            return
        for id, size in sizes.items():
            self._pool.sampled(id, size)
        self._preloaders |= of_preloaders
        if fits and limit.total:
            average = sum(self._preloaders.values()) // max(1, len(self._preloaders))
            self._pool.room_measured(limit.total, of_server, average, limit.source)

    def _due(
        self, pids: dict[ProcessId, int], preloaders: dict[int, int]
    ) -> tuple[dict[ProcessId, int], dict[int, int]]:
        """Which processes to measure in this round. A process's share of common memory also depends on the number of processes of its group."""
        deeds: dict[int, Hashable | None] = dict(preloaders)
        for id, pid in pids.items():
            group, served = self._pool.processes[id].group, self._pool.deeds_of(id)
            is_limited = served is None or self._pool.has_memory_limit(group)
            deeds[pid] = None if is_limited else (served, len(self._pool.group_tasks[group].keepers))
        due = frozenset(self._rounds.due(deeds))
        self._preloaders = {pid: size for pid, size in self._preloaders.items() if pid in preloaders}
        return (
            {id: pid for id, pid in pids.items() if pid in due},
            {pid: count for pid, count in preloaders.items() if pid in due},
        )


def _measure(
    pids: dict[ProcessId, int], own: Sequence[int], preloaders: Sequence[int]
) -> tuple[dict[ProcessId, int], int, dict[int, int], MemoryLimit]:
    sizes = {id: size for id, pid in pids.items() if (size := _size(pid))}
    of_preloaders = {pid: size for pid in preloaders if (size := _size(pid))}
    return sizes, sum(map(_size, own)), of_preloaders, memory_limit() if own else MemoryLimit(0, "")


def _size(pid: int) -> int:
    """The size of a process in bytes; 0: it is gone, or cannot be measured now."""
    gauge = measure(pid)
    if gauge is None:
        return 0
    return gauge.rss if gauge.pss is None else gauge.pss
