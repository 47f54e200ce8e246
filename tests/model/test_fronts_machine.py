"""FR1: the ledgers of several fronts over the real policy, with channels that delay, coalesce and die. The laws stand in ``fronts_world``.

``PASSENGER_TRIO_MODEL_EXAMPLES`` asks for more than the programs of an everyday run (``nox -s model``: more than 100 000 steps).
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterable
from typing import TypeVar

import pytest
from fronts_world import KEY, OTHER, FrontsWorld, TheFront
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from passenger_trio.core.fronts.front_ledger import FrontLedger
from passenger_trio.core.fronts.messages import Grant, Return
from passenger_trio.core.fronts.owner_ledger import OwnerLedger
from passenger_trio.core.model import SessionOutcome, WaiterId
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits

T = TypeVar("T")
numbers = st.integers(0, 59)
waits = st.sampled_from([0.0, 0.0001, 0.001, 0.003, 0.02, 0.15])


def pick(things: Iterable[T], number: int) -> T:
    listed = list(things)
    return listed[number % len(listed)]


class FrontsMachine(RuleBasedStateMachine):
    """The rules are what clients, processes, operators and accidents can do."""

    owner_class: type[OwnerLedger] = OwnerLedger
    front_class: type[FrontLedger] = FrontLedger
    world: FrontsWorld

    @initialize(
        fronts=st.integers(1, 4),
        size=st.integers(2, 4),
        concurrency=st.sampled_from([1, 1, 2, 0]),
        queue=st.sampled_from([0, 0, 6]),
        max_requests=st.sampled_from([0, 0, 3]),
        max_request_time=st.sampled_from([0.0, 0.0, 4.0]),
        queue_time=st.sampled_from([0.0, 0.0, 0.5]),
        seed=st.integers(0, 5),
        coalesces=st.booleans(),
    )
    def begin(
        self,
        fronts: int,
        size: int,
        concurrency: int,
        queue: int,
        max_requests: int,
        max_request_time: float,
        queue_time: float,
        seed: int,
        coalesces: bool,
    ) -> None:
        limits = GroupLimits(
            min_instances=1,
            max_requests=max_requests,
            max_request_time=max_request_time,
            max_request_queue_size=queue,
            max_request_queue_time=queue_time,
        )
        # Sometimes each message takes its longest: that is where the bounds are tight.
        delays = random.Random(seed)
        delay = (lambda: 1.0) if seed == 0 else delays.random
        pool = PoolLimits(max_pool_size=size, max_concurrent_spawns=2, backoff_first=0.1, backoff_max=0.4)
        self.world = FrontsWorld(
            limits, pool, delay, coalesces, owner_class=self.owner_class, front_class=self.front_class
        )
        self.world.concurrency = concurrency
        for _ in range(fronts):
            self.world.front_comes()
        self.world.advance(0.2)

    def front(self, number: int) -> TheFront:
        return pick(self.world.fronts, number)

    @property
    def running(self) -> list[tuple[TheFront, int]]:
        return [(front, session) for front in self.world.fronts for session in front.running]

    # --- clients --------------------------------------------------------------------------------------------------

    @rule(number=numbers, times=st.integers(1, 4), apart=waits)
    def requests(self, number: int, times: int, apart: float) -> None:
        for _ in range(times):
            self.world.request(self.front(number), KEY)
            self.world.advance(apart)

    @rule(number=numbers)
    def a_request_for_another(self, number: int) -> None:
        self.world.request(self.front(number), OTHER)

    @rule(apart=st.sampled_from([0.0, 0.004, 0.012]))
    def one_at_each_front(self, apart: float) -> None:
        for front in list(self.world.fronts):
            self.world.request(front, KEY)
            self.world.advance(apart)

    @precondition(lambda self: self.running)
    @rule(number=numbers, times=st.integers(1, 3), apart=waits)
    def requests_end(self, number: int, times: int, apart: float) -> None:
        for _ in range(times):
            if self.running:
                self.world.ends(*pick(self.running, number))
                self.world.advance(apart)

    @precondition(lambda self: self.running)
    @rule(number=numbers, outcome=st.sampled_from(SessionOutcome))
    def a_request_ends_badly(self, number: int, outcome: SessionOutcome) -> None:
        self.world.ends(*pick(self.running, number), outcome)

    @precondition(lambda self: self.running)
    @rule(number=numbers, uncounted=st.booleans())
    def a_session_is_pinned(self, number: int, uncounted: bool) -> None:
        front, session = pick(self.running, number)
        if session not in front.pinned:
            self.world.pins(front, session, uncounted=uncounted)

    @rule(number=numbers, apart=waits)
    def who_waits_gives_up(self, number: int, apart: float) -> None:
        waiting = [(front, waiter) for front in self.world.fronts for waiter in front.waiting]
        if waiting:
            self.world.gives_up(*pick(waiting, number))
            self.world.advance(apart)

    @rule(number=numbers, rounds=st.integers(2, 8), apart=st.sampled_from([0.0005, 0.002, 0.006]))
    def a_busy_front(self, number: int, rounds: int, apart: float) -> None:
        """Requests come to it as fast as they end; who waits at another front must get its turn."""
        for _ in range(rounds):
            front = self.front(number)
            self.world.request(front, KEY)
            self.world.advance(apart)
            mine = [session for session in front.running if session not in front.pinned]
            if mine:
                self.world.ends(front, mine[0])

    # --- accidents ------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.world.fronts) > 1)
    @rule(number=numbers)
    def a_front_dies(self, number: int) -> None:
        self.world.front_dies(self.front(number))

    @precondition(lambda self: len(self.world.fronts) < 4)
    @rule()
    def a_front_comes(self) -> None:
        self.world.front_comes()

    @precondition(lambda self: self.world.abandoned)
    @rule(number=numbers)
    def what_a_dead_front_left_ends(self, number: int) -> None:
        self.world.abandoned_request_ends(pick(self.world.abandoned, number))

    @precondition(lambda self: self.world.processes)
    @rule(number=numbers)
    def a_process_exits(self, number: int) -> None:
        self.world.process_exits(pick(self.world.processes, number))

    @precondition(lambda self: self.world.processes)
    @rule(number=numbers, which=numbers)
    def a_request_of_a_sticky_session(self, number: int, which: int) -> None:
        process = pick(self.world.processes, which)
        self.world.request(self.front(number), self.world.processes[process][0], sought=process)

    @precondition(lambda self: self.running)
    @rule(
        number=numbers,
        which=numbers,
        rounds=st.integers(2, 8),
        apart=st.sampled_from([0.0005, 0.002, 0.006]),
        sticky=st.booleans(),
        gives_up=st.booleans(),
    )
    def a_constrained_one_among_many(
        self, number: int, which: int, rounds: int, apart: float, sticky: bool, gives_up: bool
    ) -> None:
        """It takes one busy process, or all but one, while requests come and end, at its front and at others; some are given up when their slot is under way."""
        _, session = pick(self.running, which)
        process = self.world.process_of[session]
        if process not in self.world.processes:
            return
        constrained, key = self.front(number), self.world.processes[process][0]
        if sticky:
            self.world.request(constrained, key, sought=process)
        else:
            self.world.request(constrained, key, avoided=process)
        for turn in range(rounds):
            at = self.front(number + turn)
            waiter = self.world.request(at, key)
            self.world.advance(apart)
            if self.running:
                self.world.ends(*pick(self.running, which + turn))
            if gives_up and waiter in at.waiting:
                self._gives_up_too_late(at, waiter)

    def _gives_up_too_late(self, front: TheFront, waiter: int) -> None:
        for _ in range(20):
            if waiter not in front.waiting:
                return
            if any(isinstance(message, Grant) for _, message in front.from_owner):
                self.world.gives_up(front, WaiterId(waiter))
                return
            self.world.advance(0.0001)

    # --- operators ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.processes)
    @rule(number=numbers)
    def detach(self, number: int) -> None:
        self.world.detach(pick(self.world.processes, number))

    @precondition(lambda self: self.world.processes)
    @rule(number=numbers)
    def disable(self, number: int) -> None:
        self.world.disable(pick(self.world.processes, number))

    @precondition(lambda self: self.world.processes)
    @rule(number=numbers)
    def enable(self, number: int) -> None:
        self.world.enable(pick(self.world.processes, number))

    @precondition(lambda self: len(self.world.fronts) > 1)
    @rule(number=numbers)
    def a_process_goes_while_its_slot_comes_back(self, number: int) -> None:
        """A recall is answered by a slot that leads to nothing, and another is idle beside it. (Chance alone does not meet a message that is under way.)"""
        holder, other = self.front(number), self.front(number + 1)
        for _ in range(2):
            self.world.request(holder, KEY)
        self.world.advance(0.2)
        for session in [session for session in holder.running if session not in holder.pinned]:
            if session in holder.running:
                self.world.ends(holder, session)
        self.world.request(other, KEY)
        for _ in range(40):
            for _, message in holder.to_owner:
                if isinstance(message, Return) and self.world.process_of[message.slot] in self.world.processes:
                    self.world.detach(self.world.process_of[message.slot])
                    self.world.advance(0.01)
                    return
            self.world.advance(0.0001)

    @rule(hard=st.booleans())
    def restart(self, hard: bool) -> None:
        self.world.restart(hard=hard)

    # --- time -----------------------------------------------------------------------------------------------------

    @rule(seconds=waits)
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    def teardown(self) -> None:
        # A law that is broken leaves a step half done: what follows from that would hide it.
        if hasattr(self, "world") and sys.exc_info()[1] is None:
            self.world.quiesce()


FrontsMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("PASSENGER_TRIO_MODEL_EXAMPLES", "25")),
    stateful_step_count=50,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestFronts = FrontsMachine.TestCase
TestFronts.pytestmark = pytest.mark.timeout(3000)
