"""The frames of the session protocol (CONTRACT.md, section 3): a type byte, a 32-bit length, and the payload.

This is the only parser of the bytes that the supervisor sends on a worker's socket. It does no I/O: its caller feeds the received
bytes, and asks for frames until there are no more.

Laws:

* The same bytes give the same payloads, whole or in any pieces, one byte at a time included.
* Garbage is rejected early: a type as soon as its byte has arrived, a length as soon as its four bytes have.
* Bodies and messages are given out as they come. Heads and closes, which are short, are given out whole.
"""

import struct

MAX_HEAD = 128 * 1024
MAX_FRAME = 16 * 1024 * 1024
BLOCK = 65536
"""Bytes asked from the kernel at a time. A body up to this size is copied next to its head, to be one write."""

PREFIX = struct.Struct(">BI")
frame_prefix = PREFIX.pack
read_prefix = PREFIX.unpack_from
PREFIX_SIZE = PREFIX.size

HEAD, DATA, END, ABORT, ERROR, OOB_WORK = b"HDEAXO"
RESPONSE, INTERIM, ACCEPT, TEXT, BINARY, CLOSE, TRAILERS = b"RIWTBCL"
LIMITS = {
    HEAD: (1, MAX_HEAD),
    DATA: (1, MAX_FRAME),
    END: (0, 0),
    ABORT: (0, 0),
    TEXT: (0, MAX_FRAME),
    BINARY: (0, MAX_FRAME),
    CLOSE: (0, 125),
    OOB_WORK: (0, 0),
}
"""Frames to a worker: least and greatest length."""
NEVER_CUT = (HEAD, CLOSE)
HEAD_ONLY = bytes((HEAD,))
BETWEEN_SESSIONS = bytes((HEAD, OOB_WORK))

END_FRAME = frame_prefix(END, 0)
CLOSING_END_FRAME = frame_prefix(END, 1) + b"\1"
"""The end of a response, and of the stream."""
ABORT_FRAME = frame_prefix(ABORT, 0)
OOB_WORK_FRAME = frame_prefix(OOB_WORK, 0)


class ProtocolViolation(Exception):
    """The bytes break the contract. The stream is closed without an answer."""


class FrameReader:
    """Frames out of bytes that come in any pieces."""

    __slots__ = ("_at", "_data", "_left", "_type")

    def __init__(self, data=b""):
        self._data = data
        self._at = 0
        self._type = 0
        """Type of the frame that is given out in pieces,"""
        self._left = 0
        """and bytes of it that have not been given out."""

    def feed(self, data):
        """Add received bytes."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def next_frame(self, expected):
        """The next frame, or a piece of it: (type, payload, whether that is its end). None: more bytes are needed.

        :param expected: the types that may come now, as bytes. Not asked in the middle of a frame.
        :raises ProtocolViolation:
        """
        data = self._data
        at = self._at
        size = len(data)
        if at == size:
            self._data = b""  # A stream that waits for its next head holds no memory.
            self._at = 0
            return None
        left = self._left
        if left:
            kind = self._type
            end = at + left
        else:
            kind = data[at]
            if kind not in expected:
                raise ProtocolViolation("the frame type %r is not expected here" % data[at : at + 1])
            if size - at < PREFIX_SIZE:
                return None
            _, length = read_prefix(data, at)
            least, most = LIMITS[kind]
            if not least <= length <= most:
                raise ProtocolViolation("a frame of type %r has a length of %d" % (data[at : at + 1], length))
            payload = at + PREFIX_SIZE
            end = payload + length
            if end > size and (payload == size or kind in NEVER_CUT):
                return None
            at = payload
        if end <= size:
            self._at = end
            self._left = 0
            return kind, data[at:end], True
        self._at = size
        self._left = end - size
        self._type = kind
        return kind, data[at:] if at else data, False

    @property
    def is_between_frames(self):
        """Whether no frame has arrived only in part."""
        return not self._left and self._at == len(self._data)

    def take_rest(self):
        """The bytes behind the last frame that was given out. This reader forgets them."""
        rest = self._data[self._at :]
        self._data = b""
        self._at = 0
        return rest


def closing_response(head, body):
    """A response and the end of its stream, as one write."""
    return frame_prefix(RESPONSE, len(head)) + head + frame_prefix(DATA, len(body)) + body + CLOSING_END_FRAME
