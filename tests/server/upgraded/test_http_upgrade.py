"""The upgrade relay in front of processes that speak HTTP: what begins it, what refuses it, and that no byte around the 101 is lost.

What the relay does from there on does not depend on the process's worker protocol: ``test_upgrade.py``.
"""

from __future__ import annotations

import h11
import pytest
import trio
import trio.testing
from dummy_front import Client, World, get, serving, simulated
from test_http_workers import OK, Asked, answering, asked, one_by_one, speaking
from test_upgrade import ASK, BULK, SWITCHED, WISH, echo, receive, receive_exactly

from passenger_trio.spawning.dummy import DummyProcess, DummySpawner
from passenger_trio.system.raw_stream import RawStream

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: yes\r\n\r\n"


def upgrading(answer: bytes = ANSWER, *, bytewise: bool = False, seen: list[Asked] | None = None) -> DummySpawner:
    """Answers the first request of a stream with these bytes, and then as ``echo``."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in asked(stream):
            if seen is not None:
                seen.append(request)
            for piece in one_by_one(answer) if bytewise else [answer]:
                await stream.send_all(piece)
                if bytewise:
                    await trio.testing.wait_all_tasks_blocked()
            await echo(stream)
            return

    return speaking(serve)


async def upgraded(world: World, more: bytes = b"") -> Client:
    client = world.connect()
    client.send(ASK + more)
    assert await receive_exactly(client, len(SWITCHED)) == SWITCHED
    return client


@simulated
async def test_bytes_go_both_ways() -> None:
    seen: list[Asked] = []
    async with serving(spawner=upgrading(seen=seen)) as world:
        client = await upgraded(world)
        for word in (b"one", b"two", b"three"):
            client.send(word)
            assert await client.receive() == word.upper()
        assert world.sessions == 1
        client.send_eof()
        assert await client.at_end()
        await client.ended.wait()
        assert world.sessions == 0
        (process,) = world.pool.processes.values()
        assert (process.streams, process.idle_streams) == (0, [])
    (record,) = world.records
    assert (record.status, record.bytes_sent, record.received) == (101, 11, 11)
    (request,) = seen
    assert request.field(b"upgrade") == b"websocket"
    assert request.field(b"connection") == b"Upgrade"
    assert request.field(b"sec-websocket-version") == b"13"
    assert request.field(b"sec-websocket-key")


@simulated
async def test_what_came_with_the_handshake_in_either_direction_is_not_lost() -> None:
    wire = ANSWER + b"first\r\n\r\n\x81\x05hello"
    for bytewise in (False, True):
        async with serving(spawner=upgrading(wire, bytewise=bytewise)) as world:
            client = world.connect()
            client.send(ASK + b"early")
            client.send_eof()
            assert await client.receive_all() == SWITCHED + wire[len(ANSWER) :] + b"EARLY"


@simulated
async def test_the_request_may_come_byte_by_byte_too() -> None:
    async with serving(spawner=upgrading(b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n" + ANSWER, bytewise=True)) as world:
        client = world.connect()
        await client.send_slowly(one_by_one(ASK + b"abc"))
        client.send_eof()
        came = await client.receive_all()
        assert came.startswith(b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n" + SWITCHED)
        assert came.endswith(SWITCHED + b"ABC")


def test_bulk() -> None:
    async def run() -> None:
        async with serving(spawner=upgrading(), deadline=60) as world:
            client = await upgraded(world)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.stream.send_all, BULK)
                assert await receive_exactly(client, len(BULK)) == BULK.upper()

    trio.run(run)


@pytest.mark.parametrize(
    "answer",
    [OK, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", b"HTTP/1.1 426 No\r\nContent-Length: 0\r\n\r\n"],
)
@simulated
async def test_a_refusal_is_a_response_and_the_connection_goes_on(answer: bytes) -> None:
    for pieces in ([answer], one_by_one(answer)):
        async with serving(spawner=answering(*pieces)) as world:
            client = world.connect()
            for _ in range(2):
                client.send(ASK)
                found = await client.answer()
                assert (found.status, found.complete) == (int(answer[9:12]), True)
                client.send(get())
                assert (await client.answer()).status == found.status
            assert len(world.spawner.processes) == 1
            assert world.sessions == 0


@pytest.mark.parametrize(
    "asking",
    [
        get(),
        get("/", "Upgrade: websocket"),
        get("/", "Connection: upgrade", "Upgrade: h2c"),
        get("/", *WISH, version="1.0"),
    ],
    ids=["nothing", "no connection option", "another protocol", "HTTP/1.0"],
)
@pytest.mark.parametrize("bytewise", [False, True])
@simulated
async def test_R24_an_upgrade_that_was_not_asked_for_is_no_response(asking: bytes, bytewise: bool) -> None:
    seen: list[Asked] = []
    async with serving(spawner=upgrading(ANSWER + b"raw", bytewise=bytewise, seen=seen)) as world:
        client = world.connect()
        client.send(asking)
        answer = await client.answer()
        assert (answer.status, b"raw" in answer.body) == (502, False)
        assert (seen[0].field(b"upgrade"), seen[0].field(b"connection")) == (None, None)
        assert world.sessions == 0


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (ANSWER.replace(b"upgrade: websocket", b"upgrade: h2c"), 500),
        (ANSWER.replace(b"HTTP/1.1", b"HTTP/1.0"), 502),
        (ANSWER.replace(b"yes", b"a\x01b"), 502),
        (ANSWER.replace(b"Connection: upgrade", b"Connection : upgrade"), 502),
        (ANSWER.replace(b"\r\n", b"\n"), 502),
    ],
    ids=["another protocol", "HTTP/1.0", "control character", "space before the colon", "bare LF"],
)
@pytest.mark.parametrize("bytewise", [False, True])
@simulated
async def test_R24_a_wrong_101_never_reaches_the_client(answer: bytes, status: int, bytewise: bool) -> None:
    async with serving(spawner=upgrading(answer + b"raw", bytewise=bytewise)) as world:
        client = world.connect()
        client.send(ASK)
        found = await client.answer()
        assert (found.status, b"raw" in found.body) == (status, False)
        assert world.sessions == 0


@simulated
async def test_a_process_that_goes_in_the_middle_of_its_101() -> None:
    for at in range(1, len(ANSWER)):
        async with serving(spawner=answering(ANSWER[:at], close=True)) as world:
            client = world.connect()
            client.send(ASK)
            assert (await client.answer()).status == 502


@simulated
async def test_R30_a_wish_that_crosses_the_end_of_an_idle_stream_is_sent_again() -> None:
    streams = 0

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        nonlocal streams
        streams += 1
        requests = asked(stream)
        request = await anext(requests)
        if request.field(b"upgrade"):
            await stream.send_all(ANSWER)
            await echo(stream)
            return
        await stream.send_all(OK)
        await anext(requests, None)

    async with serving(spawner=speaking(serve)) as world:
        assert (await world.connect().ask()).body == b"ok"
        client = await upgraded(world)
        client.send(b"a")
        assert await client.receive() == b"A"
        assert streams == 2


@simulated
async def test_h11_on_the_other_side_agrees() -> None:
    """A server that is written against h11: it proposes nothing that was not asked, and hands over what came too early."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        server = h11.Connection(h11.SERVER)
        while True:
            event = server.next_event()
            if event is h11.NEED_DATA:
                server.receive_data(await receive(stream))
            elif event is h11.PAUSED or isinstance(event, h11.EndOfMessage):
                break
        fields = [("Upgrade", "websocket"), ("Connection", "upgrade"), ("Sec-WebSocket-Accept", "yes")]
        switch = server.send(h11.InformationalResponse(status_code=101, headers=fields, reason=b"Switching Protocols"))
        assert switch is not None
        await stream.send_all(switch)
        await stream.send_all(server.trailing_data[0].upper())
        await echo(stream)

    async with serving(spawner=speaking(serve)) as world:
        client = await upgraded(world, b"early")
        assert await receive_exactly(client, 5) == b"EARLY"
        client.send(b"late")
        assert await receive_exactly(client, 4) == b"LATE"
