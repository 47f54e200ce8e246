"""Responses to slow clients: the process is free when it has written, the client gets every byte, and what is cut short cannot look whole."""

from __future__ import annotations

import errno
import random
import socket
import threading

import pytest
import trio
from dummy_front import Answer, Worker, data, end, get, head, requests, serving, wait_end, whole
from failing_files import FailingFiles
from held_clock import NoThreads

from passenger_trio.core.buffer_sizes import BATCH, THRESHOLD
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.spawning.dummy import DummyProcess
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.system.tempfiles import Received, Take

BODY = random.Random(3).randbytes(3 * 1024**2)
PIECE = 50_000


def writes(*fields: bytes, body: bytes = BODY, ending: bytes | None = None, then: Worker | None = None) -> Worker:
    """A worker that writes its response as fast as it is taken."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            if request.path == "/small":
                await stream.send_all(whole())
                continue
            try:
                await stream.send_all(head(200, *fields))
                for at in range(0, len(body), PIECE):
                    await stream.send_all(data(body[at : at + PIECE]))
                await stream.send_all(end() if ending is None else ending)
            except trio.BrokenResourceError:
                return
            if then is not None:
                await then(process, stream)
                return

    return serve


@pytest.mark.parametrize("fields", [(b"Content-Length: %d" % len(BODY),), ()], ids=["length", "chunked"])
async def test_a_client_that_does_not_read_holds_no_process(fields: tuple[bytes, ...]) -> None:
    async with serving(writes(*fields)) as world:
        client = world.connect()
        client.send(get("/big") + get("/small"))
        await world.until(lambda: world.processed == 1)
        assert world.sessions == 0
        assert (await world.connect().ask("/small")).body == b"ok"  # the only process
        quota = world.front.spill.quota
        assert quota.used > 2 * 1024**2
        assert world.front.spill.memory <= BATCH
        answer = await client.answer()
        assert answer.body == BODY
        assert (await client.answer()).body == b"ok"
        assert (quota.used, world.front.spill.memory) == (0, 0)
        await world.until(lambda: len(world.records) == 3)
        record = next(record for record in world.records if record.target == b"/big")
        assert record.bytes_sent == len(BODY)
        assert record.spilled == quota.spilled > 2 * 1024**2
        assert quota.paused == 0


async def test_a_client_that_keeps_up_opens_no_file() -> None:
    files = FailingFiles()
    received = bytearray()
    more = trio.Event()

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        nonlocal more
        async for _ in requests(stream):
            await stream.send_all(head(200))
            for at in range(0, len(BODY), PIECE):
                await stream.send_all(data(BODY[at : at + PIECE]))
                while len(received) < at:
                    more = trio.Event()
                    await more.wait()
            await stream.send_all(end())

    async with serving(serve) as world:
        world.front.spill.files = files
        client = world.connect()
        client.send(get(version="1.0"))
        while piece := await client.receive():
            received += piece
            more.set()
        assert received.endswith(BODY)
        assert (files.opened, world.front.spill.quota.spilled) == (0, 0)
        await world.until(lambda: world.records)
        assert world.records[0].spilled == 0


@pytest.mark.parametrize(
    "size", [THRESHOLD - 1, THRESHOLD, THRESHOLD + 1, BATCH, BATCH + 1, 1024**2 - 1, 1024**2, 1024**2 + 1]
)
@pytest.mark.parametrize("length", [True, False])
async def test_sizes_around_every_threshold(size: int, length: bool) -> None:
    body = BODY[:size]
    worker = writes(*([b"Content-Length: %d" % size] if length else []), body=body)
    async with serving(worker, app=AppOptions(response_buffer_high_watermark=1024**2)) as world:
        client = world.connect(send_buffer=4096)
        client.send(get())
        await trio.sleep(0.02)
        assert (await client.answer()).body == body


async def test_the_watermark_pauses_the_process() -> None:
    async with serving(writes(), app=AppOptions(response_buffer_high_watermark=1024**2)) as world:
        client = world.connect()
        client.send(get())
        await world.until(lambda: world.front.spill.quota.paused)
        await trio.sleep(0.05)
        buffer = client.connection.exchange.buffer  # type: ignore[union-attr]
        assert buffer is not None
        assert 1024**2 - 100 <= buffer.ledger.occupied <= 1024**2 + 100  # and the frames of the chunks
        assert world.sessions == 1
        assert (await client.answer()).body == BODY
        assert world.sessions == 0


@pytest.mark.parametrize("fields", [(b"Content-Length: %d" % (len(BODY) + 1),), ()], ids=["length", "chunked"])
async def test_F2_what_was_buffered_before_the_process_died_is_delivered(fields: tuple[bytes, ...]) -> None:
    async def die(process: DummyProcess, stream: RawStream) -> None:
        process.exit(-11)

    async with serving(writes(*fields, ending=b"", then=die)) as world:
        client = world.connect()
        client.send(get() + get("/small"))
        await world.until(lambda: client.connection.exchange)
        exchange = client.connection.exchange
        await world.until(lambda: exchange is not None and exchange.session is None)  # it does not wait for the client
        assert world.front.spill.quota.used > 2 * 1024**2
        answer = await client.answer()
        assert (answer.complete, answer.body) == (False, BODY)
        assert await client.at_end()
        await world.until(lambda: world.records)
        assert world.records[0].bytes_sent == len(BODY)
        assert world.front.spill.quota.used == 0


async def test_F39_garbage_after_much_body_is_a_truncation_too() -> None:
    async with serving(writes(ending=b"zzzzz")) as world:
        client = world.connect()
        client.send(get())
        await world.until(lambda: world.spawner.processes[0].asked_to_stop)
        answer = await client.answer()
        assert (answer.complete, answer.body) == (False, BODY)


async def test_F24_the_process_is_told_when_the_client_leaves_and_the_disk_is_free() -> None:
    told = trio.Event()

    async def wait_told(process: DummyProcess, stream: RawStream) -> None:
        await wait_end(stream)
        told.set()

    async with serving(writes(ending=b"", then=wait_told)) as world:
        client = world.connect()
        client.send(get())
        await world.until(lambda: world.front.spill.quota.used > 1024**2)
        client.close()
        await told.wait()
        await client.ended.wait()
        assert (world.front.spill.quota.used, len(world.front.spill.buffers)) == (0, 0)


@pytest.mark.parametrize("time", [1, 2, 3, 5, 8])
async def test_KE3_a_response_arrives_whichever_thread_cannot_be_had(time: int) -> None:
    async with serving(writes()) as world:
        threads = NoThreads(time, time + 1)
        world.front.spill.limiter = threads  # type: ignore[assignment]
        client = world.connect()
        client.send(get("/"))
        await world.until(lambda: world.processed == 1)
        assert threads.asked >= min(time, 2)  # how many there are depends on how the pieces come
        assert (await client.answer()).body == BODY
        failed = min(2, max(0, threads.asked - time + 1))
        assert world.front.spill.quota.errors == ({"no_thread": failed} if failed else {})
        await world.until(lambda: (world.front.spill.quota.used, world.front.spill.open_files) == (0, 0))


@pytest.mark.parametrize("piece", [1000, 60_000])
async def test_fault_16_small_pieces_to_a_slow_reader_take_few_threads(piece: int) -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await stream.send_all(head(200))
            for at in range(0, len(BODY), piece):
                await stream.send_all(data(BODY[at : at + piece]))
            await stream.send_all(end())

    async with serving(serve) as world:
        files = world.front.spill.files = FailingFiles()
        client = world.connect()
        client.send(get("/"))
        await world.until(lambda: world.processed == 1)
        hops = [*files.written, *files.received]
        assert sum(hops) > len(BODY) - 2 * BATCH
        assert len(hops) <= len(BODY) // (60 * 1024)
        assert (await client.answer()).body == BODY


async def test_F23_a_client_that_takes_nothing_is_closed_and_its_disk_is_free() -> None:
    async with serving(writes(), options=ServerOptions(write_timeout=0.5)) as world:
        client = world.connect()
        client.send(get())
        with trio.fail_after(5):
            await client.ended.wait()
        assert world.front.spill.quota.used == 0
        assert 0 < world.records[0].bytes_sent < len(BODY)


async def test_a_slow_client_that_goes_on_reading_is_not_closed() -> None:
    async with serving(writes(body=BODY[: 1024**2]), options=ServerOptions(write_timeout=0.6)) as world:
        client = world.connect(send_buffer=4096)
        client.send(get(version="1.0"))
        received = bytearray()
        begun = trio.current_time()
        while piece := await client.stream.recv(100_000):
            received += piece
            await trio.sleep(0.15)
        assert received.endswith(BODY[: 1024**2])
        assert trio.current_time() - begun > 1.0


async def test_F28_a_buffer_that_cannot_be_read_back_truncates_that_response_only() -> None:
    async with serving(writes()) as world:
        world.front.spill.files = FailingFiles(sends=[errno.EIO])
        client = world.connect()
        client.send(get())
        await world.until(lambda: world.processed == 1)
        answer = await client.answer()
        assert not answer.complete
        assert BODY.startswith(answer.body)
        assert world.front.spill.quota.errors == {"read": 1}
        assert (await world.connect().ask("/small")).body == b"ok"


async def test_F27_without_disk_the_process_is_paused_and_nothing_is_lost() -> None:
    async with serving(writes()) as world:
        world.front.spill.files = FailingFiles(writes=[(0, errno.ENOSPC)] * 100)
        client = world.connect()
        client.send(get())
        await world.until(lambda: world.front.spill.quota.paused)
        await trio.sleep(0.05)
        assert world.sessions == 1
        assert world.front.spill.memory <= BATCH + 100
        assert (await client.answer()).body == BODY


@pytest.mark.parametrize("answer", ["204", "304", "HEAD"])
async def test_R23_what_has_no_body_is_never_buffered(answer: str) -> None:
    status = 200 if answer == "HEAD" else int(answer)

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await stream.send_all(head(status) + data(BODY[: 1024**2]) + end())

    async with serving(serve) as world:
        client = world.connect(send_buffer=4096)
        method = "HEAD" if answer == "HEAD" else "GET"
        client.send(get(method=method))
        assert (await client.answer(method)).body == b""
        await world.until(lambda: world.records)
        assert world.records[0].bytes_sent == 0
        assert world.front.spill.quota.spilled == 0


async def test_many_tiny_frames_are_one_stream_of_bytes() -> None:
    tiny = b"".join(data(BODY[at : at + 3]) for at in range(0, 60_000, 3))

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await stream.send_all(head(200) + data(b"x"))
            await trio.sleep(0.01)
            await stream.send_all(tiny + end())

    async with serving(serve) as world:
        assert (await world.connect().ask()).body == b"x" + BODY[:60_000]


LONG = random.Random(4).randbytes(12 * 1024**2)


@pytest.mark.parametrize("error", [None, errno.ENOSPC])
@pytest.mark.parametrize("reads_meanwhile", [False, True])
async def test_a_long_frame_goes_to_the_disk_past_memory(error: int | None, reads_meanwhile: bool) -> None:
    """The disk may be full in the middle, and the client may go on in the middle."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await stream.send_all(head(200, b"Content-Length: %d" % len(LONG)))
            await stream.send_all(data(LONG[:10]) + data(LONG[10:]))
            await stream.send_all(end())

    files = FailingFiles(receives=[] if error is None else [None, (100_000, error)])
    async with serving(serve) as world:
        world.front.spill.files = files
        client = world.connect(send_buffer=4096)
        client.send(get())
        if reads_meanwhile:
            await world.until(lambda: world.front.spill.quota.spilled > 0)
        else:
            await world.until(lambda: world.processed == 1)
        answer = await client.answer()
        assert answer.body == LONG
        assert sum(files.received) > (0 if reads_meanwhile or error else 8 * 1024**2)
        await world.until(lambda: world.front.spill.quota.used == 0)
        assert world.front.spill.memory == 0


