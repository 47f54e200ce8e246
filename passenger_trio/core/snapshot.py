"""A graph of attrs objects as JSON values, and back: what a recording begins with.

It knows fields, and nothing of what they mean: a field that is added to a class is in the next snapshot without a line here. Objects that are compared by
identity (``eq=False``) stand once, in a table, and are referred to by number, so that cycles and sharing come back as they were; everything else is a value and
stands where it is.

Laws: decoding what was encoded gives an equal graph, container types and orders included; what cannot be encoded exactly is refused by its type and not left out.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import attrs

__all__ = ["decode", "encode"]

_CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
    "dict": dict,
    "OrderedDict": OrderedDict,
}
_MAPPINGS = (dict, OrderedDict)


def encode(root: object) -> dict[str, Any]:
    """JSON values of everything that ``root`` leads to.

    :raises TypeError: something in it is neither plain, nor a container, an enum member or an attrs object.
    """
    encoder = _Encoder()
    encoded = encoder.value(root)
    while len(encoder.objects) < len(encoder.known):
        encoder.objects.append(encoder.fields(encoder.known[len(encoder.objects)]))
    return {"root": encoded, "objects": encoder.objects}


class _Encoder:
    def __init__(self) -> None:
        self.known: list[Any] = []
        self.objects: list[dict[str, Any]] = []
        self._numbers: dict[int, int] = {}

    def value(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if value - value == 0 else {"": "float", "text": repr(value)}
        if isinstance(value, enum.Enum):
            return {"": kind.__name__, "name": value.name}
        if attrs.has(kind):
            if kind.__eq__ is not object.__eq__:
                return self.fields(value)
            number = self._numbers.setdefault(id(value), len(self.known))
            if number == len(self.known):
                self.known.append(value)
            return {"": "object", "number": number}
        if kind.__name__ in _CONTAINERS and _CONTAINERS[kind.__name__] is kind:
            items = value.items() if kind in _MAPPINGS else value
            return {"": kind.__name__, "items": [self._item(kind, item) for item in items]}
        raise TypeError(f"a {kind.__module__}.{kind.__qualname__} cannot be recorded")

    def _item(self, kind: type, item: Any) -> Any:
        return [self.value(item[0]), self.value(item[1])] if kind in _MAPPINGS else self.value(item)

    def fields(self, value: Any) -> dict[str, Any]:
        found = {field.name: self.value(getattr(value, field.name)) for field in attrs.fields(type(value))}
        return {"": type(value).__name__, "fields": found}


def decode(encoded: Mapping[str, Any], classes: Mapping[str, Any]) -> Any:
    """The inverse of ``encode``.

    :param classes: enums and attrs classes, by name.
    """
    objects = [_empty(classes[one[""]]) for one in encoded["objects"]]

    def value(one: Any) -> Any:
        if not isinstance(one, dict):
            return one
        name = one[""]
        if name == "float":
            return float(one["text"])
        if name == "object":
            return objects[one["number"]]
        if name in _CONTAINERS:
            make = _CONTAINERS[name]
            pairs = make in _MAPPINGS
            return make([(value(item[0]), value(item[1])) if pairs else value(item) for item in one["items"]])
        found = classes[name]
        return found[one["name"]] if issubclass(found, enum.Enum) else _made(found, fields(one))

    def fields(one: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value(member) for name, member in one["fields"].items()}

    for empty, one in zip(objects, encoded["objects"], strict=True):
        for name, member in fields(one).items():
            object.__setattr__(empty, name, member)
    return value(encoded["root"])


def _empty(found: Any) -> Any:
    """An object that is referred to before it has its fields."""
    return found.__new__(found)


def _made(found: Any, fields: dict[str, Any]) -> Any:
    """A value, made as whoever made the first one: what its class does then is done (a hash that is kept, a check)."""
    made = found(**{field.alias: fields[field.name] for field in attrs.fields(found) if field.init})
    for field in attrs.fields(found):
        if not field.init:
            object.__setattr__(made, field.name, fields[field.name])
    return made
