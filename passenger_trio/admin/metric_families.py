"""The families of OpenMetrics: the name, labels and meaning of each metric (OB1).

Pure: it gets values that were taken before, and yields families in slices.

Laws: labels are ``app`` and words from fixed sets, never a path, a pid or a client's word. Between two values that an
iterator yields (families or ``PAUSE``) there are at most a few hundred samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from passenger_trio.codecs.openmetrics import Family
from passenger_trio.core.fronts.counts import FrontCounts
from passenger_trio.core.model import GroupKey
from passenger_trio.core.state import EnabledStatus
from passenger_trio.core.statistics import GroupStatistics, PoolStatistics
from passenger_trio.core.tally import PoolTally

__all__ = [
    "FEW",
    "PAUSE",
    "PREFIX",
    "Families",
    "app_names",
    "of_config",
    "of_flights",
    "of_front",
    "of_groups",
    "of_memory",
    "of_requests",
    "of_transitions",
    "one",
    "slices",
]

PREFIX = "passenger_trio_"
PAUSE: Final = None
"""Between two slices of the work on a family."""
FEW = 40
"""Applications between two checkpoints, if each is several samples."""
_SLICE = 400
"""Applications between two checkpoints, if each is a sample."""

# There from the start, as 0: an alert on an increase does not see a counter's first value.
_REFUSED = ("queue_full", "queue_timeout", "spawn_failed")
_BY_ITSELF = ("exited", "signal")

Names = Mapping[GroupKey, str]
Families = Iterator[Family | None]
T = TypeVar("T")


def slices(items: Sequence[T], size: int = _SLICE) -> Iterator[Sequence[T]]:
    """``items`` in parts."""
    return (items[begin : begin + size] for begin in range(0, len(items), size))


def app_names(keys: Sequence[GroupKey]) -> dict[GroupKey, str]:
    """The label of each application: its name, with its environment where several have the name."""
    several = {name for name, count in Counter(key.name for key in keys).items() if count > 1}
    return {key: str(key) if key.name in several else key.name for key in keys}


def one(name: str, kind: str, help: str, value: float, **labels: str) -> Family:
    """A family of one sample."""
    family = Family(name, kind, help)
    family.add(value, **labels)
    return family


def of_config(*, done: bool, done_at: float) -> Families:
    """The configuration, under Caddy's names."""
    yield one(
        PREFIX + "config_last_reload_successful",
        "gauge",
        "1: the last reload of the configuration was done, and no file of it is left out.",
        int(done),
    )
    yield one(
        PREFIX + "config_last_reload_success_timestamp_seconds",
        "gauge",
        "When the configuration that is served was taken over: seconds since the epoch.",
        done_at,
    )


# -- requests -----------------------------------------------------------------------------------------------------------


def of_requests(counts: FrontCounts, names: Names) -> Families:
    """Finished requests."""
    http = Family(
        "http_server_request_duration_seconds",
        "histogram",
        "From the first byte of a request to the last of its response. One for each record of the access log.",
    )
    queue = Family(
        PREFIX + "request_queue_seconds", "histogram", "Waiting for a process, of the requests that had to wait."
    )
    app = Family(
        PREFIX + "request_app_seconds", "histogram", "From a process's getting a request until it was free again."
    )
    retried = Family(
        PREFIX + "requests_retried",
        "counter",
        "Requests sent to a second process, because the first left them unanswered.",
    )
    closed = Family(PREFIX + "websockets_closed", "counter", "WebSockets that have ended, by the code of their Close.")
    tallies = [
        ("", counts.refused),
        *((names.get(key) or str(key), tally) for key, tally in counts.tallies.items()),
    ]
    for some in slices(tallies, FEW):
        for name, tally in some:
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
        yield PAUSE
    refused = Family(
        PREFIX + "requests_refused", "counter", "Requests and WebSockets that got an error of the server, by its code."
    )
    for reason, count in {**dict.fromkeys(_REFUSED, 0), **counts.rejected}.items():
        refused.add(count, reason=reason)
    yield from (http, queue, app, retried, closed, refused)


def of_flights(counts: FrontCounts, names: Names) -> Families:
    """Requests and connections under way."""
    flights = Family(
        PREFIX + "requests_in_flight",
        "gauge",
        "Requests that have begun and not ended, WebSockets and relays included.",
    )
    for some in slices(tuple(names.items())):
        for key, name in some:
            flights.add(counts.in_flight[key], app=name)
        yield PAUSE
    stages = Family(PREFIX + "connections", "gauge", "Open client connections, by what they do.")
    for stage in ("idle", "head", "body", "queue", "app", "write", "websocket", "relay", "linger"):
        stages.add(counts.stages[stage], state=stage)
    spilled = Family(PREFIX + "spilled_bytes", "gauge", "Bytes on disk, of requests and responses under way.")
    for direction in ("request", "response"):
        spilled.add(counts.spilled[direction], direction=direction)
    yield from (flights, stages, spilled)


