"""A piece of a stream is a step of the poller: what it takes, and each thing that makes the connection's task go on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest
import trio
import trio.testing
from dummy_front import (
    Client,
    Worker,
    data,
    end,
    error,
    frame,
    get,
    head,
    requests,
    serving,
    simulated,
    wait_end,
)

from passenger_trio.codecs.http1_worker import HTTP
from passenger_trio.core.read_size import STEP
from passenger_trio.options import ServerOptions
from passenger_trio.server.http import deadline_scanner
from passenger_trio.server.http.pass_through import PassThrough
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner
from passenger_trio.system import turn_wait
from passenger_trio.system.raw_stream import RawStream

PAUSE = 0.2
"""Seconds between two pieces: longer than the fast path waits, and no flood."""
PIECES = [b"piece %d\n" % number for number in range(12)]


class Steps(trio.abc.Instrument):
    """Counts the steps of the connections' tasks, and those of the poller that have passed something on."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count[task.name.rpartition(".")[2]] += 1

    @property
    def connection(self) -> int:
        return self.count["_run"]


def in_pieces(pieces: Sequence[bytes], last: bytes = b"") -> Worker:
    """A worker that sends each piece after a pause, and then the last one."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            try:
                for piece in pieces:
                    await stream.send_all(piece)
                    await trio.sleep(PAUSE)
                await stream.send_all(last)
            except trio.BrokenResourceError:
                return

    return serve


async def chunks(client: Client) -> AsyncIterator[bytes]:
    """What comes of a chunked body, each chunk when it has come."""
    came = b""
    while b"\r\n\r\n" not in came:
        came += await client.receive()
    came = came.partition(b"\r\n\r\n")[2]
    while True:
        while b"\r\n" not in came:
            came += await client.receive()
        size, _, came = came.partition(b"\r\n")
        while len(came) < int(size, 16) + 2:
            came += await client.receive()
        piece, came = came[: int(size, 16)], came[int(size, 16) + 2 :]
        yield piece
        if not piece:
            return


HTTP_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("kind", ["session", "http"])
def test_a_piece_takes_no_step_of_the_connections_task(kind: str) -> None:
    wire = [data(piece) for piece in PIECES] if kind == "session" else [b"%x\r\n%b\r\n" % (len(p), p) for p in PIECES]
    begin, finish = (head(), end()) if kind == "session" else (HTTP_HEAD, b"0\r\n\r\n")

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        while await stream.recv():
            for piece in (begin, *wire):
                await stream.send_all(piece)
                await trio.sleep(PAUSE)
            await stream.send_all(finish)

    @simulated
    async def run() -> None:
        spawner = DummySpawner(serve=serve) if kind == "session" else DummySpawner(serve=serve, worker_protocol=HTTP)
        async with serving(spawner=spawner) as world:
            client = world.connect()
            client.send(get())
            steps, taken, got = Steps(), [], []
            trio.lowlevel.add_instrument(steps)
            async for chunk in chunks(client):
                taken.append(steps.connection)
                got.append(chunk)
            assert got == [*PIECES, b""]
            assert len(set(taken[1:-1])) == 1, "the task took a step for a piece"
            await world.until(lambda: world.records)
            assert steps.connection > taken[-2], "the end of the response is the task's"
            assert world.records[0].bytes_sent == sum(map(len, PIECES))
            trio.lowlevel.remove_instrument(steps)

    run()


class Passes(trio.abc.Instrument):
    """Counts the passes of Trio's loop."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_pieces_that_come_one_by_one_take_no_pass_of_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of the poller's task either: its turn waits for the next piece."""
    monkeypatch.setattr(turn_wait, "_MOST", 3600.0)
    monkeypatch.setattr(deadline_scanner, "_SCAN", 3600.0)  # what is due in Trio ends a wait
    read = threading.Semaphore(0)
    passes, counted = Passes(), []

    def send(stream: RawStream) -> None:
        """In a thread: a process of its own."""
        for piece in [*map(data, PIECES), end()]:
            read.acquire()
            stream.socket.send(piece)

    def receive(client: Client) -> None:
        client.stream.socket.setblocking(True)
        came = b""
        while not came.endswith(b"0\r\n\r\n"):
            came += client.stream.socket.recv(65536)
            counted.append(passes.count)
            read.release()
        client.stream.socket.setblocking(False)

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await stream.send_all(head() + data(b"first"))
            await trio.to_thread.run_sync(send, stream)

    async with serving(serve) as world:
        client = world.connect()
        client.send(get())
        await trio.sleep(0.1)  # the deadline of the fast path is over
        trio.lowlevel.add_instrument(passes)
        await trio.to_thread.run_sync(receive, client)
        trio.lowlevel.remove_instrument(passes)
    assert len(counted) == 1 + len(PIECES) + 1
    # Of the first ones some may be waited for in Trio, where the threads were started meanwhile.
    assert len(set(counted[-8:-1])) == 1, "a pass for a piece"


@pytest.mark.parametrize("size", [10, 900, 5000, 15_000])
def test_each_piece_is_exact_and_counted(size: int) -> None:
    pieces = [bytes([65 + number]) * size for number in range(8)]

    @simulated
    async def run() -> None:
        async with serving(in_pieces([head(), *map(data, pieces)], end())) as world:
            client = world.connect()
            answer = await client.ask()
            assert (answer.body, answer.complete) == (b"".join(pieces), True)
            await world.until(lambda: world.records)
            assert world.records[0].bytes_sent == 8 * size

    run()


# The request, the fields of the response, what the client gets of the pieces, and whether the response is whole.
FRAMINGS = {
    "chunked": (get(), (), b"".join(PIECES), True),
    "by h11": (get(), (), b"".join(PIECES), True),
    "declared": (get(), (b"Content-Length: %d" % len(b"".join(PIECES)),), b"".join(PIECES), True),
    "more than declared": (get(), (b"Content-Length: 20",), b"".join(PIECES)[:20], True),
    "less than declared": (get(), (b"Content-Length: 2000",), b"".join(PIECES), False),
    "HTTP/1.0": (get(version="1.0"), (), b"".join(PIECES), True),
    "HEAD": (get(method="HEAD"), (), b"", True),
}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_pieces_are_framed_as_all_others(framing: str) -> None:
    request, fields, expected, whole = FRAMINGS[framing]

    @simulated
    async def run() -> None:
        options = ServerOptions(plain_parser=framing != "by h11")
        worker = in_pieces([head(200, *fields), *map(data, PIECES)], end())
        async with serving(worker, options=options) as world:
            client = world.connect()
            client.send(request)
            answer = await client.answer("HEAD" if framing == "HEAD" else "GET")
            assert (answer.body, answer.complete) == (expected, whole)
            client.close()
            await world.until(lambda: world.records)
            assert world.records[0].bytes_sent == len(expected)

    run()


@simulated
async def test_the_stream_is_kept_at_the_end_and_serves_the_next_request() -> None:
    async with serving(in_pieces([head(), *map(data, PIECES)], end())) as world:
        client = world.connect()
        assert (await client.ask()).complete
        (process,) = world.pool.processes.values()
        (stream,) = process.idle_streams
        assert stream.registration is not None, "the poller notices it if the process ends it"
        assert (await client.ask()).complete
        assert process.idle_streams == [stream]


@simulated
async def test_what_the_client_does_not_take_is_the_tasks_and_then_the_pollers_again() -> None:
    pieces = [bytes([65 + number]) * 9000 for number in range(12)] + PIECES
    async with serving(in_pieces([head(), *map(data, pieces)], end())) as world:
        client = world.connect(send_buffer=4096)
        client.send(get())
        exchange = None
        await world.until(lambda: (e := client.connection.exchange) is not None and e.buffer is not None)
        exchange = client.connection.exchange
        assert exchange is not None
        await world.until(lambda: exchange.buffer is not None and exchange.buffer.ledger.backlog > 20_000)
        got, taken, steps = [], [], Steps()
        trio.lowlevel.add_instrument(steps)
        async for chunk in chunks(client):
            got.append(chunk)
            taken.append(steps.connection)
        trio.lowlevel.remove_instrument(steps)
        assert b"".join(got) == b"".join(pieces)
        assert taken[-2] == taken[-4], "a client that keeps up again needs no task"


@pytest.mark.parametrize(
    ("last", "whole"),
    [
        pytest.param(end(), True, id="its end"),
        pytest.param(error() + end(), False, id="an error of the application"),
        pytest.param(frame(b"Q"), False, id="what is no frame"),
        pytest.param(data(b""), False, id="an empty frame"),
        pytest.param(end() + data(b"more"), False, id="bytes behind its end"),
    ],
)
def test_what_ends_a_response_is_told_by_the_task(last: bytes, whole: bool) -> None:
    @simulated
    async def run() -> None:
        async with serving(in_pieces([head(), *map(data, PIECES)], last)) as world:
            client = world.connect()
            answer = await client.ask()
            assert (answer.body, answer.complete) == (b"".join(PIECES), whole)
            client.close()
            await client.ended.wait()
            assert (world.records[0].status, world.records[0].bytes_sent) == (200, sum(map(len, PIECES)))

    run()


@pytest.mark.parametrize("broken", [False, True])
def test_a_process_that_ends_in_the_middle(broken: bool) -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        await anext(requests(stream))
        for piece in (head(), *map(data, PIECES)):
            await stream.send_all(piece)
            await trio.sleep(PAUSE)
        if broken:
            await trio.sleep(PAUSE)
        stream.close()

    @simulated
    async def run() -> None:
        async with serving(serve) as world:
            client = world.connect()
            client.send(get())
            if broken:
                # Unread bytes at the process make its close a reset.
                await trio.sleep(PAUSE)
                exchange = client.connection.exchange
                assert exchange is not None
                assert exchange.session is not None
                assert exchange.session.stream is not None
                exchange.session.stream.send_nowait(b"?")
            answer = await client.answer()
            assert (answer.body, answer.complete) == (b"".join(PIECES), False)
            assert await client.at_end()

    run()


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_leaves_between_two_pieces(reset: bool) -> None:
    told: list[float] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        await anext(requests(stream))
        await stream.send_all(head() + data(b"first"))
        await wait_end(stream)
        told.append(trio.current_time())

    @simulated
    async def run() -> None:
        async with serving(serve) as world:
            client = world.connect()
            client.send(get())
            await client.receive()
            await trio.sleep(PAUSE)
            left = trio.current_time()
            client.reset()
            await client.ended.wait()
            await world.until(lambda: told)
            assert told[0] - left < 1.0

    if reset:
        run()
    else:

        @simulated
        async def cut() -> None:
            """The server's grace is over."""
            async with serving(serve) as world:
                client = world.connect()
                client.send(get())
                await client.receive()
                await trio.sleep(PAUSE)
                client.outer.cancel()
                await client.ended.wait()
                await world.until(lambda: told)

        cut()