class HeldFiles(FailingFiles):
    """Receivers wait until they are let go; what was there before is the client's in the meantime."""

    def __init__(self) -> None:
        super().__init__()
        self.held = threading.Event()
        self.go = threading.Event()

    def receive_at(
        self, sock: socket.socket, descriptor: int, offset: int, most: int, take: Take | None = None
    ) -> Received:
        self.held.set()
        self.go.wait(10)
        return super().receive_at(sock, descriptor, offset, most, take)


async def test_fault_29_a_client_is_not_asked_while_a_thread_has_its_response() -> None:
    """It has taken all that there was, ends its side, and the question would overtake what the thread has."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await stream.send_all(
                head(200) + b"".join(data(LONG[at : at + PIECE]) for at in range(0, len(LONG), PIECE))
            )
            await stream.send_all(end())

    files = HeldFiles()
    async with serving(serve) as world:
        world.front.spill.files = files
        client = world.connect(tcp=True)
        client.send(get())
        await world.until(files.held.is_set)
        exchange = client.connection.exchange
        assert exchange is not None
        assert exchange.buffer is not None
        came = b""
        while exchange.buffer.ledger.backlog:
            came += await client.receive()
        client.send_eof()
        with trio.move_on_after(1):  # longer than it takes to ask
            while piece := await client.receive():
                came += piece
        files.go.set()
        client.put_back(came)
        answer = await client.answer()
        assert (answer.body == LONG, answer.complete) == (True, True)


async def answer_past_memory(worker: Worker, version: str) -> Answer:
    """What a client gets that reads nothing until the process has sent all; most of it went from socket to file."""
    files = FailingFiles()
    async with serving(worker) as world:
        world.front.spill.files = files
        client = world.connect()
        client.send(get(version=version))
        await world.until(lambda: world.processed == 1)
        answer = await client.answer()
        assert sum(files.received) > 8 * 1024**2
        return answer


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_long_frame_goes_past_memory_in_the_clients_framing(version: str) -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await stream.send_all(head(200) + data(LONG))
            await stream.send_all(end())

    answer = await answer_past_memory(serve, version)
    assert (answer.body, answer.complete) == (LONG, True)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(
    "declared", [None, len(LONG), len(LONG) - 100, len(LONG) + 100], ids=["no length", "right", "too short", "too long"]
)
@pytest.mark.parametrize("size", [65536, 1_000], ids=["large pieces", "small pieces"])
async def test_pieces_go_past_memory_too(size: int, declared: int | None, version: str) -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            pieces = [data(LONG[at : at + size]) for at in range(0, len(LONG), size)]
            fields = [] if declared is None else [b"Content-Length: %d" % declared]
            await stream.send_all(head(200, *fields) + b"".join(pieces))
            await stream.send_all(end())

    answer = await answer_past_memory(serve, version)
    assert answer.body == LONG[:declared]
    assert answer.complete == (declared is None or declared <= len(LONG))
