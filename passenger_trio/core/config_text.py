"""The text of a configuration file -> tables of values, each with its line.

This module knows TOML, JSON and the names of the options; it never opens a file.
``passenger-trio.toml`` has the tables ``[server]`` and ``[pool]``, and one ``[[app]]`` for each
application; their keys are the fields of the option classes. An unknown name is an error with its line
and a suggestion, because a misspelt option must not be ignored.

``Passengerfile.json`` is Passenger's file: keys that mean the same here are translated; the others are
reported to the user.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import attrs

from passenger_trio.errors import ConfigError
from passenger_trio.late_classes import frozen
from passenger_trio.options import AppOptions, PoolOptions, ServerOptions

__all__ = ["ConfigText", "Setting", "read_app_file", "read_passengerfile", "read_toml"]

NAMES: dict[str, tuple[str, ...]] = {
    table: tuple(field.name for field in attrs.fields(owner))
    for table, owner in (("server", ServerOptions), ("pool", PoolOptions), ("app", AppOptions))
}

_NAMES_OF_APP = frozenset(NAMES["app"])
_SAME = frozenset({*NAMES["server"], *NAMES["pool"], *NAMES["app"]} - {"root", "target", "env"})
_PASSENGER_NAMES = {
    "socket_file": "socket",
    "envvars": "env",
    "max_instances_per_app": "max_instances",
    "app_group_name": "name",
    "nodejs": "node",
}
_LOG_LEVELS = ("error", "error", "warning", "info", "info", "debug", "debug", "debug")
"""Passenger's numbers 0 (critical messages only) to 7."""

_HEADER = re.compile(r"\s*\[(\[?)\s*([A-Za-z0-9_.\"-]+)\s*\]")
_KEY = re.compile(r"\s*([A-Za-z0-9_\"-]+)\s*[.=]")
_PLAIN = re.compile(
    r"""[ \t]*(?:([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(?:"([^"\\\x00-\x1f\x7f]*)"|(true|false)|(0|[1-9][0-9]{0,15}))[ \t]*)?"""
    r"(?:#[^\x00-\x08\x0a-\x1f\x7f]*)?"
)
"""A line of TOML that can be read without the other lines: empty, a comment, or a name with a text, a truth value or a number."""


@frozen
class Setting:
    value: Any
    line: int
    """0: unknown."""


Table = Mapping[str, Setting]


@frozen
class ConfigText:
    """The content of a file."""

    path: str
    server: Table
    pool: Table
    apps: tuple[Table, ...]
    ignored: tuple[str, ...] = ()
    """Keys of Passenger that have no meaning here."""

    def where(self, setting: Setting) -> str:
        """``passenger-trio.toml:3``"""
        return f"{self.path}:{setting.line}" if setting.line else self.path


def read_toml(text: str, path: str) -> ConfigText:
    """:raises ConfigError: the text is not TOML, or contains an unknown name."""
    import tomllib  # here and below: a command without a file need not load it

    try:
        document = tomllib.loads(text)
    except ValueError as exc:  # TOMLDecodeError, and a number with thousands of digits
        raise ConfigError(path, 0, f"it is not valid TOML: {exc}") from None
    lines = _lines(text)
    for name, value in document.items():
        if name not in NAMES:
            raise _unknown(
                path, lines.get(("", 0, name), lines.get((name, 0, ""), 0)), name, ("server", "pool", "app"), "table"
            )
        if not (
            isinstance(value, dict)
            or (name == "app" and isinstance(value, list) and all(isinstance(one, dict) for one in value))
        ):
            raise ConfigError(path, lines.get(("", 0, name), 0), f"{name} must be a table: [{name}]")
    apps = document.get("app", [])
    return ConfigText(
        path,
        _table(document.get("server", {}), "server", 0, path, lines),
        _table(document.get("pool", {}), "pool", 0, path, lines),
        tuple(
            _table(app, "app", number, path, lines)
            for number, app in enumerate([apps] if isinstance(apps, dict) else apps)
        ),
    )


def read_app_file(text: str, path: str) -> ConfigText:
    """A file of one application: the names of an ``[[app]]`` table, without the table.

    :raises ConfigError: the text is not TOML, or contains an unknown name.
    """
    plain = _read_plain(text)
    if plain is not None:
        values, numbers = plain
        if values.keys() <= _NAMES_OF_APP:  # nearly always
            return ConfigText(path, {}, {}, ({name: Setting(value, numbers[name]) for name, value in values.items()},))
        return ConfigText(
            path, {}, {}, (_table(values, "app", 0, path, {("app", 0, name): at for name, at in numbers.items()}),)
        )
    import tomllib

    try:
        document = tomllib.loads(text)
    except ValueError as exc:
        raise ConfigError(path, 0, f"it is not valid TOML: {exc}") from None
    lines = {("app", 0, name): line for (table, _, name), line in _lines(text).items() if table in ("", "env")}
    return ConfigText(path, {}, {}, (_table(document, "app", 0, path, lines),))


