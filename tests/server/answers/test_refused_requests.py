"""Fault 31 (ED14): a refused request holds no process, and is in the access log as what it was."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing
from dummy_front import data, get, head, requests, respond, serving, simulated

from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.server.log_limits import REFUSALS_A_SECOND
from passenger_trio.spawning.dummy import DummyProcess
from passenger_trio.system.raw_stream import RawStream

STREAMED = AppOptions(request_buffering=False)
UPLOAD = b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"


async def until_the_end(_: DummyProcess, stream: RawStream) -> None:
    """Answers when the body has ended, as one that reads it all first. (Two requests on one stream do not come here: a refused one ends it.)"""
    received = b""
    while piece := await stream.recv():
        received += piece
        if received.endswith(b"E\0\0\0\0"):
            await stream.send_all(head(200) + data(b"ok") + b"E\0\0\0\0")
            received = b""


@pytest.mark.parametrize("plain_parser", [True, False])
@simulated
async def test_fault_31_a_refused_streamed_body_does_not_hold_its_process(plain_parser: bool) -> None:
    """It was held, and the request logged, when its client had been lingered for: 2 s later, with a size of 0."""
    async with serving(until_the_end, app=STREAMED, options=ServerOptions(plain_parser=plain_parser)) as world:
        refused, other = world.connect(), world.connect()
        refused.send(UPLOAD)
        await trio.sleep(1)
        assert world.sessions == 1
        refused.send(b"zz\r\n")
        answer = await refused.answer()
        assert answer.status == 400
        await world.until(lambda: world.sessions == 0)
        assert trio.current_time() < 1.5
        assert (await other.ask()).body == b"ok"
        assert trio.current_time() < 1.5
        record = world.records[0]
        assert (record.status, record.bytes_sent, record.target) == (400, len(answer.body), b"/up")
        assert 0.9 < record.duration < 1.2
        assert not refused.ended.is_set(), "its client is still lingered for (R29)"
        await refused.ended.wait()
        assert 2.9 < trio.current_time() < 3.5
        assert len(world.records) == 2


@simulated
async def test_fault_31_nor_does_a_truncated_response() -> None:
    """Its kin: the body turns out wrong when the response has begun."""

    async def answers_early(_: DummyProcess, stream: RawStream) -> None:
        await stream.recv()
        await stream.send_all(head(200) + data(b"early"))
        while await stream.recv():
            pass

    async with serving(answers_early, app=STREAMED) as world:
        client = world.connect()
        client.send(UPLOAD)
        await trio.sleep(1)
        client.send(b"zz\r\n")
        assert not (await client.answer()).complete
        await world.until(lambda: world.sessions == 0)
        assert trio.current_time() < 1.5
        assert (world.records[0].status, world.records[0].bytes_sent) == (200, 5)


@pytest.mark.parametrize("plain_parser", [True, False])
@pytest.mark.parametrize("way", ["whole", "byte by byte"])
@pytest.mark.parametrize(
    ("sent", "status", "refusal", "method", "target", "host"),
    [
        (
            b"GET /a?b HTTP/1.1\r\nHost: x.example\r\nX : y\r\n\r\n",
            400,
            "space_before_colon",
            b"GET",
            b"/a?b",
            b"x.example",
        ),
        (
            b"GET /elsewhere HTTP/1.1\r\nHost: x.example\r\nUser-Agent: u\r\n\r\n",
            404,
            "no_application",
            b"GET",
            b"/elsewhere",
            b"x.example",
        ),
        (
            b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n",
            413,
            "body_too_large",
            b"POST",
            b"/a",
            b"x",
        ),
        (b"GET /" + b"a" * 9000, 414, "request_line_too_long", b"GET", b"/" + b"a" * 1019, b""),
        (b"GET /a HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431, "too_many_fields", b"GET", b"/a", b"x"),
        (b"GET /a HTTP/3.0\r\nHost: x\r\n\r\n", 505, "version_not_supported", b"GET", b"/a", b""),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", 501, "connect_refused", b"CONNECT", b"a:1", b""),
        (b"\x16\x03\x01\x02\x00", 400, "control_byte", b"", b"", b""),
        (b"HEAD /a HTTP/1.1\r\n\r\n", 400, "missing_host", b"HEAD", b"/a", b""),
    ],
)
@simulated
async def test_ED14_a_refused_request_is_in_the_log(
    sent: bytes, status: int, refusal: str, method: bytes, target: bytes, host: bytes, way: str, plain_parser: bool
) -> None:
    async with serving(app=AppOptions(base_uri="/shop"), options=ServerOptions(plain_parser=plain_parser)) as world:
        client = world.connect()
        if way == "whole" or len(sent) > 1000:
            client.send(sent)
        else:
            await client.send_slowly([sent[at : at + 1] for at in range(len(sent))])
        answer = await client.answer(method.decode() or "GET")
        assert answer.status == status
        [record] = world.records
        assert (record.status, record.refusal, record.method, record.target) == (status, refusal, method, target)
        assert (record.host, record.bytes_sent, record.group) == (host, len(answer.body), "")
        assert record.agent == (b"u" if status == 404 else b"")


@pytest.mark.parametrize("plain_parser", [True, False])
@simulated
async def test_ED14_a_refused_head_is_logged_with_its_time(plain_parser: bool) -> None:
    """Also where its last bytes are what is wrong with it: the time counts from its first one, as for any request."""
    async with serving(options=ServerOptions(plain_parser=plain_parser)) as world:
        client = world.connect()
        client.send(b"GET /slow HTTP/1.1\r\n")
        await trio.sleep(2)
        client.send(b"Host : x\r\n\r\n")
        assert (await client.answer()).status == 400
        [record] = world.records
        assert (record.target, record.refusal) == (b"/slow", "space_before_colon")
        assert 1.9 < record.duration < 2.5


@simulated
async def test_ED14_a_head_that_comes_too_late_too() -> None:
    async with serving(options=ServerOptions(header_timeout=3)) as world:
        client = world.connect()
        client.send(b"GET /slow HTTP/1.1\r\nHost: x")
        assert (await client.answer()).status == 408
        [record] = world.records
        assert (record.status, record.refusal, record.target) == (408, "header_timeout", b"/slow")
        assert 2.9 < record.duration < 3.5


@simulated
async def test_ED14_the_clients_of_a_trusted_proxy_are_told_apart() -> None:
    async with serving(app=AppOptions(base_uri="/shop")) as world:
        for trusted in (True, False):
            client = world.connect(trusted=trusted)
            client.send(get("/x", "X-Forwarded-For: 203.0.113.9"))
            assert (await client.answer()).status == 404
        assert [record.remote for record in world.records] == ["203.0.113.9", "127.0.0.1"]


def test_ED14_so_many_a_second_at_most(caplog: pytest.LogCaptureFixture) -> None:
    """Refusals cost who sends them nothing; the rest are counted, and the log says how many."""

    @simulated
    async def flood() -> None:
        async with serving() as world:
            for _ in range(REFUSALS_A_SECOND + 20):
                client = world.connect()
                client.send(b"GET / HTTP/1.1\r\n\r\n")
                client.send_eof()
                assert (await client.answer()).status == 400
            assert trio.current_time() < 1
            assert len(world.records) == REFUSALS_A_SECOND
            assert world.front.rejected["missing_host"] == REFUSALS_A_SECOND + 20
            await trio.sleep(1)
            client = world.connect()
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            assert (await client.answer()).status == 400
            assert len(world.records) == REFUSALS_A_SECOND + 1

    with caplog.at_level(logging.WARNING, "passenger_trio"):
        flood()
    assert "20 refused requests are not in the access log" in caplog.text


@simulated
async def test_fault_31_what_a_client_never_got_is_not_counted() -> None:
    """A client that is gone before its response: nothing of it reached anybody."""

    async def slow(_: DummyProcess, stream: RawStream) -> None:
        async for _request in requests(stream):
            await trio.sleep(0.02)
            await stream.send_all(head(200, b"Content-Length: 100000") + data(b"x" * 50000))
            await trio.sleep(5)
            await stream.send_all(data(b"x" * 50000) + b"E\0\0\0\0")

    async with serving(slow) as world:
        client = world.connect()
        client.send(get())
        client.stream.close()
        await client.ended.wait()
        assert world.records[0].bytes_sent == 0


@simulated
async def test_fault_31_nor_what_the_fast_lane_could_not_send() -> None:
    async with serving(respond()) as world:
        client = world.connect()
        client.send(get())
        client.stream.close()
        await client.ended.wait()
        assert [record.bytes_sent for record in world.records] == [0]
