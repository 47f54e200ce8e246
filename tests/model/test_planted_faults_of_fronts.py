"""FR1: the machine of the fronts is itself tested. For each law a ledger that breaks it is found."""

from __future__ import annotations

import math
import os

import attrs
import pytest
from fronts_world import KEY, FrontsWorld, LawBroken, TheFront
from hypothesis.stateful import run_state_machine_as_test
from searches import same_each_time
from test_fronts_machine import FrontsMachine

from passenger_trio.core.fronts import front_ledger, owner_ledger
from passenger_trio.core.fronts.front_group import FrontGroup, Slot, SlotState
from passenger_trio.core.fronts.front_ledger import SLACK, FrontDecision, FrontLedger
from passenger_trio.core.fronts.messages import Grant, Pinned, Recall, Want, Withdraw
from passenger_trio.core.fronts.owner_decisions import Close, FrontId, OwnerDecision
from passenger_trio.core.fronts.owner_desks import Desk, FrontAtOwner
from passenger_trio.core.fronts.owner_ledger import OwnerLedger
from passenger_trio.core.model import GroupKey, SessionOutcome
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.core.waitlist import SPAWN_DELAY
from passenger_trio.errors import BadFrontMessage, InvariantBroken

search = same_each_time(400, 50)


class WhatIsHeldNeverCounted(OwnerLedger):
    """Concurrency: each long-lived session is taken out of its process's count."""

    def pinned(self, front: FrontId, message: Pinned, now: float) -> list[OwnerDecision]:
        return super().pinned(front, Pinned(message.slot, message.long_lived, message.taken_over, True), now)


class ASlotIsReturnedAndUsed(FrontLedger):
    """One place: it goes back for somebody elsewhere, and serves the next request here."""

    def ended(self, slot: Slot, outcome: SessionOutcome, now: float, *, kept: bool) -> list[FrontDecision]:
        decisions = super().ended(slot, outcome, now, kept=kept)
        group = slot.process.group
        if slot.id not in self.slots and group.waiters:
            self.slots[slot.id] = slot.process.slots[slot.id] = slot
            waiter = next(iter(group.waiters))
            self._forget(group, waiter, now)
            decisions.append(front_ledger.Start(waiter, self._begin(slot, now)))
        return decisions


class ARecallIsForTheEndOfARequest(FrontLedger):
    """Idle slots: a front that is recalled returns what ends, and keeps what is idle until it has lingered."""

    def recalled(self, recall: Recall, now: float) -> list[FrontDecision]:
        idle, group = self._groups[recall.group].idle, self._groups[recall.group]
        group.idle = {}
        decisions = super().recalled(recall, now)
        group.idle = idle
        return decisions


class OwnRequestsFirst(FrontLedger):
    """Order: a busy front serves its own, however long others wait (leases without recall)."""

    def _next(self, group: FrontGroup, slot: Slot, now: float) -> list[FrontDecision]:
        waiter = self._oldest(group, slot)
        if waiter is not None:
            self._forget(group, waiter, now)
            return [front_ledger.Start(waiter, self._begin(slot, now))]
        return super()._next(group, slot, now)


class DemandIsAnEvent(FrontLedger):
    """Lost demand, the fault of Ray and of HAProxy: who comes while others wait is told of once they are served, and not before."""

    def _tell(self, group: FrontGroup, now: float) -> list[FrontDecision]:
        if group.told is not None and group.told.waiters and group.waiters:
            self._changed.pop(group.key, None)
            return []
        return super()._tell(group, now)


class ARecallIsForgotten(OwnerLedger):
    """Idle slots: a recall that was answered by a slot that leads to nothing is not repeated."""

    def _recall(self, front: FrontAtOwner, desk: Desk) -> Recall:
        recall = super()._recall(front, desk)
        told = desk.told
        return told if told is not None and told.arrivals == recall.arrivals else recall


class IdleSlotsStay(FrontLedger):
    """Quiescence: what nobody asks for stays for ever."""

    def ended(self, slot: Slot, outcome: SessionOutcome, now: float, *, kept: bool) -> list[FrontDecision]:
        decisions = super().ended(slot, outcome, now, kept=kept)
        if slot.state is SlotState.IDLE:
            slot.since = math.inf
        return decisions


