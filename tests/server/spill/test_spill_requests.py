"""Request bodies: no process is borrowed before they are whole, wherever they are kept meanwhile."""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest
import trio
from dummy_front import Client, Request, data, end, get, head, requests, respond, serving, whole
from failing_files import FailingFiles
from held_clock import NoThreads

from passenger_trio.core.buffer_sizes import BATCH, THRESHOLD
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.spawning.dummy import DummyProcess
from passenger_trio.system.raw_stream import RawStream

BODY = random.Random(5).randbytes(1024**2)


def echo(request: Request) -> bytes:
    size = request.pairs.get("CONTENT_LENGTH", "none").encode()
    return head(200, b"X-Length: " + size) + data(request.body or b"-") + end()


def begin(body: bytes, chunked: bool, *fields: str, method: str = "POST", path: str = "/") -> bytes:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    return get(path, framing, *fields, method=method)


async def send(client: Client, body: bytes, chunked: bool) -> None:
    for at in range(0, len(body), 70_000):
        piece = body[at : at + 70_000]
        await client.stream.send_all(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)


ways = pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])


@ways
@pytest.mark.parametrize("size", [1, THRESHOLD - 1, THRESHOLD, THRESHOLD + 1, BATCH - 1, BATCH, BATCH + 1, 1024**2])
async def test_a_body_arrives_whole(size: int, chunked: bool) -> None:
    body = BODY[:size]
    async with serving(respond(echo)) as world:
        client = world.connect()
        client.send(begin(body, chunked))
        await send(client, body, chunked)
        if chunked:
            client.send(b"0\r\n\r\n")
        answer = await client.answer()
        assert answer.body == body
        assert answer.headers["x-length"] == str(size)
        assert (await client.ask()).body == b"-"  # the connection, and the worker's stream, are at a boundary
        await world.until(lambda: world.front.spill.quota.used == 0)
        assert size > THRESHOLD or world.front.spill.quota.spilled == 0
        assert size < 1024**2 or world.front.spill.quota.spilled > 0
        await world.until(lambda: world.records)
        assert world.records[0].spilled == world.front.spill.quota.spilled


@ways
async def test_no_process_before_the_body_is_whole(chunked: bool) -> None:
    async with serving(respond(echo)) as world:
        stuck = [world.connect() for _ in range(5)]
        for client in stuck:
            client.send(begin(BODY, chunked))
            await send(client, BODY[:700_000], chunked)
        await world.until(lambda: world.front.spill.quota.used >= 5 * 500_000)
        assert world.sessions == 0
        assert world.front.spill.memory <= 5 * BATCH
        assert (await world.connect().ask()).body == b"-"
        for client in stuck[:4]:
            client.close()
            await client.ended.wait()
        assert world.front.spill.quota.used <= 1024**2  # the aborted ones are gone from the disk
        await send(stuck[4], BODY[700_000:], chunked)
        if chunked:
            stuck[4].send(b"0\r\n\r\n")
        assert (await stuck[4].answer()).body == BODY


async def test_R30_a_body_on_disk_can_be_sent_again() -> None:
    bodies: list[bytes] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            bodies.append(request.body)
            if process.pid == 1001:
                process.exit(1)
                return
            await stream.send_all(whole())

    async with serving(serve) as world:
        client = world.connect()
        client.send(begin(BODY, False, method="PUT"))
        await send(client, BODY, False)
        assert (await client.answer()).body == b"ok"
        assert bodies == [BODY, BODY]
        await world.until(lambda: world.records)
        assert world.records[0].retried == 1


@pytest.mark.parametrize("size", [100_000, len(BODY)], ids=["in memory", "on disk"])
@pytest.mark.parametrize(
    ("method", "begins", "kept"),
    [("POST", True, False), ("POST", False, False), ("PUT", True, False), ("PUT", False, True)],
)
async def test_R30_a_body_is_kept_as_long_as_it_may_be_sent_again_and_no_longer(
    method: str, begins: bool, kept: bool, size: int
) -> None:
    """Fault 30: until the response had ended, which with an event stream is never."""
    has_it, goes_on = trio.Event(), trio.Event()

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            assert request.body == BODY[:size]
            if begins:
                await stream.send_all(head(200, b"Content-Type: text/event-stream") + data(b"first"))
            has_it.set()
            await goes_on.wait()
            await stream.send_all((b"" if begins else head(200)) + data(b"last") + end())

    async with serving(serve) as world:
        client = world.connect()
        client.send(begin(BODY[:size], False, method=method))
        await send(client, BODY[:size], False)
        await has_it.wait()
        exchange = client.connection.exchange
        assert exchange is not None
        await world.until(lambda: kept or not (exchange.body or exchange.upload))
        await trio.sleep(1)
        assert bool(exchange.body or exchange.upload) is kept
        assert bool(world.front.spill.quota.used) is (kept and size == len(BODY))
        goes_on.set()
        assert (await client.answer()).body.endswith(b"last")
        await world.until(lambda: world.records)
        assert bool(world.records[0].spilled) is (size == len(BODY))


async def test_R30_a_body_that_was_streamed_cannot() -> None:
    seen: list[int] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            seen.append(len(request.body))
            process.exit(1)
            return

    async with serving(serve, app=AppOptions(request_buffering=False)) as world:
        client = world.connect()
        client.send(begin(BODY, False, method="PUT"))
        await send(client, BODY, False)
        assert (await client.answer()).status == 502
        assert seen == [len(BODY)]


