"""How the last processes ended, for the error page that explains a failed request (OB10).

A connection sees the end of a process before the pool knows its exit status. So an explaining page waits for the
status, for ``_STATUS_TIME`` at most. Before that it waits to see whether the process ends at all, for ``_EXIT_TIME``
at most. Nothing else waits here."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import trio

from passenger_trio.core.evidence import Evidence, ProcessEnd, process_evidence
from passenger_trio.core.model import GroupKey, ProcessId
from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.core.statistics import GroupStatistics
from passenger_trio.pool.session import Process
from passenger_trio.spawning.exit_status import describe_exit
from passenger_trio.spawning.spawner import LiveProcess

__all__ = ["RecentEnds"]

_MOST = 20
_EXIT_TIME = 0.2
_STATUS_TIME = 1.0


class RecentEnds:
    """:param processes: the pool's processes; only read here."""

    def __init__(self, processes: Mapping[ProcessId, Process[LiveProcess]]) -> None:
        self._processes = processes
        self._ends: deque[tuple[GroupKey, int, ProcessEnd]] = deque(maxlen=_MOST)
        self._recorded = trio.Event()

    def record(self, process: Process[LiveProcess], status: int | None, reason: str) -> None:
        """A process has ended."""
        end = ProcessEnd(describe_exit(status), reason, process.live.output_tail)
        self._ends.append((process.group, process.live.pid, end))
        recorded, self._recorded = self._recorded, trio.Event()
        recorded.set()

    async def wait(self, key: GroupKey, pid: int) -> ProcessEnd | None:
        """Return how a process ended whose end a connection has just seen; None: it lives."""
        process = self._living(key, pid)
        if process is not None:
            with trio.move_on_after(_EXIT_TIME) as looking:
                await process.left.wait()  # not its pidfd: its keeper waits for that, and one task may
            if looking.cancelled_caught:
                return None
        # The exit may be seen here before the pool has seen it, and its status comes later still.
        with trio.move_on_after(_STATUS_TIME):
            while self._find(key, pid) is None:
                await self._recorded.wait()
        await trio.lowlevel.checkpoint()
        return self._find(key, pid)

    def evidence(
        self, group: GroupStatistics, limits: PoolLimits, pid: int, end: ProcessEnd | None, now: float
    ) -> Evidence:
        """:param pid: of the process that had the request; 0: there was none."""
        living: Process[Any] | None = self._living(group.key, pid) if pid else None
        return Evidence(
            group.limits,
            min(group.limits.max_instances or limits.max_pool_size, limits.max_pool_size),
            process_evidence(group, {id: process.live.pid for id, process in self._processes.items()}, now),
            len(group.attempts),
            group.queue_length,
            end,
            end.output if end is not None else living.live.output_tail if living is not None else (),
        )

    def _find(self, key: GroupKey, pid: int) -> ProcessEnd | None:
        return next((end for group, ended, end in reversed(self._ends) if (group, ended) == (key, pid)), None)

    def _living(self, key: GroupKey, pid: int) -> Process[LiveProcess] | None:
        found = (process for process in self._processes.values() if process.live.pid == pid and process.group == key)
        return next(found, None)
