"""The stream of orders and reports between the owner and a front, beside the channel of leases (FR5).

Sans-I/O. A frame is a length of four bytes and so many bytes. Orders go to the front and are pickled, because a front trusts the owner. Reports
come from the front. They are JSON objects and are read strictly, because a front parses bytes of clients, so the owner does not trust it.

    ======== ==================================================================================
    report   members
    ======== ==================================================================================
    serving  none: the front can accept connections
    log      level, logger, event, extra, traceback: one record of its log
    answer   number, told: the answer to ``Ask``, an object
    drained  none: every connection has ended
    explain  number, group, environment, pid, ends: asks what the pool knows of a request that failed
    ======== ==================================================================================

Law: the same bytes give the same frames, however they are split. Bytes that are no report raise ``BadFrontMessage``.
"""

from __future__ import annotations

import enum
import json
import pickle
import re
import struct
from collections.abc import Iterator
from typing import Any

import attrs

from passenger_trio.core.evidence import Evidence
from passenger_trio.core.model import GroupKey
from passenger_trio.errors import BadFrontMessage
from passenger_trio.late_classes import frozen
from passenger_trio.options import AppOptions, Config

__all__ = [
    "Accept",
    "Answer",
    "Ask",
    "Asked",
    "Drain",
    "Drained",
    "Explain",
    "Explained",
    "FrameReader",
    "Line",
    "Order",
    "Reconfigure",
    "ReopenLogs",
    "Report",
    "Resume",
    "Served",
    "Serving",
    "Stop",
    "encode_answer",
    "encode_drained",
    "encode_explain",
    "encode_line",
    "encode_order",
    "encode_serving",
    "frame",
    "read_order",
    "read_report",
]

MAX_FRAME = 16 * 1024**2
_HEAD = struct.Struct("!I")
_LOGGER = re.compile(r"passenger_trio(\.[a-z_]{1,40}){0,4}")
_NAME = re.compile(r"[a-z][a-z_]{0,40}")
_LEVELS = (10, 20, 30, 40, 50)


# --- orders, to a front -----------------------------------------------------------------------------------------------


class Asked(enum.Enum):
    """What the owner may ask a front for."""

    FACTS = "facts"
    """Counters for ``status`` (``server/front_statistics.py``)."""
    REQUESTS = "requests"
    COUNTS = "counts"
    """For the metrics (``core/fronts/front_metrics.py``)."""


@frozen
class Accept:
    """Accept connections."""


@frozen
class Drain:
    """Let no connection serve another request after its current one. The front goes on accepting."""


@frozen
class Resume:
    """Keep connections alive again."""


@frozen
class ReopenLogs:
    """Open the access log again, after a rotation."""


@frozen
class Stop:
    """Accept no more connections, drain, and end."""

    grace: float
    """Seconds for requests in flight."""


@frozen
class Ask:
    """Answer a question."""

    number: int
    what: Asked
    begin: int = 0
    """For ``COUNTS``: the number of the first application of this part (``front_metrics.PART``)."""


@frozen
class Explained:
    """The answer to ``Explain``. :ivar evidence: None: nothing is known, or the front may not know it."""

    number: int
    evidence: Evidence | None


@frozen
class Served:
    """What a front serves, and by which options."""

    config: Config
    """With this front's share of the limits."""
    routes: tuple[tuple[GroupKey, AppOptions], ...]
    keys: tuple[GroupKey, ...]
    """Every application that was ever served, in the order in which they came, which is the order of counts."""
    sessions: int
    """The most sessions at the same time; 0: no limit."""
    max_pool_size: int
    log_level: int


@frozen
class Reconfigure:
    """Serve this from now on. The front answers with an empty object when no request uses the old configuration any more."""

    number: int
    served: Served


Order = Accept | Drain | Resume | ReopenLogs | Stop | Ask | Explained | Reconfigure


def encode_order(order: Order) -> bytes:
    return frame(pickle.dumps(order))


def read_order(payload: bytes) -> Order:
    order: Order = pickle.loads(payload)
    return order


# --- reports, of a front ----------------------------------------------------------------------------------------------


@frozen
class Serving:
    """The front can accept connections."""


