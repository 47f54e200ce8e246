"""A line plot as SVG: the abscissa logarithmic, the ordinate linear from zero. It looks well on a light and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

import attrs

COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#9c755f", "#edc948")
WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 280, 40, 40


@attrs.frozen
class Line:
    """A name, and points (x > 0, y >= 0)."""

    name: str
    points: Sequence[tuple[float, float]]


def plot(title: str, unit: str, lines: Sequence[Line]) -> str:
    """The text of an SVG file."""
    xs = [x for line in lines for x, _ in line.points]
    low, high = math.log(min(xs)), math.log(max(xs))
    step, top = _scale(max(y for line in lines for _, y in line.points))

    def at(x: float, y: float) -> tuple[float, float]:
        along = (math.log(x) - low) / ((high - low) or 1)
        return LEFT + along * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM)

    grey = "#888"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="{grey}">',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
    ]
    for number in range(round(top / step) + 1):
        _, y = at(min(xs), number * step)
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{grey}" stroke-opacity=".3"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number * step:g} {escape(unit)}</text>'
        )
    for x in sorted(set(xs)):
        along, _ = at(x, 0)
        parts.append(f'<text x="{along:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:g}</text>')
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        places = [at(x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        parts.append(
            f'<text x="{WIDTH - RIGHT + 20}" y="{TOP + 10 + 20 * number}" fill="{colour}">{escape(line.name)}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def _scale(most: float) -> tuple[float, float]:
    """(the distance of the lines, the top): about five lines of a round number."""
    rough = (most or 1.0) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return step, step * math.ceil((most or 1.0) / step)
