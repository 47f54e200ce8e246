"""Short runs of the storms in ``tests/storms``; their goals hold at any length."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "storms"))

import kill_supervisor
import kill_workers
import many_open
import move_connections
import reloads

pytestmark = pytest.mark.os


def test_workers_that_are_killed_cost_nobody_else_an_error() -> None:
    """It found a request that waited for ever: its second try was behind an idle stream of the same worker."""
    outcome = kill_workers.storm(4.0, 16, period=0.1)
    assert set(outcome.answers) <= {"200", "502"}
    assert outcome.good_part >= 0.99
    assert outcome.recovered <= 2.0


def test_reloads_that_change_everything_at_once_lose_no_request() -> None:
    """OP1, OP3: and the processes of an application whose limits only change stay. (20 of them: ``storms/reloads.py``.)"""
    outcome = reloads.storm(2, 4)
    assert set(outcome.answers) == {"200"}
    assert outcome.kept
    assert outcome.came_and_went == 1
    assert reloads.left_out() == set(), "an option that can change at once is not changed"


def test_a_supervisor_that_is_killed_leaves_nothing_behind() -> None:
    outcome = kill_supervisor.storm(4, within=20.0)
    assert outcome.processes == []
    assert (outcome.ports, outcome.directories) == (0, 0)


def test_connections_that_move_all_the_time_lose_no_request() -> None:
    """FR6: none is lost, none is served twice, and each connection counts once."""
    outcome = move_connections.storm(4.0, 30)
    assert outcome.wrong == []
    assert outcome.moves


@pytest.mark.slow
def test_F16_SIGTERM_with_a_thousand_websockets() -> None:
    """Each gets its Close with 1001 and then the end; none is cut off, and requests beside them are answered until then."""
    outcome = many_open.storm("websockets", 1000, 1.0)
    assert (outcome.opened, outcome.alive) == (1000, 1000)
    assert set(outcome.answers) == {"200"}
    assert outcome.ends == {"closed with 1001": 1000}
