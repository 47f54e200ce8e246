"""The README's performance section is what ``report.py`` makes of ``docs/performance.json``, and the plot is SVG."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from plot import Line, plot
from report import PLOT, README, SUMMARY, section, summarised, with_section


def test_the_readme_says_what_was_measured() -> None:
    text = README.read_text()
    assert with_section(text, section(json.loads(SUMMARY.read_text()))) == text


def test_another_figure_is_another_section() -> None:
    summary = json.loads(SUMMARY.read_text())
    before = section(summary)
    for work in summary["works"].values():
        for row in work["rows"].values():
            name = next(iter(row))
            row[name] = 123456 if not isinstance(row[name], dict) else row[name]
            break
    assert section(summary) != before
    assert "123 456" in section(summary)


def test_no_sample_is_published() -> None:
    run = {"works": {"start": {"rows": {"it": {"ms": 1.0, "all": [1.0]}}}}}
    assert summarised(run)["works"] == {"start": {"rows": {"it": {"ms": 1.0}}}}
    assert '"all"' not in SUMMARY.read_text()


def test_a_readme_without_markers_is_left_alone() -> None:
    with pytest.raises(ValueError, match="markers"):
        with_section("nothing", "section")


def test_a_plot_is_well_formed() -> None:
    root = ElementTree.fromstring(plot("<&", "us", [Line("a & b", [(1, 2.0), (16, 4.0)]), Line("flat", [(1, 0.0)])]))
    assert [len(root.findall(f"{{*}}{tag}")) for tag in ("polyline", "circle")] == [2, 3]
    if PLOT.exists():
        ElementTree.parse(PLOT)
