"""The worker's direction of a WebSocket: messages of the worker become frames for the client.

``WorkerMessages.forward`` reads the worker until its session or its stream has ended, and gives the process back. ``core/websocket_life`` decides what the end of
the worker means for the client.
"""

from __future__ import annotations

import trio

from passenger_trio.codecs import session_messages
from passenger_trio.codecs.session_protocol import END, FLAG_CLOSE
from passenger_trio.codecs.websocket_frames import (
    BINARY,
    CONTINUATION,
    TEXT,
    close_code,
    encode_frame,
    is_close_payload,
)
from passenger_trio.core.model import SessionOutcome
from passenger_trio.core.read_size import STEP, ReadSize
from passenger_trio.core.websocket_close_codes import AFTER_FAILURE
from passenger_trio.core.websocket_life import Side
from passenger_trio.errors import IncompleteResponse, MalformedResponse
from passenger_trio.log_lines import requests as lines
from passenger_trio.server.upgraded.websocket_state import MOST_READ, WebSocketState
from passenger_trio.system.raw_stream import RawStream

__all__ = ["WorkerMessages"]

_FIRST_READ, _LEAST_READ = 8192, 1024
"""Bytes; see ``core.read_size``."""

_TO_CLIENT = {session_messages.TEXT: TEXT, session_messages.BINARY: BINARY}
"""Kind of a message in the session protocol -> in a frame."""

_OPEN = Side.OPEN


class WorkerMessages:
    """The worker's messages on their way to the client."""

    __slots__ = ("_is_within", "_state")

    def __init__(self, state: WebSocketState) -> None:
        self._state = state
        self._is_within = False
        """Whether a message to the client was begun, in a frame that is not its last."""

    async def forward(self, stream: RawStream) -> None:
        """Forward the messages until the worker's session or its stream has ended, and give the process back."""
        state = self._state
        reader = state.messages
        life = state.life
        turns = state.client.front.flood_turns
        size = ReadSize(_FIRST_READ, _LEAST_READ, MOST_READ)
        came = 0
        try:
            while True:
                out: list[bytes] = []
                messages = 0
                while (event := reader.next_event()) is not None:
                    self._take(*event, out)
                    messages += 1
                    if messages % STEP == 0:
                        if out:
                            state.to_client.put(b"".join(out))
                            out.clear()
                        await turns.take(is_heavy=size.is_heavy)
                if out:
                    state.to_client.put(out[0] if len(out) == 1 else b"".join(out))
                if life.worker is Side.GONE:
                    return
                size.found(came, messages)
                if life.client is _OPEN:
                    await state.to_client.wait_clear()
                data = await state.read(stream, size)
                came = len(data)
                if not data:
                    reader.feed_eof()
                reader.feed(data)
        except (IncompleteResponse, trio.BrokenResourceError):
            self._lost(is_broken=False)
        except trio.ClosedResourceError:
            pass  # the process was given back already
        except MalformedResponse as error:
            lines.websocket_failed(reason=str(error), **state.log_fields())
            self._lost(is_broken=True)

    def _take(self, kind: int, payload: bytes, last: bool, out: list[bytes]) -> None:
        state = self._state
        life = state.life
        opcode = _TO_CLIENT.get(kind)
        now = state.client.current_time()
        if opcode is not None:
            if life.client is _OPEN:  # otherwise the client gets no more messages
                out.append(encode_frame(CONTINUATION if self._is_within else opcode, payload, final=last))
                self._is_within = not last
                state.active = now
            return
        # Earlier messages come first.
        if out:
            state.to_client.put(b"".join(out))
            out.clear()
        if kind == END:
            life.worker_ends()
            flags = payload[0] if payload else 0
            at_boundary = not (flags & FLAG_CLOSE or state.aborted or state.to_worker.kept)
            state.exchange.give_back(SessionOutcome.DONE, keep_stream=at_boundary)
            state.set_due()
            return
        code, reason = close_code(payload), payload[2:].decode()
        if not is_close_payload(payload):
            lines.websocket_bad_code(code=code, **state.log_fields())
            code, reason = AFTER_FAILURE, ""
        state.perform(life.worker_closes(code, reason, now))

    def _lost(self, *, is_broken: bool) -> None:
        state = self._state
        if state.life.worker is not Side.GONE:
            state.perform(state.life.worker_lost(state.client.current_time(), broken=is_broken))
            # The process is not to blame for its end before its exit has been seen.
            state.exchange.give_back(SessionOutcome.PROCESS_FAILED if is_broken else SessionOutcome.DONE)
