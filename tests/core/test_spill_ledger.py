"""The ledger of one buffer, and the quota of all: what is where, and what a producer may do."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from spill_world import SpillWorld, drive

from passenger_trio.core.buffer_sizes import BATCH, THRESHOLD
from passenger_trio.core.spill_ledger import SpillLedger, Step
from passenger_trio.core.spill_quota import FAULTS, SpillQuota
from passenger_trio.errors import InvariantBroken

PAGE = 4096
GIB = 1024**3


# -- the table of steps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "more", "disk", "step"),
    [
        (0, False, True, Step.READ),
        (PAGE, False, True, Step.READ),
        (THRESHOLD - 1, False, True, Step.READ),
        (THRESHOLD, False, True, Step.READ),
        (THRESHOLD + 1, False, True, Step.STORE),
        (THRESHOLD + 1, True, True, Step.READ),
        (BATCH - 1, True, True, Step.READ),
        (BATCH, True, True, Step.STORE),
        (BATCH + 100, True, True, Step.STORE),
        (THRESHOLD - 1, True, False, Step.READ),
        (THRESHOLD, True, False, Step.PAUSE),
        (THRESHOLD + 1, False, False, Step.PAUSE),
        (BATCH, True, False, Step.PAUSE),
    ],
)
def test_steps_without_a_watermark(memory: int, more: bool, disk: bool, step: Step) -> None:
    ledger = SpillLedger()
    ledger.take(memory)
    assert ledger.step(disk=disk, more=more) is step


@pytest.mark.parametrize("watermark", [1, PAGE, THRESHOLD - 1, THRESHOLD, THRESHOLD + 1, 1024**2])
def test_the_watermark_bounds_what_is_occupied(watermark: int) -> None:
    ledger = SpillLedger(watermark)
    for _ in range(100):
        if ledger.step(disk=True, more=False) is Step.STORE:
            ledger.begin_store(ledger.memory)
            ledger.end_store(ledger.storing)
        ledger.take(ledger.room(disk=True))
    assert ledger.occupied == watermark
    assert ledger.step(disk=False, more=True) is Step.PAUSE
    while ledger.step(disk=True, more=True) is Step.STORE:
        ledger.begin_store(ledger.memory)
        ledger.end_store(ledger.storing)
    assert ledger.step(disk=True, more=True) is Step.PAUSE


def test_a_file_that_is_not_drained_counts_whole() -> None:
    """A client that is always a little behind must not let the file grow for ever."""
    ledger = SpillLedger(1024**2)
    while ledger.step(disk=True, more=False) is not Step.PAUSE:
        ledger.take(ledger.room(disk=True))
        if ledger.memory > THRESHOLD:
            ledger.begin_store(ledger.memory)
            ledger.end_store(ledger.storing)
        ledger.give(max(0, ledger.backlog - 10))
        if ledger.drained:
            ledger.truncated()
    assert ledger.backlog <= 10
    ledger.give(ledger.backlog)
    assert ledger.truncated() > 0
    assert ledger.step(disk=True, more=True) is Step.READ


# -- bytes --------------------------------------------------------------------------------------------------------


def test_a_consumer_overtakes_the_writer() -> None:
    ledger = SpillLedger()
    ledger.take(1000)
    assert ledger.begin_store(1000) == 0
    ledger.give(600)
    assert (ledger.unread, ledger.memory) == (0, 400)
    ledger.end_store(1000)
    assert (ledger.unread, ledger.memory) == (400, 0)
    ledger.give(400)
    assert ledger.drained
    assert ledger.truncated() == 1000


def test_a_partial_write_leaves_the_rest_in_memory() -> None:
    ledger = SpillLedger()
    ledger.pass_through(50)
    ledger.take(1000)
    ledger.begin_store(1000)
    ledger.end_store(300)
    assert (ledger.unread, ledger.memory, ledger.file_length) == (300, 700, 300)
    assert ledger.begin_store(700) == 300


def test_positions_beyond_4_gib() -> None:
    """Sparse arithmetic: 5 GiB go through in batches; nothing is 32 bits wide."""
    ledger = SpillLedger()
    ledger.pass_through(5 * GIB)
    for _ in range(5 * GIB // (64 * 1024**2)):
        ledger.take(64 * 1024**2)
        ledger.begin_store(64 * 1024**2)
        ledger.end_store(64 * 1024**2)
    assert ledger.unread == ledger.file_length == 5 * GIB
    ledger.give(5 * GIB - 1)
    assert ledger.sent - ledger.base == 5 * GIB - 1
    assert not ledger.drained
    ledger.give(1)
    assert ledger.truncated() == 5 * GIB
    assert ledger.sent == 10 * GIB


def test_what_cannot_be_is_our_bug() -> None:
    ledger = SpillLedger()
    with pytest.raises(InvariantBroken):
        ledger.give(1)
    with pytest.raises(InvariantBroken):
        ledger.begin_store(1)
    with pytest.raises(InvariantBroken):
        ledger.truncated()
    ledger.take(5)
    with pytest.raises(InvariantBroken):
        ledger.pass_through(1)
    ledger.begin_store(5)
    with pytest.raises(InvariantBroken):
        ledger.begin_store(5)
    with pytest.raises(InvariantBroken):
        ledger.end_store(6)
    ledger.end_store(5)
    ledger.give(5)
    ledger.take(5)
    with pytest.raises(InvariantBroken):
        ledger.begin_store(5)  # drained, and not truncated


def test_nothing_overtakes_what_is_on_its_way_to_the_file() -> None:
    """Fault 29: neither through memory nor at once, also when all that was there before is gone."""
    ledger = SpillLedger()
    ledger.begin_coming()
    with pytest.raises(InvariantBroken):
        ledger.pass_through(1)
    with pytest.raises(InvariantBroken):
        ledger.take(1)
    ledger.take_stored(3)
    ledger.take(1)
    assert (ledger.unread, ledger.memory) == (3, 1)


class LedgerMachine(RuleBasedStateMachine):
    world = SpillWorld()

    @initialize(watermark=st.sampled_from([0, 1, 7, 8, 9, 15, 16, 17, 40, 100]))
    def begin(self, watermark: int) -> None:
        self.world = SpillWorld(watermark)

    @rule(count=st.integers(0, 20))
    def produce(self, count: int) -> None:
        self.world.produce(count)

    @rule(count=st.integers(0, 20), taken=st.integers(0, 20))
    def pass_through(self, count: int, taken: int) -> None:
        self.world.pass_through(count, taken)

    @rule(count=st.integers(1, 20))
    def begin_store(self, count: int) -> None:
        self.world.begin_store(count)

    @rule(written=st.integers(0, 20))
    def end_store(self, written: int) -> None:
        self.world.end_store(written)

    @rule()
    def begin_coming(self) -> None:
        self.world.begin_coming()

    @rule(count=st.integers(0, 20))
    def take_stored(self, count: int) -> None:
        self.world.take_stored(count)

    @rule(count=st.integers(0, 20))
    def consume(self, count: int) -> None:
        self.world.consume(count)

    @rule()
    def bulk_only_behind_everything_else(self) -> None:
        """Fault 3: a file that took only a part left the rest in memory, and its buffer was believed to be empty. Who asks the ledger is told."""
        ledger = self.world.ledger
        assert ledger.takes_bulk <= (not ledger.memory)
        if not ledger.takes_bulk:
            with pytest.raises(InvariantBroken):
                ledger.begin_coming()

    @rule(disk=st.booleans())
    def disk(self, disk: bool) -> None:
        self.world.disk = disk

    @invariant()
    def laws(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.disk = True
        self.world.finish()


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.binary(max_size=200))
def test_any_script(data: bytes) -> None:
    drive(data)


# -- the quota ----------------------------------------------------------------------------------------------------


def test_the_quota_is_never_exceeded() -> None:
    quota = SpillQuota(THRESHOLD + 10)
    assert quota.usable(0.0)
    assert quota.reserve(THRESHOLD) == THRESHOLD
    assert not quota.usable(0.0)
    assert quota.exhausted(0.0)
    assert quota.reserve(100) == 10
    assert quota.reserve(100) == 0
    quota.release(THRESHOLD + 10)
    assert quota.usable(0.0)
    with pytest.raises(InvariantBroken):
        quota.release(1)


@pytest.mark.parametrize(
    ("error", "word", "wait"), [(number, *found) for number, found in FAULTS.items()] + [(errno.EBADF, "other", 1.0)]
)
def test_after_a_fault_the_disk_rests(error: int, word: str, wait: float) -> None:
    quota = SpillQuota(1024**3)
    assert quota.failed(error, 100.0) == word
    assert quota.errors == {word: 1}
    assert not quota.usable(100.0 + wait - 0.01, new_file=True)
    # Want of a descriptor says nothing of files that are open.
    assert quota.usable(100.0 + wait - 0.01) is (word == "no_descriptor")
    assert not quota.exhausted(100.0 + wait - 0.01)
    assert quota.retry_in(100.0) == wait
    assert quota.usable(100.0 + wait, new_file=True)


def test_one_line_a_minute() -> None:
    quota = SpillQuota(0)
    assert [quota.worth_a_line(second) for second in (0.0, 0.1, 59.9, 60.0, 61.0, 120.0)] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]