def _read_plain(text: str) -> tuple[dict[str, Any], dict[str, int]] | None:
    """The values and their lines, if every line is a plain one (``_PLAIN``). None: the caller must use ``tomllib``.

    Most files of applications have plain lines only, and this takes a sixth of the time. A test compares the result with
    that of ``tomllib``.
    """
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        found = _PLAIN.fullmatch(line)
        if found is None:
            return None
        name, string, truth, whole = found.groups()
        if name is None:
            continue
        if name in values:
            return None  # twice
        values[name] = string if string is not None else truth == "true" if truth is not None else int(whole)
        lines[name] = number
    return values, lines


def read_passengerfile(text: str, path: str) -> ConfigText:
    """:raises ConfigError: the text is not a JSON object."""
    import json

    try:
        document = json.loads(text)
    except ValueError as exc:
        raise ConfigError(path, getattr(exc, "lineno", 0), f"it is not valid JSON: {exc}") from None
    if not isinstance(document, dict):
        raise ConfigError(path, 1, "it must be a JSON object")
    tables: dict[str, dict[str, Setting]] = {"server": {}, "pool": {}, "app": {}}
    ignored = []
    for name, value in document.items():
        ours = str(_PASSENGER_NAMES.get(name, name))
        known = name in _PASSENGER_NAMES or name in _SAME
        if not known:
            ignored.append(name)
            continue
        found = re.search(rf'"{re.escape(name)}"\s*:', text)
        line = text.count("\n", 0, found.start()) + 1 if found else 0
        owner = next(table for table in ("server", "pool", "app") if ours in NAMES[table])
        tables[owner][ours] = Setting(_from_passenger(ours, value), line)
    return ConfigText(path, tables["server"], tables["pool"], (tables["app"],), tuple(ignored))


def _from_passenger(name: str, value: Any) -> Any:
    if name == "log_level" and isinstance(value, int) and 0 <= value <= 7:
        return _LOG_LEVELS[value]
    if name in ("memory_limit", "hard_memory_limit") and isinstance(value, int):
        return f"{value}M"
    if name == "friendly_error_pages" and isinstance(value, bool):
        return "on" if value else "off"
    return value


def _table(
    values: Mapping[str, Any], table: str, number: int, path: str, lines: Mapping[tuple[str, int, str], int]
) -> Table:
    found = {}
    for name, value in values.items():
        line = lines.get((table, number, name), 0)
        if name not in NAMES[table]:
            ours = name.replace("-", "_")
            if any(ours in names for names in NAMES.values()) and ours != name:
                raise ConfigError(path, line, f"there is no option {name}; did you mean {ours}?")
            elsewhere = next((other for other in NAMES if name in NAMES[other]), None)
            if elsewhere is not None:
                raise ConfigError(
                    path,
                    line,
                    f"{name} belongs in [{elsewhere}]" if elsewhere != "app" else f"{name} belongs in [[app]]",
                )
            raise _unknown(path, line, name, NAMES[table], "option")
        found[name] = Setting(value, line)
    return found


def _unknown(path: str, line: int, name: str, known: Collection[str], what: str) -> ConfigError:
    import difflib

    near = difflib.get_close_matches(name, known, 1)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else f"there are: {', '.join(known)}"
        if what == "table"
        else "docs/options.md lists them"
    )
    return ConfigError(path, line, f"there is no {what} {name}; {hint}")


def _lines(text: str) -> dict[tuple[str, int, str], int]:
    """(table, index among its namesakes, key) -> line; a table itself has the key ``""``. tomllib gives no lines."""
    found: dict[tuple[str, int, str], int] = {}
    counts: dict[str, int] = {}
    table, number = "", 0
    for line, content in enumerate(text.splitlines(), 1):
        header = _HEADER.match(content)
        if header is not None:
            name, _, rest = header[2].replace('"', "").partition(".")
            if header[1] and not rest:
                counts[name] = counts.get(name, -1) + 1
            table, number = name, max(0, counts.get(name, 0))
            found.setdefault((table, number, rest.split(".")[0]), line)
            if rest:
                table = f"{name}.{rest}"  # the keys of a nested table are values here
            continue
        key = _KEY.match(content)
        if key is not None:
            found.setdefault((table, number, key[1].replace('"', "")), line)
    return found
