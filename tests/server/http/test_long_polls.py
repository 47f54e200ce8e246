"""Requests that wait for hours and responses that go on for hours: nothing cuts them, nothing is held back, and who leaves is noticed."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from dummy_front import data, end, get, head, requests, serving, simulated, wait_end

from passenger_trio.core.model import GroupKey
from passenger_trio.core.policy_limits import GroupLimits
from passenger_trio.options import ServerOptions
from passenger_trio.spawning.dummy import DummyProcess
from passenger_trio.system.raw_stream import RawStream

HOUR = 3600.0


@simulated
async def test_a_request_may_wait_for_hours_and_a_response_may_last_for_hours() -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await trio.sleep(1.1 * HOUR)
            await stream.send_all(head())
            for number in range(2):
                await stream.send_all(data(b"data: %d\n\n" % number))
                await trio.sleep(0.55 * HOUR)
            await stream.send_all(end())

    async with serving(serve, deadline=10 * HOUR) as world:
        client = world.connect()
        answer = await client.ask()
        assert (answer.status, answer.complete) == (200, True)
        assert answer.body == b"".join(b"data: %d\n\n" % number for number in range(2))
        assert trio.current_time() >= 2.2 * HOUR
        assert world.sessions == 0


@simulated
async def test_each_chunk_is_the_clients_before_the_next_one_is_made() -> None:
    pieces = (head(), data(b"one"), data(b"two"), data(b"x" * 100_000), data(b"three"))
    expected = (b"\r\n\r\n", b"one\r\n", b"two\r\n", b"x\r\n", b"three\r\n")
    sent = -1

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        nonlocal sent
        async for _ in requests(stream):
            for sent, piece in enumerate(pieces):  # noqa: B007 - the test's
                await stream.send_all(piece)
                await trio.sleep(1)
            await stream.send_all(end())

    async with serving(serve) as world:
        client = world.connect()
        client.send(get())
        for number, what in enumerate(expected):
            came = b""
            while not came.endswith(what):
                came += await client.receive()
            assert sent == number, "a chunk came only after the next one was made"
        assert await client.receive() == b"0\r\n\r\n"


@pytest.mark.parametrize("begun", [False, True], ids=["a silent poll", "events"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@simulated
async def test_a_worker_is_told_at_once_when_the_client_leaves(begun: bool, reset: bool) -> None:
    told = -1.0

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        nonlocal told
        asked = requests(stream)
        await anext(asked)
        if begun:
            await stream.send_all(head() + data(b"first"))
        await wait_end(stream)
        told = trio.current_time()

    async with serving(serve, deadline=30 * HOUR) as world:
        client = world.connect()
        client.send(get())
        await trio.sleep(1.1 * HOUR)
        if begun:
            while not (await client.receive()).endswith(b"first\r\n"):
                pass
        (client.reset if reset else client.close)()
        await client.ended.wait()
        assert told - 1.1 * HOUR < 0.01
        await world.until(lambda: world.sessions == 0)


@simulated
async def test_a_client_that_half_closes_still_waits() -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await trio.sleep(HOUR)
            await stream.send_all(head() + data(b"news") + end())

    async with serving(serve, deadline=3 * HOUR) as world:
        client = world.connect()
        client.send(get())
        client.send_eof()
        assert (await client.answer()).body == b"news"


# -- event streams: the process, or the server, is to go -------------------------------------------------------------

EVENTS = head(200, b"Content-Type: text/event-stream; charset=utf-8")


class Events:
    """A worker that sends an event each second, for ever, until its stream is ended."""

    def __init__(self, first: bytes = EVENTS) -> None:
        self.first = first
        self.told = -1.0

    async def __call__(self, process: DummyProcess, stream: RawStream) -> None:
        asked = requests(stream)
        await anext(asked)
        await stream.send_all(self.first)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def hear() -> None:
                await wait_end(stream)
                self.told = trio.current_time()
                nursery.cancel_scope.cancel()

            while True:
                await stream.send_all(data(b"data: news\n\n"))
                await trio.sleep(1)


@pytest.mark.parametrize("cause", ["the process is detached", "the server drains"])
@simulated
async def test_an_event_stream_has_its_time_to_drain_and_ends_well_and_the_application_is_told(cause: str) -> None:
    worker = Events()
    async with serving(worker, options=ServerOptions(websocket_drain=20.0), deadline=3 * HOUR) as world:
        client = world.connect()
        client.send(get())
        await trio.sleep(10)
        [process] = world.pool.processes
        begun = trio.current_time()
        if cause == "the server drains":
            world.front.drain()
        else:
            world.pool.detach(process)
        answer = await client.answer()
        assert (answer.status, answer.complete) == (200, True)
        assert answer.body.endswith(b"data: news\n\n")
        assert await client.receive() == b"", "the connection goes with it"
        assert trio.current_time() - begun == pytest.approx(20, abs=1)
        await client.ended.wait()
        assert worker.told == pytest.approx(trio.current_time(), abs=1)
        assert [record.status for record in world.records] == [200]


@simulated
async def test_an_event_stream_that_begins_when_its_process_is_detached_already_has_the_same_time() -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        await trio.sleep(100)
        await Events()(process, stream)

    async with serving(serve, options=ServerOptions(websocket_drain=20.0), deadline=3 * HOUR) as world:
        client = world.connect()
        client.send(get())
        await trio.sleep(50)
        [process] = world.pool.processes
        world.pool.detach(process)
        assert (await client.answer()).complete
        assert trio.current_time() == pytest.approx(120, abs=2)


@simulated
async def test_another_response_is_waited_for() -> None:
    worker = Events(head(200, b"Content-Type: text/plain"))
    async with serving(worker, options=ServerOptions(websocket_drain=20.0), deadline=3 * HOUR) as world:
        client = world.connect()
        client.send(get())
        await trio.sleep(1)
        [process] = world.pool.processes
        world.pool.detach(process)
        world.front.drain()
        await trio.sleep(200)
        assert worker.told < 0
        client.close()
        await client.ended.wait()
        assert worker.told > 0


@simulated
async def test_an_event_stream_that_ends_by_itself_in_its_last_time_is_whole() -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await stream.send_all(EVENTS)
            await trio.sleep(10)
            await stream.send_all(data(b"data: last\n\n") + end())

    async with serving(serve, options=ServerOptions(websocket_drain=20.0), deadline=3 * HOUR) as world:
        client = world.connect()
        client.send(get())
        await trio.sleep(1)
        [process] = world.pool.processes
        world.pool.detach(process)
        answer = await client.answer()
        assert (answer.complete, answer.body) == (True, b"data: last\n\n")
        assert trio.current_time() < 12


@pytest.mark.parametrize("cause", ["restart", "the time of the request", "write timeout, then detach"])
@simulated
async def test_who_has_left_an_event_stream_is_not_told_to_drain_it(cause: str) -> None:
    """The session lasts until the process is done with it: longer than the response."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await stream.send_all(EVENTS + data(b"x" * 60_000))
            await trio.sleep(300)  # and does not look at the end of the stream
            return

    limits = GroupLimits(max_request_time=5.0 if cause == "the time of the request" else 0.0)
    options = ServerOptions(write_timeout=2.0)
    async with serving(serve, limits=limits, options=options, deadline=3 * HOUR) as world:
        client = world.connect(send_buffer=4096 if cause.startswith("write timeout") else 0)
        client.send(get())
        await trio.testing.wait_all_tasks_blocked()
        [process] = world.pool.processes
        if cause.startswith("write timeout"):
            await trio.sleep(10)
            world.pool.detach(process)
        else:
            client.reset()
            await trio.testing.wait_all_tasks_blocked()
            assert world.sessions == 1
            if cause == "restart":
                world.pool.restart(GroupKey("app", "test"))
        await trio.sleep(400)