@pytest.mark.parametrize(
    ("app", "path", "streams"),
    [
        (AppOptions(request_buffering=False), "/", True),
        (AppOptions(streamed_paths=("/up", "/other/")), "/up", True),
        (AppOptions(streamed_paths=("/up", "/other/")), "/up/load?x", True),
        (AppOptions(streamed_paths=("/up", "/other/")), "/upload", False),
        (AppOptions(streamed_paths=("/up", "/other/")), "/other/load", True),
    ],
)
@ways
async def test_a_path_may_have_its_uploads_as_they_come(
    app: AppOptions, path: str, streams: bool, chunked: bool
) -> None:
    async with serving(respond(echo), app=app) as world:
        client = world.connect()
        client.send(begin(BODY, chunked, path=path))
        await send(client, BODY[:1000], chunked)
        await trio.sleep(0.05)
        assert world.sessions == int(streams)
        await send(client, BODY[1000:], chunked)
        if chunked:
            client.send(b"0\r\n\r\n")
        answer = await client.answer()
        assert answer.body == BODY
        assert answer.headers["x-length"] == ("none" if streams and chunked else str(len(BODY)))


async def test_an_application_may_answer_before_it_has_read_a_body_on_disk() -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        await stream.recv(1000)
        await stream.send_all(whole(b"enough", flags=1))

    async with serving(serve) as world:
        client = world.connect()
        client.send(begin(BODY, False))
        await send(client, BODY, False)
        assert (await client.answer()).body == b"enough"
        await world.until(lambda: world.front.spill.quota.used == 0)


@pytest.mark.parametrize(
    "plan",
    [
        {"opens": [errno.ENOENT]},
        {"writes": [(0, errno.ENOSPC)]},
        {"writes": [None, (5000, errno.ENOSPC)]},
        {"receives": [(5000, errno.ENOSPC)]},
    ],
    ids=["no directory", "full", "full later", "full in bulk"],
)
@ways
async def test_without_disk_an_upload_is_streamed(plan: dict[str, list[Any]], chunked: bool) -> None:
    async with serving(respond(echo)) as world:
        world.front.spill.files = FailingFiles(**plan)
        client = world.connect()
        client.send(begin(BODY, chunked))
        await send(client, BODY, chunked)
        if chunked:
            client.send(b"0\r\n\r\n")
        assert (await client.answer()).body == BODY
        assert sum(world.front.spill.quota.errors.values()) <= 1
        await world.until(lambda: world.front.spill.quota.used == 0)


@pytest.mark.parametrize("piece", [1000, 200_000])
async def test_fault_16_threads_take_only_what_is_here_and_are_few_all_the_same(piece: int) -> None:
    """Counted, not timed: no hop moves less than a write costs, however small the pieces are in which the client sends."""
    async with serving(respond(echo)) as world:
        files = world.front.spill.files = FailingFiles()
        client = world.connect()
        body = BODY * (2 if piece < 10_000 else 16)
        client.send(begin(body, False))
        for at in range(0, len(body), piece):
            await client.stream.send_all(body[at : at + piece])
        assert (await client.answer()).body == body
        hops = [*files.written, *files.received]
        assert sum(hops) > len(body) - THRESHOLD - BATCH
        assert min(files.received, default=THRESHOLD) >= 64 * 1024
        assert len(hops) <= len(body) // (64 * 1024)


@pytest.mark.parametrize("time", range(1, 8))
@ways
async def test_KE3_an_upload_arrives_whichever_thread_cannot_be_had(chunked: bool, time: int) -> None:
    """Fault 2: the first has no file yet; another leaves part of the body on disk, and the rest in memory and in the client."""
    async with serving(respond(echo)) as world:
        threads = NoThreads(time)
        world.front.spill.limiter = threads  # type: ignore[assignment]
        client = world.connect()
        client.send(begin(BODY * 2, chunked))
        await send(client, BODY * 2, chunked)
        if chunked:
            client.send(b"0\r\n\r\n")
        assert (await client.answer()).body == BODY * 2
        # How often a thread is wanted depends on how the bytes come; the first two times are sure.
        assert threads.asked >= min(time, 2)
        assert world.front.spill.quota.errors == ({"no_thread": 1} if threads.asked >= time else {})
        await world.until(lambda: world.front.spill.quota.used == 0)
        await world.until(lambda: world.front.spill.open_files == 0)


async def test_a_body_on_disk_that_cannot_be_read_back_is_a_502_of_that_request() -> None:
    async with serving(respond(echo)) as world:
        world.front.spill.files = FailingFiles(sends=[errno.EIO])
        client = world.connect()
        client.send(begin(BODY, False))
        await send(client, BODY, False)
        assert (await client.answer()).status == 502
        assert (await world.connect().ask()).body == b"-"


async def test_F21_a_body_that_becomes_too_slow_after_much_of_it_is_408() -> None:
    async with serving(respond(echo), options=ServerOptions(body_timeout=0.2, body_min_rate=1024**2)) as world:
        client = world.connect()
        client.send(begin(BODY, False))
        await send(client, BODY[:400_000], False)
        assert (await client.answer()).status == 408
        client.send_eof()
        await client.ended.wait()
        assert (world.front.spill.quota.used, world.sessions) == (0, 0)


async def test_F44_too_long_is_413_before_anything_is_kept() -> None:
    async with serving(respond(echo), options=ServerOptions(max_request_body=200_000)) as world:
        client = world.connect()
        client.send(begin(BODY, False, "Expect: 100-continue"))
        assert (await client.answer()).status == 413
        client = world.connect()
        client.send(begin(BODY, True))
        with pytest.raises(trio.BrokenResourceError):
            await send(client, BODY * 10, True)
        await client.ended.wait()
        assert (world.front.spill.quota.used, world.processed) == (0, 0)
