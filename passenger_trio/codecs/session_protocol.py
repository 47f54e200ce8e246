"""The session protocol between supervisor and worker: the supervisor's side (``spawn_servers/CONTRACT.md``, section 3).

Sans-I/O: bytes in, events out. A frame is a type byte, a 32-bit big-endian length and a payload.
``read_whole_response`` handles the common case, a response that arrives in one read, in a few operations;
``ResponseReader`` handles everything else with the same results.

Laws:

* All at once and byte by byte give the same events. (Adjacent body pieces may be split differently; their
  concatenation is equal. If bytes arrive behind the end together with it, they are reported instead of the
  end.)
* Input outside the contract raises ``MalformedResponse``, an early end ``IncompleteResponse``; no event follows
  either.
* Body bytes are never held back: a piece of a ``D`` frame is an event as soon as it arrives.
* A call reads at most ``RUN`` frames, and gives the body in adjacent small frames as one piece (KE7). ``pieces``
  counts what was read, in small frames.
"""

from __future__ import annotations

import struct
from typing import Final, TypeVar

from passenger_trio.errors import IncompleteResponse, MalformedResponse
from passenger_trio.options import MAX_WEBSOCKET_MESSAGE

__all__ = [
    "ACCEPT",
    "BODY_END",
    "DATA",
    "END",
    "ERROR",
    "FLAG_CLOSE",
    "FLAG_OOB_WORK",
    "HEAD",
    "INTERIM",
    "INTERIM_COST",
    "MAX_FRAME",
    "MAX_HEAD",
    "OOB_WORK_FRAME",
    "RUN",
    "TRAILERS",
    "UPGRADE",
    "ResponseReader",
    "encode_data",
    "encode_data_head",
    "encode_head",
    "encode_request",
    "is_end_of_oob_work",
    "read_whole_response",
    "split_application_error",
]

MAX_FRAME: Final = MAX_WEBSOCKET_MESSAGE
MAX_HEAD: Final = 128 * 1024
RUN: Final = 256
"""The most small pieces that a reader handles in one call; each costs about a microsecond."""
INTERIM_COST: Final = 32
"""Small pieces that cost as much as one interim response."""

_View = TypeVar("_View", memoryview, bytearray)

HEAD: Final = ord("R")
DATA: Final = ord("D")
END: Final = ord("E")
INTERIM: Final = ord("I")
ERROR: Final = ord("X")
ACCEPT: Final = ord("W")
"""The worker accepts a WebSocket. ``session_messages`` reads the bytes that follow."""
UPGRADE: Final = ord("U")
TRAILERS: Final = ord("L")
"""Fields behind the body of a response."""

FLAG_CLOSE: Final = 1
FLAG_OOB_WORK: Final = 2
"""The process asks for out-of-band work."""

OOB_WORK_FRAME: Final = b"O\0\0\0\0"
"""Sent between two sessions: do the out-of-band work now. The worker answers with ``E``."""

BODY_END: Final = b"E\0\0\0\0"

_LENGTH = struct.Struct("!I")
_pack = _LENGTH.pack
_unpack_from = _LENGTH.unpack_from

# The largest payload of each frame that a worker may send; a type that is not here is not in the contract.
_LIMITS: Final = {
    HEAD: MAX_HEAD,
    INTERIM: MAX_HEAD,
    ERROR: MAX_HEAD,
    ACCEPT: MAX_HEAD,
    DATA: MAX_FRAME,
    END: 1,
    UPGRADE: 0,
    TRAILERS: MAX_HEAD,
}

# What may follow what. The state is named for what has been seen.
_START, _RESPONDING, _FAILED, _DONE, _SWITCHING, _RAW, _ASKED, _TRAILED = range(8)
_FOLLOWS: Final = {
    (_START, INTERIM): _START,
    (_START, HEAD): _RESPONDING,
    (_START, ERROR): _FAILED,
    (_RESPONDING, DATA): _RESPONDING,
    (_RESPONDING, END): _DONE,
    (_RESPONDING, TRAILERS): _TRAILED,
    (_TRAILED, END): _DONE,
    (_FAILED, END): _DONE,
    # _ASKED is the start of a session that was asked for as a WebSocket.
    (_ASKED, INTERIM): _ASKED,
    (_ASKED, HEAD): _RESPONDING,
    (_ASKED, ERROR): _FAILED,
    (_ASKED, ACCEPT): _RAW,
    # Behind a head of status 101; as any other it may also be a response, which is then the application's error.
    (_SWITCHING, UPGRADE): _RAW,
    (_SWITCHING, DATA): _RESPONDING,
    (_SWITCHING, END): _DONE,
    # The application writes its response, head and all, by itself.
    (_START, UPGRADE): _RAW,
}
_SWITCHES: Final = b"101\0"