class AWithdrawnSlotServesOn(FrontLedger):
    """Order of those that do not take every process: a busy front gives back what is idle only."""

    def withdrawn(self, withdraw: Withdraw) -> list[FrontDecision]:
        decisions = super().withdrawn(withdraw)
        for slot in self.slots.values():
            slot.withdrawn = False
        return decisions


class NoSlotIsWithdrawn(OwnerLedger):
    """Idle slots, for those that do not take every process: nobody is told of them."""

    def withdraw_all(self, key: GroupKey) -> list[OwnerDecision]:
        return []


class ASlotForOneLingers(FrontLedger):
    """Idle slots, for those that do not take every process: what came for one request, whose client is gone, stays for a while."""

    def granted(self, grant: Grant, now: float) -> list[FrontDecision]:
        decisions = super().granted(attrs.evolve(grant, budget=grant.budget + 1), now)
        if grant.slot in self.slots:
            self.slots[grant.slot].budget = grant.budget
        return decisions


class AGrantIsForTheOldest(FrontLedger):
    """Order: a front gives what is granted to its oldest waiter. The owner counts the one that the grant names as served, and forgets its place in the queue."""

    def granted(self, grant: Grant, now: float) -> list[FrontDecision]:
        return super().granted(attrs.evolve(grant, arrival=-1.0), now)


class NobodyIsPatient(OwnerLedger):
    """Demand: each ticket is a reason for one more process at once."""

    def want(self, front: FrontId, want: Want, now: float) -> list[OwnerDecision]:
        return [
            attrs.evolve(decision, lent=0) if isinstance(decision, owner_ledger.Ask) else decision
            for decision in super().want(front, want, now)
        ]


class ADeadFrontKeepsItsSlots(OwnerLedger):
    """Death: its waiters are forgotten, and its slots as well."""

    def front_gone(self, front: FrontId) -> list[OwnerDecision]:
        return [decision for decision in super().front_gone(front) if not isinstance(decision, Close)]


def _machine(owner: type[OwnerLedger] = OwnerLedger, front: type[FrontLedger] = FrontLedger) -> type[FrontsMachine]:
    class Machine(FrontsMachine):
        owner_class = owner
        front_class = front

    return Machine


OWNERS = [
    WhatIsHeldNeverCounted,
    ARecallIsForgotten,
    NoSlotIsWithdrawn,
    NobodyIsPatient,
    ADeadFrontKeepsItsSlots,
]
FRONTS = [
    ASlotIsReturnedAndUsed,
    ARecallIsForTheEndOfARequest,
    OwnRequestsFirst,
    DemandIsAnEvent,
    IdleSlotsStay,
    AGrantIsForTheOldest,
]
if "PASSENGER_TRIO_MODEL_EXAMPLES" not in os.environ:  # each costs up to half a minute: all of them in ``nox -s model``
    OWNERS, FRONTS = OWNERS[-1:], FRONTS[:1]


@pytest.mark.parametrize("owner", OWNERS)
def test_a_planted_fault_of_the_owner_is_found(owner: type[OwnerLedger]) -> None:
    with pytest.raises((LawBroken, InvariantBroken, BadFrontMessage)):
        run_state_machine_as_test(_machine(owner=owner), settings=search)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("front", FRONTS)
def test_a_planted_fault_of_a_front_is_found(front: type[FrontLedger]) -> None:
    with pytest.raises((LawBroken, InvariantBroken, BadFrontMessage)):
        run_state_machine_as_test(_machine(front=front), settings=search)  # type: ignore[no-untyped-call]


# Two races that chance meets too rarely: the world is led to them.


def _busy_world(owner: type[OwnerLedger], front: type[FrontLedger]) -> tuple[FrontsWorld, TheFront, TheFront, int]:
    """Both processes serve at the first of two fronts; and the session of the second process."""
    pool = PoolLimits(max_pool_size=2, max_concurrent_spawns=2)
    world = FrontsWorld(GroupLimits(min_instances=2), pool, lambda: 1.0, owner_class=owner, front_class=front)
    one, two = world.front_comes(), world.front_comes()
    world.advance(0.2)
    for _ in range(2):
        world.request(one, KEY)
    world.advance(0.01)
    return world, one, two, list(one.running)[1]


