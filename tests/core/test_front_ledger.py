"""FR1: what a front does with its slots, case by case. (The laws are kept in ``tests/model/fronts_world.py``.)"""

from __future__ import annotations

import math

import pytest

from passenger_trio.core.commands import Reason
from passenger_trio.core.fronts.front_group import LEAST_IDLE_TIME, MOST_IDLE_TIME, PAUSE, TOLD, Slot
from passenger_trio.core.fronts.front_ledger import (
    MOST_SLACK,
    SLACK,
    SLACK_OF_DELAY,
    FrontDecision,
    FrontLedger,
    Send,
    Start,
    TurnAway,
)
from passenger_trio.core.fronts.messages import (
    GAP,
    REFRESH,
    SLOW,
    Grant,
    ProcessCame,
    ProcessGoes,
    Recall,
    Refused,
    Return,
    Want,
)
from passenger_trio.core.model import GroupKey, ProcessId, SessionId, SessionOutcome, WaiterId

KEY = GroupKey("shop", "test")
PROCESS = ProcessCame(ProcessId(3), KEY, 103, 1, "session", False, "unix:/s", b"r")
SLOT = SessionId(7)
FIRST, SECOND = WaiterId(1), WaiterId(2)


@pytest.fixture
def ledger() -> FrontLedger:
    ledger = FrontLedger()
    ledger.add_group(KEY, 0)
    ledger.process_came(PROCESS)
    return ledger


def test_FR1_a_slot_for_one_request_goes_back_at_once_if_that_one_is_gone(ledger: FrontLedger) -> None:
    """It may be for one request because somebody elsewhere takes few processes, whom no recall lists: it had waited there for 100 ms."""
    back = Send(Return(1, SLOT, 0, SessionOutcome.NOT_STARTED, True))
    assert ledger.granted(Grant(1, SLOT, PROCESS.process, 1, False, False, 1.0), 2.0) == [back]


def test_FR4_an_application_that_comes_may_be_wanted_elsewhere_before_it_is_served_here(ledger: FrontLedger) -> None:
    """A reload reaches one front before the other: the owner tells this one who waits there, and what it told is not lost."""
    blog = GroupKey("blog", "test")
    assert ledger.recalled(Recall(blog, (1.0,), 1, 0, 4), 2.0) == []
    ledger.add_group(blog, 1)
    refused = ledger.queue(FIRST, blog, 2.1)
    assert [type(decision) for decision in refused] == [TurnAway], "one waits elsewhere, and the queue is full"
    ledger.add_group(blog, 2)
    assert ledger.queue(FIRST, blog, 2.2) == []
    assert ledger.waiting(blog) == 1


def test_FR2_who_is_about_to_get_a_slot_does_not_count_in_the_queue() -> None:
    """Three requests at once at a front without a slot, beside an idle process: one of them is served, two wait, and a fourth is one too many."""
    ledger = FrontLedger()
    ledger.add_group(KEY, 2)
    for number in (1, 2, 3):
        assert ledger.queue(WaiterId(number), KEY, 1.0) == []
    assert [type(one) for one in ledger.queue(WaiterId(4), KEY, 1.0)] == [TurnAway]
    ledger.process_came(PROCESS)
    assert len(ledger.granted(Grant(1, SLOT, PROCESS.process, 0, False, False, 1.0), 1.001)) == 1
    assert ledger.waiting(KEY) == 2
    assert [type(one) for one in ledger.queue(WaiterId(5), KEY, 1.002)] == [TurnAway]
    # The slot goes back, as idle: the front knows now that there is one.
    ledger.leave(WaiterId(2), 1.1)
    ledger.leave(WaiterId(3), 1.1)
    assert ledger.waiting(KEY) == 0
    (slot,) = ledger.slots.values()
    ledger.ended(slot, SessionOutcome.DONE, 1.2, kept=True)
    ledger.tick(1.2 + MOST_IDLE_TIME)
    assert not ledger.slots
    for number in (6, 7, 8):
        assert ledger.queue(WaiterId(number), KEY, 2.0) == []
    assert [type(one) for one in ledger.queue(WaiterId(9), KEY, 2.0)] == [TurnAway]
    for number in (6, 7, 8):
        ledger.leave(WaiterId(number), 2.1)
    ledger.process_goes(ProcessGoes(PROCESS.process, leaving=True, gone=True), 3.0)
    ledger.recalled(Recall(KEY, (3.0,), 1, 1, 4, (0.0,), 0, 0.0), 3.0)
    assert ledger.queue(WaiterId(10), KEY, 3.1) == []
    assert [type(one) for one in ledger.queue(WaiterId(11), KEY, 3.1)] == [TurnAway], (
        "one waits elsewhere: no slot is free"
    )


