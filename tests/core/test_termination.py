"""The steps in which a process ends (R40)."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.termination import TABLE, Action, Event, Progress, step


def walk(*events: Event) -> tuple[Progress, list[Action]]:
    state, actions = Progress.SERVING, []
    for event in events:
        state, action = step(state, event)
        if action is not Action.NOTHING:
            actions.append(action)
    return state, actions


def test_every_pair_is_written_out() -> None:
    assert {(state, event) for state, row in TABLE.items() for event in row} == set(product(Progress, Event))


def test_the_ladder_is_ask_term_kill() -> None:
    state, actions = walk(Event.RETIRE, Event.GRACE_EXPIRED, Event.GRACE_EXPIRED, Event.EXITED)
    assert state is Progress.GONE
    assert actions == [Action.ASK, Action.TERM, Action.KILL]


def test_a_process_that_does_as_it_is_asked_is_sent_no_signal() -> None:
    assert walk(Event.RETIRE, Event.EXITED) == (Progress.GONE, [Action.ASK])


def test_a_hard_stop_skips_the_ladder() -> None:
    assert walk(Event.KILL_NOW, Event.EXITED) == (Progress.GONE, [Action.KILL])
    assert walk(Event.RETIRE, Event.KILL_NOW) == (Progress.KILLED, [Action.ASK, Action.KILL])


def test_a_stale_timer_does_nothing_to_a_process_that_serves() -> None:
    assert walk(Event.GRACE_EXPIRED) == (Progress.SERVING, [])


@pytest.mark.parametrize("event", Event)
def test_nothing_is_done_to_a_process_that_is_gone(event: Event) -> None:
    assert step(Progress.GONE, event) == (Progress.GONE, Action.NOTHING)


@pytest.mark.parametrize("state", Progress)
def test_an_exit_is_believed_in_every_state(state: Progress) -> None:
    assert step(state, Event.EXITED) == (Progress.GONE, Action.NOTHING)


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_whatever_happens_nothing_is_sent_twice_and_the_ladder_is_only_descended(events: list[Event]) -> None:
    order, sent = list(Progress), []
    state = Progress.SERVING
    for event in events:
        after, action = step(state, event)
        assert order.index(after) >= order.index(state)
        if action is not Action.NOTHING:
            assert action not in sent
            assert state is not Progress.GONE
            sent.append(action)
        state = after
    assert sent == sorted(sent, key=list(Action).index)


@pytest.mark.parametrize("state", [Progress.ASKED, Progress.TERMED, Progress.KILLED])
def test_every_way_ends_in_kill_if_nothing_else_helps(state: Progress) -> None:
    for _ in range(3):
        state, _action = step(state, Event.GRACE_EXPIRED)
    assert state is Progress.KILLED
