"""FR3: which front takes the next connection: the laws of ``core.accept_gate``."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.accept_gate import SHARE, SLACK, Turn, turn

COUNTS = st.lists(st.integers(0, 5000), min_size=1, max_size=16)


def test_a_front_that_is_alone_takes_everything() -> None:
    assert turn(100_000, []) is Turn.TAKE


def test_the_bounds() -> None:
    """Up to four more than the lowest, or a quarter of it."""
    assert [turn(own, [3, 9]) for own in (0, 3, 4, 7, 8)] == [
        Turn.TAKE,
        Turn.TAKE,
        Turn.LAST,
        Turn.LAST,
        Turn.LEAVE,
    ]
    assert [turn(own, [100]) for own in (100, 125, 126)] == [Turn.TAKE, Turn.LAST, Turn.LEAVE]


@given(COUNTS)
def test_somebody_takes_each_connection(counts: list[int]) -> None:
    turns = [turn(own, counts[:at] + counts[at + 1 :]) for at, own in enumerate(counts)]
    assert all(turns[at] is Turn.TAKE for at, own in enumerate(counts) if own == min(counts))


@given(st.integers(2, 8), st.integers(1, 400), st.randoms())
def test_connections_that_come_stay_balanced(fronts: int, come: int, chance: object) -> None:
    """Whichever front is woken: the busiest exceeds the lowest by the bound at most, and by one where all that may take are woken."""
    counts = [0] * fronts
    for _ in range(come):
        at = chance.randrange(fronts)  # type: ignore[attr-defined]
        while turn(counts[at], counts[:at] + counts[at + 1 :]) is Turn.LEAVE:
            at = (at + 1) % fronts
        counts[at] += 1
    assert max(counts) - min(counts) <= max(SLACK, SHARE * min(counts)) + 1
