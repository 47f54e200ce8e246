"""FR2: a limit that all fronts share is divided among them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.fronts.share import ALONE, Share


@given(st.integers(0, 10**12), st.integers(1, 64))
def test_the_parts_are_the_whole(whole: int, fronts: int) -> None:
    parts = [Share(number, fronts).part(whole) for number in range(fronts)]
    assert max(parts) - min(parts) <= 1
    assert sum(parts) == whole or whole < fronts
    assert all(parts) or not whole


def test_a_front_that_is_alone_has_everything() -> None:
    assert (ALONE.number, ALONE.fronts) == (0, 1)
    assert ALONE.part(7) == 7
    assert Share(1, 2).part(1) == 1, "a front with none could serve nobody"


def test_no_limit_is_no_limit_for_each_front() -> None:
    assert ALONE.part(0) == Share(1, 2).part(0) == 0
