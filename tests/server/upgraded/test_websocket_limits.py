"""WebSockets at their limits: protocol errors on the wire, sides that take nothing, pings, draining. In simulated time, with the test's own worker.

F47: invalid UTF-8, a bad opcode, a message that is too long and a flood of fragments are closed with 1007, 1002, 1009 and 1008.
"""

from __future__ import annotations

import struct

import pytest
import trio
import trio.testing
from dummy_front import frame, simulated
from websocket_world import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frame,
    Talk,
    accepted,
    close,
    echo,
    handshake,
    masked,
    open_websocket,
    websockets,
)

from passenger_trio.admin.context import Admin
from passenger_trio.admin.render_requests_and_memory import render_requests
from passenger_trio.admin.resources import requests
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.options import Config, ServerOptions
from passenger_trio.reload.reloading import Reloading
from passenger_trio.running import RunningServer
from passenger_trio.server.listening.listeners import Listeners
from passenger_trio.spawning.app_spec import AppSpec

SMALL = ServerOptions(websocket_max_message_size=1000)


def told(code: int) -> tuple[bytes, bytes]:
    return b"C", struct.pack("!H", code)


# -- protocol errors ------------------------------------------------------------------------------------------------

ERRORS = {
    "a reserved bit": (1002, b"\xc1\x80abcd"),
    "a reserved opcode": (1002, masked(3)),
    "not masked": (1002, b"\x81\x01x"),
    "a fragmented ping": (1002, masked(PING, final=False)),
    "a long ping": (1002, masked(PING, bytes(126))),
    "a continuation of nothing": (1002, masked(0, b"x")),
    "a message within a message": (1002, masked(TEXT, b"a", final=False) + masked(TEXT, b"b")),
    "a length that is not the shortest": (1002, b"\x81\xfe\x00\x01abcd"),
    "a length with the top bit": (1002, b"\x82\xff\x80" + bytes(7) + b"abcd"),
    "a wrong text": (1007, masked(TEXT, b"\xff")),
    "a wrong text over fragments": (1007, masked(TEXT, b"\xe2\x82", final=False) + masked(0)),
    "a close of one byte": (1002, masked(CLOSE, b"\x03")),
    "a close code that is none": (1002, close(1006)),
    "a close reason that is no text": (1007, close(1000, b"\xff")),
    "too big": (1009, masked(BINARY, bytes(1001))),
    "said to be too big": (1009, b"\x82\xff" + struct.pack("!Q", 1 << 40)),
    "too big in fragments": (1009, masked(BINARY, bytes(600), final=False) + masked(0, bytes(600))),
    "empty fragments": (1008, masked(TEXT, final=False) + masked(0, final=False) * 64),
    "a flood of pings": (1008, masked(PING) * 101),
}


@pytest.mark.parametrize("by", ["whole", "byte by byte"])
@pytest.mark.parametrize("what", ERRORS)
@simulated
async def test_an_error_is_closed_with_its_code_and_told_to_the_application(what: str, by: str) -> None:
    code, wire = ERRORS[what]
    seen: list[tuple[bytes, bytes] | None] = []

    async def talk(session: Talk) -> None:
        await session.send(accepted())
        seen.append(await session.receive())
        seen.append(await session.receive())
        await session.finish()

    async with websockets(talk, options=SMALL) as world:
        client = await open_websocket(world)
        wire = masked(TEXT, b"good") + wire + (b"" if what.startswith("said") else masked(TEXT, b"never read"))
        if by == "whole":
            client.send(wire)
        else:
            for at in range(len(wire)):
                client.send(wire[at : at + 1])
                if at % 16 == 0:
                    await trio.testing.wait_all_tasks_blocked()
        client.client.send_eof()
        assert await client.closed() == code
        await world.until(lambda: not world.sessions)
        assert len(world.pool.processes[1].idle_streams) == 1
    assert seen[0] == (b"T", b"good")
    kind, payload = seen[1] or (b"", b"")
    assert (kind, payload[:2]) == told(code)
    assert world.front.rejected == {f"websocket_{code}": 1}


