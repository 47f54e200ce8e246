"""KE1: whatever raises by mistake in what is done for one connection, in its task or in a step that others take for it, costs that one; it gives everything back.

``serving`` checks at the end that every exchange has given its session back, that no place in the queue and no stream is left, and that the pool is well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from dummy_front import Client, World, data, end, frame, get, head, post, requests, serving, simulated, whole

from passenger_trio.errors import InvariantBroken
from passenger_trio.options import ServerOptions
from passenger_trio.pool.session import Process
from passenger_trio.server.http import client, end_connection
from passenger_trio.server.http.client_watch import ClientWatch
from passenger_trio.server.http.connection import Connection
from passenger_trio.server.http.deadline_scanner import DeadlineScanner
from passenger_trio.server.http.response_forwarder import _Forwarder
from passenger_trio.server.spill.spill_buffer import SpillBuffer
from passenger_trio.server.upgraded.relay import Relay
from passenger_trio.server.upgraded.relay_direction import RelayDirection
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner
from passenger_trio.system.raw_stream import RawStream

SWITCH = head(101, b"Upgrade: websocket", b"Connection: Upgrade", reason=b"Switching Protocols") + frame(b"U")
ASK = get(
    "/cable",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
ERRORS = [
    OSError(24, "no"),
    RuntimeError("can't start new thread"),
    ValueError("no"),
    InvariantBroken("a law of one buffer"),
    BaseExceptionGroup("several", [OSError(24, "no"), ValueError("no")]),
]
EACH_ERROR = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


async def work(process: DummyProcess, stream: RawStream) -> None:
    async for request in requests(stream):
        if request.path == "/cable":
            await stream.send_all(SWITCH)
            try:
                while piece := await stream.recv():
                    await stream.send_all(piece)
            except trio.BrokenResourceError:
                pass
            return
        if request.path == "/slow":
            await trio.sleep(1)
        elif request.path == "/pieces":
            await stream.send_all(head(200) + data(b"first"))
            await trio.sleep(1)
            await stream.send_all(data(b"last") + end())
            continue
        elif request.path == "/big":
            try:
                await stream.send_all(head(200))
                for _ in range(64):
                    await stream.send_all(data(b"x" * 65536))
                await stream.send_all(end())
            except trio.BrokenResourceError:
                return
            continue
        elif request.path == "/and-end":
            await stream.send_all(whole(b"ok"))
            await trio.sleep(1)
            return
        await stream.send_all(whole(b"ok"))


async def upgrades(world: World, client: Client) -> None:
    client.send(ASK)
    assert b"101" in await client.receive()
    client.send(b"x")


async def upgrades_and_ends(world: World, client: Client) -> None:
    await upgrades(world, client)
    client.send_eof()


async def upgrades_and_is_told(world: World, client: Client) -> None:
    client.send(ASK)
    assert b"101" in await client.receive()
    world.pool.detach(next(iter(world.pool.processes)))
    await trio.sleep(1)
    client.close()


async def sends_ahead(world: World, client: Client) -> None:
    client.send(get("/slow"))
    await trio.sleep(0.3)
    client.send(b"GET /")


async def waits_for_pieces(world: World, client: Client) -> None:
    client.send(get("/pieces"))


async def takes_nothing(world: World, client: Client) -> None:
    client.send(get("/big"))


async def is_behind(world: World, client: Client) -> None:
    client.send(get("/big"))
    await trio.sleep(0.5)
    try:
        for _ in range(20):
            await client.stream.recv()
    except trio.BrokenResourceError:
        pass  # so that was it


async def uploads(world: World, client: Client) -> None:
    client.send(post(b"", "/").replace(b"Length: 0", b"Length: 300000"))
    try:
        for _ in range(10):
            await client.stream.send_all(b"x" * 30000)
    except trio.BrokenResourceError:
        pass  # so that was it


async def is_slow(world: World, client: Client) -> None:
    client.send(b"GET / HT")


async def is_refused(world: World, client: Client) -> None:
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")


async def leaves_its_stream(world: World, client: Client) -> None:
    assert (await client.ask("/and-end")).body == b"ok"
    await trio.sleep(2)
    client.close()


Victim = Callable[[World, Client], Awaitable[None]]
# Where it raises, and what the victim does to come there.
PLACES: dict[str, tuple[Any, str, Victim]] = {
    "a relay": (RelayDirection, "_read", upgrades),
    "a relay that is to drain": (Relay, "end_soon", upgrades_and_is_told),
    "the end of a relay": (Relay, "finish", upgrades_and_ends),
    "a client that waits": (ClientWatch, "on_readable", sends_ahead),
    "the response forwarder": (_Forwarder, "_take", waits_for_pieces),
    "a piece that passes through": (_Forwarder, "_pass_on", waits_for_pieces),
    "its task": (_Forwarder, "_fill", waits_for_pieces),
    "a client that is behind": (SpillBuffer, "send_nowait", is_behind),
    "a buffer": (SpillBuffer, "put", takes_nothing),
    "an upload": (SpillBuffer, "store", uploads),
    "a deadline": (Connection, "on_deadline", is_slow),
    "a refusal": (end_connection, "refusal", is_refused),
    "the access log's record": (client, "exchange_record", waits_for_pieces),
    "an idle stream": (Process, "_stirred", leaves_its_stream),
}


class Once:
    """Raises the first time, and then is what it was."""

    def __init__(self, owner: Any, name: str, error: BaseException) -> None:
        self.raised = 0
        self.original = original = getattr(owner, name)

        def call(*arguments: Any, **more: Any) -> Any:
            if not self.raised:
                self.raised += 1
                raise error
            return original(*arguments, **more)

        self.call = call


@EACH_ERROR
@pytest.mark.parametrize("place", PLACES)
def test_it_costs_the_one_connection(place: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, victim = PLACES[place]
    once = Once(owner, name, error)

    @simulated
    async def run() -> None:
        spawner = DummySpawner(serve=work, concurrency=0)
        options = ServerOptions(header_timeout=2.0, write_timeout=5.0, websocket_drain=1.0)
        async with serving(spawner=spawner, options=options) as world:
            other = world.connect()
            assert (await other.ask("/")).body == b"ok"
            client = world.connect(send_buffer=4096)
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, once.call)
                async with trio.open_nursery() as both:
                    both.start_soon(victim, world, client)
                    await world.until(lambda: once.raised)
            waiting = world.connect()
            waiting.send(get("/slow"))
            assert (await other.ask("/")).body == b"ok"
            assert (await waiting.answer()).body == b"ok"
            client.close()
            with trio.fail_after(60):
                await client.ended.wait()
            assert world.front.kernel.total + world.pool._kernel.total >= 1
            assert (await other.ask("/")).body == b"ok"

    run()


@EACH_ERROR
def test_the_deadline_scanner_goes_on_with_everybody_elses_deadlines(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two are overdue in one look; the first one's look fails, and so does breaking it off."""
    once, twice = Once(Connection, "on_deadline", error), Once(Connection, "give_up", error)

    @simulated
    async def run() -> None:
        async with serving(
            spawner=DummySpawner(serve=work, concurrency=0), options=ServerOptions(header_timeout=2.0)
        ) as world:
            monkeypatch.setattr(Connection, "on_deadline", once.call)
            monkeypatch.setattr(Connection, "give_up", twice.call)
            clients = [world.connect(), world.connect()]
            for client in clients:
                client.send(b"GET / HT")
            with trio.fail_after(30):
                for client in clients:
                    await client.ended.wait()
            assert isinstance(world.front.deadline_scanner, DeadlineScanner)
            assert world.front.kernel.total == 2

    run()
