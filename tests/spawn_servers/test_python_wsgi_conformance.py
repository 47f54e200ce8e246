"""The Python WSGI loader keeps spawn_servers/CONTRACT.md, on every interpreter that is here."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from python_wsgi import LOADER, OLDEST, compile_loader, interpreters, others, subject

from passenger_trio.testing.conformance import CHECKS, Check, Stage, check_spawn_server

INTERPRETERS = interpreters()
OTHERS = others()


CASES = [
    (check, preloaded)
    for check in CHECKS
    for preloaded in (False, True)
    if check.concerns(subject(preloaded=preloaded))
]


@pytest.fixture(scope="module")
def stages() -> Iterator[dict[bool, Stage]]:
    """Whether it is preloaded -> a stage that shares its worker, among those checks that may."""
    with ExitStack() as stack:
        yield {
            preloaded: stack.enter_context(subject(preloaded=preloaded).stage(share=True))
            for preloaded in (False, True)
        }


@pytest.mark.os
@pytest.mark.parametrize(
    ("check", "preloaded"), CASES, ids=[f"{check}-{'forked' if forked else 'started'}" for check, forked in CASES]
)
def test_contract(check: Check, preloaded: bool, stages: dict[bool, Stage]) -> None:
    """Each check by its name, with this interpreter."""
    check(subject(preloaded=preloaded), stages[preloaded])


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.timeout(360)
@pytest.mark.parametrize("python", OTHERS.values(), ids=OTHERS.keys())
def test_contract_on_other_interpreters(python: str) -> None:
    """All checks at once; a failure names each clause."""
    compile_loader(python)
    done = check_spawn_server(subject(python), share=True)
    assert len(done) > len(CHECKS)


def test_this_interpreter_is_always_among_them() -> None:
    assert INTERPRETERS["this"] == sys.executable


FILES = sorted(LOADER.parent.rglob("*.py"))
"""The programs, and the package that they share."""


def name_of(file: Path) -> str:
    return file.relative_to(LOADER.parent).as_posix()


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_syntax_of_the_oldest_version(file: Path) -> None:
    ast.parse(file.read_text(), feature_version=OLDEST)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_the_standard_library_only(file: Path) -> None:
    """And of that what every version has (distutils and its kind are gone in newer ones)."""
    tree = ast.parse(file.read_text())
    trio = {"trio"} if name_of(file) == "passenger_trio_loader/asgi/on_trio.py" else set()
    assert imported_by(ast.walk(tree)) - {"passenger_trio_loader"} - trio <= set(sys.stdlib_module_names)
    slow = {"typing", "logging", "argparse", "email", "urllib", "inspect", "ctypes"}
    if "asgi" not in name_of(file):
        slow.add("http")
    assert imported_by(tree.body).isdisjoint(slow), "slow to start; where it is needed is early enough"


@pytest.mark.parametrize("package", [".", "wsgi", "asgi", "preloading"])
def test_the_reading_order_names_every_file(package: str) -> None:
    """HO2: what is read first names each file beside it, once, and each folder."""
    folder = LOADER.parent / "passenger_trio_loader" / package
    order = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert order is not None
    order = order.partition("Reading order:")[2].partition("Laws:")[0]
    files = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    assert {name: order.count(f" {name}") for name in files} == dict.fromkeys(files, 1)
    assert all(f" {path.parent.name}/" in order for path in folder.glob("*/__init__.py"))


def imported_by(nodes: Iterable[ast.AST]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module is not None
            found.add(node.module.partition(".")[0])
    return found
