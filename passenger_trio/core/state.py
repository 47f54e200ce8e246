"""What the pool knows: the only place that keeps changing facts.

The classes hold fields and make no decisions. The modules of ``core/`` that ``policy`` calls change them,
always within one synchronous call. The law of a field stands above it; ``invariants.check`` checks the
laws. Nothing here knows a pid of the operating system, a socket or a clock. Times are monotonic
seconds.

A process is in one of four places, and only moves downwards, except that a disabled one may be enabled again::

    ENABLED    in group.enabled    routing may give it sessions; it counts in max_pool_size and max_instances
    DISABLED   in group.enabled    it counts, and gets no sessions: for out-of-band work, or by an operator's order
               and group.disabled
    DETACHED   in group.detached   it was retired and finishes its sessions; it counts only in the hard ceiling
    GONE       nowhere             the operating system's process ended; only its open sessions still refer to it
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain

import attrs

from passenger_trio.core.backoff_and_circuit import Backoff
from passenger_trio.core.commands import Reason
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
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.late_classes import define, frozen


class EnabledStatus(enum.Enum):
    """Where a process is, as routing sees it."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    DETACHED = "detached"
    GONE = "gone"


# eq=False on these classes: they are objects with an identity, not values; two equal ones are still two.
@define(eq=False)
class Attempt:
    """A spawn that is under way. Every limit counts it like a process."""

    id: AttemptId
    group: GroupState = attrs.field(repr=lambda group: str(group.key))
    begun: float
    reason: Reason
    generation: int = FIRST_GENERATION
    # Whether it counts in the limits on enabled processes. A replacement does not: it takes another's place. Nor does an
    # attempt whose process will not be attached.
    counts: bool = True
    # It was told to stop. If a process comes nevertheless, it is not attached.
    abandoned: bool = False
    # Whether it has a spawn slot. Attempts that wait for another attempt's preloader have none, nor have slow ones.
    has_slot: bool = True
    # It waits for the preloader that another attempt has started.
    waits: bool = False
    # When it becomes slow, if it is still under way.
    slow_at: float = math.inf
    # ``tick`` has seen that it is slow.
    slow: bool = False


@define(eq=False)
class ProcessState:
    """One application process."""

    id: ProcessId
    group: GroupState = attrs.field(repr=lambda group: str(group.key))
    # 0: no limit.
    concurrency: int
    # Increases with each process that is attached to the pool. Among equals, routing takes the smallest.
    order: int
    # When it became ready.
    since: float
    # When a session of it last began or ended, or when it became ready. While it is idle: the start of its idleness.
    last_used: float
    status: EnabledStatus = EnabledStatus.ENABLED
    generation: int = FIRST_GENERATION
    # Open sessions: exactly those in PoolState.sessions that point here. Those that count never exceed concurrency
    # (unless concurrency is 0).
    sessions: int = 0
    # How many of its open sessions are in PoolState.uncounted.
    uncounted: int = 0
    # Sessions that it served to the end. Sessions that never reached it, and those that it broke, are not counted.
    processed: int = 0
    # Its key in group.free; None: it is not in there, because it is totally busy or not enabled.
    rank: Rank | None = attrs.field(default=None, repr=False)
    # Sessions in a row that it ended without an answer, and its ``processed`` then. Another ``processed`` ends the row.
    unanswered: int = 0
    unanswered_at: int = 0
    # When its end was counted as a failure of the group, at most once. None: never.
    blamed_at: float | None = None
    # It is to be replaced after this many served sessions at the latest; 0: never.
    replace_at: int = 0
    # After this many served sessions the policy looks whether to replace it; 0: never.
    looks_at: int = 0
    # When the policy last looked, and how many sessions it had served then.
    look_time: float = 0.0
    look_count: int = 0
    # When it is to be replaced for its age.
    expires: float = math.inf
    # It was killed: told to end at once.
    killed: bool = False
    # Why it was detached while busy: the end of its last session retires it. None: not detached, or retired already.
    leaving: Reason | None = None
    # Only while it drains: since when; when it is retired although busy; whether that deadline was extended once;
    # whether operators were told.
    left_at: float = math.inf
    drained_by: float = math.inf
    drain_extended: bool = False
    told_draining: bool = False
    # An operator has disabled it.
    disabled_by_operator: bool = False
    # Bytes, as last measured; 0: not yet.
    size: int = 0

    @property
    def is_attached(self) -> bool:
        """Whether it is enabled or disabled: one of the processes that its group counts on."""
        return self.status is EnabledStatus.ENABLED or self.status is EnabledStatus.DISABLED


Rank = tuple[int, float, int, ProcessState]
"""Negated generation, busyness, order, process. The order is unique, so the process itself is never compared."""


@frozen
class Rejection:
    """A generation that did not start. ``kept``: the generation before it still serves."""

    generation: int
    at: float
    failure: SpawnFailure | None
    kept: bool = True


