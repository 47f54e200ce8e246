"""Frozen values that the layers pass to each other.

This module knows names and numbers only. No value changes after its creation; ``state`` holds what
changes, and ``policy_limits`` the limits that come from the options.
"""

from __future__ import annotations

import enum
from typing import NewType

import attrs

from passenger_trio.core.journey import Journey
from passenger_trio.late_classes import frozen

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
    """The response was complete (or deliberately dropped), and the process is free again."""
    CLIENT_GONE = "client_gone"
    BROKEN_OFF = "broken_off"
    """The process hung up after the first byte of its response and before the end. Its exit, if any, shows why."""
    PROCESS_FAILED = "process_failed"
    """The process broke the protocol or the connection. The policy retires it."""
    UNANSWERED = "unanswered"
    """The process ended a new stream without a byte of response. One may be an accident, so the policy counts them."""
    NOT_STARTED = "not_started"
    """No byte reached the process, and it is not at fault: it stays in routing. (If it refused: PROCESS_FAILED.)"""


class ErrorCategory(enum.Enum):
    """Why a spawn failed."""

    APPLICATION = "application"
    """The application's own code, or code that it imports, raised."""
    CONFIGURATION = "configuration"
    """The configuration names something that does not exist: a file, an object."""
    TIMEOUT = "timeout"
    EXITED = "exited"
    OPERATING_SYSTEM = "operating_system"
    LOADER = "loader"
    """The loader broke its contract: our bug, or another program on the control socket."""


@frozen
class SpawnFailure:
    """The evidence of a failed spawn: everything that the error page, the log and ``status`` say about it.

    ``environment`` is already redacted. ``output`` is the tail of the program's output, oldest line first.
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
