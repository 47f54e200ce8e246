"""The corpus of the edge (R1 to R20, F45, F46) against a real server: one verdict for each case, whole or in pieces, with the plain-request parser or without.

All cases of one way are sent at the same time, each on a connection of its own: the pieces go out in rounds, the first of every case, then the second
of every case. Between two rounds a request on another connection is answered, so that the server has read one piece before the next comes. Whether
the application saw a request is counted by the pool.

Starts the command: one server answers the whole corpus, with each parser.
"""

from __future__ import annotations

import re
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import h11
import pytest

from passenger_trio.testing import Supervisor, eventually

TESTS = Path(__file__).resolve().parent.parent
sys.path.append(str(TESTS / "codecs"))

from edge_cases import CASES, Case  # noqa: E402

pytestmark = [pytest.mark.os, pytest.mark.slow]

SHORT = 300
"""Bytes at either end of a case that are sent one by one; what is between them goes in blocks."""
BLOCK = 4096


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    middle = data[SHORT:-SHORT] if len(data) > 2 * SHORT else b""
    first, last = (data[:SHORT], data[-SHORT:]) if middle else (data, b"")
    blocks = [middle[at : at + BLOCK] for at in range(0, len(middle), BLOCK)]
    return [bytes([byte]) for byte in first] + blocks + [bytes([byte]) for byte in last]


def cut(data: bytes, offset: int) -> list[bytes]:
    """In pieces that end ``offset`` bytes after the begin of each CRLF; of a case with many only at the first and last of them."""
    ends = [match.start() + offset for match in re.finditer(rb"\r\n", data)]
    places = [0, *(ends if len(ends) <= 120 else ends[:60] + ends[-60:]), len(data)]
    return [piece for begin, end in pairwise(places) if (piece := data[begin:end])]


WAYS: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": whole,
    "byte by byte": byte_by_byte,
    "cut before each CRLF": lambda data: cut(data, 0),
    "cut in each CRLF": lambda data: cut(data, 1),
    "cut after each CRLF": lambda data: cut(data, 2),
}


@pytest.fixture(scope="module", params=["--plain-parser", "--no-plain-parser"])
def server(request: pytest.FixtureRequest) -> Iterator[Supervisor]:
    options = ["--max-pool-size", "2", "--min-instances", "2", "--max-request-queue-size", "0", "--log-level", "error"]
    options += ["--header-timeout", "5m", "--body-timeout", "5m", "--keep-alive-timeout", "5m", request.param]
    with Supervisor.start(TESTS / "apps" / "python" / "hello", *options) as running:
        yield running


class Conversation:
    """One case on one connection."""

    def __init__(self, server: Supervisor, case: Case, pieces: list[bytes]) -> None:
        self.case = case
        self.pieces = iter(pieces)
        self.done = False
        self.reset = False
        self._socket = socket.create_connection(server.address, 60)  # type: ignore[arg-type]
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send_next(self) -> None:
        """The next piece; after the last the end. A server that has refused takes no more, which is as it should be."""
        piece = next(self.pieces, None)
        try:
            if piece is None:
                self._socket.shutdown(socket.SHUT_WR)
            else:
                self._socket.sendall(piece)
        except OSError:
            piece = None
        self.done = piece is None

    def receive(self) -> bytes:
        pieces = []
        try:
            while data := self._socket.recv(65536):
                pieces.append(data)
        except ConnectionResetError:
            self.reset = True
        self._socket.close()
        return b"".join(pieces)

    def verdict(self) -> str:
        """What came back, as one line."""
        wire = self.receive()
        words = []
        method = "HEAD" if self.case.data.startswith(b"HEAD") else "GET"
        while wire:
            client = h11.Connection(h11.CLIENT)
            client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
            client.send(h11.EndOfMessage())
            client.receive_data(wire)
            client.receive_data(b"")
            closing = False
            while True:
                event = client.next_event()
                if isinstance(event, h11.Response):
                    words.append(str(event.status_code))
                    closing = any(name == b"connection" and value.startswith(b"close") for name, value in event.headers)
                elif isinstance(event, h11.EndOfMessage):
                    break
            wire = client.trailing_data[0]
            if closing:
                words.append("close")
        return " ".join([*words, *(["reset"] if self.reset else [])])


def expected(case: Case) -> set[str]:
    """The last response may or may not say that it is: a client that has half-closed needs no word for it."""
    words = ["200"] * case.before
    if (
        case.expected != "accept" and case.code != "body_truncated"
    ):  # of a body that was cut off nobody is left to be told
        words += [str(case.expected), "close"]
    return {" ".join(words), " ".join([*words, "close"])} if case.expected == "accept" and words else {" ".join(words)}


def processed(server: Supervisor) -> int:
    return sum(process["processed"] for process in server.group()["processes"])


def rejected(server: Supervisor) -> Counter[str]:
    return Counter(server.status()["requests"]["rejected"])


@pytest.mark.parametrize("way", WAYS)
def test_every_case_has_its_verdict(server: Supervisor, way: str) -> None:
    before, refused = processed(server), rejected(server)
    conversations = [Conversation(server, case, WAYS[way](case.data)) for case in CASES]
    open_ones = conversations
    rounds = 0
    with server.connect() as other:
        while open_ones:
            for conversation in open_ones:
                conversation.send_next()
            open_ones = [conversation for conversation in open_ones if not conversation.done]
            # What was readable when this came was read with it, or before.
            assert other.get().status == 200
            rounds += 1
    wrong = {}
    for conversation in conversations:
        found = conversation.verdict()
        if found not in expected(conversation.case):
            wrong[conversation.case.id] = (found, expected(conversation.case), conversation.case.code)
    assert not wrong
    # R18, and all refusals: the application saw what was served and nothing else.
    served = processed(server) - before - rounds
    assert served == sum(case.before for case in CASES), "\n".join([*server.log, *server.access_log()[-1000:]])
    assert not any("smuggled" in line for line in server.access_log())
    assert rejected(server) - refused == Counter(case.code for case in CASES if case.code)
    eventually(lambda: server.status()["connections"]["open"] == 0, what="every connection has ended")
