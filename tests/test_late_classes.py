"""DE10: a class of ``late_classes`` is what attrs makes of the same text, built when it is first used."""

from __future__ import annotations

import copy
import pickle
import pkgutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

import attrs
import pytest
import trio
import trio.testing

import passenger_trio
from passenger_trio import late_classes
from passenger_trio.later import build_classes

_EXTRAS = ("passenger_trio.testing",)


@late_classes.frozen
class Point:
    kind: ClassVar[str] = "point"
    x: int
    y: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    seen: list[int] = attrs.field(factory=list, eq=False, repr=False)

    def moved(self) -> Point:
        return attrs.evolve(self, x=self.x + 1)


@late_classes.frozen(kw_only=True)
class Named(Point):
    name: str = "?"

    def title(self) -> str:
        return f"{__class__.__name__} {self.name} {super().moved().x}"  # type: ignore[name-defined]


@late_classes.define
class Counter:
    count: int = 0
    double: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.double = 2 * self.count


@late_classes.define(eq=False)
class Owner:
    name: str
    _hidden: int = 3


@late_classes.define
class Own:
    """Has methods of its own, which stay."""

    text: str = ""

    def __init__(self, text: str) -> None:
        self.text = text.upper()

    def __eq__(self, other: object) -> bool:
        return True

    def __repr__(self) -> str:
        return "own"


def test_DE10_a_frozen_class() -> None:
    point = Point(1)
    assert (point, hash(point), repr(point)) == (Point(1, seen=[5]), hash(Point(1, 0)), "Point(x=1, y=0)")
    assert point != Point(2)
    assert point != 1
    assert len({point, Point(1)}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        del point.x
    with pytest.raises(ValueError, match="'y' must be >= 0"):
        Point(1, -1)
    assert not hasattr(point, "__dict__")
    assert weakref.ref(point)() is point
    assert point.moved() == Point(2)
    assert Point.kind == "point"
    match point:
        case Point(x, y):
            assert (x, y) == (1, 0)


def test_DE10_a_subclass_has_the_fields_of_both() -> None:
    named = Named(x=1, name="a")
    assert [field.name for field in attrs.fields(Named)] == ["x", "y", "seen", "name"]
    assert named.title() == "Named a 2"
    assert named != Point(1)
    assert isinstance(named, Point)
    assert Named.__slots__ == ("name",)  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        Named(1, 0, [], "a")  # type: ignore[misc]


def test_DE10_a_class_that_changes() -> None:
    counter = Counter(2)
    assert counter.double == 4
    assert counter == Counter(2)
    counter.count = 5
    assert counter != Counter(2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(counter)
    with pytest.raises(AttributeError):
        counter.other = 1  # type: ignore[attr-defined]
    owner = Owner("a", hidden=4)
    assert owner == owner
    assert owner != Owner("a", 4)
    assert hash(owner)
    assert repr(owner) == "Owner(name='a', _hidden=4)"
    assert (Own("a").text, repr(Own("a")), Own("a") == Own("b")) == ("A", "own", True)


@pytest.mark.parametrize("value", [Point(1), Named(x=1, name="b"), Counter(3)])
def test_DE10_it_is_copied_and_pickled(value: Any) -> None:
    assert copy.copy(value) == copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value
    assert attrs.asdict(value)
    assert attrs.has(type(value))


_FIRST: list[tuple[str, Callable[[type], object]]] = [
    ("made", lambda cls: cls(1)),
    ("fields", attrs.fields),
    ("matched", lambda cls: cls.__match_args__),  # type: ignore[attr-defined]
    ("unpickled", lambda cls: cls.__setstate__(cls.__new__(cls), {"x": 1})),  # type: ignore[attr-defined]
    ("shown", lambda cls: _refused(AttributeError, repr, cls.__new__(cls))),
    ("compared", lambda cls: _refused(AttributeError, cls.__eq__, cls.__new__(cls), cls.__new__(cls))),
    ("changed", lambda cls: _refused(attrs.exceptions.FrozenInstanceError, setattr, cls.__new__(cls), "x", 1)),
]


def _refused(error: type[Exception], function: Callable[..., object], *arguments: object) -> None:
    try:
        function(*arguments)
    except error:
        return
    if function is not repr:
        raise AssertionError(function)


@pytest.mark.parametrize("use", [use for _, use in _FIRST], ids=[name for name, _ in _FIRST])
def test_DE10_the_first_use_completes_it(use: Callable[[type], object]) -> None:
    @late_classes.frozen
    class Fresh:
        x: int

    before = Fresh.__init__
    use(Fresh)
    assert Fresh.__init__ is not before
    assert Fresh(1) == Fresh(1)
    assert repr(Fresh(2)).endswith("Fresh(x=2)")
    assert hash(Fresh(1)) == hash(Fresh(1))


def test_DE10_a_class_that_is_not_used_is_not_built() -> None:
    program = (
        "import linecache, passenger_trio.core.commands as commands\n"
        "built = lambda: any('passenger_trio.core.commands.Grant' in name for name in linecache.cache)\n"
        "assert not built()\n"
        "commands.Grant(1, 2)\n"
        "assert built()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_DE10_attrs_takes_all_classes() -> None:
    """Those of the package are built on demand: a class that attrs refuses would be found by a user."""
    count = 0
    for found in pkgutil.walk_packages(passenger_trio.__path__, "passenger_trio."):
        if found.name.endswith("__main__") or found.name.startswith(_EXTRAS):
            continue
        for value in list(vars(import_module(found.name)).values()):
            if isinstance(value, type) and value.__module__ == found.name and attrs.has(value):
                names = [field.name for field in attrs.fields(value)]
                assert set(value.__annotations__) >= {name for name in names if name in vars(value)}
                assert "__dict__" not in vars(value), value
                count += 1
    assert count > 200


def test_KE3_a_server_that_has_time_finishes_all_classes() -> None:
    """Else the first use of one, in the middle of what is done about a want of memory, would want some."""

    @late_classes.frozen
    class Fresh:
        x: int

    async def later() -> None:
        await build_classes()

    promised = Fresh.__init__, vars(Fresh)["__eq__"]
    trio.run(later, clock=trio.testing.MockClock(autojump_threshold=0))
    assert Fresh.__init__ is not promised[0]
    assert vars(Fresh)["__eq__"] is not promised[1]
    assert not late_classes.build_next()
