"""The figures in docs/performance.md and in the README are what ``report.py`` makes of ``docs/performance.json``, and the plot is SVG."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import report
from plot import Line, plot
from report import BRIEF, PAGE, PLOT, README, SUMMARY, brief, section, summarised, with_section


def test_the_documents_say_what_was_measured() -> None:
    summary = json.loads(SUMMARY.read_text())
    for document, made in ((README, brief(summary)), (PAGE, section(summary))):
        text = document.read_text()
        assert with_section(text, made) == text, f"{document.name}: run python tests/bench/report.py"


def test_the_readme_leaves_out_nobody_who_was_measured() -> None:
    """Also who is faster."""
    works = json.loads(SUMMARY.read_text())["works"]
    made = brief({"date": "today", "works": works})
    for work, heading, cell in BRIEF:
        [line] = [line for line in made.splitlines() if line.startswith(f"| {heading} |")]
        for name, row in works[work]["rows"].items():
            assert f"{name.removeprefix('passenger_trio, ')}: {cell(row)}" in line or f"| {cell(row)} |" in line


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


def test_a_run_of_some_works_keeps_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The summary itself is the first run. (It failed: its plot was to be copied onto itself.)"""
    for name, document in (("SUMMARY", SUMMARY), ("README", README), ("PAGE", PAGE), ("PLOT", PLOT)):
        copy = tmp_path / document.name
        copy.write_bytes(document.read_bytes())
        monkeypatch.setattr(report, name, copy)
    before = json.loads(SUMMARY.read_text())
    run = {
        **before,
        "date": "2030-01-02",
        "seconds": 9,
        "works": {"start": {"rows": {"passenger_trio": {"ms": 4321.0, "own_rss_mib": 1.0}}}},
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path / SUMMARY.name), str(tmp_path / "run.json")])
    report.main()
    after = json.loads((tmp_path / SUMMARY.name).read_text())
    assert after["works"].keys() == before["works"].keys()
    assert after["works"]["start"]["rows"] == run["works"]["start"]["rows"]
    page = (tmp_path / PAGE.name).read_text()
    assert "4 321" in page
    assert "Measured on 2030-01-02" in page, "the table says of which run it is"
    assert after["date"] == before["date"], "the others are of the run that they were of"
    assert (tmp_path / PLOT.name).read_bytes() == PLOT.read_bytes()


def test_a_document_without_markers_is_left_alone() -> None:
    with pytest.raises(ValueError, match="markers"):
        with_section("nothing", "section")


def test_a_plot_is_well_formed() -> None:
    root = ElementTree.fromstring(plot("<&", "us", [Line("a & b", [(1, 2.0), (16, 4.0)]), Line("flat", [(1, 0.0)])]))
    assert [len(root.findall(f"{{*}}{tag}")) for tag in ("polyline", "circle")] == [2, 3]
    if PLOT.exists():
        ElementTree.parse(PLOT)
