"""OB1: the metrics of a thousand applications are made a few applications at a time, so that requests are served meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
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
from passenger_trio.codecs.openmetrics import PAUSE, Exposition, Family
from passenger_trio.core.fronts.front_metrics import FrontMetrics
from passenger_trio.core.metric_counts import PoolTally, RequestTally
from passenger_trio.core.model import GroupKey, WaiterId
from passenger_trio.core.policy import PoolPolicy
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits

KEYS = [GroupKey(f"app{number}", "production") for number in range(1000)]
NAMES = app_names(KEYS)
MOST = 450
"""Samples that are made between two checkpoints."""


def a_day_of_requests(keys: Sequence[GroupKey] = KEYS) -> FrontMetrics:
    counts = FrontMetrics(tallies={key: RequestTally() for key in keys})
    for tally in counts.tallies.values():
        for method, status in ((b"GET", 200), (b"GET", 304), (b"POST", 303), (b"GET", 404)):
            tally.finished((method, status, 0.02, 0.004, 0.01))
        tally.websocket_ended("1000")
    return counts


def a_day_of_processes(keys: Sequence[GroupKey] = KEYS) -> PoolTally:
    tally = PoolTally()
    for key in keys:
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
    return of_groups(policy.state.limits, 0, policy.gauges(KEYS, 1.0), NAMES)


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

    def steps() -> Iterator[object]:
        exposition = Exposition()
        for found in make():
            yield from exposition.parts(found)

    sys.setprofile(count)
    try:
        for _ in steps():
            most, total, made = max(most, made), total + made, 0
    finally:
        sys.setprofile(None)
    assert total == samples
    assert most <= MOST


def test_OB1_of_many_applications_a_scrape_writes_those_that_have_changed() -> None:
    """Each kind of count, and each kind of gauge, is seen when it changes (issue 18, Done when 4)."""
    keys = KEYS[:30]
    counts, processes = a_day_of_requests(keys), a_day_of_processes(keys)
    policy = PoolPolicy(PoolLimits(max_pool_size=6))
    for key in keys:
        policy.add_group(key, GroupLimits(min_instances=0), 0.0)
    memory = dict.fromkeys(keys, 1)
    names = app_names(keys)
    exposition = Exposition()

    def scraped() -> tuple[int, bytes]:
        before = exposition.written
        text = []
        for families in (
            of_requests(counts, names),
            of_flights(counts, names),
            of_groups(policy.state.limits, 0, policy.gauges(keys, 1.0), names),
            of_transitions(processes, names),
            of_memory(memory, names),
        ):
            for found in families:
                text += [part for part in exposition.parts(found) if part is not PAUSE]
        return exposition.written - before, b"".join(text)

    scraped()
    assert scraped()[0] == 0
    one, other = KEYS[3], KEYS[5]
    tally = counts.tallies[one]
    changes: tuple[Callable[[], object], ...] = (
        lambda: tally.finished((b"GET", 200, 0.02, 0.004, 0.01)),
        lambda: setattr(tally, "retried", 1),
        lambda: tally.websocket_ended("1000"),
        lambda: counts.refused.finished((b"GET", 400, 0.02, 0.0, 0.0)),
        lambda: counts.in_flight.update([one]),
        lambda: policy.checkout(WaiterId(1), one, 1.0),
        lambda: processes.spawn_ended(one, "smart", "ready", 0.5),
        lambda: processes.ended.update([(one, "idle")]),
        lambda: processes.restarts.update([(other, "done")]),
        lambda: memory.update({other: 2}),
    )
    for change in changes:
        before = scraped()
        change()
        after = scraped()
        assert (before[0], after[0]) == (0, 1)
        assert after[1] != before[1]
        known, exposition._known = exposition._known, {}
        assert scraped()[1] == after[1], "what was kept is what would be written"
        exposition._known = known