@simulated
async def test_a_client_that_broke_a_rule_and_goes_on_sending_can_read_why() -> None:
    async with websockets() as world:
        client = await open_websocket(world)
        client.send(masked(3), *[masked(BINARY, bytes(30000))] * 3)
        found = await client.frame()
        assert found is not None
        assert found.code == 1002
        began = trio.current_time()
        assert await client.frame() is None
        await client.client.ended.wait()
        assert 1.9 < trio.current_time() - began < 2.5


# -- sides that take nothing ----------------------------------------------------------------------------------------


@simulated
async def test_a_worker_that_takes_nothing_pauses_the_client_and_loses_nothing() -> None:
    go = trio.Event()
    seen = bytearray()

    async def talk(session: Talk) -> None:
        await session.send(accepted())
        await go.wait()
        while (found := await session.receive()) is not None:
            if found[0] == b"C":
                break
            seen.extend(found[1])
        await session.finish()

    async with websockets(talk) as world:
        client = await open_websocket(world)
        sent = 0
        wire = masked(BINARY, bytes(range(250)) * 40)
        while (count := client.client.stream.send_nowait(wire)) or sent == 0:
            sent += count
            await trio.testing.wait_all_tasks_blocked()
            if count < len(wire):
                break
        rest = wire[count:]
        await trio.testing.wait_all_tasks_blocked()
        websocket = client.client.connection.exchange.relay
        assert websocket._state.to_worker.kept <= 65536 + 10_000
        assert sent < 2_000_000
        go.set()
        await client.client.stream.send_all(rest + close())
        assert await client.closed() == 1000
        await world.until(lambda: not world.sessions)
    assert bytes(seen[:250]) == bytes(range(250))
    assert len(seen) % 10_000 == 0
    assert len(seen) >= sent * 10_000 // len(wire)


@simulated
async def test_a_worker_that_takes_nothing_for_too_long_loses_the_client_with_1013() -> None:
    ended = trio.Event()

    async def talk(session: Talk) -> None:
        await session.send(accepted())
        await trio.sleep(100)
        while await session.receive() is not None:
            pass
        ended.set()

    async with websockets(talk) as world:
        client = await open_websocket(world)
        began = trio.current_time()
        while client.client.stream.send_nowait(masked(BINARY, bytes(10_000))):
            await trio.testing.wait_all_tasks_blocked()
        client.client.send_eof()
        assert await client.closed() == 1013
        assert 60 <= trio.current_time() - began < 67
        assert world.sessions == 1  # the application is not told of it before it looks
        await ended.wait()
        await world.until(lambda: not world.sessions)
        assert not world.pool.processes[1].idle_streams
        assert world.processed == 1


@simulated
async def test_a_client_that_takes_nothing_pauses_the_worker_and_is_closed_in_the_end() -> None:
    """F49."""
    sent = 0

    async def talk(session: Talk) -> None:
        nonlocal sent
        await session.send(accepted())
        with trio.move_on_after(59):
            while True:
                await session.send(frame(b"B", bytes(10_000)))
                sent += 1
        assert await session.receive() == told(1006)
        await session.finish()

    async with websockets(talk, options=ServerOptions(websocket_ping_interval=0)) as world:
        client = await open_websocket(world, send_buffer=4096)
        began = trio.current_time()
        await client.client.ended.wait()
        assert 59 < trio.current_time() - began < 62
        assert sent * 10_000 < 1_500_000
    assert world.records[0].status == 101


