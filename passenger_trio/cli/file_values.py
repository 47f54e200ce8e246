"""Converts a value of the configuration file to the type of its option, and checks it like the value of a flag.

This module knows one value and its line. It never knows where else the option may be set (``settings``).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import click

from passenger_trio.cli.flags import Flag, click_option
from passenger_trio.core.config_text import ConfigText, Setting
from passenger_trio.errors import ConfigError

__all__ = ["convert_value", "text_value"]

_option = functools.cache(click_option)
_NOWHERE = click.Context(click.Command("config"))
_TEXTS = frozenset({"text", "path"})
"""Kinds of flags whose value is a text as it was given."""
_SMALL = frozenset({bool, int})
_MOST_CONVERTED = 1000
_CONVERTED: dict[tuple[str, type[Any], Any], tuple[Any]] = {}
"""(Option, type, value) -> the converted value. Thousands of files have the same numbers and truth values."""


def convert_value(flag: Flag, setting: Setting, file: ConfigText) -> Any:
    """Convert a value of the file to the type of its option, and check it like the flag's value.

    :raises ConfigError: the value is invalid.
    """
    value = setting.value
    if type(value) is str and flag.kind in _TEXTS and "\0" not in value:
        return value  # the usual case
    if value.__class__ in _SMALL:
        known = _CONVERTED.get((flag.name, value.__class__, value))
        if known is not None:
            return known[0]

    def refuse(complaint: str) -> ConfigError:
        return ConfigError(file.path, setting.line, f"{flag.field}{complaint}")

    if any("\0" in text for text in _texts(value)):
        raise refuse(" cannot have a NUL in it")
    if flag.kind == "list":
        if flag.name == "env" and isinstance(value, dict):
            for name, content in value.items():
                if not name or "=" in name:
                    raise refuse(f": {name!r} is no name of a variable")
                if isinstance(content, list | dict):
                    raise refuse(f": {name} cannot be {content!r}")
            return tuple((name, str(content)) for name, content in value.items())
        if not isinstance(value, list):
            raise refuse(f" must be a {'table' if flag.name == 'env' else 'list'}")
        for one in value:
            if isinstance(one, bool | list | dict):
                raise refuse(f" cannot have {one!r} in it")
    if flag.kind == "flag" and not isinstance(value, bool):
        raise refuse(" must be true or false")
    if (flag.kind != "flag" and isinstance(value, bool | dict | None)) or (
        flag.kind != "list" and isinstance(value, list)
    ):
        raise refuse(f" cannot be {value!r}")
    if flag.kind == "mode" and not isinstance(value, str):
        # TOML turns 0o660 into 432, and a user who writes 660 means octal.
        raise refuse(' must be a text: "0660"')
    try:
        converted = _option(flag).type_cast_value(
            _NOWHERE,
            [str(one) for one in value] if isinstance(value, list) else value if flag.kind == "flag" else str(value),
        )
    except click.ClickException as exc:
        raise refuse(f": {exc.message}") from None
    if value.__class__ in _SMALL and len(_CONVERTED) < _MOST_CONVERTED:
        _CONVERTED[flag.name, value.__class__, value] = (converted,)
    return converted


def text_value(said: Mapping[str, Setting], name: str, file: ConfigText | None) -> str:
    """A value of the file that must be a text, although it is no option; ``""`` if the file does not have it.

    :raises ConfigError: the value is no text.
    """
    if name not in said:
        return ""
    setting = said[name]
    if not isinstance(setting.value, str):
        raise ConfigError(file.path if file else "", setting.line, f"{name} must be a text")
    if "\0" in setting.value:
        raise ConfigError(file.path if file else "", setting.line, f"{name} cannot have a NUL in it")
    return setting.value


def _texts(value: Any) -> list[str]:
    """All texts in a value."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [text for one in value for text in _texts(one)] if isinstance(value, list) else [str(value)]
