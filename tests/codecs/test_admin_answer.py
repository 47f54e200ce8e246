"""What a command says to an instance and hears from it, without a library for HTTP: the other side (``admin_api``) reads the one and writes the other."""

from __future__ import annotations

import json

import pytest
from admin_requests import read
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.codecs.admin_answer import decode_answer, encode_request, whole_size
from passenger_trio.codecs.admin_api import AdminRequest, encode_answer


@pytest.mark.parametrize("body", [None, b"{}", b'{"more": true}'])
def test_a_request_is_what_the_instance_reads(body: bytes | None) -> None:
    method = "GET" if body is None else "POST"
    assert read([encode_request(method, "/v1/spawn", body)]) == AdminRequest(method, "/v1/spawn", body or b"")


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_an_answer_is_read_whole_or_not_at_all(value: dict[str, str]) -> None:
    data = encode_answer(200, value)
    status, body = decode_answer(data)
    assert (status, json.loads(body)) == (200, value)
    assert whole_size(data) == len(data)
    for end in range(len(data)):
        assert whole_size(data[:end]) in (None, len(data))
        with pytest.raises(ValueError, match=r"no answer|bytes of"):
            decode_answer(data[:end])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}",
    ],
)
def test_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no answer|bytes of"):
        decode_answer(data)


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    data = b"HTTP/1.1 503 Service Unavailable\r\n\r\nwait"
    assert whole_size(data) is None
    assert decode_answer(data) == (503, b"wait")
