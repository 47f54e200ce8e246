"""The steps in which a process ends (R40)."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.lifecycle import TABLE, Action, Event, Life, step


def walk(*events: Event) -> tuple[Life, list[Action]]:
    state, actions = Life.SERVING, []
    for event in events:
        state, action = step(state, event)
        if action is not Action.NOTHING:
            actions.append(action)
    return state, actions


def test_every_pair_is_written_out() -> None:
    assert {(state, event) for state, row in TABLE.items() for event in row} == set(product(Life, Event))


def test_the_ladder_is_ask_term_kill() -> None:
    state, actions = walk(Event.RETIRE, Event.GRACE_EXPIRED, Event.GRACE_EXPIRED, Event.EXITED)
    assert state is Life.GONE
    assert actions == [Action.ASK, Action.TERM, Action.KILL]


def test_a_process_that_does_as_it_is_asked_is_sent_no_signal() -> None:
    assert walk(Event.RETIRE, Event.EXITED) == (Life.GONE, [Action.ASK])


def test_a_hard_stop_skips_the_ladder() -> None:
    assert walk(Event.KILL_NOW, Event.EXITED) == (Life.GONE, [Action.KILL])
    assert walk(Event.RETIRE, Event.KILL_NOW) == (Life.KILLED, [Action.ASK, Action.KILL])


def test_a_stale_timer_does_nothing_to_a_process_that_serves() -> None:
    assert walk(Event.GRACE_EXPIRED) == (Life.SERVING, [])


@pytest.mark.parametrize("event", Event)
def test_nothing_is_done_to_a_process_that_is_gone(event: Event) -> None:
    assert step(Life.GONE, event) == (Life.GONE, Action.NOTHING)


@pytest.mark.parametrize("state", Life)
def test_an_exit_is_believed_in_every_state(state: Life) -> None:
    assert step(state, Event.EXITED) == (Life.GONE, Action.NOTHING)


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_whatever_happens_nothing_is_sent_twice_and_the_ladder_is_only_descended(events: list[Event]) -> None:
    order, sent = list(Life), []
    state = Life.SERVING
    for event in events:
        after, action = step(state, event)
        assert order.index(after) >= order.index(state)
        if action is not Action.NOTHING:
            assert action not in sent
            assert state is not Life.GONE
            sent.append(action)
        state = after
    assert sent == sorted(sent, key=list(Action).index)


@pytest.mark.parametrize("state", [Life.ASKED, Life.TERMED, Life.KILLED])
def test_every_way_ends_in_kill_if_nothing_else_helps(state: Life) -> None:
    for _ in range(3):
        state, _action = step(state, Event.GRACE_EXPIRED)
    assert state is Life.KILLED