def encode_request(pairs: bytes, body: bytes = b"") -> bytes:
    """A request whose body (at most one frame) is known: ``H``, ``D`` if there is any, ``E``.

    :raises ValueError: the head is longer than ``MAX_HEAD``, or the body longer than ``MAX_FRAME``.
    """
    if len(pairs) > MAX_HEAD:
        raise ValueError("a request head for a worker is at most 128 KiB")
    if body:
        if len(body) > MAX_FRAME:
            raise ValueError("a body frame is 1 byte to 16 MiB")
        return b"".join((b"H", _pack(len(pairs)), pairs, b"D", _pack(len(body)), body, BODY_END))
    return b"".join((b"H", _pack(len(pairs)), pairs, BODY_END))


def encode_head(pairs: bytes) -> bytes:
    """A request head alone; body frames and ``BODY_END`` follow."""
    if len(pairs) > MAX_HEAD:
        raise ValueError("a request head for a worker is at most 128 KiB")
    return b"".join((b"H", _pack(len(pairs)), pairs))


def encode_data(data: bytes) -> bytes:
    """One body frame.

    :raises ValueError: ``data`` is not 1 to ``MAX_FRAME`` bytes; a worker closes the stream for such a frame.
    """
    if not 0 < len(data) <= MAX_FRAME:
        raise ValueError("a body frame is 1 byte to 16 MiB")
    return b"".join((b"D", _pack(len(data)), data))


def encode_data_head(size: int) -> bytes:
    """The prefix of a body frame of ``size`` bytes, for bytes that are sent without passing through this module."""
    return b"D" + _pack(size)


def read_whole_response(data: bytes) -> tuple[bytes, bytes, int] | None:
    """(payload of ``R``, body, flags) when ``data`` is exactly one whole response with at most one ``D`` frame; else None.

    None says nothing about the bytes: ``ResponseReader`` judges them.
    """
    size = len(data)
    if size < 10 or data[0] != HEAD:
        return None
    position = 5 + _unpack_from(data, 1)[0]
    if position + 5 > size or position > MAX_HEAD + 5:
        return None
    head = data[5:position]
    body = b""
    if data[position] == DATA:
        start = position + 5
        position = start + _unpack_from(data, position + 1)[0]
        if position + 5 > size or position - start > MAX_FRAME:
            return None
        body = data[start:position]
        if not body:
            return None
    if data[position] != END:
        return None
    flags_size = size - position - 5
    if flags_size > 1 or _unpack_from(data, position + 1)[0] != flags_size:
        return None
    return head, body, data[position + 5] if flags_size else 0


