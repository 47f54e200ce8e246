"""The stream of orders and reports between the owner and a front, beside the channel of leases (FR5).

Sans-I/O. A frame is four bytes of length and so many bytes. Orders go to the front and are pickled: a front trusts the owner. Reports
come from it and are JSON objects, read strictly: a front parses bytes of clients, so the owner does not trust it.

    ======== ==================================================================================
    report   members
    ======== ==================================================================================
    serving  none: the front can accept connections
    log      level, logger, event, extra, traceback: one record of its log
    answer   number, told: what it was asked for, an object
    drained  none: every connection has ended
    explain  number, group, environment, pid, ends: a request failed, and what does the pool know of it
    ======== ==================================================================================

Law: whole or byte by byte, the same frames; what is no report raises ``BadFrontMessage``.
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
    """What a front may be asked for."""

    FACTS = "facts"
    """Counters for ``status`` (``server/front_statistics.py``)."""
    REQUESTS = "requests"
    COUNTS = "counts"
    """For the metrics (``core/fronts/front_metrics.py``)."""


@frozen
class Accept:
    """The server serves: accept connections."""


@frozen
class Drain:
    """No connection serves another request after its current one; the front goes on accepting."""


@frozen
class Resume:
    """Keep connections alive again."""


@frozen
class ReopenLogs:
    """After a rotation."""


@frozen
class Stop:
    """Accept no more, drain, and end."""

    grace: float
    """Seconds for what is under way."""


@frozen
class Ask:
    """Tell something."""

    number: int
    what: Asked
    begin: int = 0
    """Of counts: the number of the first application of this part (``FrontMetrics.PART``)."""


@frozen
class Explained:
    """The answer to ``Explain``. :ivar evidence: None: nothing is known, or the front may not know it."""

    number: int
    evidence: Evidence | None


@frozen
class Served:
    """What a front serves, and by which options."""

    config: Config
    """With this front's part of the limits."""
    routes: tuple[tuple[GroupKey, AppOptions], ...]
    keys: tuple[GroupKey, ...]
    """Every application that was ever served, in the order in which they came: counts are told in this order."""
    sessions: int
    """The most sessions at the same time; 0: no limit."""
    max_pool_size: int
    log_level: int


@frozen
class Reconfigure:
    """Serve this from now on. It is answered, with an empty object, when no request goes by what was served before."""

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
    """What a front was asked for."""

    number: int
    told: dict[str, Any]


@frozen
class Drained:
    """Every connection of the front has ended."""


@frozen
class Explain:
    """A request failed, and its page shows what the pool knows of it (OB10)."""

    number: int
    group: GroupKey
    pid: int
    """Of the process that had it; 0: none had."""
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
    """:raises BadFrontMessage: it is none."""
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
    """Cuts frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def frames(self) -> Iterator[bytes]:
        """The frames that are here whole.

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
