"""OB1: the metrics of a thousand applications are made a few applications at a time, so that requests are served meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import pytest

from passenger_trio.admin.metric_families import (
    Families,
    app_names,
    of_flights,
    of_groups,
    of_memory,
    of_requests,
    of_transitions,
)
from passenger_trio.codecs.openmetrics import Family
from passenger_trio.core.fronts.counts import FrontCounts
from passenger_trio.core.model import GroupKey
from passenger_trio.core.policy import PoolPolicy
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.core.tally import PoolTally, RequestTally

KEYS = [GroupKey(f"app{number}", "production") for number in range(1000)]
NAMES = app_names(KEYS)
MOST = 450
"""Samples that are made between two checkpoints."""


def a_day_of_requests() -> FrontCounts:
    counts = FrontCounts(tallies={key: RequestTally() for key in KEYS})
    for tally in counts.tallies.values():
        for method, status in ((b"GET", 200), (b"GET", 304), (b"POST", 303), (b"GET", 404)):
            tally.finished((method, status, 0.02, 0.004, 0.01))
        tally.websocket_ended("1000")
    return counts


def a_day_of_processes() -> PoolTally:
    tally = PoolTally()
    for key in KEYS:
        tally.spawn_ended(key, "smart", "ready", 0.5)
        for reason in ("idle", "restart"):
            tally.ended[key, reason] += 1
            tally.detached[key, reason] += 1
        tally.spawns_started[key, "demand"] += 1
    return tally


def groups() -> Families:
    policy = PoolPolicy(PoolLimits(max_pool_size=6))
    for key in KEYS:
        policy.add_group(key, GroupLimits(min_instances=0), 0.0)
    return of_groups(policy.statistics(KEYS), NAMES, 1.0)


@pytest.mark.parametrize(
    ("make", "samples"),
    [
        (lambda: of_requests(a_day_of_requests(), NAMES), 8003),
        (lambda: of_flights(a_day_of_requests(), NAMES), 1011),
        (groups, 11_002),
        (lambda: of_transitions(a_day_of_processes(), NAMES), 8000),
        (lambda: of_memory(dict.fromkeys(KEYS, 1), NAMES), 1000),
    ],
    ids=["requests", "flights", "groups", "transitions", "memory"],
)
def test_OB1_a_bounded_number_of_samples_between_two_checkpoints(make: Callable[[], Families], samples: int) -> None:
    made = most = total = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal made
        made += event == "call" and frame.f_code is Family.add.__code__

    families = make()
    sys.setprofile(count)
    try:
        for _ in families:
            most, total, made = max(most, made), total + made, 0
    finally:
        sys.setprofile(None)
    assert total == samples
    assert most <= MOST