def _a_sticky_one_of_a_busy_front(owner: type[OwnerLedger], front: type[FrontLedger]) -> None:
    """Its process serves at another front, where younger requests wait."""
    world, one, two, session = _busy_world(owner, front)
    sticky = world.request(two, KEY, sought=world.process_of[session])
    world.advance(SLACK + 0.01)
    for _ in range(3):
        world.request(one, KEY)
    world.advance(0.01)
    world.ends(one, session)
    world.advance(0.01)
    assert sticky not in two.waiting


def _a_grant_for_one_who_is_gone(owner: type[OwnerLedger], front: type[FrontLedger]) -> None:
    """One waits elsewhere, who takes no other process."""
    world, one, two, session = _busy_world(owner, front)
    gone = world.request(two, KEY)
    world.advance(0.001)
    sticky = world.request(one, KEY, sought=world.process_of[session])
    world.advance(0.02)
    world.ends(one, session)
    while not any(isinstance(message, Grant) for _, message in two.from_owner):
        world.advance(0.0001)
    world.gives_up(two, gone)
    world.advance(0.02)
    assert sticky not in one.waiting


def test_a_sticky_request_is_served_before_younger_ones_of_another_front() -> None:
    _a_sticky_one_of_a_busy_front(OwnerLedger, FrontLedger)
    with pytest.raises(LawBroken, match="on a process that they take"):
        _a_sticky_one_of_a_busy_front(OwnerLedger, AWithdrawnSlotServesOn)


def test_a_slot_that_came_for_one_who_is_gone_does_not_linger() -> None:
    _a_grant_for_one_who_is_gone(OwnerLedger, FrontLedger)
    with pytest.raises(LawBroken, match="wait"):
        _a_grant_for_one_who_is_gone(OwnerLedger, ASlotForOneLingers)


def _one_after_another(owner: type[OwnerLedger]) -> FrontsWorld:
    """A low load: each of two fronts has a request in turn, and the other's slot lingers."""
    pool = PoolLimits(max_pool_size=4, max_concurrent_spawns=2)
    world = FrontsWorld(GroupLimits(min_instances=1), pool, lambda: 1.0, owner_class=owner)
    one, two = world.front_comes(), world.front_comes()
    world.advance(0.2)
    for front in (one, two, one, two):
        world.request(front, KEY)
        world.advance(0.005)
        world.ends(front, next(iter(front.running)))
        world.advance(0.02)
    return world


def test_a_slot_that_lingers_at_another_front_is_no_reason_for_one_more_process() -> None:
    world = _one_after_another(OwnerLedger)
    assert len(world.processes) == 2, "one of each application"
    assert not world.attempts
    with pytest.raises(LawBroken, match="a process is started"):
        _one_after_another(NobodyIsPatient)


def test_patience_ends_and_what_waits_for_busy_slots_gets_its_process() -> None:
    world = _one_after_another(OwnerLedger)
    one, two = world.fronts
    world.request(one, KEY)
    world.advance(0.005)
    world.request(two, KEY)
    world.advance(SPAWN_DELAY + 0.002)
    assert len(world.attempts) == 1
    world.advance(0.1)
    assert not two.waiting
    assert len(world.processes) == 3


def test_who_found_every_slot_busy_may_be_served_before_the_owner_hears_of_it() -> None:
    """That is a reason for one more process, as with one front: the law is about slots that are idle at other fronts."""
    pool = PoolLimits(max_pool_size=3, max_concurrent_spawns=2)
    world = FrontsWorld(GroupLimits(min_instances=1), pool, lambda: 1.0)
    one = world.front_comes()
    world.advance(0.2)
    for _ in range(2):
        world.request(one, KEY)
        world.advance(0.0007)
    while one.running:
        world.ends(one, next(iter(one.running)))
    world.advance(0.001)
    assert [attempt for _, attempt in world.attempts]
    assert len(one.idle_since) == 1
