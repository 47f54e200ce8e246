"""TH6: what is left of a failed test is written whatever is in it."""

from __future__ import annotations

from pathlib import Path

from passenger_trio.testing.artefacts import write_artefacts
from passenger_trio.testing.timeline import Timeline


def test_TH6_a_failure_that_is_no_text(tmp_path: Path) -> None:
    """A name of a file that is no UTF-8 ended the whole run by an internal error of pytest."""
    odd = "tests/test_it.py::test[bytes\udcff]"
    timeline = Timeline(odd, 0.0, 1)
    for path in write_artefacts(tmp_path, odd, timeline, f"no answer for {odd}", None):
        assert "bytes" in path.read_text()
