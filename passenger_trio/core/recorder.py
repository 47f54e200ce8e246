"""The flight recorder: what the policy was told, and what it commanded, as far back as there is room.

The policy is a function of its facts, so a recording from the beginning replays: the same facts to a new policy give the same commands.
``to_json`` and ``from_json`` are exact for every value that a fact or a command has. What people wrote (outputs, tracebacks) is in it as
evidence of failures; it is shown to the operator only.

A fact that raises is told to ``on_failure`` before the exception goes on to whoever told it: then the state is not to be believed any more.

Laws: recording changes nothing; the oldest entry goes first, and then the recording says that it is not whole.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from passenger_trio.core import commands, journey, model
from passenger_trio.core.model import PoolLimits
from passenger_trio.core.policy import PoolPolicy

__all__ = ["FACTS", "Entry", "RecordedPolicy", "from_json", "replay", "to_json"]

FACTS = (
    "add_group",
    "checkout_nowait",
    "checkout",
    "abandon",
    "session_closed",
    "session_held",
    "session_unbounded",
    "spawn_succeeded",
    "spawn_failed",
    "process_exited",
    "sampled",
    "preloader_started",
    "preloader_ended",
    "detach",
    "restart",
    "always_restart",
    "tick",
    "shut_down",
)
"""The methods of the policy that change it."""

_OF_REQUESTS = ("checkout_nowait", "checkout", "session_closed")
"""Those of every request. They have no arguments by name."""
_NONE: dict[str, Any] = {}

CAPACITY = 10_000

_CLASSES: dict[str, Any] = {
    name: value
    for module in (commands, journey, model)
    for name, value in vars(module).items()
    if isinstance(value, type) and (attrs.has(value) or issubclass(value, enum.Enum))
}


@attrs.frozen
class Entry:
    """One fact and its answer."""

    fact: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    answer: Any


class RecordedPolicy(PoolPolicy):
    """A policy that remembers."""

    def __init__(
        self,
        limits: PoolLimits,
        capacity: int = CAPACITY,
        *,
        on_failure: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        super().__init__(limits)
        self._on_failure = on_failure
        # What one fact is made of is no fact: the wrapped methods are those of a policy that knows nothing of this one, and shares its state.
        plain = PoolPolicy(limits)
        self.state = plain.state
        # Plain tuples (an Entry's fields): this is on the way of every request.
        self.recording: deque[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = deque(maxlen=capacity)
        self.recorded = 0
        for fact in FACTS:
            setattr(self, fact, self._remembering(fact, getattr(plain, fact)))

    @property
    def is_whole(self) -> bool:
        """Whether the recording goes back to the beginning."""
        return self.recorded == len(self.recording)

    def _remembering(self, fact: str, method: Callable[..., Any]) -> Callable[..., Any]:
        remember_entry = self.recording.append
        on_failure = self._on_failure
        if fact in _OF_REQUESTS:

            def remember_quickly(*arguments: Any) -> Any:
                try:
                    answer = method(*arguments)
                except Exception as error:
                    on_failure(error)
                    raise
                if answer is not None:  # None: nobody could be borrowed, and nothing has changed
                    self.recorded += 1
                    remember_entry((fact, arguments, _NONE, answer))
                return answer

            return remember_quickly

        def remember(*arguments: Any, **named: Any) -> Any:
            try:
                answer = method(*arguments, **named)
            except Exception as error:
                on_failure(error)
                raise
            self.recorded += 1
            remember_entry((fact, arguments, named, answer))
            return answer

        return remember

    def dump(self) -> Callable[[], dict[str, Any]]:
        """What makes JSON values of the recording as it is now. That takes a while, and may be done in a thread."""
        limits, whole, entries = self.state.limits, self.is_whole, list(self.recording)
        return lambda: {
            "limits": to_json(limits),
            "whole": whole,
            "entries": [to_json(list(entry)) for entry in entries],
        }


def replay(dump: dict[str, Any]) -> Iterable[tuple[Entry, Any]]:
    """Tell a new policy every fact of a whole recording; each entry, and what is answered now."""
    policy = PoolPolicy(from_json(dump["limits"]))
    for recorded in dump["entries"]:
        entry = Entry(*from_json(recorded))
        yield entry, getattr(policy, entry.fact)(*entry.arguments, **entry.named)


def to_json(value: Any) -> Any:
    """A value as JSON has it; classes are named, tuples are told from lists, and infinity is a text."""
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
    found = _CLASSES[name]
    if issubclass(found, enum.Enum):
        return found[value["name"]]
    return found(**{key: from_json(item) for key, item in value.items() if key})
