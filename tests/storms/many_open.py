"""Thousands of connections that stay open, while ordinary requests go on beside them; then the server is told to stop.

    python tests/storms/many_open.py [websockets | polls] [connections] [seconds]

The application is ASGI, in one process. Goals for 5 000 of them after 60 s: all are there; 30 KB of the supervisor's memory for a WebSocket, 12 KB for a long poll; the
p99 of the requests beside them is under 25 ms; after SIGTERM each WebSocket is closed with 1001, and all within 5 s; a long poll is cut short, or answered.
"""

from __future__ import annotations

import resource
import selectors
import signal
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import attrs
import psutil
from storm_tools import Load, percentile

from passenger_trio.testing import Supervisor

APP = """
import asyncio

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        if scope["path"] == "/poll":
            await send({"type": "http.response.body", "body": b"waiting\\n", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
        await send({"type": "http.response.body", "body": b"ok"})
    else:
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
"""

HANDSHAKE = (
    b"GET /socket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
POLL = b"GET /poll HTTP/1.1\r\nHost: localhost\r\n\r\n"
MESSAGE = b"\x81\x84\0\0\0\0ping"
ECHO = b"\x81\x04ping"
CLOSED = 5.0
"""Seconds in which all are to be closed."""


@attrs.define
class Outcome:
    kind: str
    opened: int
    alive: int
    """After all the time: those that still say something, or were not closed."""
    bytes_each: float
    """Of the supervisor's memory."""
    answers: Counter[str]
    """Of the requests beside them."""
    p99: float
    """Of these, seconds."""
    ends: Counter[str]
    """How the connections ended after SIGTERM."""
    took: float
    """Until the last of them had ended, seconds."""

    @property
    def is_good(self) -> bool:
        all_there = self.alive == self.opened and set(self.answers) == {"200"}
        in_time = self.took <= CLOSED and sum(self.ends.values()) == self.opened
        if self.kind == "websockets":
            return all_there and in_time and set(self.ends) == {"closed with 1001"}
        return all_there and in_time and set(self.ends) <= {"cut short", "answered"}


def storm(kind: str, count: int, seconds: float) -> Outcome:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asked, is_open = (HANDSHAKE, _is_upgraded) if kind == "websockets" else (POLL, _is_waiting)
    try:
        with tempfile.TemporaryDirectory(prefix="pt-storm-") as directory, ExitStack() as stack:
            (Path(directory) / "passenger_asgi.py").write_text(APP)
            words = ["-e", "production", "--max-pool-size", "1", "--access-log", "off"]
            words += ["--max-concurrent-requests-per-process", "0", "--shutdown-timeout", "3"]
            words += ["--max-connections", str(count + 200), "--websocket-drain", "3"]
            server = stack.enter_context(Supervisor.start(directory, *words))
            supervisor = psutil.Process(server.process.pid)
            for _ in range(20):
                with server.connect() as client:
                    client.get("/")
            before = supervisor.memory_info().rss
            clients = [stack.enter_context(_open(server, asked, is_open)) for _ in range(count)]
            grown = supervisor.memory_info().rss - before
            with Load(server, 2, pause=0.02) as load:
                _answer_pings(clients, seconds)
            alive = _alive(clients, kind)
            ends, took = _end(server, clients, kind)
            return Outcome(
                kind, len(clients), alive, grown / count, load.outcomes, percentile(load.latencies, 0.99), ends, took
            )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _open(server: Supervisor, asked: bytes, is_open: Callable[[bytes], bool]) -> socket.socket:
    client = socket.create_connection(server.address, 30)
    client.sendall(asked)
    answer = b""
    while not is_open(answer):
        more = client.recv(4096)
        assert more, answer
        answer += more
    return client


def _is_upgraded(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 101 ") and answer.endswith(b"\r\n\r\n")


def _is_waiting(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 200 ") and b"waiting\n" in answer


def _answer_pings(clients: list[socket.socket], seconds: float) -> None:
    """So long, as the library of any client does."""
    end = time.monotonic() + seconds
    with selectors.EpollSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        while (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                client = key.fileobj
                assert isinstance(client, socket.socket)
                frames = client.recv(4096)
                if not frames:
                    selector.unregister(client)
                while frames[:1] == b"\x89":  # a Ping, which is never cut in two here
                    size = frames[1]
                    client.sendall(b"\x8a" + bytes([0x80 | size]) + b"\0\0\0\0" + frames[2 : 2 + size])
                    frames = frames[2 + size :]


def _alive(clients: list[socket.socket], kind: str) -> int:
    """Those that still echo, or have not been closed."""
    if kind == "websockets":
        for client in clients:
            client.sendall(MESSAGE)
        return sum(_has_echoed(client) for client in clients)
    alive = 0
    for client in clients:
        client.setblocking(False)
        try:
            client.recv(1)
        except BlockingIOError:
            alive += 1
        client.setblocking(True)
    return alive


def _has_echoed(client: socket.socket) -> bool:
    """Whether the next frame is the echo; a Ping before it is answered."""
    try:
        while True:
            frame = _receive(client, 2)
            frame += _receive(client, frame[1])
            if frame[0] != 0x89:
                return frame == ECHO
            client.sendall(b"\x8a" + bytes([0x80 | frame[1]]) + b"\0\0\0\0" + frame[2:])
    except OSError:
        return False


def _receive(client: socket.socket, size: int) -> bytes:
    """:raises OSError: it has ended before that."""
    data = b""
    while len(data) < size:
        more = client.recv(size - len(data))
        if not more:
            raise OSError("the end")
        data += more
    return data


def _end(server: Supervisor, clients: list[socket.socket], kind: str) -> tuple[Counter[str], float]:
    """Tell the server to stop. How each connection ended, and how long all took."""
    ends: Counter[str] = Counter()
    with selectors.EpollSelector() as selector:
        got = dict.fromkeys(clients, b"")
        for client in clients:
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        while got and time.monotonic() - begun < 4 * CLOSED:
            for key, _ in selector.select(1.0):
                client = key.fileobj
                assert isinstance(client, socket.socket)
                try:
                    data = client.recv(4096)
                except OSError as error:
                    ends[type(error).__name__] += 1
                    data = None
                else:
                    got[client] += data
                    answer = got[client]
                    if kind == "websockets" and len(answer) >= 4 and answer[0] == 0x88:
                        ends[f"closed with {struct.unpack_from('!H', answer, 2)[0]}"] += 1
                        client.sendall(
                            b"\x88\x82\0\0\0\0" + answer[2:4]
                        )  # and that is how the server learns that we know
                        data = None
                    elif not data:
                        whole = answer.endswith(b"0\r\n\r\n")
                        ends["answered" if whole else "cut short"] += 1
                        data = None
                if data is None:
                    selector.unregister(client)
                    del got[client]
        took = time.monotonic() - begun
        if got:
            ends["still open"] = len(got)
        server.wait(30)
        return ends, took


def main() -> int:
    kinds = [sys.argv[1]] if len(sys.argv) > 1 else ["websockets", "polls"]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 60.0
    good = True
    for kind in kinds:
        outcome = storm(kind, count, seconds)
        print(f"{kind:<12}{outcome.alive} of {outcome.opened} alive after {seconds:.0f} s")
        print(f"memory      {outcome.bytes_each / 1000:.1f} KB of the supervisor for each")
        print(f"beside      {dict(outcome.answers)}, p99 {outcome.p99 * 1000:.2f} ms")
        print(f"SIGTERM     {dict(outcome.ends)}, the last after {outcome.took:.2f} s")
        print("good" if outcome.is_good else "MISSED")
        good = good and outcome.is_good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
