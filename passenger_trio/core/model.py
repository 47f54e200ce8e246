"""Frozen values that the layers pass to each other.

It knows names and numbers only; the limits, which come from the options, are in ``limits``. Nothing here changes after it was made; what changes is in ``state``.
"""

from __future__ import annotations

import enum
from typing import NewType

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


@attrs.frozen(cache_hash=True)
class GroupKey:
    """All processes of one application in one environment."""

    name: str
    environment: str

    def __str__(self) -> str:
        return f"{self.name} ({self.environment})"


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
