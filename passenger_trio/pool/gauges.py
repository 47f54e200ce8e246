"""The gauges: measure the memory of every process from time to time, and tell the policy.

Only where a limit on memory is set. One turn is one thread hop, on a thread of their own, for reading ``smaps_rollup`` is slow; what a process
costs is its proportional share of memory (PSS), else its resident set. Where no thread can be had a turn is left out.
"""

from __future__ import annotations

import logging

import trio

from passenger_trio.core.model import ProcessId
from passenger_trio.pool.pool import Pool
from passenger_trio.system.gauges import measure
from passenger_trio.system.threads import NoThread, in_thread

__all__ = ["Gauges"]

_log = logging.getLogger("passenger_trio.pool")


class Gauges:
    """``run`` is its task."""

    def __init__(self, pool: Pool, interval: float) -> None:
        """:param interval: seconds between two turns."""
        self._pool = pool
        self._interval = interval
        self._limiter = trio.CapacityLimiter(1)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(self._interval)
            pids = {
                id: process.live.pid
                for id, process in self._pool.processes.items()
                if self._pool.limits_memory(process.group)
            }
            if pids:
                try:
                    sizes = await in_thread(_measure, pids, limiter=self._limiter, abandon_on_cancel=True)
                except NoThread as error:
                    _log.warning("the memory of the processes is not measured this time: %s", error)
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