@define(eq=False)
class GenerationState:
    """What spawns the processes of one generation: in the shell, one spawner."""

    number: int
    # Whether a preloader forks its processes, so that spawns wait for one program. False again when the application
    # turns out unsafe to fork.
    forks: bool = False
    # Live preloaders, and whether each was told to go. Only one is kept at a time, but a new one may start before the
    # retired one has ended, and either of the two may end first.
    preloaders: dict[PreloaderId, bool] = attrs.field(factory=dict)
    # When a preloader last started, or a spawn last ended.
    preloader_used: float = -math.inf
    # Whether a process of it was ever ready.
    came: bool = False

    @property
    def has_preloader(self) -> bool:
        """Whether it has a live preloader that was not told to go."""
        return not all(self.preloaders.values())


@define(eq=False)
class GroupState:
    """All processes of one application in one environment, and the waiters for them."""

    key: GroupKey
    limits: GroupLimits
    # In the order of their attachment.
    enabled: dict[ProcessId, ProcessState] = attrs.field(factory=dict)
    # Those of them that are out of routing.
    disabled: dict[ProcessId, ProcessState] = attrs.field(factory=dict)
    # Retired, but not gone.
    detached: dict[ProcessId, ProcessState] = attrs.field(factory=dict)
    # Exactly the processes in routing that are not totally busy, sorted by rank: routing takes the first one.
    free: list[Rank] = attrs.field(factory=list, repr=False)
    # Waiters and since when they wait, longest first. If there are any, free holds only processes that all of them avoid,
    # or do not seek.
    waiters: OrderedDict[WaiterId, float] = attrs.field(factory=OrderedDict)
    # Waiters whose request a process left unanswered -> that process. They avoid it unless it is the only one.
    avoiding: dict[WaiterId, ProcessId] = attrs.field(factory=dict)
    # Waiters of a sticky session -> its process. They wait for that process as long as it is enabled.
    seeking: dict[WaiterId, ProcessId] = attrs.field(factory=dict)
    # Waiters for which a slot may come back from a front -> until when no process is started for them.
    spawn_delays: dict[WaiterId, float] = attrs.field(factory=dict)
    attempts: dict[AttemptId, Attempt] = attrs.field(factory=dict)
    backoff: Backoff = attrs.field(factory=Backoff)
    # Processes in a row that hung up in their first session. A session that ends well, or a preloader retired for them,
    # resets the count (automatic_restart).
    crashes: int = 0
    # When a restart last began because the code of the crashing group had changed.
    automatic_restart_at: float = -math.inf
    # The probable concurrency of the next process: that of the last one. 0: no limit.
    expected_concurrency: int = 1
    # The average size of its processes as last measured, in bytes, else as estimated when the first one came; 0: unknown (processes_by_memory).
    process_size: int = 0
    # Whether one of them was ever measured.
    is_measured: bool = False
    # Seconds that its last successful spawn took.
    spawn_time: float = 0.0
    # Open sessions and when they were granted, oldest first; only if the time of a request is limited (request_time).
    running: dict[SessionId, float] = attrs.field(factory=dict)
    # After a pause of the server itself: before this time no request counts as too long.
    lenient_until: float = -math.inf
    # At or before the time when the next process is to be replaced for its age.
    expiry_due: float = math.inf
    # At or before the time when a draining process needs attention.
    drain_due: float = math.inf
    # When tick last looked: overdue waiters set no deadline before this time.
    looked_at: float = -math.inf
    # Seconds for which the group's only attempt keeps its place in a full pool while another group is starved.
    grace: float = 10.0
    # When its last spawn began, counted in spawns of the pool: the group with the smallest number has the next turn.
    turn: int = 0
    # Its number among the groups that have waiters and nothing else (waiting_groups); 0: it is none of them.
    waits_as: int = 0
    # At or before the time when an idle process may next be retired. Sessions begin and end without updating it, so it
    # may be too early; tick then looks again and corrects it. That keeps it out of the hot path.
    idle_due: float = math.inf
    # Out-of-band work (``oob_work``): which processes asked for it, which one is out of routing for it, and whether its work has begun.
    oob_wanted: dict[ProcessId, None] = attrs.field(factory=dict)
    oob_process: ProcessState | None = attrs.field(default=None, repr=lambda process: str(process and process.id))
    oob_begun: bool = False
    # When the process that is out of routing comes back if its work cannot begin, and when to look next.
    oob_give_up: float = math.inf
    oob_due: float = math.inf
    # Restarts (the theory is in ``group_restarts``). The generation that is spawned; no enabled process is newer.
    generation: int = FIRST_GENERATION
    # The generation that a restart tries. None: no restart is trying one.
    candidate: int | None = None
    # A restart was requested while the candidate's first process was starting: another restart follows.
    restart_again: bool = False
    # Whether a restart is under way whose end must be announced.
    rolling: bool = False
    # The last restart, if it failed. None again after one that succeeds.
    rejection: Rejection | None = None
    last_generation: int = FIRST_GENERATION
    # Each request must find processes that have served no request: a hard restart precedes it if necessary.
    always_restart: bool = False
    # Generations that serve, are on trial, or still have an attempt, a preloader or a process.
    generations: dict[int, GenerationState] = attrs.field(factory=dict)
    # Enabled processes that are to be replaced, in this order. Contains all enabled processes of old generations.
    to_replace: dict[ProcessId, Reason] = attrs.field(factory=dict)
    # The attempt whose process will replace one of them: one at a time.
    replacement: Attempt | None = None
    # It was removed: it serves its waiters, and then ends (resizing).
    leaving: bool = False
    # Waiters that were there when the queue became shorter may stay.
    allowed_queue: int = 0

    @property
    def processes(self) -> Iterator[ProcessState]:
        """Enabled and detached processes."""
        return chain(self.enabled.values(), self.detached.values())

    @property
    def in_routing(self) -> int:
        """The number of processes that may be given sessions, busy or not."""
        return len(self.enabled) - len(self.disabled)

    @property
    def has_constrained_waiters(self) -> bool:
        """Whether some waiters do not take every process."""
        return bool(self.avoiding or self.seeking)

    @property
    def holds_on(self) -> bool:
        """Whether the serving processes are kept because the next version failed: they cannot be started again."""
        return self.rejection is not None and self.rejection.kept

    @property
    def preloaders(self) -> int:
        """The number of preloaders of all generations."""
        return sum(len(generation.preloaders) for generation in self.generations.values())


