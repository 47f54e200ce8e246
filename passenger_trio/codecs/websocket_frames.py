"""WebSocket frames: a client's bytes to events, and our frames to bytes (RFC 6455, sections 5 to 7).

This is the only module that knows the WebSocket library. As with HTTP, a strict check stands in front of it. The
check reads each frame's header as soon as its bytes arrive and applies the rules and the limits (R33), so a
frame that is too long is refused before its first payload byte. Control frames, which are short, and messages of
one frame of at most ``WHOLE`` bytes are unmasked here. Fragmented or longer messages go through wsproto piece by
piece; at most one message is being assembled at a time.

Laws:

* Whole, byte by byte and any other split give the same events. An event is returned when its last byte arrives.
* A violation is an event: ``FAILURE``, with the payload of the Close frame that answers it. The client's Close
  is an event, too. Nothing is read after either.

The codes of Close frames are in ``core/websocket_close_codes``.
"""

from __future__ import annotations

import codecs
import struct
from typing import TYPE_CHECKING, Final

from passenger_trio.core.websocket_close_codes import (
    INVALID_TEXT,
    MESSAGE_TOO_BIG,
    NO_CODE,
    POLICY_VIOLATION,
    PROTOCOL_ERROR,
    is_sendable,
)
from passenger_trio.late_classes import frozen
from passenger_trio.options import ServerOptions

if TYPE_CHECKING:
    from wsproto.frame_protocol import FrameProtocol

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "FAILURE",
    "PING",
    "PONG",
    "TEXT",
    "WHOLE",
    "FrameLimits",
    "FrameReader",
    "close_code",
    "close_payload",
    "encode_frame",
    "is_close_payload",
    "is_utf8",
]

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
FAILURE: Final = -1
"""Not an opcode: the client broke a rule or a limit. The payload is that of the Close frame that answers."""

WHOLE: Final = 65536
"""A frame up to this size is read as a whole; a longer one is read in pieces as they arrive."""

_KNOWN: Final = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))

_BURST: Final = 100.0
"""Control frames that a client may send at once. The allowance grows back at ``_RATE`` a second."""
_RATE: Final = 20.0
_MOST_FRAGMENTS: Final = 4096
_MOST_EMPTY_FRAGMENTS: Final = 64
"""The most empty fragments of one message."""

_Event = tuple[int, bytes]
_SHORT, _LONG = struct.Struct("!H"), struct.Struct("!Q")


@frozen
class FrameLimits:
    """What a client may send (R33)."""

    max_message_size: int = ServerOptions().websocket_max_message_size
    """The most bytes of one message, in all its fragments. A longer one ends the connection with 1009."""


