"""The metrics of a server: everything that is counted, as families of OpenMetrics (OB1).

A scrape reads counts and never makes any: each fact is counted where it is decided (``core.tally``, the front, the pool,
the error kernel). Gauges are computed here, from the same statistics as ``status``, so the two agree to the number.

Laws: labels are ``app`` and words from fixed sets, never a path, a pid or a client's word. The loop is not held up: a
scrape looks at a part of the connections at a time, and memory is measured in a thread (``memory_gauges``).
"""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import trio

from passenger_trio.admin.context import Admin
from passenger_trio.admin.health import health
from passenger_trio.codecs.openmetrics import Family, encode
from passenger_trio.core.fronts.counts import FrontCounts
from passenger_trio.core.model import GroupKey
from passenger_trio.core.state import EnabledStatus
from passenger_trio.core.statistics import GroupStatistics, PoolStatistics
from passenger_trio.core.tally import PoolTally
from passenger_trio.system.gauges import measure
from passenger_trio.version import __version__

__all__ = ["app_names", "families", "metrics"]

_P = "passenger_trio_"

# There from the start, as 0: an alert on an increase does not see a counter's first value.
_REFUSED = ("queue_full", "queue_timeout", "spawn_failed")
_BY_ITSELF = ("exited", "signal")

Names = Mapping[GroupKey, str]


async def metrics(admin: Admin) -> bytes:
    """The exposition."""
    return encode(await families(admin))


async def families(admin: Admin) -> list[Family]:
    """What the exposition has, as values (LI3)."""
    server = admin.server
    pool = server.pool
    statistics = pool.statistics()
    names = app_names([group.key for group in statistics.groups])
    counts = await server.front_counts()
    pids = {process.live.pid: process.group for process in pool.processes.values()}
    memory = await admin.memory.sums(pids, admin.limiter)
    now = trio.current_time()
    found: list[Family] = [
        _one(_P + "build_info", "gauge", "The version that runs.", 1, version=__version__),
        _one(_P + "ready", "gauge", "1: /readyz answers 200.", int(health(server, "readyz").ok)),
        _one(_P + "uptime_seconds", "gauge", "Since the admin socket was opened.", now - admin.started),
        *_of_requests(counts, names),
        *_of_flights(counts, names),
        *_of_groups(statistics, names, now),
        *_of_transitions(pool.tally, names),
        *_of_front(counts),
        *_of_supervisor(),
    ]
    shares = Family(
        _P + "process_pss_bytes", "gauge", "Memory of an application's processes: what each shares is divided (PSS)."
    )
    for key, size in memory.items():
        if key in names:
            shares.add(size, app=names[key])
    return [*found, shares]


def app_names(keys: Sequence[GroupKey]) -> dict[GroupKey, str]:
    """The label of each application: its name, with its environment where several have the name."""
    several = {name for name, count in Counter(key.name for key in keys).items() if count > 1}
    return {key: str(key) if key.name in several else key.name for key in keys}


def _one(name: str, kind: str, help: str, value: float, **labels: str) -> Family:
    family = Family(name, kind, help)
    family.add(value, **labels)
    return family


# -- requests -----------------------------------------------------------------------------------------------------------


def _of_requests(counts: FrontCounts, names: Names) -> Iterator[Family]:
    http = Family(
        "http_server_request_duration_seconds",
        "histogram",
        "From the first byte of a request to the last of its response. One for each record of the access log.",
    )
    queue = Family(
        _P + "request_queue_seconds", "histogram", "Waiting for a process, of the requests that had to wait."
    )
    app = Family(_P + "request_app_seconds", "histogram", "From a process's getting a request until it was free again.")
    retried = Family(
        _P + "requests_retried", "counter", "Requests sent to a second process, because the first left them unanswered."
    )
    closed = Family(_P + "websockets_closed", "counter", "WebSockets that have ended, by the code of their Close.")
    tallies = [
        ("", counts.refused),
        *((names.get(key, str(key)), tally) for key, tally in counts.tallies.items()),
    ]
    for name, tally in tallies:
        for (method, status), told in tally.durations.items():
            http.add(
                told,
                app=name,
                http_request_method=method,
                http_response_status_code=str(status),
                url_scheme="http",
            )
        if name:
            queue.add(tally.queue, app=name)
            app.add(tally.app, app=name)
            retried.add(tally.retried, app=name)
            for code, count in tally.websockets.items():
                closed.add(count, app=name, code=code)
    refused = Family(
        _P + "requests_refused", "counter", "Requests and WebSockets that got an error of the server, by its code."
    )
    for reason, count in {**dict.fromkeys(_REFUSED, 0), **counts.rejected}.items():
        refused.add(count, reason=reason)
    yield from (http, queue, app, retried, closed, refused)


def _of_flights(counts: FrontCounts, names: Names) -> Iterator[Family]:
    flights = Family(
        _P + "requests_in_flight", "gauge", "Requests that have begun and not ended, WebSockets and relays included."
    )
    for key, name in names.items():
        flights.add(counts.in_flight[key], app=name)
    stages = Family(_P + "connections", "gauge", "Open client connections, by what they do.")
    for stage in ("idle", "head", "body", "queue", "app", "write", "websocket", "relay", "linger"):
        stages.add(counts.stages[stage], state=stage)
    spilled = Family(_P + "spilled_bytes", "gauge", "Bytes on disk, of requests and responses under way.")
    for direction in ("request", "response"):
        spilled.add(counts.spilled[direction], direction=direction)
    yield from (flights, stages, spilled)


