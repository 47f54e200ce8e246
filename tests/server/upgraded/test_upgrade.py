"""The upgrade relay: bytes both ways between a client and an application that has taken the connection over.

The worker is the test's own; nothing here starts a process.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
import trio
import trio.testing
from dummy_front import (
    Client,
    Worker,
    World,
    data,
    end,
    frame,
    get,
    head,
    interim,
    post,
    requests,
    respond,
    serving,
    simulated,
    whole,
)

from passenger_trio.codecs.websocket_frame_ends import close_frame
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.server.http.stage import Stage
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner
from passenger_trio.system.raw_stream import RawStream

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
WISH = (
    "Connection: keep-alive, Upgrade",
    "Upgrade: WebSocket",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)
ASK = get("/cable", *WISH)
SWITCH = head(
    101, b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: yes", reason=b"Switching Protocols"
)
UPGRADE = frame(b"U")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: yes\r\n\r\n"
BULK = bytes(range(256)) * 4096  # 1 MiB
Raw = Callable[[RawStream], Awaitable[None]]


def upgrades(raw: Raw, begin: bytes = SWITCH + UPGRADE) -> Worker:
    """A worker that answers the first request of a stream with ``begin``, and then does ``raw`` with it."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        asked = requests(stream)
        await anext(asked)
        assert not asked._held, "raw bytes came before the worker had upgraded"
        await stream.send_all(begin)
        await raw(stream)

    return serve


async def receive(stream: RawStream) -> bytes:
    """Some bytes; ``b""`` at the end, however it came."""
    try:
        return await stream.recv()
    except trio.BrokenResourceError:
        return b""


async def echo(stream: RawStream) -> None:
    while piece := await receive(stream):
        await stream.send_all(piece.upper())


async def nothing(stream: RawStream) -> None:
    """Until the end of what comes, and no longer."""
    while await receive(stream):
        pass


async def receive_exactly(client: Client, count: int) -> bytes:
    came = b""
    while len(came) < count:
        piece = await client.stream.recv(count - len(came))  # what follows may be here already
        assert piece, came
        came += piece
    return came


async def upgraded(world: World, **how: int) -> Client:
    """A client whose connection is upgraded."""
    client = world.connect(**how)  # type: ignore[arg-type]
    client.send(ASK)
    assert await receive_exactly(client, len(SWITCHED)) == SWITCHED
    await world.until(lambda: client.connection.stage in (Stage.RELAY, Stage.LINGER))
    return client


# -- the handshake --------------------------------------------------------------------------------------------------


@simulated
async def test_bytes_go_both_ways() -> None:
    async with serving(upgrades(echo)) as world:
        client = await upgraded(world)
        for word in (b"one", b"two", b"three"):
            client.send(word)
            assert await client.receive() == word.upper()
        assert world.sessions == 1
        client.send_eof()
        assert await client.at_end()
        await client.ended.wait()
    (record,) = world.records
    assert (record.status, record.bytes_sent, record.received) == (101, 11, 11)


@simulated
async def test_an_application_is_told_of_the_wish() -> None:
    seen: dict[str, str] = {}

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            seen.clear()
            seen.update(request.pairs)
            await stream.send_all(whole())

    async with serving(serve) as world:
        client = world.connect()
        client.send(ASK)
        assert (await client.answer()).status == 200  # a wish that is not met is an ordinary request
        assert seen["HTTP_CONNECTION"] == "Upgrade"
        assert seen["HTTP_UPGRADE"] == "websocket"
        assert seen["HTTP_SEC_WEBSOCKET_KEY"] == KEY
        assert seen["HTTP_SEC_WEBSOCKET_VERSION"] == "13"
        assert (await client.ask()).status == 200  # and the connection lives on
        assert not {"HTTP_CONNECTION", "HTTP_UPGRADE"} & seen.keys()
        for wish in (["Connection: upgrade", "Upgrade: h2c"], ["Upgrade: websocket"], ["Connection: upgrade"]):
            client.send(get("/", *wish))
            assert (await client.answer()).status == 200
            assert not {"HTTP_CONNECTION", "HTTP_UPGRADE"} & seen.keys()


