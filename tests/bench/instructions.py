"""Instructions of one warm request, counted by valgrind: a figure that a busy machine does not change. ``python tests/bench/instructions.py [WORK ...]``.

Client, supervisor's path and a worker that answers at once are one process on socket pairs, and time stands still, so nothing but requests happens.
The count is the difference of two runs, and of the user's side only: system calls are not in it. Client and worker are part of it, and stay the same.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import trio
import trio.testing
from trio.lowlevel import wait_readable

from passenger_trio.codecs.worker_protocol import SESSION
from passenger_trio.core.limits import GroupLimits, PoolLimits
from passenger_trio.core.model import GroupKey
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.pool.pool import Pool
from passenger_trio.server.front import Front
from passenger_trio.server.http.connection import Connection
from passenger_trio.server.http.peer import Peer
from passenger_trio.server.logs.access_log import AccessLog
from passenger_trio.server.mounts import Route
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner
from passenger_trio.system.sockets import RawStream

FEW, MANY = 400, 1400

_PLAIN = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8765\r\n\r\n"
_BROWSER = (
    b"GET /shop/items?page=2 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/118.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n"
    b"Referer: http://www.example.com/shop\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nUpgrade-Insecure-Requests: 1\r\n"
    b"Cache-Control: max-age=0\r\nConnection: keep-alive\r\n\r\n"
)
WORKS = {"queued": (32, _PLAIN), "free": (2, _PLAIN), "browser": (32, _BROWSER)}
"""Connections, which share two processes that serve one request at a time, and what they ask."""

_HEAD = b"200\0OK\0Content-Type\0text/plain\0Content-Length\x0013\0"
_BODY = b"Hello, world\n"
_RESPONSE = b"R%b%bD%b%bE\0\0\0\0" % (len(_HEAD).to_bytes(4, "big"), _HEAD, len(_BODY).to_bytes(4, "big"), _BODY)
_PAIRS = b"SERVER_NAME\0localhost\0SERVER_PORT\x008765\0REMOTE_ADDR\x00127.0.0.1\0REQUEST_SCHEME\0http\0"


async def _work(process: DummyProcess, stream: RawStream) -> None:
    while await stream.recv():
        stream.send_nowait(_RESPONSE)


async def _serve(connections: int, request: bytes, count: int) -> None:
    """Ends the program after ``count`` requests."""
    left = count
    pool, key = Pool(PoolLimits(max_pool_size=2)), GroupKey("hello", "test")
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        await pool.add_group(key, GroupLimits(min_instances=2), DummySpawner(serve=_work, worker_protocol=SESSION), 1.0)
        while len(pool.processes) < 2:
            await pool.changed.wait()
        front = Front(ServerOptions(), pool, [Route(key, AppOptions())], AccessLog(os.devnull))
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


def count(work: str) -> int:
    """Instructions for each request."""
    totals = []
    for requests in (FEW, MANY):
        command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={os.devnull}"]
        told = subprocess.run(
            [*command, sys.executable, __file__, work, str(requests)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        ).stderr
        match = re.search(r"I +refs: +([0-9,]+)", told)
        assert match is not None, told
        totals.append(int(match[1].replace(",", "")))
    return (totals[1] - totals[0]) // (MANY - FEW)


def main() -> None:
    words = sys.argv[1:]
    if len(words) == 2 and words[1].isdigit():
        connections, request = WORKS[words[0]]
        trio.run(_serve, connections, request, int(words[1]), clock=trio.testing.MockClock(rate=0))
    for work in words or WORKS:
        print(f"{work:<10}{count(work):>10} instructions for each request")


if __name__ == "__main__":
    main()
