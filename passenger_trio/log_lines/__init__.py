"""The lines of the log about processes and requests: each has a kind, fields and a sentence (OB6).

A line is declared once, in a table of this package, as a function without a body. Its parameters are
the fields of the line, and the sentence shows them::

    @line(WARNING, "killing process {pid} of {group}: {reason}")
    def process_killed(*, group: GroupKey, pid: int, reason: str) -> None: ...

    process_killed(group=process.group, pid=process.live.pid, reason=kill.reason.value)

People read the sentence. Programs read the fields: in JSON they are members beside ``event`` (the
sentence) and ``kind`` (the name of the function); for the handlers of an embedding program they are
attributes of the record.

Laws:

* A line of the pool, of a spawn or of a request is written by such a function only. So none is without
  fields (``tests/system/test_log_lines.py`` looks for other calls).
* A field has the same name in each line: ``group``, ``pid``, ``status``, ``signal``, ``reason``,
  ``request_id``, ``error_id``. A group is also its ``environment``, where that is known.
* A field without a value (None, ``""``) is left out. A part of a sentence in ``<...>`` is left out if
  one of its fields is.
* A field ``exc_info`` is an exception, whose traceback belongs to the line.
* Writing a line raises nothing, because its caller may be in a step of the pool.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING
from typing import Any, ParamSpec

from passenger_trio.core.model import GroupKey

__all__ = ["CRITICAL", "DEBUG", "ERROR", "INFO", "KINDS", "WARNING", "Kind", "lines_of"]

_P = ParamSpec("_P")

_PART = re.compile(r"<([^<>]*)>|([^<>]+)")
_FIELD = re.compile(r"\{(\w+)")


class Kind:
    """What is the same for all lines of a kind."""

    __slots__ = ("_parts", "declaration", "level", "logger", "name", "sentence")

    def __init__(self, declaration: Callable[..., None], level: int, logger: str, sentence: str) -> None:
        self.declaration = declaration
        self.name = declaration.__name__
        self.level = level
        self.logger = logger
        self.sentence = sentence
        self._parts: list[tuple[str, list[str]]] | None = None

    def text(self, values: dict[str, Any]) -> str:
        """The sentence, with these values."""
        if self._parts is None:
            self._parts = [
                (always or optional, _FIELD.findall(optional)) for optional, always in _PART.findall(self.sentence)
            ]
        try:
            return "".join(
                part.format_map(values)
                for part, needed in self._parts
                if not any(values.get(name) in (None, "") for name in needed)
            )
        except (
            KeyError,
            ValueError,
            TypeError,
        ):  # our bug, but the line must not be lost, nor cost its caller anything
            return f"{self.name} {values!r}"


KINDS: dict[str, Kind] = {}
"""Every kind of line, of the modules that are imported."""


def lines_of(logger: str) -> Callable[[int, str], Callable[[Callable[_P, None]], Callable[_P, None]]]:
    """The decorator that declares lines of a logger: its parameters are the level and the sentence."""

    def line(level: int, sentence: str) -> Callable[[Callable[_P, None]], Callable[_P, None]]:
        def declare(declaration: Callable[_P, None]) -> Callable[_P, None]:
            kind = KINDS[declaration.__name__] = Kind(declaration, level, logger, sentence)
            log = logging.getLogger(logger)

            def write(*_: _P.args, **values: _P.kwargs) -> None:
                if log.isEnabledFor(level):
                    error: Any = values.get("exc_info")
                    log.log(level, kind.text(values), exc_info=error, extra=_fields(kind.name, values), stacklevel=2)

            write.__name__ = write.__qualname__ = kind.name
            return write

        return declare

    return line


def _fields(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": kind}
    for name, value in values.items():
        if isinstance(value, GroupKey):
            fields[name] = value.name
            fields["environment"] = value.environment
        elif value is not None and value != "" and name != "exc_info":
            fields[name] = value
    return fields
