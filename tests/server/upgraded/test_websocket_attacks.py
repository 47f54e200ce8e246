"""WebSockets under attack: ended at every byte, by everybody, in every order. Whatever happens the client is told by a Close, and the process is given back."""

from __future__ import annotations

import random
import struct

import pytest
import trio
import trio.testing
from dummy_front import frame, simulated
from websocket_world import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    Talk,
    WebSocketClient,
    accepted,
    close,
    handshake,
    masked,
    open_websocket,
    websockets,
)

from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.options import ServerOptions

WORKER = (
    accepted(b"x: y") + frame(b"T", b"hello") + frame(b"B", bytes(20)) + frame(b"C", struct.pack("!H", 4000) + b"z")
)
CLIENT = handshake() + masked(TEXT, b"hi") + masked(PING) + masked(BINARY, bytes(20), final=False) + masked(0) + close()


@pytest.mark.parametrize("how", ["ends its stream", "exits", "says garbage"])
@simulated
async def test_a_worker_that_goes_at_every_byte(how: str) -> None:
    for at in range(len(WORKER) + 1):

        async def talk(session: Talk, at: int = at) -> None:
            await session.send(WORKER[:at])
            await trio.testing.wait_all_tasks_blocked()
            if how == "exits":
                session.process.exit(-9)
                await trio.sleep_forever()
            elif how == "says garbage":
                await session.send(b"\0garbage")
            session.ended = True

        async with websockets(talk, pool_limits=PoolLimits(max_pool_size=4)) as world:
            client = world.connect()
            client.send(handshake())
            data = b""
            while b"\r\n\r\n" not in data:
                more = await client.receive()
                assert more, (at, data)
                data += more
            head, _, rest = data.partition(b"\r\n\r\n")
            if head.split()[1] != b"101":
                assert head.split()[1] in (b"502", b"500"), (at, head)
                assert at < len(accepted(b"x: y"))
                continue
            # Garbage can make an accept of a part of one.
            assert at >= len(accepted(b"x: y")) or how == "says garbage"
            socket = WebSocketClient(client, "", rest)
            while (found := await socket.frame()) is not None and found.opcode != CLOSE:
                pass
            assert found is not None, at
            if how != "says garbage":  # which within a frame is a part of it, and can also make a close
                assert found.code == (4000 if at == len(WORKER) else 1012), at
            client.send(close(1000))
            assert await socket.frame() is None
            await world.until(lambda: not world.sessions)
            assert not world.front.rejected["internal_error"]


@pytest.mark.parametrize("how", ["close", "eof", "reset", "nothing"])
@simulated
async def test_a_client_that_goes_at_every_byte(how: str) -> None:
    for at in range(len(CLIENT) + 1):
        ends: list[bytes] = []

        async def talk(session: Talk, ends: list[bytes] = ends) -> None:
            await session.send(accepted())
            while (found := await session.receive()) is not None:
                if found[0] == b"C":
                    ends.append(found[1])
                    await session.finish()
                    return

        async with websockets(
            talk, options=ServerOptions(websocket_ping_interval=1, websocket_ping_timeout=1)
        ) as world:
            client = world.connect()
            client.send(CLIENT[:at])
            await trio.testing.wait_all_tasks_blocked()
            if how == "close":
                client.close()
            elif how == "eof":
                client.send_eof()
            elif how == "reset":
                client.reset()
            await client.ended.wait()
            await world.until(lambda: not world.sessions)
            assert not world.front.rejected["internal_error"]
        # However it went, the application that was told of a WebSocket was told of its end, once.
        if at >= len(handshake()):
            right = 1000 if at == len(CLIENT) else 1006
            assert ends == [struct.pack("!H", right)] or (how == "close" and ends in ([], [struct.pack("!H", 1006)])), (
                at
            )


@simulated
async def test_the_servers_end_at_every_moment() -> None:
    for moment in range(12):

        async def talk(session: Talk) -> None:
            await trio.lowlevel.checkpoint()
            await session.send(accepted())
            while (found := await session.receive()) is not None:
                await session.send(frame(b"B", found[1]))

        async with websockets(talk) as world:
            client = world.connect()
            client.send(handshake() + masked(TEXT, b"x"))
            for _ in range(moment):
                await trio.lowlevel.checkpoint()
            client.outer.cancel()
            await client.ended.wait()
            await world.until(lambda: not world.sessions)
            data = b""
            while more := await client.receive():
                data += more
            if data.startswith(b"HTTP/1.1 101"):
                assert data.endswith(b"\x88\x02\x03\xf3"), (moment, data)
            assert not world.front.rejected["internal_error"]


