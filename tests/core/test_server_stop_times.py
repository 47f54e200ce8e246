"""OP24: the time of a stop is kept, however it is divided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.server_stop_times import time_for_requests, time_to_ask
from passenger_trio.core.termination import TERM_TIME

seconds = st.floats(0, 1000, allow_subnormal=False)


@pytest.mark.parametrize(
    ("total", "process_timeouts", "requests", "asking"),
    [
        (30.0, [10.0], 20.0, 7.5),  # the defaults, and a request that takes all of its time
        (60.0, [10.0, 2.0], 47.5, 10.0),
        (9.0, [10.0], 6.0, 1.8),  # below the 10 seconds that Docker waits
        (3.0, [10.0], 2.0, 0.6),
        (0.0, [10.0], 0.0, 0.0),
        (30.0, [0.0], 27.5, 1.5),
        (30.0, [], 27.5, 1.5),
    ],
)
def test_how_it_is_divided(total: float, process_timeouts: list[float], requests: float, asking: float) -> None:
    assert time_for_requests(total, process_timeouts) == pytest.approx(requests)
    assert time_to_ask(total - requests) == pytest.approx(asking)


def test_what_requests_do_not_use_is_for_the_processes() -> None:
    assert time_to_ask(30.0) == 27.5


@given(seconds, st.lists(seconds, max_size=3))
def test_requests_have_most_of_it_and_processes_have_some(total: float, process_timeouts: list[float]) -> None:
    requests = time_for_requests(total, process_timeouts)
    assert total * 2 / 3 - 1e-9 <= requests <= total
    assert requests < total or not total
    left = total - requests
    assert 0 <= time_to_ask(left) <= left
    assert time_to_ask(left) + TERM_TIME <= left or time_to_ask(left) >= left * 0.6 - 1e-9
