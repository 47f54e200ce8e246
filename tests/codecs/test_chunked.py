"""The chunk scanner by itself (R15 to R17): how far the bytes are good, and what looking at them costs."""

from __future__ import annotations

import pytest

from passenger_trio.codecs.chunked import FREE_CHUNKS, MIN_MEAN_CHUNK, ChunkScan
from passenger_trio.codecs.head import HttpLimits
from passenger_trio.codecs.lines import LineScan

LIMITS = HttpLimits()


def test_R15_it_takes_its_own_body_and_no_more() -> None:
    body = b"5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n"
    scan = ChunkScan(LIMITS)
    assert scan.scan(body + b"GET / HTTP/1.1\r\n") == len(body)
    assert scan.complete
    assert (scan.total, scan.chunks, scan.failure) == (8, 2, None)
    assert scan.scan(b"more") == 0


def test_R15_it_is_complete_at_the_last_byte_only() -> None:
    body = b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"
    scan = ChunkScan(LIMITS)
    for at in range(len(body)):
        assert not scan.complete
        assert scan.scan(body[at : at + 1]) == 1
    assert scan.complete


def test_R15_good_bytes_in_front_of_bad_ones() -> None:
    scan = ChunkScan(LIMITS)
    assert scan.scan(b"5\r\nhello\r\nzz\r\n") == 10
    assert scan.failure is not None
    assert scan.failure.code == "bad_chunk_size"
    assert scan.total == 5


@pytest.mark.parametrize(
    "bad", [b"1;" + b"a" * 400, b"1;a\nb", b"1;a\x01", b"1;a\rb"], ids=["long", "lf", "control", "cr"]
)
def test_ED13_what_is_good_is_given_once_also_before_an_extension_that_is_refused(bad: bytes) -> None:
    """Fault 26: of a line that is refused before it is whole, too."""
    good = b"5\r\nhello\r\n1;a=b\r\nx\r\n"
    scan = ChunkScan(LIMITS)
    assert scan.scan(good + bad) == len(good)
    assert scan.failure is not None
    assert scan.clean == good


def test_R16_no_line_is_copied_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines with extensions leave the short way; each of their bytes is fed once, however many are in one read."""
    fed = 0
    feed = LineScan.feed

    def counting(self: LineScan, data: bytes) -> None:
        nonlocal fed
        fed += len(data)
        feed(self, data)

    monkeypatch.setattr(LineScan, "feed", counting)
    data = b"10;a\r\n0123456789abcdef\r\n" * 2000
    for size in (1, 100, len(data)):
        fed = 0
        scan = ChunkScan(LIMITS)
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            assert scan.scan(piece) == len(piece)
        assert fed <= 2000 * len(b"10;a\r\n")


def test_R17_a_body_of_just_what_is_allowed() -> None:
    scan = ChunkScan(HttpLimits(max_request_body=8))
    scan.scan(b"5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n")
    assert scan.complete
    assert scan.failure is None
    scan = ChunkScan(HttpLimits(max_request_body=7))
    scan.scan(b"5\r\nhello\r\n3\r\nabc\r\n")
    assert scan.failure is not None


def test_R16_a_few_small_chunks_are_no_flood() -> None:
    scan = ChunkScan(LIMITS)
    few = b"1\r\nx\r\n" * FREE_CHUNKS
    assert scan.scan(few) == len(few)
    assert scan.failure is None


def test_R16_small_chunks_in_any_number_if_they_carry_something() -> None:
    scan = ChunkScan(HttpLimits(max_request_body=0))
    chunk = b"8\r\n01234567\r\n"
    assert MIN_MEAN_CHUNK == 8
    assert scan.scan(chunk * (FREE_CHUNKS * 4)) == len(chunk) * FREE_CHUNKS * 4
    assert scan.failure is None
    scan = ChunkScan(HttpLimits(max_request_body=0))
    scan.scan(b"1\r\nx\r\n" * (FREE_CHUNKS * 4))
    assert scan.failure is not None
    assert scan.failure.code == "tiny_chunks"
    assert scan.chunks < FREE_CHUNKS * 1.2
