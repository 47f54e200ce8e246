"""How much of the event loop's time floods get (KE7)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.flood_share import BUDGET, FloodShare

STEPS = st.lists(st.floats(0.0, 0.005), min_size=1, max_size=200)


@given(STEPS, st.sampled_from([(False, 1), (True, 7)]))
def test_KE7_beside_others_all_floods_together_get_their_share_and_one_budget(
    steps: list[float], kind: tuple[bool, int]
) -> None:
    """Half, and of heavy ones an eighth."""
    is_heavy, each = kind
    share, now, worked, rested = FloodShare(), 100.0, 0.0, 0.0
    for step in steps:
        rest = share.rest(now, others=now)
        now, rested = now + rest, rested + rest
        share.begin(now, is_heavy=is_heavy)
        now, worked = now + step, worked + step
        share.end(now)
        # What the last steps took is rested for before the next one; and for no longer.
        assert worked * each - rested <= each * (BUDGET + 2 * 0.005)
        assert rested <= worked * each + 1e-9


def test_KE7_each_step_is_rested_for_as_what_it_was() -> None:
    share = FloodShare()
    for began, is_heavy in ((1.0, True), (2.0, False)):
        share.begin(began, is_heavy=is_heavy)
        share.end(began + BUDGET / 2)
    assert abs(share.rest(3.0, others=3.0) - (7 + 1) * BUDGET / 2) < 1e-9


@given(STEPS)
def test_KE7_a_flood_that_nobody_is_beside_does_not_rest(steps: list[float]) -> None:
    share, now = FloodShare(), 100.0
    for step in steps:
        assert share.rest(now, others=now - 1.0) == 0.0
        share.begin(now, is_heavy=True)
        now += step
        share.end(now)


def test_KE7_short_steps_rest_together() -> None:
    share, now, rests = FloodShare(), 0.0, []
    for _ in range(8):
        rests.append(share.rest(now, others=now))
        share.begin(now, is_heavy=False)
        now += BUDGET * 0.375
        share.end(now)
        share.end(now + 5)  # it is over
    assert [bool(rest) for rest in rests] == [False, False, False, True, False, False, True, False]
    assert abs(rests[3] - BUDGET * 1.125) < 1e-9


def test_KE7_a_step_that_was_interrupted_is_not_held_against_floods() -> None:
    share = FloodShare()
    share.begin(0.0, is_heavy=False)
    share.end(60.0)
    assert 0 < share.rest(60.0, others=60.0) <= 0.01
