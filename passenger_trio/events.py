"""The events of the pool, as values: ``async for event in server.events()`` yields them,
``passenger-trio events`` prints them, and hooks get them.

This module defines the events and their members, and does not depend on the listeners. Names and
members are stable. The admin API sends the result of ``as_json``.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

import attrs

from passenger_trio.late_classes import frozen

__all__ = [
    "KINDS",
    "DrainTimeExceeded",
    "Event",
    "MemoryLimitExceeded",
    "ProcessAttached",
    "ProcessDetached",
    "ProcessEvent",
    "ProcessExited",
    "QueueFull",
    "RequestTimeExceeded",
    "RestartEnded",
    "RestartRejected",
    "SpawnFailed",
    "as_json",
]


@frozen(kw_only=True)
class Event:
    """An event of the pool.

    :ivar time: seconds since the epoch.
    :ivar lost_before: the number of events that the listener has missed before this one, because it
        was too slow.
    """

    name: ClassVar[str]
    time: float = attrs.field(factory=time.time)
    lost_before: int = 0


@frozen(kw_only=True)
class ProcessEvent(Event):
    """An event of one process.

    :ivar group: application and environment, ``shop (production)``.
    """

    group: str
    pid: int


@frozen(kw_only=True)
class ProcessAttached(ProcessEvent):
    """The process is ready, and serves."""

    name = "process_attached"


@frozen(kw_only=True)
class ProcessDetached(ProcessEvent):
    """The process gets no more requests. :ivar reason: why, for people."""

    name = "process_detached"
    reason: str


@frozen(kw_only=True)
class ProcessExited(ProcessEvent):
    """The process is gone.

    :ivar exit_status: its exit status; None: a signal ended it, or the status is unknown.
    :ivar signal: the name of that signal, ``SIGSEGV``; None: no signal ended it, or the signal is
        unknown.
    :ivar reason: why the server ended it, for people; ``""``: the server did not.
    """

    name = "process_exited"
    exit_status: int | None = None
    signal: str | None = None
    reason: str = ""


@frozen(kw_only=True)
class RequestTimeExceeded(ProcessEvent):
    """The process is killed: a request lasted longer than ``max_request_time``."""

    name = "request_time_exceeded"


@frozen(kw_only=True)
class MemoryLimitExceeded(ProcessEvent):
    """The process is killed: it uses more than ``hard_memory_limit``."""

    name = "memory_limit_exceeded"


@frozen(kw_only=True)
class DrainTimeExceeded(ProcessEvent):
    """The process is ended with requests in flight: they lasted longer than ``max_drain_time``."""

    name = "drain_time_exceeded"


@frozen(kw_only=True)
class SpawnFailed(Event):
    """A spawn attempt made no process.

    :ivar summary: what failed; None: the attempt was given up.
    :ivar id: the id of the failure in the log; None: the attempt was given up.
    """

    name = "spawn_failed"
    group: str
    summary: str | None
    id: str | None


@frozen(kw_only=True)
class QueueFull(Event):
    """A request was refused, because too many already wait."""

    name = "queue_full"


@frozen(kw_only=True)
class RestartEnded(Event):
    """Every process that serves is of this generation."""

    name = "restart_ended"
    group: str
    generation: int


@frozen(kw_only=True)
class RestartRejected(Event):
    """This generation did not start, and the previous one keeps serving."""

    name = "restart_rejected"
    group: str
    generation: int


KINDS: dict[str, type[Event]] = {
    kind.name: kind
    for kind in (
        ProcessAttached,
        ProcessDetached,
        ProcessExited,
        SpawnFailed,
        QueueFull,
        RequestTimeExceeded,
        MemoryLimitExceeded,
        DrainTimeExceeded,
        RestartEnded,
        RestartRejected,
    )
}
"""The event classes by name."""


def as_json(event: Event) -> dict[str, Any]:
    """The event as JSON members: ``event`` (its name) and ``time``, then the others."""
    members = attrs.asdict(event)
    lost = members.pop("lost_before")
    answer = {"event": event.name, "time": members.pop("time"), **members}
    return {**answer, "lost_before": lost} if lost else answer
