"""The client's direction of a WebSocket: frames of the client become messages for the worker.

``forward_frames`` reads the client until its side is over, and lets it read the last Close. Pings are answered here; everything else about control frames
is decided by ``core/websocket_life``.
"""

from __future__ import annotations

import trio

from passenger_trio.codecs import session_messages
from passenger_trio.codecs.session_messages import encode_message
from passenger_trio.codecs.websocket_frames import BINARY, CLOSE, FAILURE, PING, TEXT, close_code
from passenger_trio.core.lingering import LINGER_BYTES
from passenger_trio.core.read_size import ReadSize
from passenger_trio.core.websocket_life import Side
from passenger_trio.log_lines import requests as lines
from passenger_trio.server.upgraded.websocket_state import MOST_READ, WebSocketState

__all__ = ["forward_frames"]

_FIRST_READ, _LEAST_READ = 2048, 512
"""Bytes. All frames of a read are handled in the step that reads them."""

_TO_WORKER = {TEXT: session_messages.TEXT, BINARY: session_messages.BINARY}
"""Kind of a message in a frame -> in the session protocol."""

_OPEN = Side.OPEN


async def forward_frames(state: WebSocketState, early: bytes) -> None:
    """Forward the client's messages until its side is over. Does not close its connection.

    :param early: bytes that arrived with the handshake.
    """
    client, life = state.client, state.life
    stream = client.stream
    size = ReadSize(_FIRST_READ, _LEAST_READ, MOST_READ)
    try:
        data, early = early[: size.limit], early[size.limit :]
        ended = not early and client.codec.peer_closed
        while True:
            if data:
                frames = state.frames.frames
                _take(state, data)
                size.found(len(data), state.frames.frames - frames)
            if life.client is Side.ENDING:
                await _let_go(state)
                break
            if ended:
                state.perform(life.client_lost(client.current_time()))
                break
            if life.client is _OPEN:
                await state.to_worker.wait_clear()
            if early:
                if size.is_flood:
                    await client.front.flood_turns.take(is_heavy=size.is_heavy)
                data, early = early[: size.limit], early[size.limit :]
                ended = not early and client.codec.peer_closed
                continue
            data = await state.read(stream, size)
            ended = not data
    except trio.BrokenResourceError:
        state.perform(life.client_lost(client.current_time()))
    except trio.ClosedResourceError:
        pass  # the life has given up on the client


def _take(state: WebSocketState, data: bytes) -> None:
    life = state.life
    now = state.client.current_time()
    life.heard = now
    state.bytes_up += len(data)
    out: list[bytes] = []
    for opcode, payload in state.frames.receive(data, now):
        kind = _TO_WORKER.get(opcode)
        if kind is not None:
            if life.worker is _OPEN:
                out.append(encode_message(kind, payload))
                state.active = now
        elif opcode == PING:
            if life.client is _OPEN:
                state.answer_ping(payload)
        elif opcode in (CLOSE, FAILURE):
            if out:  # earlier messages come first
                state.to_worker.put(b"".join(out))
                out.clear()
            code, reason = close_code(payload), payload[2:].decode()
            if opcode == FAILURE:
                lines.websocket_client_failed(
                    code=code, reason=reason, client=state.client.peer.address, **state.log_fields()
                )
                state.client.front.rejected[f"websocket_{code}"] += 1
                state.perform(life.client_fails(code, reason, now))
            else:
                state.code = state.code or code
                state.perform(life.client_closes(code, reason, now))
    if out:
        state.to_worker.put(out[0] if len(out) == 1 else b"".join(out))


async def _let_go(state: WebSocketState) -> None:
    """Let the client read the Close before its connection closes (R29), until the life's deadline.

    :raises trio.ClosedResourceError: the deadline has passed.
    """
    stream = state.client.stream
    await state.to_client.wait_clear()
    stream.send_eof()
    dropped = 0
    try:
        if state.frames.failed:
            while dropped < LINGER_BYTES and (data := await stream.recv()):
                dropped += len(data)
        else:
            stream.recv_nowait()  # unread bytes would become a reset, which can overtake the Close
    except (trio.WouldBlock, trio.BrokenResourceError):
        pass
