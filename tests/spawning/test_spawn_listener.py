"""The spawn_listener believes who is expected and whom the kernel vouches for, hangs up on all others, and survives every caller."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from passenger_trio.codecs.control_protocol import AppEvent, Forked, StepReport, encode_shutdown
from passenger_trio.errors import SpawnServerError
from passenger_trio.spawning.spawn_listener import ControlConnection, PendingSpawn, SpawnListener
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.system.unix_peers import PeerCredentials, connect_unix_nowait

HELLO_TIME = 5.0
MAX_CALLERS = 64


def hello(token: str, role: str = "worker") -> dict[str, Any]:
    return {
        "type": "hello",
        "token": token,
        "contract": 1,
        "role": role,
        "language": "test",
        "version": "0",
        "pid": 4711,
    }


def lines(*messages: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def event(number: int) -> dict[str, Any]:
    return {"type": "event", "name": str(number)}


def anybody(peer: PeerCredentials) -> bool:
    return True


def nobody(peer: PeerCredentials) -> bool:
    return False


@asynccontextmanager
async def open_spawn_listener(directory: Path) -> AsyncIterator[SpawnListener]:
    spawn_listener = SpawnListener(str(directory / "spawn.sock"))
    async with trio.open_nursery() as nursery:
        await nursery.start(spawn_listener.serve)
        yield spawn_listener
        nursery.cancel_scope.cancel()


def call(spawn_listener: SpawnListener, data: bytes = b"") -> RawStream:
    stream = connect_unix_nowait(spawn_listener.path)
    if data:
        assert stream.send_nowait(data) == len(data)
    return stream


async def is_rejected(stream: RawStream) -> bool:
    """Whether the other side has closed, once everything that can happen has happened; closes this side."""
    await wait_all_tasks_blocked()
    try:
        return stream.recv_nowait() == b""
    except trio.WouldBlock:
        return False
    except trio.BrokenResourceError:
        return True
    finally:
        stream.close()


def close_both(connection: ControlConnection) -> None:
    connection.close()
    connection.pidfd.close()


async def meet(
    pending: PendingSpawn, spawn_listener: SpawnListener, role: str = "worker"
) -> tuple[RawStream, ControlConnection]:
    """A caller that is believed: both ends."""
    caller = call(spawn_listener, lines(hello(pending.token, role)))
    with trio.fail_after(1):
        return caller, await pending.wait()


# --- who is believed --------------------------------------------------------------------------------------------------


async def test_who_is_expected_is_believed(nothing_left: Path) -> None:
    seen: list[PeerCredentials] = []

    def accepts(peer: PeerCredentials) -> bool:
        seen.append(peer)
        return True

    async with open_spawn_listener(nothing_left) as spawn_listener:
        assert os.stat(spawn_listener.path).st_mode & 0o777 == 0o600
        with spawn_listener.expect("preloader", accepts) as pending:
            caller, connection = await meet(pending, spawn_listener, "preloader")
        assert set(seen) == {PeerCredentials(os.getpid(), os.getuid(), os.getgid())}
        assert connection.hello.pid == 4711, "what it says of itself is kept, for people"
        assert connection.pidfd.pid == os.getpid(), "and not believed"
        close_both(connection)
        assert await is_rejected(caller)


async def test_what_came_behind_the_hello_is_not_lost(nothing_left: Path) -> None:
    step = {"type": "step", "name": "listen", "state": "in_progress"}
    async with open_spawn_listener(nothing_left) as spawn_listener:
        with spawn_listener.expect("worker", anybody) as pending:
            caller = call(spawn_listener, lines(hello(pending.token), step) + b'{"type":"event",')
            connection = await pending.wait()
            assert await connection.receive() == StepReport("listen", "in_progress", None)
            caller.send_nowait(b'"name":"x"}\n')
            assert await connection.receive() == AppEvent("x", {})
            caller.close()
            assert await connection.receive() is None
            close_both(connection)


async def test_a_hello_in_pieces(nothing_left: Path) -> None:
    async with open_spawn_listener(nothing_left) as spawn_listener:
        with spawn_listener.expect("worker", anybody) as pending:
            caller = call(spawn_listener)
            for byte in lines(hello(pending.token)):
                caller.send_nowait(bytes([byte]))
                await wait_all_tasks_blocked()
            close_both(await pending.wait())
            caller.close()


@pytest.mark.parametrize("token", ["", "0" * 32, "\0", "é"])
async def test_a_token_that_nobody_expects(nothing_left: Path, token: str) -> None:
    async with open_spawn_listener(nothing_left) as spawn_listener:
        with spawn_listener.expect("worker", anybody) as pending:
            assert await is_rejected(call(spawn_listener, lines(hello(token))))
            caller, connection = await meet(pending, spawn_listener)
            caller.close()
            close_both(connection)


async def test_a_stranger_with_the_right_token_is_hung_up_on_and_does_not_use_it_up(nothing_left: Path) -> None:
    who: list[Callable[[PeerCredentials], bool]] = [nobody]
    async with open_spawn_listener(nothing_left) as spawn_listener:
        with spawn_listener.expect("worker", lambda peer: who[0](peer)) as pending:
            assert await is_rejected(call(spawn_listener, lines(hello(pending.token))))
            assert await is_rejected(call(spawn_listener, lines(hello(pending.token, "preloader"))))
            who[0] = anybody
            assert await is_rejected(call(spawn_listener, lines(hello(pending.token, "preloader")))), "of another role"
            caller, connection = await meet(pending, spawn_listener)
            caller.close()
            close_both(connection)


async def test_a_token_works_once(nothing_left: Path) -> None:
    async with open_spawn_listener(nothing_left) as spawn_listener:
        with spawn_listener.expect("worker", anybody) as pending:
            caller, connection = await meet(pending, spawn_listener)
            assert await is_rejected(call(spawn_listener, lines(hello(pending.token))))
            caller.send_nowait(lines(event(1)))
            assert await connection.receive() == AppEvent("1", {})
            caller.close()
            close_both(connection)


async def test_an_expectation_takes_its_token_with_it(nothing_left: Path) -> None:
    async with open_spawn_listener(nothing_left) as spawn_listener:
        with spawn_listener.expect("worker", anybody) as pending:
            pass
        assert await is_rejected(call(spawn_listener, lines(hello(pending.token))))


async def test_tokens_are_not_guessed(nothing_left: Path) -> None:
    async with open_spawn_listener(nothing_left) as spawn_listener:
        tokens = set()
        for _ in range(100):
            with spawn_listener.expect("worker", anybody) as pending:
                tokens.add(pending.token)
        assert len(tokens) == 100
        assert min(map(len, tokens)) >= 32


async def test_a_connection_that_comes_when_nobody_waits_any_more_is_closed(nothing_left: Path) -> None:
    async with open_spawn_listener(nothing_left) as spawn_listener:
        with spawn_listener.expect("worker", anybody) as pending:
            caller = call(spawn_listener, lines(hello(pending.token)))
            await wait_all_tasks_blocked()
        assert await is_rejected(caller)


async def test_a_wait_that_is_cancelled_as_the_connection_comes_leaves_nothing(nothing_left: Path) -> None:
    async with open_spawn_listener(nothing_left) as spawn_listener:
        with spawn_listener.expect("worker", anybody) as pending, trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pending.wait)
                caller = call(spawn_listener, lines(hello(pending.token)))
                scope.cancel()
        assert await is_rejected(caller)


# --- callers of every kind --------------------------------------------------------------------------------------------

CALLERS = {
    "garbage": b"\x16\x03\x01\x02\x00\n",
    "http": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "an empty line": b"\n",
    "another message": lines(event(1)),
    "a hello of another contract": lines({**hello("x"), "contract": 2}),
    "a line without an end": b"x" * 65536,
    "json that is no object": b"[]\n",
}


@pytest.mark.parametrize("data", CALLERS.values(), ids=CALLERS.keys())
async def test_any_other_message_is_rejected(nothing_left: Path, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with open_spawn_listener(nothing_left) as spawn_listener:
        assert await is_rejected(call(spawn_listener, data))
        assert "rejected a connection" in caplog.text


async def test_callers_that_go_away_are_nobody_to_worry_about(
    nothing_left: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "passenger_trio")
    async with open_spawn_listener(nothing_left) as spawn_listener:
        for data in (b"", b'{"type":'):
            call(spawn_listener, data).close()
            await wait_all_tasks_blocked()
        assert caplog.text == ""


async def test_a_caller_has_five_seconds(nothing_left: Path, autojump_clock: MockClock) -> None:
    async with open_spawn_listener(nothing_left) as spawn_listener:
        with spawn_listener.expect("worker", anybody) as pending:
            data = lines(hello(pending.token))
            slow, late = call(spawn_listener, data[:10]), call(spawn_listener)
            await trio.sleep(HELLO_TIME - 0.01)
            slow.send_nowait(data[10:])
            close_both(await pending.wait())
            slow.close()
            await trio.sleep(0.02)
            assert await is_rejected(late)


async def test_more_silent_callers_than_may_wait_keep_no_loader_out(
    nothing_left: Path, autojump_clock: MockClock
) -> None:
    """KE5, fault 12: the oldest stranger goes for a loader, which is expected by the kernel's word before it has said anything."""
    who: list[Callable[[PeerCredentials], bool]] = [nobody]
    async with open_spawn_listener(nothing_left) as spawn_listener:
        with spawn_listener.expect("worker", lambda peer: who[0](peer)) as pending:
            waiting = []
            for _ in range(MAX_CALLERS + 1):
                waiting.append(call(spawn_listener))
                await wait_all_tasks_blocked()
            assert await is_rejected(waiting.pop(0)), "one stranger more: the oldest went"
            who[0] = anybody
            caller = call(spawn_listener)
            assert await is_rejected(waiting.pop(0))
            who[0] = nobody
            for _ in range(2 * MAX_CALLERS):
                waiting.append(call(spawn_listener))
                await wait_all_tasks_blocked()
            for stream in waiting[:-MAX_CALLERS]:
                assert await is_rejected(stream)
            who[0] = anybody
            assert caller.send_nowait(lines(hello(pending.token)))
            with trio.fail_after(1):
                connection = await pending.wait()
            for stream in waiting[-MAX_CALLERS + 1 :]:
                with pytest.raises(trio.WouldBlock):
                    stream.recv_nowait()
            caller.close()
            close_both(connection)
            await trio.sleep(HELLO_TIME + 0.01)
            for stream in waiting[-MAX_CALLERS:]:
                assert await is_rejected(stream)


