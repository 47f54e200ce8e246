"""Metrics as text: the OpenMetrics exposition format, version 1.0 (the form that Prometheus reads).

Knows names, labels and numbers. Does not know what they mean, nor where they come from. Written by hand: the format is
a few lines, while prometheus-client keeps its own counters behind a lock for each, which the request path would pay
for. Tests read the text with that library's parser, and promtool.

Laws: a family is written once, with all of its samples together; whatever is in a label, a sample is one line; the text
ends with ``# EOF``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import attrs

from passenger_trio.core.tally import Histogram

__all__ = ["CONTENT_TYPE", "Family", "encode"]

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

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
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        name = family.name
        lines.append(f"# TYPE {name} {family.kind}")
        unit = name.rpartition("_")[2]
        if unit in _UNITS:
            lines.append(f"# UNIT {name} {unit}")
        lines.append(f"# HELP {name} {family.help.translate(_ESCAPES)}")
        for labels, value in family.samples:
            inner = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
            if isinstance(value, Histogram):
                lines += _histogram(name, inner, value)
            else:
                suffix = "_total" if family.kind == "counter" else ""
                lines.append(
                    f"{name}{suffix}{{{inner}}} {_number(value)}" if inner else f"{name}{suffix} {_number(value)}"
                )
    lines.append("# EOF\n")
    # A name from a file system may hold bytes that are no text.
    return "\n".join(lines).encode("utf-8", "backslashreplace")


def _histogram(name: str, inner: str, told: Histogram) -> Iterable[str]:
    before = f"{inner}," if inner else ""
    total = 0
    for bound, count in zip((*told.bounds, math.inf), told.counts, strict=True):
        total += count
        yield f'{name}_bucket{{{before}le="{_number(float(bound))}"}} {total}'
    labels = f"{{{inner}}}" if inner else ""
    yield f"{name}_count{labels} {total}"
    yield f"{name}_sum{labels} {_number(told.seconds)}"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(value)
