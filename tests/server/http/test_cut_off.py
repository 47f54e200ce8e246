"""The server ends while a request is in hand: who has no byte of a response is told so, and the access log tells who ended it (R45, OP24)."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from dummy_front import Client, World, data, get, head, post, requests, serving, simulated

from passenger_trio.spawning.dummy import DummyProcess
from passenger_trio.system.raw_stream import RawStream


async def silent(process: DummyProcess, stream: RawStream) -> None:
    """Takes each request, and never answers."""
    async for _ in requests(stream):
        pass


async def begins(process: DummyProcess, stream: RawStream) -> None:
    """Begins each response, and never ends it."""
    async for _ in requests(stream):
        await stream.send_all(head(200) + data(b"begun"))


async def cut(client: Client, after: float = 1.0) -> bytes:
    """All that the client gets when the connection's task is cancelled, as at the end of the server's grace."""
    await trio.sleep(after)
    client.outer.cancel()
    received = await client.receive_all()
    await client.ended.wait()
    return received


def statuses(world: World) -> list[int]:
    return [record.status for record in world.records]


def assert_told(received: bytes) -> None:
    lines = received.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 503 Service Unavailable"
    assert b"Connection: close" in lines
    assert b"Cache-Control: no-store" in lines


@pytest.mark.parametrize("after", [0.0, 0.01, 1.0])
@simulated
async def test_R45_who_waits_for_the_application_is_told_on_the_fast_path_and_on_the_slow_one(after: float) -> None:
    async with serving(silent) as world:
        client = world.connect()
        client.send(get("/thinks"))
        await trio.testing.wait_all_tasks_blocked()
        received = await cut(client, after)
        assert_told(received)
        assert statuses(world) == [503]
        assert world.records[0].bytes_sent == len(received.partition(b"\r\n\r\n")[2]) > 0


@simulated
async def test_R45_who_waits_in_the_queue_is_told() -> None:
    async with serving(silent) as world:
        first, second = world.connect(), world.connect()
        first.send(get("/first"))
        await trio.sleep(0.5)
        second.send(get("/second"))
        await world.until(lambda: world.queue_length == 1)
        assert_told(await cut(second))
        assert statuses(world) == [503]
        assert_told(await cut(first))


@simulated
async def test_R45_who_still_sends_is_told_and_what_is_unread_does_not_destroy_it() -> None:
    async with serving(silent) as world:
        client = world.connect()
        wire = post(bytes(50_000))
        client.send(wire[:20_000])
        await trio.sleep(0.5)
        client.send(wire[20_000:30_000])
        assert_told(await cut(client))
        assert statuses(world) == [503]


@simulated
async def test_R45_the_answer_to_HEAD_has_no_body() -> None:
    async with serving(silent) as world:
        client = world.connect()
        client.send(get("/thinks", method="HEAD"))
        received = await cut(client)
        assert_told(received)
        assert received.endswith(b"\r\n\r\n")
        assert world.records[0].bytes_sent == 0


@simulated
async def test_R45_a_response_that_has_begun_is_cut_short_and_logged_with_its_own_status() -> None:
    async with serving(begins) as world:
        client = world.connect()
        client.send(get("/begins"))
        received = await cut(client)
        assert received.startswith(b"HTTP/1.1 200 OK")
        assert not received.endswith(b"0\r\n\r\n")  # R24: it does not look whole
        assert b" 503 " not in received
        assert statuses(world) == [200]


@simulated
async def test_R45_a_client_that_has_left_is_logged_as_one_that_has_left() -> None:
    async with serving(silent) as world:
        client = world.connect()
        client.send(get("/thinks"))
        await trio.sleep(1)
        client.reset()
        await client.ended.wait()
        assert statuses(world) == [499]


@simulated
async def test_R45_between_two_requests_nothing_is_said() -> None:
    async with serving(silent) as world:
        client = world.connect()
        client.send(b"GET / HTT")
        assert await cut(client) == b""
        assert statuses(world) == []


@simulated
async def test_KE1_what_a_fault_of_ours_has_ended_is_not_logged_as_a_client_that_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fails(*_: object) -> bool:
        raise RuntimeError("a fault")

    async with serving(silent) as world:
        monkeypatch.setattr("passenger_trio.server.http.connection.forward_response", fails)
        client = world.connect()
        client.send(get("/thinks"))
        assert await client.receive_all() == b""
        await client.ended.wait()
        assert statuses(world) == [500]
