"""The lines of a response head, which all writers of responses make in the same way.

All responses have the same shape: status line, the application's fields in order, ``Date`` and ``Server`` if
the application set none, then framing and ``Connection``. So a response does not show which reader parsed the
request.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["NO_BODY", "SERVER", "status_line", "with_standard_fields"]

SERVER = b"passenger_trio"
#: Statuses whose responses never have a body (R23; RFC 9110 6.4.1). The interim ones have their own writer.
NO_BODY = frozenset((204, 304))

_DATE, _SERVER = 1, 2
_STANDARD = {b"date": _DATE, b"server": _SERVER}
_MOST_KNOWN, _LONGEST_KNOWN = 1024, 64


class _Flags(dict[bytes, int]):
    """Field name as written -> whether it is one of the standard fields."""

    def __missing__(self, name: bytes) -> int:
        flag = _STANDARD.get(name.lower(), 0)
        if len(name) <= _LONGEST_KNOWN:
            if len(self) >= _MOST_KNOWN:
                self.clear()
            self[name] = flag
        return flag


_FLAGS = _Flags()
_STATUS_LINES: dict[tuple[int, bytes], bytes] = {}


def status_line(status: int, reason: bytes) -> bytes:
    """``HTTP/1.1 200 OK`` without its CRLF. The version is always our own (RFC 9112 2.3)."""
    line = _STATUS_LINES.get((status, reason))
    if line is None:
        line = b"HTTP/1.1 %d %s" % (status, reason)
        if len(reason) <= _LONGEST_KNOWN:
            if len(_STATUS_LINES) >= _MOST_KNOWN:
                _STATUS_LINES.clear()
            _STATUS_LINES[status, reason] = line
    return line


def with_standard_fields(fields: Iterable[tuple[bytes, bytes]], date: bytes) -> list[tuple[bytes, bytes]]:
    """The fields, and ``Date`` and ``Server`` if they are not among them (RFC 9110 6.6.1, 10.2.4)."""
    out = list(fields)
    dated = served = False
    for name, _ in out:
        flag = _FLAGS[name]
        if flag == _DATE:
            dated = True
        elif flag == _SERVER:
            served = True
    if not dated:
        out.append((b"Date", date))
    if not served:
        out.append((b"Server", SERVER))
    return out
