"""TH10: our own end-to-end tests use the plugin. Who starts the command says why in a clause of its docstring."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
CLAUSE = "Starts the command: "


def starts_the_command(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "start"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "Supervisor"
        for node in ast.walk(tree)
    )


MODULES = {
    path.stem: ast.parse(path.read_text())
    for path in sorted(TESTS.glob("*/test_*.py"))
    if path.parent.name in ("faces", "server", "spawning", "testing", "fronts", "pool")
}


@pytest.mark.parametrize("name", MODULES)
def test_TH10_who_starts_the_command_says_why(name: str) -> None:
    """A new module asks for ``live_app``; one whose subject is the server itself names that subject."""
    said = ast.get_docstring(MODULES[name]) or ""
    clauses = [line.removeprefix(CLAUSE) for line in said.splitlines() if line.startswith(CLAUSE)]
    if not starts_the_command(MODULES[name]):
        assert not clauses, "it starts none: leave the clause out"
        return
    assert len(clauses) == 1, (
        f"use live_app, passenger_factory ... (docs/testing.md), as in faces/test_clients_that_close.py; or, where the command, its"
        f" addresses, users, start, restarts or end are the subject, end the docstring with a line '{CLAUSE}SUBJECT is the subject.'"
    )
    assert len(clauses[0].split()) >= 4, "name the subject"