async def test_where_all_are_expected_a_stranger_is_hung_up_on(nothing_left: Path, autojump_clock: MockClock) -> None:
    who: list[Callable[[PeerCredentials], bool]] = [anybody]
    async with open_spawn_listener(nothing_left) as spawn_listener:
        with spawn_listener.expect("worker", lambda peer: who[0](peer)):
            waiting = [call(spawn_listener) for _ in range(MAX_CALLERS)]
            await wait_all_tasks_blocked()
            who[0] = nobody
            assert await is_rejected(call(spawn_listener))
            for stream in waiting:
                assert not await is_rejected(stream)


@pytest.mark.os
async def test_a_caller_that_has_ended_before_it_is_looked_at(
    nothing_left: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its pid may be anybody's by now: it is not believed, and nothing breaks."""
    code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.send(sys.argv[2].encode())"
    async with open_spawn_listener(nothing_left) as spawn_listener:
        with spawn_listener.expect("worker", anybody) as pending:
            # The event loop stands still meanwhile.
            subprocess.run(
                [sys.executable, "-c", code, spawn_listener.path, lines(hello(pending.token)).decode()],
                check=True,
                timeout=10,
            )
            await wait_all_tasks_blocked()
            assert "rejected a connection" in caplog.text
            caller, connection = await meet(pending, spawn_listener)
            caller.close()
            close_both(connection)


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Within the block just so many descriptors can be opened (R36, F31, F32)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filler: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        while True:
            try:
                filler.append(os.dup(0))
            except OSError as error:
                assert error.errno == errno.EMFILE  # noqa: PT017
                break
        for _ in range(count):
            os.close(filler.pop())
        yield
    finally:
        for fd in filler:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("left", [0, 1], ids=["none to accept with", "none to pin it with"])
async def test_when_descriptors_run_out_the_reception_goes_on(
    nothing_left: Path, left: int, autojump_clock: MockClock
) -> None:
    async with open_spawn_listener(nothing_left) as spawn_listener:
        with spawn_listener.expect("worker", anybody) as pending:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            stream = RawStream(sock)
            with descriptors_left(left):
                sock.connect(spawn_listener.path)
                stream.send_nowait(lines(hello("x")))
                await trio.sleep(0.05)
            await trio.sleep(0.2)
            assert await is_rejected(stream)
            caller, connection = await meet(pending, spawn_listener)
            caller.close()
            close_both(connection)


async def test_the_end_of_the_reception_hangs_up_on_all_and_removes_the_socket(nothing_left: Path) -> None:
    async with open_spawn_listener(nothing_left) as spawn_listener:
        caller = call(spawn_listener)
        await wait_all_tasks_blocked()
    assert await is_rejected(caller)


async def test_the_end_of_the_reception_when_its_socket_was_removed(nothing_left: Path) -> None:
    async with open_spawn_listener(nothing_left) as spawn_listener:
        os.unlink(spawn_listener.path)


async def test_a_second_reception_does_not_take_the_place_of_the_first(nothing_left: Path) -> None:
    async with open_spawn_listener(nothing_left) as spawn_listener:
        with pytest.raises(OSError, match="somebody listens"):
            await SpawnListener(spawn_listener.path).serve()
        with spawn_listener.expect("worker", anybody) as pending:
            caller, connection = await meet(pending, spawn_listener)
            caller.close()
            close_both(connection)


# --- the connection ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(directory: Path) -> AsyncIterator[tuple[RawStream, ControlConnection]]:
    async with open_spawn_listener(directory) as spawn_listener:
        with spawn_listener.expect("worker", anybody) as pending:
            caller, connection = await meet(pending, spawn_listener)
        yield caller, connection
        caller.close()
        close_both(connection)


async def test_a_loader_that_breaks_the_contract_and_one_that_goes(nothing_left: Path) -> None:
    async with connected(nothing_left) as (caller, connection):
        caller.send_nowait(b"garbage\n")
        with pytest.raises(SpawnServerError):
            await connection.receive()
        connection.send_nowait(b"unread\n")
        caller.close()
        assert await connection.receive() is None


async def test_sending_to_a_loader(nothing_left: Path) -> None:
    async with connected(nothing_left) as (caller, connection):
        reading, writing = os.pipe()
        assert connection.send_nowait(encode_shutdown())
        assert caller.recv_nowait() == encode_shutdown()
        assert connection.send_nowait(b"fork\n", (writing,))
        data, fds, _, _ = socket.recv_fds(caller.socket, 100, 4)
        assert (data, len(fds)) == (b"fork\n", 1)
        os.write(fds[0], b"x")
        assert os.read(reading, 1) == b"x"
        for fd in (reading, writing, *fds):
            os.close(fd)


async def test_a_loader_that_does_not_read_or_is_gone_gets_nothing(nothing_left: Path) -> None:
    async with connected(nothing_left) as (caller, connection):
        while connection.send_nowait(b"x" * 10_000):
            pass
        assert not connection.send_nowait(b"x" * 10_000)
        caller.close()
        assert not connection.send_nowait(b"x")
        connection.close()
        assert not connection.send_nowait(b"x")


async def test_the_last_words_are_what_is_there(nothing_left: Path) -> None:
    async with connected(nothing_left) as (caller, connection):
        assert list(connection.remaining_messages()) == []
        caller.send_nowait(lines(event(1), {"type": "forked", "token": "t", "pid": 5}) + b'{"type"')
        assert list(connection.remaining_messages()) == [AppEvent("1", {}), Forked("t", 5)]
        caller.close()
        assert list(connection.remaining_messages()) == []
        connection.close()
        assert list(connection.remaining_messages()) == []


async def test_the_last_words_do_not_go_on_for_ever(nothing_left: Path) -> None:
    """A loader that is alive can write faster than we read: the loop, which never waits, has an end of its own."""
    async with connected(nothing_left) as (caller, connection):
        caller.send_nowait(lines(*map(event, range(2000))))
        assert len(list(connection.remaining_messages())) == 256


async def test_a_flood_of_messages_slows_its_sender_down(nothing_left: Path, autojump_clock: MockClock) -> None:
    async with connected(nothing_left) as (caller, connection):
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.send_all, lines(*map(event, range(3200))))
            for number in range(3200):
                assert await connection.receive() == AppEvent(str(number), {})
        assert trio.current_time() - begun >= (3200 / 64 - 1) * 0.02 * 0.99


async def test_a_few_messages_are_not_delayed(nothing_left: Path, autojump_clock: MockClock) -> None:
    async with connected(nothing_left) as (caller, connection):
        begun = trio.current_time()
        caller.send_nowait(lines(*map(event, range(60))))
        for _ in range(60):
            await connection.receive()
        assert trio.current_time() == begun
