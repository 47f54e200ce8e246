"""FR1, FR6: which ``Recall`` says something new, and smaller rules of both ledgers: each is a fault that the sample of HO5 planted unseen."""

from __future__ import annotations

import math

import attrs
import pytest

from passenger_trio.core.commands import Reason
from passenger_trio.core.fronts.front_group import TOLD, FrontGroup
from passenger_trio.core.fronts.front_ledger import SLACK, FrontLedger, Send, Start
from passenger_trio.core.fronts.messages import (
    Grant,
    Pinned,
    ProcessCame,
    ProcessGoes,
    Recall,
    Return,
    SlotUse,
    Usage,
    Waiting,
    Want,
)
from passenger_trio.core.fronts.owner_decisions import Abandon, Ask, Close, OwnerDecision, Served
from passenger_trio.core.fronts.owner_decisions import Send as SendToFront
from passenger_trio.core.fronts.owner_desks import only_counts, says_the_same
from passenger_trio.core.fronts.owner_ledger import OwnerLedger
from passenger_trio.core.model import GroupKey, ProcessId, SessionId, SessionOutcome, WaiterId
from passenger_trio.errors import BadFrontMessage

KEY = GroupKey("shop", "test")
NOW = 10.0
ONE, OTHER = 1, 2
SLOT, ELSEWHERE = SessionId(7), SessionId(8)
PROCESS = ProcessCame(ProcessId(3), KEY, 103, 1, "session", False, "unix:/s", b"r")


def recall(
    arrivals: tuple[float, ...] = (1.0, 2.0),
    *,
    waiting: int = 2,
    seen: int = 3,
    most: int = 4,
    ages: tuple[float, ...] = (0.5, 0.5),
) -> Recall:
    return Recall(KEY, arrivals, waiting, seen, most, ages[: len(arrivals)])


@pytest.mark.parametrize(
    ("new", "same", "counts"),
    [
        (recall(), True, True),
        (recall(waiting=3), False, True),
        (recall(most=5), False, False),
        (recall(seen=4), False, False),
        (recall(ages=(0.5, 0.6)), False, False),
        (recall((1.5, 2.5)), True, True),
        (recall((1.0, 2.5)), True, True),
        (recall((0.5, 2.5)), False, False),
        (recall((1.5, 1.5)), False, False),
        (recall((1.0,), waiting=2), False, False),
    ],
)
def test_FR6_a_recall_is_news_if_who_waits_elsewhere_has_changed(new: Recall, same: bool, counts: bool) -> None:
    """Younger waiters in the place of older ones are none, as long as the ages tell how long they wait."""
    assert says_the_same(new, recall()) is same
    assert only_counts(new, recall()) is counts


def test_FR6_waiters_that_stay_are_told_by_their_arrivals() -> None:
    stays = recall(ages=(math.inf, 0.5))
    assert says_the_same(stays, stays)
    assert not says_the_same(recall((1.5, 2.5), ages=(math.inf, 0.5)), stays)


def test_FR6_while_nobody_waits_elsewhere_it_does_not_matter_how_many_returns_are_known() -> None:
    assert says_the_same(recall((), waiting=0, seen=9), recall((), waiting=0, seen=3))
    assert not says_the_same(recall((), waiting=1, seen=9), recall((), waiting=0, seen=3))
    assert not says_the_same(recall(seen=3), recall((), waiting=0, seen=3))


def test_FR6_the_first_recall_is_news_unless_nobody_waits_and_the_front_has_no_slot() -> None:
    assert says_the_same(recall((), waiting=0), None)
    assert not says_the_same(recall((), waiting=0), None, slots=1), "it would list all of its waiters"
    assert not says_the_same(recall((), waiting=1), None)
    assert not says_the_same(recall(), None)
    assert not only_counts(recall((), waiting=1), None)


def test_FR6_what_is_no_part_of_a_level_makes_no_news() -> None:
    assert attrs.evolve(recall(), slots=3, sent=5.0) == recall()
    assert attrs.evolve(recall(), waiting=3) != recall()


def test_FR1_a_process_that_is_only_detached_lives() -> None:
    detached = ProcessGoes(PROCESS.process, leaving=False)
    assert (detached.drained, detached.killed, detached.gone, detached.overdue) == (False, False, False, ())


