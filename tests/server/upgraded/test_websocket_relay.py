"""WebSockets between a client and a worker: the handshake, messages both ways, and every way in which it can end. The worker is the test's own."""

from __future__ import annotations

import struct

import attrs
import pytest
import trio
import trio.testing
from dummy_front import frame, get, head, serving, simulated, whole
from websocket_world import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frame,
    Talk,
    accepted,
    close,
    connected,
    echo,
    handshake,
    masked,
    open_websocket,
    taking,
    websockets,
)

from passenger_trio.options import ServerOptions


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(b"C", struct.pack("!H", code) + reason)


# -- the handshake --------------------------------------------------------------------------------------------------


@simulated
async def test_a_worker_that_accepts_makes_a_101_and_the_request_says_ws() -> None:
    seen: list[dict[str, str]] = []

    async def talk(session: Talk) -> None:
        seen.append(session.pairs)
        await echo(session)

    async with websockets(talk) as world:
        client = await open_websocket(world, handshake("/chat?room=1", "Origin: http://x", "Cookie: a=b"))
        client.send(close())
        assert await client.closed() == 1000
    assert seen[0]["PATH_INFO"] == "/chat"
    assert seen[0]["QUERY_STRING"] == "room=1"
    assert seen[0]["HTTP_ORIGIN"] == "http://x"
    assert "date" in client.head.lower()
    assert "extensions" not in client.head.lower()


@simulated
async def test_the_scheme_is_ws_or_wss() -> None:
    schemes: list[str] = []

    async def talk(session: Talk) -> None:
        schemes.append(session.pairs["REQUEST_SCHEME"])
        await echo(session)

    async with websockets(talk) as world:
        for scheme in (b"http", b"https"):
            client = world.connect()
            pairs = b"REQUEST_SCHEME\0" + scheme + b"\0SERVER_NAME\0localhost\0"
            client.connection.peer = attrs.evolve(client.connection.peer, cgi_pairs=pairs)
            client.send(handshake())
            await connected(client)
    assert schemes == ["ws", "wss"]


@simulated
async def test_a_subprotocol_and_further_fields_are_the_applications() -> None:
    async def talk(session: Talk) -> None:
        assert session.pairs["HTTP_SEC_WEBSOCKET_PROTOCOL"] == "a, b"
        await session.send(accepted(b"sec-websocket-protocol: b", b"set-cookie: x=y", b"Sec-WebSocket-Accept: mine"))
        await session.receive()
        await session.finish()

    async with websockets(talk) as world:
        client = await open_websocket(world, handshake("/", "Sec-WebSocket-Protocol: a, b"))
        lines = client.head.lower().split("\r\n")
        assert "sec-websocket-protocol: b" in lines
        assert "set-cookie: x=y" in lines
        assert "sec-websocket-accept: mine" not in lines


@pytest.mark.parametrize(
    "fields",
    [
        [b"sec-websocket-protocol: c"],
        [b"sec-websocket-protocol: a", b"sec-websocket-protocol: b"],
        [b"bad name: x"],
        [b"name: a\rb"],
    ],
)
@simulated
async def test_what_cannot_be_sent_in_a_101_is_the_applications_error(fields: list[bytes]) -> None:
    async def talk(session: Talk) -> None:
        await session.send(accepted(*fields))
        assert await session.receive() is None  # it is told that nobody is there

    async with websockets(talk) as world:
        client = world.connect()
        client.send(handshake("/", "Sec-WebSocket-Protocol: a, b"))
        assert (await client.answer()).status == 500
        await world.until(lambda: not world.sessions)
        assert world.processed == 1
    assert not world.process.signals


@simulated
async def test_a_malformed_accept_is_the_processs_fault() -> None:
    async def talk(session: Talk) -> None:
        await session.send(frame(b"W", b"name\0"))
        assert await session.receive() is None

    async with websockets(talk) as world:
        client = world.connect()
        client.send(handshake())
        assert (await client.answer()).status == 502
        await world.until(lambda: world.spawner.processes[0].asked_to_stop)


