"""How much of the event loop's time floods get (KE7)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.flood_share import BUDGET, FloodShare

STEPS = st.lists(st.floats(0.0, 0.005), min_size=1, max_size=200)


@given(STEPS)
def test_KE7_beside_others_all_floods_together_get_at_most_half_and_one_budget(steps: list[float]) -> None:
    share, now, worked, rested = FloodShare(), 100.0, 0.0, 0.0
    for step in steps:
        rest = share.rest(now, others=now)
        now, rested = now + rest, rested + rest
        share.begin(now)
        now, worked = now + step, worked + step
        share.end(now)
        # What the last steps took is rested for before the next one.
        assert worked - rested <= BUDGET + 2 * 0.005


@given(STEPS)
def test_KE7_a_flood_that_nobody_is_beside_does_not_rest(steps: list[float]) -> None:
    share, now = FloodShare(), 100.0
    for step in steps:
        assert share.rest(now, others=now - 1.0) == 0.0
        share.begin(now)
        now += step
        share.end(now)


def test_KE7_short_steps_rest_together() -> None:
    share, now, rests = FloodShare(), 0.0, []
    for _ in range(8):
        rests.append(share.rest(now, others=now))
        share.begin(now)
        now += BUDGET * 0.375
        share.end(now)
        share.end(now + 5)  # it is over
    assert [bool(rest) for rest in rests] == [False, False, False, True, False, False, True, False]
    assert abs(rests[3] - BUDGET * 1.125) < 1e-9


def test_KE7_a_step_that_was_interrupted_is_not_held_against_floods() -> None:
    share = FloodShare()
    share.begin(0.0)
    share.end(60.0)
    assert 0 < share.rest(60.0, others=60.0) <= 0.01
