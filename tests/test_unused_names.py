"""No name of the package is used by nobody, or by tests only: such a name is dead code that tests keep alive.

``python tests/test_unused_names.py`` lists them. A name counts as used when the package reads it anywhere, so a method that shares its name with a living
one is not found.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import passenger_trio

PACKAGE = Path(__file__).resolve().parent.parent / "passenger_trio"

CALLED_BY_OTHERS = {
    "convert": "click",
    "list_commands": "click",
    "get_command": "click",
    "format_commands": "click",
    "format_options": "click",
    "list_": "the table of commands, by its name",
    "get_error_hint": "click",
    "dashboard": "the table of commands, by its name",
    "emit": "logging",
    "before_io_wait": "trio",
    "task_scheduled": "trio",
    "_fields_": "ctypes",
    "start_clock": "trio",
    "deadline_to_sleep_time": "trio",
    "last_error": "status, which shows every member",
    "REQUEST_PATH": "newcomers, who read it first",
    "dummy_failure": "tests of the pool, as DummySpawner, whose evidence it is",
    "DummySpawner": "tests of the pool run on this verified fake; tests/spawning/test_spawner_conformance.py verifies it",
}
"""Name -> who uses it, although the package does not."""


PUBLIC = frozenset(passenger_trio.__all__)
"""The library's faces: programs use them and their members (LI9)."""


def definitions(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name in PUBLIC:
                continue
            yield node.name
            if isinstance(node, ast.ClassDef):
                yield from definitions(node.body)
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def unused() -> dict[str, list[str]]:
    """Name -> the files that define it."""
    defined: dict[str, list[str]] = {}
    used: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        # The members of status are there for programs.
        if "testing" not in path.parts and path.name != "status_types.py":
            for name in definitions(tree.body):
                defined.setdefault(name, []).append(str(path.relative_to(PACKAGE)))
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                used.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                used.add(node.attr)
    return {name: where for name, where in defined.items() if name not in used and not name.startswith("__")}


def test_no_name_is_used_by_tests_only() -> None:
    """Issue 14: dead code goes."""
    found = {name: where for name, where in unused().items() if name not in CALLED_BY_OTHERS}
    assert not found


def test_each_exception_is_one() -> None:
    assert set(CALLED_BY_OTHERS) <= set(unused())


if __name__ == "__main__":
    for name, where in sorted(unused().items()):
        print(f"{name}: {', '.join(where)}; {CALLED_BY_OTHERS.get(name, 'nobody')}")