def test_FR1_another_slot_stays_for_a_while(ledger: FrontLedger) -> None:
    assert ledger.granted(Grant(1, SLOT, PROCESS.process, 0, False, False, 1.0), 2.0) == []
    assert ledger.next_deadline() <= 2.0 + MOST_IDLE_TIME
    ledger.tick(2.0 + MOST_IDLE_TIME / 2)
    assert SLOT in ledger.slots
    assert Send(Return(1, SLOT, 0, SessionOutcome.NOT_STARTED, True)) in ledger.tick(2.0 + MOST_IDLE_TIME)


def test_FR6_a_slot_that_is_recalled_again_and_again_stays_for_less(ledger: FrontLedger) -> None:
    """Where each front has a request now and then, the slot is at the owner when the next one comes, and not at another front. Where it is used again, it stays."""

    def stays(number: int, at: float) -> float:
        ledger.granted(Grant(number, SLOT, PROCESS.process, 0, False, False, 1.0), at)
        ledger.tick(at)
        return ledger.next_deadline() - at

    assert stays(1, 2.0) == pytest.approx(MOST_IDLE_TIME)
    for number in range(2, 12):
        ledger.recalled(Recall(KEY, (2.0,), 1, number - 2, 1), number + 0.1)
        assert SLOT not in ledger.slots
        ledger.recalled(Recall(KEY, (), 0, number - 1, 1), number + 0.1)
        last = stays(number, number + 1.0)
    assert last == pytest.approx(LEAST_IDLE_TIME)
    for _ in range(10):
        slot = ledger.take_idle(KEY, 12.001)
        assert slot is not None
        ledger.ended(slot, SessionOutcome.DONE, 12.001, kept=True)
    assert slot.process.group.idle_time == MOST_IDLE_TIME


def test_FR1_the_slack_is_longer_where_messages_are_slow(ledger: FrontLedger) -> None:
    """A slot that is under way serves nobody: with a slack of 10 ms and messages of 20 ms it was nearly always under way."""
    assert ledger.slack == SLACK
    for _ in range(60):
        ledger.recalled(Recall(KEY, (), 0, 0, 4, sent=2.0), 2.0 + 0.0005)
    assert ledger.slack == SLACK, "a quick machine keeps to it"
    for _ in range(60):
        ledger.recalled(Recall(KEY, (), 0, 0, 4, sent=2.0), 2.020)
    assert ledger.slack == pytest.approx(SLACK_OF_DELAY * 0.020, rel=0.01)
    ledger.recalled(Recall(KEY, (), 0, 0, 4, sent=2.0), 900.0)
    assert ledger.slack == MOST_SLACK


@pytest.mark.parametrize(("delay", "keeps"), [(0.0005, False), (0.020, True)])
def test_FR1_who_is_older_elsewhere_by_less_than_the_slack_waits_there(
    ledger: FrontLedger, delay: float, keeps: bool
) -> None:
    ledger.queue(FIRST, KEY, 2.0)
    (start,) = ledger.granted(Grant(1, SLOT, PROCESS.process, 0, False, False, 2.0), 2.0)
    assert isinstance(start, Start)
    ledger.queue(SECOND, KEY, 2.1)
    for _ in range(60):
        ledger.recalled(Recall(KEY, (2.05,), 1, 0, 4, sent=2.11), 2.11 + delay)
    decisions = ledger.ended(start.slot, SessionOutcome.DONE, 2.12, kept=True)
    assert [type(decision) for decision in decisions if not isinstance(decision, Send)] == [Start] * keeps
    assert (SLOT in ledger.slots) is keeps


