"""Processes that speak HTTP in place of the session protocol, over socket pairs: what they are asked, what becomes of what they answer.

The worker is the test's own, written against h11's server side; nothing here starts a process.
"""

from __future__ import annotations

import signal
import socket

import attrs
import h11
import pytest
import trio
import trio.testing
from dummy_front import World, get, post, serving, simulated

from passenger_trio.codecs.http1_worker import HTTP
from passenger_trio.core.policy_limits import GroupLimits
from passenger_trio.options import AppOptions
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner, Serve
from passenger_trio.system.raw_stream import RawStream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"


@attrs.frozen
class Asked:
    request: h11.Request
    body: bytes

    @property
    def path(self) -> str:
        return self.request.target.decode()

    def field(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.request.headers if key == name), None)


class asked:
    """The requests of one stream, each when it is whole: ``async for request in asked(stream)``. It ends with the stream."""

    def __init__(self, stream: RawStream) -> None:
        self._stream = stream
        self._connection = h11.Connection(h11.SERVER)

    def __aiter__(self) -> asked:
        return self

    async def __anext__(self) -> Asked:
        connection = self._connection
        if connection.their_state is h11.DONE:
            # What the test writes by itself h11 must believe to have written.
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
        body = b""
        request: h11.Request | None = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                try:
                    connection.receive_data(await self._stream.recv())
                except trio.BrokenResourceError:
                    raise StopAsyncIteration from None
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                return Asked(request, body)
            else:
                raise StopAsyncIteration


def speaking(serve: Serve, *, concurrency: int = 1) -> DummySpawner:
    return DummySpawner(serve=serve, worker_protocol=HTTP, concurrency=concurrency)