@pytest.mark.parametrize(
    ("waiting", "is_constrained"),
    [(Waiting(1.0), False), (Waiting(1.0, avoided=ProcessId(3)), True), (Waiting(1.0, route=b"q"), True)],
)
def test_FR1_who_takes_every_process(waiting: Waiting, is_constrained: bool) -> None:
    assert waiting.is_constrained is is_constrained


@pytest.fixture
def front() -> FrontLedger:
    ledger = FrontLedger()
    ledger.add_group(KEY, 0)
    ledger.process_came(PROCESS)
    return ledger


def test_FR6_a_front_knows_of_nobody_elsewhere_at_first(front: FrontLedger) -> None:
    front.add_group(KEY, 1)
    assert front.queue(WaiterId(1), KEY, 2.0) == [], "the queue has room for one"
    assert FrontGroup(KEY, 0).waiting_elsewhere == 0
    assert FrontGroup(KEY, 0).slots_elsewhere == FrontGroup(KEY, 0).slots == 0
    assert front._groups[KEY].share == 0


def granted(front: FrontLedger, *, alone: bool = False) -> None:
    assert front.granted(Grant(1, SLOT, PROCESS.process, 0, alone, False, 1.0), 2.0) == []


@pytest.mark.parametrize(
    ("avoided", "route", "alone", "serves"),
    [
        (None, b"r", False, True),
        (None, b"q", False, False),
        (ProcessId(3), b"", False, False),
        (ProcessId(3), b"", True, True),
        (ProcessId(3), b"q", True, False),
        (ProcessId(4), b"", False, True),
    ],
)
def test_FR1_a_request_that_takes_few_processes_gets_one_that_it_takes(
    front: FrontLedger, avoided: ProcessId | None, route: bytes, alone: bool, serves: bool
) -> None:
    granted(front, alone=alone)
    decisions = front.queue(WaiterId(1), KEY, 2.1, avoided, route)
    assert [type(decision) for decision in decisions] == [Start] * serves


def test_FR1_a_busy_slot_goes_to_the_oldest_that_takes_it(front: FrontLedger) -> None:
    granted(front)
    (start,) = front.queue(WaiterId(1), KEY, 2.1)
    assert isinstance(start, Start)
    assert front.queue(WaiterId(2), KEY, 2.2, None, b"q") == []
    assert front.queue(WaiterId(3), KEY, 2.3) == []
    (next_one,) = front.ended(start.slot, SessionOutcome.DONE, 2.4, kept=True)
    assert isinstance(next_one, Start)
    assert next_one.waiter == WaiterId(3)


def test_FR1_a_waiter_that_leaves_was_one_of_those_that_take_few_processes(front: FrontLedger) -> None:
    """The next one is still such a one: the slot is not for it."""
    granted(front)
    (start,) = front.queue(WaiterId(1), KEY, 2.1)
    assert isinstance(start, Start)
    for waiter in (2, 3):
        assert front.queue(WaiterId(waiter), KEY, 2.2, None, b"q") == []
    front.leave(WaiterId(2), 2.3)
    assert front.ended(start.slot, SessionOutcome.DONE, 2.4, kept=True) == []


def test_FR1_a_process_serves_until_its_front_hears_otherwise(front: FrontLedger) -> None:
    granted(front)
    for number in (1, 2):
        (start,) = front.queue(WaiterId(number), KEY, 2.0 + number)
        assert isinstance(start, Start)
        assert front.ended(start.slot, SessionOutcome.DONE, 2.5 + number, kept=True) == []
    front.tick(9.0)
    assert not front.slots, "idle for long, it went back"
    assert front.granted(Grant(2, ELSEWHERE, PROCESS.process, 0, False, False, 1.0), 9.1) == []


def goes(*, gone: bool) -> ProcessGoes:
    return ProcessGoes(PROCESS.process, leaving=gone, gone=gone)


def test_FR1_a_grant_that_was_under_way_when_its_process_was_detached_is_used(front: FrontLedger) -> None:
    assert front.process_goes(goes(gone=False), 2.0) == []
    granted(front)
    assert SLOT in front.slots