def _wants(decisions: list[FrontDecision]) -> list[tuple[float, ...]]:
    """Since when those wait of whom is told."""
    messages = [decision.message for decision in decisions if isinstance(decision, Send)]
    return [tuple(one.arrival for one in told.waiters) for told in messages if isinstance(told, Want)]


@pytest.fixture
def busy(ledger: FrontLedger) -> Slot:
    """A slot serves a request that came at 2.0, and two more wait since 2.001 and 2.002, of whom the owner has been told."""
    ledger.queue(FIRST, KEY, 2.0)
    (start,) = ledger.granted(Grant(1, SLOT, PROCESS.process, 0, False, False, 2.0), 2.0)
    assert isinstance(start, Start)
    ledger.queue(WaiterId(2), KEY, 2.001)
    ledger.queue(WaiterId(3), KEY, 2.002)
    assert _wants(ledger.tick(2.002)) == [(2.001, 2.002)]
    return start.slot


def test_FR6_who_takes_the_place_of_one_that_was_served_here_is_told_later(ledger: FrontLedger, busy: Slot) -> None:
    """As many wait as before, and the owner has older times than theirs: no slot elsewhere serves a younger one."""
    ledger.ended(busy, SessionOutcome.DONE, 2.003, kept=True)
    ledger.queue(WaiterId(4), KEY, 2.0035)
    late = 2.002 + TOLD * SLACK
    assert ledger.next_level() == pytest.approx(late), "then it has waited for longer than was told"
    assert _wants(ledger.tick(late - 0.0001)) == []
    assert _wants(ledger.tick(late + 0.0001)) == [], "a front that was away from its core serves it in the next moment"
    assert _wants(ledger.tick(late + 0.0001 + GAP)) == [(2.002, 2.0035)]


def test_FR6_who_waits_at_a_busy_front_is_told_now_and_then(ledger: FrontLedger, busy: Slot) -> None:
    """Each request is another one, and none waits for long: for twenty of them nothing is to be told."""
    at, told = 2.002, []
    for number in range(4, 44):
        at += 0.0015
        ledger.queue(WaiterId(number), KEY, at)
        ledger.ended(busy, SessionOutcome.DONE, at, kept=True)
        told += _wants(ledger.tick(at))
    assert len(told) == 1, "after SLOW"


def test_FR6_who_stays_is_told_of_once(ledger: FrontLedger, busy: Slot) -> None:
    """Its arrival says how long it waits."""
    late = 2.001 + TOLD * SLACK
    told = [
        decision.message
        for step in range(400)
        for decision in ledger.tick(late + step / 1000)
        if isinstance(decision, Send) and isinstance(decision.message, Want)
    ]
    assert [(one.waiters[0].arrival, one.age) for one in told] == [(2.001, math.inf)]
    assert ledger.next_level() == math.inf


@pytest.mark.parametrize(("slots_elsewhere", "keeps"), [(0, [True, False]), (1, [True, True])])
def test_FR6_a_front_keeps_its_share_of_the_slots(ledger: FrontLedger, slots_elsewhere: int, keeps: list[bool]) -> None:
    """Two slots, and as many wait here as elsewhere, where one is older by two slacks: one slot goes there, and one stays. (Both went, and both came back after the next slack.)"""
    slots = []
    for number in (1, 2)[: 2 - slots_elsewhere]:
        ledger.queue(WaiterId(number), KEY, 2.0)
        grant = Grant(number, SessionId(6 + number), PROCESS.process, 0, False, False, 2.0)
        slots += [decision.slot for decision in ledger.granted(grant, 2.0) if isinstance(decision, Start)]
    for number in range(10, 18):
        ledger.queue(WaiterId(number), KEY, 2.0 + 2 * SLACK)
    listed = (2.0, 2.0)
    ledger.recalled(Recall(KEY, listed, 8, 0, 4, slots=slots_elsewhere), 2.0 + 2 * SLACK)
    kept = []
    for slot in slots:
        ledger.ended(slot, SessionOutcome.DONE, 2.001 + 2 * SLACK, kept=True)
        kept.append(slot.id in ledger.slots)
    assert sorted(kept) == sorted(keeps[: len(slots)])
    (slot,) = ledger.slots.values()
    ledger.queue(WaiterId(99), KEY, 2.0 + 5 * SLACK)
    served = 0
    while ledger.slots:
        ledger.ended(slot, SessionOutcome.DONE, 2.001 + 5 * SLACK, kept=True)
        served += 1
    assert 4 < served < 8, "its share falls with its queue"


