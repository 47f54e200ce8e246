"""Anything may happen, in any order: the laws hold after each step, and a kind world serves everybody in the end.

``PASSENGER_TRIO_MODEL_EXAMPLES`` asks for more than the 300 programs of an everyday run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from world import FakeWorld, a_failure

from passenger_trio.core.model import GroupKey, SessionOutcome
from passenger_trio.core.policy import PoolPolicy
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.core.processes_by_memory import FIRST_GUESS

T = TypeVar("T")
KEYS = tuple(GroupKey(name, "test") for name in ("shop", "blog", "wiki"))

START = 8 * FIRST_GUESS, FIRST_GUESS
"""The memory that there is at first, and what the server uses of it: room for some that were never measured."""

# Small numbers: every limit is reached within a few steps.
pool_limits = st.builds(
    PoolLimits,
    max_pool_size=st.integers(1, 5),
    memory_share=st.sampled_from([0.0, 0.0, 0.5, 1.0]),
    memory_most=st.sampled_from([5, 8]),
    pool_idle_time=st.sampled_from([5.0, 0.0, 300.0]),
    max_concurrent_spawns=st.integers(1, 3),
    backoff_first=st.just(0.1),
    backoff_max=st.sampled_from([0.4, 0.05, 30.0]),
)
group_limits = st.builds(
    GroupLimits,
    min_instances=st.sampled_from([0, 1, 2]),
    max_instances=st.sampled_from([0, 2, 1]),
    max_request_queue_size=st.sampled_from([0, 3, 1]),
    max_preloader_idle_time=st.sampled_from([2.0, 0.0, 20.0]),
    max_requests=st.sampled_from([0, 0, 3]),
    max_requests_jitter=st.sampled_from([0, 2]),
    max_process_lifetime=st.sampled_from([0.0, 0.0, 40.0]),
    max_request_time=st.sampled_from([0.0, 0.0, 4.0]),
    max_drain_time=st.sampled_from([300.0, 3.0, 15.0, 0.0]),
    max_request_queue_time=st.sampled_from([0.0, 0.0, 2.0]),
    memory_limit=st.sampled_from([0, 100]),
    hard_memory_limit=st.sampled_from([0, 200]),
    force_concurrency=st.sampled_from([-1, -1, 0, 2]),
    preloads=st.booleans(),
    retry_on_demand_after=st.sampled_from([float("inf"), 0.05, 0.0]),
)
concurrencies = st.sampled_from([1, 2, 0, 3])
jitters = st.sampled_from([0.0, 0.5, 0.999])
evidence = st.sampled_from([a_failure(), None])
# One of the things that there are now, whatever their number is.
numbers = st.integers(0, 59)


def pick(things: Iterable[T], number: int) -> T:
    listed = list(things)
    return listed[number % len(listed)]


class PoolMachine(RuleBasedStateMachine):
    """The rules are what the outside world can do. ``FakeWorld`` performs, keeps the books, and complains."""

    policy_class: type[PoolPolicy] = PoolPolicy
    world: FakeWorld
    steps = 0

    @initialize(limits=pool_limits, groups=st.lists(group_limits, min_size=1, max_size=len(KEYS)))
    def a_pool(self, limits: PoolLimits, groups: list[GroupLimits]) -> None:
        self.world = FakeWorld(self.policy_class(limits))
        if limits.memory_share:
            self.world.room_measured(*START)
        for key, of_group in zip(KEYS, groups, strict=False):
            self.world.add_group(key, of_group)

    # --- clients ----------------------------------------------------------------------------------------------

    @rule(number=numbers)
    def checkout_nowait(self, number: int) -> None:
        self.world.checkout_nowait(pick(self.world.groups, number))

    @rule(number=numbers, times=st.integers(1, 4))
    def checkout(self, number: int, times: int) -> None:
        for _ in range(times):
            self.world.checkout(pick(self.world.groups, number))

    @precondition(lambda self: self.world.waiting)
    @rule(number=numbers)
    def abandon(self, number: int) -> None:
        self.world.abandon(pick(self.world.waiting, number))

    @rule(number=numbers)
    def abandon_when_answered(self, number: int) -> None:
        waiter = self.world.checkout(pick(self.world.groups, number))
        if waiter not in self.world.waiting:
            self.world.abandon(waiter)

    @precondition(lambda self: self.world.sessions)
    @rule(number=numbers, outcome=st.sampled_from(SessionOutcome))
    def close(self, number: int, outcome: SessionOutcome) -> None:
        self.world.close(pick(self.world.sessions, number), outcome)

    @precondition(lambda self: self.world.sessions)
    @rule(number=numbers, times=st.integers(1, 3))
    def a_request_is_left_unanswered(self, number: int, times: int) -> None:
        """And tried again with another process; and more of the same."""
        process = self.world.sessions[pick(self.world.sessions, number)]
        for session in [one for one, of in self.world.sessions.items() if of is process][:times]:
            self.world.retry(session)

    @precondition(lambda self: self.world.processes)
    @rule(number=numbers, times=st.integers(1, 4))
    def a_sticky_client_comes(self, number: int, times: int) -> None:
        """OP13: and asks for its process, which may be busy, on its way out, or of another application by a forged cookie."""
        process = pick(self.world.processes.values(), number)
        key = pick(self.world.groups, number // 7) if number % 7 == 0 else process.group
        for _ in range(times):
            self.world.checkout(key, wanted=process.id)

    @precondition(lambda self: self.world.sessions)
    @rule(number=numbers)
    def hold(self, number: int) -> None:
        self.world.hold(pick(self.world.sessions, number))

    @precondition(lambda self: self.world.sessions)
    @rule()
    def close_all(self) -> None:
        for session in list(self.world.sessions):
            self.world.close(session, SessionOutcome.DONE)

    @precondition(lambda self: self.world.sessions.keys() - self.world.uncounted)
    @rule(number=numbers)
    def unbind(self, number: int) -> None:
        self.world.unbind(pick(sorted(self.world.sessions.keys() - self.world.uncounted), number))

    # --- processes --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.attempts)
    @rule(number=numbers, concurrency=concurrencies, jitter=jitters)
    def spawn_succeeds(self, number: int, concurrency: int, jitter: float) -> None:
        self.world.spawned(pick(self.world.attempts, number), concurrency, jitter)

    @rule(concurrency=concurrencies)
    def all_is_well_for_a_while(self, concurrency: int) -> None:
        """Without such moments most programs would only ever see a pool that cannot start anything."""
        self.world.tick(self.world.now + 30)
        while self.world.attempts:
            self.world.spawned(pick(self.world.attempts, 0), concurrency)

    @precondition(lambda self: self.world.processes)
    @rule(number=numbers, size=st.sampled_from([50, 150, 250]))
    def a_process_is_measured(self, number: int, size: int) -> None:
        self.world.sampled(pick(self.world.processes, number), size)

    @rule(
        sizes=st.lists(st.sampled_from([1, 2, 3, 7]), min_size=1, max_size=4),
        total=st.sampled_from([3, 8, 20]),
        preloader=st.sampled_from([0, 1, 4]),
    )
    def the_memory_is_measured(self, sizes: list[int], total: int, preloader: int) -> None:
        """OP6: a round of the gauges. The memory itself may change, too: a limit of a cgroup is changed while it runs."""
        unit = FIRST_GUESS // 4
        for number, process in enumerate(list(self.world.processes)):
            if process in self.world.processes:
                self.world.sampled(process, sizes[number % len(sizes)] * unit)
        self.world.room_measured(total * unit, sizes[0] * unit // 4, preloader * unit // 2)

    @rule(number=numbers, concurrency=concurrencies)
    def traffic_moves_on(self, number: int, concurrency: int) -> None:
        """To this group, from all others: their processes become idle."""
        self.close_all()
        self.world.now += 1
        key = pick(self.world.groups, number)
        for _ in range(3):
            if self.world.checkout_nowait(key) is None:
                self.world.checkout(key)
        for attempt in list(self.world.attempts):
            self.world.spawned(attempt, concurrency)

    @rule()
    def a_quiet_hour(self) -> None:
        self.close_all()
        self.world.tick(self.world.now + 3600)

    @precondition(lambda self: self.world.attempts)
    @rule(number=numbers, failure=evidence, jitter=jitters)
    def spawn_fails(self, number: int, failure: object, jitter: float) -> None:
        self.world.spawn_failed(pick(self.world.attempts, number), failure, jitter)

    @precondition(lambda self: self.world.processes)
    @rule(number=numbers, failure=evidence, jitter=jitters)
    def a_process_exits(self, number: int, failure: object, jitter: float) -> None:
        self.world.exit(pick(self.world.processes, number), jitter, failure)

    @precondition(lambda self: any(process.retired for process in self.world.processes.values()))
    @rule(number=numbers)
    def a_retired_process_exits(self, number: int) -> None:
        self.world.exit(pick([p.id for p in self.world.processes.values() if p.retired], number))

    @rule(number=numbers, which=numbers)
    def a_preloader_starts(self, number: int, which: int) -> None:
        key = pick(self.world.groups, number)
        of = key, pick(self.world.policy.state.groups[key].generations, which)
        if not self.world.empty and set(self.world.preloaders.get(of, ())) == self.world.preloaders_told.get(of, set()):
            self.world.preloader_starts(*of)

    @precondition(lambda self: self.world.living_preloaders)
    @rule(number=numbers)
    def a_preloader_ends(self, number: int) -> None:
        """Whichever: where two live, the new one may be the first to end."""
        self.world.preloader_ends(*pick(self.world.living_preloaders, number))

    @rule(number=numbers, which=numbers)
    def an_application_turns_out_unsafe_to_fork(self, number: int, which: int) -> None:
        """While its preloader starts: one attempt has it, and others may wait for it."""
        key = pick(self.world.groups, number)
        generation = pick(self.world.policy.state.groups[key].generations, which)
        coming = {self.world.generations[attempt] for attempt, of in self.world.attempts.items() if of == key}
        if generation in coming:
            self.world.unsafe(key, generation)

    # --- operators --------------------------------------------------------------------------------------------

    @rule(number=numbers)
    def restart(self, number: int) -> None:
        self.world.restart(pick(self.world.groups, number))

    @rule(number=numbers)
    def code_changes(self, number: int) -> None:
        self.world.code_changes(pick(self.world.groups, number))

    @rule(key=st.sampled_from(KEYS), limits=group_limits, jitter=jitters)
    def an_application_is_added(self, key: GroupKey, limits: GroupLimits, jitter: float) -> None:
        """LI2: also one that was removed, and still leaves."""
        if not self.world.shutting_down and (key not in self.world.groups or key in self.world.leaving):
            self.world.add_group(key, limits, jitter)

    @precondition(lambda self: len(self.world.groups) - len(self.world.leaving) > 1)
    @rule(number=numbers)
    def an_application_is_removed(self, number: int) -> None:
        self.world.remove_group(pick(self.world.groups, number))

    @rule(limits=pool_limits)
    def the_pool_is_resized(self, limits: PoolLimits) -> None:
        self.world.change_pool(limits)

    @rule(number=numbers, limits=group_limits, jitter=jitters)
    def limits_change(self, number: int, limits: GroupLimits, jitter: float) -> None:
        self.world.change_group(pick(self.world.groups, number), limits, jitter)

    @rule(hard=st.booleans())
    def restart_all(self, hard: bool) -> None:
        self.world.restart_all(hard=hard)

    @rule(number=numbers)
    def restart_hard(self, number: int) -> None:
        self.world.restart(pick(self.world.groups, number), hard=True)

    @precondition(lambda self: self.world.processes)
    @rule(number=numbers)
    def detach(self, number: int) -> None:
        self.world.detach(pick(self.world.processes, number))

    @precondition(lambda self: self.world.processes)
    @rule(number=numbers)
    def disable(self, number: int) -> None:
        self.world.disable(pick(self.world.processes, number))

    @precondition(lambda self: any(process.disabled_by_operator for process in self.world.processes.values()))
    @rule(number=numbers)
    def enable(self, number: int) -> None:
        self.world.enable(pick([p.id for p in self.world.processes.values() if p.disabled_by_operator], number))

    @precondition(lambda self: self.world.processes)
    @rule(number=numbers, times=st.integers(1, 3))
    def processes_ask_for_out_of_band_work(self, number: int, times: int) -> None:
        for more in range(times):
            self.world.ask_for_oob_work(pick(self.world.processes, number + more))

    @precondition(lambda self: any(process.works for process in self.world.processes.values()))
    @rule(number=numbers, succeeded=st.booleans())
    def out_of_band_work_ends(self, number: int, succeeded: bool) -> None:
        working = [p.id for p in self.world.processes.values() if p.works]
        self.world.end_oob_work(pick(working, number), succeeded=succeeded)

    @rule(number=numbers, always=st.booleans())
    def always_restart(self, number: int, always: bool) -> None:
        self.world.perform(self.world.policy.always_restart(pick(self.world.groups, number), always, self.world.now))

    @rule(number=numbers, times=st.integers(2, 5), concurrency=concurrencies)
    def a_rolling_restart(self, number: int, times: int, concurrency: int) -> None:
        """Some way through it, with everything going well."""
        key = pick(self.world.groups, number)
        self.world.restart(key)
        for _ in range(times):
            mine = [attempt for attempt, group in self.world.attempts.items() if group == key]
            if mine:
                self.world.spawned(mine[0], concurrency)

    @rule(times=st.integers(1, 3))
    def a_fault_is_contained(self, times: int) -> None:
        """KE1: it is a fact, and nothing follows from it."""
        deadline = self.world.policy.next_deadline()
        assert self.world.policy.fault_contained("a hook", "OSError: no", times, self.world.now) == []
        assert self.world.policy.next_deadline() == deadline

    # --- time -------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.01, 0.1, 1.0, 10.0, 100.0]))
    def the_clock_is_late(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(seconds=st.sampled_from([0.0, 0.03, 0.5, 5.0, 60.0]))
    def tick_after(self, seconds: float) -> None:
        self.world.tick(self.world.now + seconds)

    @rule()
    def tick_at_the_deadline(self) -> None:
        deadline = self.world.policy.next_deadline()
        if deadline < float("inf"):
            self.world.tick(max(self.world.now, deadline))

    @precondition(lambda self: self.steps > 25)
    @rule()
    def shut_down(self) -> None:
        self.world.shut_down()

    @invariant()
    def count(self) -> None:
        self.steps += 1

    # --- the end ----------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        world = getattr(self, "world", None)
        if world is None:
            return
        world.play_to_quiescence()
        if not world.shutting_down:
            assert not world.leaving or world.waiting, "what was removed stays (OP1)"
            for key in world.groups.keys() - world.leaving:
                self.everything_asked_for_was_done(key)
        for key in set(world.waiting.values()):
            # The one case in which somebody may wait: all places are of groups that have one process, which could not be had again.
            assert not any(process.group == key for process in world.processes.values())
            assert len(world.processes) >= world.policy.state.limits.max_pool_size
            for process in world.processes.values():
                assert world.policy.state.groups[process.group].rejection is not None
        world.shut_down()
        world.play_to_quiescence()
        assert world.empty, "PoolEmpty never came"
        assert not world.waiting
        assert not world.processes
        assert not world.sessions
        assert world.policy.next_deadline() == float("inf")

    def everything_asked_for_was_done(self, key: GroupKey) -> None:
        group = self.world.policy.state.groups[key]
        assert not group.rolling
        assert not group.to_replace
        asked = self.world.restarts.get(key, 1)
        assert group.generation >= asked or self.world.rejected[key] >= asked, "a restart was lost"


PoolMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("PASSENGER_TRIO_MODEL_EXAMPLES", "300")),
    stateful_step_count=50,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestPool = PoolMachine.TestCase
# A time limit that strikes within an example would count as a failure of the machine, and be shrunk.
TestPool.pytestmark = pytest.mark.timeout(1800)
