"""The control connection between supervisor and loader: lines of JSON (``spawn_servers/CONTRACT.md``, section 2).

Sans-I/O: bytes in, frozen messages out. Type, size, order and magnitude of everything a loader sends are
checked. A message outside the contract raises ``SpawnServerError``, which names the member. Splitting the
bytes differently gives the same messages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from passenger_trio.core.fork_safety import Hazard
from passenger_trio.core.model import ErrorCategory
from passenger_trio.errors import SpawnServerError
from passenger_trio.late_classes import frozen

__all__ = [
    "CONTRACT_VERSION",
    "MAX_LINE",
    "AppEvent",
    "Backtrace",
    "ChildExited",
    "Failed",
    "ForkFailed",
    "Forked",
    "Hello",
    "LineReader",
    "Message",
    "Ready",
    "SocketSpec",
    "StepReport",
    "encode_backtrace",
    "encode_fork",
    "encode_options",
    "encode_serve",
    "encode_shutdown",
]

CONTRACT_VERSION: Final = 1
MAX_LINE: Final = 65536
"""Longest line, its newline included, in bytes."""

_MAX_SOCKETS = 16
_MAX_HAZARDS = 64
_MAX_HAZARD_TEXT = 500
_MAX_DEPTH = 8
"""Levels of lists and objects in the fields of an event: whoever shows them walks them by recursion."""


@frozen
class Hello:
    token: str
    contract: int
    role: str
    language: str
    version: str
    pid: int
    backtrace_signal: int = 0
    """A signal that makes the process write its stacks to its output. 0: there is none."""


@frozen
class StepReport:
    name: str
    state: str
    duration: float | None


@frozen
class SocketSpec:
    address: str
    protocol: str
    concurrency: int
    websocket: bool = False
    """It takes WebSocket sessions."""


@frozen
class Ready:
    sockets: tuple[SocketSpec, ...]
    application: str
    hazards: tuple[Hazard, ...] = ()
    """Of a preloader: what the application holds that processes cannot share."""
    app_type: str = ""
    """The type that the application turned out to have; ``""``: the expected one."""


@frozen
class Failed:
    """The loader's ``error`` message."""

    category: ErrorCategory
    summary: str
    problem: str
    solution: str
    traceback: str
    details: str


@frozen
class Forked:
    token: str
    pid: int


@frozen
class ForkFailed:
    token: str
    problem: str


@frozen
class ChildExited:
    pid: int
    status: int


@frozen
class AppEvent:
    name: str
    fields: Mapping[str, Any]


@frozen
class Backtrace:
    """The answer to a ``backtrace`` message."""

    id: int
    text: str


Message = Hello | StepReport | Ready | Failed | Forked | ForkFailed | ChildExited | AppEvent | Backtrace


class LineReader:
    """Cuts lines out of a stream and reads each as a message."""

    __slots__ = ("_buffer", "_scanned")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next_message(self) -> Message | None:
        """None when no whole line is here.

        :raises SpawnServerError: the line is too long, or no message of the contract.
        """
        end = self._buffer.find(b"\n", self._scanned)
        if (end if end >= 0 else len(self._buffer)) >= MAX_LINE:
            raise SpawnServerError(f"a control message is longer than {MAX_LINE} bytes")
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._scanned = 0
        return _message(line)


def encode_options(options: Mapping[str, Any]) -> bytes:
    return _encode({"type": "options", **options})


def encode_backtrace(id: int) -> bytes:
    return _encode({"type": "backtrace", "id": id})


def encode_fork(token: str) -> bytes:
    return _encode({"type": "fork", "token": token})


def encode_serve() -> bytes:
    return _encode({"type": "serve"})


def encode_shutdown(within: float | None = None) -> bytes:
    """:param within: seconds for the whole stop, if they are fewer than in the options."""
    return _encode({"type": "shutdown"} if within is None else {"type": "shutdown", "within": within})


def _encode(message: Mapping[str, Any]) -> bytes:
    line = json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_LINE:
        raise ValueError(f"a control message is longer than {MAX_LINE} bytes")
    return line


