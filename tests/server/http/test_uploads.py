"""Request bodies between a slow client and a worker: kept, passed on, refused, cut off, answered early."""

from __future__ import annotations

import errno
import hashlib
import socket
from collections.abc import Callable

import pytest
import trio
import trio.testing
from dummy_front import (
    data,
    end,
    error,
    get,
    head,
    interim,
    post,
    requests,
    respond,
    serving,
    simulated,
    wait_end,
    whole,
)

from passenger_trio.core.buffer_sizes import BODY_IN_MEMORY, READ_AHEAD
from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner
from passenger_trio.system.raw_stream import RawStream

LARGE = hashlib.sha256(b"large").digest() * 40_000
"""1.28 MB: more than memory holds."""
STREAMED = AppOptions(request_buffering=False)


def chunked(body: bytes, size: int, path: str = "/", *fields: str) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    wire = get(path, "Transfer-Encoding: chunked", *fields, method="POST")
    return wire + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def digest(worker: Callable[..., object] | None = None):  # type: ignore[no-untyped-def]
    return respond(lambda request: whole(hashlib.sha256(request.body).hexdigest().encode()))


SIZES = [0, 1, 65535, 65536, BODY_IN_MEMORY - 1, BODY_IN_MEMORY, BODY_IN_MEMORY + 1, BODY_IN_MEMORY + 65536, 1_000_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("plain_parser", [True, False])
@simulated
async def test_a_body_of_any_size_arrives_as_it_is_and_the_connection_lives_on(plain_parser: bool, size: int) -> None:
    body = LARGE[:size]
    async with serving(digest(), options=ServerOptions(plain_parser=plain_parser)) as world:
        client = world.connect()
        wires = (
            [post(body), chunked(body, 70_000), chunked(body, 4096), post(body)]
            if size
            else [post(body), chunked(body, 1)]
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, b"".join(wires))
            for _ in wires:
                assert (await client.answer()).body.decode() == hashlib.sha256(body).hexdigest()


@simulated
async def test_a_slow_upload_holds_no_process() -> None:
    async with serving(digest()) as world:
        slow, other = world.connect(), world.connect()
        slow.send(post(LARGE[:100_000])[:-1])
        for _ in range(3):
            await trio.sleep(1)
            assert world.sessions == 0
            assert (await other.ask()).status == 200


@simulated
async def test_R30_a_body_that_was_passed_on_is_never_sent_a_second_time() -> None:
    """Only its beginning is here, and a worker that got only that would take it for the whole."""
    seen: list[int] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            seen.append(len(request.body))
            if len(seen) == 1:
                return
            await stream.send_all(whole())

    async with serving(serve, app=STREAMED) as world:
        client = world.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, post(LARGE).replace(b"POST", b"PUT"))
            assert (await client.answer()).status == 502
        assert seen == [len(LARGE)]
        assert [record.retried for record in world.records] == [0]
        assert (await client.ask()).body == b"ok"


# -- answered early ---------------------------------------------------------------------------------------------------


