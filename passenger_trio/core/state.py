"""What the pool knows: the one place where facts that change are kept.

The classes hold fields and no decisions; ``routing``, ``scaling`` and ``policy`` change them, always within one
synchronous call. Above each field stands its law; ``invariants.check`` holds the laws against a state. Nothing here
knows an operating system's pid, a socket or a clock. Times are monotonic seconds.

A process is in one of three places, and moves downwards only::

    ENABLED    in group.enabled    routing may give it sessions; it counts in max_pool_size and max_instances
    DETACHED   in group.detached   it was retired: it finishes what it has; it counts only in the hard ceiling
    GONE       nowhere             the operating system's process ended; only its open sessions still refer to it
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain

import attrs

from passenger_trio.core.backoff import Backoff
from passenger_trio.core.commands import Reason
from passenger_trio.core.limits import GroupLimits, PoolLimits
from passenger_trio.core.model import (
    FIRST_GENERATION,
    AttemptId,
    GroupKey,
    PreloaderId,
    ProcessId,
    SessionId,
    SpawnFailure,
    WaiterId,
)


class EnabledStatus(enum.Enum):
    """Where a process is, seen from routing."""

    ENABLED = "enabled"
    DETACHED = "detached"
    GONE = "gone"


# eq=False throughout: these are things, not values; two that look alike are still two.
@attrs.define(eq=False)
class Attempt:
    """A spawn that is under way. It counts in every limit as if it were a process already."""

    id: AttemptId
    group: GroupState = attrs.field(repr=lambda group: str(group.key))
    begun: float
    reason: Reason
    generation: int = FIRST_GENERATION
    # Whether it counts in the limits on enabled processes. Not: what will take the place of a worn process (a relief),
    # and what will not be attached at all.
    counts: bool = True
    # It was told to stop; a process that comes all the same is not attached.
    abandoned: bool = False
    # Whether it has one of the spawn slots. Not: what waits for a preloader that another attempt has started, and what is slow.
    has_slot: bool = True
    # It waits for that preloader.
    waits: bool = False
    # When it is slow, if it is under way still.
    slow_at: float = math.inf
    # That was seen (by ``tick``).
    slow: bool = False


@attrs.define(eq=False)
class ProcessState:
    """One application process."""

    id: ProcessId
    group: GroupState = attrs.field(repr=lambda group: str(group.key))
    # 0: unlimited.
    concurrency: int
    # Grows with each process that is attached to the pool. Ties in routing go to the smallest.
    order: int
    # When it was ready.
    since: float
    # When a session of it last began or ended, or it was ready. While it is idle: since when.
    last_used: float
    status: EnabledStatus = EnabledStatus.ENABLED
    generation: int = FIRST_GENERATION
    # Open sessions: exactly those in PoolState.sessions that point here. Without the unbounded ones never above concurrency (unless that is 0).
    sessions: int = 0
    # Those of them that are in PoolState.unbounded.
    unbounded: int = 0
    # Sessions that it served to the end. Not those that never reached it, nor the ones that it broke.
    processed: int = 0
    # The key under which it stands in group.free; None: it does not stand there (totally busy, or not enabled).
    rank: Rank | None = attrs.field(default=None, repr=False)
    # Sessions in a row that it ended without an answer, and how many it had served then: another number, and the row is over.
    unanswered: int = 0
    unanswered_at: int = 0
    # When its end was counted as a failure of the group; None: it was not. At most once.
    blamed_at: float | None = None
    # With the last of so many served sessions it is worn at the latest; 0: never.
    wears_at: int = 0
    # With the last of so many it is looked at whether it is time to replace it; 0: never.
    looks_at: int = 0
    # When that was done last, and how many it had served then.
    look_time: float = 0.0
    look_count: int = 0
    # When it is worn for its age.
    expires: float = math.inf
    # It was told to end at once.
    killed: bool = False
    # Detached while it was busy, and why: its last session's end retires it. None: it is not, or it was told to go.
    leaving: Reason | None = None
    # Only while it is leaving (draining): since when; when it goes although it is busy, and whether that was put off once; whether people were told.
    left_at: float = math.inf
    drained_by: float = math.inf
    drain_extended: bool = False
    told_draining: bool = False


Rank = tuple[int, float, int, ProcessState]
"""Minus generation, busyness, order, the process. The order is unique, so the process itself is never compared."""


@attrs.frozen
class Rejection:
    """A generation that did not start, and whether it left the one before it serving."""

    generation: int
    at: float
    failure: SpawnFailure | None
    kept: bool = True


@attrs.define(eq=False)
class GenerationState:
    """What spawns processes of one generation: in the shell, one spawner."""

    number: int
    # Whether its processes are forked by a preloader, so that spawns wait for one program. Not any more when the application has turned out unsafe to fork.
    forks: bool = False
    # Preloaders that live, and whether each was told to go. One at a time, save that a new one may start before the
    # retired one has ended; and whichever of the two may be the first to end.
    preloaders: dict[PreloaderId, bool] = attrs.field(factory=dict)
    # When a preloader started, or a spawn last ended.
    preloader_used: float = -math.inf
    # Whether a process of it was ready.
    came: bool = False

    @property
    def has_preloader(self) -> bool:
        """Whether one lives that was not told to go."""
        return not all(self.preloaders.values())


@attrs.define(eq=False)
class GroupState:
    """All processes of one application in one environment, and those who wait for one."""

    key: GroupKey
    limits: GroupLimits
    # In the order in which they were attached.
    enabled: dict[ProcessId, ProcessState] = attrs.field(factory=dict)
    # Retired and not yet gone.
    detached: dict[ProcessId, ProcessState] = attrs.field(factory=dict)
    # Exactly the enabled processes that are not totally busy, sorted by rank: the first one is the next one (routing).
    free: list[Rank] = attrs.field(factory=list, repr=False)
    # Who waits, longest first, and since when. Not empty => free is empty, but for a process that all of them avoid.
    waiters: OrderedDict[WaiterId, float] = attrs.field(factory=OrderedDict)
    # Those of them that want any process but one, which left their request unanswered; that one too if it is the only one.
    avoiding: dict[WaiterId, ProcessId] = attrs.field(factory=dict)
    attempts: dict[AttemptId, Attempt] = attrs.field(factory=dict)
    backoff: Backoff = attrs.field(factory=Backoff)
    # Processes in a row that hung up in their first session, since a session ended well or a preloader was let go for it (mending).
    crashes: int = 0
    # When a restart was begun because the code of a group that crashes had changed.
    mended_at: float = -math.inf
    # How many sessions the next process will probably serve at a time: what the last one did. 0: unlimited.
    expected_concurrency: int = 1
    # How long its last successful spawn took: seconds.
    spawn_time: float = 0.0
    # Open sessions and when they were granted, oldest first; only where a request may not last for ever (recycling).
    running: dict[SessionId, float] = attrs.field(factory=dict)
    # After a pause of ours: no request counts as too long before.
    lenient_until: float = -math.inf
    # Not later than the moment at which a process is next worn for its age.
    expiry_due: float = math.inf
    # Not later than the moment at which something is to be done about a process that drains.
    drain_due: float = math.inf
    # When tick last looked: no deadline for impatience before.
    looked_at: float = -math.inf
    # Seconds for which an attempt that is its only hope is left its place in a full pool, when another group has nobody at all.
    grace: float = 10.0
    # When its last spawn was begun, counted in spawns of the pool: the smallest has the next turn.
    turn: int = 0
    # Not later than the moment at which a process of it may next be retired for idleness. It may be too early, for
    # sessions come and go without touching it; then tick looks again and sets it right. That keeps it out of the hot
    # path.
    idle_due: float = math.inf
    # Restarts; their theory is in ``restarting``. What serves and is spawned; no enabled process is of a newer one.
    generation: int = FIRST_GENERATION
    # The generation that a restart tries. None: no restart is at that point.
    candidate: int | None = None
    # A restart was asked for while the candidate's first process was under way: another one follows.
    restart_again: bool = False
    # Whether somebody is to be told of the end of a restart.
    rolling: bool = False
    # The last restart, if it failed. None again when one succeeds.
    rejection: Rejection | None = None
    last_generation: int = FIRST_GENERATION
    # Each request is to find processes that have served nobody: a hard restart comes before it.
    always_restart: bool = False
    # Those that serve, are tried, or have something left that was made for them.
    generations: dict[int, GenerationState] = attrs.field(factory=dict)
    # Enabled processes that are to be replaced, the first one first. All those of old generations are here.
    worn: dict[ProcessId, Reason] = attrs.field(factory=dict)
    # The attempt whose process will take the place of a worn one: one at a time.
    relief: Attempt | None = None

    @property
    def processes(self) -> Iterator[ProcessState]:
        """Enabled and detached ones."""
        return chain(self.enabled.values(), self.detached.values())

    @property
    def holds_on(self) -> bool:
        """Whether what serves is kept, because the version after it did not start: it could not be had again."""
        return self.rejection is not None and self.rejection.kept

    @property
    def preloaders(self) -> int:
        """Of all generations."""
        return sum(len(generation.preloaders) for generation in self.generations.values())


@attrs.define(eq=False)
class PoolState:
    """Everything. Which things there are is in the dictionaries here; the groups hold the same objects by topic."""

    limits: PoolLimits
    groups: dict[GroupKey, GroupState] = attrs.field(factory=dict)
    # Enabled and detached ones.
    processes: dict[ProcessId, ProcessState] = attrs.field(factory=dict)
    # Every session that was granted and not closed, and to which process. That process may be gone.
    sessions: dict[SessionId, ProcessState] = attrs.field(factory=dict)
    # Those of them that do not count in the concurrency of their processes.
    unbounded: set[SessionId] = attrs.field(factory=set)
    # Every waiter that was not answered: the keys of all group.waiters.
    waiters: dict[WaiterId, GroupState] = attrs.field(factory=dict)
    attempts: dict[AttemptId, Attempt] = attrs.field(factory=dict)
    # Not later than the moment at which a process may next count as spare, while the pool is full and somebody waits for a process more
    # (scaling). Infinity: nobody has looked yet.
    spare_due: float = math.inf
    # Whether one was spare then, and wanted by nobody: who comes has to look, for it may have been used since, or be there for him.
    spare_seen: bool = False
    # How many of the processes are enabled.
    enabled_count: int = 0
    # Whether a group has a max_request_time.
    timed: bool = False
    # False from shut_down on, for ever: no spawns, no new checkouts; nothing idle stays.
    open: bool = True
    # PoolEmpty was given. Only when closed, and with no process, attempt and preloader left.
    emptied: bool = False
    # The numbers last given out. Never reused.
    last_session: int = 0
    last_attempt: int = 0
    last_order: int = 0

    @property
    def capacity_used(self) -> int:
        """What counts in ``max_pool_size``."""
        return self.enabled_count + sum(attempt.counts for attempt in self.attempts.values())

    @property
    def slots_used(self) -> int:
        """What counts in ``max_concurrent_spawns``."""
        return sum(attempt.has_slot for attempt in self.attempts.values())

    @property
    def total(self) -> int:
        """What counts in the hard ceiling: retired processes still use memory."""
        return len(self.processes) + len(self.attempts)

    @property
    def ceiling(self) -> int:
        """Where growth ends: twice ``max_pool_size``. A relief may stand above it (``scaling.has_headroom``)."""
        return 2 * self.limits.max_pool_size
