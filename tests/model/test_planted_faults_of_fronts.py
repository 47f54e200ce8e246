"""FR1: the machine of the fronts is itself tested. For each law a ledger that breaks it is found."""

from __future__ import annotations

import math
import os

import pytest
from fronts_world import LawBroken
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from test_fronts_machine import FrontsMachine

from passenger_trio.core.fronts import front_ledger
from passenger_trio.core.fronts.front_ledger import FrontDecision, FrontLedger, Slot, SlotState
from passenger_trio.core.fronts.messages import Held, Recall
from passenger_trio.core.fronts.owner_ledger import Close, FrontId, OwnerDecision, OwnerLedger
from passenger_trio.core.model import SessionOutcome
from passenger_trio.errors import BadFrontMessage, InvariantBroken

search = settings(
    max_examples=400,
    stateful_step_count=50,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)


class WhatIsHeldNeverCounted(OwnerLedger):
    """Concurrency: each long-lived session is taken out of its process's count."""

    def held(self, front: FrontId, held: Held, now: float) -> list[OwnerDecision]:
        return super().held(front, Held(held.slot, held.long_lived, held.taken_over, True), now)


class ASlotIsReturnedAndUsed(FrontLedger):
    """One place: it goes back for somebody elsewhere, and serves the next request here."""

    def ended(self, slot: Slot, outcome: SessionOutcome, now: float, *, kept: bool) -> list[FrontDecision]:
        decisions = super().ended(slot, outcome, now, kept=kept)
        group = slot.process.group
        if slot.id not in self.slots and group.waiters:
            self.slots[slot.id] = slot.process.slots[slot.id] = slot
            waiter = next(iter(group.waiters))
            self._forget(group, waiter)
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

    def _next(self, group: front_ledger._Group, slot: Slot, now: float) -> list[FrontDecision]:
        waiter = self._oldest(group, slot)
        if waiter is not None:
            self._forget(group, waiter)
            return [front_ledger.Start(waiter, self._begin(slot, now))]
        return super()._next(group, slot, now)


class DemandIsAnEvent(FrontLedger):
    """Lost demand, the fault of Ray and of HAProxy: who comes while others wait is told of once they are served, and not before."""

    def _tell(self, group: front_ledger._Group, now: float) -> list[FrontDecision]:
        if group.told is not None and group.told.waiters and group.waiters:
            self._changed.pop(group.key, None)
            return []
        return super()._tell(group, now)


class IdleSlotsStay(FrontLedger):
    """Quiescence: what nobody asks for stays for ever."""

    def ended(self, slot: Slot, outcome: SessionOutcome, now: float, *, kept: bool) -> list[FrontDecision]:
        decisions = super().ended(slot, outcome, now, kept=kept)
        if slot.state is SlotState.IDLE:
            slot.since = math.inf
        return decisions


class ADeadFrontKeepsItsSlots(OwnerLedger):
    """Death: its waiters are forgotten, and its slots as well."""

    def front_gone(self, front: FrontId) -> list[OwnerDecision]:
        return [decision for decision in super().front_gone(front) if not isinstance(decision, Close)]


def _machine(owner: type[OwnerLedger] = OwnerLedger, front: type[FrontLedger] = FrontLedger) -> type[FrontsMachine]:
    class Machine(FrontsMachine):
        owner_class = owner
        front_class = front

    return Machine


OWNERS = [WhatIsHeldNeverCounted, ADeadFrontKeepsItsSlots]
FRONTS = [ASlotIsReturnedAndUsed, ARecallIsForTheEndOfARequest, OwnRequestsFirst, DemandIsAnEvent, IdleSlotsStay]
if "PASSENGER_TRIO_MODEL_EXAMPLES" not in os.environ:  # each costs up to half a minute: all of them in ``nox -s model``
    OWNERS, FRONTS = OWNERS[1:], FRONTS[:1]


@pytest.mark.parametrize("owner", OWNERS)
def test_a_planted_fault_of_the_owner_is_found(owner: type[OwnerLedger]) -> None:
    with pytest.raises((LawBroken, InvariantBroken, BadFrontMessage)):
        run_state_machine_as_test(_machine(owner=owner), settings=search)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("front", FRONTS)
def test_a_planted_fault_of_a_front_is_found(front: type[FrontLedger]) -> None:
    with pytest.raises((LawBroken, InvariantBroken, BadFrontMessage)):
        run_state_machine_as_test(_machine(front=front), settings=search)  # type: ignore[no-untyped-call]
