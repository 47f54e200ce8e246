"""A line that listens for nothing: the end of both directions is told from the end of one."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import pytest
import trio

from passenger_trio.system.poller import HUNG_UP, Poller
from passenger_trio.system.raw_stream import RawStream


def unix_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


async def hangs_up(stream: RawStream) -> bool:
    """Within a moment, which is long for a kernel."""
    poller = Poller(trio.current_time)
    told = trio.Event()

    def heard(events: int) -> None:
        assert events & HUNG_UP
        stream.unregister()
        told.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        stream.registration = poller.register(stream.fd, 0, heard)
        with trio.move_on_after(0.2):
            await told.wait()
        stream.unregister()
        nursery.cancel_scope.cancel()
    return told.is_set()


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
async def test_a_half_close_is_no_hangup_and_both_are(pair: Callable[[], tuple[socket.socket, socket.socket]]) -> None:
    ours, theirs = pair()
    ours.setblocking(False)
    stream = RawStream(ours)
    with theirs:
        theirs.shutdown(socket.SHUT_WR)
        assert await stream.recv() == b""
        assert not await hangs_up(stream)
        stream.send_eof()
        assert await hangs_up(stream)
    stream.close()


async def test_a_unix_socket_tells_of_a_close_at_once_and_also_later() -> None:
    ours, theirs = unix_pair()
    ours.setblocking(False)
    stream = RawStream(ours)
    theirs.shutdown(socket.SHUT_WR)
    assert not await hangs_up(stream)
    theirs.close()
    assert await hangs_up(stream)
    stream.close()


async def test_a_tcp_connection_tells_of_a_close_when_something_was_sent() -> None:
    ours, theirs = tcp_pair()
    ours.setblocking(False)
    stream = RawStream(ours)
    theirs.close()
    assert await stream.recv() == b""
    assert not await hangs_up(stream)
    assert stream.send_nowait(b"x") == 1
    assert await hangs_up(stream)
    stream.close()


async def test_a_reset_is_told_also_behind_what_nobody_reads() -> None:
    ours, theirs = tcp_pair()
    ours.setblocking(False)
    stream = RawStream(ours)
    theirs.send(b"x")
    assert not await hangs_up(stream)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    assert await hangs_up(stream)
    stream.close()