def test_FR1_a_process_that_has_ended_is_forgotten_with_its_last_slot(front: FrontLedger) -> None:
    granted(front)
    (start,) = front.queue(WaiterId(1), KEY, 2.1)
    assert isinstance(start, Start)
    front.process_goes(goes(gone=True), 2.2)
    assert PROCESS.process in front._processes
    front.ended(start.slot, SessionOutcome.PROCESS_FAILED, 2.3, kept=False)
    assert not front._processes
    front.process_came(PROCESS)
    front.process_goes(goes(gone=True), 2.4)
    assert not front._processes


def test_FR1_what_the_slots_do_is_told_once(front: FrontLedger) -> None:
    granted(front)
    front.queue(WaiterId(1), KEY, 2.1)
    assert front.tell_usage(2.2) == [Send(Usage((SlotUse(SLOT, 0, 2.1),)))]
    assert front.tell_usage(2.3) == []


def test_FR6_an_age_is_that_of_the_oldest_with_the_rest_of_the_slack(front: FrontLedger) -> None:
    """It is generous by what no other front counts, and it is true until the next ``Want``."""
    granted(front)
    (start,) = front.queue(WaiterId(1), KEY, 2.1)
    assert isinstance(start, Start)
    front.queue(WaiterId(2), KEY, 3.0)
    front.queue(WaiterId(3), KEY, 3.001)
    front.tick(3.002)
    front.ended(start.slot, SessionOutcome.DONE, 3.1, kept=True)
    assert front.tick(3.1) == [], "it may be away from its core, with slots that are ready"
    wants = [one.message for one in front.tick(3.1018) if isinstance(one, Send) and isinstance(one.message, Want)]
    waited = 3.1018 - 3.001
    assert [want.age for want in wants] == [pytest.approx(0.005 * math.ceil((waited + (1 - TOLD) * SLACK) / 0.005))]


@pytest.fixture
def owner() -> OwnerLedger:
    """Two fronts; the first has ``SLOT``, the other has ``ELSEWHERE``."""
    ledger = OwnerLedger()
    ledger.add_group(KEY)
    for number, slot in ((ONE, SLOT), (OTHER, ELSEWHERE)):
        ledger.front_came(number)
        (ask,) = ledger.want(number, Want(KEY, (Waiting(1.0),), 1, 0), NOW)
        assert isinstance(ask, Ask)
        ledger.granted(ask.ticket, slot, PROCESS, budget=0, alone=True, reused=False)
    for number in (ONE, OTHER):
        ledger.want(number, Want(KEY, (), 0, 1), NOW)
    return ledger


def asks(decisions: list[OwnerDecision]) -> list[Ask]:
    return [one for one in decisions if isinstance(one, Ask)]


def recalls(decisions: list[OwnerDecision]) -> dict[int, Recall]:
    """Front -> what it is told."""
    return {
        one.front: one.message for one in decisions if isinstance(one, SendToFront) and isinstance(one.message, Recall)
    }


def test_FR2_returns_are_numbered_one_after_another(owner: OwnerLedger) -> None:
    (ask,) = asks(owner.want(ONE, Want(KEY, (Waiting(2.0),), 1, 1), NOW))
    owner.granted(ask.ticket, SessionId(9), PROCESS, budget=0, alone=False, reused=False)
    (closed,) = owner.returned(ONE, Return(1, SLOT, 0, SessionOutcome.NOT_STARTED, True), NOW)
    assert isinstance(closed, Close)
    assert not closed.abandoned, "its front is there"
    with pytest.raises(BadFrontMessage, match="as number 1"):
        owner.returned(ONE, Return(1, SessionId(9), 0, SessionOutcome.NOT_STARTED, True), NOW)
    assert owner.returned(ONE, Return(2, SessionId(9), 0, SessionOutcome.NOT_STARTED, True), NOW)
    owner.want(OTHER, Want(KEY, (Waiting(3.0),), 1, 1), NOW)
    assert recalls(owner.tick(NOW))[ONE].returns_seen == 2


