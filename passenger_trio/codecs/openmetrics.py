"""Metrics as text: the OpenMetrics exposition format, version 1.0 (the form that Prometheus reads).

This module knows names, labels and numbers. It never knows what they mean, or where they come from. It is written by hand because the format is
a few lines. The library prometheus-client has its own counters with a lock each, which the request path would pay
for, and formats every sample anew at each scrape. Tests compare the text with that library, and check it with promtool.

Laws: a family is written once, with all of its samples together. A sample is one line, whatever its labels contain. The text
ends with ``# EOF``. Items that have not changed since the last scrape are not formatted again (``Section``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

import attrs

from passenger_trio.core.duration_histogram import Histogram
from passenger_trio.late_classes import define, frozen

__all__ = ["CONTENT_TYPE", "END", "PAUSE", "Exposition", "Family", "Section", "encode"]

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

PAUSE: Final = None
"""Given out between two slices of the work: the caller lets other tasks run."""
END = b"# EOF\n"

_STEP = 1000
"""The work between two pauses, counted in unchanged items."""
_WRITTEN = 50
"""An item that is formatted counts as so many unchanged ones."""
_LINES = 250
"""The most items in one part of the text."""

_UNITS = ("seconds", "bytes")
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


@define(eq=False)
class Family:
    """All samples of one name.

    :ivar name: without the suffix ``_total`` of a counter.
    :ivar kind: ``counter``, ``gauge`` or ``histogram``.
    """

    name: str
    kind: str
    help: str
    samples: list[tuple[Mapping[str, str], float | Histogram]] = attrs.field(factory=list)

    def add(self, value: float | Histogram, **labels: str) -> None:
        """Add a sample. No two samples of a family may have the same labels."""
        self.samples.append((labels, value))


Item = tuple[str, object, Any]
"""(Name, unique in its section; stamp; the value from which samples are made). As long as the stamp is equal, the samples are equal."""


@frozen
class Section:
    """Families with samples of many items. Of a thousand applications, few have changed since the last scrape.

    :ivar heads: name, kind and help of each family. The first name is also the section's.
    :ivar items: iterated with pauses in between.
    :ivar add: adds the samples of an item to the families. Its argument is the third member of the item.
    """

    heads: tuple[tuple[str, str, str], ...]
    items: Iterable[Item]
    add: Callable[[Any, Sequence[Family]], None]

    def families(self) -> Iterator[Family | None]:
        """The families as values, after pauses."""
        families = self._empty()
        for number, (_, _, item) in enumerate(self.items, 1):
            self.add(item, families)
            if not number % (_STEP // _WRITTEN):
                yield PAUSE
        yield from families

    def lines_of(self, item: Any) -> tuple[bytes, ...]:
        """The lines of an item in each family."""
        families = self._empty()
        self.add(item, families)
        return tuple([b"".join([_sample(family, *sample) for sample in family.samples]) for family in families])

    def _empty(self) -> list[Family]:
        return [Family(*head) for head in self.heads]


def encode(families: Iterable[Family]) -> bytes:
    """The exposition. Families without a sample are left out."""
    return b"".join([*(_text(family) for family in families), END])


class Exposition:
    """Writes families as text, scrape after scrape, and keeps the lines of each item of a section."""

    def __init__(self) -> None:
        self.written = 0
        """How many items of sections were formatted. All others were unchanged."""
        self._known: dict[str, dict[str, tuple[object, tuple[bytes, ...]]]] = {}
        """Section -> item -> its stamp, and its lines in each family."""

    def parts(self, found: Family | Section) -> Iterator[bytes | None]:
        """The lines of a family or a section in parts, with pauses between them. ``END`` follows the last one."""
        if isinstance(found, Family):
            yield _text(found)
        else:
            yield from self._section(found)

    def _section(self, section: Section) -> Iterator[bytes | None]:
        name = section.heads[0][0]
        before = self._known.get(name, {})
        known: dict[str, tuple[object, tuple[bytes, ...]]] = {}
        done = 0
        for key, stamp, item in section.items:
            found = before.get(key)
            if found is None or found[0] != stamp:
                found = stamp, section.lines_of(item)
                self.written += 1
                done += _WRITTEN
            known[key] = found
            done += 1
            if done >= _STEP:
                done = 0
                yield PAUSE
        self._known[name] = known
        rows = [lines for _, lines in known.values()]
        yield PAUSE
        for place, head in enumerate(section.heads):
            first = _head(*head)
            for begin in range(0, len(rows), _LINES):
                if lines := b"".join([row[place] for row in rows[begin : begin + _LINES]]):
                    yield first + lines
                    first = b""


def _text(family: Family) -> bytes:
    if not family.samples:
        return b""
    head = _head(family.name, family.kind, family.help)
    return b"".join([head, *(_sample(family, *sample) for sample in family.samples)])


def _head(name: str, kind: str, help: str) -> bytes:
    lines = [f"# TYPE {name} {kind}\n"]
    unit = name.rpartition("_")[2]
    if unit in _UNITS:
        lines.append(f"# UNIT {name} {unit}\n")
    lines.append(f"# HELP {name} {help.translate(_ESCAPES)}\n")
    return _as_bytes("".join(lines))


def _sample(family: Family, labels: Mapping[str, str], value: float | Histogram) -> bytes:
    inner = ",".join([f'{key}="{_escaped(text)}"' for key, text in labels.items()])
    if isinstance(value, Histogram):
        return _as_bytes(_histogram(family.name, inner, value))
    name = f"{family.name}_total" if family.kind == "counter" else family.name
    return _as_bytes(f"{name}{{{inner}}} {_number(value)}\n" if inner else f"{name} {_number(value)}\n")


def _escaped(text: str) -> str:
    return text if text.isalnum() else text.translate(_ESCAPES)


def _as_bytes(text: str) -> bytes:
    """Encode a name, which may contain undecodable bytes of a file system."""
    return text.encode("utf-8", "backslashreplace")


@cache
def _skeleton(name: str, bounds: tuple[float, ...], labelled: bool) -> list[str]:
    """The lines of a histogram, cut where a number stands, with a NUL in place of the labels."""
    inner, alone = ("\0,", "{\0}") if labelled else ("", "")
    pieces = [f'{name}_bucket{{{inner}le="{_number(float(bound))}"}} ' for bound in (*bounds, math.inf)]
    pieces += [f"{name}_count{alone} ", f"{name}_sum{alone} ", ""]
    return [pieces[0], *("\n" + piece for piece in pieces[1:])]


def _histogram(name: str, inner: str, told: Histogram) -> str:
    pieces = _skeleton(name, told.bounds, bool(inner))
    total, word = 0, "0"
    words = []
    for count in told.counts:
        if count:
            total += count
            word = f"{total}"
        words.append(word)
    text = [""] * (2 * len(pieces) - 1)
    text[::2] = pieces
    text[1::2] = [*words, word, _number(told.seconds)]
    return "".join(text).replace("\0", inner)


def _number(value: float) -> str:
    if type(value) is int:
        return str(value)
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(value)