@define(eq=False)
class PoolState:
    """The whole pool. Its dictionaries define which objects exist; the groups hold the same objects by topic."""

    limits: PoolLimits
    groups: dict[GroupKey, GroupState] = attrs.field(factory=dict)
    # The active ones among them, and how many were left by the last drop_inactive (active_groups).
    active: dict[GroupKey, GroupState] = attrs.field(factory=dict)
    active_before: int = 0
    # Those that have waiters and nothing else, by their numbers; and heaps of these: by turn, by turn if they have waited for
    # long, by when their first waiter came, and by when that has waited for too long (waiting_groups).
    waiting: dict[int, GroupState] = attrs.field(factory=dict)
    waiting_by_turn: list[tuple[int, int]] = attrs.field(factory=list)
    waiting_unfairly: list[tuple[int, int]] = attrs.field(factory=list)
    waiting_by_wait: list[tuple[float, int]] = attrs.field(factory=list)
    waiting_by_limit: list[tuple[float, int]] = attrs.field(factory=list)
    # Enabled and detached processes.
    processes: dict[ProcessId, ProcessState] = attrs.field(factory=dict)
    # Every session that was granted and not closed -> its process, which may be gone.
    sessions: dict[SessionId, ProcessState] = attrs.field(factory=dict)
    # Sessions that do not count in the concurrency of their processes.
    uncounted: set[SessionId] = attrs.field(factory=set)
    # Every waiter without an answer: the keys of all group.waiters.
    waiters: dict[WaiterId, GroupState] = attrs.field(factory=dict)
    attempts: dict[AttemptId, Attempt] = attrs.field(factory=dict)
    # At or before the time when a process may next become spare, while the pool is full and a group waits for one more
    # process (scaling). Infinity: nothing has looked yet.
    spare_due: float = math.inf
    # A process was spare at the last look and no group took it. New waiters look again: it may be free for them, or
    # may have been used since.
    spare_seen: bool = False
    # The number of enabled processes.
    enabled_count: int = 0
    # Whether some group has a max_request_time.
    timed: bool = False
    # The groups that were removed, and are not gone.
    leaving: dict[GroupKey, GroupState] = attrs.field(factory=dict)
    # The processes and attempts that existed when the limits last changed: they may exceed the hard ceiling, and the slots.
    allowed_total: int = 0
    # The same for processes and attempts that serve, when memory became short: busy ones stay (processes_by_memory).
    allowed_used: int = 0
    # All memory, what the server itself uses of it, and what a preloader uses on average, in bytes. 0: not measured.
    memory_total: int = 0
    memory_own: int = 0
    memory_preloader: int = 0
    # What a process of an application that was never measured may use, in bytes. 0: processes_by_memory's first guess.
    first_guess: int = 0
    allowed_attempts: int = 0
    # False for ever after shut_down: no spawns, no new checkouts, and idle processes are retired.
    open: bool = True
    # PoolEmpty was given. Only when closed, and without any process, attempt or preloader left.
    emptied: bool = False
    # The last numbers given out. Never reused.
    last_session: int = 0
    last_attempt: int = 0
    last_order: int = 0
    last_waiting: int = 0
    # Which attempt was the last replacement; or the last attempt when no replacement was wanted (scaling).
    last_replacement: int = 0

    @property
    def capacity_used(self) -> int:
        """The number that ``max_pool_size`` limits."""
        return self.enabled_count + sum(attempt.counts for attempt in self.attempts.values())

    @property
    def slots_used(self) -> int:
        """The number that ``max_concurrent_spawns`` limits."""
        return sum(attempt.has_slot for attempt in self.attempts.values())

    @property
    def total(self) -> int:
        """The number that the hard ceiling limits: retired processes still use memory."""
        return len(self.processes) + len(self.attempts)

    @property
    def ceiling(self) -> int:
        """The hard ceiling: twice ``max_pool_size``. A replacement may exceed it (``capacity.has_headroom``)."""
        return 2 * self.limits.max_pool_size