@simulated
async def test_a_ping_is_answered_while_the_client_takes_nothing_else_and_only_the_last() -> None:
    async def talk(session: Talk) -> None:
        await session.send(accepted(), *[frame(b"B", bytes(10_000))] * 100)
        await session.receive()
        await session.finish()

    async with websockets(talk) as world:
        client = await open_websocket(world, send_buffer=4096)
        await trio.testing.wait_all_tasks_blocked()
        client.send(masked(PING, b"1"), masked(PING, b"2"))
        await trio.testing.wait_all_tasks_blocked()
        pongs = []
        messages = 0
        while messages < 100 or not pongs:
            found = await client.frame()
            assert found is not None
            messages += found.opcode == BINARY
            if found.opcode == PONG:
                pongs.append(found.payload)
        assert pongs == [b"2"]


# -- pings ----------------------------------------------------------------------------------------------------------


@simulated
async def test_a_silent_client_is_pinged_and_one_that_answers_lives_on() -> None:
    async with websockets() as world:
        client = await open_websocket(world)
        for _ in range(5):
            before = trio.current_time()
            assert await client.frame() == Frame(PING, b"")
            assert 20 <= trio.current_time() - before < 20.6
            client.send(masked(PONG))
            await trio.testing.wait_all_tasks_blocked()
        client.send(masked(TEXT, b"here"))
        assert await client.frame() == Frame(TEXT, b"here")


@simulated
async def test_a_client_that_does_not_answer_is_closed_and_1006_for_the_application() -> None:
    seen: list[object] = []

    async def talk(session: Talk) -> None:
        await session.send(accepted())
        seen.append(await session.receive())
        await session.finish()

    options = ServerOptions(websocket_ping_interval=5, websocket_ping_timeout=3)
    async with websockets(talk, options=options) as world:
        client = await open_websocket(world)
        began = trio.current_time()
        assert await client.frame() == Frame(PING, b"")
        found = await client.frame()
        assert found is not None
        assert found.code == 1011
        assert 8 <= trio.current_time() - began < 8.6
        assert await client.frame() is None
    assert seen == [told(1006)]


# -- draining -------------------------------------------------------------------------------------------------------


@simulated
async def test_a_server_that_drains_closes_with_1001_after_a_while_and_takes_part_until_then() -> None:
    async with websockets() as world:
        clients = [await open_websocket(world) for _ in range(10)]
        began = trio.current_time()
        world.front.drain()
        clients[0].send(masked(TEXT, b"still here"))
        assert await clients[0].frame() == Frame(TEXT, b"still here")
        times = []
        for client in clients:
            found = await client.frame()
            assert found is not None
            assert found.code == 1001
            times.append(trio.current_time() - began)
            client.send(close(1001))
            assert await client.frame() is None
        assert 1.25 <= min(times) <= max(times) <= 4.1
        late = world.connect()
        late.send(handshake())
        assert (await late.receive()).startswith(b"HTTP/1.1 101")


@simulated
async def test_a_websocket_that_is_accepted_while_the_server_drains_has_its_time_too() -> None:
    accept = trio.Event()

    async def talk(session: Talk) -> None:
        await accept.wait()
        await echo(session)

    async with websockets(talk) as world:
        client = world.connect()
        client.send(handshake())
        await trio.testing.wait_all_tasks_blocked()
        world.front.drain()
        accept.set()
        data = b""
        while b"\x03\xe9" not in data:
            data += await client.receive()
        assert data.startswith(b"HTTP/1.1 101")
        client.send(close(1001))


@pytest.mark.parametrize("hard", [False, True])
@simulated
async def test_a_restart_closes_the_old_processs_websockets_with_1012_and_ends_it(hard: bool) -> None:
    async with websockets(pool_limits=PoolLimits(max_pool_size=2)) as world:
        clients = [await open_websocket(world) for _ in range(3)]
        key = next(iter(world.pool.group_tasks))
        began = trio.current_time()
        world.pool.restart(key, hard=hard)
        await world.until(lambda: len(world.spawner.processes) == 2)
        newer = None
        with trio.fail_after(1):
            while newer is None:
                newer = await open_websocket(world)
        newer.send(masked(TEXT, b"new"))
        assert await newer.frame() == Frame(TEXT, b"new")
        for client in clients:
            found = await client.frame()
            assert found is not None
            assert found.code == 1012
            client.send(close(1012))
            assert await client.frame() is None
        assert 1.25 <= trio.current_time() - began <= 4.2
        await world.until(lambda: world.spawner.processes[0].exit_status is not None)
        newer.send(masked(TEXT, b"still"))
        assert await newer.frame() == Frame(TEXT, b"still")


