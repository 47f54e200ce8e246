"""The two ends of a WebSocket for tests: a client that writes raw frames, and a worker that speaks messages of the session protocol.

A worker is made by ``taking``: it reads the head, and what follows is a function of the test with a ``Talk``. ``open_websocket`` makes the client's handshake.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from dummy_front import Client, Worker, World, frame, serving

from passenger_trio.spawning.dummy import DummyProcess, DummySpawner
from passenger_trio.system.raw_stream import RawStream

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "KEY",
    "PING",
    "PONG",
    "TEXT",
    "Frame",
    "Talk",
    "Talker",
    "WebSocketClient",
    "accepted",
    "close",
    "connected",
    "echo",
    "handshake",
    "masked",
    "open_websocket",
    "taking",
    "websockets",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = base64.b64encode(bytes(range(16))).decode()


# -- the client's side ----------------------------------------------------------------------------------------------


def masked(opcode: int, payload: bytes = b"", *, final: bool = True, mask: bytes = b"\x11\x22\x33\x44") -> bytes:
    """A client's frame."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = b"\xfe" + struct.pack("!H", size)
    else:
        length = b"\xff" + struct.pack("!Q", size)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([opcode | 0x80 * final]) + length + mask + body


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return masked(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def handshake(path: str = "/", *fields: str, key: str = KEY, version: str = "13") -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Key: {key}",
        f"Sec-WebSocket-Version: {version}",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@attrs.frozen
class Frame:
    """A frame of the server."""

    opcode: int
    payload: bytes
    final: bool = True

    @property
    def code(self) -> int | None:
        """Of a Close."""
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else None


@attrs.define(eq=False)
class WebSocketClient:
    """A client behind its handshake."""

    client: Client
    head: str
    held: bytes = b""

    def send(self, *pieces: bytes) -> None:
        self.client.send(*pieces)

    async def frame(self) -> Frame | None:
        """The next frame; None at the end of the connection.

        :raises AssertionError: what comes is no frame of a server.
        """
        first = await self._take(2)
        if first is None:
            return None
        assert not first[1] & 0x80, "a server's frame is masked"
        assert not first[0] & 0x70
        size = first[1]
        if size == 126:
            size = struct.unpack("!H", await self._take(2) or b"")[0]
        elif size == 127:
            size = struct.unpack("!Q", await self._take(8) or b"")[0]
        payload = await self._take(size) if size else b""
        assert payload is not None
        return Frame(first[0] & 15, payload, bool(first[0] & 0x80))

    async def message(self) -> tuple[int, bytes] | None:
        """The next message; of control frames only a Close is given, as (CLOSE, payload)."""
        kind, parts = 0, []
        while (found := await self.frame()) is not None:
            if found.opcode == CLOSE:
                return CLOSE, found.payload
            if found.opcode in (PING, PONG):
                continue
            kind = kind or found.opcode
            parts.append(found.payload)
            if found.final:
                return kind, b"".join(parts)
        return None

    async def closed(self) -> int | None:
        """The code of the Close that comes; then the connection must end. 0: there was none. Frames before it are dropped."""
        code: int | None = 0
        while (found := await self.frame()) is not None:
            if found.opcode == CLOSE:
                assert code == 0, "a second Close"
                code = found.code
        return code

    async def _take(self, size: int) -> bytes | None:
        while len(self.held) < size:
            more = await self.client.receive()
            if not more:
                return None
            self.held += more
        taken, self.held = self.held[:size], self.held[size:]
        return taken


async def open_websocket(world: World, request: bytes = handshake(), **options: Any) -> WebSocketClient:
    """A client whose handshake is done, and right."""
    client = world.connect(**options)
    client.send(request)
    return await connected(client)


async def connected(client: Client) -> WebSocketClient:
    """The same of a client that has sent its request."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await client.receive()
        assert more, data
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    text = head.decode("latin-1")
    assert text.startswith("HTTP/1.1 101 "), text
    digest = hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    assert f"sec-websocket-accept: {base64.b64encode(digest).decode().lower()}" in text.lower()
    assert re.search("^upgrade: websocket\r?$", text, re.I | re.M)
    assert re.search("^connection: upgrade\r?$", text, re.I | re.M)
    return WebSocketClient(client, text, rest)


# -- the worker's side ----------------------------------------------------------------------------------------------


def accepted(*fields: bytes) -> bytes:
    """A ``W`` frame; a field is ``b"name: value"``."""
    return frame(b"W", b"".join(text + b"\0" for field in fields for text in field.split(b": ", 1)))


@attrs.define(eq=False)
class Talk:
    """One session, from the worker's side."""

    process: DummyProcess
    stream: RawStream
    pairs: dict[str, str]
    held: bytes = b""
    ended: bool = False

    async def send(self, *frames: bytes) -> None:
        await self.stream.send_all(b"".join(frames))

    async def receive(self) -> tuple[bytes, bytes] | None:
        """The next frame, (type, payload); None: the supervisor has ended the stream."""
        while len(self.held) < 5 or len(self.held) < 5 + int.from_bytes(self.held[1:5], "big"):
            try:
                more = await self.stream.recv()
            except trio.BrokenResourceError:
                more = b""
            if not more:
                self.ended = True
                return None
            self.held += more
        size = 5 + int.from_bytes(self.held[1:5], "big")
        taken, self.held = self.held[:size], self.held[size:]
        return taken[:1], taken[5:]

    async def finish(self, flags: int = 0) -> None:
        """The ``E`` of a session that both sides have closed."""
        await self.send(frame(b"E", bytes([flags]) if flags else b""))


Talker = Callable[[Talk], Awaitable[None]]


def taking(talk: Talker) -> Worker:
    """A worker whose sessions, one after another on each stream, are ``talk``'s."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        held = b""
        while True:
            session = Talk(process, stream, {}, held)
            head = await session.receive()
            if head is None:
                return
            assert head[0] == b"H", head
            texts = head[1].decode("latin-1").split("\0")[:-1]
            session.pairs = dict(zip(texts[::2], texts[1::2], strict=True))
            assert await session.receive() == (b"E", b"")
            try:
                await talk(session)
            except trio.BrokenResourceError:
                return  # the supervisor did not wait
            if session.ended:
                return
            held = session.held

    return serve


async def echo(talk: Talk) -> None:
    """Accept, and send every message back, until the session is closed; then end it as the contract wants."""
    await talk.send(accepted())
    while (found := await talk.receive()) is not None:
        kind, payload = found
        if kind == b"C":
            await talk.finish()
            return
        await talk.send(frame(kind, payload))


@asynccontextmanager
async def websockets(talk: Talker = echo, *, concurrency: int = 10, **more: Any) -> AsyncIterator[World]:
    """A world whose process takes WebSockets."""
    spawner = DummySpawner(serve=taking(talk), concurrency=concurrency, websocket=True)
    async with serving(spawner=spawner, **more) as world:
        yield world
