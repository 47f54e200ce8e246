"""Where a server's WebSocket frames end, for a relay that may have to close the connection on the application's behalf.

A Close frame may stand between two frames of a side, also between the fragments of a message, and nowhere else
(RFC 6455 section 5.4). So the header of each frame is parsed. Nothing is changed, kept or refused. Bytes that
are not a server's frames stop the parsing, and then no Close frame is sent.
"""

from __future__ import annotations

__all__ = ["FrameEnds", "close_frame"]

_CLOSE = 8
_MOST_HEAD = 65536
"""If the head of a response is longer than so many bytes, its end is no longer searched."""


def close_frame(code: int) -> bytes:
    """A Close frame of a server, without a reason."""
    return b"\x88\x02" + code.to_bytes(2, "big")


class FrameEnds:
    """:param with_head: whether the bytes begin with the head of a response, which the application has written by itself."""

    __slots__ = ("_head", "_in_response", "_left", "between", "frames")

    def __init__(self, *, with_head: bool = False) -> None:
        self._in_response = with_head
        self._head = b""
        """The head of the response or of a frame, as far as it has arrived."""
        self._left = 0
        """Bytes that are missing of the frame whose header has arrived."""
        self.frames = 0
        """Frames whose header was parsed. (Short frames that arrive alone are not counted.)"""
        self.between = not with_head
        """Whether a Close may follow: the bytes so far end where a frame ends, and no frame was a Close."""

    def feed(self, data: bytes | memoryview) -> None:
        size = len(data)
        if self.between and size > 1 and data[1] < 126 and data[1] + 2 == size and data[0] & 0x0F != _CLOSE:
            return  # one short frame, whole: nearly all are
        self._feed(data)

    def _feed(self, data: bytes | memoryview) -> None:
        if self._left < 0:
            return
        at, size = 0, len(data)
        if self._in_response:
            before = len(self._head)
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                if len(self._head) > _MOST_HEAD:
                    self._lose()
                return
            at = end + 4 - before
            switched = self._head.startswith(b"HTTP/1.1 101 ")
            self._in_response, self._head = False, b""
            if not switched:
                self._lose()
                return
        while at < size:
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
                continue
            wanted = _header_size(self._head)
            piece = data[at : at + wanted - len(self._head)]
            self._head += piece
            at += len(piece)
            if len(self._head) == wanted == _header_size(self._head):
                if self._head[1] & 0x80 or self._head[0] & 0x0F == _CLOSE:
                    self._lose()
                    return
                self._left = int.from_bytes(self._head[2:], "big") if wanted > 2 else self._head[1]
                self._head = b""
                self.frames += 1
        self.between = not self._left and not self._head

    def _lose(self) -> None:
        self._left, self.between = -1, False


def _header_size(begun: bytes) -> int:
    """The size of the header that begins with these bytes, as far as they show it."""
    return {126: 4, 127: 10}.get(begun[1] & 0x7F, 2) if len(begun) > 1 else 2
