"""FR5: counts of several fronts are told as JSON, judged, and added up."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.fronts.front_metrics import PART, FrontMetrics
from passenger_trio.core.fronts.merge_facts import check_requests, merge_facts
from passenger_trio.core.metric_counts import RequestTally
from passenger_trio.core.model import GroupKey
from passenger_trio.errors import BadFrontMessage

KEYS = [GroupKey("shop", "production"), GroupKey("blog", "production")]
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from([b"GET", b"POST", b"BREW"]),
        st.sampled_from([200, 404, 502]),
        st.floats(0, 100),
        st.floats(0, 10),
        st.floats(0, 10),
    ),
    max_size=20,
)


def tally(requests: list[Any]) -> RequestTally:
    told = RequestTally()
    for request in requests:
        told.finished(request)
    for _ in requests:
        told.websocket_ended("1000")
    told.retried = 1
    return told


def counts(requests: list[Any]) -> FrontMetrics:
    return FrontMetrics(
        tallies={KEYS[0]: tally(requests)},
        in_flight=Counter({KEYS[1]: 3}),
        rejected=Counter(bad_name=2),
        stages=Counter(idle=4),
        faults=Counter({"a step of a connection": 1}),
        accepted=7,
        disk=1000,
        lag=0.25,
    )


def sent(told: FrontMetrics) -> FrontMetrics:
    return FrontMetrics.of_told(json.loads(json.dumps(told.told(KEYS))), KEYS)


def test_OB1_counts_of_many_applications_are_told_and_added_in_parts() -> None:
    """Of a thousand applications they would stop the owner's loop for a tenth of a second (issue 18, Done when 4)."""
    keys = [GroupKey(f"app{number}", "production") for number in range(2 * PART + 7)]
    whole = FrontMetrics(
        tallies={key: tally([(b"GET", 200, 0.1, 0.0, 0.1)] * number) for number, key in enumerate(keys, 1)},
        in_flight=Counter({key: number for number, key in enumerate(keys)}),
        accepted=7,
    )
    together = FrontMetrics()
    for begin in range(0, len(keys), PART):
        some = keys[begin : begin + PART]
        part = FrontMetrics.of_told(json.loads(json.dumps(whole.told(some))), some)
        assert len(part.tallies) <= PART
        if begin:
            together.put_together(part)
        else:
            together = part
    assert together.told(keys) == whole.told(keys)
    total = FrontMetrics()
    assert [len(total.tallies) for _ in total.add_in_parts(together)] == [PART, 2 * PART, 2 * PART + 7]
    assert total.told(keys) == whole.told(keys)


@given(REQUESTS, REQUESTS)
def test_what_two_fronts_tell_adds_up(one: list[Any], other: list[Any]) -> None:
    total = FrontMetrics()
    for requests in (one, other):
        total.add(sent(counts(requests)))
    shop = total.tallies[KEYS[0]]
    assert shop.count == len(one) + len(other)
    assert {kind: told.count for kind, told in shop.durations.items()} == {
        kind: told.count for kind, told in tally([*one, *other]).durations.items()
    }
    assert (shop.retried, shop.websockets.get("1000", 0)) == (2, len(one) + len(other))
    assert (total.accepted, total.disk, total.lag, total.stages["idle"]) == (14, 2000, 0.25, 8)
    assert total.in_flight == Counter({KEYS[1]: 6})
    assert total.rejected == Counter(bad_name=4)
    assert KEYS[1] in total.tallies or not total.tallies.get(KEYS[1])


@pytest.mark.parametrize(("one", "other", "has_log"), [(False, False, False), (False, True, True), (True, False, True)])
def test_what_is_there_at_one_front_is_there_for_all(one: bool, other: bool, has_log: bool) -> None:
    total = FrontMetrics(has_log=one, refused=tally([(b"GET", 404, 0.1, 0.0, 0.0)]))
    total.add(sent(FrontMetrics(has_log=other, refused=tally([(b"GET", 404, 0.1, 0.0, 0.0)] * 2))))
    assert total.has_log is has_log
    assert not FrontMetrics().has_log
    assert total.refused.count == 3


def test_what_a_front_told_stays_without_its_gauges() -> None:
    kept = sent(counts([])).lasting()
    assert (kept.accepted, kept.disk, kept.lag, sum(kept.stages.values()), len(kept.in_flight)) == (7, 0, 0.0, 0, 0)


