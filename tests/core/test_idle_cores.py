"""FR6: how many cores nobody uses: the laws of ``core.fronts.idle_cores``."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.fronts.idle_cores import IdleCores

STEP = 0.125
"""Seconds between two looks; exact in binary."""


def looks(idle: IdleCores, values: list[float], used: list[float] | None = None) -> list[float]:
    """One look after another, with so many cores idle (and so many used of the quota) since the last one."""
    found, seconds, spent = [], 0.0, 0.0
    for number, value in enumerate(values):
        seconds += value * STEP
        spent += used[number] * STEP if used else 0.0
        found.append(idle.look(number * STEP, seconds, spent if used else None))
    return found


def test_FR6_a_first_look_knows_of_none() -> None:
    idle = IdleCores()
    assert idle.look(1.0, 100.0) == 0.0
    assert 0.0 < idle.look(2.0, 102.0) < 2.0
    idle.rest()
    assert idle.look(3.0, 104.0) == 0.0
    assert idle.look(3.0, 104.0) == 0.0  # a clock that stands


def test_FR6_unknown_is_no_reason_against() -> None:
    assert IdleCores().look(1.0, None) == math.inf


def test_FR6_it_takes_some_looks_to_be_sure() -> None:
    found = looks(IdleCores(), [2.0] * 40)
    assert found == sorted(found)
    assert found[4] < 1.0
    assert found[-1] > 1.95


def test_FR6_less_counts_at_once() -> None:
    found = looks(IdleCores(), [2.0] * 40 + [0.1])
    assert abs(found[-1] - 0.1) < 1e-9


@given(st.lists(st.floats(0, 8), min_size=1, max_size=50))
def test_FR6_never_more_than_the_most_that_was_seen(values: list[float]) -> None:
    found = looks(IdleCores(), values)
    assert all(0 <= value <= max(values) + 1e-9 for value in found)


def test_FR6_what_is_left_of_a_quota_counts() -> None:
    """A container with two of many processors: the machine is idle, and nothing is left for one more front."""
    assert looks(IdleCores(2.0), [60.0] * 60, [1.9] * 60)[-1] < 0.11
    assert looks(IdleCores(2.0), [60.0] * 60, [0.5] * 60)[-1] > 1.4
    assert looks(IdleCores(2.0), [0.1] * 60, [0.5] * 60)[-1] < 0.11, "the machine is full"
    assert looks(IdleCores(2.0), [60.0] * 60, [2.5] * 60)[-1] == 0.0, "it has used what was saved up"
    assert looks(IdleCores(2.0), [60.0] * 99)[-1] > 59, "nobody knows what is used of it"