@frozen
class Line:
    """A record of the front's log."""

    level: int
    logger: str
    event: str
    extra: dict[str, str | int | float | bool | None]
    traceback: str


@frozen
class Answer:
    """The answer to ``Ask``."""

    number: int
    told: dict[str, Any]


@frozen
class Drained:
    """Every connection of the front has ended."""


@frozen
class Explain:
    """Asks what the pool knows of a request that failed, for its error page (OB10)."""

    number: int
    group: GroupKey
    pid: int
    """The pid of the process that had the request; 0: none had it."""
    ends: bool
    """Whether the process seems to end."""


Report = Serving | Line | Answer | Drained | Explain


def encode_serving() -> bytes:
    return _json({"report": "serving"})


def encode_drained() -> bytes:
    return _json({"report": "drained"})


def encode_line(line: Line) -> bytes:
    return _json({"report": "log", **attrs.asdict(line)})


def encode_explain(asked: Explain) -> bytes:
    group = {"group": asked.group.name, "environment": asked.group.environment}
    return _json({"report": "explain", "number": asked.number, **group, "pid": asked.pid, "ends": asked.ends})


def encode_answer(answer: Answer) -> bytes:
    return _json({"report": "answer", **attrs.asdict(answer)})


def read_report(payload: bytes) -> Report:
    """Decode a report.

    :raises BadFrontMessage: the payload is no report.
    """
    try:
        members = json.loads(payload)
    except (ValueError, RecursionError):
        raise BadFrontMessage("a front sent a report that is not JSON") from None
    if not isinstance(members, dict):
        raise BadFrontMessage("a front sent a report that is not an object")
    kind = members.pop("report", None)
    if kind == "serving" and not members:
        return Serving()
    if kind == "drained" and not members:
        return Drained()
    if kind == "log" and members.keys() == {"level", "logger", "event", "extra", "traceback"}:
        return _read_line(members)
    if kind == "answer" and members.keys() == {"number", "told"}:
        number, told = members["number"], members["told"]
        if type(number) is int and isinstance(told, dict):
            return Answer(number, told)
    if kind == "explain" and members.keys() == {"number", "group", "environment", "pid", "ends"}:
        number, name, environment, pid, ends = (
            members[member] for member in ("number", "group", "environment", "pid", "ends")
        )
        numbers = type(number) is int and type(pid) is int and pid >= 0 and isinstance(ends, bool)
        if numbers and isinstance(name, str) and isinstance(environment, str):
            return Explain(number, GroupKey(name, environment), pid, ends)
    raise BadFrontMessage("a front sent a report that no front sends")


def _read_line(members: dict[str, Any]) -> Line:
    extra = members["extra"]
    if (
        members["level"] not in _LEVELS
        or type(members["level"]) is not int
        or not isinstance(members["logger"], str)
        or not _LOGGER.fullmatch(members["logger"])
        or not isinstance(members["event"], str)
        or not isinstance(members["traceback"], str)
        or not isinstance(extra, dict)
        or not all(_NAME.fullmatch(name) for name in extra)
        or not all(value is None or isinstance(value, str | int | float) for value in extra.values())
    ):
        raise BadFrontMessage("a front sent a line of a log that no front sends")
    return Line(**members)


# --- frames -----------------------------------------------------------------------------------------------------------


def frame(payload: bytes) -> bytes:
    return _HEAD.pack(len(payload)) + payload


def _json(members: dict[str, Any]) -> bytes:
    return frame(json.dumps(members, separators=(",", ":")).encode())


class FrameReader:
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def frames(self) -> Iterator[bytes]:
        """The frames that have arrived completely.

        :raises BadFrontMessage: one is longer than ``MAX_FRAME``.
        """
        buffer = self._buffer
        while len(buffer) >= _HEAD.size:
            (size,) = _HEAD.unpack_from(buffer)
            if size > MAX_FRAME:
                raise BadFrontMessage(f"a front sent a report of {size} bytes")
            if len(buffer) < _HEAD.size + size:
                return
            payload = bytes(buffer[_HEAD.size : _HEAD.size + size])
            del buffer[: _HEAD.size + size]
            yield payload
