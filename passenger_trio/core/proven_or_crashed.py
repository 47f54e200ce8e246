"""Crash-loop detection: does a group start well? The exit, the first session and the age of a process
answer that.

This module knows processes and when they became ready, and reports to ``backoff_and_circuit``. It never knows
waiters or limits on numbers.

Laws:

* An unproven process that ends by itself is a crash: a failed start, although its spawn succeeded.
* A process is proven when it has served a session to its end, or has lived for ``backoff_max`` seconds.
* A process that leaves ``UNANSWERED_TOLERATED`` sessions in a row unanswered is useless, although it
  lives: it is replaced. If it is unproven, its group has failed to start.
* Two facts about one process (its exit, the end of its last session) may come in either order; the
  result is the same. So a program that exits after each request does not count as one that crashes.
"""

from __future__ import annotations

from passenger_trio.core.model import SpawnFailure
from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.core.state import GroupState, ProcessState

UNANSWERED_TOLERATED = 3


def record_crash(
    process: ProcessState, now: float, jitter: float, limits: PoolLimits, failure: SpawnFailure | None
) -> None:
    """An enabled process ended unasked. If it is unproven, its group has failed to start."""
    group = process.group
    look_at_age(group, now, limits)
    if process.processed or now - process.since >= limits.backoff_max:
        return
    if group.backoff.record(now, jitter, limits, failure=failure, crash=True):
        process.blamed_at = now


def explain(process: ProcessState, failure: SpawnFailure | None) -> None:
    """Add evidence for a process that was counted as a crash before: it broke its session, and exits now."""
    backoff = process.group.backoff
    if failure is not None and process.blamed_at is not None and process.blamed_at == backoff.failed_at:
        backoff.failure = failure


def served(process: ProcessState) -> bool:
    """A process has just served a session. Returns whether that ended the failures of its group."""
    backoff = process.group.backoff
    # Only the first session shows anything new about how the group starts.
    if not backoff.failures or process.processed > 1:
        return False
    if process.blamed_at is not None and process.blamed_at == backoff.failed_at:
        # It served and exited, but its exit came before the end of its session: counting a crash was wrong.
        backoff.succeed()
        return True
    return backoff.proven(process.since)


def left_unanswered(process: ProcessState) -> bool:
    """A process ended a session without an answer. Returns whether it did so too often in a row to be useful."""
    if process.unanswered_at != process.processed:
        process.unanswered_at = process.processed
        process.unanswered = 0
    process.unanswered += 1
    return process.unanswered >= UNANSWERED_TOLERATED


def look_at_age(group: GroupState, now: float, limits: PoolLimits) -> None:
    """Processes that have lived for ``backoff_max`` seconds start well.

    No deadline is needed: the age matters only when the next failure is counted. ``tick`` calls this too, so that
    operators see the result.
    """
    if group.backoff.failures:
        for process in group.enabled.values():
            if now - process.since >= limits.backoff_max:
                group.backoff.proven(process.since)
