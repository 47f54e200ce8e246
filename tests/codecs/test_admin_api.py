"""The admin API's bytes: a request whole or in pieces, what is refused and how, and answers (KE4)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from admin_requests import post, read

from passenger_trio.codecs.admin_api import (
    MAX_NESTING,
    MAX_REQUEST,
    AdminReader,
    AdminRequest,
    Field,
    encode_answer,
    read_order,
)
from passenger_trio.errors import AdminRefused

GET = b"GET /v1/status?x=y HTTP/1.1\r\nHost: x\r\n\r\n"
FIELDS = {
    "group": Field("string", "its name"),
    "hard": Field("boolean", "at once"),
    "pid": Field("integer", "of a process", is_needed=True),
    "within": Field("number", "seconds", bounds=(0, 60)),
    "groups": Field("array", "some", items={"name": Field("string", "its", is_needed=True)}),
}


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (GET, AdminRequest("GET", "/v1/status", query="x=y")),
        (b"HEAD / HTTP/1.0\r\n\r\n", AdminRequest("HEAD", "/")),
        (post("/v1/drain", b"{}"), AdminRequest("POST", "/v1/drain", b"{}")),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n", AdminRequest("POST", "/", b"[]")),
        (GET + b"what follows is nothing to us", AdminRequest("GET", "/v1/status", query="x=y")),
        (b"GET /v1/\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"", "left"),
        (GET[:-1], 400),
        (post("/", b"abc")[:-1], 400),
        (b"\x16\x03\x01\x02\x00\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (MAX_REQUEST + 1), 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 19 + b"\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * MAX_REQUEST + b"\r\n\r\n", 413),
    ],
)  # fmt: skip
def test_whole_or_in_pieces(data: bytes, outcome: object) -> None:
    assert read([data]) == outcome
    for size in (1, 3, 100):
        assert read([data[at : at + size] for at in range(0, len(data), size)]) == outcome


def test_who_waits_before_the_body_is_asked_for_it_once() -> None:
    head, body = post("/v1/detach", b'{"pid": 1}', "Expect: 100-continue").split(b"\r\n\r\n")
    reader = AdminReader()
    reader.feed(head + b"\r\n\r\n")
    assert reader.next_request() is None
    assert reader.interim() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert reader.interim() == b""
    reader.feed(body)
    assert reader.next_request() == AdminRequest("POST", "/v1/detach", body)


@pytest.mark.parametrize(
    ("body", "order"),
    [
        (b'{"pid": 5}', {"pid": 5}),
        (b'{"pid": 5.0, "hard": true, "group": "a"}', {"pid": 5, "hard": True, "group": "a"}),
        (b'{"pid": 5, "hard": null, "group": null}', {"pid": 5}),
        (b'{"pid": 5, "within": 1, "groups": [{"name": "a"}]}', {"pid": 5, "within": 1, "groups": [{"name": "a"}]}),
        ('{"pid": 5, "group": "\u00e9"}'.encode("utf-16"), {"pid": 5, "group": "\u00e9"}),
    ],
)
def test_an_order(body: bytes, order: dict[str, Any]) -> None:
    assert read_order(body, FIELDS) == order


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "pid is missing"),
        (b"{}", "pid is missing"),
        (b'{"pid": null}', "pid must be a whole number"),
        (b'{"pid": true}', "pid must be a whole number"),
        (b'{"pid": 1.5}', "pid must be a whole number"),
        (b'{"pid": 1e999}', "pid must be a whole number"),
        (b'{"pid": 1, "hard": 1}', "hard must be true or false"),
        (b'{"pid": 1, "group": []}', "group must be a text"),
        (b'{"pid": 1, "pit": 1}', "there is no member 'pit' here; there are: group, hard, pid, within, groups"),
        (b'{"pid": 1, "within": "1"}', "within must be a number"),
        (b'{"pid": 1, "within": 61}', "within must be from 0 to 60"),
        (b'{"pid": 1, "within": -1e9}', "within must be from 0 to 60"),
        (b'{"pid": 1, "within": 1e999}', "within must be from 0 to 60"),
        (b'{"pid": 1, "groups": [1]}', "groups must be a list of objects"),
        (b'{"pid": 1, "groups": {}}', "groups must be a list of objects"),
        (b'{"pid": 1, "groups": [{}]}', "name is missing"),
        (b'{"pid": 1, "groups": [{"name": "a", "x": 1}]}', "there is no member 'x' here; there are: name"),
        (b'{"pid": NaN}', "JSON object"),
        (b'{"pid": 1' + b"0" * 10_000 + b"}", "JSON object"),
        (b"[" * 15_000, "brackets"),
        (b'{"a":' * 3_000, "brackets"),
        (b"[" * MAX_NESTING + b"]" * MAX_NESTING, "JSON object"),
        (b"[]", "JSON object"),
        (b"nonsense", "JSON object"),
        (b"\xff\xff\xff", "JSON object"),
    ],
)
def test_an_order_that_cannot_be_read(body: bytes, words: str) -> None:
    """KE4, fault 4: also one that is nested deeply, or has a number that is too long."""
    with pytest.raises(AdminRefused, match=words) as caught:
        read_order(body, FIELDS)
    assert caught.value.status == 422


def test_the_answer_to_head_is_that_to_get_without_its_body() -> None:
    """Fault 4; RFC 9110 section 9.3.2."""
    whole = encode_answer(200, {"a": 1})
    head, _, body = whole.partition(b"\r\n\r\n")
    assert json.loads(body) == {"a": 1}
    assert b"Content-Length: %d" % len(body) in head
    assert encode_answer(200, {"a": 1}, is_head=True) == head + b"\r\n\r\n"
    assert encode_answer(200, json.dumps({"a": 1}).encode()) == whole
    assert b"\r\nAllow: GET, HEAD\r\n" in encode_answer(405, {}, allow="GET, HEAD")
