"""R21 to R32, each whole, byte by byte and split at each CRLF, from the client and from the worker, with the plain-request parser and without: one outcome.

What each rule is in full is tested where its module is; here is that no way in which the bytes come, and no reader that they meet, changes it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
import trio.testing
from dummy_front import Client, World, data, end, error, get, head, interim, post, requests, serving, simulated, whole

from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.spawning.dummy import DummyProcess
from passenger_trio.system.raw_stream import RawStream

Cut = Callable[[bytes], list[bytes]]
CUTS: dict[str, Cut] = {
    "whole": lambda wire: [wire],
    "byte by byte": lambda wire: [wire[at : at + 1] for at in range(len(wire))],
    "split at each CRLF": lambda wire: re.findall(rb"\r\n|[^\r\n]+|\r|\n", wire),
}
WAYS = [(ours, theirs) for ours in CUTS for theirs in ("whole", "byte by byte")]

pytestmark = pytest.mark.parametrize("plain_parser", [True, False], ids=["plain_parser", "h11 only"])
by_way = pytest.mark.parametrize(("client_cut", "worker_cut"), WAYS)


@attrs.define
class Play:
    """One client, and a worker that gives the answers in turn; ``None`` closes its stream, and so does a ``!`` behind one."""

    world: World
    client: Client
    cut: Cut
    asked: list[tuple[str, dict[str, str]]]

    async def send(self, *wires: bytes) -> None:
        await self.client.send_slowly(self.cut(b"".join(wires)))


Scene = Callable[[Play], Awaitable[None]]


def play(
    scene: Scene,
    answers: list[bytes | None],
    client_cut: str,
    worker_cut: str,
    plain_parser: bool,
    *,
    app: AppOptions | None = None,
    **options: float,
) -> None:
    @simulated
    async def run() -> None:
        left = list(answers)
        asked: list[tuple[str, dict[str, str]]] = []

        async def serve(_: DummyProcess, stream: RawStream) -> None:
            async for request in requests(stream):
                asked.append((request.path, request.pairs))
                if request.path == "/slow":
                    await trio.sleep(1)
                answer = left.pop(0) if left else whole()
                if answer is None:
                    return
                dies = answer.endswith(b"!")
                for piece in CUTS[worker_cut](answer.removesuffix(b"!")):
                    await stream.send_all(piece)
                    await trio.testing.wait_all_tasks_blocked()
                if dies:
                    return

        async with serving(
            serve,
            app=app,
            options=ServerOptions(plain_parser=plain_parser, **options),  # type: ignore[arg-type]
            pool_limits=PoolLimits(max_pool_size=1),
        ) as world:
            await scene(Play(world, world.connect(), CUTS[client_cut], asked))

    run()


@by_way
def test_R21_a_head_that_is_not_one_is_a_500_and_the_connection_lives_on(
    client_cut: str, worker_cut: str, plain_parser: bool
) -> None:
    async def scene(play: Play) -> None:
        await play.send(get("/0"), get("/1"))
        assert [(await play.client.answer()).status for _ in range(2)] == [500, 200]

    play(scene, [head(200, b"X-A: a\x01b") + data(b"no") + end()], client_cut, worker_cut, plain_parser)


@by_way
def test_R22_fields_of_one_connection_pass_neither_way(client_cut: str, worker_cut: str, plain_parser: bool) -> None:
    fields = (b"Connection: x-own, close", b"X-Own: 1", b"Keep-Alive: a", b"Upgrade: b", b"TE: c", b"X-End: d")

    async def scene(play: Play) -> None:
        await play.send(get("/0", "Connection: x-hop", "X-Hop: 1", "Keep-Alive: 2", "X-Stays: 3"), get("/1"))
        answer = await play.client.answer()
        assert set(answer.headers) == {"x-end", "content-length", "date", "server"}
        assert (await play.client.answer()).status == 200
        pairs = play.asked[0][1]
        assert "HTTP_X_STAYS" in pairs
        assert not {"HTTP_X_HOP", "HTTP_KEEP_ALIVE", "HTTP_CONNECTION"} & set(pairs)

    play(scene, [head(200, *fields, b"Content-Length: 2") + data(b"ok") + end()], client_cut, worker_cut, plain_parser)


@by_way
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_R23_no_body_where_there_is_none(
    client_cut: str, worker_cut: str, method: str, status: int, plain_parser: bool
) -> None:
    async def scene(play: Play) -> None:
        await play.send(get("/0", method=method), get("/1"))
        answer = await play.client.answer(method)
        assert (answer.status, answer.body) == (status, b"")
        assert (await play.client.answer()).body == b"ok"

    play(scene, [head(status, b"Content-Length: 5") + data(b"hello") + end()], client_cut, worker_cut, plain_parser)


@by_way
@pytest.mark.parametrize(("declared", "came"), [(9, b"hello"), (3, b"hel")])
def test_R24_what_is_not_of_the_declared_length_ends_the_connection(
    client_cut: str, worker_cut: str, declared: int, came: bytes, plain_parser: bool
) -> None:
    async def scene(play: Play) -> None:
        await play.send(get("/0"))
        answer = await play.client.answer()
        assert (answer.body, answer.complete) == (came, declared == 3)
        assert await play.client.at_end()

    play(
        scene,
        [head(200, b"Content-Length: %d" % declared) + data(b"hello") + end()],
        client_cut,
        worker_cut,
        plain_parser,
    )


@by_way
@pytest.mark.parametrize("fields", [(), (b"Content-Length: 9",)])
def test_R25_a_worker_that_dies_in_its_response_leaves_no_whole_one(
    client_cut: str, worker_cut: str, fields: tuple[bytes, ...], plain_parser: bool
) -> None:
    async def scene(play: Play) -> None:
        await play.send(get("/0"))
        answer = await play.client.answer()
        assert (answer.body, answer.complete) == (b"hello", False)

    play(scene, [head(200, *fields) + data(b"hello") + b"!"], client_cut, worker_cut, plain_parser)


@by_way
def test_R26_an_error_page_says_nothing_of_request_or_exception(
    client_cut: str, worker_cut: str, plain_parser: bool
) -> None:
    async def scene(play: Play) -> None:
        await play.send(get("/<evil>"), b"GET /<evil> HTTP/1.1\r\nHost: <evil>\r\n\r\n")
        wire = await play.client.receive_all()
        assert wire.startswith(b"HTTP/1.1 500 ")
        assert b"HTTP/1.1 400 " in wire
        assert not [word for word in (b"evil", b"SecretError", b"the secret", b"Traceback") if word in wire]

    raised = error(b"SecretError", b"the secret") + end()
    play(scene, [raised], client_cut, worker_cut, plain_parser, app=AppOptions(environment="production"))


@pytest.mark.parametrize("cut", ["byte by byte", "split at each CRLF"])
def test_R27_the_time_for_a_head_runs_from_its_first_byte(cut: str, plain_parser: bool) -> None:
    async def scene(play: Play) -> None:
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                for piece in play.cut(get("/", *(f"X-{number}: y" for number in range(30)))):
                    try:
                        await play.client.stream.send_all(piece)
                    except trio.BrokenResourceError:
                        return
                    await trio.sleep(1)

            nursery.start_soon(drip)
            assert (await play.client.answer()).status == 408
            assert 2.9 < trio.current_time() < 3.5
            nursery.cancel_scope.cancel()

    play(scene, [], cut, "whole", plain_parser, header_timeout=3.0)


@by_way
def test_R28_the_end_of_the_clients_side_behind_a_request_is_no_abort(
    client_cut: str, worker_cut: str, plain_parser: bool
) -> None:
    async def scene(play: Play) -> None:
        await play.send(get("/0"), post(b"hello", "/1"))
        play.client.send_eof()
        assert [(await play.client.answer()).body for _ in range(2)] == [b"ok", b"ok"]
        assert await play.client.at_end()

    play(scene, [], client_cut, worker_cut, plain_parser)


@by_way
def test_R29_who_is_refused_can_still_send_and_reads_why(client_cut: str, worker_cut: str, plain_parser: bool) -> None:
    async def scene(play: Play) -> None:
        await play.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n")
        await play.send(b"x" * 50)
        assert (await play.client.answer("POST")).status == 413
        await play.send(b"x" * 50)
        assert not play.client.ended.is_set()
        await play.client.ended.wait()
        assert trio.current_time() < 2.5

    play(scene, [], client_cut, worker_cut, plain_parser)


@by_way
@pytest.mark.parametrize(("wire", "status"), [(get("/0"), 200), (post(b"hello", "/0"), 502)])
def test_R30_a_second_try_for_what_may_be_sent_twice(
    client_cut: str, worker_cut: str, wire: bytes, status: int, plain_parser: bool
) -> None:
    async def scene(play: Play) -> None:
        await play.send(get("/first"))
        assert (await play.client.answer()).status == 200
        await play.send(wire)
        assert (await play.client.answer()).status == status
        assert [path for path, _ in play.asked] == ["/first", *["/0"] * (2 if status == 200 else 1)]

    play(scene, [whole(), None], client_cut, worker_cut, plain_parser)


@by_way
def test_R31_pipelined_requests_are_answered_in_order_one_at_a_time(
    client_cut: str, worker_cut: str, plain_parser: bool
) -> None:
    bodies = [b"%d" % number for number in range(4)]

    async def scene(play: Play) -> None:
        await play.send(get("/0"), post(b"hello", "/1"), b"\r\n" + get("/2"), get("/3"))
        assert [(await play.client.answer()).body for _ in range(4)] == bodies
        assert [path for path, _ in play.asked] == ["/0", "/1", "/2", "/3"]

    answers: list[bytes | None] = [interim(103, b"Link: </x>") + whole(body) for body in bodies]
    play(scene, answers, client_cut, worker_cut, plain_parser)


@by_way
def test_R32_a_connection_goes_to_the_end_of_the_queue_after_each_response(
    client_cut: str, worker_cut: str, plain_parser: bool
) -> None:
    async def scene(play: Play) -> None:
        other = play.world.connect()
        await play.send(get("/slow"), get("/1"), get("/2"))
        await other.send_slowly(play.cut(get("/other")))
        for client in (play.client, other, play.client, play.client):
            assert (await client.answer()).status == 200
        assert [path for path, _ in play.asked] == ["/slow", "/other", "/1", "/2"]

    play(scene, [], client_cut, worker_cut, plain_parser)
