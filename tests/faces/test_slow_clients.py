"""Clients that are slow in what they send, or in what they take, by the thousand or by the gigabyte: nobody else is told of it.

Starts the command: its limit of descriptors is the subject.
"""

from __future__ import annotations

import hashlib
import resource
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from faces_tools import APPS, Load

from passenger_trio.testing import Response, Supervisor, eventually

pytestmark = pytest.mark.os

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 10_000
MANY = 2000


@pytest.fixture
def descriptors() -> Iterator[None]:
    """As many as there may be, for the test and for what it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_F20_two_thousand_clients_that_send_a_byte_at_a_time(descriptors: None) -> None:
    """Each is told 408 when its head is late, however little it sends at a time (R27); requests beside them are answered, all of them."""
    options = ("--header-timeout", "4s", "--min-instances", "2", "--max-pool-size", "2", "-e", "production")
    with Supervisor.start(APPS / "hello", *options) as server, Load(server, "/", 4) as load:
        slow: dict[socket.socket, int] = {}
        ends: Counter[bytes] = Counter()
        with selectors.EpollSelector() as selector:

            def send_a_byte() -> None:
                for client, at in slow.items():
                    try:
                        client.send(HEAD[at : at + 1])
                    except OSError:
                        continue  # it is told at once
                    slow[client] = at + 1

            def hear(seconds: float) -> None:
                end = time.monotonic() + seconds
                while slow and (left := end - time.monotonic()) > 0:
                    for key, _ in selector.select(left):
                        client = key.fileobj
                        assert isinstance(client, socket.socket)
                        ends[client.recv(12)] += 1
                        selector.unregister(client)
                        client.close()
                        del slow[client]

            for _ in range(MANY):
                client = socket.create_connection(server.address, 30)
                client.setblocking(False)
                slow[client] = 0
                selector.register(client, selectors.EVENT_READ)
            deadline = time.monotonic() + 60
            while slow and time.monotonic() < deadline:
                send_a_byte()
                hear(1.0)
        assert ends == {b"HTTP/1.1 408": MANY}
        answered = len(load.results)
        eventually(lambda: len(load.results) > answered + 10)
        eventually(lambda: server.status()["connections"]["open"] < 10)
        assert all(isinstance(answer, Response) and answer.status == 200 for answer in load.results)
        assert len(load.results) > 100


@pytest.mark.slow
def test_F22_a_very_long_response_to_a_slow_reader() -> None:
    """The process is free when it has written, while its client has taken next to nothing; and the client gets every byte. (A quarter of the rule's GiB, for the sake of small disks.)"""
    blocks, size = 4096, 65536
    options = (
        "--min-instances",
        "1",
        "--max-pool-size",
        "1",
        "-e",
        "production",
        "--response-buffer-high-watermark",
        "0",
    )
    with Supervisor.start(APPS / "buffering", *options) as server, server.connect(120) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.send(f"GET /length?long/{blocks} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head = client.receive(1000)
        eventually(
            lambda: server.group()["processes"][0]["processed"] == 1, 120, "the process has written its response"
        )
        assert server.get("/hello").text == "hello"  # by the only process
        buffers = server.status()["buffers"]
        assert buffers["disk"] > 0.9 * blocks * size
        assert buffers["memory"] < 1024**2
        expected = hashlib.sha256()
        for number in range(blocks):
            expected.update(hashlib.sha256(b"long %d" % number).digest() * (size // 32))
        _, _, body = head.partition(b"\r\n\r\n")
        got, length = hashlib.sha256(body), len(body)
        while piece := client.receive(1 << 20):
            got.update(piece)
            length += len(piece)
        assert (length, got.digest()) == (blocks * size, expected.digest())
        assert server.status()["buffers"]["disk"] == 0
