"""FR1, FR2: what the owner's ledger believes of a front, and what it does not: each rule with a yes and a no."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from passenger_trio.core.fronts.messages import (
    MOST_WANTED,
    REFRESH,
    Grant,
    OobWorkWanted,
    Pinned,
    ProcessCame,
    Recall,
    Return,
    SlotUse,
    Usage,
    Waiting,
    Want,
)
from passenger_trio.core.fronts.owner_decisions import (
    Abandon,
    Ask,
    AskForOobWork,
    Close,
    LongLived,
    Renew,
    Running,
    Send,
    Served,
    Uncounted,
)
from passenger_trio.core.fronts.owner_ledger import OwnerLedger
from passenger_trio.core.model import GroupKey, ProcessId, SessionId, SessionOutcome
from passenger_trio.errors import BadFrontMessage

KEY = GroupKey("shop", "test")
NOW = 10.0
ONE, OTHER = 1, 2
SLOT, ELSEWHERE = SessionId(7), SessionId(8)
PROCESS = ProcessCame(ProcessId(3), KEY, 103, 1, "session", False, "unix:/s", b"r")
NOT_STARTED = SessionOutcome.NOT_STARTED


@pytest.fixture
def ledger() -> OwnerLedger:
    """Two fronts; the first has ``SLOT``, the other has ``ELSEWHERE``."""
    ledger = OwnerLedger()
    ledger.add_group(KEY)
    for front, slot in ((ONE, SLOT), (OTHER, ELSEWHERE)):
        ledger.front_came(front)
        (ask,) = ledger.want(front, Want(KEY, (Waiting(1.0),), 1, 0), NOW)
        assert isinstance(ask, Ask)
        ledger.granted(ask.ticket, slot, PROCESS, budget=0, alone=True, reused=False)
    return ledger


def refuses(ledger: OwnerLedger, call: Callable[[], object], what: str) -> None:
    """It is refused, and nothing has changed: the slot is still the front's, to be returned once."""
    with pytest.raises(BadFrontMessage, match=what):
        call()
    assert ledger.leases(ONE) == ledger.leases(OTHER) == 1
    assert ledger.returned(ONE, Return(1, SLOT, 0, NOT_STARTED, True), NOW) == [Close(SLOT, NOT_STARTED, True)]


@pytest.mark.parametrize(
    ("want", "what"),
    [
        (Want(GroupKey("none", "test"), (), 0, 0), "not served"),
        (Want(KEY, tuple(Waiting(1.0) for _ in range(MOST_WANTED + 1)), MOST_WANTED + 1, 1), "too long"),
        (Want(KEY, (Waiting(1.0), Waiting(2.0)), 1, 1), "of 1 waiters"),
        (Want(KEY, (Waiting(2.0), Waiting(1.0)), 2, 1), "not in order"),
        (Want(KEY, (Waiting(NOW + 1),), 1, 1), "has not come"),
        (Want(KEY, (Waiting(-1.0),), 1, 1), "has not come"),
        (Want(KEY, (Waiting(float("nan")),), 1, 1), "has not come"),
        (Want(KEY, (Waiting(1.0),), 1, 2), "seen grant 2"),
        (Want(KEY, (Waiting(1.0),), 1, -1), "seen grant -1"),
    ],
)
def test_FR2_a_want_that_cannot_be_true_is_refused(ledger: OwnerLedger, want: Want, what: str) -> None:
    refuses(ledger, lambda: ledger.want(ONE, want, NOW), what)


def test_FR2_a_want_that_can_be_true_is_believed(ledger: OwnerLedger) -> None:
    waiters = (*(Waiting(1.0 + number / 1000) for number in range(MOST_WANTED - 1)), Waiting(NOW))
    asked = ledger.want(ONE, Want(KEY, waiters, MOST_WANTED, 1), NOW)
    assert [ask.since for ask in asked if isinstance(ask, Ask)] == [waiting.arrival for waiting in waiters]
    assert ledger.want(ONE, Want(KEY, waiters, MOST_WANTED + 5, 1), NOW) == [], "it keeps the tickets that it has"


