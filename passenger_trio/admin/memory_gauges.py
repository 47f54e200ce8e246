"""The memory of applications' processes, for the metrics. A thread measures it, for at most ``_MEASURING`` seconds in each
scrape.

Each scrape measures the processes whose measurement is the oldest. So a scrape of very many processes takes no longer
than one of a few (OB1)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import attrs
import trio

from passenger_trio.core.model import GroupKey
from passenger_trio.late_classes import define
from passenger_trio.system.process_gauges import measure
from passenger_trio.system.threads import NoThread, in_thread

__all__ = ["MemoryGauges"]

_MEASURING = 0.05


@define(eq=False)
class MemoryGauges:
    """The memory of the processes, measured a few at a time."""

    _sizes: dict[int, tuple[float, int]] = attrs.field(factory=dict)
    """Pid -> when it was measured, and its PSS."""

    async def sums(self, pids: Mapping[int, GroupKey], limiter: trio.CapacityLimiter) -> dict[GroupKey, int]:
        """The PSS of each application's processes, as last measured. Always a checkpoint."""
        self._sizes = {pid: self._sizes[pid] for pid in pids if pid in self._sizes}
        oldest_first = sorted(pids, key=lambda pid: self._sizes.get(pid, (0.0, 0))[0])
        try:
            self._sizes.update(await in_thread(_measure_some, oldest_first, limiter=limiter))
        except NoThread:
            pass  # the last measurement stands
        sums: Counter[GroupKey] = Counter()
        for pid, (_, size) in self._sizes.items():
            sums[pids[pid]] += size
        return sums


def _measure_some(pids: Sequence[int]) -> dict[int, tuple[float, int]]:
    until = time.monotonic() + _MEASURING
    found: dict[int, tuple[float, int]] = {}
    for pid in pids:
        gauge = measure(pid)
        if gauge is not None:
            found[pid] = time.monotonic(), gauge.pss if gauge.pss is not None else gauge.rss
        if time.monotonic() > until:
            break
    return found
