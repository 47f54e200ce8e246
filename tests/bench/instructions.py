"""Instructions of one warm request, counted by valgrind: a figure that a busy machine does not change. ``python tests/bench/instructions.py [WORK ...]``.

Client, supervisor's path and a worker that answers at once are one process on socket pairs, and time stands still, so nothing but requests happens.
The works of a front have a leased pool and its owner in it: what remains of the second is nothing, since the front keeps its slots.
The count is the difference of two runs, and of the user's side only: system calls are not in it. Client and worker are part of it, and stay the same.
``metrics`` is what counting a request for the metrics adds (OB2): the same requests, with the lines that count cut out of ``Client.log``.
"""

from __future__ import annotations

import inspect
import os
import re
import socket
import subprocess
import sys
import textwrap

import trio
import trio.testing
from trio.lowlevel import wait_readable

from passenger_trio.codecs.front_messages import OwnerReader, encode_from_front, encode_from_owner, read_from_front
from passenger_trio.codecs.worker_protocol import SESSION
from passenger_trio.core.fronts.messages import FromFront, FromOwner
from passenger_trio.core.model import GroupKey
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.fronts.leased_pool import LeasedPool
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.pool.interface import PoolInterface
from passenger_trio.pool.lease_desk import LeaseDesk
from passenger_trio.pool.pool import Pool
from passenger_trio.server.front import Front
from passenger_trio.server.http import client
from passenger_trio.server.http.connection import Connection
from passenger_trio.server.http.peer import Peer
from passenger_trio.server.logs.access_log import AccessLog
from passenger_trio.server.mounts import Route
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner
from passenger_trio.system.raw_stream import RawStream

FEW, FOLD_AT = 400, 1400

_PLAIN = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8765\r\n\r\n"
_BROWSER = (
    b"GET /shop/items?page=2 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/118.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n"
    b"Referer: http://www.example.com/shop\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nUpgrade-Insecure-Requests: 1\r\n"
    b"Cache-Control: max-age=0\r\nConnection: keep-alive\r\n\r\n"
)
WORKS = {
    "queued": (32, _PLAIN, False),
    "free": (2, _PLAIN, False),
    "browser": (32, _BROWSER, False),
    "front_queued": (32, _PLAIN, True),
    "front_free": (2, _PLAIN, True),
}
"""Connections, which share two processes that serve one request at a time, what they ask, and whether they meet a front with leased slots."""

_HEAD = b"200\0OK\0Content-Type\0text/plain\0Content-Length\x0013\0"
_BODY = b"Hello, world\n"
_RESPONSE = b"R%b%bD%b%bE\0\0\0\0" % (len(_HEAD).to_bytes(4, "big"), _HEAD, len(_BODY).to_bytes(4, "big"), _BODY)
_PAIRS = b"SERVER_NAME\0localhost\0SERVER_PORT\x008765\0REMOTE_ADDR\x00127.0.0.1\0REQUEST_SCHEME\0http\0"


_COUNTED = re.compile(r"^    # ``RequestTally.finished``.*?(?=^    if exchange.spans)", re.M | re.S)


def _count_nothing() -> None:
    """Cut the lines that count a request out of the request's path."""
    source, cuts = _COUNTED.subn("", textwrap.dedent(inspect.getsource(client.Client.log)))
    assert cuts == 1
    exec(source, vars(client))
    client.Client.log = vars(client)["log"]  # type: ignore[method-assign]


async def _work(process: DummyProcess, stream: RawStream) -> None:
    while await stream.recv():
        stream.send_nowait(_RESPONSE)


class _Channel:
    """Between a front and its owner: what is sent arrives in a later turn of the loop."""

    def __init__(self, desk: LeaseDesk, nursery: trio.Nursery) -> None:
        self._desk = desk
        self._to_owner, from_front = trio.open_memory_channel[bytes](100)
        self._to_front, from_owner = trio.open_memory_channel[tuple[bytes, int]](100)
        self.pool = LeasedPool(self, ErrorKernel())
        self.id = desk.front_came(self._deliver)
        nursery.start_soon(self.pool.run)
        nursery.start_soon(self._owner_hears, from_front)
        nursery.start_soon(self._front_hears, from_owner)

    def send(self, message: FromFront) -> None:
        self._to_owner.send_nowait(encode_from_front(message))

    def _deliver(self, message: FromOwner, descriptor: int) -> None:
        (packet,) = encode_from_owner(message)
        self._to_front.send_nowait((packet, os.dup(descriptor) if descriptor >= 0 else -1))

    async def _owner_hears(self, packets: trio.MemoryReceiveChannel[bytes]) -> None:
        async for packet in packets:
            self._desk.received(self.id, read_from_front(packet))

    async def _front_hears(self, packets: trio.MemoryReceiveChannel[tuple[bytes, int]]) -> None:
        reader = OwnerReader()
        async for packet, descriptor in packets:
            message = reader.read(packet)
            assert message is not None
            stream = None
            if descriptor >= 0:
                sock = socket.socket(fileno=descriptor)
                sock.setblocking(False)
                stream = RawStream(sock)
            self.pool.receive(message, stream)


async def _serve(connections: int, request: bytes, leased: bool, count: int) -> None:
    """Ends the program after ``count`` requests."""
    left = count
    pool, key = Pool(PoolLimits(max_pool_size=2)), GroupKey("hello", "test")
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        await pool.add_group(key, GroupLimits(min_instances=2), DummySpawner(serve=_work, worker_protocol=SESSION), 1.0)
        while len(pool.processes) < 2:
            await pool.changed.wait()
        pool_or_front: PoolInterface = pool
        if leased:
            desk = LeaseDesk(pool, ErrorKernel())
            nursery.start_soon(desk.run)
            await trio.testing.wait_all_tasks_blocked()
            channel = _Channel(desk, nursery)
            channel.pool.add_group(key, 0)
            pool_or_front = channel.pool
        front = Front(ServerOptions(), pool_or_front, [Route(key, AppOptions())], AccessLog(os.devnull))
        nursery.start_soon(front.deadline_scanner.run)
        await nursery.start(front.poller.run)

        async def ask(sock: socket.socket) -> None:
            nonlocal left
            while left:
                sock.send(request)
                await wait_readable(sock)
                sock.recv(65536)
                left -= 1
            os._exit(0)

        for _ in range(connections):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            nursery.start_soon(Connection(front, RawStream(ours), Peer("127.0.0.1", True, _PAIRS)).run)
            nursery.start_soon(ask, theirs)


def count(work: str, *more: str) -> int:
    """Instructions for each request."""
    totals = []
    for requests in (FEW, FOLD_AT):
        command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={os.devnull}"]
        told = subprocess.run(
            [*command, sys.executable, __file__, work, str(requests), *more],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        ).stderr
        match = re.search(r"I +refs: +([0-9,]+)", told)
        assert match is not None, told
        totals.append(int(match[1].replace(",", "")))
    return (totals[1] - totals[0]) // (FOLD_AT - FEW)


def main() -> None:
    words = sys.argv[1:]
    if len(words) > 1 and words[1].isdigit():
        if words[2:] == ["uncounted"]:
            _count_nothing()
        trio.run(_serve, *WORKS[words[0]], int(words[1]), clock=trio.testing.MockClock(rate=0))
    for work in words or (*WORKS, "metrics"):
        if work == "metrics":
            whole, without = count("queued"), count("queued", "uncounted")
            print(f"{work:<10}{whole - without:>10} of {whole}: {100 * (whole - without) / without:.2f} %")
        else:
            print(f"{work:<10}{count(work):>10} instructions for each request")


if __name__ == "__main__":
    main()
