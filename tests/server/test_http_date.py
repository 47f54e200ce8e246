"""The date in HTTP is that of the standard library, which costs more to import."""

from __future__ import annotations

from email.utils import formatdate

from hypothesis import example, given
from hypothesis import strategies as st

from passenger_trio.server.http_date import http_date


@given(st.integers(0, 253402300799))
@example(784111777)
def test_DE10_the_same_as_that_of_the_standard_library(seconds: int) -> None:
    assert http_date(seconds) == formatdate(seconds, usegmt=True).encode()


def test_the_example_of_the_rfc() -> None:
    assert http_date(784111777) == b"Sun, 06 Nov 1994 08:49:37 GMT"
