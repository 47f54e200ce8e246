"""OP6: processes that rest are measured more and more rarely, and all others in each round."""

from __future__ import annotations

import itertools

from passenger_trio.core.processes_to_measure import MOST_ROUNDS, Rounds


def test_OP6_one_that_rests_is_measured_more_and_more_rarely() -> None:
    rounds: Rounds[str] = Rounds()
    measured = [number for number in range(100) if rounds.due({"rests": 7})]
    pauses = [later - earlier for earlier, later in itertools.pairwise(measured)]
    assert pauses[:6] == [1, 2, 4, 8, 16, MOST_ROUNDS]
    assert set(pauses[5:]) == {MOST_ROUNDS}


def test_OP6_one_that_has_done_something_is_measured_at_once() -> None:
    rounds: Rounds[str] = Rounds()
    for _ in range(20):
        rounds.due({"one": 7, "other": 1})
    assert rounds.due({"one": 8, "other": 1}) == ["one"]
    assert rounds.due({"one": 8, "other": 1}) == ["one"]
    assert rounds.due({"one": 8, "other": 1}) == []


def test_OP6_one_that_is_at_work_is_measured_in_each_round() -> None:
    rounds: Rounds[str] = Rounds()
    assert [rounds.due({"busy": None}) for _ in range(5)] == [["busy"]] * 5


def test_OP6_one_that_is_new_is_measured_at_once_and_one_that_is_gone_is_forgotten() -> None:
    rounds: Rounds[int] = Rounds()
    rounds.due({1: 0})
    rounds.due({1: 0})
    assert rounds.due({1: 0, 2: 0}) == [2]
    assert rounds.due({}) == []
    assert rounds.due({1: 0}) == [1], "its number is another's now"
