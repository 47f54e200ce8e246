"""How many idle streams a process keeps: at most so many, and those that were used last."""

from __future__ import annotations

import socket

import pytest
import trio

from passenger_trio.core.model import GroupKey, ProcessId
from passenger_trio.pool.session import _MOST_IDLE, Process
from passenger_trio.spawning.dummy import DummyProcess
from passenger_trio.system.raw_stream import RawStream


def streams(count: int) -> tuple[list[RawStream], list[socket.socket]]:
    pairs = [socket.socketpair() for _ in range(count)]
    for ours, _ in pairs:
        ours.setblocking(False)
    return [RawStream(ours) for ours, _ in pairs], [theirs for _, theirs in pairs]


@pytest.mark.parametrize(("concurrency", "kept"), [(100, _MOST_IDLE), (3, 3), (1, 1)])
async def test_idle_streams_are_bounded_and_the_oldest_goes(concurrency: int, kept: int) -> None:
    count = _MOST_IDLE + 5 if concurrency == 100 else concurrency
    async with trio.open_nursery() as nursery:
        live = DummyProcess(1, concurrency, nursery, None)
        process = Process(ProcessId(1), GroupKey("a", "b"), live, 0.0)
        ours, theirs = streams(count)
        process.streams = count
        for stream in ours:
            process.keep(stream)
        assert process.idle_streams == ours[-kept:]
        assert process.streams == kept
        assert [stream.fd < 0 for stream in ours] == [True] * (count - kept) + [False] * kept
        process.leave()
        assert (process.streams, process.idle_streams) == (0, [])
        for end in theirs:
            assert end.recv(1) == b""
            end.close()
