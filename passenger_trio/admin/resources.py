"""Requests, memory and decisions, over the admin socket: GET, answered with a JSON object."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from passenger_trio.admin.context import Admin
from passenger_trio.core.model import GroupKey
from passenger_trio.system.process_gauges import ProcessGauge, measure
from passenger_trio.system.threads import in_thread

__all__ = ["memory", "requests", "trace"]


async def requests(admin: Admin) -> dict[str, Any]:
    """Requests in flight, the oldest first."""
    found = await admin.server.requests_in_flight()
    return {"requests": sorted(found, key=lambda request: -float(request["age"]))}


async def memory(admin: Admin) -> dict[str, Any]:
    """The memory of each process, and the memory that forking from a preloader saves: the pages
    that several processes share.

    :raises NoThread: no thread can be started to measure it.
    """
    pool = admin.server.pool
    roles: dict[GroupKey, list[tuple[str, int]]] = {}
    for key, home in pool.group_tasks.items():
        roles[key] = [("preloader", preloader.pid) for preloader in home.preloaders]
        roles[key] += [("process", process.live.pid) for process in pool.processes.values() if process.group == key]
    pids = [os.getpid(), *(pid for members in roles.values() for _, pid in members)]
    gauges = await in_thread(_measure_all, pids, limiter=admin.limiter)
    groups = []
    for key, members in roles.items():
        rows = [{"role": role, "pid": pid, **_sizes(gauges[pid])} for role, pid in members if pid in gauges]
        groups.append({"name": key.name, "environment": key.environment, "processes": rows, "saved": _saved(rows)})
    own = gauges.get(os.getpid())
    return {"supervisor": None if own is None else {"pid": os.getpid(), **_sizes(own)}, "groups": groups}


async def trace(admin: Admin) -> bytes:
    """The facts that the pool got and its decisions, as JSON. This may be megabytes.

    :raises NoThread: no thread can be started to make it.
    """
    dump = admin.server.pool.trace()
    return await in_thread(lambda: json.dumps(dump()).encode(), limiter=admin.limiter)


def _measure_all(pids: Iterable[int]) -> dict[int, ProcessGauge]:
    return {pid: gauge for pid in pids if (gauge := measure(pid)) is not None}


def _sizes(gauge: ProcessGauge) -> dict[str, int | None]:
    shared = None if gauge.uss is None else max(0, gauge.rss - gauge.uss)
    return {"rss": gauge.rss, "pss": gauge.pss, "uss": gauge.uss, "shared": shared}


def _saved(rows: list[dict[str, Any]]) -> int | None:
    """The additional bytes that the processes would use if they shared nothing. None: the kernel
    does not report it.
    """
    if any(row["pss"] is None for row in rows):
        return None
    return sum(max(0, int(row["rss"]) - int(row["pss"])) for row in rows)
