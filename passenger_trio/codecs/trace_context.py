"""W3C Trace Context: the fields ``traceparent`` and ``tracestate``, read strictly and written (OB4).

Laws: an invalid value gives None as a whole. Reading and writing a value keeps the
trace. Of a later version the first four parts are read (section 3.2.4). A field that occurs twice counts as missing, because
it is unknown which one is meant.

Sans-I/O, without randomness: the caller passes the numbers of a new trace."""

from __future__ import annotations

import re
from collections.abc import Sequence

from passenger_trio.late_classes import frozen

__all__ = [
    "MOST_MEMBERS",
    "TraceParent",
    "new_traceparent",
    "read_trace",
    "read_traceparent",
    "read_tracestate",
    "without_trace",
]

Fields = Sequence[tuple[bytes, bytes]]

MOST_MEMBERS = 32
"""The most members of a ``tracestate`` (section 3.3.1.1)."""

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]*)?")
_KEY = rb"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_MEMBER = re.compile(rb"(%s)=([ -+\--<>-~]{0,255}[!-+\--<>-~])" % _KEY)
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_SAMPLED = 1
_NAMES = {11: b"traceparent", 10: b"tracestate"}


@frozen
class TraceParent:
    """A position in a trace.

    :ivar trace_id: 32 lower-case hexadecimal digits, not all 0.
    :ivar span_id: 16 such digits: the caller's span, which is the parent of ours.
    :ivar flags: one byte; 1: the caller may have recorded it.
    """

    trace_id: str
    span_id: str
    flags: int

    @property
    def sampled(self) -> bool:
        """Whether the caller may have recorded it."""
        return bool(self.flags & _SAMPLED)

    def encode(self) -> bytes:
        """The field's value, in version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}".encode("ascii")


def new_traceparent(trace: int, span: int) -> TraceParent:
    """:param trace: 128 random bits. :param span: 64 of them. (All bits 0 mean "none", and become 1.)"""
    return TraceParent(f"{trace or 1:032x}", f"{span or 1:016x}", _SAMPLED)


def read_traceparent(value: bytes) -> TraceParent | None:
    """Parse a ``traceparent`` (section 3.2); None: it is invalid."""
    match = _PARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, span_id, flags = (part.decode("ascii") for part in match.groups()[:4])
    if version == "ff" or (version == "00" and match[5] is not None) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceParent(trace_id, span_id, int(flags, 16))


def read_tracestate(value: bytes) -> list[tuple[str, str]] | None:
    """The members of a ``tracestate`` (section 3.3), in order, without empty ones; None: it is invalid.

    Join several fields by commas first.
    """
    members: dict[str, str] = {}
    for part in value.split(b","):
        member = part.strip(b" \t")
        if not member:
            continue
        match = _MEMBER.fullmatch(member)
        if match is None or len(members) == MOST_MEMBERS or (key := match[1].decode("ascii")) in members:
            return None
        members[key] = match[2].decode("ascii")
    return list(members.items())


def read_trace(fields: Fields) -> tuple[TraceParent | None, list[tuple[str, str]], bool]:
    """(Position, ``tracestate``, whether both may be passed on unchanged), from a request's fields.

    Without a position there is no ``tracestate``. An invalid ``tracestate`` is dropped without the position (section 3.3.1.4).
    """
    said: dict[bytes, list[bytes]] = {b"traceparent": [], b"tracestate": []}
    for name, value in fields:
        wanted = _NAMES.get(len(name))
        if wanted is not None and name.lower() == wanted:
            said[wanted].append(value)
    parents, states = said.values()
    parent = read_traceparent(parents[0]) if len(parents) == 1 else None
    if parent is None:
        return None, [], not (parents or states)
    members = read_tracestate(b",".join(states))
    return parent, members or [], members is not None


def without_trace(fields: Fields) -> list[tuple[bytes, bytes]]:
    """The fields without ``traceparent`` and ``tracestate``."""
    return [field for field in fields if field[0].lower() not in _NAMES.values()]