@simulated
async def test_an_event_stream_gets_its_scope_whenever_its_head_comes() -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        await anext(requests(stream))
        await trio.sleep(1)  # the slow path waits for the head
        await stream.send_all(head(200, b"Content-Type: text/event-stream"))
        for piece in PIECES[:3]:
            await stream.send_all(data(piece))
            await trio.sleep(PAUSE)
        await wait_end(stream)

    async with serving(serve) as world:
        client = world.connect()
        client.send(get())
        got = []
        async for chunk in chunks(client):
            got.append(chunk)
            if len(got) == 3:
                world.front.drain()
        assert got == [*PIECES[:3], b""], "it has a proper end"


@simulated
async def test_KE7_many_pieces_in_one_read_are_the_tasks() -> None:
    """A step of the poller handles a bounded number; then they take turns."""
    many = 40 * STEP
    most = before = 0

    class Pieces(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal most, before
            for connection in world.front.connections:
                if (exchange := connection.exchange) is not None and exchange.reader is not None:
                    most, before = max(most, exchange.reader.pieces - before), exchange.reader.pieces

    async with serving(in_pieces([head(), data(b"a"), data(b"x") * many], end())) as world:
        client = world.connect()
        client.send(get())
        instrument = Pieces()
        trio.lowlevel.add_instrument(instrument)
        answer = await client.answer()
        trio.lowlevel.remove_instrument(instrument)
        assert len(answer.body) == many + 1
        assert most <= 2 * 256 + STEP


@simulated
async def test_KE7_one_small_piece_after_the_other_takes_turns() -> None:
    """They come one to a read, and fifty times a second: the task takes them from the poller."""
    asked: list[bool] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await stream.send_all(head())
            for _ in range(60):
                await stream.send_all(data(b"x"))
                await trio.sleep(0.005)
            await stream.send_all(end())

    async with serving(serve) as world:
        take = world.front.flood_turns.take

        async def counted(*, is_heavy: bool) -> None:
            asked.append(is_heavy)
            await take(is_heavy=is_heavy)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(world.front.flood_turns), "take", lambda self, *, is_heavy: counted(is_heavy=is_heavy))
            assert (await world.connect().ask()).body == b"x" * 60
    assert len(asked) >= 60 - 20


def test_the_steps_that_are_counted_here_are_the_pollers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard itself: with a step that always wants the task, each piece takes one of its steps."""
    pass_on = PassThrough._pass_on
    monkeypatch.setattr(PassThrough, "_pass_on", lambda self: pass_on(self) or True)
    with pytest.raises(AssertionError, match="the task took a step for a piece"):
        test_a_piece_takes_no_step_of_the_connections_task("session")
