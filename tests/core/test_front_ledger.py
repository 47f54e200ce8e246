"""FR1: what a front does with its slots, case by case. (The laws are kept in ``tests/model/fronts_world.py``.)"""

from __future__ import annotations

import pytest

from passenger_trio.core.fronts.front_ledger import LINGER, MOST_SLACK, SLACK, SLACK_OF_DELAY, FrontLedger, Send, Start
from passenger_trio.core.fronts.messages import Grant, ProcessCame, Recall, Return
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


def test_FR1_another_slot_stays_for_a_while(ledger: FrontLedger) -> None:
    assert ledger.granted(Grant(1, SLOT, PROCESS.process, 0, False, False, 1.0), 2.0) == []
    assert ledger.next_deadline() <= 2.0 + LINGER
    ledger.tick(2.0 + LINGER / 2)
    assert SLOT in ledger.slots
    assert Send(Return(1, SLOT, 0, SessionOutcome.NOT_STARTED, True)) in ledger.tick(2.0 + LINGER)


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