def test_FR4_applications_that_came_later_are_no_lie() -> None:
    """A reload adds an application, and a front tells before it has heard of it."""
    told = json.loads(json.dumps(counts([(b"GET", 200, 0.1, 0.0, 0.1)]).told(KEYS)))
    found = FrontMetrics.of_told(told, [*KEYS, GroupKey("new", "test")])
    assert set(found.tallies) <= set(KEYS)
    assert found.tallies[KEYS[0]].count == 1
    with pytest.raises(BadFrontMessage):
        FrontMetrics.of_told(told, KEYS[:1])


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("accepted", -1),
        ("accepted", True),
        ("accepted", "7"),
        ("lag", float("inf")),
        ("lag", True),
        ("lag", -0.5),
        ("rejected", {"a\nb": 1}),
        ("rejected", {"a": 1.5}),
        ("rejected", []),
        ("tallies", []),
        ("tallies", [1, None]),
        ("in_flight", [1]),
        ("refused", {"durations": [["GET", 200, [1], 1.0]]}),
        ("stages", None),
    ],
    ids=str,
)
def test_what_is_no_count_is_refused(where: str, what: object) -> None:
    """Predicate of trust: the owner does not believe what a front tells."""
    told = counts([(b"GET", 200, 0.1, 0.0, 0.1)]).told(KEYS)
    FrontMetrics.of_told(json.loads(json.dumps(told)), KEYS)
    with pytest.raises(BadFrontMessage):
        FrontMetrics.of_told({**told, where: what}, KEYS)


@pytest.mark.parametrize("kind", [["BREW", 200], ["GET", 99], ["GET", "200"], ["GET", 1000], ["\xff", 200]], ids=str)
def test_a_kind_of_request_that_nobody_counts_is_refused(kind: list[Any]) -> None:
    told = counts([(b"GET", 200, 0.1, 0.0, 0.1)]).told(KEYS)
    told["tallies"][0]["durations"][0][:2] = kind
    with pytest.raises(BadFrontMessage):
        FrontMetrics.of_told(told, KEYS)


FACTS: dict[str, Any] = {
    "draining": False,
    "requests": {"total": 3, "active": 1, "rejected": {"bad_name": 1}},
    "buffers": {"directory": "/tmp", "memory": 5},
    "access_log": None,
    "faults": {"total": 1, "tasks": {"hooks": {"count": 1, "last": "OSError", "age": 1.0, "failing": False}}},
}


def test_facts_of_two_fronts_are_one_view() -> None:
    told = {**FACTS, "requests": {"total": 4, "active": 0, "rejected": {"bare_lf": 2}}}
    total = merge_facts(FACTS, told, "front 1")
    assert total["requests"] == {"total": 7, "active": 1, "rejected": {"bad_name": 1, "bare_lf": 2}}
    assert total["buffers"] == {"directory": "/tmp", "memory": 10}
    assert total["faults"]["total"] == 2
    assert set(total["faults"]["tasks"]) == {"hooks", "hooks (front 1)"}


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"requests": 3},
        {"requests": {"total": -1, "active": 0, "rejected": {}}},
        {"requests": {"total": True, "active": 0, "rejected": {}}},
        {"requests": {"total": 1, "active": 0, "rejected": {"\n": 1}}},
        {"requests": {"total": 1, "active": 0}},
        {"faults": {"total": 1, "tasks": {"hooks": {"count": 1}}}},
        {"faults": {"total": 1, "tasks": {"hooks": {"count": "1", "last": "", "age": 1.0, "failing": False}}}},
        {"faults": {"total": 1, "tasks": []}},
        {"faults": {"total": 1, "tasks": {}, "more": 1}},
        {"faults": None},
    ],
    ids=str,
)
def test_facts_that_are_not_like_ours_are_refused(change: dict[str, Any]) -> None:
    """Predicate of trust."""
    with pytest.raises(BadFrontMessage):
        merge_facts(FACTS, {**FACTS, **change}, "front 1")


def test_requests_that_are_none_are_refused() -> None:
    """Predicate of trust."""
    request = {
        "id": "a-1",
        "method": "GET",
        "path": "/",
        "group": "shop",
        "client": "::1",
        "stage": "app",
        "age": 1.0,
        "in_stage": 0.5,
        "queue_time": 0.0,
        "pid": None,
        "buffered": {},
        "relay": None,
    }
    assert check_requests({"requests": [request]}) == [request]
    for wrong in ({}, {**request, "age": "1"}, {**request, "age": True}, {**request, "more": 1}, 7):
        with pytest.raises(BadFrontMessage):
            check_requests({"requests": [wrong]})
    with pytest.raises(BadFrontMessage):
        check_requests({"requests": None})
