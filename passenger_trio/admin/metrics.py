"""The metrics of a running server (OB1).

A scrape reads counts and never makes any: each fact is counted where it is decided (``core.tally``, the front, the pool,
the error kernel). Gauges are computed from the same statistics as ``status``, so the two agree.

Laws: a thousand applications do not block the event loop. Between two checkpoints a scrape looks at a few applications
or connections, or writes ``openmetrics.SLICE`` samples. Unchanged parts are not written anew. Memory is measured in a
thread (``memory_gauges``). So the numbers of one scrape are from several moments, but each is true when it is read."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from itertools import chain

import attrs
import trio

from passenger_trio.admin.context import Admin
from passenger_trio.admin.health import facts
from passenger_trio.admin.metric_families import (
    FEW,
    PAUSE,
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
    slices,
)
from passenger_trio.codecs.openmetrics import END, Family
from passenger_trio.core.health import ask
from passenger_trio.core.statistics import GroupStatistics
from passenger_trio.system.process_gauges import resident
from passenger_trio.version import __version__

__all__ = ["families", "metrics"]


async def metrics(admin: Admin) -> list[bytes]:
    """The exposition, in parts."""
    text: list[bytes] = []
    for family in await _families(admin):
        if family is PAUSE:
            await trio.lowlevel.checkpoint()
            continue
        for part in admin.exposition.parts(family):
            text.append(part)
            await trio.lowlevel.checkpoint()
    return [*text, END]


async def families(admin: Admin) -> list[Family]:
    """What the exposition has, as values (LI3)."""
    found: list[Family] = []
    for family in await _families(admin):
        if family is PAUSE:
            await trio.lowlevel.checkpoint()
        else:
            found.append(family)
    return found


async def _families(admin: Admin) -> Families:
    server = admin.server
    pool, reloading = server.pool, server.reloading
    counts = await server.front_counts()
    pids = {process.live.pid: process.group for process in pool.processes.values()}
    memory = await admin.memory.sums(pids, admin.limiter)
    keys = tuple(pool.group_tasks)
    statistics = pool.statistics(())
    groups: list[GroupStatistics] = []
    for some in slices(keys, FEW):
        groups += pool.statistics(some).groups  # applications come and go meanwhile
        await trio.lowlevel.checkpoint()
    names = app_names(keys)
    now = trio.current_time()
    statistics = attrs.evolve(statistics, groups=tuple(groups))
    readiness = ask("readyz", facts(server, statistics))
    await trio.lowlevel.checkpoint()
    return chain(
        [
            one(PREFIX + "build_info", "gauge", "The version that runs.", 1, version=__version__),
            one(PREFIX + "ready", "gauge", "1: /readyz answers 200.", int(readiness.ok)),
            *of_config(done=reloading.last_was_done and not reloading.broken, done_at=reloading.last_done_at),
            one(PREFIX + "uptime_seconds", "gauge", "Since the admin socket was opened.", now - admin.started),
        ],
        of_requests(counts, names),
        of_flights(counts, names),
        of_groups(statistics, names, now),
        of_transitions(pool.tally, names),
        of_front(counts),
        _of_supervisor(),
        of_memory(memory, names),
    )


def _of_supervisor() -> Iterator[Family]:
    """Under the names that every client library has for its own process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield one("process_cpu_seconds", "counter", "Processor time of the supervisor.", used.ru_utime + used.ru_stime)
    try:
        yield one("process_resident_memory_bytes", "gauge", "Resident memory of the supervisor.", resident(os.getpid()))
        yield one("process_open_fds", "gauge", "Open descriptors of the supervisor.", len(os.listdir("/proc/self/fd")))
    except OSError:
        pass  # none is left for looking
    yield one("process_max_fds", "gauge", "Its limit on descriptors.", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
