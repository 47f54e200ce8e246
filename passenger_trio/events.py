"""What happens in the pool, as values: what ``async for event in server.events()`` gives, ``passenger-trio events`` prints and hooks are told.

It knows what may happen and what there is to say of it; never who listens. Names and members are stable: ``as_json`` is what the admin API sends.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

import attrs

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


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened.

    :ivar time: seconds since the epoch. :ivar lost_before: events that whoever listens has missed before this one, because it did not keep up.
    """

    name: ClassVar[str]
    time: float = attrs.field(factory=time.time)
    lost_before: int = 0


@attrs.frozen(kw_only=True)
class ProcessEvent(Event):
    """Something that happened to one process.

    :ivar group: application and environment, ``shop (production)``.
    """

    group: str
    pid: int


@attrs.frozen(kw_only=True)
class ProcessAttached(ProcessEvent):
    """It is ready, and serves."""

    name = "process_attached"


@attrs.frozen(kw_only=True)
class ProcessDetached(ProcessEvent):
    """It gets no more requests. :ivar reason: why, for people."""

    name = "process_detached"
    reason: str


@attrs.frozen(kw_only=True)
class ProcessExited(ProcessEvent):
    """It is gone.

    :ivar exit_status: what it has given to ``exit``; None: a signal has ended it, or nobody can tell.
    :ivar signal: the name of that signal, ``SIGSEGV``; None: none has, or nobody can tell.
    :ivar reason: why it was to end, for people; ``""``: nobody had asked it to.
    """

    name = "process_exited"
    exit_status: int | None = None
    signal: str | None = None
    reason: str = ""


@attrs.frozen(kw_only=True)
class RequestTimeExceeded(ProcessEvent):
    """It is killed: a request lasted for longer than ``max_request_time``."""

    name = "request_time_exceeded"


@attrs.frozen(kw_only=True)
class MemoryLimitExceeded(ProcessEvent):
    """It is killed: it uses more than ``hard_memory_limit``."""

    name = "memory_limit_exceeded"


@attrs.frozen(kw_only=True)
class DrainTimeExceeded(ProcessEvent):
    """It is ended with requests in hand: they lasted for longer than ``max_drain_time``."""

    name = "drain_time_exceeded"


@attrs.frozen(kw_only=True)
class SpawnFailed(Event):
    """No process came of an attempt. :ivar summary: what went wrong, and ``id`` how the log calls it; None: the attempt was given up."""

    name = "spawn_failed"
    group: str
    summary: str | None
    id: str | None


@attrs.frozen(kw_only=True)
class QueueFull(Event):
    """A request was refused, because too many wait already."""

    name = "queue_full"


@attrs.frozen(kw_only=True)
class RestartEnded(Event):
    """Every process that serves is of this generation."""

    name = "restart_ended"
    group: str
    generation: int


@attrs.frozen(kw_only=True)
class RestartRejected(Event):
    """This generation did not come to serve, and the one before it serves on."""

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
"""By their names."""


def as_json(event: Event) -> dict[str, Any]:
    """The members as JSON has them, behind ``event``, the name, and ``time``."""
    members = attrs.asdict(event)
    lost = members.pop("lost_before")
    answer = {"event": event.name, "time": members.pop("time"), **members}
    return {**answer, "lost_before": lost} if lost else answer
