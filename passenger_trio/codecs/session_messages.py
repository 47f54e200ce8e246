"""The session protocol after a ``W`` frame: WebSocket messages in both directions (``spawn_servers/CONTRACT.md``, section 3).

Sans-I/O. A message is one frame, ``T`` or ``B``. ``C`` closes; ``E`` ends the session after both sides closed. A
message of at most ``WHOLE`` bytes is one event. Of a longer message each piece is an event as soon as it
arrives, so no whole message is held.

Laws:

* All at once and byte by byte give the same messages.
* Input outside the contract raises ``MalformedResponse``, an early end ``IncompleteResponse``; no event follows
  either.
* Text that is not UTF-8 is never returned as a whole message.
"""

from __future__ import annotations

import codecs
import struct
from typing import Final

from passenger_trio.codecs.session_protocol import END, MAX_FRAME
from passenger_trio.codecs.websocket_frames import WHOLE, is_utf8
from passenger_trio.errors import IncompleteResponse, MalformedResponse

__all__ = ["BINARY", "CLOSE", "TEXT", "MessageReader", "encode_message"]

TEXT: Final = ord("T")
BINARY: Final = ord("B")
CLOSE: Final = ord("C")

_LIMITS: Final = {TEXT: MAX_FRAME, BINARY: MAX_FRAME, CLOSE: 125, END: 1}

_HEAD = struct.Struct("!BI")

Event = tuple[int, bytes, bool]
"""Type, payload, and whether it is the last piece of it."""


def encode_message(kind: int, payload: bytes) -> bytes:
    """One frame: a message, or ``CLOSE`` with the payload of a Close frame."""
    return _HEAD.pack(kind, len(payload)) + payload


class MessageReader:
    """Reads the bytes that a worker sends after its ``W``."""

    __slots__ = ("_buffer", "_closed", "_ended", "_kind", "_left", "_text", "closing")

    def __init__(self, rest: bytes = b"") -> None:
        """:param rest: the bytes that arrived behind the ``W``."""
        self._buffer = bytearray(rest)
        self._kind = 0
        self._left = 0
        """If the current message is given out in pieces: its bytes that have not arrived yet."""
        self._text: codecs.IncrementalDecoder | None = None
        self._closed = False
        self._ended = False
        self.closing = False
        """Whether a ``C`` was sent to the worker: its ``E`` may follow then."""

    def feed(self, data: bytes) -> None:
        """Add received bytes.

        :raises MalformedResponse: they come after the end of the session.
        """
        if self._ended and data:
            raise MalformedResponse("the process sent bytes after the end of its session")
        self._buffer += data

    def feed_eof(self) -> None:
        """The stream has ended.

        :raises IncompleteResponse: the session has not ended.
        """
        if not self._ended:
            raise IncompleteResponse("the process closed the connection of a WebSocket")

    def next_event(self) -> Event | None:
        """The next message, piece of one, ``(CLOSE, payload, True)`` or ``(END, flags, True)``; None when more bytes are needed.

        :raises MalformedResponse: the bytes do not follow the contract.
        """
        buffer = self._buffer
        if self._left:
            return self._piece() if buffer else None
        if not buffer:
            return None
        kind = buffer[0]
        most = _LIMITS.get(kind)
        if most is None or (self._closed and kind != END) or (kind == END and not self.closing):
            raise MalformedResponse(
                f"the process sent a frame of type 0x{kind:02x} where a WebSocket's session has none"
            )
        if len(buffer) < 5:
            return None
        size = _HEAD.unpack_from(buffer)[1]
        if size > most:
            raise MalformedResponse(f"the process sent a frame of type 0x{kind:02x} with {size} bytes")
        if size > WHOLE:
            del buffer[:5]
            self._kind, self._left = kind, size
            self._text = codecs.getincrementaldecoder("utf-8")() if kind == TEXT else None
            return self._piece() if buffer else None
        if len(buffer) < 5 + size:
            return None
        payload = bytes(buffer[5 : 5 + size])
        del buffer[: 5 + size]
        if kind == TEXT:
            if not is_utf8(payload):
                raise _not_utf8()
        elif kind == CLOSE:
            self._closed = True
            if len(payload) == 1 or not is_utf8(payload[2:]):
                raise MalformedResponse(
                    "the process closed a WebSocket in a form that the session protocol does not have"
                )
        elif kind == END:
            self._ended = True
            if buffer:
                raise MalformedResponse("the process sent bytes after the end of its session")
        return kind, payload, True

    def _piece(self) -> Event:
        buffer = self._buffer
        piece = bytes(buffer[: self._left])
        del buffer[: len(piece)]
        self._left -= len(piece)
        if self._text is not None:
            try:
                self._text.decode(piece, not self._left)
            except UnicodeDecodeError:
                raise _not_utf8() from None
        return self._kind, piece, not self._left


def _not_utf8() -> MalformedResponse:
    return MalformedResponse("the process sent a text that is not UTF-8")
