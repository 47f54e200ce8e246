"""OB4: W3C Trace Context by its text: https://www.w3.org/TR/trace-context/ (sections in the names are of that)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.codecs.trace_context import (
    MOST_MEMBERS,
    TraceParent,
    new_traceparent,
    read_trace,
    read_traceparent,
    read_tracestate,
    without_trace,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01".encode()


def test_OB4_a_traceparent_is_read_and_written() -> None:
    found = read_traceparent(GOOD)
    assert found == TraceParent(TRACE, SPAN, 1)
    assert found.sampled
    assert found.encode() == GOOD
    unsampled = read_traceparent(GOOD[:-2] + b"02")
    assert unsampled is not None
    assert not unsampled.sampled


@pytest.mark.parametrize(
    "value",
    [
        b"",
        GOOD[:-1],
        GOOD + b"-",
        GOOD + b"-what",
        GOOD.upper(),
        b" " + GOOD,
        GOOD.replace(b"-", b"_"),
        GOOD.replace(b"0a", b"0g", 1),
        b"0-" + GOOD[3:],
        b"ff" + GOOD[2:],
        f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        f"00-{TRACE}-{SPAN}-0x".encode(),
        b"cc" + GOOD[2:] + b"x",
        b"cc" + GOOD[2:] + b".what",
        GOOD + b"\n",
        "00-０af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".encode(),
    ],
)
def test_OB4_3_2_what_is_no_traceparent_is_none(value: bytes) -> None:
    assert read_traceparent(value) is None


@pytest.mark.parametrize("value", [b"cc" + GOOD[2:], b"cc" + GOOD[2:] + b"-", b"01" + GOOD[2:] + b"-what the future will be like"])  # fmt: skip
def test_OB4_3_2_4_a_later_version_is_read_as_its_first_parts(value: bytes) -> None:
    assert read_traceparent(value) == TraceParent(TRACE, SPAN, 1)


@pytest.mark.parametrize(
    ("value", "members"),
    [
        (b"", []),
        (b" , ,\t,", []),
        (b"a=1", [("a", "1")]),
        (b"rojo=00f067aa0ba902b7 ,\tcongo=t61rcWkgMzE", [("rojo", "00f067aa0ba902b7"), ("congo", "t61rcWkgMzE")]),
        (b"fw529a3039@dt=FfD0:2", [("fw529a3039@dt", "FfD0:2")]),
        (b"0a-_*/@x=!", [("0a-_*/@x", "!")]),
        (b"a= inner space", [("a", " inner space")]),
        (b"a" * 256 + b"=" + b"v" * 256, [("a" * 256, "v" * 256)]),
        (b"a" * 241 + b"@" + b"b" * 14 + b"=1", [("a" * 241 + "@" + "b" * 14, "1")]),
    ],
)
def test_OB4_3_3_a_tracestate_is_read(value: bytes, members: list[tuple[str, str]]) -> None:
    assert read_tracestate(value) == members


@pytest.mark.parametrize(
    "value",
    [b"a", b"=1", b"a=", b"A=1", b"1a=1", b"a =1", b"a=1=2", b"a=\xe9", b"a=1\tb", b"a@=1", b"@a=1", b"a@1=1", b"a@b@c=1", b"a=1,a=2", b"a=1;b=2,c",
     b"a" * 257 + b"=1", b"a=" + b"v" * 257, b"a" * 242 + b"@b=1", b"a@" + b"b" * 15 + b"=1"],
)  # fmt: skip
def test_OB4_3_3_what_is_no_tracestate_is_none(value: bytes) -> None:
    assert read_tracestate(value) is None


def test_OB4_3_3_1_1_there_are_at_most_32_members() -> None:
    members = [b"k%d=v" % number for number in range(MOST_MEMBERS)]
    found = read_tracestate(b",".join(members))
    assert found is not None
    assert len(found) == 32
    assert read_tracestate(b",".join([*members, b"one=more"])) is None


@pytest.mark.parametrize(
    ("fields", "parent", "members", "goes_on"),
    [
        ([], None, [], True),
        ([(b"traceparent", GOOD)], TraceParent(TRACE, SPAN, 1), [], True),
        ([(b"TraceParent", GOOD), (b"TraceState", b"a=1"), (b"tracestate", b"b=2")], TraceParent(TRACE, SPAN, 1), [("a", "1"), ("b", "2")], True),
        ([(b"traceparent", GOOD), (b"tracestate", b"bad")], TraceParent(TRACE, SPAN, 1), [], False),
        ([(b"traceparent", b"bad"), (b"tracestate", b"a=1")], None, [], False),
        ([(b"tracestate", b"a=1")], None, [], False),
        ([(b"traceparent", GOOD), (b"traceparent", GOOD)], None, [], False),
    ],
)  # fmt: skip
def test_OB4_both_fields_together(
    fields: list[tuple[bytes, bytes]],
    parent: TraceParent | None,
    members: list[tuple[str, str]],
    goes_on: bool,
) -> None:
    others = [(b"Host", b"a"), (b"traceparens", b"x"), (b"Accept-Foo", b"y")]
    assert read_trace([*others, *fields]) == (parent, members, goes_on)
    assert without_trace([*others, *fields]) == others


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**64 - 1))
def test_OB4_what_is_made_can_be_read(trace: int, span: int) -> None:
    made = new_traceparent(trace, span)
    assert read_traceparent(made.encode()) == made
    assert made.sampled
