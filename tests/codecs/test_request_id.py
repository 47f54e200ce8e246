"""OB4: what a proxy says of a request's id and of its start, and the pairs that a request owns."""

from __future__ import annotations

import pytest

from passenger_trio.codecs.request_id import (
    NO_REQUEST_ID,
    RequestId,
    make_id_pairs,
    proxy_time,
    read_request_id,
    request_id_of,
)

Fields = list[tuple[bytes, bytes]]


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        (b"abc-1.2_3:4/5+6=7@8", b"abc-1.2_3:4/5+6=7@8"),
        (b"a" * 128, b"a" * 128),
        (b"a" * 129, b""),
        (b"", b""),
        (b"a b", b""),
        (b"a\xe9", b""),
        (b'"a"', b""),
    ],
)
def test_OB4_an_id_is_one_short_plain_word(sent: bytes, taken: bytes) -> None:
    assert read_request_id([(b"X-Request-ID", sent)]).request_id == taken


@pytest.mark.parametrize(
    ("sent", "started"),
    [
        (b"t=1512379167.574", 1512379167.574),
        (b"t=1512379167.574123", 1512379167.574123),
        (b"1512379167.574", 1512379167.574),
        (b"1512379167574", 1512379167.574),
        (b"t=1512379167574", 1512379167.574),
        (b"t=1512379167574123", 1512379167.574123),
        (b"t=1512379167574123456", 1512379167.574123),
        (b"t=1512379167", 1512379167.0),
    ],
)
def test_OB4_a_start_is_read_in_each_unit_that_proxies_write(sent: bytes, started: float) -> None:
    said = read_request_id([(b"x-request-start", sent)])
    assert said.start == sent
    assert said.started == pytest.approx(started, abs=1e-6)


@pytest.mark.parametrize("sent", [b"", b"now", b"t=", b"t=-1512379167.0", b"t=12", b"t=99999999999.0", b"t=1512379167,5", b"t=1512379167.574 ", b"t=9" * 30])  # fmt: skip
def test_OB4_a_start_that_is_no_time_says_nothing(sent: bytes) -> None:
    assert read_request_id([(b"X-Request-Start", sent)]) == RequestId()


def test_OB4_what_is_said_twice_is_not_said() -> None:
    fields: Fields = [(b"X-Request-ID", b"a"), (b"x-request-id", b"b"), (b"X-REQUEST-ID", b"c")]
    assert read_request_id(fields).request_id == b""
    start = (b"X-Request-Start", b"t=1512379167.5")
    assert read_request_id([start, start]).start == b""


def test_OB4_most_requests_say_nothing() -> None:
    assert (
        read_request_id([(b"Host", b"a"), (b"Content-Type", b"x-request-id"), (b"Accept-Charset1", b"x")])
        is NO_REQUEST_ID
    )


@pytest.mark.parametrize(("started", "waited"), [(99.5, 0.5), (101.0, 0.0), (0.0, 100.0), (100.0, 0.0)])
def test_OB4_the_time_in_front_of_us_is_never_negative(started: float, waited: float) -> None:
    assert proxy_time(RequestId(b"", b"t", started), 100.0) == waited


def test_OB4_a_clock_that_is_wrong_by_more_than_an_hour_is_no_wait() -> None:
    assert proxy_time(RequestId(b"", b"t", 1e9), 1e9 + 3599) == 3599
    assert proxy_time(RequestId(b"", b"t", 1e9), 1e9 + 3600) == 0
    assert proxy_time(NO_REQUEST_ID, 1.6e9) == 0


def test_OB4_the_id_is_found_in_the_pairs() -> None:
    for pairs in (make_id_pairs(b"id", b"t=1"), make_id_pairs(b"id", b"")):
        assert pairs.endswith(b"\0")
        assert request_id_of(pairs) == b"id"
    assert make_id_pairs(b"id", b"t=1") == b"HTTP_X_REQUEST_ID\0id\0HTTP_X_REQUEST_START\0t=1\0"