def answering(*pieces: bytes, close: bool = False) -> DummySpawner:
    """Answers every request with these bytes, each seen before the next is sent."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in asked(stream):
            for piece in pieces:
                await stream.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()
            if close:
                return

    return speaking(serve)


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


async def answer_of(world: World, request: bytes = b"", method: str = "GET") -> tuple[int, bytes, bool]:
    client = world.connect()
    client.send(request or get(method=method))
    answer = await client.answer(method)
    return answer.status, answer.body, answer.complete


@simulated
async def test_one_stream_serves_one_request_after_another() -> None:
    streams: list[RawStream] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        streams.append(stream)
        async for _ in asked(stream):
            await stream.send_all(OK)

    async with serving(spawner=speaking(serve)) as world:
        client = world.connect()
        for _ in range(5):
            assert (await client.ask()).body == b"ok"
        assert (await world.connect().ask()).body == b"ok"
        assert len(streams) == 1


@pytest.mark.parametrize("split", ["whole", "bytes"])
@pytest.mark.parametrize(
    ("wire", "close", "body"),
    [
        (OK, False, b"ok"),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", False, b"hello"),
        (UNTIL_CLOSE + b"hello", True, b"hello"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", True, b"hello"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK, False, b"ok"),
    ],
)
@simulated
async def test_a_response_arrives_however_it_is_framed_and_cut(
    split: str, wire: bytes, close: bool, body: bytes
) -> None:
    async with serving(spawner=answering(*([wire] if split == "whole" else one_by_one(wire)), close=close)) as world:
        client = world.connect()
        for _ in range(2):
            answer = await client.ask()
            assert (answer.status, answer.body, answer.complete) == (200, body, True)
        assert len(world.spawner.processes) == 1


@pytest.mark.parametrize("split", ["whole", "bytes"])
@simulated
async def test_bodies_that_may_not_be_are_not(split: str) -> None:
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
    async with serving(spawner=answering(*([wire] if split == "whole" else one_by_one(wire)))) as world:
        client = world.connect()
        for _ in range(2):
            client.send(get(method="HEAD"))
            answer = await client.answer("HEAD")
            assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "9")
    async with serving(spawner=answering(b"HTTP/1.1 204 No Content\r\n\r\n")) as world:
        assert (await world.connect().ask()).status == 204


@simulated
async def test_what_a_process_is_asked() -> None:
    seen: list[Asked] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in asked(stream):
            seen.append(request)
            await stream.send_all(OK)

    async with serving(spawner=speaking(serve)) as world:
        client = world.connect(trusted=False)
        client.send(get("/a?b", "X-Forwarded-For: evil", "Connection: keep-alive", "Accept: x"))
        assert (await client.answer()).status == 200
    request = seen[0]
    assert request.path == "/a?b"
    assert request.field(b"host") == b"localhost"
    assert request.field(b"accept") == b"x"
    assert request.field(b"connection") is None
    assert request.field(b"x-forwarded-host") == b"localhost"
    assert request.field(b"x-forwarded-proto") == b"http"
    assert request.field(b"x-request-id") == world.records[0].request_id
    assert request.field(b"x-forwarded-for") != b"evil"


@pytest.mark.parametrize("size", [0, 5, 100_000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("buffered", [False, True])
def test_a_request_body_arrives(size: int, chunked: bool, buffered: bool) -> None:
    """In memory, on disk, and as it comes. On the real clock: the disk has threads."""

    async def run() -> None:
        seen: list[Asked] = []

        async def serve(process: DummyProcess, stream: RawStream) -> None:
            async for request in asked(stream):
                seen.append(request)
                await stream.send_all(OK)

        body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        async with serving(spawner=speaking(serve), app=AppOptions(request_buffering=buffered), deadline=60) as world:
            client = world.connect()
            for _ in range(2):
                if chunked:
                    pieces = [body[at : at + 10_000] for at in range(0, size, 10_000)]
                    wire = get("/", "Transfer-Encoding: chunked", method="POST")
                    wire += b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
                else:
                    wire = post(body)
                await client.stream.send_all(wire)
                assert (await client.answer()).body == b"ok"
        assert [request.body == body for request in seen] == [True, True]

    trio.run(run)


MALFORMED = {
    "length and coding": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "garbage": b"\x00\xff garbage",
    "an early upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("split", ["whole", "bytes"])
@pytest.mark.parametrize("name", MALFORMED)
@simulated
async def test_R24_what_is_no_response_is_a_502_and_the_process_goes(name: str, split: str) -> None:
    wire = MALFORMED[name]
    count = 0

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        nonlocal count
        async for _ in asked(stream):
            count += 1
            for piece in [wire] if split == "whole" else one_by_one(wire):
                if count == 1:
                    await stream.send_all(piece)
                    await trio.testing.wait_all_tasks_blocked()
            if count > 1:
                await stream.send_all(OK)

    async with serving(spawner=speaking(serve)) as world:
        client = world.connect()
        assert (await client.ask()).status == 502
        assert (await client.ask()).body == b"ok"
        assert len(world.spawner.processes) == 2


@simulated
async def test_R24_a_chunked_body_that_goes_wrong_is_truncated() -> None:
    async with serving(spawner=answering(CHUNKED + b"5\r\nhello\r\n", b"oops\r\n")) as world:
        assert await answer_of(world) == (200, b"hello", False)


@pytest.mark.parametrize("wire", [CHUNKED + b"5\r\nhello\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"])
@simulated
async def test_R25_a_response_that_is_cut_short_is_seen_to_be(wire: bytes) -> None:
    async with serving(spawner=answering(wire, close=True)) as world:
        assert await answer_of(world) == (200, b"hello", False)


@pytest.mark.parametrize("wire", [OK, CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"])
@simulated
async def test_R25_a_process_that_goes_at_any_point_never_looks_whole(wire: bytes) -> None:
    at = 0

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in asked(stream):
            await stream.send_all(wire[:at])
            await trio.testing.wait_all_tasks_blocked()
            return

    async with serving(spawner=speaking(serve)) as world:
        for at in range(1, len(wire)):
            status, _, complete = await answer_of(world)
            assert (status, complete) in ((502, True), (200, False)), at


@pytest.mark.parametrize("cause", ["its own time", "that of another request", "the end of the grace of a restart"])
@simulated
async def test_R25_a_response_that_would_end_with_its_stream_is_not_ended_by_killing_its_process(cause: str) -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        process.obeys = False
        async for request in asked(stream):
            if request.path == "/":
                await stream.send_all(UNTIL_CLOSE + b"hello")
            await trio.sleep_forever()

    limits = GroupLimits(max_request_time=5.0 if "grace" not in cause else 0.0)
    async with serving(spawner=speaking(serve, concurrency=2), limits=limits) as world:
        if cause.startswith("that"):
            world.connect().send(get("/silent"))
            await trio.sleep(4)
        client = world.connect()
        client.send(get())
        await trio.testing.wait_all_tasks_blocked()
        if "grace" in cause:
            [process] = world.pool.processes.values()
            world.pool.group_tasks[process.group].keepers[process.id].retire("a test wants it so")
        answer = await client.answer()
        assert (answer.status, answer.body, answer.complete) == (200, b"hello", False)
        assert signal.SIGKILL in world.spawner.processes[0].signals


@simulated
async def test_R41_bytes_behind_a_response_are_nobody_s() -> None:
    count = 0

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        nonlocal count
        async for _ in asked(stream):
            count += 1
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%02d" % count + OK)

    async with serving(spawner=speaking(serve)) as world:
        client = world.connect()
        for number in range(1, 4):
            assert (await client.ask()).body == b"%02d" % number
        assert len(world.spawner.processes) == 1


@simulated
async def test_R30_an_idle_stream_that_the_process_ends_costs_nobody_anything() -> None:
    seen: list[str] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in asked(stream):
            seen.append(request.path)
            await stream.send_all(OK)
            await trio.sleep(5)
            return

    async with serving(spawner=speaking(serve)) as world:
        client = world.connect()
        for number in range(4):
            client.send(post(b"hi", f"/{number}") if number % 2 else get(f"/{number}"))
            assert (await client.answer()).body == b"ok"
            await trio.sleep(6)
        assert seen == ["/0", "/1", "/2", "/3"]


@simulated
async def test_R30_a_post_never_meets_a_process_that_is_just_ending_its_idle_stream() -> None:
    """It ends the stream when it is asked on it: as if both had crossed."""
    streams = 0

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        nonlocal streams
        streams += 1
        served = 0
        async for _ in asked(stream):
            if served:
                return
            served += 1
            await stream.send_all(OK)

    async with serving(spawner=speaking(serve)) as world:
        client = world.connect()
        for _ in range(5):
            client.send(post(b"hi"))
            assert (await client.answer()).body == b"ok"
            # A GET that crosses is sent again, on a new stream.
            assert (await client.ask()).body == b"ok"


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 502)])
@simulated
async def test_R30_a_process_that_dies_before_it_answers(method: str, status: int) -> None:
    count = 0

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        nonlocal count
        async for _ in asked(stream):
            count += 1
            if count == 1:
                process.exit(1)
                return
            await stream.send_all(OK)

    async with serving(spawner=speaking(serve)) as world:
        client = world.connect()
        client.send(get(method=method))
        assert (await client.answer(method)).status == status


@simulated
async def test_a_client_that_leaves_closes_the_stream_and_frees_the_process_at_once() -> None:
    ended = trio.Event()

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in asked(stream):
            if request.path == "/stream":
                await stream.send_all(CHUNKED + b"5\r\nhello\r\n")
                try:
                    while True:
                        await stream.send_all(b"5\r\nhello\r\n")
                        await trio.sleep(1)
                except trio.BrokenResourceError:
                    pass
                ended.set()
                return
            await stream.send_all(OK)

    async with serving(spawner=speaking(serve)) as world:
        client = world.connect()
        client.send(get("/stream"))
        await client.receive()
        client.reset()
        await ended.wait()
        await client.ended.wait()
        assert world.sessions == 0
        assert (await world.connect().ask()).body == b"ok"
        assert len(world.spawner.processes) == 1


@pytest.mark.parametrize("size", [300_000, 1_000_000, 3_000_000])
@simulated
async def test_a_body_whose_end_goes_to_the_disk_in_bulk_frees_the_process(size: int) -> None:
    """Where its length is all that tells of the end, nothing comes behind it that could be waited for: the stream stays open, and silent."""
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    async with serving(spawner=answering(wire, b"b" * size)) as world:
        client = world.connect(send_buffer=4096)
        for served in (1, 2):
            client.send(get())
            await world.until(lambda served=served: world.processed == served)
            assert (await client.answer()).body == b"b" * size
        assert len(world.process.signals) == 0


@simulated
async def test_each_piece_of_a_stream_goes_on_at_once() -> None:
    go = trio.Event()

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in asked(stream):
            await stream.send_all(CHUNKED + b"3\r\none\r\n")
            await go.wait()
            await stream.send_all(b"3\r\ntwo\r\n0\r\n\r\n")

    async with serving(spawner=speaking(serve)) as world:
        client = world.connect()
        client.send(get())
        got = b""
        while not got.endswith(b"3\r\none\r\n"):
            got += await client.receive()
        go.set()
        while not got.endswith(b"0\r\n\r\n"):
            got += await client.receive()
        assert got.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


@pytest.mark.parametrize(("concurrency", "kept"), [(0, 1), (100, 32)])
@simulated
async def test_many_requests_at_a_time_and_few_idle_streams(concurrency: int, kept: int) -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in asked(stream):
            await trio.sleep(1)
            await stream.send_all(OK)

    async with serving(spawner=speaking(serve, concurrency=concurrency)) as world:
        clients = [world.connect() for _ in range(100)]
        for client in clients:
            client.send(get())
        await world.until(lambda: world.sessions == 100)
        for client in clients:
            assert (await client.answer()).body == b"ok"
        (process,) = world.pool.processes.values()
        assert len(process.idle_streams) == kept
        assert process.streams == len(process.idle_streams)


@simulated
async def test_a_process_that_does_one_thing_after_another_is_not_held_by_an_idle_stream() -> None:
    """It serves a stream until that ends, and then the next; nobody has said so."""
    turn = trio.Lock()

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async with turn:
            async for _ in asked(stream):
                await trio.sleep(1)
                await stream.send_all(OK)

    async with serving(spawner=speaking(serve, concurrency=0)) as world:
        clients = [world.connect() for _ in range(5)]
        for _ in range(2):
            for client in clients:
                client.send(get())
            for client in clients:
                assert (await client.answer()).body == b"ok"
        assert trio.current_time() < 12


@simulated
async def test_an_answer_that_is_there_before_the_stored_body_is_sent() -> None:
    """The stream may be closed again before the task that is to send the body has had its first turn, which comes in either order."""
    theirs: list[socket.socket] = []

    class Hasty(DummySpawner):
        async def spawn(self) -> DummyProcess:
            process = await super().spawn()

            def connect() -> RawStream:
                ours, other = socket.socketpair()
                ours.setblocking(False)
                other.sendall(OK)
                theirs.append(other)
                return RawStream(ours)

            process.connect_nowait = connect  # type: ignore[method-assign]
            return process

    async with serving(spawner=Hasty(worker_protocol=HTTP)) as world:
        client = world.connect()
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.stream.send_all, post(bytes(1_000_000)))
                assert (await client.answer("POST")).body == b"ok"
        for other in theirs:
            other.close()
