"""A world around the policy: it performs commands, keeps books of its own, and holds the policy to its word.

What it knows it knows from the commands and from the facts that it made itself, so it sees what no single state can
show: that nobody is answered twice, that nothing is told to a process that is gone, whom a naive pool would have
chosen. Every promise of ``commands`` that needs a memory is an assertion here. The policy's own state is only
compared with these books.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from passenger_trio.core.commands import (
    AbandonSpawn,
    Command,
    Detach,
    EndGeneration,
    EndGroup,
    Grant,
    Kill,
    PoolEmpty,
    Reason,
    Refuse,
    RestartEnded,
    Retire,
    RetirePreloader,
    RunOobWork,
    StartSpawn,
    StillDraining,
)
from passenger_trio.core.invariants import check
from passenger_trio.core.journey import Journey, JourneyType
from passenger_trio.core.making_room import FAIR_WAIT, SPARE_AFTER
from passenger_trio.core.model import (
    AttemptId,
    ErrorCategory,
    GroupKey,
    PreloaderId,
    ProcessId,
    SessionId,
    SessionOutcome,
    SpawnFailure,
    WaiterId,
)
from passenger_trio.core.policy import PoolPolicy
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.core.processes_by_memory import FIRST_GUESS, calculate
from passenger_trio.core.proven_or_crashed import UNANSWERED_TOLERATED
from passenger_trio.core.retiring import REPLACEMENT_REASONS
from passenger_trio.core.scaling import SLOW_AFTER


def a_failure(summary: str = "it does not start") -> SpawnFailure:
    """Evidence of some failed spawn."""
    return SpawnFailure(
        error_id="e1",
        category=ErrorCategory.APPLICATION,
        summary=summary,
        problem="",
        solution="",
        journey=Journey.begin(JourneyType.SPAWN_DIRECTLY),
    )


@attrs.define(eq=False)
class FakeProcess:
    """An operating system's process, as far as the policy's promises go."""

    id: ProcessId
    group: GroupKey
    concurrency: int
    last_used: float
    generation: int
    sessions: int = 0
    uncounted: int = 0
    unanswered: int = 0
    """Sessions in a row."""
    detached: bool = False
    """Busy when it was taken out of routing: it will be retired."""
    retired: bool = False
    killed: bool = False
    detached_at: float = 0.0
    told: bool = False
    """People were told that it still drains."""
    disabled_by_operator: bool = False
    """An operator has disabled it."""
    asked: bool = False
    """It has asked for out-of-band work, which has not begun."""
    works: bool = False
    """It does its out-of-band work."""

    @property
    def is_live(self) -> bool:
        return not self.retired and not self.detached

    @property
    def has_room(self) -> bool:
        return self.is_live and (self.concurrency == 0 or self.sessions - self.uncounted < self.concurrency)


@attrs.define(eq=False)
class FakeWorld:
    """Everything outside the policy. The methods are the things that can happen; they take no time."""

    policy: PoolPolicy
    now: float = 0.0
    groups: dict[GroupKey, GroupLimits] = attrs.field(factory=dict)
    attempts: dict[AttemptId, GroupKey] = attrs.field(factory=dict)
    generations: dict[AttemptId, int] = attrs.field(factory=dict)
    """Of every attempt that there ever was."""
    begun_generations: set[tuple[GroupKey, int]] = attrs.field(factory=set)
    """Those of which a process was ordered."""
    unsafe_ones: set[tuple[GroupKey, int]] = attrs.field(factory=set)
    """Generations that are not safe to fork."""
    replacements: dict[AttemptId, GroupKey] = attrs.field(factory=dict)
    ended: set[tuple[GroupKey, int]] = attrs.field(factory=set)
    restarts: dict[GroupKey, int] = attrs.field(factory=dict)
    """The generation that the last restart asked for."""
    rejected: dict[GroupKey, int] = attrs.field(factory=dict)
    came: set[tuple[GroupKey, int]] = attrs.field(factory=set)
    """Generations of which a process was ready."""
    abandoned: set[AttemptId] = attrs.field(factory=set)
    # In the order in which they came.
    processes: dict[ProcessId, FakeProcess] = attrs.field(factory=dict)
    sessions: dict[SessionId, FakeProcess] = attrs.field(factory=dict)
    uncounted: set[SessionId] = attrs.field(factory=set)
    waiting: dict[WaiterId, GroupKey] = attrs.field(factory=dict)
    since: dict[WaiterId, float] = attrs.field(factory=dict)
    avoiding: dict[WaiterId, ProcessId] = attrs.field(factory=dict)
    seeking: dict[WaiterId, ProcessId] = attrs.field(factory=dict)
    began: dict[SessionId, float] = attrs.field(factory=dict)
    begun: dict[AttemptId, float] = attrs.field(factory=dict)
    """Of every attempt that there ever was."""
    preloaders: dict[tuple[GroupKey, int], list[PreloaderId]] = attrs.field(factory=dict)
    """Oldest first. (Of each generation.)"""
    preloaders_told: dict[tuple[GroupKey, int], set[PreloaderId]] = attrs.field(factory=dict)
    """Those of them that were told to go."""
    preloader_used: dict[tuple[GroupKey, int], float] = attrs.field(factory=dict)
    last_id: int = 0
    sizes: dict[ProcessId, int] = attrs.field(factory=dict)
    """As last measured."""
    memory: tuple[int, int] = 0, 0
    """How much there is, and what the server uses of it."""
    serving: int = 0
    """Processes and attempts that count, after the step before."""
    ceiling: int = 0
    """``max_pool_size`` then."""
    leaving: set[GroupKey] = attrs.field(factory=set)
    """Removed, and not gone."""
    allowed: int = 0
    """Processes and attempts that there were when the limits last changed."""
    fewest_slots: int = 0
    """The fewest slots that there ever were. (0: they never changed.)"""
    out: dict[GroupKey, ProcessId | None] = attrs.field(factory=dict)
    """Which process was out of routing for its out-of-band work, after the step before."""
    still_in: bool = False
    """Whether the one that is out now counts as one in routing."""
    shutting_down: bool = False
    empty: bool = False
    grants: int = 0
    log: list[str] = attrs.field(factory=list)

    def next_id(self) -> int:
        self.last_id += 1
        return self.last_id

    # --- things that happen -----------------------------------------------------------------------------------

    def add_group(self, key: GroupKey, limits: GroupLimits, jitter: float = 0.0) -> None:
        again = key in self.groups
        self.groups[key] = limits
        self.leaving.discard(key)
        self.allowed = self._total
        commands = self.policy.add_group(key, limits, self.now, jitter)
        self.perform(commands)
        if again:
            self.restarts[key] = self.policy.restart_target(key)

    def remove_group(self, key: GroupKey) -> None:
        """OP1: who has a session keeps it, who waits is served or told the truth."""
        sessions = dict(self.sessions)
        if not self.shutting_down:
            self.leaving.add(key)
        commands = self.policy.remove_group(key, self.now)
        for command in commands:
            if isinstance(command, Refuse) and self.waiting[command.waiter] == key:
                assert command.reason is Reason.SPAWN_FAILED, "who waits is served"
        self.perform(commands)
        assert self.sessions.keys() >= sessions.keys(), "a session ended by a removal"

    def change_pool(self, limits: PoolLimits) -> None:
        """OP3: whatever becomes smaller, no request ends for it."""
        if self.shutting_down:
            assert self.policy.change_pool_limits(limits, self.now) == []
            return
        self.fewest_slots = min(
            self.fewest_slots or limits.max_concurrent_spawns,
            limits.max_concurrent_spawns,
            self.policy.state.limits.max_concurrent_spawns,
        )
        self.allowed = self._total
        self._changed(self.policy.change_pool_limits(limits, self.now))

    def change_group(self, key: GroupKey, limits: GroupLimits, jitter: float) -> None:
        if self.shutting_down:
            assert self.policy.change_group_limits(key, limits, self.now, jitter) == []
            return
        self.groups[key] = limits
        self.allowed = self._total
        self._changed(self.policy.change_group_limits(key, limits, self.now, jitter))

    def _changed(self, commands: list[Command]) -> None:
        sessions = dict(self.sessions)
        busy = {process.id for process in self.processes.values() if process.sessions and process.is_live}
        self.perform(commands)
        assert sessions.items() <= self.sessions.items()
        for id in busy:
            assert not self.processes[id].retired, "it served, and was ended by a change of limits"

    @property
    def _total(self) -> int:
        return len(self.processes) + len(self.attempts)

    def checkout_nowait(self, key: GroupKey) -> Grant | None:
        deadline = self.policy.next_deadline()
        queued = key in self.waiting.values()
        choice = self.choice(key)
        grant = self.policy.checkout_nowait(key, self.now)
        assert self.policy.next_deadline() >= deadline or self.groups[key].max_request_time
        if grant is None:
            always = key in self.groups and self.policy.state.groups[key].always_restart
            assert queued or choice is None or self.shutting_down or always
        else:
            assert not queued, "it overtook a waiter"
            assert not self.shutting_down
            assert grant.waiter is None
            self._granted(grant, key, choice)
        self._check()
        return grant

    def checkout(self, key: GroupKey, avoided: ProcessId | None = None, wanted: ProcessId | None = None) -> WaiterId:
        waiter = WaiterId(self.next_id())
        if wanted is not None:
            self.seeking[waiter] = wanted
        if avoided is not None:
            self.avoiding[waiter] = avoided
        self.waiting[waiter] = key
        self.since[waiter] = self.now
        self.perform(self.policy.checkout(waiter, key, self.now, avoided, wanted))
        if waiter in self.waiting:
            assert not self.shutting_down
            limit = self.groups[key].max_request_queue_size
            assert not limit or list(self.waiting.values()).count(key) <= limit
        return waiter

    def abandon(self, waiter: WaiterId) -> None:
        self.waiting.pop(waiter, None)
        commands = self.policy.abandon(waiter, self.now)
        assert self.leaving or not commands
        self.perform(commands)

    def close(self, session: SessionId, outcome: SessionOutcome) -> None:
        deadline = self.policy.next_deadline()
        process = self.sessions.pop(session)
        process.sessions -= 1
        process.uncounted -= session in self.uncounted
        process.last_used = self.now
        if outcome is SessionOutcome.UNANSWERED:
            process.unanswered += 1
        elif outcome in (SessionOutcome.DONE, SessionOutcome.CLIENT_GONE, SessionOutcome.BROKEN_OFF):
            process.unanswered = 0  # it has answered, and be it in part
        commands = self.policy.session_closed(session, outcome, self.now)
        assert commands or self.policy.next_deadline() >= deadline
        self.perform(commands)
        if outcome is SessionOutcome.UNANSWERED and process.unanswered >= UNANSWERED_TOLERATED:
            assert not process.is_live, "KE6: it answers nobody, and serves"

    def retry(self, session: SessionId) -> None:
        """R30: it was left unanswered, and another process is to have the request."""
        process = self.sessions[session]
        self.close(session, SessionOutcome.UNANSWERED)
        self.checkout(process.group, process.id)

    def unbind(self, session: SessionId) -> None:
        """It does not count any more; who waits gets its place."""
        self.uncounted.add(session)
        process = self.sessions[session]
        process.uncounted += 1
        queue = [waiter for waiter, key in self.waiting.items() if key == process.group]
        waiting = sum(process in self._candidates(process.group, waiter) for waiter in queue)
        commands = self.policy.session_uncounted(session, self.now)
        grants = sum(isinstance(command, Grant) for command in commands)
        assert grants == min(waiting, process in self._routable(process.group)), "a place is free, and one waits for it"
        assert self.leaving or grants == len(commands)
        self.perform(commands)

    def hold(self, session: SessionId) -> None:
        """It is no request any more, and is not killed for lasting too long."""
        self.began.pop(session, None)
        assert self.policy.session_long_lived(session, self.now) == []
        self._check()

    def spawned(self, attempt: AttemptId, concurrency: int, jitter: float = 0.0) -> ProcessId:
        key, generation = self.attempts.pop(attempt), self.generations[attempt]
        forced = self.groups[key].force_concurrency
        serves = concurrency if forced < 0 else forced
        process = FakeProcess(ProcessId(self.next_id()), key, serves, self.now, generation)
        live = {live.id for live in self._live(key)}
        self.replacements.pop(attempt, None)
        unwanted = attempt in self.abandoned or self.shutting_down
        self.abandoned.discard(attempt)
        self.preloader_used[key, generation] = self.now
        self.processes[process.id] = process
        if not unwanted:
            self.came.add((key, generation))
        commands = self.policy.spawn_succeeded(attempt, process.id, concurrency, self.now, jitter)
        self.perform(commands)
        assert process.retired or not self.shutting_down
        if unwanted:
            assert process.retired, "it was abandoned and serves"
        taken = any(isinstance(command, Retire) and command.reason is Reason.MAKE_ROOM for command in commands)
        if live and not taken and key not in self.leaving:
            # (Its only process may be idle now, and another group without any may wait for its place.)
            assert self._live(key), "a group that served stands empty"
        return process.id

    def spawn_failed(self, attempt: AttemptId, failure: SpawnFailure | None, jitter: float = 0.0) -> None:
        key = self.attempts.pop(attempt)
        self.replacements.pop(attempt, None)
        self.abandoned.discard(attempt)
        self.preloader_used[key, self.generations[attempt]] = self.now
        live = self._live(key)
        waiting = [waiter for waiter, group in self.waiting.items() if group == key]
        self.perform(self.policy.spawn_failed(attempt, failure, self.now, jitter))
        if live:
            assert all(waiter in self.waiting for waiter in waiting), "refused beside a live process"

    def exit(self, process: ProcessId, jitter: float = 0.0, failure: SpawnFailure | None = None) -> None:
        self.processes.pop(process).retired = True
        self.perform(self.policy.process_exited(process, self.now, jitter, failure))

    def detach(self, process: ProcessId) -> None:
        was_live = self.processes[process].is_live
        commands = self.policy.detach(process, self.now)
        assert bool(commands) == was_live
        self.perform(commands)
        assert not self.processes[process].is_live

    def sampled(self, process: ProcessId, size: int) -> None:
        self.sizes[process] = size
        self.perform(self.policy.sampled(process, size, self.now))

    def room_measured(self, total: int, own: int, preloader: int = 0) -> None:
        """OP6: whatever the memory is, no request ends for it."""
        self.memory = total, own, preloader
        commands = self.policy.room_measured(total, own, preloader, self.now)
        for command in commands:
            if isinstance(command, Retire | Detach) and command.reason is Reason.SHRINK:
                process = self.processes[command.process]
                assert self.policy.state.limits.memory_share, "the number of processes is fixed"
                assert isinstance(command, Retire), "only idle ones go"
                assert not process.sessions, "only idle ones go"
        self.perform(commands)
        if self.policy.state.limits.memory_share and not self.shutting_down:
            self._memory_is_used_well()

    def _memory_is_used_well(self) -> None:
        """OP6: by the last measures everything fits, or nothing can go; and nobody waits for a process that would fit."""
        limits = self.policy.state.limits
        total, own, preloader = self.memory
        own += preloader * sum(
            bool(set(ids) - self.preloaders_told.get(of, set())) for of, ids in self.preloaders.items()
        )
        used = sum(
            self.sizes.get(process.id) or self._average(process.group)
            for process in self.processes.values()
            if process.is_live or (process.detached and not process.retired and not process.killed)
        )
        used += sum(
            self._average(self.attempts[one])
            for one in self.attempts.keys() - self.replacements.keys() - self.abandoned
        )
        # What started because it fitted may have grown by a part of a process.
        if used > int(limits.memory_share * total) - own + calculate(self.policy.state).next_size // 4:
            for key in self.groups if preloader else ():
                assert not self._sleeps_with_a_preloader(key), (
                    "it does not fit, and a preloader that nobody needs could go"
                )
            for key in self.groups:
                if len(self._live(key)) > self._minimum(key):
                    assert all(one.sessions for one in self._routable(key)), "it does not fit, and an idle one could go"
        least = sum(self._minimum(key) for key in self.groups)
        assert limits.max_pool_size >= max(1, least), "never fewer than the minimums"

    def _sleeps_with_a_preloader(self, key: GroupKey) -> bool:
        group = self.policy.state.groups[key]
        of = key, group.generation
        kept = set(self.preloaders.get(of, ())) - self.preloaders_told.get(of, set())
        needed = self._live(key) or key in self.attempts.values() or key in self.waiting.values() or group.holds_on
        return bool(kept) and not needed

    def _average(self, key: GroupKey) -> int:
        return self.policy.state.groups[key].process_size or self.policy.state.first_guess or FIRST_GUESS

    def _serves_no_more_than_may(self, limits: PoolLimits) -> None:
        """What was too much for the memory may stay while it is busy (OP6); nothing begins above the limit."""
        serving = sum(len(self._live(key)) for key in self.groups) + self._coming()
        most = max(limits.max_pool_size, min(self.serving, serving) if limits.memory_share else 0)
        assert serving <= most
        self.serving = serving
        if limits.memory_share and limits.max_pool_size < self.ceiling:
            self.allowed = self._total
        self.ceiling = limits.max_pool_size

    def restart(self, key: GroupKey, *, hard: bool = False) -> None:
        live = self._live(key)
        self.perform(self.policy.restart(key, self.now, hard=hard))
        if key not in self.leaving:
            self.restarts[key] = self.policy.restart_target(key)
        if live and not hard:
            assert self._live(key) == live, "a rolling restart retires nobody when it begins"

    def restart_all(self, *, hard: bool = False) -> None:
        self.perform(self.policy.restart_all(tuple(self.groups), self.now, hard=hard))
        for key in self.groups.keys() - self.leaving:
            self.restarts[key] = self.policy.restart_target(key)

    def code_changes(self, key: GroupKey) -> None:
        troubled = self.policy.is_troubled(key, self.now)
        commands = self.policy.code_changed(key, self.now)
        assert troubled or not commands, "new code alone restarts nothing"
        self.perform(commands)
        assert not self.policy.is_troubled(key, self.now), "twice at the same time"
        self.restarts[key] = max(self.restarts.get(key, 1), self.policy.restart_target(key) if troubled else 1)

    def preloader_starts(self, key: GroupKey, generation: int) -> None:
        of = key, generation
        preloader = PreloaderId(self.next_id())
        self.preloaders.setdefault(of, []).append(preloader)
        self.preloader_used[of] = self.now
        self.perform(self.policy.preloader_started(key, generation, preloader, self.now))

    def unsafe(self, key: GroupKey, generation: int) -> None:
        """KE13: from now on its processes load the application one by one, each with a slot."""
        before = set(self.abandoned)
        self.perform(self.policy.found_unsafe(key, generation, self.now))
        self.unsafe_ones.add((key, generation))
        state = self.policy.state
        for attempt in self.abandoned - before:
            assert (self.attempts[attempt], self.generations[attempt]) == (key, generation)
            assert state.slots_used >= state.limits.max_concurrent_spawns, "it is begun again although a slot is there"
        self._each_that_loads_has_a_slot()

    def _each_that_loads_has_a_slot(self) -> None:
        state = self.policy.state
        for attempt in self.attempts.keys() - self.abandoned:
            of = state.attempts[attempt]
            if (self.attempts[attempt], of.generation) in self.unsafe_ones:
                assert of.has_slot or of.slow, "it loads the application by itself, and takes no slot"

    def preloader_ends(self, key: GroupKey, generation: int, preloader: PreloaderId) -> None:
        of = key, generation
        self.preloaders[of].remove(preloader)
        self.preloaders_told.get(of, set()).discard(preloader)
        self.perform(self.policy.preloader_ended(key, generation, preloader, self.now))

    @property
    def living_preloaders(self) -> list[tuple[GroupKey, int, PreloaderId]]:
        return [(*of, preloader) for of, preloaders in self.preloaders.items() for preloader in preloaders]

    def tick(self, now: float) -> None:
        assert now >= self.now
        self.now = now
        self.perform(self.policy.tick(now))
        assert self.policy.next_deadline() > now, "the clock spins"
        self._nobody_waits_for_another_s_loading()

    def disable(self, process: ProcessId) -> None:
        """OP16: it gets nothing until it is enabled; but somebody has to serve."""
        it = self.processes[process]
        others = [one for one in self._routable(it.group) if one is not it]
        allowed = it.is_live and (bool(others) or it not in self._routable(it.group))
        assert self.policy.may_disable(process) == allowed
        if allowed:
            it.disabled_by_operator = True
        self.perform(self.policy.disable(process, self.now))

    def enable(self, process: ProcessId) -> None:
        it = self.processes[process]
        if it.disabled_by_operator and it.is_live:
            it.disabled_by_operator = False
            it.last_used = self.now if self._oob_process(it.group) != process else it.last_used
        self.perform(self.policy.enable(process, self.now))

    def ask_for_oob_work(self, process: ProcessId) -> None:
        """OP14: with a response."""
        it = self.processes[process]
        if it.is_live and not it.works and self._oob_process(it.group) != process:
            it.asked = True
        self.perform(self.policy.oob_work_wanted(process, self.now))

    def end_oob_work(self, process: ProcessId, *, succeeded: bool) -> None:
        it = self.processes[process]
        was_live = it.is_live
        it.works = False
        self.perform(self.policy.oob_work_ended(process, succeeded, self.now))
        assert succeeded or not was_live or not it.is_live, "nobody knows what it does, and it serves"
        assert it.disabled_by_operator or not it.is_live or it in self._routable(it.group), (
            "it has worked, and does not come back"
        )

    def _oob_process(self, key: GroupKey) -> ProcessId | None:
        process = self.policy.state.groups[key].oob_process
        return None if process is None else process.id

    def _routable(self, key: GroupKey) -> list[FakeProcess]:
        out = None if self.still_in else self._oob_process(key)
        return [process for process in self._live(key) if not process.disabled_by_operator and process.id != out]

    def shut_down(self) -> None:
        self.shutting_down = True
        self.perform(self.policy.shut_down(self.now))

    # --- the naive twin ---------------------------------------------------------------------------------------

    def _candidates(self, key: GroupKey, waiter: WaiterId | None) -> list[FakeProcess]:
        """The processes that would do for a request: its session's own (OP13), or all but the one that left it unanswered."""
        live = self._routable(key)
        avoided = None if waiter is None else self.avoiding.get(waiter)
        wanted = None if waiter is None else self.seeking.get(waiter)
        own = [
            process
            for process in self._live(key)
            if process.id == wanted != avoided and not process.disabled_by_operator
        ]
        if own and own[0] not in live:
            return []  # it works out of band, which does not last long
        return own or [process for process in live if process.id != avoided or len(live) == 1]

    def choice(self, key: GroupKey, waiter: WaiterId | None = None) -> FakeProcess | None:
        """Whom a pool that looks at every process would choose: newest generation, least busy, oldest."""
        best: FakeProcess | None = None
        for process in self._candidates(key, waiter):
            if not process.has_room:
                continue
            if best is None or self._rank(process) < self._rank(best):
                best = process
        return best

    @staticmethod
    def _rank(process: FakeProcess) -> tuple[int, float]:
        return -process.generation, (process.sessions - process.uncounted) / (
            process.concurrency or 2**31
        ) + process.uncounted / 2**31

    def _nobody_waits_for_another_s_loading(self) -> None:
        """KE13: who has nobody has an attempt at once, and so has a restart, unless more programs than the slots have *just* begun to load.

        What hangs under the ceiling is not in the way of others either.
        """
        state = self.policy.state
        limits = state.limits
        if self.shutting_down:
            return
        slots = self.fewest_slots or limits.max_concurrent_spawns
        patience = SLOW_AFTER * (1 + len(self.attempts) / slots)
        recent = sum(self.now < self.begun[attempt] + patience for attempt in self.attempts)
        full = sum(len(self._live(key)) for key in self.groups) + self._coming() >= limits.max_pool_size
        total = len(self.processes) + len(self.attempts)
        crowd = total - sum(self.begun[attempt] + patience <= self.now for attempt in self.replacements)
        for key, group in state.groups.items():
            mine = [attempt for attempt, of in self.attempts.items() if of == key]
            left = [process for process in self.processes.values() if process.group == key and not process.is_live]
            wanted = key in self.waiting.values() or self._minimum(key)
            has_place = not full and crowd < 2 * limits.max_pool_size
            if wanted and has_place and not mine and not self._live(key) and not group.backoff.in_force(self.now):
                assert recent > limits.max_concurrent_spawns, f"{key} waits for what others load"
            asked = self.restarts.get(key, 1) > max(self.generations_begun(key), self.rejected.get(key, 0))
            relieved = key in self.replacements.values() or key in self.leaving
            in_order = len(left) + len(mine) <= len(self._live(key)) and total < state.ceiling + len(self.groups)
            in_order = in_order or total < state.ceiling
            if asked and in_order and not relieved and not group.backoff.in_force(self.now):
                assert recent >= limits.max_concurrent_spawns, f"the restart of {key} waits for what others load"

    def generations_begun(self, key: GroupKey) -> int:
        """The newest generation of which a process was spawned, or tried."""
        begun = [generation for of, generation in self.begun_generations if of == key]
        return max(begun, default=1)

    # --- commands ---------------------------------------------------------------------------------------------

    def perform(self, commands: Iterable[Command]) -> None:
        """Perform in order, holding each command to what it promises."""
        made_room: str | None = None
        for command in commands:
            self.log.append(f"{self.now:.3f} {command}")
            assert not self.empty or isinstance(command, Retire | RetirePreloader | Refuse), "after PoolEmpty"
            match command:
                case Grant():
                    assert command.waiter is not None
                    key = self.waiting[command.waiter]
                    queue = [waiter for waiter, group in self.waiting.items() if group == key]
                    first = next((waiter for waiter in queue if self.choice(key, waiter)), None)
                    if first != command.waiter or self.processes[command.process] is not self.choice(key, first):
                        # What this step takes out of routing for its out-of-band work may have been given a session before.
                        self.still_in = self.out.get(key) != self._oob_process(key)
                        first = next((waiter for waiter in queue if self.choice(key, waiter)), None)
                    assert command.waiter == first, "not first come, first served"
                    choice = self.choice(key, first)
                    self.still_in = False
                    del self.waiting[command.waiter]
                    self._granted(command, key, choice)
                case Refuse():
                    key = self.waiting.pop(command.waiter)  # KeyError: answered twice
                    self._refused(command, key)
                case StartSpawn():
                    assert not self.shutting_down
                    assert command.attempt not in self.attempts
                    assert command.group in self.groups
                    if made_room is not None:
                        assert command.group in self.waiting.values(), "it took a place and has no waiter"
                        if made_room != "spare":
                            assert not self._routable(command.group), "it took a place and has a process"
                            coming = [a for a, key in self.attempts.items() if key == command.group]
                            assert self.abandoned.issuperset(coming), "it took a place and has an attempt"
                        if made_room == "late":
                            first = next(waiter for waiter, key in self.waiting.items() if key == command.group)
                            assert self.since[first] + FAIR_WAIT <= self.now, "it did not wait"
                        made_room = None
                    assert (command.group, command.generation) not in self.ended, "its generation has ended"
                    self.generations[command.attempt] = command.generation
                    self.begun_generations.add((command.group, command.generation))
                    if command.reason in REPLACEMENT_REASONS:
                        assert command.group not in self.replacements.values(), "two replacements"
                        assert self._live(command.group) or command.reason is Reason.RESTART
                        self.replacements[command.attempt] = command.group
                    self.attempts[command.attempt] = command.group
                    self.begun[command.attempt] = self.now
                case AbandonSpawn():
                    assert self.attempts[command.attempt] == command.group
                    assert command.attempt not in self.abandoned, "abandoned twice"
                    if command.reason is Reason.MAKE_ROOM:
                        assert self.begun[command.attempt] + SLOW_AFTER <= self.now, "it has just begun"
                        assert command.attempt not in self.replacements
                        self._nobody_idle_above_minimum()
                        made_room = "late"
                    self.abandoned.add(command.attempt)
                    self.replacements.pop(command.attempt, None)
                case Detach():
                    process = self.processes[command.process]
                    assert process.is_live
                    assert process.sessions, "an idle process is retired, not detached"
                    if command.reason is Reason.MAKE_ROOM:
                        self._nobody_idle_above_minimum()
                        if len(self._live(process.group)) <= self._minimum(process.group):
                            self._is_last_resort(process)
                        made_room = "late"
                    if command.reason is Reason.SHRINK:
                        self._is_missed_least(process)
                    process.detached = True
                    process.detached_at = self.now
                case RunOobWork():
                    process = self.processes[command.process]
                    assert process.asked, "it has not asked"
                    assert process.is_live
                    assert not process.sessions, "it serves"
                    assert process not in self._routable(process.group)
                    assert not any(one.works for one in self._live(process.group)), "two work at the same time"
                    process.asked, process.works = False, True
                case StillDraining():
                    process = self.processes[command.process]
                    assert process.detached
                    assert not process.retired
                    assert not process.told, "told twice"
                    assert process.sessions == command.sessions > 0
                    process.told = True
                case Retire():
                    process = self.processes[command.process]  # KeyError: after its exit
                    assert not process.retired, "retired twice"
                    if command.reason is Reason.DRAIN_TIME:
                        limit = self.groups[process.group].max_drain_time
                        assert process.detached
                        assert process.sessions, "an idle one goes at once"
                        assert limit
                        assert process.detached_at + limit <= self.now, "it has time still"
                    else:
                        assert not process.sessions or command.reason is Reason.FAILED, "retired while it serves"
                    if command.reason is Reason.UNANSWERED and not process.detached:
                        assert process.unanswered == UNANSWERED_TOLERATED
                    if command.reason is Reason.IDLE and not process.detached:
                        assert len(self._live(process.group)) > self._minimum(process.group), "below the minimum"
                        self._longest_idle(process, command.reason)
                    if command.reason is Reason.MAKE_ROOM and not process.detached:
                        if len(self._live(process.group)) > self._minimum(process.group):
                            self._longest_idle(process, command.reason)
                            made_room = "spare" if process.last_used + SPARE_AFTER <= self.now else "idle"
                        else:
                            self._is_last_resort(process)
                            made_room = "late"
                    if command.reason is Reason.SHRINK and not process.detached:
                        self._is_missed_least(process)
                    if command.reason is Reason.REMOVED and not process.detached:
                        assert process.group in self.leaving
                    process.retired = True
                case Kill():
                    process = self.processes[command.process]
                    assert not process.killed, "killed twice"
                    process.killed = process.retired = True
                    limits = self.groups[process.group]
                    if command.reason is Reason.REQUEST_TIME:
                        assert command.session is not None
                        assert self.sessions[command.session] is process
                        assert limits.max_request_time
                        assert self.began[command.session] + limits.max_request_time <= self.now
                    else:
                        assert command.reason is Reason.MEMORY
                        assert limits.hard_memory_limit
                case RetirePreloader():
                    of = command.group, command.generation
                    told = self.preloaders_told.setdefault(of, set())
                    assert set(self.preloaders.get(of, ())) - told, "no preloader is left to be told"
                    if command.reason is Reason.IDLE:
                        idle = self.groups[command.group].max_preloader_idle_time
                        assert idle
                        assert self.preloader_used[of] + idle <= self.now, "the preloader was in use"
                        assert command.group not in self.attempts.values(), "the preloader is in use"
                    if command.reason is Reason.SHRINK:
                        assert self.policy.state.limits.memory_share, "the number of processes is fixed"
                        assert not self._live(command.group), "its processes serve"
                        assert command.group not in self.attempts.values(), "the preloader is in use"
                        assert command.group not in self.waiting.values(), "the preloader is needed"
                    told.update(self.preloaders[of])
                case EndGeneration():
                    of = command.group, command.generation
                    assert of not in self.ended, "it ends twice"
                    assert not self.preloaders.get(of)
                    coming = [self.generations[a] for a, key in self.attempts.items() if key == command.group]
                    assert command.generation not in coming, "it is being spawned"
                    there = [p.generation for p in self.processes.values() if p.group == command.group]
                    assert command.generation not in there, "a process may use what was started for it"
                    self.ended.add(of)
                case EndGroup():
                    self._forget(command.group)
                case RestartEnded(rejected=True):
                    self.rejected[command.group] = command.generation
                case RestartEnded():
                    assert (command.group, command.generation) in self.came, "nothing of it was ready (fault 18)"
                    assert all(p.generation == command.generation for p in self._live(command.group))
                case PoolEmpty():
                    assert self.shutting_down
                    assert not self.processes
                    assert not self.attempts
                    assert not any(self.preloaders.values())
                    self.empty = True
        assert made_room is None, "a process was retired for nothing"
        self._check()

    def _one_is_out_for_work(self, key: GroupKey) -> None:
        """OP14: it has asked; and while it finishes its sessions somebody serves, or the clock is about to look."""
        out = self._oob_process(key)
        if out is None:
            return
        process = self.processes[out]
        assert process.asked or process.works
        if process.sessions and not self.shutting_down:
            assert self._routable(key) or process.disabled_by_operator or self.policy.next_deadline() <= self.now

    def _forget(self, key: GroupKey) -> None:
        """OP1: nothing of a removed group stays, and another application may have its name."""
        assert key in self.leaving
        assert not self.shutting_down
        assert key not in self.waiting.values()
        assert key not in self.attempts.values()
        assert not any(process.group == key for process in self.processes.values())
        assert not any(left for (of, _), left in self.preloaders.items() if of == key)
        self.leaving.remove(key)
        del self.groups[key]
        for of_generations in (self.begun_generations, self.unsafe_ones, self.ended, self.came):
            of_generations -= {of for of in of_generations if of[0] == key}
        for books in (self.preloaders, self.preloaders_told, self.preloader_used):
            for of in [of for of in books if of[0] == key]:
                del books[of]
        self.restarts.pop(key, None)
        self.rejected.pop(key, None)
        self.allowed = self._total

    def _live(self, key: GroupKey) -> list[FakeProcess]:
        return [process for process in self.processes.values() if process.group == key and process.is_live]

    def _minimum(self, key: GroupKey) -> int:
        if key in self.leaving:
            return 0
        limits = self.groups[key]
        return min(limits.min_instances, limits.max_instances or limits.min_instances)

    def _is_missed_least(self, chosen: FakeProcess) -> None:
        """OP3: idle ones go first, those above a minimum before the others; who goes was too many."""
        whole = sum(len(self._live(key)) for key in self.groups) + self._coming()
        too_many = whole > self.policy.state.limits.max_pool_size
        of_group, most = self._live(chosen.group), self.groups[chosen.group].max_instances
        if most and len(of_group) + self._coming(chosen.group) > most:
            groups = [chosen.group]
        else:
            assert too_many or self.policy.state.limits.memory_share, "it was not too many"
            groups = list(self.groups)
        rich = [key for key in groups if len(self._live(key)) > self._minimum(key)]
        idle = [process for key in rich for process in self._routable(key) if not process.sessions]
        if idle:
            assert chosen in idle, "an idle one could go"
            assert chosen.last_used == min(process.last_used for process in idle)
        elif rich:
            assert chosen.group in rich, "another could go, and no minimum would be missed"

    def _nobody_idle_above_minimum(self) -> None:
        for key in self.groups:
            if len(self._live(key)) > self._minimum(key):
                assert all(other.sessions for other in self._routable(key)), "an idle one could go"

    def _is_last_resort(self, chosen: FakeProcess) -> None:
        """It is one of its group's minimum: nobody has more than his, and nobody idle could go instead."""
        for key in self.groups:
            live = self._live(key)
            assert len(live) <= self._minimum(key), f"{key} has one to spare"
            kept = len(live) == 1 and self.policy.state.groups[key].rejection is not None
            assert not kept or chosen not in live, "it could not be had again"
            if chosen.sessions and not kept:
                assert all(other.sessions for other in live if other in self._routable(key)), "an idle one could go"

    def _longest_idle(self, chosen: FakeProcess, reason: Reason) -> None:
        """Nobody who might have gone instead has been idle for longer."""
        limits = self.policy.state.limits
        if reason is Reason.IDLE:
            assert limits.pool_idle_time
            assert chosen.last_used + limits.pool_idle_time <= self.now
        else:
            used = sum(len(self._live(key)) for key in self.groups) + self._coming()
            assert used >= limits.max_pool_size, "room is made where there is room"
        for key in self.groups:
            if len(self._live(key)) > self._minimum(key):
                for other in self._routable(key):
                    assert other.sessions or other.last_used >= chosen.last_used, f"{other} is idle for longer"

    def _coming(self, of: GroupKey | None = None) -> int:
        """Attempts that count in the limits on processes that serve: all, or those of one group."""
        counting = self.attempts.keys() - self.replacements.keys() - self.abandoned
        return sum(of in (None, self.attempts[attempt]) for attempt in counting)

    def _granted(self, grant: Grant, key: GroupKey, choice: FakeProcess | None) -> None:
        self.grants += 1
        process = self.processes[grant.process]  # KeyError: after its exit
        assert process.group == key
        assert process is choice, f"{grant} where the naive twin would choose {choice}"
        assert grant.session not in self.sessions
        process.sessions += 1
        self.sessions[grant.session] = process
        self.began[grant.session] = self.now

    def _refused(self, refuse: Refuse, key: GroupKey) -> None:
        match refuse.reason:
            case Reason.SHUT_DOWN:
                assert self.shutting_down
            case Reason.QUEUE_FULL:
                limit = self.groups[key].max_request_queue_size
                assert limit > 0
                assert list(self.waiting.values()).count(key) >= limit
            case Reason.REMOVED:
                assert key not in self.groups
            case Reason.QUEUE_TIME:
                limit = self.groups[key].max_request_queue_time
                assert limit
                assert self.since[refuse.waiter] + limit <= self.now
            case Reason.SPAWN_FAILED:
                assert not self._live(key)
                assert key not in self.attempts.values()
                assert refuse.retry_after is not None
                assert refuse.retry_after > 0
            case other:
                raise AssertionError(f"refused because {other}")

    def _check(self) -> None:
        """After each step: the laws of the state, and that the policy's books are ours."""
        check(self.policy.state)
        self._each_that_loads_has_a_slot()
        state = self.policy.state
        assert state.waiters.keys() == self.waiting.keys()
        assert state.attempts.keys() == self.attempts.keys()
        assert state.processes.keys() == self.processes.keys()
        assert {s: p.id for s, p in state.sessions.items()} == {s: p.id for s, p in self.sessions.items()}
        for key in self.groups:
            assert list(state.groups[key].enabled) == [process.id for process in self._live(key)]
            self._one_is_out_for_work(key)
            self.out[key] = self._oob_process(key)
            assert state.groups[key].preloaders == sum(of == key for of, _, _ in self.living_preloaders)
        for process in self.processes.values():
            assert process.retired or not process.detached or process.sessions, "detached, idle, and still there"
        limits: PoolLimits = state.limits
        if not self.shutting_down:
            self._serves_no_more_than_may(limits)
        assert self._total <= max(2 * limits.max_pool_size + len(self.groups), self.allowed)
        assert state.groups.keys() == self.groups.keys()
        for process in self.processes.values():
            limit = self.groups[process.group].max_drain_time
            if process.detached and not process.retired and limit:
                due = max(process.detached_at + limit, self.now) + 1.0  # once put off for a clock that was late
                assert self.policy.next_deadline() <= due, "it drains for ever (fault 19)"

    # --- the kind world ---------------------------------------------------------------------------------------

    def play_to_quiescence(self, steps: int = 10_000) -> None:
        """Everything ends well: sessions close, spawns succeed, retired processes exit, clients come no more."""
        ticks = 0
        for _ in range(steps):
            retired = next((p.id for p in self.processes.values() if p.retired), None)
            told = next(((*of, p) for of, leaving in self.preloaders_told.items() for p in sorted(leaving)), None)
            held = next((p.id for p in self.processes.values() if p.disabled_by_operator and p.is_live), None)
            works = next((p.id for p in self.processes.values() if p.works), None)
            if held is not None:
                self.enable(held)
            elif works is not None:
                self.end_oob_work(works, succeeded=True)
            elif self.sessions:
                self.close(next(iter(self.sessions)), SessionOutcome.DONE)
            elif self.abandoned:
                self.spawn_failed(next(iter(self.abandoned)), None)
            elif self.attempts:
                self.spawned(next(iter(self.attempts)), 1)
            elif retired is not None:
                self.exit(retired)
            elif told is not None:
                self.preloader_ends(*told)
            elif (self.waiting or self._restarting()) and self.policy.next_deadline() < float("inf"):
                # Somebody may wait in vain (see the machine's teardown), and then lifetimes pass for ever.
                ticks += 1
                if ticks > 200:
                    return
                self.tick(max(self.now, self.policy.next_deadline()))
            else:
                return
        raise AssertionError("the world does not come to rest")

    def _restarting(self) -> bool:
        return not self.shutting_down and any(
            group.rolling or group.to_replace for group in self.policy.state.groups.values()
        )