class _Violation(Exception):
    """Within this module: a rule or a limit was broken."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.payload = close_payload(code, text)


class FrameReader:
    """Reads the frames of one client. Between two messages it holds only its limits.

    :param plain_parser: whether messages of one short frame may bypass wsproto.
    """

    __slots__ = (
        "_allowance",
        "_buffer",
        "_empty",
        "_engine",
        "_fragments",
        "_kind",
        "_left",
        "_limits",
        "_message",
        "_plain_parser",
        "_size",
        "_told",
        "ended",
        "failed",
        "frames",
    )

    def __init__(self, limits: FrameLimits, now: float, *, plain_parser: bool = True) -> None:
        self._limits = limits
        self._plain_parser = plain_parser
        self._buffer = b""
        self._kind = 0
        """The opcode of the message that is being assembled; 0: none is."""
        self._message = bytearray()
        self._size = 0
        """The size of that message so far, by the headers of its frames."""
        self._fragments = self._empty = 0
        self._left = 0
        """Missing payload bytes of the frame that wsproto has begun to read."""
        self._engine: FrameProtocol | None = None
        self._allowance = _BURST
        self.frames = 0
        """Frames whose header was read."""
        self._told = now
        self.ended = False
        """Whether reading has ended."""
        self.failed = False
        """Whether reading ended with a violation."""

    @property
    def buffered(self) -> int:
        """Bytes that the reader holds."""
        return len(self._buffer) + len(self._message)

    def receive(self, data: bytes, now: float) -> list[_Event]:
        """The events that ``data`` completes: ``(opcode, payload)``, and at most one ``(FAILURE, payload)``, which is the last.

        The payload of a text message is valid UTF-8, that of a Close is empty, or a valid code and a valid reason.
        """
        events: list[_Event] = []
        if self.ended:
            return events
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        try:
            at = self._read(data, events, now)
        except _Violation as violation:
            self._end()
            self.failed = True
            events.append((FAILURE, violation.payload))
        else:
            if events and events[-1][0] == CLOSE:
                self._end()
            elif at < len(data):
                self._buffer = data[at:] if at else data
        return events

    def _end(self) -> None:
        self.ended = True
        self._engine = None
        self._message = bytearray()

    def _read(self, data: bytes, events: list[_Event], now: float) -> int:
        """Read frames, and return how many bytes they take."""
        at, end = 0, len(data)
        while at < end:
            if self._left:
                piece = data[at : at + self._left]
                self._left -= len(piece)
                at += len(piece)
                self._feed(piece, events)
                continue
            head = self._header(data, at, end)
            if head is None:
                break
            opcode, final, start, size = head
            self.frames += 1
            stop = start + size
            if opcode & 8:
                if stop > end:
                    break
                self._allow(now)
                self._control(opcode, _unmask(data, start, stop), events)
                if opcode == CLOSE:
                    break
            else:
                plain = final and not self._kind and opcode and size <= WHOLE and self._plain_parser
                if plain:
                    if size > self._limits.max_message_size:
                        raise _Violation(MESSAGE_TOO_BIG, "the message is too big")
                    if stop > end:
                        break
                    payload = _unmask(data, start, stop)
                    if opcode == TEXT and not is_utf8(payload):
                        raise _Violation(INVALID_TEXT, "the text is not UTF-8")
                    events.append((opcode, payload))
                else:
                    self._begin(opcode, final, size)
                    stop = min(stop, end)
                    self._left = size - (stop - start)
                    self._feed(data[at:stop], events)
            at = stop
        return at

    def _header(self, data: bytes, at: int, end: int) -> tuple[int, bool, int, int] | None:
        """Opcode, whether it is final, where the payload begins (behind the mask), its length. None: the header is not whole."""
        first = data[at]
        opcode = first & 0x0F
        if first & 0x70:
            raise _Violation(PROTOCOL_ERROR, "a reserved bit is set")
        if opcode not in _KNOWN:
            raise _Violation(PROTOCOL_ERROR, "the opcode is reserved")
        if opcode & 8:
            if not first & 0x80:
                raise _Violation(PROTOCOL_ERROR, "a control frame is fragmented")
        elif (opcode == CONTINUATION) is (not self._kind):
            raise _Violation(
                PROTOCOL_ERROR, "there is no message to continue" if not opcode else "a message is not finished"
            )
        if end - at < 2:
            return None
        second = data[at + 1]
        if not second & 0x80:
            raise _Violation(PROTOCOL_ERROR, "a frame is not masked")
        size = second & 0x7F
        start = at + 6
        if size > 125:
            if opcode & 8:
                raise _Violation(PROTOCOL_ERROR, "a control frame is too long")
            if size == 126:
                start += 2
                if end < at + 4:
                    return None
                size = _SHORT.unpack_from(data, at + 2)[0]
                least = 126
            else:
                start += 8
                if end < at + 10:
                    return None
                size = _LONG.unpack_from(data, at + 2)[0]
                least = 65536
            if size < least or size >> 63:
                raise _Violation(PROTOCOL_ERROR, "a length is not written as it must be")
            if self._size + size > self._limits.max_message_size:
                raise _Violation(MESSAGE_TOO_BIG, "the message is too big")  # at once, and not when it has come
        if end < start:
            return None
        return opcode, bool(first & 0x80), start, size

    # -- control frames -----------------------------------------------------------------------------------------

    def _allow(self, now: float) -> None:
        self._allowance = min(_BURST, self._allowance + (now - self._told) * _RATE)
        self._told = now
        if self._allowance < 1:
            raise _Violation(POLICY_VIOLATION, "too many control frames")
        self._allowance -= 1

    def _control(self, opcode: int, payload: bytes, events: list[_Event]) -> None:
        if opcode == CLOSE:
            if not is_close_payload(payload):
                raise _Violation(PROTOCOL_ERROR, "the close code is not one")
            if not is_utf8(payload[2:]):
                raise _Violation(INVALID_TEXT, "the close reason is not UTF-8")
        events.append((opcode, payload))

    # -- messages by wsproto ------------------------------------------------------------------------------------

    def _begin(self, opcode: int, final: bool, size: int) -> None:
        """A frame of a message that is not plain begins: count it."""
        if not self._kind:
            from wsproto.frame_protocol import (
                FrameProtocol,  # here: the start of the server does not wait for it (DE10)
            )

            self._kind = opcode
            self._engine = FrameProtocol(client=False, extensions=[])
        self._size += size
        self._fragments += 1
        if self._size > self._limits.max_message_size:
            raise _Violation(MESSAGE_TOO_BIG, "the message is too big")
        if not size and not final:
            self._empty += 1
        if self._fragments > _MOST_FRAGMENTS or self._empty > _MOST_EMPTY_FRAGMENTS:
            raise _Violation(POLICY_VIOLATION, "too many fragments")

    def _feed(self, data: bytes, events: list[_Event]) -> None:
        from wsproto.frame_protocol import ParseFailed

        assert self._engine is not None
        self._engine.receive_bytes(data)
        try:
            for frame in self._engine.received_frames():
                payload = frame.payload
                if isinstance(payload, str):
                    payload = payload.encode()
                assert isinstance(payload, bytes)
                self._message += payload
                if frame.frame_finished and frame.message_finished:
                    events.append((self._kind, bytes(self._message)))
                    self._engine = None
                    self._message = bytearray()
                    self._kind = self._size = self._fragments = self._empty = 0
                    break
        except ParseFailed as failure:
            text = "the text is not UTF-8" if failure.code == INVALID_TEXT else "the frame is malformed"
            raise _Violation(int(failure.code), text) from failure


def _unmask(data: bytes, start: int, stop: int) -> bytes:
    """The payload between the two positions, unmasked. The mask precedes it (section 5.3)."""
    size = stop - start
    if not size:
        return b""
    mask = data[start - 4 : start] * ((size + 3) // 4)
    return (int.from_bytes(data[start:stop], "big") ^ int.from_bytes(mask[:size], "big")).to_bytes(size, "big")


def is_utf8(text: bytes) -> bool:
    """Whether this is UTF-8 by RFC 3629: without surrogates and overlong forms."""
    if text.isascii():
        return True
    try:
        codecs.utf_8_decode(text, "strict", True)
    except UnicodeDecodeError:
        return False
    return True


def is_close_payload(payload: bytes) -> bool:
    """Whether the code in the payload of a Close frame is allowed (section 7.4)."""
    if len(payload) < 2:
        return not payload
    code = _SHORT.unpack_from(payload)[0]
    return len(payload) <= 125 and is_sendable(code)


def close_payload(code: int, reason: str = "") -> bytes:
    """The payload of a Close frame."""
    return _SHORT.pack(code) + reason.encode()


def close_code(payload: bytes) -> int:
    """The code in the payload of a Close frame; ``NO_CODE``: there is none (section 7.1.5)."""
    return int(_SHORT.unpack_from(payload)[0]) if payload else NO_CODE


def encode_frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """One frame of the server, which is not masked (section 5.1)."""
    first = opcode | 0x80 if final else opcode
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return b"".join((bytes((first, 126)), _SHORT.pack(size), payload))
    return b"".join((bytes((first, 127)), _LONG.pack(size), payload))