# -- the pool -----------------------------------------------------------------------------------------------------------


def of_groups(pool: PoolStatistics, names: Names, now: float) -> Families:
    """The pool and its applications."""
    yield one(
        PREFIX + "pool_capacity", "gauge", "The most processes of all applications together.", pool.limits.max_pool_size
    )
    yield one(PREFIX + "pool_used", "gauge", "Processes that serve, and spawns under way.", pool.capacity_used)
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
        family = Family(PREFIX + name, "gauge", help)
        for some in slices(pool.groups):
            for group in some:
                family.add(value(group), app=names[group.key])
            yield PAUSE
        yield family
    processes = Family(PREFIX + "processes", "gauge", "Processes by state; leaving ones get no more requests.")
    for some in slices(pool.groups, FEW):
        for group in some:
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
        yield PAUSE
    yield processes


def of_transitions(tally: PoolTally, names: Names) -> Families:
    """What has become of processes."""
    spawns = Family(
        PREFIX + "spawn_seconds", "histogram", "Starts of processes that have ended, by method and outcome."
    )
    for some in slices(tuple(tally.spawns.items())):
        for (key, method, outcome), told in some:
            spawns.add(told, app=names.get(key) or str(key), method=method, outcome=outcome)
        yield PAUSE
    yield spawns
    columns: tuple[tuple[str, str, str, Counter[tuple[GroupKey, str]]], ...] = (
        ("spawns_started", "Starts of processes, by the policy's reason.", "reason", tally.spawns_started),
        ("processes_detached", "Processes that get no more requests, by reason.", "reason", tally.detached),
        ("processes_ended", "Processes that are gone; exited and signal: by themselves.", "reason", tally.ended),
        ("restarts", "Restarts that have ended.", "outcome", tally.restarts),
    )
    for name, help, label, counts in columns:
        family = Family(PREFIX + name, "counter", help)
        now = dict(counts)
        for some_counts in slices(tuple(now.items())):
            for (key, word), count in some_counts:
                family.add(count, **{"app": names.get(key) or str(key), label: word})
            yield PAUSE
        for keys in slices(tuple(names) if counts is tally.ended else (), FEW):
            for key in keys:
                for word in _BY_ITSELF:
                    if (key, word) not in now:
                        family.add(0, app=names[key], reason=word)
            yield PAUSE
        yield family


# -- the server ---------------------------------------------------------------------------------------------------------


def of_front(counts: FrontCounts) -> Families:
    """The fronts: connections, buffers, faults, the access log."""
    yield one(PREFIX + "connections_accepted", "counter", "Client connections.", counts.accepted)
    yield one(PREFIX + "connections_limit", "gauge", "The most client connections at a time.", counts.most_connections)
    yield one(PREFIX + "buffer_disk_bytes", "gauge", "Length of all buffer files.", counts.disk)
    yield one(PREFIX + "buffer_disk_limit_bytes", "gauge", "The most that they may have together.", counts.disk_limit)
    yield one(PREFIX + "buffer_memory_bytes", "gauge", "Bytes that buffers hold in memory.", counts.memory)
    yield one(
        PREFIX + "buffer_pauses", "counter", "How often a producer had to wait for room in the buffers.", counts.pauses
    )
    errors = Family(PREFIX + "buffer_errors", "counter", "Failures of buffer files, and limits that were reached.")
    for word, count in counts.buffer_errors.items():
        errors.add(count, kind=word)
    yield errors
    yield one(PREFIX + "loop_lag_seconds", "gauge", "The latest that a timer was in the last minute.", counts.lag)
    faults = Family(PREFIX + "faults", "counter", "Unexpected exceptions that the error kernel contained, by task.")
    for task, count in counts.faults.items():
        faults.add(count, task=task)
    yield faults
    if counts.has_log:
        lines = Family(PREFIX + "access_log_lines", "counter", "Lines of the access log.")
        lines.add(counts.log_written, outcome="written")
        lines.add(counts.log_dropped, outcome="dropped")
        yield lines


def of_memory(memory: Mapping[GroupKey, int], names: Names) -> Families:
    """What the processes of each application use."""
    shares = Family(
        PREFIX + "process_pss_bytes",
        "gauge",
        "Memory of an application's processes: what each shares is divided (PSS).",
    )
    for some in slices(tuple(memory.items())):
        for key, size in some:
            if key in names:
                shares.add(size, app=names[key])
        yield PAUSE
    yield shares