class ResponseReader:
    """Reads the frames of one session's response.

    ``feed`` takes bytes, ``next_event`` gives ``(type, payload)`` or None when more bytes are needed: ``(INTERIM, payload)``,
    ``(HEAD, payload)``, ``(DATA, piece)``, ``(ERROR, payload)``, ``(TRAILERS, payload)``, ``(END, flags as one byte or empty)``, ``(UPGRADE, empty)``,
    ``(ACCEPT, payload)``. ``END``, ``UPGRADE`` and ``ACCEPT`` are the last event. ``take_rest`` gives the bytes behind them.

    :param websocket: whether a WebSocket was asked for, so that ``ACCEPT`` may come.
    """

    __slots__ = ("_buffer", "_piece", "_remaining", "_state", "begun", "pieces")

    def __init__(self, *, websocket: bool = False) -> None:
        self._buffer = bytearray()
        self._piece = b""
        self._remaining = 0
        """Bytes of the current ``D`` frame that have not arrived yet."""
        self._state = _ASKED if websocket else _START
        self.begun = False
        """Whether any byte has arrived, even of an interim response (R30: no retry after that)."""
        self.pieces = 0
        """The work of reading so far, counted in small frames."""

    ends_with_stream = False

    @property
    def complete(self) -> bool:
        return self._state == _DONE

    def feed(self, data: bytes) -> None:
        """:raises MalformedResponse: bytes after the end of the response."""
        if self._state == _DONE and data:
            raise MalformedResponse("the process sent bytes after the end of its response")
        if data:
            self.begun = True
        if self._remaining and not self._piece and not self._buffer and len(data) <= self._remaining:
            self._piece = data  # the middle of a body: no copy
        else:
            self._buffer += data

    def feed_eof(self, broken: bool = False) -> None:
        """The stream has ended.

        :param broken: not used here, because only ``E`` ends a response.
        :raises IncompleteResponse: the response is not whole.
        """
        if self._state not in (_DONE, _RAW):
            raise IncompleteResponse(
                "the process closed the connection before it answered"
                if not self.begun
                else "the process closed the connection in the middle of its response"
            )

    def take_body(self, view: memoryview) -> tuple[list[memoryview], int]:
        """For large bodies: the body pieces at the front of ``view`` (at most ``RUN``), which are not copied, and how many bytes of ``view`` they and the heads
        of their frames take.

        Give the rest to ``feed``, which also finds errors. Takes nothing while fed bytes are left.
        """
        if self._buffer or self._piece or self._state != _RESPONDING:
            return [], 0
        return self._body(view)

    def take_piece(self, data: bytes) -> bytes:
        """The body piece that is all of ``data``, which is one whole frame. ``b""``: it is anything else, and nothing was taken."""
        if (
            self._remaining
            or self._buffer
            or self._piece
            or self._state != _RESPONDING
            or data[0] != DATA
            or not 5 < len(data) <= MAX_FRAME
            or _unpack_from(data, 1)[0] != len(data) - 5
        ):
            return b""
        self.pieces += 1
        return data[5:]

    def _body(self, view: _View) -> tuple[list[_View], int]:
        """The body pieces at the front of ``view``, and how many bytes they and the heads of their frames take."""
        pieces: list[_View] = []
        at, end = 0, len(view)
        remaining = self._remaining
        while at < end and len(pieces) < RUN:
            if not remaining:
                if view[at] != DATA or end - at < 5:
                    break
                remaining = _unpack_from(view, at + 1)[0]
                if not 0 < remaining <= MAX_FRAME:
                    remaining = 0
                    break
                at += 5
                continue
            piece = view[at : at + remaining]
            pieces.append(piece)
            at += len(piece)
            remaining -= len(piece)
        self._remaining = remaining
        self.pieces += len(pieces)
        return pieces, at

    def next_event(self) -> tuple[int, bytes] | None:
        """:raises MalformedResponse: the bytes do not follow the contract."""
        if self._piece:
            piece, self._piece = self._piece, b""
            self._remaining -= len(piece)
            self.pieces += 1
            return DATA, piece
        buffer = self._buffer
        if self._state == _RAW or not buffer:
            return None
        if self._state == _RESPONDING:
            pieces, at = self._body(buffer)
            if at:
                del buffer[:at]
                return (DATA, b"".join(pieces)) if pieces else None
        kind = buffer[0]
        follows = _FOLLOWS.get((self._state, kind))
        if follows is None:
            raise MalformedResponse(
                f"the process sent a frame of type 0x{kind:02x} where the session protocol has none"
            )
        if len(buffer) < 5:
            return None
        length = _unpack_from(buffer, 1)[0]
        if length > _LIMITS[kind] or (kind == DATA and length == 0):
            raise MalformedResponse(f"the process sent a frame of type 0x{kind:02x} with {length} bytes")
        if kind == DATA:  # the first one behind a head of status 101: it is a response
            self._state = follows
            return self.next_event()
        if len(buffer) < 5 + length:
            return None
        payload = bytes(buffer[5 : 5 + length])
        del buffer[: 5 + length]
        if kind == HEAD and payload.startswith(_SWITCHES):
            follows = _SWITCHING
        self._state = follows
        self.pieces += INTERIM_COST if kind == INTERIM else 1
        if follows == _DONE and buffer:
            raise MalformedResponse("the process sent bytes after the end of its response")
        return kind, payload

    def take_rest(self) -> bytes:
        """The raw bytes behind an upgrade, which are in no frame."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


def is_end_of_oob_work(data: bytes) -> bool:
    """Whether ``data`` is the whole answer to ``OOB_WORK_FRAME``.

    :raises MalformedResponse: the answer is another frame, or more than one.
    """
    if not BODY_END.startswith(data[:5]):
        flagged = data[:5] == b"E\0\0\0\1"
        if not flagged and not b"E\0\0\0\1".startswith(data):
            raise MalformedResponse("the process answered an order for out-of-band work with something else")
        return flagged and _is_whole(data, 6)
    return _is_whole(data, 5)


def _is_whole(data: bytes, size: int) -> bool:
    if len(data) > size:
        raise MalformedResponse("the process sent bytes behind the end of its out-of-band work")
    return len(data) == size


def split_application_error(payload: bytes) -> tuple[str, str, str]:
    """(class, message, traceback) from the payload of an ``X`` frame.

    :raises MalformedResponse: it does not hold three NUL-terminated texts.
    """
    parts = payload.split(b"\0")
    if len(parts) != 4 or parts[3]:
        raise MalformedResponse("the process reported an error in a form that the session protocol does not have")
    name, message, traceback = (part.decode("utf-8", "replace") for part in parts[:3])
    return name, message, traceback