@simulated
async def test_a_rejection_is_an_ordinary_response_and_the_connection_lives_on() -> None:
    async def talk(session: Talk) -> None:
        await session.send(whole(b"go away", 403))

    async with websockets(talk) as world:
        client = world.connect()
        for _ in range(2):
            client.send(handshake())
            answer = await client.answer()
            assert (answer.status, answer.body) == (403, b"go away")
        client.send(get())
        assert (await client.answer()).status == 403
    assert [record.status for record in world.records] == [403, 403, 403]


@simulated
async def test_an_application_that_raises_is_an_error_response() -> None:
    async def talk(session: Talk) -> None:
        await session.send(frame(b"X", b"ValueError\0no\0trace\0") + frame(b"E"))

    async with websockets(talk) as world:
        client = world.connect()
        client.send(handshake())
        assert (await client.answer()).status == 500


@pytest.mark.parametrize(
    "key", ["", "AAAA", "not base64 not base64 ==", "AAAAAAAAAAAAAAAAAAAAAA==A", "AAAAAAAAAAAAAAAAAAAAAAA=", "A" * 24]
)
@simulated
async def test_a_key_that_is_none_is_refused(key: str) -> None:
    async with websockets() as world:
        client = world.connect()
        client.send(handshake(key=key))
        assert (await client.answer()).status == 400
        assert await client.at_end()
        assert not world.sessions
    assert world.front.rejected["websocket_key"] == 1


@simulated
async def test_without_a_key_it_is_refused_and_with_another_version_426() -> None:
    async with websockets() as world:
        client = world.connect()
        client.send(handshake().replace(b"Sec-WebSocket-Key", b"X-Key"))
        assert (await client.answer()).status == 400
        client = world.connect()
        client.send(handshake(version="8"))
        answer = await client.answer()
        assert (answer.status, answer.headers["sec-websocket-version"]) == (426, "13")


@pytest.mark.parametrize("method", ["GET", "POST"])
@simulated
async def test_what_asks_for_no_websocket_is_a_request_like_any_other(method: str) -> None:
    async def talk(session: Talk) -> None:
        assert session.pairs["REQUEST_METHOD"] == method
        await session.send(whole(b"http"))

    async with websockets(talk) as world:
        client = world.connect()
        asked = handshake() if method == "POST" else get("/", "Upgrade: websocket")
        client.send(asked.replace(b"GET", method.encode(), 1))
        assert (await client.answer(method)).body == b"http"


@simulated
async def test_a_process_that_takes_no_websockets_gets_plain_http() -> None:
    async def talk(session: Talk) -> None:
        assert session.pairs.get("REQUEST_SCHEME") != "ws"
        await session.send(whole(b"http"))

    async with serving(taking(talk)) as world:
        client = world.connect()
        client.send(handshake(key="none"))
        assert (await client.answer()).body == b"http"


@simulated
async def test_an_accept_that_nobody_asked_for_breaks_the_protocol() -> None:
    async def talk(session: Talk) -> None:
        await session.send(accepted())
        assert await session.receive() is None

    async with websockets(talk) as world:
        assert (await world.connect().ask()).status == 502


# -- messages -------------------------------------------------------------------------------------------------------


@simulated
async def test_messages_go_both_ways_and_the_stream_serves_the_next_one() -> None:
    streams = 0

    async def talk(session: Talk) -> None:
        nonlocal streams
        streams += not session.held and session.pairs["PATH_INFO"] == "/0"
        await echo(session)

    async with websockets(talk) as world:
        for number in range(3):
            client = await open_websocket(world, handshake(f"/{number}"))
            for opcode, payload in ((TEXT, "héllo".encode()), (BINARY, b"\0\xff"), (TEXT, b""), (BINARY, b"")):
                client.send(masked(opcode, payload))
                assert await client.frame() == Frame(opcode, payload)
            client.send(close(1001, b"bye"))
            assert await client.frame() == Frame(CLOSE, struct.pack("!H", 1001))
            assert await client.frame() is None
            await world.until(lambda: not world.sessions)
        assert len(world.pool.processes[1].idle_streams) == 1
    assert [(record.status, record.pid) for record in world.records] == [(101, 1001)] * 3
    assert world.records[0].bytes_sent > 10


