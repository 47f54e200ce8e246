"""The status of an instance, for ``passenger-trio status``: the pool, its processes, and the
front's counters.
"""

from __future__ import annotations

import math
import os
from typing import Any

import trio

from passenger_trio.admin.context import Admin
from passenger_trio.admin.operations import failure_summary
from passenger_trio.core.fork_safety import AUTO, Forking
from passenger_trio.core.state import EnabledStatus
from passenger_trio.core.statistics import GroupStatistics, ProcessStatistics
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.status_types import GroupStatus, Memory, MemoryRoom, ProcessStatus, ServerStatus
from passenger_trio.system.process_gauges import ProcessGauge, measure
from passenger_trio.system.threads import NoThread, in_thread
from passenger_trio.version import __version__

__all__ = ["status"]


async def status(admin: Admin) -> ServerStatus:
    """Everything that ``passenger-trio status`` shows."""
    server = admin.server
    pool = server.pool
    facts = await server.front_facts()  # first: fronts then tell of what they have leased, too
    pids = [process.live.pid for process in pool.processes.values()]
    pids += [preloader.pid for home in pool.group_tasks.values() for preloader in home.preloaders]
    try:
        gauges = await in_thread(_measure_all, pids, limiter=admin.limiter)
    except NoThread:
        gauges = {}  # leave out the memory only
    now = trio.current_time()
    by_key = {spec.key: spec for spec in server.reloading.served.every_spec}
    statistics = pool.statistics()  # after the last wait: applications come and go
    return {
        "draining": facts["draining"],
        "requests": facts["requests"],
        "buffers": facts["buffers"],
        "access_log": facts["access_log"],
        "connections": facts["connections"],
        "faults": facts["faults"],
        "fronts": facts["fronts"],
        "version": __version__,
        "pid": os.getpid(),
        "uptime": now - admin.started,
        "stopping": server.stopping,
        "addresses": server.addresses,
        "pool": {
            "max": statistics.limits.max_pool_size,
            "memory": _room(admin),
            "size": statistics.capacity_used,
            "detached": statistics.detached,
            "spawning": sum(len(group.attempts) for group in statistics.groups),
            "queue": sum(group.queue_length + pool.lending.unlisted(group.key) for group in statistics.groups),
        },
        "broken_files": [{"file": file, "error": error} for file, error in server.reloading.broken.items()],
        "groups": [_group(admin, group, by_key[group.key], gauges, now) for group in statistics.groups],
    }


def _room(admin: Admin) -> MemoryRoom | None:
    pool = admin.server.pool
    found = pool.memory_calculation()
    if found is None:
        return None
    return {
        "asked": str(admin.server.config.pool.max_pool_size),
        "share": found.share,
        "total": found.total,
        "source": pool.memory_source,
        "own": found.own,
        "used": found.used,
        "reserved": found.reserved,
        "free": found.free,
        "next_size": found.next_size,
        "next_app": found.next_group,
        "is_guess": found.is_guess,
        "minimum": found.minimum,
        "most": found.most,
        "fits": found.fits,
    }


def _spawn_method(spec: AppSpec, forking: Forking | None) -> dict[str, Any]:
    asked = spec.app.spawn_method
    return {
        "asked": asked,
        # With auto, the method is unknown until the first preloader has run.
        "used": forking.method if forking is not None else None if asked == AUTO else asked,
        "hazards": [{"kind": hazard.kind, "what": hazard.what} for hazard in (forking.hazards if forking else ())],
    }


def _group(
    admin: Admin, group: GroupStatistics, spec: AppSpec, gauges: dict[int, ProcessGauge], now: float
) -> GroupStatus:
    preloader = next(iter(admin.server.pool.group_tasks[group.key].preloaders), None)
    rejection = group.rejection
    failure = group.last_failure
    backing_off = group.backing_off_until
    return {
        "name": group.key.name,
        "environment": group.key.environment,
        "root": spec.detected.root,
        "app_type": spec.app_type,
        "interpreter": spec.detected.python,
        "spawn_method": _spawn_method(spec, admin.server.pool.group_tasks[group.key].forking),
        "queue": group.queue_length + admin.server.pool.lending.unlisted(group.key),
        "spawning": len(group.attempts),
        "backing_off_for": max(0.0, backing_off - now) if backing_off is not None else None,
        "last_error": failure_summary(failure),
        "generation": group.generation,
        "restarting": group.restarting,
        "waits_for_room": group.waits_for_room,
        "leaving": group.leaving,
        "rejected": None
        if rejection is None
        else {"age": now - rejection.at, "kept": rejection.kept, "error": failure_summary(rejection.failure)},
        "preloader": None
        if preloader is None
        else {
            "pid": preloader.pid,
            "uptime": now - preloader.started,
            "forks": preloader.forks,
            "memory": _memory(gauges.get(preloader.pid)),
        },
        "processes": [_process(admin, process, gauges, now) for process in group.processes],
    }


def _process(admin: Admin, process: ProcessStatistics, gauges: dict[int, ProcessGauge], now: float) -> ProcessStatus:
    found = admin.server.pool.processes.get(process.id)
    pid = found.live.pid if found is not None else None
    gauge = gauges.get(pid) if pid is not None else None
    uptime = now - process.since
    return {
        "id": process.id,
        "pid": pid,
        "state": _state(process),
        "generation": process.generation,
        "to_replace": process.to_replace.value if process.to_replace else None,
        "leaving": process.leaving.value if process.leaving else None,
        "ends_in": process.drained_by - now if process.leaving and process.drained_by < math.inf else None,
        "sessions": process.sessions,
        "concurrency": process.concurrency,
        "processed": process.processed,
        "cpu": round(100 * gauge.cpu_time / max(uptime, 0.01), 1) if gauge is not None else None,
        "memory": _memory(gauge),
        "uptime": uptime,
        "last_used": now - process.last_used,
    }


def _state(process: ProcessStatistics) -> str:
    if process.state is EnabledStatus.ENABLED:
        return "running"
    if process.state is EnabledStatus.DISABLED:
        return "out-of-band work" if process.works_out_of_band else "disabled"
    return "stopping"


def _measure_all(pids: list[int]) -> dict[int, ProcessGauge]:
    return {pid: gauge for pid in pids if (gauge := measure(pid)) is not None}


def _memory(gauge: ProcessGauge | None) -> Memory | None:
    return None if gauge is None else {"rss": gauge.rss, "pss": gauge.pss, "uss": gauge.uss}
