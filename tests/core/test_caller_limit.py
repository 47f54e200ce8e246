"""Who may stay at a private socket: the laws of ``core.caller_limit``."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.caller_limit import CallerLimit


def filled(limit: CallerLimit, pids: list[int], **how: bool) -> CallerLimit:
    """Callers 1, 2, ... of these processes; all find room."""
    for number, pid in enumerate(pids, 1):
        assert limit.arrive(number, pid, **how) is None
    return limit


def test_the_oldest_of_those_who_say_nothing_goes() -> None:
    """KE4, KE5"""
    limit = filled(CallerLimit(3), [1, 2, 3])
    limit.speak(1)
    assert limit.arrive(4, 4) == 2
    assert limit.arrive(5, 5) == 3
    assert limit.present == 3


def test_a_process_that_fills_the_place_pushes_out_itself() -> None:
    limit = filled(CallerLimit(4), [1, 7, 7, 2])
    assert limit.arrive(5, 3) == 2
    assert limit.arrive(6, 7) == 3, "the oldest of the two of 7"
    assert limit.arrive(7, 4) == 1, "all are alike: the oldest"


def test_where_all_have_spoken_the_newest_does_not_go_for_its_silence() -> None:
    limit = filled(CallerLimit(2), [1, 1])
    for number in (1, 2):
        limit.speak(number)
    assert limit.arrive(3, 2) == 1


def test_who_is_expected_stays() -> None:
    """KE5"""
    limit = filled(CallerLimit(2), [1, 2], expected=True)
    assert limit.arrive(3, 3) == 3, "a stranger finds no room"
    limit = filled(CallerLimit(2), [1, 2])
    assert limit.arrive(3, 1, expected=True) == 1
    assert limit.arrive(4, 1, expected=True) == 2
    assert limit.arrive(5, 1, expected=True) == 3


def test_who_stays_for_long_keeps_nobody_out() -> None:
    """KE4, fault 12: followers of events have a bound of their own."""
    limit = CallerLimit(2, 3)
    for number in range(1, 5):
        assert limit.arrive(number, 9) is None
        assert limit.stay(number) == (None if number < 4 else 1)
    assert (limit.present, len(limit._staying)) == (0, 3)
    assert limit.arrive(5, 1) is None
    assert limit.arrive(6, 2) is None
    limit.leave(2)
    assert (limit.present, len(limit._staying)) == (2, 2)


def test_who_was_sent_away_says_nothing_any_more() -> None:
    limit = filled(CallerLimit(1), [1])
    assert limit.arrive(2, 2) == 1
    limit.speak(1)
    assert limit.stay(1) is None
    limit.leave(1)
    assert (limit.present, len(limit._staying)) == (1, 0)


STEP = st.tuples(st.sampled_from(("arrive", "speak", "stay", "leave")), st.integers(1, 20), st.booleans())


@given(st.integers(1, 4), st.integers(1, 3), st.lists(STEP, max_size=60))
def test_never_too_many_and_never_an_expected_one_before_a_stranger(
    most: int, most_staying: int, steps: list[tuple[str, int, bool]]
) -> None:
    limit = CallerLimit(most, most_staying)
    expected: dict[int, bool] = {}
    staying: set[int] = set()
    number = 0
    for what, value, flag in steps:
        if what == "arrive":
            number += 1
            expected[number] = flag
            goes = limit.arrive(number, value % 4, expected=flag)
            there = {caller: flag for caller, flag in expected.items() if caller not in staying}
            if goes is not None:
                assert len(there) == most + 1
                assert not there[goes] or all(there.values())
                del expected[goes]
        elif what == "speak":
            limit.speak(value)
        elif what == "stay" and value in expected and value not in staying:
            staying.add(value)
            goes = limit.stay(value)
            if goes is not None:
                assert goes in staying
                staying.discard(goes)
                del expected[goes]
        elif what == "leave":
            limit.leave(value)
            expected.pop(value, None)
            staying.discard(value)
        assert limit.present == len(expected) - len(staying) <= most
        assert len(limit._staying) == len(staying) <= most_staying
