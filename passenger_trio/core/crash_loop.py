"""Does a group start well? What the end, the first session and the age of a process say about that.

It knows processes and when they were ready, and tells ``backoff``. It never knows waiters or limits on numbers.

Laws:

* A process that goes away by itself, unproven, is a crash: a failed start, though its spawn succeeded.
* Proven is a process that has served a session to its end, or has lived for ``backoff_max`` seconds.
* A process that leaves ``UNANSWERED_TOLERATED`` sessions in a row unanswered is no use, although it lives: it is replaced, and if it is
  unproven its group has failed to start.
* Two facts about one process may come in either order (its exit, the end of its last session); the verdict is the
  same in the end. So a program that ends by itself after each request is not mistaken for one that crashes.
"""

from __future__ import annotations

from passenger_trio.core.limits import PoolLimits
from passenger_trio.core.model import SpawnFailure
from passenger_trio.core.state import GroupState, ProcessState

UNANSWERED_TOLERATED = 3


def record_crash(
    process: ProcessState, now: float, jitter: float, limits: PoolLimits, failure: SpawnFailure | None
) -> None:
    """An enabled process goes away, and we did not ask for it. If it is unproven, its group has failed to start."""
    group = process.group
    look_at_age(group, now, limits)
    if process.processed or now - process.since >= limits.backoff_max:
        return
    if group.backoff.record(now, jitter, limits, failure=failure, crash=True):
        process.blamed_at = now


def explain(process: ProcessState, failure: SpawnFailure | None) -> None:
    """The evidence for a process that was blamed already: it broke its session first, and its exit is seen now."""
    backoff = process.group.backoff
    if failure is not None and process.blamed_at is not None and process.blamed_at == backoff.failed_at:
        backoff.failure = failure


def served(process: ProcessState) -> bool:
    """A process has just served a session. Returns whether that ended the troubles of its group."""
    backoff = process.group.backoff
    # Only the first session can tell anything new about how the group starts.
    if not backoff.failures or process.processed > 1:
        return False
    if process.blamed_at is not None and process.blamed_at == backoff.failed_at:
        # It served and went away, and its exit was seen before the end of its session: it was blamed wrongly.
        backoff.succeed()
        return True
    return backoff.proven(process.since)


def left_unanswered(process: ProcessState) -> bool:
    """A process has ended a session without an answer. Returns whether it has done nothing else for so long that it is no use."""
    if process.unanswered_at != process.processed:
        process.unanswered_at = process.processed
        process.unanswered = 0
    process.unanswered += 1
    return process.unanswered >= UNANSWERED_TOLERATED


def look_at_age(group: GroupState, now: float, limits: PoolLimits) -> None:
    """Processes that have lived for ``backoff_max`` seconds start well.

    There is no deadline for this: it matters only when the next failure is counted. ``tick`` asks too, so that people
    see it.
    """
    if group.backoff.failures:
        for process in group.enabled.values():
            if now - process.since >= limits.backoff_max:
                group.backoff.proven(process.since)