def early(answer: bytes, *, after: int = 1, then: str = "read"):  # type: ignore[no-untyped-def]
    """Answers when ``after`` bytes have come; then reads on, closes, or does nothing at all until it is told to end."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        received = 0
        try:
            while received < after:
                more = await stream.recv()
                if not more:
                    return
                received += len(more)
            await stream.send_all(answer)
            if then != "close":
                if then == "nothing":
                    await trio.sleep(60)
                await wait_end(stream)
        except trio.BrokenResourceError:
            pass

    return serve


@pytest.mark.parametrize("then", ["read", "close", "nothing"])
@pytest.mark.parametrize("answer", [whole(b"too early"), head() + data(b"too ") + data(b"early") + end()])
@simulated
async def test_R29_an_answer_before_the_upload_is_whole_arrives_and_ends_the_connection(
    answer: bytes, then: str
) -> None:
    async with serving(early(answer, then=then), app=STREAMED) as world:
        client = world.connect()
        async with trio.open_nursery() as nursery:

            async def upload() -> None:
                with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 - one of the sends fails
                    while True:
                        await client.stream.send_all(LARGE)

            client.stream.send_nowait(get("/", f"Content-Length: {100 * 2**20}", method="POST"))
            nursery.start_soon(upload)
            response = await client.answer("POST")
            assert (response.status, response.body) == (200, b"too early")
            assert response.headers["connection"] == "close"
        assert await client.at_end()


@simulated
async def test_an_early_answer_to_a_body_that_was_here_keeps_the_connection() -> None:
    """The worker did not read it, we did."""
    async with serving(early(whole(b"early", flags=1))) as world:
        client = world.connect()
        for _ in range(3):
            client.send(post(LARGE[:50_000]))
            assert (await client.answer()).body == b"early"


@pytest.mark.parametrize("size", [20_000, 190_000])
@simulated
async def test_a_worker_that_answers_at_length_without_reading_and_we_do_not_wait_for_each_other(size: int) -> None:
    """Both socket buffers are full, and each side has more to write: somebody has to read."""
    answer = head() + data(LARGE) + end(flags=1)

    class Narrow(DummySpawner):
        async def spawn(self) -> DummyProcess:
            process = await super().spawn()
            connect = process.connect_nowait

            def narrow() -> RawStream:
                stream = connect()
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                return stream

            process.connect_nowait = narrow  # type: ignore[method-assign]
            return process

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        await stream.recv(100)
        await stream.send_all(answer)
        await wait_end(stream)

    async with serving(spawner=Narrow(serve=serve), deadline=600) as world:
        client = world.connect()
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.stream.send_all, post(LARGE[:size]))
                assert (await client.answer("POST")).body == LARGE


@simulated
async def test_an_unread_body_does_not_poison_the_stream_for_the_next_request() -> None:
    """The worker answers early and keeps its stream: it still has the rest of this body before it, and must not be given another head."""
    streams = 0

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        nonlocal streams
        streams += 1
        first = await stream.recv(100)
        if b"POST" in first:
            await stream.send_all(whole(b"early"))
            await wait_end(stream)
        else:
            await stream.send_all(whole(b"get"))

    async with serving(serve, app=STREAMED) as world:
        client, other = world.connect(), world.connect()
        client.stream.send_nowait(get("/", f"Content-Length: {2**20}", method="POST") + LARGE[:150_000])
        assert (await client.answer("POST")).body == b"early"
        assert (await other.ask()).body == b"get"
        assert streams == 2


# -- refused or cut off -----------------------------------------------------------------------------------------------


def watching(ends: list[bytes]):  # type: ignore[no-untyped-def]
    """A worker that notes what it had got when its stream ended, and never answers."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        received = b""
        try:
            while more := await stream.recv():
                received += more
        except trio.BrokenResourceError:
            pass
        ends.append(received)

    return serve


@pytest.mark.parametrize("sent", [0, 10, 100_000, 400_000])
@simulated
async def test_R28_a_body_that_is_cut_off_is_not_answered_and_the_worker_is_told(sent: int) -> None:
    ends: list[bytes] = []
    async with serving(watching(ends), app=STREAMED if sent > BODY_IN_MEMORY else None) as world:
        client = world.connect()
        wire = post(LARGE)
        await client.stream.send_all(wire[: len(wire) - len(LARGE) + sent])
        await trio.sleep(1)
        client.send_eof()
        assert await client.receive_all() == b""
        await client.ended.wait()
        assert len(ends) == (1 if sent > BODY_IN_MEMORY else 0)
        assert not any(received.endswith(b"E\0\0\0\0") for received in ends)
        assert [record.status for record in world.records] == [499]


@pytest.mark.parametrize("sent", [0, 10, 400_000])
@simulated
async def test_F24_a_client_that_resets_in_its_body_costs_nothing(sent: int) -> None:
    ends: list[bytes] = []
    async with serving(watching(ends), app=STREAMED if sent > BODY_IN_MEMORY else None) as world:
        client = world.connect()
        wire = post(LARGE)
        await client.stream.send_all(wire[: len(wire) - len(LARGE) + sent])
        await trio.sleep(1)
        client.reset()
        await client.ended.wait()
        assert len(ends) == (1 if sent > BODY_IN_MEMORY else 0)
        assert [record.status for record in world.records] == [499]


@pytest.mark.parametrize("good", [1_000, 500_000])
@simulated
async def test_R15_a_body_that_becomes_bad_is_refused_and_the_worker_never_sees_its_end(good: int) -> None:
    ends: list[bytes] = []
    async with serving(watching(ends), app=STREAMED if good > BODY_IN_MEMORY else None) as world:
        client = world.connect()
        bad = chunked(LARGE[:good], 4096).removesuffix(b"0\r\n\r\n") + b"zz\r\n\r\n" + get("/smuggled")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, bad)
            wire = await client.receive_all()
        assert wire.startswith(b"HTTP/1.1 400 ")
        assert wire.count(b"HTTP/1.1") == 1
        await client.ended.wait()
        assert len(ends) == (1 if good > BODY_IN_MEMORY else 0)
        assert not any(received.endswith(b"E\0\0\0\0") or b"smuggled" in received for received in ends)


