"""How much is read in one step (KE7)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.read_size import STEP, ReadSize


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


def test_nothing_is_a_flood_before_anything_was_read() -> None:
    assert not ReadSize(10, 1, 100).is_flood
