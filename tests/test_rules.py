"""HO7: ``docs/rules.md`` defines every code that the tree uses, and is right about where each rule is kept and tested."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "docs"))

import rules

TEXT = rules.PAGE.read_text()
UNUSED = "R" + "99"


def test_HO7_the_page_says_what_is_so() -> None:
    assert list(rules.faults(TEXT)) == []


def test_HO7_the_columns_that_are_made_are_up_to_date() -> None:
    """What ``python docs/rules.py`` would write."""
    assert rules.refreshed(TEXT) == TEXT


def test_HO7_every_rule_and_fault_is_defined() -> None:
    defined = {row.code for row in rules.rows(TEXT)}
    assert {f"R{number}" for number in range(1, 51)} <= defined
    assert {f"F{number}" for number in range(1, 65)} <= defined
    assert {f"KE{number}" for number in range(1, 15)} <= defined


def _row(code: str) -> str:
    return next(line for line in TEXT.splitlines() if line.startswith(f"| {code} |"))


def _missing(code: str) -> Callable[[str], str]:
    return lambda text: text.replace(_row(code) + "\n", "")


def _changed(code: str, old: str, new: str) -> Callable[[str], str]:
    assert old in _row(code)
    return lambda text: text.replace(_row(code), _row(code).replace(old, new))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_missing("R28"), "has no row in docs/rules.md"),
        (lambda text: text + _row("R28").replace("R28", UNUSED) + "\n", f"{UNUSED} has a row, and nothing uses it"),
        (lambda text: text + _row("R28") + "\n", "R28 is defined 2 times"),
        (_changed("R34", "`system/tempfiles.py`", "`system/no_such_file.py`"), "which does not exist"),
        (_changed("R34", "`test_tempfiles.py`", "`test_no_such_file.py`"), "does not exist"),
        (
            _changed("R34", "`test_tempfiles.py`", "`test_plain_request.py`"),
            "the test test_plain_request.py does not mention R34",
        ),
        (_changed("R34", "`system/tempfiles.py`", rules.NOTHING), "no module is named that keeps it"),
        (
            lambda text: text.replace(_row("R34"), str(rules.Row("R34", "rule", "source", (), ()))),
            "R34 has no test, and ARCHITECTURE.md gives no reason",
        ),
    ],
)
def test_HO7_a_page_that_is_wrong_is_found_out(damage: Callable[[str], str], complaint: str) -> None:
    damaged = damage(TEXT)
    assert damaged != TEXT
    assert any(complaint in found for found in rules.faults(damaged))


def test_HO7_a_file_that_was_moved_is_found_again_and_a_new_row_gets_its_places() -> None:
    moved = _changed("R34", "`system/tempfiles.py`", "`somewhere/tempfiles.py`")(TEXT)
    assert rules.refreshed(moved) == TEXT
    bare = str(rules.Row("R34", "rule", "source", ("?",), ("?",)))
    [row] = rules.rows(rules.refreshed(bare))
    assert row.kept_in == ("system/tempfiles.py",)
    assert "test_tempfiles.py" in row.tests


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("(R28; RFC 9110)", ["R28"]),
        ("def test_R18_R29_nothing", ["R18", "R29"]),
        ("KE1, F9.", ["KE1", "F9"]),
        ("KERN1 F100 xR2 \\xF1 #F00 R2D2 R0", []),
    ],
)
def test_HO7_what_a_code_is(text: str, codes: list[str]) -> None:
    assert rules.CODE.findall(text) == codes
