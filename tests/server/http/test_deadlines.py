"""R27: how long each stage of a connection may last, in simulated time.

The deadline scanner promises that no connection is cut off before its deadline, and none later than a quarter of a second after it.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing
from dummy_front import Client, data, end, get, head, post, requests, respond, serving, simulated, whole

from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.server.http.body_clock import BodyClock
from passenger_trio.server.http.deadline_scanner import DeadlineScanner
from passenger_trio.server.http.stage import FAST_PATH_TIMEOUT, Stage
from passenger_trio.spawning.dummy import DummyProcess
from passenger_trio.system.raw_stream import RawStream

OPTIONS = ServerOptions(
    header_timeout=5.0,
    body_timeout=4.0,
    body_min_rate=100,
    keep_alive_timeout=7.0,
    write_timeout=9.0,
    max_connection_age=0,
)
SLACK = 0.26
"""The deadline scanner looks every quarter of a second."""


def about(seconds: float) -> object:
    return pytest.approx(seconds + SLACK / 2, abs=SLACK / 2 + 0.001)


async def ends_after(client: Client) -> tuple[float, bytes]:
    """Seconds until the connection ends, and what came before that."""
    begun = trio.current_time()
    wire = await client.receive_all()
    return trio.current_time() - begun, wire


async def drip(client: Client, wire: bytes, interval: float) -> bytes:
    """Send byte by byte until the server says something; that and all that follows is returned."""
    answer = b""
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            nonlocal answer
            answer = await client.receive()
            nursery.cancel_scope.cancel()

        nursery.start_soon(read)
        for at in range(len(wire)):
            client.send(wire[at : at + 1])
            await trio.sleep(interval)
        await trio.sleep(3600)
    return answer + await client.receive_all()


# -- the head and between heads ---------------------------------------------------------------------------------------


@simulated
async def test_R27_a_connection_without_a_byte_closes_silently() -> None:
    async with serving(options=OPTIONS) as world:
        assert await ends_after(world.connect()) == (about(5), b"")
        assert world.records == []


@simulated
async def test_R27_the_time_for_a_head_is_absolute_from_its_first_byte() -> None:
    async with serving(options=OPTIONS) as world:
        for first in (True, False):
            client = world.connect()
            if not first:
                assert (await client.ask()).body == b"ok"
            await trio.sleep(4)
            begun = trio.current_time()
            answer = await drip(client, get("/" + "a" * 2000), 0.01)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"Connection: close" in answer
            assert trio.current_time() - begun == about(5)
        assert world.front.rejected == {"header_timeout": 2}


@simulated
async def test_R27_a_head_that_comes_slowly_and_in_time_is_served() -> None:
    async with serving(options=OPTIONS) as world:
        client = world.connect()
        wire = get()
        assert (await drip(client, wire, 4.9 / len(wire))).startswith(b"HTTP/1.1 200 ")


@simulated
async def test_R27_the_time_for_a_pipelined_head_begins_when_its_turn_comes() -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await trio.sleep(60)
            await stream.send_all(whole())

    async with serving(serve, options=OPTIONS) as world:
        client = world.connect()
        client.send(get() + get()[:-1])
        assert (await client.answer()).body == b"ok"
        await trio.sleep(4)
        client.send(b"\n")
        assert (await client.answer()).body == b"ok"


@simulated
async def test_R27_an_idle_connection_closes_silently() -> None:
    async with serving(options=OPTIONS) as world:
        client = world.connect()
        for _ in range(3):
            assert (await client.ask()).body == b"ok"
            await trio.sleep(6.9)
        assert (await client.ask()).body == b"ok"
        assert await ends_after(client) == (about(7), b"")


@simulated
async def test_R27_an_empty_line_between_requests_is_no_head() -> None:
    """R1 lets one pass; it does not turn an idle connection into one that owes a head."""
    async with serving(options=OPTIONS) as world:
        client = world.connect()
        assert (await client.ask()).body == b"ok"
        client.send(b"\r\n")
        assert await ends_after(client) == (about(7), b"")


# -- the body ---------------------------------------------------------------------------------------------------------


@simulated
async def test_R27_a_body_that_does_not_come_is_late_after_its_grace() -> None:
    async with serving(options=OPTIONS) as world:
        client = world.connect()
        client.send(post(b"body")[:-1])
        seconds, wire = await ends_after(client)
        assert wire.startswith(b"HTTP/1.1 408 ")
        assert seconds == about(4)
        await client.ended.wait()
        assert world.processed == 0
        assert [record.status for record in world.records] == [408]


@pytest.mark.parametrize("size", [5_000, 500_000])
@simulated
async def test_R27_a_body_at_the_minimum_rate_is_taken_and_below_it_is_late(size: int) -> None:
    """Small: it is late in front of the pool. Large: the worker has it already, and is told that there will be no more."""
    ended = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            await stream.send_all(whole(b"%d" % len(request.body)))
        ended.append(process.pid)

    # What is sent at once, before the client becomes slow, earns nothing beyond the grace.
    at_once = max(0, size - 5_000)
    async with serving(serve, options=OPTIONS, app=AppOptions(request_buffering=size < 100_000)) as world:
        for rate, expected in ((110, b"200"), (90, b"408")):
            client = world.connect()
            wire = post(b"x" * size)
            await client.stream.send_all(wire[: len(wire) - size + at_once])
            answer = await drip(client, wire[len(wire) - size + at_once :], 1 / rate)
            assert answer.split(b" ")[1] == expected
            client.close()
            await client.ended.wait()
        assert world.sessions == 0
        assert world.processed == (1 if size < 100_000 else 2)


@simulated
async def test_R27_a_client_that_was_fast_may_not_stop_for_ever() -> None:
    async with serving(options=OPTIONS, app=AppOptions(request_buffering=False)) as world:
        for at_once in (100_000, 400_000):
            client = world.connect()
            wire = post(b"x" * 500_000)
            await client.stream.send_all(wire[:at_once])
            begun = trio.current_time()
            assert (await client.receive()).startswith(b"HTTP/1.1 408 ")
            assert trio.current_time() - begun == about(4)


@simulated
async def test_R27_the_application_s_slowness_is_not_the_clients() -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        received = 0
        while received < 900_000:
            await trio.sleep(10)
            received += len(await stream.recv())
        await stream.send_all(whole(b"at last", flags=1))

    async with serving(serve, options=OPTIONS) as world:
        client = world.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, post(b"x" * 900_000))
            assert (await client.answer()).body == b"at last"


def test_R27_the_body_clock_counts_waiting_only_and_never_saves_up() -> None:
    clock = BodyClock(10.0, 500)
    assert clock.remaining() == 10
    clock.waited(4, 0)
    assert clock.remaining() == 6
    clock.waited(1, 1000)
    assert clock.remaining() == 7
    clock.waited(0, 10_000_000)
    assert clock.remaining() == 10
    clock.waited(11, 0)
    assert clock.remaining() == 0
    assert BodyClock(10.0, 0).remaining() == float("inf")


# -- the response -----------------------------------------------------------------------------------------------------

BIG = b"0123456789abcdef" * 65536


def big(plain_parser: str) -> bytes:
    if plain_parser == "chunked":
        return head() + data(BIG) + end()
    return head(200, b"Content-Length: %d" % len(BIG)) + data(BIG) + end()


@pytest.mark.parametrize("kind", ["chunked", "length"])
@simulated
async def test_R27_a_client_that_takes_nothing_is_closed_and_holds_no_process(kind: str) -> None:
    async with serving(respond(big(kind)), options=OPTIONS) as world:
        client = world.connect()
        client.send(get())
        await trio.testing.wait_all_tasks_blocked()
        begun = trio.current_time()
        await world.until(lambda: world.processed == 1)  # the rest has been written to disk, in a thread
        assert client.connection.stage is Stage.WRITE
        await client.ended.wait()
        assert trio.current_time() - begun == about(9)
        wire = await client.receive_all()
        assert len(wire) < len(BIG)


@simulated
async def test_R27_a_client_that_takes_a_little_now_and_then_gets_everything() -> None:
    async with serving(respond(big("length")), options=OPTIONS) as world:
        client = world.connect(send_buffer=4096)
        client.send(get())
        wire = b""
        while not wire.endswith(BIG):
            await trio.sleep(6)
            wire += await client.stream.recv(200_000)
        assert trio.current_time() > 2 * OPTIONS.write_timeout
        client.close()


@simulated
async def test_R27_a_client_that_takes_nothing_of_a_refusal_is_closed_too() -> None:
    """Nothing waits without a deadline, not even on the way out."""
    async with serving(options=OPTIONS) as world:
        client = world.connect(send_buffer=4096)
        # The buffer is filled by a server that answers pipelined requests; then comes a bad one.
        for _ in range(200):
            client.stream.send_nowait(get())
        client.stream.send_nowait(b"BAD\r\n\r\n")
        await client.ended.wait()
        assert trio.current_time() < 20


@pytest.mark.parametrize("in_pieces", [False, True])
@simulated
async def test_the_process_is_free_before_the_client_has_the_last_byte(in_pieces: bool) -> None:
    body = b"x" * 60_000

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            frames = head(200, b"Content-Length: %d" % len(body)) + data(body) + end()
            for piece in (frames[:1000], frames[1000:]) if in_pieces else (frames,):
                await stream.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()

    async with serving(serve, options=OPTIONS) as world:
        slow, other = world.connect(send_buffer=4096), world.connect()
        slow.send(get())
        await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        assert slow.connection.stage is Stage.WRITE
        assert world.sessions == 0
        assert (await other.ask()).body == body
        assert (await slow.answer()).body == body


# -- the end ----------------------------------------------------------------------------------------------------------


@simulated
async def test_R29_lingering_ends_by_itself() -> None:
    async with serving(options=OPTIONS) as world:
        silent = world.connect()
        silent.send(b"BAD\r\n\r\n")
        assert (await silent.receive_all()).startswith(b"HTTP/1.1 400 ")
        assert trio.current_time() < 1
        await silent.ended.wait()
        assert trio.current_time() == about(2)


@simulated
async def test_R29_what_is_dropped_while_lingering_is_bounded() -> None:
    async with serving(options=OPTIONS) as world:
        client = world.connect()
        client.send(b"BAD\r\n\r\n")
        sent = 0
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 - which of the many sends fails is not the point
            while True:
                await client.stream.send_all(b"x" * 16384)
                sent += 16384
        assert 256 * 1024 <= sent <= 1024 * 1024
        assert trio.current_time() < 1


@simulated
async def test_connections_have_a_greatest_age_and_a_most_of_requests() -> None:
    options = ServerOptions(max_requests_per_connection=3, max_connection_age=10)
    async with serving(options=options) as world:
        client = world.connect()
        answers = [await client.ask() for _ in range(3)]
        assert [answer.headers.get("connection") for answer in answers] == [None, None, "close"]
        assert await client.at_end()
        client = world.connect()
        assert (await client.ask()).headers.get("connection") is None
        await trio.sleep(10)
        assert (await client.ask()).headers["connection"] == "close"
        assert await client.at_end()


# -- the deadline scanner itself --------------------------------------------------------------------------------------------


@simulated
async def test_the_patience_is_kept_exactly_also_when_nothing_else_goes_on() -> None:
    """The slow path sees a client leave; so it must not begin late."""
    cut: list[float] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await trio.sleep(5)
            await stream.send_all(whole())

    async with serving(serve) as world:
        for pause in (0.0, 0.1, 0.2, 0.249, 0.3, 3.0):
            await trio.sleep(pause)
            client = world.connect()
            client.send(get())
            await trio.testing.wait_all_tasks_blocked()
            begun = trio.current_time()
            while client.connection.stage is Stage.APP:  # noqa: ASYNC110 - the server tells nobody
                await trio.sleep(0.001)
            cut.append(trio.current_time() - begun)
            await client.answer()
            client.close()
            await client.ended.wait()
    assert max(cut) <= FAST_PATH_TIMEOUT + 0.007
    assert min(cut) >= FAST_PATH_TIMEOUT


@simulated
async def test_OP5_a_connection_that_comes_while_the_deadline_scanner_rests_is_cut_in_time() -> None:
    async with serving(options=OPTIONS) as world:
        for rest in (21.0, 23.7, 0.1):
            await trio.sleep(rest)
            assert await ends_after(world.connect()) == (about(5), b"")


@simulated
async def test_OP5_a_deadline_scanner_without_a_connection_wakes_once_in_five_seconds() -> None:
    steps = 0

    class Counter(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal steps
            steps += "DeadlineScanner" in task.name

    keeper = DeadlineScanner(set())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        trio.lowlevel.add_instrument(Counter())
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert steps <= 23


@simulated
async def test_a_busy_deadline_scanner_is_not_woken_by_every_request() -> None:
    async with serving() as world:
        steps = 0

        class Counter(trio.abc.Instrument):
            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                nonlocal steps
                steps += "DeadlineScanner" in task.name

        trio.lowlevel.add_instrument(Counter())
        client = world.connect()
        for _ in range(1000):
            await client.ask()
        # All of this took no simulated time at all: the first request may wake it, the others must not.
        assert steps <= 2


@simulated
async def test_R32_a_thousand_connections_are_looked_at_and_only_the_late_ones_end() -> None:
    async with serving(options=OPTIONS) as world:
        early = [world.connect() for _ in range(500)]
        await trio.sleep(3)
        late = [world.connect() for _ in range(500)]
        await trio.sleep(2.5)
        assert all(client.ended.is_set() for client in early)
        assert not any(client.ended.is_set() for client in late)
