"""The fast path: what it serves by itself, what ends a ride, and that nothing is lost or left where the two meet.

That a request costs no step of its connection's task is counted in ``tests/bench/test_budget.py``; cuts and deadlines are in ``test_connection_races`` and ``test_deadlines``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
import trio
import trio.testing
from dummy_front import (
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
    whole,
)

from passenger_trio.codecs.http1_worker import HTTP
from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.errors import InvariantBroken
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.server.http import fast_path as fast_path
from passenger_trio.server.http.stage import FAST_PATH_TIMEOUT, Stage
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner
from passenger_trio.system.poller import Poller, Ready, Registration
from passenger_trio.system.raw_stream import RawStream


async def echo_path(process: DummyProcess, stream: RawStream) -> None:
    async for request in requests(stream):
        await stream.send_all(whole(request.path.encode() + request.body))


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


def steps_of_connections(world: World) -> Callable[[], int]:
    """Counts the steps of connections' tasks from now on."""

    class Meter(trio.abc.Instrument):
        steps = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.steps += task.name.endswith("World._run")

    meter = Meter()
    trio.lowlevel.add_instrument(meter)
    return lambda: meter.steps


# -- what it serves by itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [get("/a"), post(b"small", "/a"), get("/a", method="HEAD")],
    ids=["GET", "a body that is here", "HEAD"],
)
@simulated
async def test_a_plain_request_wakes_no_task_of_the_connection(asked: bytes) -> None:
    async with serving(echo_path) as world:
        client = world.connect()
        await client.ask("/warm")
        steps = steps_of_connections(world)
        for _ in range(5):
            client.send(asked)
            assert (await client.answer("HEAD" if asked.startswith(b"HEAD") else "GET")).status == 200
        assert steps() == 0


