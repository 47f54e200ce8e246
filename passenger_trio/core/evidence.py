"""What the pool knows of a request that failed: values for the page that explains it (OB10).

Times are seconds. Nothing here decides anything.
"""

from __future__ import annotations

from passenger_trio.core.policy_limits import GroupLimits
from passenger_trio.core.statistics import GroupStatistics
from passenger_trio.late_classes import frozen

__all__ = ["Evidence", "ProcessEnd", "ProcessEvidence", "process_evidence"]


@frozen
class ProcessEnd:
    """How a process has ended.

    :ivar how: ``"exit status 3"``, ``"killed by signal 9 (SIGKILL)"``.
    :ivar reason: why the server ended it; empty: it ended by itself.
    :ivar output: the last lines that it wrote, oldest first.
    """

    how: str
    reason: str
    output: tuple[str, ...]


@frozen
class ProcessEvidence:
    """A process of the application."""

    pid: int
    state: str
    sessions: int
    concurrency: int
    """0: no limit."""
    processed: int
    age: float


@frozen
class Evidence:
    """:ivar end: of the process that had the request; None: it lives, or there was none.
    :ivar output: the last lines of that process, oldest first.
    """

    limits: GroupLimits
    most_processes: int
    processes: tuple[ProcessEvidence, ...]
    starting: int
    waiting: int
    end: ProcessEnd | None
    output: tuple[str, ...]


def process_evidence(group: GroupStatistics, pids: dict[int, int], now: float) -> tuple[ProcessEvidence, ...]:
    """:param pids: id of a process in the pool -> its pid."""
    return tuple(
        ProcessEvidence(
            pids[process.id],
            process.state.value,
            process.sessions,
            process.concurrency,
            process.processed,
            now - process.since,
        )
        for process in group.processes
        if process.id in pids
    )
