"""The flight recorder: the last facts that the policy got, and the commands that it gave.

The policy is a function of its state and its facts, so a recording can be replayed: a new policy in
the first state of the recording answers the same facts with the same commands. A recording has two
parts. When the younger part is full it becomes the older one, and the previous older part is
forgotten. The younger part then begins with the state of that moment (a picture, which ``snapshot``
encodes as JSON on request).

``to_json`` and ``from_json`` are exact for every value in a fact or a command. A recording contains
the output and tracebacks of applications as evidence of failures; only the operator sees it.

If a fact raises, ``on_failure`` gets the exception before the caller does: from then on the state
cannot be trusted.

Laws: recording changes nothing; a dump can be replayed whatever its length (KE10); when the oldest
facts are gone, the recording says that it is not whole.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from passenger_trio.core import backoff_and_circuit, commands, journey, model, snapshot, state
from passenger_trio.core.policy import PoolPolicy
from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.late_classes import frozen

__all__ = ["FACTS", "Entry", "RecordedPolicy", "from_json", "replay", "to_json"]

FACTS = (
    "add_group",
    "remove_group",
    "change_pool_limits",
    "change_group_limits",
    "checkout_nowait",
    "checkout",
    "renew",
    "abandon",
    "session_closed",
    "session_long_lived",
    "session_uncounted",
    "session_served",
    "session_running",
    "spawn_succeeded",
    "spawn_failed",
    "process_exited",
    "sampled",
    "room_measured",
    "preloader_started",
    "preloader_ended",
    "found_unsafe",
    "detach",
    "disable",
    "enable",
    "oob_work_wanted",
    "oob_work_ended",
    "restart",
    "restart_all",
    "code_changed",
    "always_restart",
    "tick",
    "shut_down",
    "fault_contained",
)
"""The methods of the policy that change it, and ``fault_contained``, which only reports a fault outside it."""

_OF_REQUESTS = ("checkout_nowait", "checkout", "session_closed")
"""Facts of every request. They have no keyword arguments."""
_NONE: dict[str, Any] = {}
_NOTHING: list[Any] = []
"""Shared: thousands of groups that are added are as many facts without an answer. Nobody changes what was recorded."""

CAPACITY = 10_000
"""At most this many facts are kept, and at least half as many. With a large state it keeps more: more facts share the
cost of keeping the state."""

_FACTS_EACH = 4
"""A picture of one group takes about 10 us; at least this many facts share that cost."""


@functools.cache
def _classes() -> dict[str, Any]:
    """Name -> class, of all that a recording has."""
    return {
        name: value
        for module in (commands, journey, model, backoff_and_circuit, state)
        for name, value in vars(module).items()
        if isinstance(value, type) and (attrs.has(value) or issubclass(value, enum.Enum))
    }


@frozen
class Entry:
    """One fact and the answer of the policy."""

    fact: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    answer: Any


_Recorded = tuple[str, tuple[Any, ...], dict[str, Any], Any]


class RecordedPolicy(PoolPolicy):
    """A policy that records its facts."""

    def __init__(
        self,
        limits: PoolLimits,
        capacity: int = CAPACITY,
        *,
        on_failure: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        super().__init__(limits)
        self._first_limits = limits
        self._on_failure = on_failure
        # Methods of the policy call each other, and such inner calls must not be recorded. So the methods of a second, plain policy are wrapped, and both
        # share one state. (Those of requests are inherited from ``borrowing.Borrowing``.)
        plain = PoolPolicy(limits)
        self.state: state.PoolState = plain.state
        # Plain tuples (the fields of an Entry), because every request adds some.
        self._recording: list[_Recorded] = []
        # The state before the first of them; None: they begin with an empty pool.
        self._begins: snapshot.Picture | None = None
        self._older: list[_Recorded] = []
        self._older_begins: snapshot.Picture | None = None
        self._capacity = capacity
        self._full = max(1, capacity // 2)
        for fact in FACTS:
            setattr(self, fact, self._remembering(fact, getattr(plain, fact)))

    @property
    def length(self) -> int:
        """The number of recorded facts."""
        return len(self._older) + len(self._recording)

    def _turn_over(self) -> None:
        """Between two facts: make the younger part the older one, and begin a new one with the current state. Nothing happens
        if the state has grown so much meanwhile that more facts share a picture of it: thousands of groups come one by one.
        """
        small = len(self.state.sessions) + len(self.state.waiters)
        large = len(self.state.groups) + len(self.state.processes)
        self._full = max(1, self._capacity // 2, small + _FACTS_EACH * large)
        if len(self._recording) < self._full:
            return
        self._older, self._older_begins = self._recording[:], self._begins
        self._recording.clear()
        self._begins = snapshot.take(self.state)

    def _remembering(self, fact: str, method: Callable[..., Any]) -> Callable[..., Any]:
        recording = self._recording
        remember_entry = recording.append
        on_failure = self._on_failure
        if fact in _OF_REQUESTS:

            def remember_quickly(*arguments: Any) -> Any:
                try:
                    answer = method(*arguments)
                except Exception as error:
                    on_failure(error)
                    raise
                if answer is not None:  # None: no process had room, and nothing has changed
                    remember_entry((fact, arguments, _NONE, answer))
                    if len(recording) >= self._full:
                        self._turn_over()
                return answer

            return remember_quickly

        def remember(*arguments: Any, **named: Any) -> Any:
            try:
                answer = method(*arguments, **named)
            except Exception as error:
                on_failure(error)
                raise
            remember_entry((fact, arguments, named or _NONE, _NOTHING if answer == [] else answer))
            if len(recording) >= self._full:
                self._turn_over()
            return answer

        return remember

    def dump(self) -> Callable[[], dict[str, Any]]:
        """A function that makes JSON values of the current recording. It takes a while, and may run in a thread."""
        limits, begins, entries = self._first_limits, self._older_begins, self._older + self._recording
        return lambda: {
            "limits": to_json(limits),
            "whole": begins is None,
            "state": None if begins is None else begins.encode(),
            "entries": [to_json(list(entry)) for entry in entries],
        }


def replay(dump: dict[str, Any]) -> Iterable[tuple[Entry, Any]]:
    """Repeat the facts of a recording on a new policy in its first state. Yields each entry with the new answer."""
    policy = PoolPolicy(from_json(dump["limits"]))
    if dump["state"] is not None:
        policy.state = snapshot.decode(dump["state"], _classes())
    for recorded in dump["entries"]:
        entry = Entry(*from_json(recorded))
        yield entry, getattr(policy, entry.fact)(*entry.arguments, **entry.named)


def to_json(value: Any) -> Any:
    """A value as JSON. Classes are named, tuples differ from lists, and infinity is a text."""
    if isinstance(value, enum.Enum):
        return {"": type(value).__name__, "name": value.name}
    if attrs.has(type(value)):
        members = {field.name: to_json(getattr(value, field.name)) for field in attrs.fields(type(value)) if field.init}
        return {"": type(value).__name__, **members}
    if isinstance(value, tuple):
        return {"": "tuple", "items": [to_json(item) for item in value]}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {"": "dict", "items": {name: to_json(item) for name, item in value.items()}}
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return {"": "float", "text": str(value)}
    return value


def from_json(value: Any) -> Any:
    """The inverse of ``to_json``."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    name = value[""]
    if name == "tuple":
        return tuple(from_json(item) for item in value["items"])
    if name == "dict":
        return {key: from_json(item) for key, item in value["items"].items()}
    if name == "float":
        return float(value["text"])
    found = _classes()[name]
    if issubclass(found, enum.Enum):
        return found[value["name"]]
    return found(**{key: from_json(item) for key, item in value.items() if key})