@simulated
async def test_what_comes_with_the_handshake_is_not_lost_on_either_side() -> None:
    async def talk(session: Talk) -> None:
        await session.send(accepted() + frame(b"T", b"hello") + frame(b"B", b"\1"))
        assert await session.receive() == (b"T", b"early")
        assert await session.receive() == (b"C", struct.pack("!H", 1000))
        await session.finish()

    async with websockets(talk) as world:
        client = await open_websocket(world, handshake() + masked(TEXT, b"early") + close())
        assert await client.message() == (TEXT, b"hello")
        assert await client.message() == (BINARY, b"\1")
        assert await client.closed() == 1000


@simulated
async def test_byte_by_byte_it_is_the_same() -> None:
    async with websockets() as world:
        client = world.connect()
        wire = handshake() + masked(TEXT, b"one") + masked(PING, b"p") + masked(BINARY, b"two" * 50) + close(3000, b"x")
        await client.send_slowly([wire[at : at + 1] for at in range(len(wire))])
        socket = await connected(client)
        assert await socket.frame() == Frame(TEXT, b"one")
        assert await socket.frame() == Frame(PONG, b"p")
        assert await socket.frame() == Frame(BINARY, b"two" * 50)
        assert await socket.closed() == 3000


@simulated
async def test_a_workers_frames_byte_by_byte_are_the_same() -> None:
    async def talk(session: Talk) -> None:
        wire = accepted(b"x-a: b") + frame(b"T", b"one") + frame(b"B") + closing(4000, b"why")
        for at in range(len(wire)):
            await session.send(wire[at : at + 1])
            await trio.testing.wait_all_tasks_blocked()
        assert await session.receive() == (b"C", struct.pack("!H", 4000) + b"why")
        await session.finish()

    async with websockets(talk) as world:
        client = await open_websocket(world)
        assert await client.message() == (TEXT, b"one")
        assert await client.message() == (BINARY, b"")
        assert await client.frame() == Frame(CLOSE, struct.pack("!H", 4000) + b"why")
        client.send(close(4000))
        assert await client.frame() is None


@simulated
async def test_a_fragmented_message_is_one_and_a_ping_within_it_is_answered() -> None:
    async with websockets() as world:
        client = await open_websocket(world)
        text = "grüße ".encode() * 3
        client.send(masked(TEXT, text[:3], final=False), masked(PING, b"?"), masked(0, text[3:9], final=False))
        assert await client.frame() == Frame(PONG, b"?")
        client.send(masked(0, text[9:]))
        assert await client.frame() == Frame(TEXT, text)


@simulated
async def test_a_long_message_of_the_worker_goes_on_in_fragments_as_it_comes() -> None:
    async def talk(session: Talk) -> None:
        await session.send(accepted())
        await session.receive()
        wire = frame(b"B", bytes(100_000))
        await session.send(wire[:50_000])
        assert await session.receive() == (b"T", b"the rest")
        await session.send(wire[50_000:] + frame(b"T", b"next"))
        await session.receive()
        await session.finish()

    async with websockets(talk) as world:
        client = await open_websocket(world)
        client.send(masked(TEXT, b"go"))
        first = await client.frame()
        assert first is not None
        assert (first.opcode, first.final) == (BINARY, False)
        client.send(masked(TEXT, b"the rest"))
        size, more = len(first.payload), first
        while not more.final:
            found = await client.frame()
            assert found is not None
            assert found.opcode == 0
            more, size = found, size + len(found.payload)
        assert size == 100_000
        assert await client.frame() == Frame(TEXT, b"next")


