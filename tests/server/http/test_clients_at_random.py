"""Clients, a worker and an operator who do anything at any time. Whoever is answered is answered right; nothing is lost, doubled or left.

It runs in simulated time, and what happens is drawn from a seed. (In which order Trio runs tasks is not: so a seed that fails may pass the next time.)
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
import trio
from dummy_front import Client, World, data, end, get, head, post, requests, serving, simulated, whole

from passenger_trio.core.model import GroupKey
from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.spawning.dummy import DummyProcess
from passenger_trio.system.raw_stream import RawStream

KINDS = ("plain", "plain", "slow", "big", "close", "pieces", "dies", "post", "chunked", "expect")
REPEATABLE = ("plain", "slow", "big", "close", "pieces", "dies", "events")
ABOUT_THE_PATIENCE = (0.049, 0.05, 0.051, 0.3)
CLIENTS, ROUNDS = 6, 8


class Worker:
    """``/KIND/...`` is answered as its kind asks for, with the path and the body."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.seen: Counter[str] = Counter()

    async def __call__(self, process: DummyProcess, stream: RawStream) -> None:
        try:
            async for request in requests(stream):
                self.seen[request.path] += 1
                kind = request.path.split("/")[1]
                if kind == "dies":
                    return
                await self.answer(kind, request.path.encode() + b":" + request.body, stream)
                if kind == "close":
                    return
        except trio.BrokenResourceError:
            pass  # the client has left

    async def answer(self, kind: str, body: bytes, stream: RawStream) -> None:
        chance = self.chance
        if kind == "events":
            await stream.send_all(head(200, b"Content-Type: text/event-stream") + data(body))
            for _ in range(chance.randrange(40)):
                await stream.send_all(data(b"e" * chance.choice((1, 20_000))))
                await trio.sleep(chance.choice((0.05, 0.1)))
            await stream.send_all(end())
            return
        if kind == "slow":
            await trio.sleep(chance.choice(ABOUT_THE_PATIENCE))
        if kind == "big":
            body += b"q" * chance.choice((60_000, 66_000, 150_000, 900_000))
        if len(body) > 200_000:
            pieces = [data(body[at : at + 60_000]) for at in range(0, len(body), 60_000)]
            await stream.send_all(head(200) + b"".join(pieces) + end())
            return
        response = whole(body, flags=kind == "close")
        if kind == "pieces":
            await stream.send_all(response[:8])
            await trio.sleep(0.001)
            response = response[8:]
        await stream.send_all(response)


def asked(kind: str, path: str, chance: random.Random) -> tuple[bytes, bytes]:
    """A request on the wire, and its body."""
    if kind == "post":
        body = b"b" * chance.choice((1, 100, 3000))
        return post(body, path), body
    if kind == "expect":
        return post(b"b" * 50, path, "Expect: 100-continue"), b"b" * 50
    if kind == "chunked":
        return get(path, "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n0\r\n\r\n", b"hello"
    return get(path), b""


async def be_a_client(world: World, number: int, kinds: tuple[str, ...], chance: random.Random) -> None:
    for round in range(ROUNDS):
        client = world.connect(send_buffer=chance.choice((0, 4096)))
        waiting: list[tuple[str, bytes]] = []
        for turn in range(chance.randrange(1, 6)):
            kind = chance.choice(kinds)
            path = f"/{kind}/{number}/{round}/{turn}"
            wire, body = asked(kind, path, chance)
            cut = chance.randrange(len(wire))
            try:
                client.send(wire[:cut])
                if chance.random() < 0.5:
                    await trio.sleep(chance.choice((0, 0.01, 0.05)))
                client.send(wire[cut:])
            except (trio.BrokenResourceError, AssertionError):
                break  # it takes nothing: it is behind, or has ended
            waiting.append((path, body))
            if chance.random() < 0.5:
                try:
                    await hear(world, client, waiting)
                except ConnectionError:
                    break  # it has ended, as a client must expect of each connection
        await leave(client, chance)


async def hear(world: World, client: Client, waiting: list[tuple[str, bytes]]) -> None:
    for path, body in waiting:
        with trio.fail_after(20):
            answer = await client.answer()
        if not path.startswith("/dies"):
            assert answer.status == 200
            assert answer.body.startswith(path.encode() + b":" + body)
        assert answer.complete or world.front.draining
    waiting.clear()


async def leave(client: Client, chance: random.Random) -> None:
    how = chance.choice(("reset", "close", "end", "stall", "cancelled"))
    if how == "reset":
        try:
            client.reset()
        except OSError:
            client.close()
    elif how == "close":
        client.close()
    elif how == "cancelled":
        client.outer.cancel()
    elif how == "stall":
        await trio.sleep(4)
        client.close()
    else:
        client.send_eof()
        await client.receive_all()


@pytest.mark.parametrize("events", [False, True], ids=["", "and event streams"])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens(seed: int, events: bool) -> None:
    chance = random.Random(seed)
    kinds = KINDS + ("events",) * (3 if events else 0)
    worker = Worker(chance)

    @simulated
    async def run() -> None:
        options = ServerOptions(
            max_requests_per_connection=chance.choice((0, 4)), websocket_drain=0.5, write_timeout=3.0
        )
        app = AppOptions(unlimited_concurrency_paths=("/slow",) if seed % 2 else ())
        async with serving(worker, options=options, app=app, pool_limits=PoolLimits(max_pool_size=3)) as world:
            async with trio.open_nursery() as clients:
                for number in range(CLIENTS):
                    clients.start_soon(be_a_client, world, number, kinds, chance)
                await trio.sleep(chance.random() * 3)
                world.pool.restart(GroupKey("app", "test"))
                await trio.sleep(chance.random() * 3)
                world.front.drain()
            await trio.sleep(5)
            assert not world.front.rejected["internal_error"]

    run()
    for path, count in worker.seen.items():
        assert count <= (2 if path.split("/")[1] in REPEATABLE else 1), f"{path} was sent {count} times"