# -- the pool -----------------------------------------------------------------------------------------------------------


def _of_groups(pool: PoolStatistics, names: Names, now: float) -> Iterator[Family]:
    yield _one(
        _P + "pool_capacity", "gauge", "The most processes of all applications together.", pool.limits.max_pool_size
    )
    yield _one(_P + "pool_used", "gauge", "Processes that serve, and spawns under way.", pool.capacity_used)
    columns: tuple[tuple[str, str, Callable[[GroupStatistics], float]], ...] = (
        ("requests_waiting", "Requests that wait for a process.", lambda group: group.queue_length),
        (
            "queue_limit",
            "The most requests that may wait; 0: no limit.",
            lambda group: group.limits.max_request_queue_size,
        ),
        (
            "queue_oldest_seconds",
            "For how long the first of them waits.",
            lambda group: 0.0 if group.queue_since is None else max(0.0, now - group.queue_since),
        ),
        ("generation", "Grows by 1 with each restart that ended.", lambda group: group.generation),
        ("spawn_failures", "Failed starts since the last that succeeded.", lambda group: group.failures),
        (
            "circuit_open",
            "1: after a failed start, none is tried until a time has passed.",
            lambda group: int(group.backing_off_until is not None and group.backing_off_until > now),
        ),
        ("restart_rejected", "1: the last restart failed.", lambda group: int(group.rejection is not None)),
    )
    for name, help, value in columns:
        family = Family(_P + name, "gauge", help)
        for group in pool.groups:
            family.add(value(group), app=names[group.key])
        yield family
    processes = Family(_P + "processes", "gauge", "Processes by state; leaving ones get no more requests.")
    for group in pool.groups:
        serving = [process for process in group.processes if process.state is EnabledStatus.ENABLED]
        busy = sum(process.sessions > 0 for process in serving)
        states = {
            "busy": busy,
            "idle": len(serving) - busy,
            "spawning": len(group.attempts),
            "leaving": len(group.processes) - len(serving),
        }
        for state, count in states.items():
            processes.add(count, app=names[group.key], state=state)
    yield processes


def _of_transitions(tally: PoolTally, names: Names) -> Iterator[Family]:
    spawns = Family(_P + "spawn_seconds", "histogram", "Starts of processes that have ended, by method and outcome.")
    for (key, method, outcome), told in tally.spawns.items():
        spawns.add(told, app=names.get(key, str(key)), method=method, outcome=outcome)
    yield spawns
    columns: tuple[tuple[str, str, str, Counter[tuple[GroupKey, str]]], ...] = (
        ("spawns_started", "Starts of processes, by the policy's reason.", "reason", tally.spawns_started),
        ("processes_detached", "Processes that get no more requests, by reason.", "reason", tally.detached),
        ("processes_ended", "Processes that are gone; exited and signal: by themselves.", "reason", tally.ended),
        ("restarts", "Restarts that have ended.", "outcome", tally.restarts),
    )
    for name, help, label, counts in columns:
        family = Family(_P + name, "counter", help)
        zeros = {(key, word): 0 for key in names for word in _BY_ITSELF} if counts is tally.ended else {}
        for (key, word), count in {**zeros, **counts}.items():
            family.add(count, **{"app": names.get(key, str(key)), label: word})
        yield family


# -- the server ---------------------------------------------------------------------------------------------------------


def _of_front(counts: FrontCounts) -> Iterator[Family]:
    yield _one(_P + "connections_accepted", "counter", "Client connections.", counts.accepted)
    yield _one(_P + "connections_limit", "gauge", "The most client connections at a time.", counts.most_connections)
    yield _one(_P + "buffer_disk_bytes", "gauge", "Length of all buffer files.", counts.disk)
    yield _one(_P + "buffer_disk_limit_bytes", "gauge", "The most that they may have together.", counts.disk_limit)
    yield _one(_P + "buffer_memory_bytes", "gauge", "Bytes that buffers hold in memory.", counts.memory)
    yield _one(
        _P + "buffer_pauses", "counter", "How often a producer had to wait for room in the buffers.", counts.pauses
    )
    errors = Family(_P + "buffer_errors", "counter", "Failures of buffer files, and limits that were reached.")
    for word, count in counts.buffer_errors.items():
        errors.add(count, kind=word)
    yield errors
    yield _one(_P + "loop_lag_seconds", "gauge", "The latest that a timer was in the last minute.", counts.lag)
    faults = Family(_P + "faults", "counter", "Unexpected exceptions that the error kernel contained, by task.")
    for task, count in counts.faults.items():
        faults.add(count, task=task)
    yield faults
    if counts.has_log:
        lines = Family(_P + "access_log_lines", "counter", "Lines of the access log.")
        lines.add(counts.log_written, outcome="written")
        lines.add(counts.log_dropped, outcome="dropped")
        yield lines


def _of_supervisor() -> Iterator[Family]:
    """Under the names that every client library has for its own process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield _one("process_cpu_seconds", "counter", "Processor time of the supervisor.", used.ru_utime + used.ru_stime)
    gauge = measure(os.getpid())
    if gauge is not None:
        yield _one("process_resident_memory_bytes", "gauge", "Resident memory of the supervisor.", gauge.rss)
    try:
        yield _one("process_open_fds", "gauge", "Open descriptors of the supervisor.", len(os.listdir("/proc/self/fd")))
    except OSError:
        pass  # none is left for looking
    yield _one("process_max_fds", "gauge", "Its limit on descriptors.", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