def test_FR1_a_grant_that_a_want_does_not_know_of_is_not_asked_for_again(ledger: OwnerLedger) -> None:
    assert ledger.want(ONE, Want(KEY, (Waiting(1.0),), 1, 0), NOW) == []
    assert len(ledger.want(ONE, Want(KEY, (Waiting(1.0), Waiting(2.0)), 2, 0), NOW)) == 1


def test_FR1_a_ticket_tells_of_the_slots_of_other_fronts(ledger: OwnerLedger) -> None:
    """An idle one of them comes back for it. A pinned one does not."""
    (ask,) = ledger.want(ONE, Want(KEY, (Waiting(2.0),), 1, 1), NOW)
    assert isinstance(ask, Ask)
    assert ask.lent == 1
    ledger.pinned(OTHER, Pinned(ELSEWHERE, True, False, False), NOW)
    wanted = Want(KEY, (Waiting(2.0), Waiting(3.0)), 2, 1)
    (more,) = (one for one in ledger.want(ONE, wanted, NOW) if isinstance(one, Ask))
    assert more.lent == 0


def test_FR1_a_grant_counts_for_the_waiter_that_it_names() -> None:
    """One that takes few processes keeps its ticket while younger ones are granted others; it had lost it to each of them."""
    ledger = OwnerLedger()
    ledger.add_group(KEY)
    ledger.front_came(ONE)
    constrained, plain, late = Waiting(1.0, route=b"q"), Waiting(2.0), Waiting(3.0)
    asks = [ask for ask in ledger.want(ONE, Want(KEY, (constrained, plain), 2, 0), NOW) if isinstance(ask, Ask)]
    ledger.granted(asks[1].ticket, SLOT, PROCESS, budget=0, alone=True, reused=False)
    (ask,) = ledger.want(ONE, Want(KEY, (constrained, plain, late), 3, 0), NOW)
    assert isinstance(ask, Ask)
    assert ask.since == 3.0, "the constrained one has its ticket still"
    assert ledger.want(ONE, Want(KEY, (constrained, late), 2, 0), NOW) == [Abandon(ask.ticket)], (
        "whom the grant names is gone: the oldest that takes every process is to be served"
    )


def test_FR6_a_ticket_goes_from_one_that_is_served_to_the_next(ledger: OwnerLedger) -> None:
    """Its front serves with slots of its own: nobody leaves the policy's queue, and nobody enters it."""
    first = [
        ask for ask in ledger.want(ONE, Want(KEY, (Waiting(2.0), Waiting(3.0)), 2, 1), NOW) if isinstance(ask, Ask)
    ]
    assert [ask.since for ask in first] == [2.0, 3.0]
    assert ledger.want(ONE, Want(KEY, (Waiting(3.0), Waiting(4.0)), 2, 1), NOW) == [Renew(first[0].ticket, 4.0)]
    assert ledger.want(ONE, Want(KEY, (Waiting(4.0),), 1, 1), NOW) == [Abandon(first[1].ticket)]
    ledger.want(ONE, Want(KEY, (Waiting(5.0),), 1, 1), NOW)
    *_, sent = ledger.granted(first[0].ticket, SessionId(9), PROCESS, budget=0, alone=True, reused=False)
    assert isinstance(sent, Send)
    assert isinstance(sent.message, Grant)
    assert sent.message.arrival == 5.0, "the grant names whom the ticket is for now"


