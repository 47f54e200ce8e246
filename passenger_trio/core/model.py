"""Frozen values that the layers pass to each other.

It knows names and numbers only. Nothing here changes after it was made; what changes is in ``state``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NewType

import attrs

from passenger_trio.core.journey import Journey

ProcessId = NewType("ProcessId", int)
"""Identity of an application process in the pool: a counter, never the operating system's pid (pids are reused)."""

SessionId = NewType("SessionId", int)
WaiterId = NewType("WaiterId", int)
AttemptId = NewType("AttemptId", int)
PreloaderId = NewType("PreloaderId", int)
"""Identity of a preloader within its generation: a counter."""

FIRST_GENERATION = 1
"""The generation of a group's processes before its first restart."""


def _bounded(least: float, *, zero: bool = False) -> Callable[[object, attrs.Attribute[Any], float], None]:
    """A number that is at least ``least``, or zero where zero has a meaning of its own. Not a number: refused too."""

    def check(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
        if not (value >= least or (zero and value == 0)):
            raise ValueError(f"{attribute.name} must be at least {least}{' (or 0)' if zero else ''}, not {value!r}")

    return check


_TICK = 0.001
"""Shortest time that a limit may ask for: below it, ``now + time`` might equal ``now``, and the clock would spin."""


@attrs.frozen(cache_hash=True)
class GroupKey:
    """All processes of one application in one environment."""

    name: str
    environment: str

    def __str__(self) -> str:
        return f"{self.name} ({self.environment})"


@attrs.frozen
class GroupLimits:
    """What the policy must know of one application group. Times are seconds.

    :raises ValueError: a limit makes no sense.
    """

    min_instances: int = attrs.field(default=1, validator=_bounded(0))
    """Kept running, as far as ``max_instances`` and the pool have room for them."""
    max_instances: int = attrs.field(default=0, validator=_bounded(0))
    """0: only the pool's own limit."""
    max_request_queue_size: int = attrs.field(default=100, validator=_bounded(0))
    """0: unbounded."""
    max_preloader_idle_time: float = attrs.field(default=300.0, validator=_bounded(_TICK, zero=True))
    """0: never retired."""
    max_requests: int = attrs.field(default=0, validator=_bounded(0))
    """A process that has served so many is replaced. 0: never."""
    max_requests_jitter: int = attrs.field(default=0, validator=_bounded(0))
    """Up to so many fewer, drawn for each process."""
    max_process_lifetime: float = attrs.field(default=0.0, validator=_bounded(_TICK, zero=True))
    max_drain_time: float = attrs.field(default=300.0, validator=_bounded(_TICK, zero=True))
    """A process that left routing has so long for its sessions. 0: no limit."""
    max_request_time: float = attrs.field(default=0.0, validator=_bounded(_TICK, zero=True))
    """The process of a request that lasts longer is killed. 0: no limit."""
    max_request_queue_time: float = attrs.field(default=0.0, validator=_bounded(_TICK, zero=True))
    """Who waits longer is refused. 0: no limit."""
    memory_limit: int = attrs.field(default=0, validator=_bounded(0))
    """A process with more bytes is replaced. 0: no limit."""
    hard_memory_limit: int = attrs.field(default=0, validator=_bounded(0))
    """A process with more bytes is killed. 0: no limit."""
    force_concurrency: int = attrs.field(default=-1, validator=_bounded(-1))
    """Sessions that each process gets at a time, whatever it says of itself. 0: any number; -1: what it says."""
    preloads: bool = False
    """Its processes are forked by a preloader: spawns of one generation wait for one program that loads the application."""
    retry_on_demand_after: float = attrs.field(default=float("inf"), validator=_bounded(0))
    """While backing off: a request that comes this long after the last attempt starts a new one at once.

    Finite in development, where a person who has just mended the file presses reload."""


@attrs.frozen
class PoolLimits:
    """What bounds the whole pool. Times are seconds.

    :raises ValueError: a limit makes no sense.
    """

    max_pool_size: int = attrs.field(default=6, validator=_bounded(1))
    pool_idle_time: float = attrs.field(default=300.0, validator=_bounded(_TICK, zero=True))
    """0: idle processes are never retired for being idle."""
    max_concurrent_spawns: int = attrs.field(default=2, validator=_bounded(1))
    """Programs that load an application at a time, those left out that are slow (``scaling``)."""
    backoff_first: float = attrs.field(default=0.1, validator=_bounded(_TICK))
    backoff_factor: float = attrs.field(default=3.0, validator=_bounded(1))
    """With these defaults an application that never starts costs 8 spawns in its worst minute (R42), and 2 in any later one."""
    backoff_max: float = attrs.field(default=30.0, validator=_bounded(_TICK))
    """No wait between spawns is longer. A process that has lived for so long counts as one that starts well."""


class SessionOutcome(enum.Enum):
    """How a borrowed session ended."""

    DONE = "done"
    """The response was whole (or deliberately dropped) and the process is free again."""
    CLIENT_GONE = "client_gone"
    BROKEN_OFF = "broken_off"
    """The process hung up before its response was whole, and after its first byte. Its exit, if that follows, says the rest."""
    PROCESS_FAILED = "process_failed"
    """The process broke the protocol or the connection: it is judged by the policy."""
    UNANSWERED = "unanswered"
    """The process ended a new stream without a byte of a response. Once may happen to anybody; the policy counts."""
    NOT_STARTED = "not_started"
    """Nothing reached the process, and it is not to blame: it stays in routing. (It refused? PROCESS_FAILED.)"""


class ErrorCategory(enum.Enum):
    """Why a spawn failed."""

    APPLICATION = "application"
    """The application's own code, or what it imports, raised."""
    CONFIGURATION = "configuration"
    """What the supervisor was told does not fit what is there: no such file, no such object."""
    TIMEOUT = "timeout"
    EXITED = "exited"
    OPERATING_SYSTEM = "operating_system"
    LOADER = "loader"
    """The loader broke its contract: our bug, or a foreign program on the control socket."""


@attrs.frozen
class SpawnFailure:
    """The evidence of a spawn that failed: everything that the page, the log and ``status`` say about it.

    ``environment`` is already redacted. ``output`` is the tail of what the program wrote, oldest first.
    """

    error_id: str
    category: ErrorCategory
    summary: str
    problem: str
    solution: str
    journey: Journey
    traceback: str = ""
    output: tuple[str, ...] = ()
    details: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ()
    exit_status: str = ""
