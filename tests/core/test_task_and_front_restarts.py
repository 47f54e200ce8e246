"""KE1: when a task that failed is started again, and when its failing is past an accident."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.task_and_front_restarts import CALM, FIRST, INTENSITY, LONGEST, SERVED, TaskRestarts


def test_each_failure_soon_after_another_is_waited_for_twice_as_long() -> None:
    restarts = TaskRestarts()
    now, waits = 0.0, []
    for _ in range(12):
        waits.append(restarts.failed(now).wait)
        now += waits[-1]
    assert waits[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert waits[-1] == LONGEST
    assert waits == sorted(waits)


def test_passing_the_intensity_is_said_once() -> None:
    restarts = TaskRestarts()
    said = [restarts.failed(float(now)).escalates for now in range(20)]
    assert said.index(True) == INTENSITY
    assert said.count(True) == 1
    assert restarts.is_failing(20.0)


def test_a_calm_begins_anew() -> None:
    restarts = TaskRestarts()
    for now in range(10):
        restarts.failed(float(now))
    over = restarts.started + CALM
    assert restarts.is_failing(over - 0.1)
    assert not restarts.is_failing(over)
    verdict = restarts.failed(over)
    assert verdict.wait == FIRST
    assert not verdict.escalates
    assert not restarts.is_failing(over)


def test_a_task_that_has_not_failed_is_not_failing() -> None:
    assert not TaskRestarts().is_failing(0.0)


def test_FR4_what_had_served_for_a_while_starts_again_at_once() -> None:
    """A front that is killed every second: its start works. It had waited for longer and longer."""
    restarts = TaskRestarts()
    now = 0.0
    assert restarts.failed(now).wait == FIRST
    for _ in range(60):
        now += 1.0
        verdict = restarts.failed(now, SERVED)
        assert (verdict.wait, verdict.escalates) == (0.0, False)
    assert not restarts.is_failing(now)
    assert restarts.failed(now).wait == FIRST, "its start fails: a first time"
    assert restarts.failed(now, SERVED / 2).wait == 2 * FIRST, "it has not served for long enough to tell"


@given(st.lists(st.floats(0, 200), max_size=80))
def test_no_wait_is_longer_than_promised_and_none_is_none(pauses: list[float]) -> None:
    restarts = TaskRestarts()
    now = 0.0
    for pause in pauses:
        now = max(now, restarts.started) + pause
        assert FIRST <= restarts.failed(now).wait <= LONGEST
