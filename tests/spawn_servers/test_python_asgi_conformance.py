"""The Python ASGI loader keeps spawn_servers/CONTRACT.md: on asyncio and on Trio, on every interpreter that is here."""

from __future__ import annotations

import ast
import sys

import pytest
from python_asgi import LOADER, LOOPS, subject
from python_wsgi import OLDEST, interpreters

from passenger_trio.testing.conformance import CHECKS, Check, check_spawn_server

OTHERS = {name: path for name, path in interpreters().items() if name != "this"}
CASES = [
    (check, preloaded, loop)
    for check in CHECKS
    for preloaded in (False, True)
    for loop in LOOPS
    if check.concerns(subject(preloaded=preloaded, loop=loop))
]


@pytest.mark.os
@pytest.mark.parametrize(
    ("check", "preloaded", "loop"),
    CASES,
    ids=[f"{check}-{'forked' if forked else 'started'}-{loop}" for check, forked, loop in CASES],
)
def test_contract(check: Check, preloaded: bool, loop: str) -> None:
    """Each check by its name, with this interpreter."""
    check(subject(preloaded=preloaded, loop=loop))


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.parametrize("python", OTHERS.values(), ids=OTHERS.keys())
def test_contract_on_other_interpreters(python: str) -> None:
    """All checks at once; a failure names each clause. They have no Trio."""
    done = check_spawn_server(subject(python), share=True)
    assert len(done) > len(CHECKS)


def test_syntax_of_the_oldest_version() -> None:
    ast.parse(LOADER.read_text(), feature_version=OLDEST)


def test_imports_the_standard_library_only() -> None:
    """And the application's Trio, when it is to run on that."""
    imported = set()
    for node in ast.walk(ast.parse(LOADER.read_text())):
        if isinstance(node, ast.Import):
            imported.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module is not None
            imported.add(node.module.partition(".")[0])
    assert imported - {"passenger_trio_loader", "trio"} <= set(sys.stdlib_module_names)
