"""Lines that end in CRLF, from bytes in any split; and the grammar of a field line.

``LineScan`` looks at each byte once. An error is found at the byte that causes it, however the bytes are
split: a line is too long at the first byte beyond its limit; a control character is refused at its position,
a CR when the next byte is not LF, an LF when the previous byte was not CR (R1, R7). Checks that need the whole
line run at its end. So the result for a stream of bytes does not depend on the split.
"""

from __future__ import annotations

import re

from passenger_trio.codecs.refusals import refuse

__all__ = ["TOKEN", "LineScan", "read_field"]

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CR, _LF = 0x0D, 0x0A


class LineScan:
    """Cuts bytes into lines. ``buffer`` holds all bytes that were fed; ``start`` is where the next line begins in it."""

    __slots__ = ("buffer", "seen", "start")

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.start = 0
        self.seen = 0

    def feed(self, data: bytes) -> None:
        self.buffer += data

    def next_line(self, limit: int, too_long: str) -> bytes | None:
        """The next line without its CRLF; None if it has not arrived yet.

        :param limit: the most bytes of the line, without its CRLF.
        :param too_long: the refusal when it is longer.
        :raises RequestError: bare_lf, bare_cr, control_byte, or ``too_long`` (R1, R7, R8).
        """
        buffer, start = self.buffer, self.start
        found = _CONTROL.search(buffer, self.seen)
        stop = len(buffer) if found is None else found.start()
        if stop - start > limit:
            raise refuse(too_long)
        self.seen = stop
        if found is None:
            return None
        byte = buffer[stop]
        if byte == _LF:
            raise refuse("bare_lf")
        if byte != _CR:
            raise refuse("control_byte")
        if stop + 1 == len(buffer):
            return None
        if buffer[stop + 1] != _LF:
            raise refuse("bare_cr")
        self.start = self.seen = stop + 2
        return bytes(buffer[start:stop])


def read_field(line: bytes) -> tuple[bytes, bytes]:
    """Name and value of a field line that ``LineScan`` has cut. The value loses SP and HTAB at its ends,
    nothing else.

    :raises RequestError: the line is no field line (R7; RFC 9112 5.1, 5.2).
    """
    name, colon, value = line.partition(b":")
    if TOKEN.fullmatch(name) and colon:
        return name, value.strip(b" \t")
    if line[:1] in (b" ", b"\t"):
        raise refuse("obs_fold")
    if not colon:
        raise refuse("missing_colon")
    if not name:
        raise refuse("empty_name")
    if name[-1:] in (b" ", b"\t"):
        raise refuse("space_before_colon")
    raise refuse("bad_name")
