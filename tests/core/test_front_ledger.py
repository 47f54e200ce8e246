"""FR1: what a front does with its slots, case by case. (The laws are kept in ``tests/model/fronts_world.py``.)"""

from __future__ import annotations

import pytest

from passenger_trio.core.fronts.front_ledger import LINGER, FrontLedger, Send
from passenger_trio.core.fronts.messages import Grant, ProcessCame, Return
from passenger_trio.core.model import GroupKey, ProcessId, SessionId, SessionOutcome

KEY = GroupKey("shop", "test")
PROCESS = ProcessCame(ProcessId(3), KEY, 103, 1, "session", False, "unix:/s", b"r")
SLOT = SessionId(7)


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