# -- endings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(None, b""), (1000, b""), (3999, "gr\u00fc\u00df".encode())])
@simulated
async def test_the_clients_close_is_answered_and_told(code: int | None, reason: bytes) -> None:
    told: list[object] = []

    async def talk(session: Talk) -> None:
        await session.send(accepted())
        told.append(await session.receive())
        await session.send(frame(b"T", b"too late"))  # what the application still sends is dropped
        await session.finish()

    async with websockets(talk) as world:
        client = await open_websocket(world)
        client.send(close(code, reason))
        assert await client.closed() == code
        await world.until(lambda: not world.sessions)
    assert told == [(b"C", b"" if code is None else struct.pack("!H", code) + reason)]


@simulated
async def test_the_workers_close_is_answered_by_both() -> None:
    order: list[str] = []

    async def talk(session: Talk) -> None:
        await session.send(accepted() + closing(1000, b"done"))
        assert await session.receive() == (b"C", struct.pack("!H", 1000) + b"done")
        order.append("worker")
        await session.finish()

    async with websockets(talk) as world:
        client = await open_websocket(world)
        assert await client.frame() == Frame(CLOSE, struct.pack("!H", 1000) + b"done")
        client.send(masked(TEXT, b"dropped"), close())
        assert await client.frame() is None
        await world.until(lambda: not world.sessions)
    assert order == ["worker"]


@simulated
async def test_a_close_that_the_client_does_not_answer_is_given_up_on() -> None:
    async def talk(session: Talk) -> None:
        await session.send(accepted() + frame(b"C"))
        assert await session.receive() == (b"C", b"")
        await session.finish()

    async with websockets(talk) as world:
        client = await open_websocket(world)
        began = trio.current_time()
        assert await client.frame() == Frame(CLOSE, b"")
        assert await client.frame() is None
        assert 5.0 <= trio.current_time() - began < 5.5
        assert client.client.ended.is_set() or not world.sessions


@simulated
async def test_closes_that_cross_need_no_further_answer() -> None:
    async def talk(session: Talk) -> None:
        await session.send(accepted())
        assert await session.receive() == (b"C", struct.pack("!H", 1001))
        await session.send(closing(1000))
        await session.finish()

    async with websockets(talk) as world:
        client = await open_websocket(world)
        client.send(close(1001))
        assert await client.closed() == 1001
        await world.until(lambda: not world.sessions)
        assert len(world.pool.processes[1].idle_streams) == 1


@pytest.mark.parametrize("how", ["close", "eof", "reset"])
@simulated
async def test_a_client_that_goes_without_a_word_is_1006(how: str) -> None:
    told: list[object] = []

    async def talk(session: Talk) -> None:
        await session.send(accepted())
        told.append(await session.receive())
        await session.finish()

    async with websockets(talk) as world:
        client = await open_websocket(world)
        {"close": client.client.close, "eof": client.client.send_eof, "reset": client.client.reset}[how]()
        await world.until(lambda: not world.sessions)
        if how == "eof":
            assert await client.frame() is None
    assert told == [(b"C", struct.pack("!H", 1006))]


@pytest.mark.parametrize("payload", [struct.pack("!H", code) for code in (0, 999, 1004, 1005, 1006, 1015, 2000, 5000)])
@simulated
async def test_a_code_that_cannot_be_sent_becomes_1011(payload: bytes) -> None:
    async def talk(session: Talk) -> None:
        await session.send(accepted() + frame(b"C", payload))
        assert (await session.receive() or b"?")[0] == b"C"
        await session.finish()

    async with websockets(talk) as world:
        client = await open_websocket(world)
        found = await client.frame()
        assert found is not None
        assert found.code == 1011
        client.send(close(1011))
        assert await client.frame() is None


@simulated
async def test_a_process_that_dies_closes_its_websockets_with_1012() -> None:
    async with websockets() as world:
        clients = [await open_websocket(world) for _ in range(3)]
        world.process.exit(-9)
        for client in clients:
            found = await client.frame()
            assert found is not None
            assert (found.opcode, found.code) == (CLOSE, 1012)
            client.send(close(1012))
            assert await client.frame() is None