@simulated
async def test_an_application_that_does_not_end_does_not_keep_its_old_process_for_ever() -> None:
    async def talk(session: Talk) -> None:
        await session.send(accepted())
        while await session.receive() is not None:
            pass  # its application ignores the close, and the worker sends no end

    async with websockets(talk, pool_limits=PoolLimits(max_pool_size=2)) as world:
        client = await open_websocket(world)
        client.send(close())
        assert await client.closed() == 1000
        await trio.sleep(1000)
        assert world.sessions == 1
        world.pool.restart(next(iter(world.pool.group_tasks)))
        await world.until(lambda: world.spawner.processes[0].asked_to_stop)
        assert not world.sessions


@simulated
async def test_a_websocket_may_last_longer_than_a_request() -> None:
    options = ServerOptions(websocket_ping_interval=0)
    async with websockets(limits=GroupLimits(max_request_time=5.0), options=options) as world:
        client = await open_websocket(world)
        await trio.sleep(100)
        client.send(masked(TEXT, b"x"))
        assert await client.frame() == Frame(TEXT, b"x")
        assert not world.process.signals


@simulated
async def test_a_handshake_may_not() -> None:
    async def talk(session: Talk) -> None:
        await trio.sleep_forever()

    async with websockets(talk, limits=GroupLimits(max_request_time=5.0)) as world:
        client = world.connect()
        client.send(handshake())
        assert (await client.answer()).status == 504


@simulated
async def test_drained_while_its_101_is_not_taken_it_still_has_its_time() -> None:
    async with websockets() as world:
        client = world.connect(send_buffer=2048)
        filler = 0
        while client.connection.stream.send_nowait(b"x"):
            filler += 1
        client.send(handshake())
        await world.until(lambda: client.connection.exchange and client.connection.exchange.relay)
        world.front.drain()
        await trio.sleep(10)
        data = b""
        while b"\x03\xe9" not in data:
            data += await client.receive()
        assert data[filler:].startswith(b"HTTP/1.1 101")
        client.send(close(1001))


# -- what is told ---------------------------------------------------------------------------------------------------


@simulated
async def test_requests_lists_websockets_with_bytes_each_way_and_the_last_activity() -> None:
    async with websockets() as world:
        listeners = Listeners([], world.front, are_given=True)

        def no_spec(*_: object) -> AppSpec:
            raise AssertionError("there is no application to add")

        reloading = Reloading(
            Config(), [], [], world.pool, world.front, None, listeners, no_spec, lambda addresses: None
        )
        server = RunningServer("", [], world.pool, world.front, reloading)
        client = await open_websocket(world, handshake("/chat"))
        client.send(masked(TEXT, b"12345"))
        assert await client.frame() == Frame(TEXT, b"12345")
        await trio.sleep(7)
        [listed] = (await requests(Admin(server, [], 0.0)))["requests"]
        assert (listed["stage"], listed["path"], listed["pid"]) == ("websocket", "/chat", 1001)
        assert listed["age"] >= 7
        assert listed["relay"] == {"bytes_up": 11, "bytes_down": 7, "idle": pytest.approx(7, abs=0.1)}
        line = render_requests({"requests": [listed]}).splitlines()[1].split()
        assert line[-7:-1] == ["/chat", "-", "-", "11", "7", "7.00s"]
        assert world.front.upgraded == 1
        client.send(close())
        assert await client.closed() == 1000
        await world.until(lambda: not world.front.upgraded)
    assert (world.records[0].status, world.records[0].bytes_sent) == (101, 7 + 4)
