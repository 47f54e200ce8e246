"""Two things in one step: what the request path must not lose, whichever of them is seen first.

The order of tasks within a step is Trio's shuffle, so each of these is done a few dozen times.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import trio
import trio.testing
from dummy_front import (
    Client,
    Request,
    Signal,
    World,
    data,
    end,
    get,
    head,
    post,
    requests,
    respond,
    serving,
    simulated,
    wait_end,
    whole,
)

from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.server.http.connection import Connection
from passenger_trio.server.http.stage import FAST_PATH_TIMEOUT, Stage
from passenger_trio.spawning.dummy import DummyProcess
from passenger_trio.system.raw_stream import RawStream

ROUNDS = 40


class Holder:
    """A worker that answers a request when it is told to: ``/hold`` waits, any other path does not."""

    def __init__(self) -> None:
        self.held: list[RawStream] = []
        self.paths: list[str] = []

    async def __call__(self, process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            self.paths.append(request.path)
            if request.path.startswith("/hold"):
                self.held.append(stream)
            else:
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(whole(request.path.encode()))


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


def cut(client: Client) -> Callable[[], None]:
    """What the deadline scanner will do: end the stage that the connection is in now, unless it has ended by then."""
    connection, turn = client.connection, client.connection.stage_number

    def due() -> None:
        if connection.stage_number == turn:
            connection.expire()

    return due


# -- the patience of the fast path -----------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-0.006, -0.005, -0.0001, 0.0, 0.0001, 0.005, 0.006])
@simulated
async def test_a_response_that_comes_about_when_the_patience_ends_is_whole(offset: float) -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            await trio.sleep(FAST_PATH_TIMEOUT + offset)
            await stream.send_all(whole(request.path.encode()))

    async with serving(serve) as world:
        client = world.connect()
        for number in range(10):
            assert (await client.ask(f"/{number}")).body == f"/{number}".encode()


@pytest.mark.parametrize("in_pieces", [False, True])
@simulated
async def test_the_cut_and_the_response_in_one_step(in_pieces: bool) -> None:
    worker = Holder()
    async with serving(worker) as world:
        client = world.connect()
        for number in range(ROUNDS):
            client.send(get(f"/hold/{number}"))
            await settled()
            assert client.connection.stage is Stage.APP
            signal = Signal(world, cut(client))
            await settled()
            stream = worker.held.pop()
            answer = head(200, b"Content-Length: 6") + data(b"one") + data(b"two") + end()
            signal.give()
            if in_pieces:
                stream.send_nowait(answer[:30])
                await settled()
                stream.send_nowait(answer[30:])
            else:
                stream.send_nowait(answer)
            assert (await client.answer()).body == b"onetwo"


@simulated
async def test_the_cut_and_a_workers_end_in_one_step() -> None:
    """R30 holds on both sides of the patience: the request goes to a second process, once."""
    worker = Holder()
    async with serving(worker, pool_limits=PoolLimits(max_pool_size=2)) as world:
        client = world.connect()
        for number in range(ROUNDS):
            client.send(get("/hold"))
            await world.until(lambda: worker.held)
            signal = Signal(world, cut(client))
            await settled()
            signal.give()
            worker.held.pop().send_eof()
            await world.until(lambda: worker.held)
            worker.held.pop().send_nowait(whole(b"the second"))
            assert (await client.answer()).body == b"the second"
            assert worker.paths == ["/hold", "/hold"] * (number + 1)


# -- the queue ------------------------------------------------------------------------------------------------------


async def one_waits_behind_one(world: World, worker: Holder) -> tuple[Client, Client]:
    first, second = world.connect(), world.connect()
    first.send(get("/hold"))
    await settled()
    second.send(get("/second"))
    await settled()
    assert (len(worker.held), world.queue_length) == (1, 1)
    assert second.connection.stage is Stage.QUEUE
    return first, second


@simulated
async def test_the_cut_and_the_grant_in_one_step() -> None:
    worker = Holder()
    async with serving(worker) as world:
        for _ in range(ROUNDS):
            first, second = await one_waits_behind_one(world, worker)
            signal = Signal(world, cut(second))
            await settled()
            signal.give()
            worker.held.pop().send_nowait(whole(b"first"))
            assert (await first.answer()).body == b"first"
            assert (await second.answer()).body == b"/second"
            assert world.sessions == 0


@pytest.mark.parametrize("slow", [False, True])
@simulated
async def test_the_grant_and_the_clients_leaving_in_one_step(slow: bool) -> None:
    """Whichever comes first, the place or the session is given back, and the next one is served."""
    worker = Holder()
    async with serving(worker) as world:
        for _ in range(ROUNDS):
            first, second = await one_waits_behind_one(world, worker)
            if slow:
                await trio.sleep(1)
                assert second.connection.stage is Stage.SLOW_QUEUE
            signal = Signal(world, second.reset)
            await settled()
            signal.give()
            worker.held.pop().send_nowait(whole(b"first"))
            assert (await first.answer()).body == b"first"
            third = world.connect()
            assert (await third.ask("/third")).body == b"/third"
            first.close()
            third.close()
            for client in (first, second, third):
                await client.ended.wait()
            assert (world.sessions, world.queue_length) == (0, 0)


@simulated
async def test_R30_a_client_that_left_in_the_step_of_its_grant_never_reaches_a_worker() -> None:
    worker = Holder()
    async with serving(worker) as world:
        for _ in range(ROUNDS):
            first, second = await one_waits_behind_one(world, worker)
            await trio.sleep(1)
            second.reset()
            worker.held.pop().send_nowait(whole(b"first"))
            assert (await first.answer()).body == b"first"
            await second.ended.wait()
            assert "/second" not in worker.paths


@pytest.mark.parametrize("slow", [False, True])
@simulated
async def test_the_grant_and_the_end_of_the_grace_in_one_step(slow: bool) -> None:
    """A cancellation from outside may come with the session: it is given back, or nobody ever would."""
    worker = Holder()
    async with serving(worker) as world:
        for _ in range(ROUNDS):
            first, second = await one_waits_behind_one(world, worker)
            if slow:
                await trio.sleep(1)
            signal = Signal(world, second.outer.cancel)
            await settled()
            signal.give()
            worker.held.pop().send_nowait(whole(b"first"))
            assert (await first.answer()).body == b"first"
            await second.ended.wait()
            assert (world.sessions, world.queue_length) == (0, 0)


@simulated
async def test_the_cut_the_grant_and_the_clients_leaving_in_one_step() -> None:
    worker = Holder()
    async with serving(worker) as world:
        for _ in range(ROUNDS):
            first, second = await one_waits_behind_one(world, worker)
            signals = [Signal(world, cut(second)), Signal(world, second.reset)]
            await settled()
            for signal in signals:
                signal.give()
            worker.held.pop().send_nowait(whole(b"first"))
            assert (await first.answer()).body == b"first"
            await second.ended.wait()
            assert (world.sessions, world.queue_length) == (0, 0)


@simulated
async def test_R32_the_cut_does_not_cost_the_place_in_the_queue() -> None:
    worker = Holder()
    async with serving(worker) as world:
        first = world.connect()
        first.send(get("/hold"))
        await settled()
        waiting = [world.connect() for _ in range(10)]
        for number, client in enumerate(waiting):
            client.send(get(f"/{number}"))
            await settled()
            # Some have been cut to the slow path when the others come.
            await trio.sleep(FAST_PATH_TIMEOUT / 3)
        assert {client.connection.stage for client in waiting} == {Stage.QUEUE, Stage.SLOW_QUEUE}
        worker.held.pop().send_nowait(whole(b"first"))
        for client in waiting:
            await client.answer()
        assert worker.paths == ["/hold", *(f"/{number}" for number in range(10))]


# -- the deadlines of the client's stages -----------------------------------------------------------------------------


@simulated
async def test_R27_the_end_of_idleness_and_a_request_in_one_step() -> None:
    """What has come by then is served: the client sent it in good faith."""
    async with serving() as world:
        for served in (0, 1):
            for _ in range(ROUNDS):
                client = world.connect()
                for _ in range(served):
                    await client.ask()
                await settled()
                signal = Signal(world, cut(client))
                await settled()
                client.send(get())
                signal.give()
                assert (await client.answer()).body == b"ok"
                client.close()
                await client.ended.wait()


@pytest.mark.parametrize("stage", [Stage.HEAD, Stage.BODY])
@simulated
async def test_R27_a_deadline_and_the_rest_of_the_request_in_one_step(stage: Stage) -> None:
    """Late is late: a 408 and the end, and the request does not reach a worker, or it is served. Never both, never neither."""
    worker = Holder()
    wire = post(b"body", "/late")
    half = 20 if stage is Stage.HEAD else len(wire) - 2
    async with serving(worker) as world:
        for _ in range(ROUNDS):
            client = world.connect()
            client.send(wire[:half])
            await settled()
            assert client.connection.stage is stage
            signal = Signal(world, cut(client))
            await settled()
            seen = len(worker.paths)
            client.send(wire[half:])
            signal.give()
            answer = await client.answer("POST")
            assert (answer.status, len(worker.paths) - seen) in ((408, 0), (200, 1))
            client.close()
            await client.ended.wait()


@simulated
async def test_R27_the_end_of_a_stall_and_the_clients_reading_in_one_step() -> None:
    """The response is whole, or cut off and the connection closed; nothing is lost in the middle."""
    body = b"0123456789abcdef" * 65536

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await stream.send_all(head(200, b"Content-Length: %d" % len(body)) + data(body) + end())

    async with serving(serve) as world:
        for _ in range(10):
            client = world.connect()
            client.send(get())
            await settled()
            assert client.connection.stage is Stage.WRITE
            signal = Signal(world, cut(client))
            await settled()
            signal.give()
            answer = await client.answer()
            assert body.startswith(answer.body)
            assert answer.complete == (answer.body == body)
            client.close()
            await client.ended.wait()


@pytest.mark.parametrize("slow", [False, True], ids=["fast path", "slow path"])
@simulated
async def test_R27_the_end_of_a_stall_and_the_clients_taking_more_in_one_step(slow: bool) -> None:
    """What a client takes is a sign of life: that it came in the last moment, and perhaps was the last byte, costs neither the rest nor the next request."""
    body = b"0123456789abcdef" * (32768 if slow else 6144)

    def answer(request: Request) -> bytes:
        return whole(b"next" if request.path == "/next" else body)

    async with serving(respond(answer)) as world:
        for _ in range(ROUNDS):
            client = world.connect(send_buffer=0 if slow else 32768)
            connection = client.connection
            client.send(get(), get("/next"))
            await settled()
            assert connection.stage is Stage.WRITE
            wire = b""
            while not wire.endswith(b"next") and not client.ended.is_set():
                turn = connection.stage_number

                def due(connection: Connection = connection, turn: int = turn) -> None:
                    if (connection.stage, connection.stage_number) == (Stage.WRITE, turn):
                        connection.on_deadline(connection.current_time())

                signal = Signal(world, due)
                await settled()
                await trio.lowlevel.wait_readable(client.stream.fd)  # it may come from the disk, by a thread
                wire += client.stream.recv_nowait(1 << 20)
                signal.give()
                await settled()
            assert wire.endswith(b"next")
            client.close()
            await client.ended.wait()


# -- leaving --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", [False, True])
@simulated
async def test_R28_a_response_and_the_clients_leaving_in_one_step(slow: bool) -> None:
    worker = Holder()
    async with serving(worker) as world:
        for _ in range(ROUNDS):
            client = world.connect()
            client.send(get("/hold"))
            await settled()
            if slow:
                await trio.sleep(1)
                assert client.connection.stage is Stage.SLOW_APP
            signal = Signal(world, client.reset)
            await settled()
            signal.give()
            worker.held.pop().send_nowait(whole())
            await client.ended.wait()
            assert world.sessions == 0


@simulated
async def test_F24_an_abandoned_process_is_busy_until_the_worker_has_ended_its_side() -> None:
    told, go_on = trio.Event(), trio.Event()

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            if request.path == "/slow":
                await wait_end(stream)
                told.set()
                await go_on.wait()
                return
            await stream.send_all(whole())

    async with serving(serve) as world:
        client, other = world.connect(), world.connect()
        client.send(get("/slow"))
        await trio.sleep(1)
        client.reset()
        await told.wait()
        await settled()
        assert not world.front.connections - {other.connection}
        assert world.sessions == 1
        other.send(get())
        await settled()
        assert world.queue_length == 1
        go_on.set()
        assert (await other.answer()).body == b"ok"


@simulated
async def test_F24_the_worker_is_told_within_a_tenth_of_a_second() -> None:
    """Simulated time, so this is a fact about deadlines: the patience, one look of the deadline scanner, and no more."""
    for wait in (0.0, 0.01, 0.06, 0.3, 2.0):
        told: list[float] = []

        async def serve(process: DummyProcess, stream: RawStream, told: list[float] = told) -> None:
            async for _ in requests(stream):
                await wait_end(stream)
                told.append(trio.current_time())
                return

        async with serving(serve) as world:
            await trio.sleep(0.0123)
            client = world.connect()
            client.send(get())
            await settled()
            await trio.sleep(wait)
            begun = trio.current_time()
            client.reset()
            await client.ended.wait()
            assert told[0] - begun <= 0.1


@simulated
async def test_the_end_of_the_grace_gives_every_session_back_wherever_it_is() -> None:
    """Cancelled from outside in every stage that there is."""
    worker = Holder()
    big = b"x" * 1_000_000

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        if process.pid == 1001:
            await worker(process, stream)
        else:
            async for _ in requests(stream):
                await stream.send_all(head() + data(big) + end())

    for wait in (0.0, 1.0):
        async with serving(serve) as world:
            wires = [
                b"",
                b"GET /",
                post(b"body")[:-1],
                post(b"x" * 300_000)[:-1],
                get("/hold"),
                get("/queued"),
                get("/queued") * 3,
            ]
            clients = [world.connect() for _ in wires]
            for client, wire in zip(clients, wires, strict=True):
                if wire:
                    client.stream.send_nowait(wire)
                await settled()
            await trio.sleep(wait)
            for client in clients:
                client.outer.cancel()
            for client in clients:
                await client.ended.wait()
            assert (world.sessions, world.queue_length, len(world.front.connections)) == (0, 0, 0)


# -- draining -------------------------------------------------------------------------------------------------------


class TestDraining:
    """R45, as far as it is a connection's matter."""

    @simulated
    async def test_R45_idle_connections_close_at_once(self) -> None:
        async with serving() as world:
            fresh, used = world.connect(), world.connect()
            assert (await used.ask()).body == b"ok"
            await settled()
            world.front.drain()
            assert await fresh.at_end()
            assert await used.at_end()
            assert trio.current_time() < 1

    @simulated
    async def test_R45_a_request_that_has_come_is_served_and_is_the_last(self) -> None:
        async with serving() as world:
            for served in (0, 1):
                client = world.connect()
                for _ in range(served):
                    await client.ask()
                await settled()
                client.send(get("/one") + get("/two"))
                world.front.drain()
                answer = await client.answer()
                assert (answer.body, answer.headers["connection"]) == (b"ok", "close")
                assert await client.at_end()
                world.front.draining = False

    @simulated
    async def test_R45_what_is_under_way_is_finished(self) -> None:
        worker = Holder()
        async with serving(worker) as world:
            busy, queued, half = world.connect(), world.connect(), world.connect()
            busy.send(get("/hold"))
            await settled()
            queued.send(get("/queued"))
            half.send(get("/half")[:-2])
            await settled()
            world.front.drain()
            await trio.sleep(1)
            half.send(b"\r\n")
            worker.held.pop().send_nowait(whole(b"held"))
            for client, body in ((busy, b"held"), (queued, b"/queued"), (half, b"/half")):
                answer = await client.answer()
                assert (answer.body, answer.headers["connection"]) == (body, "close")
                assert await client.at_end()

    @simulated
    async def test_R45_a_response_whose_head_is_out_ends_its_connection(self) -> None:
        go_on = trio.Event()

        async def serve(process: DummyProcess, stream: RawStream) -> None:
            async for _ in requests(stream):
                await stream.send_all(head() + data(b"one"))
                await go_on.wait()
                await stream.send_all(data(b"two") + end())

        async with serving(serve) as world:
            client = world.connect()
            client.send(get())
            await settled()
            world.front.drain()
            go_on.set()
            answer = await client.answer()
            assert (answer.body, answer.complete) == (b"onetwo", True)
            assert await client.at_end()

    @simulated
    async def test_R45_draining_and_a_new_request_in_one_step(self) -> None:
        """The client is answered, or its connection was closed before the request was read: never half of it."""
        async with serving() as world:
            for _ in range(ROUNDS):
                client = world.connect()
                assert (await client.ask()).body == b"ok"
                await settled()
                signal = Signal(world, world.front.drain)
                await settled()
                client.send(get())
                signal.give()
                assert (await client.answer()).body == b"ok"
                await client.ended.wait()
                world.front.draining = False


@simulated
async def test_R36_make_room_ends_those_that_are_idle_longest_and_counts_none_twice() -> None:
    async with serving() as world:
        clients = []
        for _ in range(6):
            clients.append(world.connect())
            await settled()
            await trio.sleep(0.01)
        busy = clients[0]
        busy.send(b"GET /")
        await settled()
        assert world.front.make_room(2) == 0, "they have only just come, and are about to ask"
        await trio.sleep(2)
        assert world.front.make_room(2) == 2
        assert world.front.make_room(2) == 2
        await settled()
        assert [client.ended.is_set() for client in clients] == [False, True, True, True, True, False]
        busy.send(get()[5:])
        assert (await busy.answer()).body == b"ok"
        await settled()
        assert world.front.make_room(2) == 2, "who has had an answer knows that the connection may end"


@simulated
async def test_respond_is_a_worker() -> None:
    """The tests' own tools."""
    async with serving(respond(lambda request: whole(request.body))) as world:
        client = world.connect()
        client.send(post(b"hello"))
        assert (await client.answer()).body == b"hello"
