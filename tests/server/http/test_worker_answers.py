"""What a worker may answer, and what it must not: each of it becomes the right bytes for the client and the right word for the pool.

The worker is the test's own; nothing here starts a process.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing
from dummy_front import (
    Client,
    Request,
    Worker,
    World,
    data,
    end,
    error,
    frame,
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

from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.options import AppOptions
from passenger_trio.spawning.dummy import DummyProcess
from passenger_trio.system.raw_stream import RawStream

ONE_READ, PIECES = "in one read", "in pieces"
ways = pytest.mark.parametrize("way", [ONE_READ, PIECES])
"""The fast path takes what comes whole; the response forwarder takes what does not."""


async def put(stream: RawStream, way: str, *frames: bytes) -> None:
    """Send the frames, together or one by one, each seen before the next is sent."""
    if way == ONE_READ:
        await stream.send_all(b"".join(frames))
        return
    for piece in frames:
        await stream.send_all(piece)
        await trio.testing.wait_all_tasks_blocked()


def answers(way: str, *frames: bytes, then_close: bool = False, once: bool = False) -> Worker:
    """A worker that answers every request with these frames; ``once``: only the first, the others as they should be."""
    count = 0

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        nonlocal count
        async for _ in requests(stream):
            count += 1
            if once and count > 1:
                await stream.send_all(whole(b"after that"))
                continue
            await put(stream, way, *frames)
            if then_close:
                return

    return serve


async def exchange(world: World, request: bytes = get(), method: str = "GET") -> tuple[Client, bytes]:
    """Everything that the client gets for one request, after which it half-closes."""
    client = world.connect()
    client.send(request)
    client.send_eof()
    return client, await client.receive_all()


# -- as it should be ------------------------------------------------------------------------------------------------


@ways
@simulated
async def test_a_response_without_a_length_is_chunked_or_whole(way: str) -> None:
    async with serving(answers(way, head(), data(b"one"), data(b"two"), end())) as world:
        client = world.connect()
        for _ in range(2):
            answer = await client.ask()
            assert (answer.status, answer.body, answer.complete) == (200, b"onetwo", True)
            assert "transfer-encoding" in answer.headers
        client.send(get(version="1.0"))
        answer = await client.answer()
        assert (answer.body, answer.complete) == (b"onetwo", True)
        assert answer.headers["connection"] == "close"
        assert await client.at_end()


@ways
@simulated
async def test_a_response_with_a_length_keeps_it(way: str) -> None:
    async with serving(answers(way, head(200, b"Content-Length: 6"), data(b"one"), data(b"two"), end())) as world:
        client = world.connect()
        for _ in range(2):
            answer = await client.ask()
            assert (answer.body, answer.headers["content-length"]) == (b"onetwo", "6")


@simulated
async def test_one_stream_serves_all_requests_of_all_connections() -> None:
    streams = 0

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        nonlocal streams
        streams += 1
        await respond()(process, stream)

    async with serving(serve) as world:
        for _ in range(3):
            client = world.connect()
            assert (await client.ask()).body == b"ok"
            assert (await client.ask()).body == b"ok"
    assert streams == 1


@ways
@simulated
async def test_a_stream_with_the_close_flag_is_not_used_again(way: str) -> None:
    streams = 0

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        nonlocal streams
        streams += 1
        async for _ in requests(stream):
            await put(stream, way, head(200, b"Content-Length: 2"), data(b"ok"), end(flags=1))
            await wait_end(stream)
            return

    async with serving(serve) as world:
        client = world.connect()
        for _ in range(3):
            assert (await client.ask()).body == b"ok"
    assert streams == 3


@ways
@pytest.mark.parametrize("status", [204, 304])
@simulated
async def test_R23_no_body_for_204_and_304_whatever_the_worker_sends(way: str, status: int) -> None:
    frames = (head(status, b"Content-Length: 5"), data(b"body!"), end())
    async with serving(answers(way, *frames)) as world:
        client = world.connect()
        for _ in range(2):
            client.send(get())
            answer = await client.answer()
            assert (answer.status, answer.body) == (status, b"")
            assert ("content-length" in answer.headers) == (status == 304)
        client.send_eof()
        assert await client.at_end()
        assert [record.bytes_sent for record in world.records] == [0, 0]


@ways
@simulated
async def test_R23_no_body_for_head_whatever_the_worker_sends(way: str) -> None:
    async with serving(answers(way, head(200, b"Content-Length: 5"), data(b"body!"), end())) as world:
        client = world.connect()
        for _ in range(2):
            client.send(get(method="HEAD"))
            answer = await client.answer("HEAD")
            assert (answer.body, answer.headers["content-length"]) == (b"", "5")
        client.send_eof()
        assert await client.at_end()
        assert [record.bytes_sent for record in world.records] == [0, 0]


@ways
@simulated
async def test_R20_interim_responses_go_to_the_client_in_order(way: str) -> None:
    frames = (
        interim(103, b"Link: </a>"),
        interim(103, b"Link: </b>"),
        head(200, b"Content-Length: 2"),
        data(b"ok"),
        end(),
    )
    async with serving(answers(way, *frames)) as world:
        _, wire = await exchange(world)
        assert wire.startswith(
            b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Hints\r\nLink: </b>\r\n\r\nHTTP/1.1 200 OK\r\n"
        )
        assert wire.endswith(b"\r\n\r\nok")


@ways
@simulated
async def test_R20_no_interim_response_for_HTTP_1_0(way: str) -> None:
    frames = (interim(103, b"Link: </a>"), head(200, b"Content-Length: 2"), data(b"ok"), end())
    async with serving(answers(way, *frames)) as world:
        _, wire = await exchange(world, get(version="1.0"))
        assert wire.startswith(b"HTTP/1.1 200 OK\r\n")


# -- the application's errors: the process stays ----------------------------------------------------------------------


@ways
@simulated
async def test_an_application_that_raises_is_a_500_and_the_connection_and_the_process_live_on(way: str) -> None:
    async with serving(answers(way, error(), end(), once=True)) as world:
        client = world.connect()
        answer = await client.ask()
        assert answer.status == 500
        assert (await client.ask()).body == b"after that"
        assert len(world.spawner.processes) == 1
        assert [record.status for record in world.records] == [500, 200]


@ways
@simulated
async def test_an_interim_response_may_come_before_an_error(way: str) -> None:
    async with serving(answers(way, interim(103), error(), end(), once=True)) as world:
        client = world.connect()
        assert (await client.ask()).status == 500
        assert (await client.ask()).body == b"after that"


@ways
@pytest.mark.parametrize(
    "bad",
    [
        frame(b"R", b"200\0OK\0X-A\0split\r\nSet-Cookie: a\0"),
        frame(b"R", b"200\0O\rK\0"),
        frame(b"R", b"200\0OK\0Bad Name\0x\0"),
        frame(b"R", b"999\0OK\0"),
        head(200, b"Content-Length: five"),
        head(200, b"Content-Length: 5", b"Content-Length: 6"),
    ],
)
@simulated
async def test_R21_a_head_that_is_not_http_is_a_500_and_process_and_connection_live_on(way: str, bad: bytes) -> None:
    async with serving(answers(way, bad, data(b"hello"), end(), once=True)) as world:
        client = world.connect()
        answer = await client.ask()
        assert (answer.status, b"Set-Cookie" in answer.body) == (500, False)
        assert "set-cookie" not in answer.headers
        assert (await client.ask()).body == b"after that"
        assert len(world.spawner.processes) == 1
        assert world.process.asked_to_stop == 0


@simulated
async def test_R21_a_worker_that_still_computes_after_a_bad_head_is_busy() -> None:
    """It is not lent to anybody else before it has ended its side."""
    come, go_on = trio.Event(), trio.Event()

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            if request.path == "/good":
                await stream.send_all(whole())
                continue
            await stream.send_all(head(200, b"X: a\rb"))
            come.set()
            await go_on.wait()
            return

    async with serving(serve) as world:
        client, other = world.connect(), world.connect()
        assert (await client.ask("/bad")).status == 500
        await come.wait()
        other.send(get("/good"))
        await trio.testing.wait_all_tasks_blocked()
        assert (world.sessions, world.queue_length) == (1, 1)
        go_on.set()
        assert (await other.answer()).body == b"ok"
        assert (await client.ask("/good")).body == b"ok"


@ways
@simulated
async def test_R24_less_than_declared_is_short_and_the_connection_closes(way: str) -> None:
    async with serving(answers(way, head(200, b"Content-Length: 10"), data(b"hello"), end())) as world:
        client = world.connect()
        client.send(get() + get())
        wire = await client.receive_all()
        assert wire.endswith(b"\r\n\r\nhello")
        assert wire.count(b"HTTP/1.1") == 1


@ways
@simulated
async def test_R24_more_than_declared_is_cut_off_and_the_connection_closes(way: str) -> None:
    async with serving(answers(way, head(200, b"Content-Length: 3"), data(b"hello"), data(b"more"), end())) as world:
        client = world.connect()
        client.send(get() + get())
        wire = await client.receive_all()
        assert wire.endswith(b"\r\n\r\nhel")
        assert wire.count(b"HTTP/1.1") == 1
        assert [record.bytes_sent for record in world.records] == [3]


# -- the process's errors -------------------------------------------------------------------------------------------


GARBAGE = {
    "http": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "zeros": b"\0" * 64,
    "body-first": data(b"hello") + end(),
    "end-first": end(),
    "two-heads": head() + head(),
    "no-pairs": frame(b"R", b"200"),
    "long-head": b"R" + (128 * 1024 + 1).to_bytes(4, "big"),
    "long-body": head() + b"D" + (16 * 1024**2 + 1).to_bytes(4, "big"),
    "empty-body-frame": head() + frame(b"D") + end(),
    "long-end": head() + frame(b"E", b"\0\0"),
    "interim-after-head": head() + interim(103),
    "error-after-head": head() + error() + end(),
    "upgrade": head() + frame(b"U"),
}


@pytest.mark.parametrize("name", GARBAGE)
@simulated
async def test_F39_garbage_retires_the_process_and_is_never_taken_for_a_response(name: str) -> None:
    garbage = GARBAGE[name]

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await stream.send_all(garbage if process.pid == 1001 else whole(b"the next process"))

    async with serving(serve) as world:
        client = world.connect()
        try:
            answer = await client.ask()
        except ConnectionError:
            pytest.fail("the client was told nothing at all")
        assert answer.status == 502 or (answer.status == 200 and not answer.complete)
        other = world.connect()
        assert (await other.ask()).body == b"the next process"
        assert world.spawner.processes[0].asked_to_stop


@ways
@simulated
async def test_F39_bytes_after_the_end_retire_the_process_and_belong_to_nobody(way: str) -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            if process.pid == 1001:
                await put(stream, way, head(200, b"Content-Length: 2"), data(b"ok"), end() + whole(b"of somebody else"))
            else:
                await stream.send_all(whole(b"the next process"))

    async with serving(serve) as world:
        client = world.connect()
        client.send(get() + get())
        wire = await client.receive_all()
        assert b"of somebody else" not in wire
        assert (await world.connect().ask()).body == b"the next process"


@simulated
async def test_F5_bytes_that_come_after_the_end_are_not_the_next_response() -> None:
    """The worker answers well, and a second answer comes when nobody asked: on the next request at the latest the stream is given up."""

    sent = trio.Event()

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            await stream.send_all(whole(request.path.encode()))
            if request.path == "/twice":
                await trio.testing.wait_all_tasks_blocked()
                await stream.send_all(whole(b"one behind"))
                sent.set()

    async with serving(serve) as world:
        client = world.connect()
        assert (await client.ask("/twice")).body == b"/twice"
        await sent.wait()
        answer = await client.ask("/next")
        assert answer.body == b"/next"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
@simulated
async def test_R30_an_idempotent_request_goes_to_a_second_process_once(method: str) -> None:
    seen: list[tuple[int, str]] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            seen.append((process.pid, request.body.decode()))
            if len(seen) == 1:
                process.exit(3)
                return
            await stream.send_all(whole())

    async with serving(serve) as world:
        client = world.connect()
        client.send(get("/", "Content-Length: 2", method=method) + b"hi")
        answer = await client.answer(method)
        assert answer.status == 200
        assert seen == [(1001, "hi"), (1002, "hi")]
        await trio.testing.wait_all_tasks_blocked()  # what comes by the slow path is recorded a step later
        assert [record.retried for record in world.records] == [1]


@pytest.mark.parametrize("method", ["POST", "PATCH", "LOCK"])
@simulated
async def test_R30_other_requests_are_never_sent_twice(method: str) -> None:
    seen: list[int] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            seen.append(process.pid)
            if len(seen) == 1:
                process.exit(3)
                return
            await stream.send_all(whole())

    async with serving(serve) as world:
        client = world.connect()
        client.send(get(method=method))
        assert (await client.answer(method)).status == 502
        assert seen == [1001]
        assert (await client.ask()).status == 200
        await trio.testing.wait_all_tasks_blocked()  # what comes by the slow path is recorded a step later
        assert [record.retried for record in world.records] == [0, 0]


@simulated
async def test_R30_a_request_that_kills_every_process_is_retried_exactly_once() -> None:
    seen: list[int] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            seen.append(process.pid)
            if request.path == "/kill":
                process.exit(3)
                return
            await stream.send_all(whole())

    async with serving(serve) as world:
        client = world.connect()
        assert (await client.ask("/kill")).status == 502
        assert len(seen) == 2
        assert (await client.ask()).body == b"ok"
        await trio.testing.wait_all_tasks_blocked()  # what comes by the slow path is recorded a step later
        assert [(record.status, record.retried) for record in world.records] == [(502, 1), (200, 0)]


@pytest.mark.parametrize(
    ("retry", "twice"),
    [("safe", {"GET", "HEAD", "OPTIONS"}), ("idempotent", {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}), ("off", set())],
)
@simulated
async def test_R30_which_requests_are_tried_again_is_an_option(retry: str, twice: set[str]) -> None:
    """KE6: ``--retry``."""
    seen: list[str] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            method = request.pairs["REQUEST_METHOD"]
            seen.append(method)
            if seen.count(method) == 1:
                return
            await stream.send_all(whole())

    async with serving(serve, app=AppOptions(retry=retry)) as world:
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST"):
            client = world.connect()
            client.send(get(method=method))
            assert (await client.answer(method)).status == (200 if method in twice else 502)
            assert seen.count(method) == 1 + (method in twice)
            assert (await world.connect().ask()).status == 200


@simulated
async def test_KE6_what_a_process_leaves_unanswered_goes_to_another_and_in_the_end_so_does_the_process() -> None:
    """Fault 10: the second try went to it again, and it was never retired."""
    asked: list[int] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            asked.append(process.pid)
            if process.pid == 1001:
                return
            await stream.send_all(whole())

    async with serving(serve, limits=GroupLimits(min_instances=3), pool_limits=PoolLimits(max_pool_size=3)) as world:
        while len(world.pool.processes) < 3:
            await world.pool.changed.wait()
        for _ in range(30):
            assert (await world.connect().ask()).status == 200
        await trio.testing.wait_all_tasks_blocked()
        assert asked.count(1001) == 3
        assert [record.retried for record in world.records].count(1) == 3
        assert 1001 not in {process.live.pid for process in world.pool.processes.values()}


@simulated
async def test_KE6_it_waits_for_another_rather_than_try_the_same_again() -> None:
    asked: list[int] = []
    gates = {"/a": trio.Event(), "/b": trio.Event()}

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            if request.path in gates:
                await gates[request.path].wait()
            else:
                asked.append(process.pid)
                if process.pid == 1001:
                    return
            await stream.send_all(whole(b"%d" % process.pid))

    async with serving(serve, limits=GroupLimits(min_instances=2), pool_limits=PoolLimits(max_pool_size=2)) as world:
        while len(world.pool.processes) < 2:
            await world.pool.changed.wait()
        busy = {path: world.connect() for path in gates}
        for path, client in busy.items():
            client.send(get(path))
            await trio.testing.wait_all_tasks_blocked()
        gates["/a"].set()
        assert (await busy["/a"].answer()).body == b"1001"
        other = world.connect()
        other.send(get("/short", "Connection: close"))
        await trio.sleep(1)
        assert asked == [1001]
        gates["/b"].set()
        assert (await busy["/b"].answer()).body == b"1002"
        assert (await other.answer()).body == b"1002"
        assert asked == [1001, 1002]


@pytest.mark.parametrize("every", [0.03, 0.5, 1000.0])
@simulated
async def test_F24_a_process_hears_within_100_ms_that_the_client_has_left_in_the_middle_of_a_response(
    every: float,
) -> None:
    """However rarely it sends something. In simulated time: what is waited for, or looked at only now and then, would be seen in full."""
    heard_at = 0.0
    heard = trio.Event()

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        nonlocal heard_at
        async for _ in requests(stream):
            await stream.send_all(head())
            try:
                while True:
                    await stream.send_all(data(b"a piece"))
                    with trio.move_on_after(every):
                        if not await stream.recv():
                            break
            except trio.BrokenResourceError:
                pass
            heard_at = trio.current_time()
            heard.set()
            return

    async with serving(serve) as world:
        client = world.connect()
        client.send(get())
        await trio.sleep(0.71)
        left_at = trio.current_time()
        client.close()
        await heard.wait()
        assert heard_at - left_at <= 0.1


@simulated
async def test_R30_never_after_a_response_byte() -> None:
    seen: list[int] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            seen.append(process.pid)
            await stream.send_all(b"R")
            await trio.testing.wait_all_tasks_blocked()
            process.exit(3)
            return

    async with serving(serve) as world:
        client = world.connect()
        assert (await client.ask()).status == 502
        assert seen == [1001]


@simulated
async def test_R30_after_the_patience_has_passed_too() -> None:
    """The worker dies when the request is in the slow path already."""
    seen: list[int] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            seen.append(process.pid)
            if len(seen) == 1:
                await trio.sleep(10)
                process.exit(3)
                return
            await stream.send_all(whole())

    async with serving(serve) as world:
        client = world.connect()
        answer = await client.ask()
        assert answer.body == b"ok"
        assert seen == [1001, 1002]


@simulated
async def test_R30_a_stale_stream_is_not_used_for_a_post() -> None:
    """The worker has closed the stream between two requests: nothing was sent on it, so any request may go on a new one."""
    seen: list[str] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            seen.append(request.path)
            await stream.send_all(whole())
            return

    async with serving(serve) as world:
        client = world.connect()
        assert (await client.ask("/first")).body == b"ok"
        await trio.testing.wait_all_tasks_blocked()
        client.send(post(b"hi", "/second"))
        assert (await client.answer()).body == b"ok"
        assert seen == ["/first", "/second"]
        await trio.testing.wait_all_tasks_blocked()  # what comes by the slow path is recorded a step later
        assert [record.retried for record in world.records] == [0, 0]


@simulated
async def test_R30_a_process_that_accepts_nothing_is_passed_over_for_any_request() -> None:
    async with serving() as world:
        client = world.connect()
        # Its exit has not been seen when the request comes: both happen in this step.
        world.process.exit(1)
        client.send(post(b"hi"))
        assert (await client.answer()).body == b"ok"
        assert len(world.spawner.processes) == 2


class TestAWorkerThatEndsInTheMiddle:
    """R25. The client must not take what it got for whole."""

    @ways
    @simulated
    async def test_R25_chunked_has_no_last_chunk(self, way: str) -> None:
        async with serving(answers(way, head(), data(b"hello"), then_close=True)) as world:
            _, wire = await exchange(world)
            assert wire.endswith(b"\r\n\r\n5\r\nhello\r\n")

    @ways
    @simulated
    async def test_R25_a_length_is_short(self, way: str) -> None:
        async with serving(answers(way, head(200, b"Content-Length: 10"), data(b"hello"), then_close=True)) as world:
            _, wire = await exchange(world)
            assert wire.endswith(b"Content-Length: 10\r\n\r\nhello")

    @ways
    @simulated
    async def test_R25_a_head_alone_is_flushed(self, way: str) -> None:
        async with serving(answers(way, head(), then_close=True)) as world:
            _, wire = await exchange(world)
            assert wire.endswith(b"Transfer-Encoding: chunked\r\n\r\n")

    @simulated
    async def test_R25_the_pieces_of_a_frame_that_came_are_flushed(self) -> None:
        async with serving(answers(ONE_READ, head(), data(b"hello world")[:-6], then_close=True)) as world:
            _, wire = await exchange(world)
            assert wire.endswith(b"\r\n\r\n5\r\nhello\r\n")

    @ways
    @simulated
    async def test_R25_half_a_head_is_a_502(self, way: str) -> None:
        async with serving(answers(way, head()[:8], then_close=True)) as world:
            client = world.connect()
            assert (await client.ask()).status == 502
            # It is an error of the application's side: the client's connection lives on.
            assert (await client.ask()).status == 502

    @simulated
    async def test_R25_the_next_client_is_served(self) -> None:
        async with serving(answers(ONE_READ, head(), data(b"hello"), then_close=True)) as world:
            for _ in range(3):
                _, wire = await exchange(world)
                assert wire.endswith(b"5\r\nhello\r\n")
            assert world.sessions == 0


@simulated
async def test_a_response_that_is_whole_when_its_process_is_gone_is_a_response() -> None:
    """Answer and exit in one step: nothing may be lost, and the stream must not be left open with nobody to close it."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await stream.send_all(whole(b"my last words"))
            process.exit(0)

    async with serving(serve, pool_limits=PoolLimits(max_pool_size=2)) as world:
        client = world.connect()
        for _ in range(5):
            assert (await client.ask()).body == b"my last words"


@ways
@simulated
async def test_pipelined_requests_are_answered_in_order(way: str) -> None:
    def answer(request: Request) -> bytes:
        return whole(request.path.encode())

    async with serving(respond(answer)) as world:
        client = world.connect()
        paths = [f"/{number}" for number in range(50)]
        wire = b"".join(get(path) for path in paths)
        if way == ONE_READ:
            client.send(wire)
        else:
            await client.send_slowly([wire[at : at + 7] for at in range(0, len(wire), 7)])
        assert [(await client.answer()).body.decode() for _ in paths] == paths