@pytest.mark.parametrize("others", [0, 1], ids=["alone", "beside another event"])
@simulated
async def test_an_idle_stream_is_probed_unless_the_poller_has_just_looked_at_it(
    monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    probes = 0

    recv_nowait = RawStream.recv_nowait

    def counting(stream: RawStream, size: int = 65536) -> bytes:
        nonlocal probes
        probes += size == 1
        return recv_nowait(stream, size)

    monkeypatch.setattr(RawStream, "recv_nowait", counting)
    async with serving(echo_path) as world:
        client, *more = (world.connect() for _ in range(1 + others))
        for number in range(5):
            await trio.sleep(1)
            client.send(get(f"/{number}"))
            for other in more:
                other.send(b"G")  # the beginning of a head, in the same look of the poller
            assert (await client.answer()).body == b"/%d" % number
    assert bool(probes) is bool(others)


@simulated
async def test_R41_what_a_process_sends_unasked_just_before_a_request_is_not_its_response() -> None:
    """Both are there when the poller looks, in either order."""
    streams: list[RawStream] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        streams.append(stream)
        async for request in requests(stream):
            await stream.send_all(whole(request.path.encode()))

    async with serving(serve) as world:
        client = world.connect()
        for number in range(6):
            await trio.sleep(1)
            if number % 2:
                client.send(get(f"/{number}"))
            if streams:
                streams[-1].send_nowait(whole(b"stray"))
            if not number % 2:
                client.send(get(f"/{number}"))
            assert (await client.answer()).body == b"/%d" % number


@simulated
async def test_requests_that_were_sent_ahead_are_served_in_turn_and_wake_none_either() -> None:
    async with serving(echo_path) as world:
        client = world.connect()
        await client.ask("/warm")
        steps = steps_of_connections(world)
        client.send(b"".join(get(f"/{number}") for number in range(20)))
        for number in range(20):
            assert (await client.answer()).body == b"/%d" % number
        assert (await client.ask("/last")).body == b"/last"
        assert steps() == 0


@simulated
async def test_who_sends_ahead_while_its_request_is_under_way_is_heard_when_it_is_its_turn() -> None:
    """Its socket is not looked at meanwhile: the poller does not turn for it."""
    held: list[RawStream] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            held.append(stream)

    async with serving(serve) as world:
        client = world.connect()
        for number in range(3):
            client.send(get(f"/{number}"))
            await settled()
            client.send(get("/ahead"))
            await settled()
            assert client.connection.codec.buffered == 0
            held.pop().send_nowait(whole(b"one"))
            assert (await client.answer()).body == b"one"
            await settled()
            held.pop().send_nowait(whole(b"two"))
            assert (await client.answer()).body == b"two"


@simulated
async def test_who_waits_in_the_queue_has_his_request_sent_in_the_step_in_which_a_process_is_free() -> None:
    order: list[str] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            order.append(request.path)
            await stream.send_all(whole(request.path.encode()))

    async with serving(serve) as world:
        clients = [world.connect() for _ in range(10)]
        for client in clients:
            await client.ask("/warm")
        order.clear()
        steps = steps_of_connections(world)
        for number, client in enumerate(clients):
            client.send(get(f"/{number}"))
            await settled() if number == 0 else None
        for number, client in enumerate(clients):
            assert (await client.answer()).body == b"/%d" % number
        assert len(order) == 10
        assert steps() == 0
        assert (world.sessions, world.queue_length) == (0, 0)


@pytest.mark.parametrize("size", [65_000, 65_536 - 40, 65_536, 100_000, 131_000])
@simulated
async def test_a_response_of_several_reads_that_is_here_is_plain_too(size: int) -> None:
    body = b"x" * size
    served: list[RawStream] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await settled()
            served.append(stream)
            assert stream.send_nowait(whole(body)) == len(whole(body)), "it fits into a socket's buffer"

    async with serving(serve) as world:
        client = world.connect()
        await client.ask()
        steps = steps_of_connections(world)
        client.send(get())
        assert (await client.answer()).body == body
        assert steps() <= 2, "a rest that the client has not taken is the task's, and nothing else"
        assert served[0] is served[1]


@simulated
async def test_a_longer_one_is_not() -> None:
    body = b"x" * 200_000
    async with serving(respond(whole(body))) as world:
        client = world.connect()
        for _ in range(3):
            answer = await client.ask()
            assert (answer.body, answer.complete) == (body, True)


# -- what ends a ride ------------------------------------------------------------------------------------------------


@simulated
async def test_a_response_in_pieces_is_gone_on_with_by_the_task() -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            for piece in (
                head(200, b"Content-Length: 6")[:9],
                head(200, b"Content-Length: 6")[9:],
                data(b"one"),
                data(b"two") + end(),
            ):
                await stream.send_all(piece)
                await settled()

    async with serving(serve) as world:
        client = world.connect()
        for _ in range(3):
            answer = await client.ask()
            assert (answer.body, answer.complete) == (b"onetwo", True)
        await settled()
        assert len(world.records) == 3


@simulated
async def test_a_client_that_does_not_take_its_response_at_once_gets_all_of_it() -> None:
    body = bytes(range(256)) * 200

    async with serving(respond(whole(body))) as world:
        client = world.connect(send_buffer=4096)
        client.send(get())
        await settled()
        assert client.connection.stage is Stage.WRITE
        assert world.sessions == 0
        assert (await client.answer()).body == body
        assert (await client.ask()).body == body


@simulated
async def test_an_idle_stream_that_says_something_or_ends_is_not_used_again() -> None:
    streams: list[RawStream] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        streams.append(stream)
        await echo_path(process, stream)

    async with serving(serve) as world:
        client = world.connect()
        await client.ask("/one")
        [process] = world.pool.processes.values()
        assert (process.streams, len(process.idle_streams)) == (1, 1)
        streams[-1].send_nowait(b"nobody has asked for this")
        await settled()
        assert (process.streams, len(process.idle_streams)) == (0, 0)
        assert (await client.ask("/two")).body == b"/two"
        streams[-1].send_eof()
        await settled()
        assert (process.streams, len(process.idle_streams)) == (0, 0)
        assert (await client.ask("/three")).body == b"/three"
        assert len(streams) == 3


@simulated
async def test_a_stream_that_the_lane_has_used_may_be_the_slow_lanes_next() -> None:
    """The poller hears for an idle stream, and no more when a task reads from it."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            await trio.sleep(0.8 * FAST_PATH_TIMEOUT)
            await stream.send_all(whole(request.path.encode()))

    async with serving(serve) as world:
        clients = [world.connect() for _ in range(6)]
        for round in range(3):
            # From the third on they outlast their patience in the queue; the second leaves a stream that the plain-request parser has used.
            for number, client in enumerate(clients):
                client.send(get(f"/{round}/{number}"))
            for number, client in enumerate(clients):
                assert (await client.answer()).body == b"/%d/%d" % (round, number)


@simulated
async def test_a_path_without_limit_is_granted_from_the_queue_too() -> None:
    async with serving(echo_path, app=AppOptions(unlimited_concurrency_paths=("/open",))) as world:
        clients = [world.connect() for _ in range(5)]
        for client in clients:
            client.send(get("/open"))
        for client in clients:
            assert (await client.answer()).body == b"/open"


@simulated
async def test_after_its_process_has_gone_an_idempotent_request_takes_the_lane_again() -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            if process.pid == 1001:
                process.exit(1)
                return
            await stream.send_all(whole(request.path.encode()))

    async with serving(serve, pool_limits=PoolLimits(max_pool_size=2)) as world:
        client = world.connect()
        assert (await client.ask("/again")).body == b"/again"
        await world.until(lambda: world.records)  # the slow path records a step after the client has its answer
        assert [record.retried for record in world.records] == [1]


# -- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["parse_response_head", "send_request", "init_request"])
@pytest.mark.parametrize("queued", [False, True])
def test_F13_a_bug_in_a_step_costs_one_connection(where: str, queued: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    original = getattr(fast_path, where)
    bugs = 1

    def buggy(*arguments: object) -> object:
        nonlocal bugs
        if bugs:
            bugs -= 1
            raise ZeroDivisionError
        return original(*arguments)

    @simulated
    async def run() -> None:
        async with serving(echo_path) as world:
            clients = [world.connect() for _ in range(3 if queued else 1)]
            for client in clients:
                assert (await client.ask("/warm")).body == b"/warm"
            monkeypatch.setattr(fast_path, where, buggy)
            for client in clients:
                client.send(get("/x"))
            answers = [await client.receive() for client in clients]
            assert sum(not answer for answer in answers) == 1, "one connection ends"
            assert world.front.rejected["internal_error"] == 1
            assert (await world.connect().ask("/after")).body == b"/after"

    run()


@simulated
async def test_a_broken_law_of_one_exchange_costs_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """KE1, fault 3."""

    def broken(payload: bytes) -> None:
        raise InvariantBroken("the test's")

    async with serving(echo_path) as world:
        client, other = world.connect(), world.connect()
        await client.ask()
        await other.ask()
        with monkeypatch.context() as patch:
            patch.setattr(fast_path, "parse_response_head", broken)
            client.send(get())
            assert not await client.receive()
        assert (await other.ask("/after")).body == b"/after"
        assert world.front.kernel.faults["a connection"].count == 1


@pytest.mark.parametrize("where", ["session_closed", "checkout_nowait"])
def test_a_broken_law_of_the_pool_ends_the_server(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """KE1: nothing that it decides can be believed any more."""

    def broken(*arguments: object) -> None:
        raise InvariantBroken("the test's")

    @simulated
    async def run() -> None:
        async with serving(echo_path) as world:
            client = world.connect()
            await client.ask()
            policy = world.pool._policy
            monkeypatch.setattr(policy, where, policy._remembering(where, broken))
            client.send(get())
            await client.receive()
            await trio.sleep_forever()

    with pytest.raises(InvariantBroken, match="the test's"):
        run()


class Full(Poller):
    """The kernel watches no more than so many sockets."""

    def __init__(self, now: Callable[[], float], most: int) -> None:
        super().__init__(now)
        self.most = most

    def register(self, fd: int, events: int, ready: Ready, failed: Callable[[], None] | None = None) -> Registration:
        if len(self._registrations) >= self.most:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().register(fd, events, ready, failed)


@pytest.mark.parametrize("most", [0, 1])
@simulated
async def test_where_the_kernel_watches_no_more_sockets_the_slow_lane_serves_or_the_connection_ends(
    most: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(echo_path) as world, trio.open_nursery() as nursery:
        world.front.poller = poller = Full(trio.current_time, most)
        await nursery.start(poller.run)
        client = world.connect()
        client.send(get("/x"))
        if most:
            assert (await client.answer()).body == b"/x"
            assert (await client.ask("/y")).body == b"/y"
        else:
            assert await client.receive() == b""
            assert "cannot watch a client's socket" in caplog.text
        client.close()
        await client.ended.wait()
        nursery.cancel_scope.cancel()


@simulated
async def test_a_request_that_has_come_when_the_server_begins_to_drain_is_served_as_the_last() -> None:
    body = bytes(range(256)) * 200
    async with serving(respond(whole(body))) as world:
        client = world.connect(send_buffer=4096)
        client.send(get())
        await settled()
        assert client.connection.stage is Stage.WRITE
        client.send(get("/next"))
        await settled()
        world.front.drain()
        assert (await client.answer()).body == body
        assert (await client.answer()).body == body
        assert await client.receive() == b""


@pytest.mark.parametrize("size", [65_536, 8_000_000])
@simulated
async def test_a_process_over_http_that_breaks_off_is_not_taken_for_one_that_has_ended(size: int) -> None:
    """Its stream is reset, which the kernel tells once; a body without a length would end with a good end."""
    front = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        await stream.recv(20)
        await stream.send_all(front + b"x" * (size - len(front)))
        stream.close()  # with something unread

    async with serving(spawner=DummySpawner(serve=serve, worker_protocol=HTTP)) as world:
        for _ in range(5):
            client = world.connect(send_buffer=4096 if size > 100_000 else 0)
            client.send(post(b"b" * 100))
            await trio.sleep(0.5)
            assert not (await client.answer("POST")).complete
            client.close()


@simulated
async def test_the_log_has_no_more_bytes_than_the_client_can_have_had() -> None:
    async with serving(respond(whole(b"x" * 60_000)), options=ServerOptions(write_timeout=5.0)) as world:
        client = world.connect(send_buffer=4096)
        client.send(get())
        await client.ended.wait()
        came = len(await client.receive_all())
        assert 0 < world.records[0].bytes_sent <= came
        whole_client = world.connect(send_buffer=4096)
        assert len((await whole_client.ask()).body) == world.records[1].bytes_sent == 60_000
