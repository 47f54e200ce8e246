"""What ``passenger-trio status`` prints of an instance's answer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.admin.render_status import human_age, human_memory, render_status

ANSWER: dict[str, Any] = {
    "version": "0.1.0",
    "pid": 4700,
    "uptime": 3725.4,
    "addresses": ["http://127.0.0.1:3000/"],
    "pool": {"max": 6, "size": 2, "spawning": 1, "queue": 3},
    "groups": [
        {
            "name": "shop",
            "environment": "development",
            "root": "/srv/shop",
            "app_type": "wsgi",
            "interpreter": "/srv/shop/.venv/bin/python",
            "queue": 3,
            "spawning": 1,
            "backing_off_for": None,
            "last_error": None,
            "preloader": {"pid": 4710, "memory": {"rss": 50 * 1024**2, "pss": 20 * 1024**2, "uss": None}},
            "processes": [
                {
                    "id": 1,
                    "pid": 4711,
                    "state": "running",
                    "sessions": 1,
                    "concurrency": 1,
                    "processed": 1234,
                    "cpu": 12.4,
                    "memory": {"rss": 60 * 1024**2, "pss": 24 * 1024**2, "uss": 10 * 1024**2},
                    "uptime": 125.0,
                    "last_used": 3.9,
                },
                {
                    "id": 2,
                    "pid": 4712,
                    "state": "stopping",
                    "sessions": 0,
                    "concurrency": 1,
                    "processed": 0,
                    "cpu": None,
                    "memory": None,
                    "uptime": 5,
                    "last_used": None,
                },
            ],
        }
    ],
    "requests": {"total": 1300, "active": 1, "rejected": {"bare_lf": 2, "bad_host": 1}},
    "connections": {"open": 4, "accepted": 90},
}

EXPECTED = """\
Version    : 0.1.0
Date       : 2025-11-23T07:43:01.250Z
Instance   : k3x9ab (pid 4700, up 1h 2m)
Listens on : http://127.0.0.1:3000/

----------- General information -----------
Max pool size     : 6
App groups        : 1
Processes         : 2 (spawning 1 new process...)
Requests in queue : 3
Requests          : 1299 served, 1 active, 3 refused
Connections       : 4 open, 90 accepted

----------- Application groups -----------
shop (development): (spawning 1 new process...)
  App root          : /srv/shop
  Interpreter       : /srv/shop/.venv/bin/python (wsgi)
  Requests in queue : 3
  * Preloader  PID: 4710     Memory: 20M
  * PID: 4711     Sessions: 1/1    Processed: 1234     Uptime: 2m 5s
    CPU: 12%      Memory  : 24M    Last used: 3s ago
  * PID: 4712     Sessions: 0/1    Processed: 0        Uptime: 5s
    CPU: -        Memory  : -      Last used: never
    Stopping...
"""


def test_the_whole_text() -> None:
    assert render_status(ANSWER, name="k3x9ab", date="2025-11-23T07:43:01.250Z") == EXPECTED


def test_a_request_under_way_is_not_served_yet() -> None:
    """OP25"""
    for total, active, words in ((1, 1, "0 served, 1 active"), (7, 0, "7 served, 0 active"), (0, 1, "0 served, 1")):
        assert words in render_status({**ANSWER, "requests": {"total": total, "active": active, "rejected": {}}})
    assert "- served, - active" in render_status({**ANSWER, "requests": {}})


def test_an_application_that_does_not_start() -> None:
    answer = copy.deepcopy(ANSWER)
    answer["groups"][0] |= {
        "backing_off_for": 12.3,
        "last_error": {"id": "a1b2c3d4", "category": "application", "summary": "SyntaxError: bad"},
        "processes": [],
    }
    text = render_status(answer)
    assert "  Last error: SyntaxError: bad [a1b2c3d4]\n  The next attempt to start it is in 12s\n" in text


def test_an_instance_that_stops_says_so() -> None:
    assert "Stopping: requests in hand" in render_status({**ANSWER, "stopping": True})


def test_control_characters_do_not_reach_the_terminal() -> None:
    answer = copy.deepcopy(ANSWER)
    answer["groups"][0]["name"] = "shop\x1b[31m\n"
    text = render_status(answer)
    assert "\x1b" not in text
    assert "shop?[31m?" in text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda children: (
            st.lists(children, max_size=3)
            | st.dictionaries(st.sampled_from(sorted({*ANSWER, *ANSWER["groups"][0]})), children)
        ),
        max_leaves=20,
    )
)
def test_whatever_is_missing_or_odd_the_rest_is_shown(answer: Any) -> None:
    text = render_status(answer if isinstance(answer, dict) else {"groups": [answer]})
    assert "General information" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m 0s"), (3600, "1h 0m"), (90000, "1d 1h"), (-1, "0s"), (None, "-"), ("x", "-")],
)
def test_ages(seconds: Any, text: str) -> None:
    assert human_age(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(24 * 1024**2, "24M"), (int(1.5 * 1024**3), "1.5G"), (1536 * 1024, "1.5M"), (0, "0.0M"), (None, "-")],
)
def test_memory(size: Any, text: str) -> None:
    assert human_memory(size) == text


def test_faults_of_our_own_are_shown() -> None:
    """KE1."""
    fault = {"count": 3, "last": "OSError: [Errno 24] Too many open files", "age": 65.0, "failing": True}
    shown = render_status({**ANSWER, "faults": {"total": 3, "tasks": {"the watch": fault}}}, name="i", date="now")
    assert "the watch, 3 times, last 1m 5s ago: OSError: [Errno 24] Too many open files; it keeps failing" in shown
    assert "Fault" not in render_status({**ANSWER, "faults": {"total": 0, "tasks": {}}}, name="i", date="now")