def _message(line: bytes) -> Message:
    try:
        # Decoded here: json.loads would also take UTF-16 and UTF-32, and half surrogate pairs.
        value = json.loads(line.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise SpawnServerError("a control message is not JSON") from None
    if not isinstance(value, dict):
        raise SpawnServerError("a control message is not a JSON object")
    kind = value.get("type")
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise SpawnServerError("a control message has a type that the contract does not have")
    return read(_Members(str(kind), value))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_shallow(value: object) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        deeper: list[object] = []
        for item in level:
            if isinstance(item, dict):
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
        if not deeper:
            return True
        level = deeper
    return False


@frozen
class _Members:
    """Reads members of one message, each with its type."""

    kind: str
    value: dict[str, Any]

    def text(self, name: str, default: str | None = None) -> str:
        found = self.value.get(name, default)
        if not isinstance(found, str):
            raise SpawnServerError(f"member {name!r} of the control message {self.kind!r} is not a string")
        # JSON can spell half a surrogate pair; no log or page can.
        return found.encode("utf-8", "replace").decode("utf-8")

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        found = self.value.get(name, default)
        if not isinstance(found, int) or isinstance(found, bool) or not low <= found <= high:
            raise SpawnServerError(
                f"member {name!r} of the control message {self.kind!r} is not an integer from {low} to {high}"
            )
        return found

    def flag(self, name: str) -> bool:
        """False when it is left out."""
        found = self.value.get(name, False)
        if not isinstance(found, bool):
            raise SpawnServerError(f"member {name!r} of the control message {self.kind!r} is not true or false")
        return found

    def seconds(self, name: str) -> float | None:
        found = self.value.get(name)
        if found is None:
            return None
        # The comparison is false for NaN as well.
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 1e9:
            raise SpawnServerError(f"member {name!r} of the control message {self.kind!r} is not a number of seconds")
        return float(found)


_INT32 = 2**31 - 1
_LAST_SIGNAL = 64


def _hello(members: _Members) -> Hello:
    role = members.text("role")
    if role not in ("worker", "preloader"):
        raise SpawnServerError("member 'role' of the control message 'hello' is neither 'worker' nor 'preloader'")
    contract = members.integer("contract", 0, _INT32)
    if contract != CONTRACT_VERSION:
        raise SpawnServerError(
            f"the loader speaks contract version {contract}, this supervisor speaks {CONTRACT_VERSION}"
        )
    return Hello(
        token=members.text("token"),
        contract=contract,
        role=role,
        language=members.text("language"),
        version=members.text("version"),
        pid=members.integer("pid", 1, _INT32),
        backtrace_signal=members.integer("backtrace_signal", 0, _LAST_SIGNAL, 0),
    )


def _step(members: _Members) -> StepReport:
    state = members.text("state")
    if state not in ("in_progress", "performed", "errored"):
        raise SpawnServerError("member 'state' of the control message 'step' is not a state")
    name = members.text("name")
    if not 0 < len(name) <= 64:
        raise SpawnServerError("member 'name' of the control message 'step' is not 1 to 64 characters long")
    return StepReport(name, state, members.seconds("duration"))


def _ready(members: _Members) -> Ready:
    found = members.value.get("sockets", [])
    if not isinstance(found, list) or len(found) > _MAX_SOCKETS or not all(isinstance(item, dict) for item in found):
        raise SpawnServerError("member 'sockets' of the control message 'ready' is not a short list of objects")
    sockets = []
    for item in found:
        spec = _Members("ready", item)
        sockets.append(
            SocketSpec(
                spec.text("address"),
                spec.text("protocol"),
                spec.integer("concurrency", 0, _INT32),
                spec.flag("websocket"),
            )
        )
    return Ready(tuple(sockets), members.text("application", ""), _hazards(members), members.text("app_type", ""))


def _hazards(members: _Members) -> tuple[Hazard, ...]:
    found = members.value.get("hazards", [])
    if not isinstance(found, list) or len(found) > _MAX_HAZARDS or not all(isinstance(item, dict) for item in found):
        raise SpawnServerError("member 'hazards' of the control message 'ready' is not a short list of objects")
    hazards = []
    for item in found:
        kind, what = _Members("ready", item).text("kind"), _Members("ready", item).text("what")
        if not 0 < len(kind) <= 64:
            raise SpawnServerError("member 'kind' of a hazard in 'ready' is not 1 to 64 characters long")
        hazards.append(Hazard(kind, what[:_MAX_HAZARD_TEXT]))
    return tuple(hazards)


def _failed(members: _Members) -> Failed:
    try:
        category = ErrorCategory(members.text("category"))
    except ValueError:
        category = ErrorCategory.LOADER
    return Failed(
        category=category,
        summary=members.text("summary"),
        problem=members.text("problem", ""),
        solution=members.text("solution", ""),
        traceback=members.text("traceback", ""),
        details=members.text("details", ""),
    )


def _event(members: _Members) -> AppEvent:
    fields = members.value.get("fields", {})
    if not isinstance(fields, dict) or not _is_shallow(fields):
        raise SpawnServerError("member 'fields' of the control message 'event' is not a shallow object")
    return AppEvent(members.text("name"), fields)


_READERS: Final[dict[str, Callable[[_Members], Message]]] = {
    "hello": _hello,
    "step": _step,
    "ready": _ready,
    "error": _failed,
    "forked": lambda m: Forked(m.text("token"), m.integer("pid", 1, _INT32)),
    "fork_failed": lambda m: ForkFailed(m.text("token"), m.text("problem")),
    "child_exited": lambda m: ChildExited(m.integer("pid", 1, _INT32), m.integer("status", 0, _INT32)),
    "event": _event,
    "backtrace": lambda m: Backtrace(m.integer("id", 0, _INT32), m.text("text")),
}
