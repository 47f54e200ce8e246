"""The gauges: measure the memory of the processes periodically, and pass the sizes to the policy.

Only groups with a memory limit are measured. One round is one hop to a dedicated thread, because
reading ``smaps_rollup`` is slow. A process's size is its proportional share of memory (PSS), or its
resident set if the PSS is unknown. If no thread can be started, the round is left out.
"""

from __future__ import annotations

import trio

from passenger_trio.core.model import ProcessId
from passenger_trio.log_lines import pool as lines
from passenger_trio.pool.pool import Pool
from passenger_trio.system.gauges import measure
from passenger_trio.system.threads import NoThread, in_thread

__all__ = ["Gauges"]


class Gauges:
    """``run`` is its task."""

    def __init__(self, pool: Pool, interval: float) -> None:
        """:param interval: seconds between two rounds."""
        self._pool = pool
        self.interval = interval
        self._limiter = trio.CapacityLimiter(1)

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await trio.sleep(self.interval)
            pids = {
                id: process.live.pid
                for id, process in self._pool.processes.items()
                if self._pool.limits_memory(process.group)
            }
            if pids:
                try:
                    sizes = await in_thread(_measure, pids, limiter=self._limiter, abandon_on_cancel=True)
                except NoThread as error:
                    lines.memory_unmeasured(processes=len(pids), reason=str(error))
                    continue
                for id, size in sizes.items():
                    self._pool.sampled(id, size)


def _measure(pids: dict[ProcessId, int]) -> dict[ProcessId, int]:
    sizes = {}
    for id, pid in pids.items():
        gauge = measure(pid)
        if gauge is not None:
            sizes[id] = gauge.rss if gauge.pss is None else gauge.pss
    return sizes
