"""The frames of the session protocol (CONTRACT.md, section 3): a type byte, a 32-bit length, and the payload."""

import struct

MAX_HEAD = 128 * 1024
MAX_FRAME = 16 * 1024 * 1024
frame = struct.Struct(">BI")
start = frame.pack
HEAD, DATA, END, ABORT, ERROR = b"HDEAX"
INTERIM, ACCEPT, TEXT, BINARY, CLOSE, TRAILERS = b"IWTBCL"
LIMITS = {
    HEAD: (1, MAX_HEAD),
    DATA: (1, MAX_FRAME),
    END: (0, 0),
    ABORT: (0, 0),
    TEXT: (0, MAX_FRAME),
    BINARY: (0, MAX_FRAME),
    CLOSE: (0, 125),
}
"""Frames to a worker: least and greatest length."""
RESPONSE = ord("R")
THE_END = start(END, 0)
THE_LAST = start(END, 1) + b"\1"
"""The end of a response, and of the stream."""
THE_ABORT = start(ABORT, 0)


def whole_response(head, body):
    return start(RESPONSE, len(head)) + head + start(DATA, len(body)) + body + THE_LAST


BLOCK = 65536
"""Bytes asked from the kernel at a time. A body up to this size is copied next to its head, to be one write."""
