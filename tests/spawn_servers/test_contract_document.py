"""HO2: CONTRACT.md numbers what any loader must do, and names the check that shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from passenger_trio.testing.conformance import CHECKS

FOLDER = Path(__file__).resolve().parent.parent.parent / "spawn_servers"
CONTRACT = (FOLDER / "CONTRACT.md").read_text()


def test_every_check_shows_a_clause_and_every_check_named_exists() -> None:
    named = {name for group in re.findall(r"\[(`\w+`(?:,\s+`\w+`)*)\]", CONTRACT) for name in re.findall(r"\w+", group)}
    assert named == {check.name for check in CHECKS}


def test_clauses_are_numbered_in_order() -> None:
    numbers = re.findall(r"^\* \*\*(\w+)\.(\d+)\*\* ", CONTRACT, re.MULTILINE)
    sections = list(dict.fromkeys(section for section, _ in numbers))
    assert sections == ["1", "2", "3", "3a", "4"]
    for section in sections:
        found = [int(number) for one, number in numbers if one == section]
        assert found == list(range(1, len(found) + 1))


@pytest.mark.parametrize("name", ["CONTRACT.md", "IMPLEMENTATION.md"])
def test_lines_are_short_and_references_lead_somewhere(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert [line for line in text.splitlines() if len(line) > 120 and not line.lstrip().startswith("|")] == []
    clauses = set(re.findall(r"\*\*(\w+\.\d+)\*\*", CONTRACT))
    references = set(re.findall(r"(?:\(|see |\d to )([23]a?\.\d+)\b(?! and newer)", text))
    assert len(references) >= 2
    assert references <= clauses
