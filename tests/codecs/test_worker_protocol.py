"""A request in the session protocol: how its head and its body are put into frames, and which responses are read in one step."""

from __future__ import annotations

import struct

import pytest

from passenger_trio.codecs.head import Head
from passenger_trio.codecs.session_protocol import BODY_END, ResponseReader
from passenger_trio.codecs.worker_protocol import SESSION, SESSION_ENCODING
from passenger_trio.errors import RequestError

HEAD = Head(b"GET", b"/a", b"/a", b"", b"1.1", b"a", [(b"Host", b"a")])


def frames(data: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    while data:
        kind, length = struct.unpack_from(">cI", data)
        found.append((kind, data[5 : 5 + length]))
        data = data[5 + length :]
    return found


def request(body: bytes, whole: bool, head: Head = HEAD) -> bytes:
    data, encoding = SESSION.request(
        head, b"SERVER_NAME\0a\0", b"", False, b"HTTP_X_REQUEST_ID\0id\0", body, whole, None
    )
    assert encoding is SESSION_ENCODING
    return data


def test_a_whole_request() -> None:
    (head, end) = frames(request(b"", True))
    assert head[0] == b"H"
    assert head[1].startswith(b"REQUEST_METHOD\0GET\0") or b"\0REQUEST_METHOD\0GET\0" in head[1]
    assert end == (b"E", b"")
    assert frames(request(b"abc", True)) == [head, (b"D", b"abc"), end]


def test_a_request_whose_body_is_not_here_as_a_whole() -> None:
    (head,) = frames(request(b"", False))
    assert head[0] == b"H"
    assert frames(request(b"abc", False)) == [head, (b"D", b"abc")]
    assert frames(SESSION_ENCODING.piece(b"def")) == [(b"D", b"def")]
    assert frames(SESSION_ENCODING.before(3) + b"def" + SESSION_ENCODING.after) == [(b"D", b"def")]
    assert frames(SESSION_ENCODING.end) == [(b"E", b"")] == frames(BODY_END)


def test_a_head_that_no_process_takes() -> None:
    head = Head(b"GET", b"/", b"/", b"", b"1.1", b"a", [(b"X-%d" % n, b"x" * 8000) for n in range(200)])
    with pytest.raises(RequestError) as told:
        request(b"", True, head)
    assert told.value.status == 431


def test_a_response_that_is_here_as_a_whole() -> None:
    head = b"200\0OK\0Content-Length\x003\0"
    data = b"".join(
        struct.pack(">cI", kind, len(payload)) + payload
        for kind, payload in ((b"R", head), (b"D", b"abc"), (b"E", b""))
    )
    found = SESSION.read_whole_response(data, b"GET")
    assert found is not None
    assert found[:2] == (head, b"abc")
    assert SESSION.read_whole_response(data[:-1], b"GET") is None
    assert SESSION.read_whole_response(data + b"H", b"GET") is None
    assert isinstance(SESSION.reader(b"GET"), ResponseReader)


def test_streams_are_kept_and_half_closed() -> None:
    assert (SESSION.name, SESSION.awaits_end, SESSION.keeps_idle) == ("session", True, True)
