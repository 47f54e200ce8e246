"""What the policy wants done: frozen values, each with its reason.

The shell (``pool/perform.py``) performs every command synchronously and in the given order: a command
never waits. Tests compare commands with ``==``; operators read the ``reason``.
"""

from __future__ import annotations

import enum

import attrs

from passenger_trio.core.model import (
    FIRST_GENERATION,
    AttemptId,
    GroupKey,
    ProcessId,
    SessionId,
    SpawnFailure,
    WaiterId,
)
from passenger_trio.late_classes import frozen


class Reason(enum.Enum):
    """Why a command was given."""

    # spawns
    MIN_INSTANCES = "below the minimum number of processes"
    DEMAND = "requests wait and every process is busy"
    REPLACE = "a process ended"
    RETRY = "the back-off after a failed spawn is over"
    # spawns and retirements
    RESTART = "the application restarts"
    MAX_REQUESTS = "it has served max_requests requests"
    LIFETIME = "it is older than max_process_lifetime"
    MEMORY = "its memory exceeds the limit"
    DETACHED = "an operator detached it"
    # kills
    REQUEST_TIME = "a request exceeded max_request_time"
    # retirements
    IDLE = "idle for longer than the pool idle time"
    SHUT_DOWN = "the pool is shutting down"
    FAILED = "it broke the session protocol"
    CRASHES = "processes that it forks crash, and the code may have changed"
    UNANSWERED = "it closes connections without a response"
    DRAIN_TIME = "its requests exceeded max_drain_time"
    NO_SLOT = "no spawn slot is free to load the application"
    SURPLUS = "the pool was full when it became ready"
    MAKE_ROOM = "another application needs its place"
    OOB_WORK = "its out-of-band work failed or took too long"
    SHRINK = "fewer processes are allowed than before"
    # refusals
    QUEUE_FULL = "the request queue is full"
    QUEUE_TIME = "it exceeded max_request_queue_time"
    SPAWN_FAILED = "the application does not start"
    NO_STREAM = "no file descriptor is left for a stream to a process"
    # retirements and refusals
    REMOVED = "the application was removed"


_WORDS = {reason.value: reason.name.lower() for reason in Reason}


def reason_word(why: str) -> str:
    """One word for the text of a reason, for metrics; ``other`` if no command has that reason."""
    return _WORDS.get(why, "other")


@frozen
class Grant:
    """``waiter`` may use ``process`` for one session. ``waiter`` is None when ``checkout_nowait`` made the grant."""

    session: SessionId
    process: ProcessId
    waiter: WaiterId | None = None


@frozen
class Refuse:
    """``waiter`` gets an error: QUEUE_FULL, QUEUE_TIME, SPAWN_FAILED, REMOVED or SHUT_DOWN.

    ``failure`` is the evidence if the reason is SPAWN_FAILED. It is None if the processes start but end before they
    have served a session, and the shell has no evidence (``PoolPolicy.process_exited``).
    """

    waiter: WaiterId
    reason: Reason
    failure: SpawnFailure | None = None
    retry_after: float | None = None
    """Seconds until the next attempt, if known."""
    group: GroupKey | None = attrs.field(default=None, eq=False)
    """Whose processes the waiter waits for, for the log."""


@frozen
class StartSpawn:
    """Spawn a process of a generation.

    It runs the code as it was when the first spawn of that generation began, or newer code.
    """

    group: GroupKey
    attempt: AttemptId
    reason: Reason
    generation: int = FIRST_GENERATION


@frozen
class AbandonSpawn:
    """Stop an attempt that is under way. It still ends with ``spawn_failed`` or ``spawn_succeeded``."""

    group: GroupKey
    attempt: AttemptId
    reason: Reason


@frozen
class Detach:
    """A busy process gets no more sessions. ``Retire`` follows when its last session ends."""

    process: ProcessId
    reason: Reason


@frozen
class Retire:
    """End a process: it has no sessions left, broke one, or used up its time for them.

    The process keeper runs the termination sequence: ask, SIGTERM, SIGKILL.
    """

    process: ProcessId
    reason: Reason


@frozen
class RunOobWork:
    """A process that is out of routing and has no sessions: let it do its out-of-band work, for so many seconds at most."""

    process: ProcessId
    seconds: float


@frozen
class StillDraining:
    """Tell operators that a detached process still has sessions, and how many seconds are left (infinity: no limit)."""

    process: ProcessId
    sessions: int
    seconds: float


@frozen
class Kill:
    """End a process at once, with its open sessions. The error of ``session``, if given, tells why: it took too long."""

    process: ProcessId
    reason: Reason
    session: SessionId | None = None


@frozen
class RetirePreloader:
    group: GroupKey
    reason: Reason
    generation: int = FIRST_GENERATION


@frozen
class EndGeneration:
    """Release the spawner of a generation: nothing more is spawned of it, and it has no preloader and no process."""

    group: GroupKey
    generation: int


@frozen
class RestartEnded:
    """Tell the callers that wait for a restart how it ended.

    Accepted: a process of ``generation`` was ready, and no older process serves. Rejected: it did not start.
    ``kept``: the previous version keeps serving; False: there was none to keep.
    """

    group: GroupKey
    generation: int
    rejected: bool = False
    failure: SpawnFailure | None = None
    """Why the generation was rejected, if known."""
    kept: bool = True


@frozen
class EndGroup:
    """A removed group is gone: it has no process, no attempt and no preloader left, and nobody waits for it."""

    group: GroupKey


@frozen
class PoolEmpty:
    """The pool is shut down, and its last process and attempt are gone."""


Command = (
    Grant
    | Refuse
    | StartSpawn
    | AbandonSpawn
    | Detach
    | Retire
    | RunOobWork
    | StillDraining
    | Kill
    | RetirePreloader
    | EndGeneration
    | RestartEnded
    | EndGroup
    | PoolEmpty
)
