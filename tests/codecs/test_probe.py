"""Fault 29: what is written to find out whether a client is there still says nothing to one that is (``ClientSide.probe``)."""

from __future__ import annotations

import h11
import pytest

from passenger_trio.codecs.head import HttpLimits
from passenger_trio.codecs.http1 import ClientSide

DATE = b"Sun, 29 Nov 2026 16:00:00 GMT"


def side(plain_parser: bool, version: bytes = b"1.1", method: bytes = b"GET") -> ClientSide:
    made = ClientSide(HttpLimits(), plain_parser=plain_parser)
    made.receive(method + b" / HTTP/" + version + b"\r\nHost: x\r\n\r\n")
    assert made.next_head() is not None
    return made


def read(wire: bytes) -> tuple[list[int], bytes]:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(wire)
    statuses, body = [], b""
    while True:
        event = client.next_event()
        if isinstance(event, h11.InformationalResponse | h11.Response):
            statuses.append(event.status_code)
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        else:
            assert isinstance(event, h11.EndOfMessage)
            return statuses, body


@pytest.mark.parametrize("plain_parser", [True, False])
@pytest.mark.parametrize("at", range(4))
def test_a_client_reads_the_same_wherever_it_comes(plain_parser: bool, at: int) -> None:
    made = side(plain_parser)
    steps = [
        lambda: made.begin_response(200, b"OK", [], length=None, date=DATE),
        lambda: b"".join(made.response_body(b"one" * 10)),
        lambda: b"".join(made.response_body(b"two")),
        made.end_response,
    ]
    wire = b""
    for number, step in enumerate(steps):
        if number == at:
            probe = made.probe()
            assert probe == (b"0" if at else b"HTTP/1.1 100 Continue\r\n\r\n")
            assert made.probe() == b"", "once is enough"
            wire += probe
        wire += step()
    assert read(wire) == ([200] if at else [100, 200], b"one" * 10 + b"two")


@pytest.mark.parametrize("plain_parser", [True, False])
def test_where_there_is_nothing_to_say(plain_parser: bool) -> None:
    assert side(plain_parser, b"1.0").probe() == b""
    sized = side(plain_parser)
    sized.begin_response(200, b"OK", [], length=5, date=DATE)
    assert sized.probe() == b""
    muted = side(plain_parser, method=b"HEAD")
    muted.begin_response(200, b"OK", [], length=None, date=DATE)
    assert muted.probe() == b""


@pytest.mark.parametrize("plain_parser", [True, False])
def test_nothing_is_said_behind_a_response(plain_parser: bool) -> None:
    """HO5: a zero there would begin the next one."""
    made = side(plain_parser)
    made.begin_response(200, b"OK", [], length=None, date=DATE)
    made.end_response()
    assert made.probe() == b""
