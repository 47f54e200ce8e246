"""OB1: requests and transitions are counted exactly, whatever the order and the batches they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.commands import Reason, reason_word
from passenger_trio.core.duration_histogram import REQUEST_BOUNDS, Histogram
from passenger_trio.core.metric_counts import OTHER, RequestTally, close_word

TIMES = st.one_of(st.sampled_from([0.0, *REQUEST_BOUNDS, 0.00499, 10.01]), st.floats(0, 100))
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from([b"GET", b"POST", b"get", b"BREW"]), st.sampled_from([200, 404, 502]), TIMES, TIMES, TIMES
    )
)


def one_by_one(times: list[float]) -> list[int]:
    told = Histogram()
    for time in times:
        told.observe(time)
    return told.counts


@given(batches=st.lists(REQUESTS))
def test_OB2_a_batch_counts_as_its_requests_would(
    batches: list[list[tuple[bytes, int, float, float, float]]],
) -> None:
    tally = RequestTally()
    for batch in batches:
        for request in batch:
            tally.finished(request)
        tally.fold()
    every = [request for batch in batches for request in batch]
    assert tally.count == len(every)
    for (method, status), told in tally.durations.items():
        mine = [
            one[2]
            for one in every
            if (one[0].decode() if one[0] in (b"GET", b"POST") else OTHER) == method and one[1] == status
        ]
        assert told.counts == one_by_one(mine)
        assert told.seconds == pytest.approx(sum(mine))
    assert tally.queue.counts == one_by_one([one[3] for one in every if one[3]])
    assert tally.app.counts == one_by_one([one[4] for one in every if one[4]])


@given(here=REQUESTS, there=REQUESTS)
def test_OB1_tallies_of_several_servers_add_up(
    here: list[tuple[bytes, int, float, float, float]], there: list[tuple[bytes, int, float, float, float]]
) -> None:
    one, other, both = RequestTally(), RequestTally(), RequestTally()
    for request in here:
        one.finished(request)
        both.finished(request)
    for request in there:
        other.finished(request)
        both.finished(request)
    one.retried, other.retried = 2, 3
    other.websocket_ended("1000")
    one.add(other)
    assert {kind: told.counts for kind, told in one.durations.items()} == {
        kind: told.counts for kind, told in both.durations.items()
    }
    assert one.queue.counts == both.queue.counts
    assert one.app.counts == both.app.counts
    assert (one.retried, one.websockets["1000"]) == (5, 1)


def test_OB1_a_bound_belongs_to_the_times_below_it() -> None:
    """Prometheus: ``le`` is less than or equal."""
    told = Histogram((1.0, 2.0))
    told.observe_all([0.0, 1.0, 1.1, 2.0, 2.1])
    assert told.counts == [2, 2, 1]
    told.observe_all([0.0, 0.0, 3.0], positive=True)
    assert told.counts == [2, 2, 2]
    assert told.count == 6


@pytest.mark.parametrize(
    ("code", "word"), [(1000, "1000"), (1006, "1006"), (1015, "1015"), (1016, "1xxx"), (3001, "3xxx"), (4999, "4xxx")]
)
def test_OB1_codes_that_clients_choose_have_few_labels(code: int, word: str) -> None:
    assert close_word(code) == word


def test_OB1_every_reason_has_a_word_of_its_own() -> None:
    words = [reason_word(reason.value) for reason in Reason]
    assert len(set(words)) == len(words)
    assert all(word.replace("_", "").isalpha() and word.islower() for word in words)
    assert reason_word("the pool is cut off") == "other"