def test_FR6_a_ticket_of_one_that_takes_few_processes_is_nobody_elses(ledger: OwnerLedger) -> None:
    constrained = Waiting(2.0, route=b"q")
    (ask,) = (one for one in ledger.want(ONE, Want(KEY, (constrained,), 1, 1), NOW) if isinstance(one, Ask))
    abandoned, asked = ledger.want(ONE, Want(KEY, (Waiting(3.0),), 1, 1), NOW)
    assert abandoned == Abandon(ask.ticket)
    assert isinstance(asked, Ask)
    abandoned, asked, *_ = ledger.want(ONE, Want(KEY, (Waiting(4.0, route=b"q"),), 1, 1), NOW)
    assert isinstance(abandoned, Abandon)
    assert isinstance(asked, Ask)


@pytest.mark.parametrize(
    ("slots", "more_come", "listed"), [(2, False, 4), (12, False, 12), (2, True, 32), (0, False, 32), (40, True, 40)]
)
def test_FR6_a_front_lists_as_many_waiters_as_slots_may_come(slots: int, more_come: bool, listed: int) -> None:
    ledger = OwnerLedger()
    ledger.add_group(KEY)
    ledger.front_came(ONE)
    ledger.front_came(OTHER)
    ledger.set_slots(KEY, slots, more_come=more_come)
    ledger.want(OTHER, Want(KEY, (Waiting(2.0),), 1, 0), NOW)
    told = [one.message for one in ledger.tick(NOW) if isinstance(one, Send) and one.front == ONE]
    assert [message.most for message in told if isinstance(message, Recall)] == [listed]


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (Return(1, ELSEWHERE, 0, NOT_STARTED, True), "returns slot 8"),
        (Return(1, SessionId(99), 0, NOT_STARTED, True), "returns slot 99"),
        (Return(2, SLOT, 0, NOT_STARTED, True), "as number 2"),
        (Return(0, SLOT, 0, NOT_STARTED, True), "as number 0"),
        (Return(1, SLOT, -1, NOT_STARTED, True), "-1 requests"),
        (Return(1, SLOT, 0, SessionOutcome.BROKEN_OFF, True), "what cannot be"),
    ],
)
def test_FR2_a_return_that_cannot_be_true_is_refused(ledger: OwnerLedger, message: Return, what: str) -> None:
    refuses(ledger, lambda: ledger.returned(ONE, message, NOW), what)


def test_FR2_a_return_is_believed_once(ledger: OwnerLedger) -> None:
    done = ledger.returned(ONE, Return(1, SLOT, 4, SessionOutcome.BROKEN_OFF, False), NOW)
    assert done == [Served(SLOT, 4), Close(SLOT, SessionOutcome.BROKEN_OFF, False)]
    with pytest.raises(BadFrontMessage):
        ledger.returned(ONE, Return(2, SLOT, 4, NOT_STARTED, True), NOW)


def test_FR2_what_a_front_says_of_slots_that_it_has_is_believed(ledger: OwnerLedger) -> None:
    assert ledger.usage(ONE, Usage((SlotUse(SLOT, 5, 9.0),)), NOW) == [Served(SLOT, 5), Running(SLOT, 9.0)]
    assert ledger.usage(ONE, Usage((SlotUse(SLOT, 5, NOW),)), NOW) == [Running(SLOT, NOW)]
    assert ledger.oob_work_wanted(ONE, OobWorkWanted(PROCESS.process)) == [AskForOobWork(PROCESS.process)]
    assert ledger.pinned(ONE, Pinned(SLOT, True, False, False), NOW) == [LongLived(SLOT, False)]
    assert ledger.pinned(ONE, Pinned(SLOT, True, False, True), NOW) == [Uncounted(SLOT)], "each is told once"
    assert ledger.usage(ONE, Usage((SlotUse(SLOT, 6, 9.0),)), NOW) == [], "a pinned session has no time"
    # A pinned session's stream is never granted again.
    assert ledger.returned(ONE, Return(1, SLOT, 5, NOT_STARTED, True), NOW) == [Close(SLOT, NOT_STARTED, False)]
    assert ledger.usage(ONE, Usage((SlotUse(SLOT, 5, None),)), NOW) == [], "it was under way"