@simulated
async def test_a_wish_with_a_body_is_refused() -> None:
    async with serving(upgrades(echo)) as world:
        for request in (
            get("/", *WISH, "Content-Length: 3") + b"abc",
            get("/", *WISH, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        ):
            client = world.connect()
            client.send(request)
            assert (await client.answer()).status == 400
            assert await client.at_end()
        assert world.front.rejected["upgrade_with_body"] == 2


@simulated
async def test_another_version_of_the_protocol_is_refused() -> None:
    async with serving(upgrades(echo)) as world:
        client = world.connect()
        client.send(ASK.replace(b"Version: 13", b"Version: 8"))
        answer = await client.answer()
        assert (answer.status, answer.headers["sec-websocket-version"]) == (426, "13")


@pytest.mark.parametrize(
    "fields", [(), (b"upgrade: WEBSOCKET",), (b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Keep-Alive: 5")]
)
@simulated
async def test_the_head_of_the_switch_is_made_whole(fields: tuple[bytes, ...]) -> None:
    async with serving(upgrades(echo, head(101, *fields, b"X: y", reason=b"Yes") + UPGRADE)) as world:
        client = world.connect()
        client.send(ASK)
        protocol = b"WEBSOCKET" if b"upgrade: WEBSOCKET" in fields else b"websocket"
        expected = b"HTTP/1.1 101 Yes\r\nUpgrade: %s\r\nConnection: Upgrade\r\nX: y\r\n\r\n" % protocol
        assert await receive_exactly(client, len(expected)) == expected


@pytest.mark.parametrize(
    ("request_", "begin"),
    [
        (get(), SWITCH + UPGRADE),
        (post(b"abc"), SWITCH + UPGRADE),
        (get("/", "Connection: upgrade", "Upgrade: h2c"), SWITCH + UPGRADE),
        (ASK, head(101, b"Upgrade: h2c") + UPGRADE),
        (ASK, head(101, b"Upgrade: websocket", b"X: a\x01b") + UPGRADE),
        (ASK, SWITCH + end()),
        (ASK, SWITCH + data(b"x") + end()),
    ],
    ids=["not asked", "not asked, with a body", "another asked", "another told", "bad field", "no upgrade", "a body"],
)
@simulated
async def test_a_switch_that_cannot_be_is_the_applications_error(request_: bytes, begin: bytes) -> None:
    first = True

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        nonlocal first
        async for _ in requests(stream):
            for piece in [begin] if first else [whole()]:
                await stream.send_all(piece)
            if first and b"U\0\0\0\0" in begin:
                first = False
                while True:  # it only writes, and never looks at what comes
                    try:
                        await stream.send_all(b"tick")
                    except trio.BrokenResourceError:
                        return
            first = False

    async with serving(serve) as world:
        client = world.connect()
        client.send(request_)
        assert (await client.answer()).status == 500
        await world.until(lambda: world.sessions == 0)
        client = world.connect()
        assert (await client.ask()).status == 200
        assert len(world.spawner.processes) == 1, "the process was blamed for its application"


@pytest.mark.parametrize(
    "begin", [head(200) + UPGRADE, head(200) + data(b"x") + UPGRADE, frame(b"U", b"x"), SWITCH + frame(b"U", b"x")]
)
@simulated
async def test_an_upgrade_that_is_not_in_the_contract_is_the_processs_error(begin: bytes) -> None:
    async with serving(upgrades(nothing, begin)) as world:
        first = world.process
        client = world.connect()
        client.send(ASK)
        if begin.startswith(head(200)):
            assert not (await client.answer()).complete
        else:
            assert (await client.answer()).status == 502
        await world.until(lambda: first.asked_to_stop)


@pytest.mark.parametrize("begin", [UPGRADE, head(200) + UPGRADE])
@simulated
async def test_an_upgrade_before_the_whole_request_was_sent_is_the_processs_error(begin: bytes) -> None:
    """Raw bytes would stand where the process still expects the request's: they would be body to it."""
    told: list[bytes] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        await stream.recv()
        await stream.send_all(begin)
        while piece := await receive(stream):
            told.append(piece)

    async with serving(serve, app=AppOptions(request_buffering=False)) as world:
        first = world.process
        client = world.connect()
        client.send(get("/", "Content-Length: 500", method="POST"), b"x" * 100)
        if begin == UPGRADE:
            assert (await client.answer()).status == 502
        else:
            assert not (await client.answer()).complete
        await world.until(lambda: first.asked_to_stop)
        client.send(b"raw")
        await client.ended.wait()
        assert b"raw" not in b"".join(told)


# -- no byte is lost ------------------------------------------------------------------------------------------------

SPOKEN = b"hello from the client"
WRITTEN = b"hello from the application"


async def converse(stream: RawStream) -> None:
    """Read what the client speaks, up to its end; then end."""
    came = b""
    while piece := await receive(stream):
        came += piece
    assert came == SPOKEN, came


def cuts(whole: bytes) -> list[list[bytes]]:
    """Whole, byte by byte, and in two at every place."""
    singles = [whole[at : at + 1] for at in range(len(whole))]
    return [[whole], singles, *([whole[:at], whole[at:]] for at in range(1, len(whole)))]


@simulated
async def test_what_the_client_sends_with_the_handshake_is_not_lost() -> None:
    begin = SWITCH + UPGRADE + WRITTEN
    spawner = DummySpawner(serve=upgrades_blindly(begin), concurrency=0)
    async with serving(spawner=spawner) as world:
        for pieces in cuts(ASK + SPOKEN):
            client = world.connect()
            await client.send_slowly(pieces)
            client.send_eof()
            assert await client.receive_all() == SWITCHED + WRITTEN
            await client.ended.wait()
        assert len(world.spawner.processes) == 1
    assert {(r.status, r.bytes_sent, r.received) for r in world.records} == {(101, len(WRITTEN), len(SPOKEN))}


def upgrades_blindly(begin: bytes) -> Worker:
    """As ``upgrades``; the first raw bytes may have come with the request's end."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        await anext(requests(stream))
        await stream.send_all(begin)
        await converse(stream)

    return serve


@pytest.mark.parametrize(
    "begin",
    [SWITCH + UPGRADE, UPGRADE, interim(103, b"Link: </a>") + SWITCH + UPGRADE],
    ids=["101", "full hijack", "hints"],
)
@simulated
async def test_what_the_application_sends_with_the_upgrade_is_not_lost(begin: bytes) -> None:
    pieces: list[bytes] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        await anext(requests(stream))
        for piece in pieces:
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        await converse(stream)

    async with serving(spawner=DummySpawner(serve=serve, concurrency=0)) as world:
        expected = SWITCHED if SWITCH in begin else b""
        if begin.startswith(b"I"):
            expected = b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n" + expected
        for pieces in cuts(begin + WRITTEN):  # noqa: B007 - the worker's
            client = world.connect()
            client.send(ASK)
            assert await receive_exactly(client, len(expected + WRITTEN)) == expected + WRITTEN
            client.send(SPOKEN)
            client.send_eof()
            assert await client.at_end()
            await client.ended.wait()
        assert len(world.spawner.processes) == 1


@simulated
async def test_bytes_behind_a_handshake_that_ends_with_close_are_not_lost() -> None:
    async with serving(upgrades_blindly(SWITCH + UPGRADE)) as world:
        client = world.connect()
        client.send(ASK.replace(b"keep-alive", b"close") + SPOKEN)
        client.send_eof()
        assert await client.receive_all() == SWITCHED


@simulated
async def test_nothing_of_the_client_reaches_the_application_before_it_has_upgraded() -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        asked = requests(stream)
        await anext(asked)
        await trio.sleep(1)  # into the slow path
        assert not asked._held
        with pytest.raises(trio.WouldBlock):
            stream.recv_nowait()
        await stream.send_all(SWITCH + UPGRADE)
        await converse(stream)

    async with serving(serve) as world:
        client = world.connect()
        client.send(ASK + SPOKEN)
        assert await receive_exactly(client, len(SWITCHED)) == SWITCHED
        client.send_eof()
        assert await client.at_end()


@simulated
async def test_bulk_passes_unchanged_both_ways_at_once() -> None:
    async def serve(stream: RawStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, BULK)
            came = bytearray()
            while len(came) < len(BULK):
                came += await stream.recv()
        assert came == BULK

    async with serving(upgrades(serve)) as world:
        client = await upgraded(world)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, BULK)
            assert await receive_exactly(client, len(BULK)) == BULK
        assert await client.at_end()
    (record,) = world.records
    assert (record.bytes_sent, record.received) == (len(BULK), len(BULK))


# -- ends -----------------------------------------------------------------------------------------------------------


@simulated
async def test_the_end_of_the_client_is_passed_on_and_the_application_may_go_on() -> None:
    async def serve(stream: RawStream) -> None:
        await nothing(stream)
        for word in (b"still ", b"here"):
            await stream.send_all(word)
            await trio.sleep(100)

    async with serving(upgrades(serve)) as world:
        client = await upgraded(world)
        client.send(b"bye")
        client.send_eof()
        assert await client.receive_all() == b"still here"
        assert trio.current_time() >= 200


@simulated
async def test_the_end_of_the_application_is_passed_on_and_the_client_may_go_on() -> None:
    came = b""

    async def serve(stream: RawStream) -> None:
        nonlocal came
        await stream.send_all(b"bye")
        stream.send_eof()
        while piece := await stream.recv():
            came += piece

    async with serving(upgrades(serve)) as world:
        client = await upgraded(world)
        assert await client.receive_all() == b"bye"
        await trio.sleep(100)
        assert world.sessions == 1
        client.send(b"still ")
        await trio.testing.wait_all_tasks_blocked()
        client.send(b"here")
        client.send_eof()
        await client.ended.wait()
    assert came == b"still here"


@simulated
async def test_an_application_that_half_closes_and_later_closes_ends_it() -> None:
    goes = trio.Event()

    async def serve(stream: RawStream) -> None:
        stream.send_eof()
        await goes.wait()

    async with serving(upgrades(serve)) as world:
        client = await upgraded(world)
        assert await client.at_end()
        await trio.sleep(100)
        assert world.sessions == 1
        goes.set()
        await world.until(lambda: world.sessions == 0)
        await client.ended.wait()


@pytest.mark.parametrize("unread", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("written", [b"", WRITTEN, BULK], ids=["nothing", "something", "bulk"])
@simulated
async def test_when_the_application_closes_the_client_gets_all_and_then_the_end(unread: bool, written: bytes) -> None:
    """Closed with bytes in it that were not read, a Unix socket resets."""

    async def serve(stream: RawStream) -> None:
        if unread:
            await stream.recv(1)
        if written:
            await stream.send_all(written)

    async with serving(upgrades(serve)) as world:
        client = await upgraded(world)
        if unread:
            client.send(b"more than one byte")
        began = trio.current_time()
        assert await client.receive_all() == written
        await world.until(lambda: world.sessions == 0)
        # A WebSocket that has ended without a Close: for so long its process may be dying.
        assert trio.current_time() - began < (0.1 if written else 0.3)
        client.close()
        await client.ended.wait()
    assert world.records[-1].bytes_sent == len(written)


@simulated
async def test_an_application_that_closes_while_the_client_sends_loses_none_of_its_last_words() -> None:
    async def serve(stream: RawStream) -> None:
        await stream.recv(1)
        await stream.send_all(BULK)

    async with serving(upgrades(serve)) as world:
        client = await upgraded(world)
        client.send(b"x")
        async with trio.open_nursery() as nursery:

            async def talk() -> None:
                for _ in range(50):
                    try:
                        await client.stream.send_all(b"y" * 1000)
                    except trio.BrokenResourceError:
                        break
                    await trio.testing.wait_all_tasks_blocked()

            nursery.start_soon(talk)
            assert await client.receive_all() == BULK


@simulated
async def test_a_client_that_answers_the_end_is_heard_to_its_own_end() -> None:
    """As a WebSocket's client answers a close: the connection is not reset under it."""

    async def serve(stream: RawStream) -> None:
        await stream.send_all(b"close")

    async with serving(upgrades(serve)) as world:
        client = await upgraded(world)
        assert await client.receive_all() == b"close"
        await trio.sleep(1)
        await client.stream.send_all(b"close, too")
        assert not client.ended.is_set()
        client.send_eof()
        await client.ended.wait()
        silent = await upgraded(world)
        began = trio.current_time()
        await silent.ended.wait()
        assert 1.9 <= trio.current_time() - began <= 2.5


@pytest.mark.parametrize("writes", [False, True], ids=["a reader", "a writer"])
@simulated
async def test_when_the_clients_connection_breaks_the_application_is_told_at_once(writes: bool) -> None:
    """Also one that only writes: it gets an error."""
    told = trio.Event()

    async def serve(stream: RawStream) -> None:
        try:
            while True:
                if writes:
                    await stream.send_all(b"tick")
                    await trio.sleep(1)
                elif not await stream.recv():
                    break
        except trio.BrokenResourceError:
            pass
        told.set()

    async with serving(upgrades(serve)) as world:
        client = await upgraded(world)
        await trio.sleep(10.5)
        began = trio.current_time()
        client.reset()
        await world.until(lambda: world.sessions == 0)
        assert trio.current_time() - began < 0.1
        await told.wait()
        assert trio.current_time() - began < 1.1
        await client.ended.wait()
    assert world.records[-1].status == 101


@simulated
async def test_when_the_process_dies_the_client_sees_the_end_at_once() -> None:
    async with serving(upgrades(echo)) as world:
        client = await upgraded(world)
        client.send(b"a")
        assert await client.receive() == b"A"
        began = trio.current_time()
        world.process.exit(-9)
        assert await client.at_end()
        await world.until(lambda: world.sessions == 0)
        assert trio.current_time() - began < 0.1


@simulated
async def test_a_client_that_goes_while_the_switch_is_being_told() -> None:
    """The application has the connection already, and only writes: it must be told, too."""
    told = trio.Event()

    async def serve(stream: RawStream) -> None:
        try:
            while True:
                await stream.send_all(b"tick")
        except trio.BrokenResourceError:
            told.set()

    async def answer(process: DummyProcess, stream: RawStream) -> None:
        await anext(requests(stream))
        # Hints that the client does not take before it goes.
        await stream.send_all(interim(103, b"Link: " + b"x" * 60000) + SWITCH + UPGRADE)
        await serve(stream)

    async with serving(answer) as world:
        client = world.connect(send_buffer=4096)
        client.send(ASK)
        await trio.testing.wait_all_tasks_blocked()
        client.close()  # with unread bytes in it: that resets
        await told.wait()
        await client.ended.wait()


# -- the full hijack ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "status"), [(b"HTTP/1.1 204 No Content\r\n\r\n", 204), (b"hm", 101), (b"", 101)])
@pytest.mark.parametrize("slowly", [False, True])
@simulated
async def test_an_application_that_writes_its_response_itself(answer: bytes, status: int, slowly: bool) -> None:
    async def serve(stream: RawStream) -> None:
        for piece in [answer] if not slowly else [answer[at : at + 1] for at in range(len(answer))]:
            if piece:
                await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()

    async with serving(upgrades(serve, UPGRADE)) as world:
        client = world.connect()
        client.send(post(b"a body"))
        assert await client.receive_all() == answer
        client.close()
        await client.ended.wait()
    (record,) = world.records
    assert (record.status, record.bytes_sent) == (status, len(answer))


# -- a side that does not take --------------------------------------------------------------------------------------


@simulated
async def test_a_client_that_takes_nothing_pauses_the_application() -> None:
    sent = 0

    async def serve(stream: RawStream) -> None:
        nonlocal sent
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        while sent < len(BULK):
            await stream.send_all(BULK[sent : sent + 4096])
            sent += 4096

    async with serving(upgrades(serve)) as world:
        client = await upgraded(world, send_buffer=4096)
        await trio.testing.wait_all_tasks_blocked()
        paused_at = sent
        assert paused_at < 300_000
        await trio.sleep(1000)
        assert sent == paused_at
        assert world.front.spill.memory == world.front.spill.quota.used == 0
        client.send(b"the other direction")
        await world.until(lambda: relay_of(client).bytes_up == 19)
        assert await receive_exactly(client, len(BULK)) == BULK
        assert await client.at_end()


@simulated
async def test_an_application_that_takes_nothing_pauses_the_client() -> None:
    takes = trio.Event()

    async def serve(stream: RawStream) -> None:
        await stream.send_all(b"the other direction")
        await takes.wait()
        came = bytearray()
        while piece := await stream.recv():
            came += piece
        assert came == BULK

    async with serving(upgrades(serve)) as world:
        client = await upgraded(world)
        client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sent = 0

        async def speak() -> None:
            nonlocal sent
            while sent < len(BULK):
                await client.stream.send_all(BULK[sent : sent + 4096])
                sent += 4096
            client.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            await trio.testing.wait_all_tasks_blocked()
            paused_at = sent
            assert paused_at < 700_000
            await trio.sleep(1000)
            assert sent == paused_at
            assert await client.receive() == b"the other direction"
            takes.set()
        assert await client.at_end()


@simulated
async def test_a_client_that_hangs_up_while_the_application_takes_nothing_costs_no_time_and_no_byte() -> None:
    """Simulated time goes on only while nobody does anything: a hang-up that were told again and again would stop it."""
    takes = trio.Event()
    came = bytearray()

    async def serve(stream: RawStream) -> None:
        await takes.wait()
        while piece := await receive(stream):
            came.extend(piece)

    async with serving(upgrades(serve)) as world:
        client = await upgraded(world)
        client.connection.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sent = 0
        with trio.move_on_after(1):
            while True:
                await trio.lowlevel.wait_writable(client.stream.socket)
                sent += client.stream.send_nowait(b"x" * 4096)
        assert sent > 65536
        client.close()
        await trio.sleep(1000)
        assert world.sessions == 1
        takes.set()
        await client.ended.wait()
        await world.until(lambda: len(came) == sent)


@simulated
async def test_an_application_that_hangs_up_while_the_client_takes_nothing_costs_no_time_and_no_byte() -> None:
    async def serve(stream: RawStream) -> None:
        await stream.recv(1)
        await stream.send_all(BULK)

    async with serving(upgrades(serve)) as world:
        client = await upgraded(world, send_buffer=4096)
        client.send(b"abc")  # bytes that it leaves unread break its connection when it closes
        await trio.sleep(1000)
        client.send(b"more")
        await trio.sleep(1000)
        came = b""
        while len(came) < 300_000:
            came += await client.receive()
        await trio.sleep(1000)
        came += await client.receive_all()
        assert came == BULK
        await client.ended.wait()


@simulated
async def test_F13_a_bug_of_ours_costs_one_of_them() -> None:
    async with serving(spawner=DummySpawner(serve=upgrades(echo), concurrency=0)) as world:
        one, other = [await upgraded(world) for _ in range(2)]
        one.connection.front.poller._registrations[one.connection.stream.fd].on_ready.__self__._piece = None  # type: ignore[attr-defined]
        one.send(b"a")
        assert await one.at_end()
        one.close()
        other.send(b"b")
        assert await other.receive() == b"B"
        await world.until(lambda: world.sessions == 1)


@simulated
async def test_many_at_a_time_and_each_gets_its_own() -> None:
    async with serving(spawner=DummySpawner(serve=upgrades(echo), concurrency=0)) as world:
        clients = [await upgraded(world) for _ in range(300)]
        for round in range(3):
            for number, client in enumerate(clients):
                client.send(b"%d-%d" % (number, round))
            for number, client in enumerate(clients):
                assert await client.receive() == b"%d-%d" % (number, round)
        for number, client in enumerate(clients):
            if number % 3 == 0:
                client.reset()
            elif number % 3 == 1:
                client.send_eof()
        await world.until(lambda: world.sessions == 100)
        for client in clients[2::3]:
            client.send(b"still")
            assert await client.receive() == b"STILL"


@simulated
async def test_a_turn_of_relays_is_not_all_there_is() -> None:
    """Relays that never stop do not keep others from their turn."""

    async def floods(stream: RawStream) -> None:
        try:
            while True:
                await stream.send_all(b"x" * 10_000)
        except trio.BrokenResourceError:
            pass

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            if request.path == "/cable":
                await stream.send_all(SWITCH + UPGRADE)
                await floods(stream)
                return
            await stream.send_all(whole())

    async with serving(spawner=DummySpawner(serve=serve, concurrency=0)) as world:
        client = world.connect()
        client.send(ASK)
        assert (await client.receive()).startswith(SWITCHED)

        async with trio.open_nursery() as nursery:

            async def take() -> None:
                while await client.receive():
                    pass

            nursery.start_soon(take)
            for _ in range(20):
                assert (await world.connect().ask()).status == 200
            nursery.cancel_scope.cancel()


# -- limits ---------------------------------------------------------------------------------------------------------


def relay_of(client: Client):  # type: ignore[no-untyped-def]
    exchange = client.connection.exchange
    assert exchange is not None
    assert exchange.relay is not None
    return exchange.relay


@simulated
async def test_an_idle_relay_is_closed_and_a_byte_in_either_direction_counts() -> None:
    async def serve(stream: RawStream) -> None:
        await trio.sleep(50)
        await stream.send_all(b"ping")
        await nothing(stream)

    async with serving(upgrades(serve), options=ServerOptions(upgrade_idle_timeout=60)) as world:
        client = await upgraded(world)
        began = trio.current_time()
        assert await client.receive() == b"ping"
        await trio.sleep(50)
        client.send(b"pong")
        assert await client.at_end()
        assert 159.9 <= trio.current_time() - began <= 161
        assert world.sessions == 0
    assert world.records[-1].status == 101


@simulated
async def test_without_a_limit_it_may_be_idle_for_hours() -> None:
    async with serving(upgrades(echo), options=ServerOptions(upgrade_idle_timeout=0), deadline=1e6) as world:
        client = await upgraded(world)
        await trio.sleep(7_500)
        client.send(b"a")
        assert await client.receive() == b"A"


@simulated
async def test_it_is_no_request_that_lasts_too_long() -> None:
    async with serving(upgrades(echo), limits=GroupLimits(max_request_time=5)) as world:
        client = await upgraded(world)
        await trio.sleep(100)
        client.send(b"a")
        assert await client.receive() == b"A"
        assert world.process.exit_status is None


@simulated
async def test_on_a_drain_it_has_its_own_time_and_then_ends() -> None:
    async with serving(upgrades(echo), options=ServerOptions(websocket_drain=7)) as world:
        client = await upgraded(world)
        began = trio.current_time()
        world.front.drain()
        await trio.sleep(6)
        client.send(b"a")
        assert await client.receive() == b"A"
        assert await client.at_end()
        assert 7 <= trio.current_time() - began <= 7.5
    assert world.records[-1].status == 101


@simulated
async def test_one_that_begins_while_the_server_drains() -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        await anext(requests(stream))
        await trio.sleep(3)
        await stream.send_all(SWITCH + UPGRADE)
        await echo(stream)

    async with serving(serve) as world:
        client = world.connect()
        client.send(ASK)
        await trio.sleep(1)
        world.front.drain()
        began = trio.current_time()
        assert await client.receive_all() == SWITCHED + close_frame(1001)
        assert 7 <= trio.current_time() - began <= 7.5


class LastingSpawner(DummySpawner):
    """Its processes outlive their generation, as real ones do."""

    def __init__(self, streams: trio.Nursery, serve: Worker) -> None:
        super().__init__(serve=serve)
        self._streams = streams

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()


@pytest.mark.parametrize("hard", [False, True], ids=["rolling", "hard"])
@simulated
async def test_a_restart_waits_for_it_for_a_while_and_not_for_ever(hard: bool) -> None:
    async with trio.open_nursery() as streams, serving(spawner=LastingSpawner(streams, upgrades(echo))) as world:
        client = await upgraded(world)
        old = world.process
        (key,) = world.pool.group_tasks
        began = trio.current_time()
        generation = world.pool.restart(key, hard=hard)
        await world.pool.wait_restarted(key, generation)
        await world.until(lambda: len(world.spawner.processes) == 2)
        await trio.sleep(4)
        client.send(b"a")
        assert await client.receive() == b"A"
        assert not old.asked_to_stop
        assert await client.at_end()
        assert 5 <= trio.current_time() - began <= 5.6
        await world.until(lambda: old.asked_to_stop)
        assert world.sessions == 0


@simulated
async def test_one_that_begins_on_a_process_that_is_to_go() -> None:
    asked = trio.Event()

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        await anext(requests(stream))
        asked.set()
        await trio.sleep(3)
        await stream.send_all(SWITCH + UPGRADE)
        await echo(stream)

    async with serving(serve) as world:
        client = world.connect()
        client.send(ASK)
        await asked.wait()
        old = world.process
        assert world.pool.detach(next(iter(world.pool.processes)))
        began = trio.current_time()
        assert await client.receive_all() == SWITCHED + close_frame(1012)
        assert 7.9 <= trio.current_time() - began <= 8.5
        await world.until(lambda: old.asked_to_stop)


@simulated
async def test_the_end_of_the_servers_grace_cuts_it() -> None:
    async with serving(upgrades(echo)) as world:
        client = await upgraded(world)
        client.outer.cancel()
        assert await client.receive_all() == close_frame(1001)
        await client.ended.wait()
    assert world.records[-1].status == 101


# -- the last word to a WebSocket's client --------------------------------------------------------------------------

FRAMES = {
    "nothing": b"",
    "a frame": b"\x81\x05hello",
    "several": b"\x81\x01a\x82\x7e\x00\x80" + bytes(128) + b"\x89\x00",
    "a fragment": b"\x01\x03abc",
    "an empty frame": b"\x82\x00",
}
NO_FRAMES = {
    "a header's half": b"\x81",
    "a length's half": b"\x81\x7e\x01",
    "the middle of a frame": b"\x81\x05hell",
    "a frame and a half": b"\x81\x05hello\x82\x02a",
    "a Close": b"\x88\x02\x03\xe8",
    "a masked frame": b"\x81\x81\0\0\0\0a",
}
HEADS = {"partial": SWITCH + UPGRADE, "full": UPGRADE}


def sends(frames: bytes, goes: trio.Event, *, full: bool, bytewise: bool) -> Raw:
    async def serve(stream: RawStream) -> None:
        wire = (SWITCHED if full else b"") + frames
        for piece in [wire[at : at + 1] for at in range(len(wire))] if bytewise else [wire] if wire else []:
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        await goes.wait()

    return serve


@pytest.mark.parametrize("bytewise", [False, True], ids=["at once", "bytewise"])
@pytest.mark.parametrize("begin", HEADS)
@pytest.mark.parametrize("frames", [*FRAMES, *NO_FRAMES])
@simulated
async def test_a_process_that_dies_is_a_1012_where_a_frame_has_ended(frames: str, begin: str, bytewise: bool) -> None:
    sent = (FRAMES | NO_FRAMES)[frames]
    dies = trio.Event()
    async with serving(upgrades(sends(sent, dies, full=begin == "full", bytewise=bytewise), HEADS[begin])) as world:
        client = world.connect()
        client.send(ASK)
        assert await receive_exactly(client, len(SWITCHED + sent)) == SWITCHED + sent
        dies.set()
        world.process.exit(1)
        assert await client.receive_all() == (close_frame(1012) if frames in FRAMES else b"")
        client.send_eof()
        await client.ended.wait()
        assert world.sessions == 0
    assert world.records[-1].status == 101


@pytest.mark.parametrize("begin", HEADS)
@pytest.mark.parametrize(
    ("frames", "code"), [("a frame", 1001), ("a fragment", 1001), ("a Close", 0), ("a header's half", 0)]
)
@pytest.mark.parametrize("drains", [False, True])
@simulated
async def test_one_that_is_idle_or_the_end_of_the_server_is_a_1001(
    drains: bool, frames: str, code: int, begin: str
) -> None:
    sent = (FRAMES | NO_FRAMES)[frames]
    serve = upgrades(sends(sent, trio.Event(), full=begin == "full", bytewise=False), HEADS[begin])
    async with serving(serve, options=ServerOptions(upgrade_idle_timeout=60)) as world:
        client = world.connect()
        client.send(ASK)
        assert await receive_exactly(client, len(SWITCHED + sent)) == SWITCHED + sent
        began = trio.current_time()
        if drains:
            world.front.drain()
        assert await client.receive_all() == (close_frame(code) if code else b"")
        assert (5 if drains else 59.9) <= trio.current_time() - began <= (6 if drains else 61)
        client.send_eof()


@simulated
async def test_a_client_that_is_behind_is_told_nothing_in_the_middle_of_a_frame() -> None:
    frame = b"\x82\x7f" + len(BULK).to_bytes(8, "big") + BULK

    async def serve(stream: RawStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(frame)

    async with serving(upgrades(serve), options=ServerOptions(websocket_drain=1)) as world:
        client = await upgraded(world, send_buffer=4096)
        await trio.testing.wait_all_tasks_blocked()
        world.front.drain()
        await trio.sleep(3)
        came = await client.receive_all()
        assert len(came) < len(frame)
        assert frame.startswith(came)


@simulated
async def test_an_application_that_ends_without_a_close_and_lives_says_no_more() -> None:
    async def serve(stream: RawStream) -> None:
        await stream.send_all(FRAMES["a frame"])
        stream.send_eof()
        await nothing(stream)

    async with serving(upgrades(serve)) as world:
        client = await upgraded(world)
        assert await client.receive_all() == FRAMES["a frame"]
        client.send_eof()
        await client.ended.wait()
        assert world.process.exit_status is None


@simulated
async def test_it_counts_as_busy() -> None:
    async with serving(upgrades(echo), pool_limits=PoolLimits(max_pool_size=2)) as world:
        await upgraded(world)
        await upgraded(world)
        assert len(world.spawner.processes) == 2
        assert world.sessions == 2


@simulated
async def test_at_any_moment_a_process_may_die_and_a_client_may_go() -> None:
    for moment in range(40):
        for dies in (False, True):

            async def serve(process: DummyProcess, stream: RawStream) -> None:
                await anext(requests(stream))
                try:
                    for piece in (SWITCH[:9], SWITCH[9:], UPGRADE[:2], UPGRADE[2:] + b"a", b"b", b"c"):
                        await trio.lowlevel.checkpoint()
                        await stream.send_all(piece)
                    await echo(stream)
                except trio.BrokenResourceError:
                    pass

            async with serving(serve) as world:
                client = world.connect()
                client.send(ASK)
                for _ in range(moment):
                    await trio.lowlevel.checkpoint()
                if dies:
                    world.process.exit(1)
                    client.send_eof()  # another process may have got the request
                    await client.receive_all()
                    client.close()
                else:
                    client.reset()
                await client.ended.wait()


def test_every_piece_is_cut_somewhere() -> None:
    assert all(b"".join(pieces) == b"abc" for pieces in cuts(b"abc"))
    assert all(one != other for one, other in pairwise(cuts(b"abc")))


@simulated
async def test_an_ordinary_response_is_as_ever() -> None:
    async with serving(respond()) as world:
        client = world.connect()
        client.send(ASK + get())
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 200


# -- and the concurrency of its process -----------------------------------------------------------------------------


def one_thread(serve: Worker) -> Worker:
    """A process that serves one stream at a time, whatever it was said to take: the others wait for its end, or for its upgrade."""
    places: dict[DummyProcess, trio.Lock] = {}

    async def wait_and_serve(process: DummyProcess, stream: RawStream) -> None:
        place = places.setdefault(process, trio.Lock())
        async with place:
            await serve(process, stream)

    return wait_and_serve


@simulated
async def test_on_an_unlimited_path_it_takes_no_place() -> None:
    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            if request.path == "/cable":
                await stream.send_all(SWITCH + UPGRADE)
                await echo(stream)
                return
            await stream.send_all(whole())

    app = AppOptions(unlimited_concurrency_paths=("/cable",))
    async with serving(serve, app=app, pool_limits=PoolLimits(max_pool_size=2)) as world:
        clients = [await upgraded(world) for _ in range(5)]
        assert len(world.spawner.processes) == 1
        assert world.sessions == 5
        client = world.connect()
        for _ in range(2):
            assert (await client.ask()).body == b"ok"
        for client in clients:
            client.send(b"a")
            assert await client.receive() == b"A"
        assert len(world.spawner.processes) == 1
        old = world.process
        world.pool.detach(next(iter(world.pool.processes)))
        await trio.sleep(4)
        assert not old.asked_to_stop
        for client in clients:
            assert await client.at_end()
        await world.until(lambda: old.asked_to_stop)


@pytest.mark.parametrize("forced", [False, True], ids=["unlimited path", "forced"])
@simulated
async def test_no_request_waits_behind_an_idle_stream(forced: bool) -> None:
    """A worker with one thread that waits on an idle stream accepts no other."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            await trio.sleep(1)
            await stream.send_all(whole(request.path.encode()))

    app = AppOptions() if forced else AppOptions(unlimited_concurrency_paths=("/",))
    limits = GroupLimits(force_concurrency=0 if forced else -1)
    async with serving(one_thread(serve), app=app, limits=limits, deadline=100) as world:
        clients = [world.connect() for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(get(f"/{number}"))
        for number, client in enumerate(clients):
            assert (await client.answer()).body == b"/%d" % number
        assert trio.current_time() < 4
        assert (await clients[0].ask()).status == 200