@pytest.mark.parametrize("older", [2.0, 1.9])
def test_FR6_a_slot_of_a_busy_front_waits_for_its_own_clients_for_a_moment(
    ledger: FrontLedger, busy: Slot, older: float
) -> None:
    """Unless it would then serve one who is younger than one elsewhere by more than the slack."""
    for number in (4, 5, 6):  # it serves one after another
        ledger.queue(WaiterId(number), KEY, 2.002)
        ledger.ended(busy, SessionOutcome.DONE, 2.002, kept=True)
    ledger.leave(WaiterId(5), 2.002)
    ledger.leave(WaiterId(6), 2.002)
    ledger.recalled(Recall(KEY, (older,), 1, 0, 4), 2.003)
    ledger.ended(busy, SessionOutcome.DONE, 2.004, kept=True)
    if older == 2.0:
        assert ledger.next_return(KEY) == pytest.approx(2.004 + PAUSE)
        ledger.recalled(Recall(KEY, (older,), 2, 0, 4), 2.0041)
        assert SLOT in ledger.slots
        ledger.tick(2.004 + PAUSE)
    assert SLOT not in ledger.slots


def test_FR6_one_more_that_waits_is_told_at_once(ledger: FrontLedger, busy: Slot) -> None:
    ledger.queue(WaiterId(4), KEY, 2.0025)
    assert ledger.next_level() == pytest.approx(2.002 + GAP)
    assert _wants(ledger.tick(2.002 + GAP)) == [(2.001, 2.002, 2.0025)]


def test_FR6_a_grant_is_for_one_of_those_that_were_told(ledger: FrontLedger, busy: Slot) -> None:
    """Another one that comes is not among the others."""
    ledger.granted(Grant(2, SessionId(8), PROCESS.process, 0, False, False, 2.001), 2.0022)
    assert ledger.next_level() > 2.002 + REFRESH
    ledger.queue(WaiterId(4), KEY, 2.0025)
    assert ledger.next_level() == pytest.approx(2.002 + GAP)


@pytest.mark.parametrize(
    ("waiting", "slots", "due"), [(0, 0, SLOW), (1, 0, REFRESH), (0, 1, REFRESH)], ids=["alone", "a waiter", "a slot"]
)
def test_FR6_one_less_that_waits_is_told_soon_if_another_front_has_a_waiter_or_a_slot(
    ledger: FrontLedger, busy: Slot, waiting: int, slots: int, due: float
) -> None:
    """At a front that is alone the next request makes it true again: the list draws no slot away from anybody meanwhile."""
    ledger.recalled(Recall(KEY, (), waiting, 0, 4, slots=slots), 2.0021)
    ledger.ended(busy, SessionOutcome.DONE, 2.0022, kept=True)
    told = 2.002
    assert ledger.next_level() == pytest.approx(min(told + due, 2.002 + TOLD * SLACK))
    ledger.queue(WaiterId(4), KEY, 2.0023)
    ledger.queue(WaiterId(5), KEY, 2.0024)
    assert ledger.next_level() == pytest.approx(told + GAP), "one more than was told"


def test_FR6_a_client_that_has_moved_here_does_not_count_elsewhere_as_well() -> None:
    """It waited at its old front when the owner last told of that."""
    ledger = FrontLedger()
    ledger.add_group(KEY, 6)
    ledger.recalled(Recall(KEY, (), 5, 0, 4), 1.0)
    for _ in range(3):
        ledger.moved_in(1.01)
    decisions = [ledger.queue(WaiterId(number), KEY, 1.02) for number in range(5)]
    assert [bool(one) for one in decisions] == [False, False, False, False, True], "three may be among those five"
    late = 1.01 + 2 * SLOW
    assert [type(one) for one in ledger.queue(WaiterId(9), KEY, late)] == [TurnAway], "by now they would not be"
    ledger.recalled(Recall(KEY, (), 1, 0, 4), late)
    for _ in range(9):
        ledger.moved_in(late)
    assert ledger.queue(WaiterId(10), KEY, late) == []
    assert ledger.queue(WaiterId(11), KEY, late) == []
    assert [type(one) for one in ledger.queue(WaiterId(12), KEY, late)] == [TurnAway], "six wait here alone"