@simulated
async def test_R13_a_chunked_body_that_grows_beyond_the_limit_is_a_413() -> None:
    ends: list[bytes] = []
    async with serving(watching(ends), options=ServerOptions(max_request_body=300_000)) as world:
        client = world.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, chunked(LARGE[:350_000], 4096))
            assert (await client.answer("POST")).status == 413
        await client.ended.wait()
        assert world.front.rejected == {"body_too_large": 1}


@simulated
async def test_R15_a_bad_body_under_a_response_cuts_the_response_short() -> None:
    """The response has begun: there is no other way left to say it."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        await stream.recv()
        await stream.send_all(head() + data(b"begun"))
        await wait_end(stream)

    async with serving(serve, app=STREAMED) as world:
        client = world.connect()
        await client.stream.send_all(chunked(LARGE[:200_000], 4096).removesuffix(b"0\r\n\r\n"))
        await trio.sleep(1)
        client.send(b"zz\r\n")
        wire = await client.receive_all()
        assert wire.endswith(b"5\r\nbegun\r\n")


@pytest.mark.parametrize("rest", ["nothing", "the end", "no chunk"])
@simulated
async def test_R29_an_answer_that_is_whole_does_not_depend_on_the_rest_of_the_body(rest: str) -> None:
    """Who is answered early may stop sending: the process has done what it had to, and its client reads on, slowly, for longer than a body may take."""
    body = LARGE

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        await stream.recv()
        await stream.send_all(head(200, b"Content-Length: %d" % len(body)) + data(body) + end())
        await wait_end(stream)

    async with serving(serve, options=ServerOptions(body_timeout=4.0, write_timeout=60.0), app=STREAMED) as world:
        client = world.connect()
        client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n")
        await world.until(lambda: world.processed == 1)
        if rest == "the end":
            client.send_eof()
        elif rest == "no chunk":
            client.send(b"x\r\n")
        await trio.sleep(5)
        answer = await client.answer("POST")
        assert (answer.complete, answer.body == body) == (True, True)
        assert await client.at_end()
        assert [record.bytes_sent for record in world.records] == [len(body)]


@simulated
async def test_R29_a_refusal_arrives_although_the_client_goes_on_sending() -> None:
    async with serving(options=ServerOptions(max_request_body=1000)) as world:
        for wire in (get("/", "Content-Length: 1001", method="POST"), get("/", "X : y")):
            client = world.connect()
            client.send(wire)
            await trio.testing.wait_all_tasks_blocked()
            await client.stream.send_all(LARGE[:100_000])
            answer = await client.answer()
            assert answer.status in (400, 413)
            assert answer.complete


@simulated
async def test_R29_the_last_response_arrives_although_more_was_sent_behind_it() -> None:
    """``Connection: close`` and then more than one read takes: closing at once would reset the connection and lose the answer."""
    async with serving() as world:
        for request in (get("/", "Connection: close"), get(version="1.0"), post(b"x", "/", "Connection: close")):
            client = world.connect()
            await client.stream.send_all(request + LARGE[:190_000])
            answer = await client.answer()
            assert (answer.body, answer.complete) == (b"ok", True)


# -- Expect -----------------------------------------------------------------------------------------------------------


@simulated
async def test_R20_a_client_that_waits_gets_one_100_and_then_the_answer() -> None:
    async with serving(digest()) as world:
        client = world.connect()
        for body in (b"hello", LARGE[:200_000]):
            client.send(get("/", f"Content-Length: {len(body)}", "Expect: 100-continue", method="POST"))
            assert await client.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.stream.send_all, body)
                assert (await client.answer()).body.decode() == hashlib.sha256(body).hexdigest()


@simulated
async def test_R20_no_100_where_it_is_not_wanted_or_not_deserved() -> None:
    async with serving(options=ServerOptions(max_request_body=1000)) as world:
        for wire, status in (
            (get("/", "Content-Length: 5", "Expect: 100-continue", method="POST") + b"hello", b"200"),
            (get("/", "Content-Length: 0", "Expect: 100-continue", method="POST"), b"200"),
            (get("/", "Expect: 100-continue"), b"200"),
            (get("/", "Content-Length: 5", "Expect: 100-continue", method="POST", version="1.0") + b"hello", b"200"),
            (get("/", "Content-Length: 1001", "Expect: 100-continue", method="POST"), b"413"),
            (get("/", "Content-Length: 5", "Expect: 200-ok", method="POST"), b"417"),
            (get("/", "Content-Length: 5", "Expect: 100-continue", "X : y", method="POST"), b"400"),
        ):
            client = world.connect()
            client.send(wire)
            assert (await client.receive()).startswith(b"HTTP/1.1 " + status)
            client.close()
            await client.ended.wait()


@simulated
async def test_R20_a_worker_s_own_100_does_no_harm() -> None:
    """CONTRACT.md lets an application send interim responses; the client has had its 100 from us."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await stream.send_all(interim(100) + whole())

    async with serving(serve) as world:
        client = world.connect()
        client.send(get("/", "Content-Length: 5", "Expect: 100-continue", method="POST"))
        assert await client.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        assert (await client.answer()).body == b"ok"


