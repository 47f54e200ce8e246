"""Lines that end in CRLF, cut from bytes that come in any pieces; and the grammar of a field line.

``LineScan`` looks at each byte once. What is wrong is found at the byte that makes it wrong, and that byte is
the same whether the bytes come together or one by one: a line is too long at the first byte beyond its limit,
a control character is refused where it stands, a CR when its successor is not LF, an LF when its predecessor
was not CR (R1, R7). Only what needs a whole line is decided at the end of the line. So the verdict on a
stream of bytes does not depend on its pieces.
"""

from __future__ import annotations

import re

from passenger_trio.codecs.refusals import refuse

__all__ = ["TOKEN", "LineScan", "read_field"]

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CR, _LF = 0x0D, 0x0A


class LineScan:
    """Cuts lines. ``buffer`` holds all that was fed, ``start`` is where the next line begins in it."""

    __slots__ = ("buffer", "seen", "start")

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.start = 0
        self.seen = 0

    def feed(self, data: bytes) -> None:
        self.buffer += data

    def next_line(self, limit: int, too_long: str) -> bytes | None:
        """The next line without its CRLF, or None when it is not there yet.

        :param limit: most bytes of the line, its CRLF not counted.
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
