"""A process, or a client, that sends a great number of small pieces takes its steps in turn with everybody else (KE7, fault 11)."""

from __future__ import annotations

import pytest
import trio
from dummy_front import (
    Client,
    Worker,
    World,
    data,
    end,
    get,
    head,
    interim,
    requests,
    serving,
    simulated,
)

from passenger_trio.codecs.session_protocol import RUN
from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.core.read_size import STEP
from passenger_trio.spawning.dummy import DummyProcess
from passenger_trio.system.raw_stream import RawStream

MANY = 20_000


class Turns:
    """Counts the turns of the event loop, as anybody else would have them."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self) -> None:
        while True:
            self.count += 1
            await trio.lowlevel.checkpoint()


def sending(response: bytes) -> Worker:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await stream.send_all(response)

    return serve


@pytest.mark.parametrize("floods", [1, 8])
def test_KE7_a_body_in_small_frames(floods: int) -> None:
    @simulated
    async def run() -> None:
        worker = sending(head() + data(b"x") * MANY + end())
        async with serving(worker, pool_limits=PoolLimits(max_pool_size=floods)) as world:
            turns = Turns()
            clients = [world.connect() for _ in range(floods)]

            async def read(client: Client) -> None:
                answer = await client.answer()
                assert (len(answer.body), answer.complete) == (MANY, True)

            async with trio.open_nursery() as counting:
                counting.start_soon(turns.run)
                for client in clients:
                    client.send(get())
                async with trio.open_nursery() as reading:
                    for client in clients:
                        reading.start_soon(read, client)
                counting.cancel_scope.cancel()
            # At most one step for each turn, whoever sends: the first read of each may be more.
            assert turns.count >= floods * (MANY - 20 * STEP) // STEP // 8

    run()


@simulated
async def test_KE7_a_response_in_large_pieces_is_not_taken_for_a_flood() -> None:
    body = bytes(2 * 1024 * 1024)
    async with serving(sending(head() + data(body) + end())) as world:
        client = world.connect()
        answer = await client.ask()
        assert answer.body == body
        assert not world.front.flood_turns.waiting


@pytest.mark.parametrize("count", [100, 101])
def test_KE7_interim_responses_have_a_cap(count: int) -> None:
    @simulated
    async def run() -> None:
        hints = interim(103, b"Link: </style.css>; rel=preload") * count
        async with serving(sending(hints + head() + data(b"ok") + end())) as world:
            client = world.connect()
            client.send(get())
            answer = await client.answer()
            assert answer.status == (200 if count == 100 else 502)

    run()


class Steps(trio.abc.Instrument):
    """How many pieces of responses each step of a task reads."""

    def __init__(self, world: World) -> None:
        self.most = 0
        self._world = world
        self._before: dict[int, int] = {}

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        for connection in self._world.front.connections:
            exchange = connection.exchange
            if exchange is not None and exchange.reader is not None:
                reader = exchange.reader
                self.most = max(self.most, reader.pieces - self._before.get(id(reader), 0))
                self._before[id(reader)] = reader.pieces


@pytest.mark.parametrize(
    ("response", "most"),
    [
        pytest.param(head() + data(b"x") * MANY + end(), 2 * RUN + STEP, id="body"),
        pytest.param(interim(103, b"Link: </a.css>; rel=preload") * 100 + head() + end(), STEP + 32, id="interim"),
    ],
)
def test_KE7_a_step_reads_a_bounded_number_of_pieces(response: bytes, most: int) -> None:
    @simulated
    async def run() -> None:
        async with serving(sending(response)) as world:
            client = world.connect()
            steps = Steps(world)
            trio.lowlevel.add_instrument(steps)
            client.send(get())
            assert (await client.answer()).complete
            trio.lowlevel.remove_instrument(steps)
            assert 0 < steps.most <= most

    run()
