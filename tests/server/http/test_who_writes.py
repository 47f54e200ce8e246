"""HO1: an exchange says of each of its fields which modules write it, and the code keeps to that."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from passenger_trio import server
from passenger_trio.server.http import exchange

assert server.__file__ is not None
MODULES = sorted(Path(server.__file__).parent.rglob("*.py"))


def declared() -> dict[str, set[str]]:
    """Field -> the modules that may write it, as the headings in the class say."""
    found: dict[str, set[str]] = {}
    writers: set[str] = set()
    body = Path(exchange.__file__).read_text().partition("class Exchange:")[2].partition("    def ")[0]
    for line in body.splitlines():
        if heading := re.fullmatch(r"    # Written by: (.+)", line):
            writers = set(heading[1].split(", "))
        elif field := re.match(r"    (\w+)(?: =|:)", line):
            assert writers, f"{field[1]} stands under no heading"
            found[field[1]] = writers
    return found


def writes(path: Path) -> Iterator[str]:
    """The fields of an exchange that a module assigns to."""
    for node in ast.walk(ast.parse(path.read_text())):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            for one in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(one, ast.Attribute):
                    owner = getattr(one.value, "id", None) or getattr(one.value, "attr", "")
                    if owner in ("exchange", "_exchange"):
                        yield one.attr


DECLARED = declared()


def test_the_headings_are_read() -> None:
    assert len(DECLARED) > 25
    assert DECLARED["retried"] == {"forward_response"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_writes_only_what_is_its_own(path: Path) -> None:
    wrong = {field for field in writes(path) if path.stem not in DECLARED.get(field, ())}
    assert not wrong


def test_each_writer_that_is_named_writes_something() -> None:
    """A heading names no module that has nothing to do with its fields."""
    written = {path.stem: set(writes(path)) for path in MODULES}
    for writer in {name for names in DECLARED.values() for name in names}:
        fields = {field for field, names in DECLARED.items() if writer in names}
        assert fields & written[writer], f"{writer} writes none of {sorted(fields)}"