# -- reading ahead ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queued", [False, True])
@simulated
async def test_R31_no_more_than_64_KiB_are_read_ahead(queued: bool) -> None:
    go_on = trio.Event()

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await go_on.wait()
            await stream.send_all(whole())

    async with serving(serve) as world:
        first = world.connect()
        if queued:
            first.send(get("/first"))
            await trio.testing.wait_all_tasks_blocked()
        client = world.connect()
        client.send(get())
        await trio.sleep(1)
        pipelined = get("/" + "x" * 1000) * 300
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, pipelined)
            await trio.sleep(1)
            assert client.connection.codec.buffered <= READ_AHEAD
            go_on.set()
            for _ in range(301):
                assert (await client.answer()).body == b"ok"


@simulated
async def test_R31_the_body_of_a_queued_request_is_read_ahead_no_further() -> None:
    go_on = trio.Event()

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            await go_on.wait()
            await stream.send_all(whole(hashlib.sha256(request.body).hexdigest().encode()))

    async with serving(serve) as world:
        first, client = world.connect(), world.connect()
        first.send(get())
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, post(LARGE))
            await trio.sleep(1)
            assert client.connection.exchange is not None
            assert client.connection.codec.buffered <= READ_AHEAD
            assert len(client.connection.exchange.body) < BODY_IN_MEMORY + 65536
            go_on.set()
            assert (await client.answer()).body.decode() == hashlib.sha256(LARGE).hexdigest()


@simulated
async def test_F24_a_client_that_leaves_the_queue_in_the_middle_of_its_body_never_reaches_a_worker() -> None:
    seen: list[str] = []
    go_on = trio.Event()

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            seen.append(request.path)
            await go_on.wait()
            await stream.send_all(whole())

    async with serving(serve, app=STREAMED) as world:
        first, client = world.connect(), world.connect()
        first.send(get("/first"))
        await trio.testing.wait_all_tasks_blocked()
        client.stream.send_nowait(post(LARGE, "/gone")[:30_000])
        await trio.sleep(1)
        assert world.queue_length == 1
        client.reset()
        await client.ended.wait()
        assert world.queue_length == 0
        go_on.set()
        assert (await first.answer()).body == b"ok"
        assert seen == ["/first"]


# -- errors of ours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@simulated
async def test_F32_no_descriptor_for_a_stream_is_a_503_and_no_process_is_blamed(number: int) -> None:
    short = True

    class Short(DummySpawner):
        async def spawn(self) -> DummyProcess:
            process = await super().spawn()
            connect = process.connect_nowait

            def connect_or_not() -> RawStream:
                if short:
                    raise OSError(number, "too few")
                return connect()

            process.connect_nowait = connect_or_not  # type: ignore[method-assign]
            return process

    async with serving(spawner=Short(serve=respond()), pool_limits=PoolLimits(max_pool_size=3)) as world:
        client = world.connect()
        for _ in range(10):
            client.send(post(b"x"))
            assert (await client.answer("POST")).status == 503
        short = False
        assert (await client.ask()).body == b"ok"
        assert len(world.spawner.processes) == 1
        assert world.process.asked_to_stop == 0


@simulated
async def test_R8_a_head_that_is_too_long_for_a_worker_is_a_431() -> None:
    """Limits far above the default ones let it come so far."""
    options = ServerOptions(max_header_size=400_000, max_header_field_size=200_000, max_request_line=8192)
    async with serving(options=options) as world:
        client = world.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, get("/", "X-A: " + "a" * 140_000))
            assert (await client.answer()).status == 431
        assert await client.at_end()
        other = world.connect()
        assert (await other.ask()).body == b"ok"


@simulated
async def test_an_error_answer_to_a_head_request_has_no_body_in_the_log_either() -> None:
    async with serving(respond(error() + end())) as world:
        client = world.connect()
        client.send(get(method="HEAD"))
        answer = await client.answer("HEAD")
        assert (answer.status, answer.body) == (500, b"")
        client.send_eof()
        assert await client.at_end()
        assert [record.bytes_sent for record in world.records] == [0]