def test_an_event_that_comes_in_the_step_in_which_its_stream_has_to_end() -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)

    async def run() -> None:
        streams: list[RawStream] = []

        async def serve(process: DummyProcess, stream: RawStream) -> None:
            async for _ in requests(stream):
                await stream.send_all(EVENTS + data(b"data: 1\n\n"))
                streams.append(stream)
                await wait_end(stream)
                return

        for _ in range(30):
            async with serving(serve, options=ServerOptions(websocket_drain=20.0)) as world:
                client = world.connect()
                client.send(get())
                await trio.testing.wait_all_tasks_blocked()
                world.front.drain()
                await trio.testing.wait_all_tasks_blocked()
                streams[-1].send_nowait(data(b"data: 2\n\n"))
                clock.jump(20.0)
                await trio.testing.wait_all_tasks_blocked()
                wire = await client.receive_all()
                assert wire.endswith(b"0\r\n\r\n")
                assert wire.count(b"0\r\n\r\n") == 1

    trio.run(run, clock=clock)


@pytest.mark.parametrize("bulk", [False, True])
@simulated
async def test_an_event_stream_whose_client_is_behind_ends_well_whatever_comes_after_its_end(bulk: bool) -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            try:
                await stream.send_all(EVENTS)
                for number in range(4000 if bulk else 60):
                    await stream.send_all(data(b"z" * (16_000 if bulk else 1_000)))
                    if number > 200 or not bulk:
                        await trio.sleep(0.05)
            except trio.BrokenResourceError:
                pass
            return

    async with serving(serve, options=ServerOptions(websocket_drain=1.0), deadline=3 * HOUR) as world:
        client = world.connect(send_buffer=4096)
        client.send(get())
        await trio.sleep(0.5)
        world.front.drain()
        await trio.sleep(2)
        assert (await client.receive_all()).endswith(b"\r\n0\r\n\r\n")
