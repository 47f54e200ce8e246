"""The families of OpenMetrics: the name, labels and meaning of each metric (OB1).

Pure: this module knows names, labels and the meaning of each metric. Laws: labels are ``app`` and words from fixed sets, never a path, a pid or a
client's word. Metrics that exist once for each application are a ``Section``, so that a scrape formats only the changed ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from passenger_trio.codecs.openmetrics import Family, Item, Section
from passenger_trio.core.duration_histogram import Histogram
from passenger_trio.core.fronts.front_metrics import FrontMetrics
from passenger_trio.core.metric_counts import PoolTally, RequestTally
from passenger_trio.core.model import GroupKey
from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.core.statistics import GroupGauges

__all__ = [
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
]

PREFIX = "passenger_trio_"

# There from the start, as 0: an alert on an increase does not see a counter's first value.
_REFUSED = ("queue_full", "queue_timeout", "spawn_failed")
_BY_ITSELF = ("exited", "signal")

Names = Mapping[GroupKey, str]
Families = Iterator[Family | Section]


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


_REQUESTS = (
    (
        "http_server_request_duration_seconds",
        "histogram",
        "From the first byte of a request to the last of its response. One for each record of the access log.",
    ),
    (PREFIX + "request_queue_seconds", "histogram", "Waiting for a process, of the requests that had to wait."),
    (PREFIX + "request_app_seconds", "histogram", "From a process's getting a request until it was free again."),
    (
        PREFIX + "requests_retried",
        "counter",
        "Requests sent to a second process, because the first left them unanswered.",
    ),
    (PREFIX + "websockets_closed", "counter", "WebSockets that have ended, by the code of their Close."),
)


def of_requests(counts: FrontMetrics, names: Names) -> Families:
    """Finished requests."""

    def items() -> Iterator[Item]:
        yield "", counts.refused.stamp, ("", counts.refused)
        for key, tally in tuple(counts.tallies.items()):
            name = names.get(key) or str(key)
            yield name, tally.stamp, (name, tally)

    yield Section(_REQUESTS, items(), _add_requests)
    refused = Family(
        PREFIX + "requests_refused", "counter", "Requests and WebSockets that got an error of the server, by its code."
    )
    for reason, count in {**dict.fromkeys(_REFUSED, 0), **counts.rejected}.items():
        refused.add(count, reason=reason)
    yield refused


def _add_requests(of: tuple[str, RequestTally], families: Sequence[Family]) -> None:
    name, tally = of
    http, queue, app, retried, closed = families
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


_FLIGHTS = (
    (PREFIX + "requests_in_flight", "gauge", "Requests that have begun and not ended, WebSockets and relays included."),
)


def of_flights(counts: FrontMetrics, names: Names) -> Families:
    """Requests and connections under way."""
    yield _of_numbers(_FLIGHTS, ((name, counts.in_flight[key]) for key, name in names.items()))
    stages = Family(PREFIX + "connections", "gauge", "Open client connections, by what they do.")
    for stage in ("idle", "head", "body", "queue", "app", "write", "websocket", "relay", "linger"):
        stages.add(counts.stages[stage], state=stage)
    spilled = Family(PREFIX + "spilled_bytes", "gauge", "Bytes on disk, of requests and responses under way.")
    for direction in ("request", "response"):
        spilled.add(counts.spilled[direction], direction=direction)
    yield from (stages, spilled)


def _of_numbers(heads: tuple[tuple[str, str, str], ...], numbers: Iterator[tuple[str, float]]) -> Section:
    """A family that has one number of each application."""

    def add(of: tuple[str, float], families: Sequence[Family]) -> None:
        families[0].add(of[1], app=of[0])

    return Section(heads, ((name, number, (name, number)) for name, number in numbers), add)


# -- the pool -----------------------------------------------------------------------------------------------------------


_GROUPS = (
    (PREFIX + "requests_waiting", "gauge", "Requests that wait for a process."),
    (PREFIX + "queue_limit", "gauge", "The most requests that may wait; 0: no limit."),
    (PREFIX + "queue_oldest_seconds", "gauge", "For how long the first of them waits."),
    (PREFIX + "generation", "gauge", "Grows by 1 with each restart that ended."),
    (PREFIX + "spawn_failures", "gauge", "Failed starts since the last that succeeded."),
    (PREFIX + "circuit_open", "gauge", "1: after a failed start, none is tried until a time has passed."),
    (PREFIX + "restart_rejected", "gauge", "1: the last restart failed."),
    (PREFIX + "processes", "gauge", "Processes by state; leaving ones get no more requests."),
)


def of_groups(limits: PoolLimits, used: int, groups: Mapping[GroupKey, GroupGauges], names: Names) -> Families:
    """The pool and its applications. :param used: processes that serve, and spawns under way."""
    yield one(
        PREFIX + "pool_capacity", "gauge", "The most processes of all applications together.", limits.max_pool_size
    )
    yield one(PREFIX + "pool_used", "gauge", "Processes that serve, and spawns under way.", used)
    yield Section(_GROUPS, ((names[key], gauges, (names[key], gauges)) for key, gauges in groups.items()), _add_group)


def _add_group(of: tuple[str, GroupGauges], families: Sequence[Family]) -> None:
    name, group = of
    numbers = (
        group.waiting,
        group.queue_limit,
        group.oldest_wait,
        group.generation,
        group.failures,
        int(group.circuit_open),
        int(group.rejected),
    )
    for family, number in zip(families, numbers, strict=False):
        family.add(number, app=name)
    for state in ("busy", "idle", "spawning", "leaving"):
        families[-1].add(getattr(group, state), app=name, state=state)


_SPAWNS = ((PREFIX + "spawn_seconds", "histogram", "Starts of processes that have ended, by method and outcome."),)
_TRANSITIONS = (
    (PREFIX + "spawns_started", "Starts of processes, by the policy's reason.", "reason"),
    (PREFIX + "processes_detached", "Processes that get no more requests, by reason.", "reason"),
    (PREFIX + "processes_ended", "Processes that are gone; exited and signal: by themselves.", "reason"),
    (PREFIX + "restarts", "Restarts that have ended.", "outcome"),
)


def of_transitions(tally: PoolTally, names: Names) -> Families:
    """The transitions of processes: spawns, ends, restarts."""

    def spawns() -> Iterator[Item]:
        for (key, method, outcome), told in tuple(tally.spawns.items()):
            name = names.get(key) or str(key)
            yield f"{method} {outcome} {name}", told.count, (name, method, outcome, told)

    yield Section(_SPAWNS, spawns(), _add_spawns)
    ended = dict.fromkeys(((key, word) for key in names for word in _BY_ITSELF), 0)
    for (name, help, label), counts in zip(
        _TRANSITIONS,
        (tally.spawns_started, tally.detached, {**ended, **tally.ended}, tally.restarts),
        strict=True,
    ):
        yield _of_words((name, "counter", help), label, counts, names)


def _add_spawns(of: tuple[str, str, str, Histogram], families: Sequence[Family]) -> None:
    name, method, outcome, told = of
    families[0].add(told, app=name, method=method, outcome=outcome)


def _of_words(
    head: tuple[str, str, str], label: str, counts: Mapping[tuple[GroupKey, str], int], names: Names
) -> Section:
    """A family that has a number for each of some words, of some applications."""

    def items() -> Iterator[Item]:
        for (key, word), count in tuple(counts.items()):
            name = names.get(key) or str(key)
            yield f"{word} {name}", count, (name, word, count)

    def add(of: tuple[str, str, int], families: Sequence[Family]) -> None:
        name, word, count = of
        families[0].add(count, **{"app": name, label: word})

    return Section((head,), items(), add)


# -- the server ---------------------------------------------------------------------------------------------------------


def of_front(counts: FrontMetrics) -> Families:
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


_MEMORY = (
    (
        PREFIX + "process_pss_bytes",
        "gauge",
        "Memory of an application's processes: what each shares is divided (PSS).",
    ),
)


def of_memory(memory: Mapping[GroupKey, int], names: Names) -> Families:
    """The memory of each application's processes."""
    yield _of_numbers(_MEMORY, ((names[key], size) for key, size in memory.items() if key in names))
