"""How the command line reads a value: the types of flags, with the complaint about a value that cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from passenger_trio.core.option_values import parse_duration, parse_size
from passenger_trio.core.pool_size_option import parse_pool_size
from passenger_trio.errors import OptionError

__all__ = ["Number", "Pair", "PoolSize", "Quantity"]

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any, Any]
else:
    _ParamType = click.ParamType  # generic since click 8.4 only


class Number(_ParamType):
    """A whole number. (Click's own type would add its range to every help text.)"""

    name = "number"

    def __init__(self, least: int, most: int | None) -> None:
        self._least = least
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        if number < self._least or (self._most is not None and number > self._most):
            bounds = f"from {self._least} to {self._most}" if self._most is not None else f"{self._least} or more"
            self.fail(f"{value} cannot be used: it must be {bounds}", param, ctx)
        return number


class PoolSize(_ParamType):
    """``6``, ``auto``, ``75%``."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        try:
            return parse_pool_size(value)
        except OptionError as exc:
            self.fail(f"{value!r} cannot be used: {exc.hint}", param, ctx)


class Quantity(_ParamType):
    """``30s``, ``512M``."""

    def __init__(self, kind: str, not_zero: bool) -> None:
        self.name = kind
        self._not_zero = not_zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            quantity = parse_duration(value) if self.name == "duration" else parse_size(value)
        except OptionError as exc:
            self.fail(f"{value!r} cannot be used: {exc.hint}", param, ctx)
        if self._not_zero and not quantity:
            self.fail("it cannot be 0", param, ctx)
        return quantity


class Pair(_ParamType):
    """``NAME=VALUE``."""

    name = "pair"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, content = str(value).partition("=")
        if not (name and equals):
            self.fail(f"{value!r} cannot be used: write NAME=VALUE", param, ctx)
        return name, content
