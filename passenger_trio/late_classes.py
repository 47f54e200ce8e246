"""``define`` and ``frozen`` of attrs for classes that a start does not use: attrs builds them when they are first used (DE10).

attrs generates code for each class, compiles it and makes the class a second time. For our 270 classes that was 40 % of the time from
the command to the first process. Here a class gets its slots at once. It gets everything that attrs adds with its first instance, its first comparison, or
the first look at its fields.

Laws:

* After its first use, a class is exactly what attrs makes: type checkers, ``attrs.fields`` and ``attrs.evolve`` see no difference, and it costs no more.
* A server finishes all classes as soon as it has time (``later``), so that no class is built while the server handles a lack of memory.
* If attrs rejects a class, the error comes with its first use. ``test_late_classes.py`` uses all classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import CellType
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from attrs import define as define
    from attrs import frozen as frozen

__all__ = ["build_next", "build_rest", "define", "frozen"]

_ALWAYS = ("__init__", "__repr__", "__getstate__", "__setstate__")
_EQUAL = ("__eq__", "__ne__")
_FROZEN = ("__setattr__", "__delattr__")
_FACTS = ("__attrs_attrs__", "__attrs_props__", "__match_args__")
"""The attributes that attrs adds to a class."""
_SECOND = frozenset({"__repr__", "__hash__", "__attrs_props__", *_EQUAL})
"""The parts that are not needed to make an instance. They are half of the generated code, and a start needs them of few classes."""
_WITHOUT = {"repr": False, "eq": False}
"""The settings of attrs that leave out those parts."""


_drafts: list[_Draft] = []
"""The drafts of classes that may be incomplete."""


class _Draft:
    """The parts that a class still lacks. Not used any more once the class is complete."""

    __slots__ = ("_build", "_late", "_text", "cls")

    def __init__(self, text: type, build: Callable[[type, dict[str, bool]], type]) -> None:
        self._text = text
        """The class as written in its module, without slots."""
        self._build = build
        self._late: dict[str, Any] = {}
        self.cls: type

    def promise(self, name: str) -> Any:
        """A stand-in for a method."""

        def late(self_: Any, /, *args: Any, **named: Any) -> Any:
            self.complete(name)
            return getattr(self.cls, name)(self_, *args, **named)

        self._late[name] = late
        return late

    def promise_fact(self, name: str) -> _Fact:
        """A stand-in for an attribute of the class."""
        fact = self._late[name] = _Fact(self, name)
        return fact

    def complete(self, wanted: str) -> None:
        """Add the wanted part, and the parts that come with it. May be called again, even by another thread at the same time."""
        all_of_it = wanted in _SECOND
        made = vars(self._build(self._text, {} if all_of_it else _WITHOUT))
        for name, stand_in in self._late.items():
            if vars(self.cls).get(name) is not stand_in or (name in _SECOND and not all_of_it):
                continue
            if name in made:
                setattr(self.cls, name, made[name])
            else:
                delattr(self.cls, name)  # this version of attrs does not add it
        if "__replace__" in made:  # Python 3.13
            self.cls.__replace__ = made["__replace__"]  # type: ignore[attr-defined]

    def finish(self) -> None:
        """Add all missing parts."""
        if any(vars(self.cls).get(name) is stand_in for name, stand_in in self._late.items()):
            self.complete("__repr__")


class _Fact:
    __slots__ = ("_draft", "_name")

    def __init__(self, draft: _Draft, name: str) -> None:
        self._draft = draft
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        self._draft.complete(self._name)
        return getattr(owner, self._name)


def _cells(values: Iterable[Any]) -> Iterator[CellType]:
    """The closures of a class's functions."""
    for value in values:
        for function in (value, getattr(value, "__func__", None), getattr(value, "fget", None)):
            yield from getattr(function, "__closure__", None) or ()


def _slotted(text: type, settings: dict[str, Any], decorator: Callable[..., Any]) -> type:
    own = dict(vars(text))
    fields = [name for name, kind in own.get("__annotations__", {}).items() if not kind.startswith("ClassVar")]
    there = {slot for base in text.__mro__[1:-1] for slot in vars(base).get("__slots__", ())}
    body = {name: value for name, value in own.items() if name not in (*fields, "__dict__", "__weakref__")}
    body["__slots__"] = tuple(slot for slot in (*fields, "__weakref__") if slot not in there)
    draft = _Draft(text, lambda text, others: decorator(text, **{**settings, **others}))
    late = [*_ALWAYS]
    if decorator is attrs.frozen:
        late += _FROZEN
    if settings.get("eq", True) and "__eq__" not in own:
        late += _EQUAL
        if decorator is attrs.frozen:
            late.append("__hash__")
        else:
            body["__hash__"] = None
    body |= {name: draft.promise(name) for name in late if name not in own}
    body |= {name: draft.promise_fact(name) for name in _FACTS}
    cls = draft.cls = type(text)(text.__name__, text.__bases__, body)
    _drafts.append(draft)
    for cell in _cells(own.values()):
        if cell.cell_contents is text:  # super() and __class__ mean the class with slots
            cell.cell_contents = cls
    return cls


def _decorator(of_attrs: Callable[..., Any]) -> Callable[..., Any]:
    def decorator(text: type | None = None, /, **settings: Any) -> Any:
        return _slotted(text, settings, of_attrs) if text is not None else partial(decorator, **settings)

    return decorator


def build_next() -> bool:
    """Finish one class. False: all classes are finished.

    A server does this when it has time. Otherwise a class could need memory, and time of the event loop, while the server handles a lack of memory (KE3).
    """
    if not _drafts:
        return False
    _drafts.pop().finish()
    return True


def build_rest() -> None:
    """Finish all classes."""
    while build_next():
        pass


if not TYPE_CHECKING:
    define, frozen = _decorator(attrs.define), _decorator(attrs.frozen)
