"""A graph of objects goes to JSON and comes back as it was; what would not is refused (KE10)."""

from __future__ import annotations

import enum
import gc
import json
from collections import OrderedDict, deque
from typing import Any

import attrs
import pytest

from passenger_trio.core.snapshot import decode, encode, take


class Colour(enum.Enum):
    RED = 1


@attrs.frozen(cache_hash=True)
class Key:
    name: str
    _private: int = 0
    derived: int = attrs.field(init=False, default=7)


@attrs.define(eq=False)
class Node:
    key: Key
    friends: list[Node] = attrs.field(factory=list, repr=False)
    rank: tuple[float, Node] | None = attrs.field(default=None, repr=False)
    values: Any = None


CLASSES = {"Colour": Colour, "Key": Key, "Node": Node}


def there_and_back(value: object) -> Any:
    return decode(json.loads(json.dumps(encode(value))), CLASSES)


def test_values_and_containers() -> None:
    value = {
        Key("a", 2): (1, -0.5, float("inf"), float("-inf"), None, True, "\ud800\n"),
        3: [Colour.RED, {1, 2}, frozenset({Key("b")}), deque([1])],
        Colour.RED: OrderedDict([("z", {}), ("a", [])]),
    }
    back = there_and_back(value)
    assert back == value
    assert [type(one) for one in back[3]] == [Colour, set, frozenset, deque]
    assert type(back[Colour.RED]) is OrderedDict
    assert list(back[Colour.RED]) == ["z", "a"]
    assert next(iter(back)).derived == 7


def test_identity_sharing_and_cycles() -> None:
    one, other = Node(Key("one")), Node(Key("other"))
    one.friends += [one, other, other]
    other.rank = (1.0, other)
    other.values = {one: other}
    back = there_and_back([one, other])
    assert back[0].friends == [back[0], back[1], back[1]]
    assert back[1].rank[1] is back[1]
    assert back[1].values == {back[0]: back[1]}


@pytest.mark.parametrize("value", [object(), b"bytes", lambda: 1, {1: [range(3)]}, 1j])
def test_what_would_be_lost_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be recorded"):
        encode(value)


@attrs.define
class Counter:
    count: int = 0
    seen: list[int] = attrs.field(factory=list)


def test_a_picture_stays_what_it_was() -> None:
    """KE10: it is taken at once, and made JSON of when somebody asks, after everything in it has changed."""
    node = Node(Key("one"), values={"counter": Counter(), "empty": [], 1: {2}})
    node.friends.append(node)
    picture, before = take(node), encode(node)
    node.friends.clear()
    node.values["counter"].count = 5
    node.values["counter"].seen.append(1)
    node.values["empty"].append(2)
    node.values[1].add(3)
    node.key = Key("other")
    assert picture.encode() == before != encode(node)
    assert gc.isenabled()