@pytest.mark.parametrize("seed", range(40))
@simulated
async def test_whatever_happens_in_whatever_order(seed: int) -> None:
    """Client, worker, process, operator and time do what they like, at random."""
    chance = random.Random(seed)

    async def talk(session: Talk) -> None:
        if chance.random() < 0.1:
            await session.send(frame(b"R", b"403\0\0") + frame(b"E"))
            return
        await session.send(accepted())
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                try:
                    await write_what_it_likes()
                except trio.BrokenResourceError:
                    pass  # the supervisor did not wait

            async def write_what_it_likes() -> None:
                for _ in range(chance.randint(0, 20)):
                    await trio.sleep(chance.choice([0, 0, 0.1, 3]))
                    size = chance.choice([0, 5, 70_000, 300_000])
                    await session.send(frame(chance.choice([b"T", b"B"]), bytes(size)))
                    if chance.random() < 0.05:
                        session.process.exit(-11)
                    if chance.random() < 0.03:
                        await session.send(b"?")
                if chance.random() < 0.5:
                    await session.send(frame(b"C", struct.pack("!H", chance.choice([1000, 3000, 1006, 1011]))))

            nursery.start_soon(write)
            while (found := await session.receive()) is not None and found[0] != b"C":  # noqa: ASYNC110 - it reads slowly
                await trio.sleep(chance.choice([0, 0, 0, 1, 30]))
            nursery.cancel_scope.cancel()
        if not session.ended:
            await trio.sleep(chance.choice([0, 0, 10]))
            if chance.random() < 0.9:
                await session.finish(chance.choice([0, 0, 1]))

    options = ServerOptions(write_timeout=chance.choice([2.0, 60.0]), websocket_max_message_size=100_000)

    async def act(client: WebSocketClient) -> None:
        for _ in range(chance.randint(0, 25)):
            await trio.sleep(chance.choice([0, 0, 0.01, 1, 15]))
            what = chance.random()
            try:
                if what < 0.5:
                    wire = masked(chance.choice([TEXT, BINARY, PING]), bytes(chance.choice([0, 10, 100])))
                    client.client.stream.send_nowait(wire)
                elif what < 0.6:
                    client.client.stream.send_nowait(masked(BINARY, bytes(60_000)))
                elif what < 0.85:
                    with trio.move_on_after(1):
                        await client.frame()
                elif what < 0.88:
                    client.client.stream.send_nowait(close(chance.choice([1000, 4000, 999])))
                elif what < 0.9:
                    client.client.send_eof()
                elif what < 0.91:
                    client.client.reset()
                    return
                elif what < 0.92:
                    client.client.outer.cancel()
                elif what < 0.93:
                    client.client.stream.send_nowait(chance.randbytes(5))
            except OSError:
                pass  # its connection cannot be made to reset any more
            except (trio.BrokenResourceError, trio.ClosedResourceError, AssertionError):
                return  # the server has ended it, or what was cut off was sent on from its middle

    async with websockets(talk, options=options, pool_limits=PoolLimits(max_pool_size=2), concurrency=3) as world:
        async with trio.open_nursery() as acting:
            for _ in range(chance.randint(1, 5)):

                async def one() -> None:
                    try:
                        client = await open_websocket(world)
                    except AssertionError:
                        return  # refused, or cut off
                    await act(client)
                    client.client.close()

                acting.start_soon(one)
            await trio.sleep(chance.choice([0, 1, 20]))
            if chance.random() < 0.4:
                world.pool.restart(next(iter(world.pool.group_tasks)), hard=chance.random() < 0.5)
            if chance.random() < 0.2:
                world.front.drain()
        await world.until(lambda: not world.front.connections or world.sessions)
        assert not world.front.rejected["internal_error"]
        for process in world.spawner.processes:
            process.exit(-9)  # also one whose application would never end