def test_FR1_requests_are_counted_once(owner: OwnerLedger) -> None:
    def served(count: int) -> list[OwnerDecision]:
        return [one for one in owner.usage(ONE, Usage((SlotUse(SLOT, count, None),)), NOW) if isinstance(one, Served)]

    assert served(2) == [Served(SLOT, 2)]
    assert served(2) == []
    assert served(5) == [Served(SLOT, 3)]


def test_FR1_a_return_tells_of_the_requests_since_the_last_usage(owner: OwnerLedger) -> None:
    owner.usage(ONE, Usage((SlotUse(SLOT, 2, None),)), NOW)
    served, _ = owner.returned(ONE, Return(1, SLOT, 5, SessionOutcome.NOT_STARTED, True), NOW)
    assert served == Served(SLOT, 3)


def test_FR1_a_ticket_that_was_abandoned_is_answered_no_more(owner: OwnerLedger) -> None:
    (ask,) = asks(owner.want(ONE, Want(KEY, (Waiting(2.0),), 1, 1), NOW))
    assert owner.want(ONE, Want(KEY, (), 0, 1), NOW) == [Abandon(ask.ticket)]
    assert not owner._tickets
    with pytest.raises(KeyError):
        owner.unreachable(ask.ticket)


def test_FR1_a_slot_that_the_application_has_taken_over_is_lent_still(owner: OwnerLedger) -> None:
    """It is pinned only if its session is long-lived, or uncounted."""
    owner.pinned(OTHER, Pinned(ELSEWHERE, False, True, False), NOW)
    (ask,) = asks(owner.want(ONE, Want(KEY, (Waiting(2.0),), 1, 1), NOW))
    assert ask.lent == 1


def test_FR6_a_front_whose_slot_is_pinned_hears_of_no_waiters_any_more(owner: OwnerLedger) -> None:
    owner.want(OTHER, Want(KEY, (Waiting(2.0),), 1, 1), NOW)
    assert recalls(owner.tick(NOW))[ONE].arrivals == (2.0,)
    owner.tick(NOW + 1)
    assert owner.next_deadline() == math.inf
    owner.pinned(ONE, Pinned(SLOT, True, False, False), NOW + 2)
    assert recalls(owner.tick(NOW + 2))[ONE].arrivals == ()


@pytest.mark.parametrize(("route", "budget"), [(b"", 9), (b"q", 1)])
def test_FR1_while_one_waits_that_takes_few_processes_each_grant_is_for_one_request(
    owner: OwnerLedger, route: bytes, budget: int
) -> None:
    owner.want(OTHER, Want(KEY, (Waiting(2.0, route=route),), 1, 1), NOW)
    (ask,) = asks(owner.want(ONE, Want(KEY, (Waiting(3.0),), 1, 1), NOW))
    *_, sent = owner.granted(ask.ticket, SessionId(9), PROCESS, budget=9, alone=False, reused=False)
    assert isinstance(sent, SendToFront)
    assert isinstance(sent.message, Grant)
    assert sent.message.budget == budget


def test_FR1_a_group_that_cannot_be_served_forgets_all_tickets_of_a_front(owner: OwnerLedger) -> None:
    waiters = (Waiting(2.0), Waiting(3.0))
    first, second = asks(owner.want(ONE, Want(KEY, waiters, 2, 1), NOW))
    abandoned, _ = owner.refused(first.ticket, Reason.SPAWN_FAILED, None, 1.0)
    assert abandoned == Abandon(second.ticket)
    again = asks(owner.want(ONE, Want(KEY, waiters, 2, 1), NOW))
    assert [ask.since for ask in again] == [2.0, 3.0]


def test_FR1_a_process_that_takes_no_stream_costs_its_waiter_no_turn(owner: OwnerLedger) -> None:
    waiters = (Waiting(2.0), Waiting(3.0))
    first, second = asks(owner.want(ONE, Want(KEY, waiters, 2, 1), NOW))
    (again,) = asks(owner.unreachable(first.ticket))
    assert again.since == 2.0
    assert asks(owner.want(ONE, Want(KEY, waiters, 2, 1), NOW)) == [], "both have a ticket"
    assert owner.want(ONE, Want(KEY, waiters[:1], 1, 1), NOW) == [Abandon(second.ticket)]
