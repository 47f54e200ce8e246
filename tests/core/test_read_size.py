"""How much is read in one step (KE7)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.read_size import STEP, ReadSize, SmallReads


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**5)), max_size=50))
def test_KE7_it_stays_within_its_bounds(reads: list[tuple[int, int]]) -> None:
    size = ReadSize(16384, 1024, 262144)
    for count, pieces in reads:
        size.found(min(count, size.limit), pieces)
        assert 1024 <= size.limit <= 262144


def test_KE7_small_pieces_make_reads_small_and_large_ones_make_them_large_again() -> None:
    size = ReadSize(16384, 1024, 262144)
    limits = []
    for _ in range(4):
        size.found(size.limit, STEP + 1)
        limits.append(size.limit)
    assert limits == [4096, 1024, 1024, 1024]
    assert size.is_flood
    size.found(500, 1)  # not all that was asked for: nothing more is there
    assert (size.limit, size.is_flood) == (1024, False)
    for _ in range(6):
        size.found(size.limit, 1)
    assert size.limit == 262144
    size.found(262144, STEP)  # neither few nor many
    assert (size.limit, size.is_flood) == (262144, False)


def test_KE7_a_flood_of_tiny_pieces_is_heavy_and_one_of_lines_is_not() -> None:
    size = ReadSize(16384, 1024, 262144)
    assert not size.is_heavy
    for bytes_each, is_heavy in ((6, True), (31, True), (32, False), (100, False), (6, True)):
        size.found(bytes_each * 100, 100)
        assert (size.is_flood, size.is_heavy) == (True, is_heavy)
    size.found(6 * STEP, STEP)  # neither few nor many
    assert size.is_heavy
    size.found(6, 1)
    assert not size.is_heavy


def test_nothing_is_a_flood_before_anything_was_read() -> None:
    assert not ReadSize(10, 1, 100).is_flood


def read_every(gap: float, size: int, times: int, small: SmallReads, since: float = 0.0) -> float:
    for _ in range(times):
        since += gap
        small.found(size, since)
    return since


def test_KE7_small_reads_one_after_another_are_a_flood() -> None:
    small = SmallReads()
    now = read_every(0.001, 6, 16, small)
    assert not small.are_flood
    now = read_every(0.001, 6, 1, small, now)
    assert small.are_flood
    now = read_every(0.05, 6, 50, small, now)
    assert small.are_flood, "it waits for its turn meanwhile"
    now = read_every(0.1, 6, 1, small, now)
    assert not small.are_flood
    now = read_every(0.001, 6, 17, small, now)
    assert small.are_flood
    read_every(0.001, 1024, 1, small, now)
    assert not small.are_flood


def test_KE7_a_stream_of_events_is_no_flood() -> None:
    """Nor is a large response, however quickly it comes."""
    for gap, size in ((0.03, 30), (0.0001, 4096)):
        small = SmallReads()
        read_every(gap, size, 1000, small)
        assert not small.are_flood
