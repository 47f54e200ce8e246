"""Metrics as text: the OpenMetrics exposition format, version 1.0 (the form that Prometheus reads).

Knows names, labels and numbers. Does not know what they mean, nor where they come from. Written by hand: the format is
a few lines, while prometheus-client keeps its own counters behind a lock for each, which the request path would pay
for. Tests read the text with that library's parser, and promtool.

Laws: a family is written once, with all of its samples together. A sample is one line, whatever its labels contain. The
text ends with ``# EOF``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import accumulate, chain

import attrs

from passenger_trio.core.tally import Histogram

__all__ = ["CONTENT_TYPE", "END", "SLICE", "Exposition", "Family", "encode"]

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

SLICE = 125
"""Histograms in a part of the text, or four times as many numbers: about a millisecond, if all of them have changed."""
END = b"# EOF\n"

_UNITS = ("seconds", "bytes")
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


@attrs.define(eq=False)
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


def encode(families: Iterable[Family]) -> bytes:
    """The exposition. Families without a sample are left out."""
    return b"".join([*chain.from_iterable(map(Exposition().parts, families)), END])


class Exposition:
    """Writes families as text, scrape after scrape. It keeps the lines of each sample, and writes anew what has changed: of a
    thousand applications few have.
    """

    def __init__(self) -> None:
        self.written = 0
        """Samples that were written. The others were the same as before."""
        self._known: dict[str, dict[tuple[str, ...], tuple[object, bytes]]] = {}
        """Name of a family -> labels of a sample -> its value, and its lines."""

    def parts(self, family: Family) -> Iterator[bytes]:
        """The lines of a family, ``SLICE`` histograms or ``4 * SLICE`` numbers in each part; nothing, if it has none. ``END`` follows the last family.

        It takes the samples out of the family: freeing thousands of them at the end would take as long as a part.
        """
        samples = family.samples
        before, known = self._known.get(family.name, {}), {}
        lines = [_head(family)]
        size = SLICE if family.kind == "histogram" else 4 * SLICE
        while samples:
            some = samples[:size]
            del samples[:size]
            for labels, value in some:
                key = (*labels.values(),)
                now = (value.counts, value.seconds) if isinstance(value, Histogram) else value
                found = before.get(key)
                if found is None or found[0] != now:
                    self.written += 1
                    # The histogram changes its counts in place.
                    kept = (value.counts[:], value.seconds) if isinstance(value, Histogram) else value
                    found = kept, _sample(family, labels, value)
                known[key] = found
                lines.append(found[1])
            yield b"".join(lines)
            lines = []
        self._known[family.name] = known


def _head(family: Family) -> bytes:
    name = family.name
    lines = [f"# TYPE {name} {family.kind}\n"]
    unit = name.rpartition("_")[2]
    if unit in _UNITS:
        lines.append(f"# UNIT {name} {unit}\n")
    lines.append(f"# HELP {name} {family.help.translate(_ESCAPES)}\n")
    return _as_bytes("".join(lines))


def _sample(family: Family, labels: Mapping[str, str], value: float | Histogram) -> bytes:
    inner = ",".join([f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items()])
    if isinstance(value, Histogram):
        return _as_bytes(_histogram(family.name, inner, value))
    name = f"{family.name}_total" if family.kind == "counter" else family.name
    return _as_bytes(f"{name}{{{inner}}} {_number(value)}\n" if inner else f"{name} {_number(value)}\n")


def _as_bytes(text: str) -> bytes:
    """A name from a file system may hold bytes that are no text."""
    return text.encode("utf-8", "backslashreplace")


@cache
def _skeleton(name: str, bounds: tuple[float, ...]) -> str:
    """The lines of a histogram, with two gaps for each bucket: labels and number."""
    lines = [f'{name}_bucket{{%sle="{_number(float(bound))}"}} %d' for bound in (*bounds, math.inf)]
    return "\n".join([*lines, f"{name}_count%s %d", f"{name}_sum%s %s\n"])


def _histogram(name: str, inner: str, told: Histogram) -> str:
    totals = list(accumulate(told.counts))
    gaps: list[object] = [f"{inner}," if inner else ""] * (2 * len(totals))
    gaps[1::2] = totals
    labels = f"{{{inner}}}" if inner else ""
    return _skeleton(name, told.bounds) % (*gaps, labels, totals[-1], labels, _number(told.seconds))


def _number(value: float) -> str:
    if type(value) is int:
        return str(value)
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(value)
