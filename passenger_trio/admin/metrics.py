"""The metrics of a running server (OB1).

A scrape only reads counts. The code that decides a fact counts it (``core.metric_counts``, the front, the pool,
the error kernel). Gauges are computed from the same statistics as ``status``, so the two agree.

Laws: a thousand applications do not block the event loop. Between two checkpoints a scrape looks at some applications or
connections, or formats some of them. Unchanged items are not formatted again (``openmetrics.Section``). Memory is measured in
a thread (``memory_gauges``). So a scrape is no snapshot of one moment, but each count is true when it is read.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from itertools import chain

import trio

from passenger_trio.admin.context import Admin
from passenger_trio.admin.metric_families import (
    PREFIX,
    Families,
    app_names,
    of_config,
    of_flights,
    of_front,
    of_groups,
    of_memory,
    of_requests,
    of_transitions,
    one,
)
from passenger_trio.codecs.openmetrics import END, PAUSE, Family
from passenger_trio.core.health import has_capacity
from passenger_trio.core.model import GroupKey
from passenger_trio.core.statistics import GroupGauges
from passenger_trio.system.process_gauges import resident
from passenger_trio.version import __version__

__all__ = ["families", "metrics"]


_SLICE = 400
"""The applications to look at between two checkpoints."""


async def metrics(admin: Admin) -> list[bytes]:
    """The exposition, in parts."""
    text: list[bytes] = []
    for found in await _families(admin):
        for part in admin.exposition.parts(found):
            if part is not PAUSE:
                text.append(part)
            await trio.lowlevel.checkpoint()
    return [*text, END]


async def families(admin: Admin) -> list[Family]:
    """The families of the exposition as values (LI3)."""
    every: list[Family] = []
    for found in await _families(admin):
        if isinstance(found, Family):
            every.append(found)
            continue
        for family in found.families():
            if family is not PAUSE:
                every.append(family)
            else:
                await trio.lowlevel.checkpoint()
    return every


async def _families(admin: Admin) -> Families:
    server = admin.server
    pool, reloading = server.pool, server.reloading
    counts = await server.front_counts()
    pids = {process.live.pid: process.group for process in pool.processes.values()}
    memory = await admin.memory.sums(pids, admin.limiter)
    keys = tuple(pool.group_tasks)
    groups: dict[GroupKey, GroupGauges] = {}
    for begin in range(0, len(keys), _SLICE):
        groups |= pool.gauges(keys[begin : begin + _SLICE])  # applications come and go meanwhile
        await trio.lowlevel.checkpoint()
    names = app_names(keys)
    statistics = pool.statistics(())
    takes_requests = server.started and not server.stopping and not server.front.draining
    ready = takes_requests and any(map(has_capacity, groups.values()))
    await trio.lowlevel.checkpoint()
    return chain(
        [
            one(PREFIX + "build_info", "gauge", "The version that runs.", 1, version=__version__),
            one(PREFIX + "ready", "gauge", "1: /readyz answers 200.", int(ready)),
            *of_config(done=reloading.last_was_done and not reloading.broken, done_at=reloading.last_done_at),
            one(
                PREFIX + "uptime_seconds",
                "gauge",
                "Since the admin socket was opened.",
                trio.current_time() - admin.started,
            ),
        ],
        of_requests(counts, names),
        of_flights(counts, names),
        of_groups(statistics.limits, statistics.capacity_used, groups, names),
        of_transitions(pool.tally, names),
        of_front(counts),
        _of_supervisor(),
        of_memory(memory, names),
    )


def _of_supervisor() -> Iterator[Family]:
    """The metrics of the supervisor, under the names that every client library uses for its own process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield one("process_cpu_seconds", "counter", "Processor time of the supervisor.", used.ru_utime + used.ru_stime)
    try:
        yield one("process_resident_memory_bytes", "gauge", "Resident memory of the supervisor.", resident(os.getpid()))
        yield one("process_open_fds", "gauge", "Open descriptors of the supervisor.", len(os.listdir("/proc/self/fd")))
    except OSError:
        pass  # none is left for looking
    yield one("process_max_fds", "gauge", "Its limit on descriptors.", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