@simulated
async def test_a_process_that_dies_within_a_message_closes_with_1012_too() -> None:
    async def talk(session: Talk) -> None:
        await session.send(accepted() + frame(b"B", bytes(100_000))[:70_000])
        await trio.sleep_forever()

    async with websockets(talk) as world:
        client = await open_websocket(world)
        found = await client.frame()
        assert found is not None
        assert found.opcode == BINARY
        world.process.exit(-9)
        assert await client.message() == (CLOSE, struct.pack("!H", 1012) + b"service restart")
        client.send(close(1012))
        assert await client.frame() is None


BROKEN = {
    "an unknown frame": frame(b"Q"),
    "a response head": head(),
    "a second accept": accepted(),
    "an end without a close": frame(b"E"),
    "a text that is not UTF-8": frame(b"T", b"\xff"),
    "a close of one byte": frame(b"C", b"\x03"),
    "a close reason that is not UTF-8": closing(1000, b"\xff"),
    "a close that is too long": closing(1000, bytes(124)),
    "a message behind its close": closing(1000) + frame(b"T"),
    "a message that is too long": b"T" + struct.pack("!I", 16 * 1024**2 + 1),
    "a long text that is not UTF-8": frame(b"T", b"a" * 70_000 + b"\xc3"),
}


@pytest.mark.parametrize("what", BROKEN)
@simulated
async def test_a_worker_that_breaks_the_protocol_is_retired_and_the_client_told(what: str) -> None:
    async def talk(session: Talk) -> None:
        await session.send(accepted() + BROKEN[what])
        while await session.receive() is not None:
            pass

    async with websockets(talk) as world:
        client = await open_websocket(world)
        code = (await client.message() or (0, b""))[1][:2]
        while code not in (b"\x03\xf3", b"\x03\xe8"):  # 1011, or 1000 of a close that was good
            code = (await client.message() or (0, b"\x03\xf3"))[1][:2]
        client.send(close(1011))
        assert await client.frame() is None
        await world.until(lambda: world.spawner.processes[0].asked_to_stop)


@simulated
async def test_an_end_with_the_close_flag_closes_the_stream() -> None:
    async def talk(session: Talk) -> None:
        await session.send(accepted())
        await session.receive()
        await session.finish(flags=1)

    async with websockets(talk) as world:
        client = await open_websocket(world)
        client.send(close())
        assert await client.closed() == 1000
        await world.until(lambda: not world.sessions)
        assert not world.pool.processes[1].idle_streams


@simulated
async def test_the_session_stays_checked_out_until_the_application_has_ended() -> None:
    ends = trio.Event()

    async def talk(session: Talk) -> None:
        await session.send(accepted())
        await session.receive()
        await ends.wait()
        await session.finish()

    async with websockets(talk) as world:
        client = await open_websocket(world)
        assert world.sessions == 1
        client.send(close())
        assert await client.closed() == 1000
        await trio.testing.wait_all_tasks_blocked()
        assert world.sessions == 1
        assert len(world.records) == 1  # the client's part is over, and logged
        ends.set()
        await world.until(lambda: not world.sessions)
    assert len(world.records) == 1


@simulated
async def test_a_server_that_is_cut_off_still_says_so() -> None:
    async with websockets() as world:
        client = await open_websocket(world)
        client.client.outer.cancel()
        found = await client.frame()
        assert found is not None
        assert found.code == 1011
        assert await client.frame() is None
    assert [record.status for record in world.records] == [101]


@simulated
async def test_a_handshake_is_given_to_another_process_if_the_first_is_gone() -> None:
    calls = 0

    async def talk(session: Talk) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            session.ended = True
            return
        await echo(session)

    async with websockets(talk, options=ServerOptions()) as world:
        client = await open_websocket(world)
        client.send(masked(TEXT, b"x"))
        assert await client.frame() == Frame(TEXT, b"x")
    assert calls == 2