def test_FR2_what_a_front_says_of_others_slots_is_not(ledger: OwnerLedger) -> None:
    assert ledger.usage(ONE, Usage((SlotUse(ELSEWHERE, 5, 9.0),)), NOW) == []
    refuses(ledger, lambda: ledger.pinned(ONE, Pinned(ELSEWHERE, True, False, True), NOW), "does not have")


def test_FR2_usage_that_cannot_be_true_is_refused(ledger: OwnerLedger) -> None:
    refuses(ledger, lambda: ledger.usage(ONE, Usage((SlotUse(SLOT, 0, NOW + 1),)), NOW), "has not come")


def test_FR2_requests_that_were_served_are_not_taken_back(ledger: OwnerLedger) -> None:
    ledger.usage(ONE, Usage((SlotUse(SLOT, 5, None),)), NOW)
    with pytest.raises(BadFrontMessage, match="and 5 before"):
        ledger.usage(ONE, Usage((SlotUse(SLOT, 4, None),)), NOW)
    with pytest.raises(BadFrontMessage, match="4 requests served"):
        ledger.returned(ONE, Return(1, SLOT, 4, NOT_STARTED, True), NOW)


def test_FR2_a_process_that_a_front_never_had_asks_for_nothing(ledger: OwnerLedger) -> None:
    refuses(ledger, lambda: ledger.oob_work_wanted(ONE, OobWorkWanted(ProcessId(4))), "never had")


def test_FR1_the_death_of_a_front_returns_its_slots_and_tickets_once(ledger: OwnerLedger) -> None:
    ledger.want(ONE, Want(KEY, (Waiting(2.0),), 1, 1), NOW)
    abandoned, closed = ledger.front_gone(ONE)
    assert closed == Close(SLOT, NOT_STARTED, reusable=False, abandoned=True)
    assert "Abandon" in repr(abandoned)
    assert ledger.leases(OTHER) == 1
    assert ledger.waiting(KEY) == 1, "the other's"


def test_FR6_how_many_wait_elsewhere_is_told_after_who_does(ledger: OwnerLedger) -> None:
    """A front without slots has nothing to return. It is told of a queue that lasts, since the limit on the queue counts it, and of no moment."""
    third = 3
    ledger.front_came(third)
    ledger.set_slots(KEY, 2, more_come=False)

    def told(now: float) -> list[tuple[int, int]]:
        sent = [one for one in ledger.tick(now) if isinstance(one, Send) and isinstance(one.message, Recall)]
        return [(one.front, one.message.waiting) for one in sent if isinstance(one.message, Recall)]

    for front in (OTHER, ONE):
        ledger.want(front, Want(KEY, (), 0, 1), NOW)
    ledger.want(ONE, Want(KEY, (Waiting(2.0),), 1, 1), NOW)
    assert told(NOW) == [(ONE, 0), (OTHER, 1), (third, 1)], "once: they hear how many they may list; ONE has a slot"
    ledger.want(ONE, Want(KEY, (), 0, 1), NOW + 1)
    assert told(NOW + 1) == [(OTHER, 0)]
    ledger.want(ONE, Want(KEY, (Waiting(3.0), Waiting(4.0)), 2, 1), NOW + 1.002)
    assert told(NOW + 1.002) == [(OTHER, 2)]
    assert told(NOW + 1 + REFRESH - 0.001) == []
    assert ledger.next_deadline() == pytest.approx(NOW + 1 + REFRESH)
    assert told(NOW + 1 + REFRESH) == [(third, 2)]


def test_FR5_all_who_wait_at_fronts_are_counted(ledger: OwnerLedger) -> None:
    """A front lists as many as there are slots, and says how many wait."""
    waiting, unlisted = ledger.waiting(KEY), ledger.unlisted(KEY)
    ledger.want(ONE, Want(KEY, (Waiting(2.0),), 5, 1), NOW)
    assert (ledger.waiting(KEY) - waiting, ledger.unlisted(KEY) - unlisted) == (4, 4)