def test_FR6_a_queue_that_is_empty_for_a_moment_is_not_told(ledger: FrontLedger, busy: Slot) -> None:
    ledger.recalled(Recall(KEY, (), 0, 0, 4, slots=1), 2.0025)
    ledger.ended(busy, SessionOutcome.DONE, 2.003, kept=True)
    ledger.ended(busy, SessionOutcome.DONE, 2.004, kept=True)
    assert ledger.next_level() == pytest.approx(2.004 + GAP)
    ledger.leave(WaiterId(3), 2.004)
    slot = ledger.take_idle(KEY, 2.0045) or busy
    ledger.queue(WaiterId(4), KEY, 2.0046)
    assert ledger.next_level() == pytest.approx(2.002 + REFRESH), "one less waits"
    ledger.ended(slot, SessionOutcome.DONE, 2.005, kept=True)
    assert _wants(ledger.tick(2.0055)) == []
    assert _wants(ledger.tick(2.005 + GAP)) == [()]


def test_FR6_after_a_refusal_the_owner_hears_soon_who_waits(ledger: FrontLedger, busy: Slot) -> None:
    """It has forgotten whom it refused."""
    ledger.refused(Refused(KEY, Reason.QUEUE_TIME, (2.001,)), 2.0025)
    assert ledger.next_level() == pytest.approx(2.002 + GAP)
    assert _wants(ledger.tick(2.002 + GAP)) == [(2.002,)]


def test_FR1_before_a_slot_goes_back_for_its_budget_the_owner_hears_who_waits(ledger: FrontLedger) -> None:
    """It lists as many as there are slots: with one served in less than a ``GAP``, the next one was not known, and the slot went to a younger one elsewhere."""
    ledger.recalled(Recall(KEY, (), 0, 0, 1), 1.9)
    ledger.queue(FIRST, KEY, 2.0)
    ledger.queue(SECOND, KEY, 2.0001)
    ledger.tick(2.0001)
    (start,) = ledger.granted(Grant(1, SLOT, PROCESS.process, 1, False, False, 2.0), 2.0002)
    assert isinstance(start, Start)
    ended = ledger.ended(start.slot, SessionOutcome.DONE, 2.0003, kept=True)
    assert [type(decision.message) for decision in ended if isinstance(decision, Send)] == [Want, Return]
    assert _wants(ended) == [(2.0001,)]


@pytest.mark.parametrize(("limit", "soon"), [(100, False), (6, True), (0, False)])
def test_FR6_a_longer_queue_is_told_soon_where_it_may_become_full(ledger: FrontLedger, limit: int, soon: bool) -> None:
    """Others count as many as were told. Far from the limit it does not matter: the list is as long as there are slots."""
    ledger.add_group(KEY, limit)
    ledger.recalled(Recall(KEY, (), 0, 0, 2), 1.9)
    for number in range(1, 4):
        ledger.queue(WaiterId(number), KEY, 2.0)
    assert _wants(ledger.tick(2.0)) == [(2.0, math.nextafter(2.0, 3.0))]
    ledger.queue(WaiterId(4), KEY, 2.0001)
    assert (ledger.next_level() == pytest.approx(2.0 + GAP)) is soon


def test_FR1_who_takes_few_processes_takes_no_place_in_the_list_from_the_others(ledger: FrontLedger) -> None:
    """It may wait for a process that is busy: the slot that becomes free is for the next one who takes it. (That was not known here, and a younger one elsewhere got it.)"""
    ledger.recalled(Recall(KEY, (), 0, 0, 1), 1.9)
    ledger.queue(FIRST, KEY, 2.0, route=b"r")
    ledger.queue(SECOND, KEY, 2.1)
    ledger.queue(WaiterId(3), KEY, 2.2)
    assert _wants(ledger.tick(2.2)) == [(2.0, 2.1)]
