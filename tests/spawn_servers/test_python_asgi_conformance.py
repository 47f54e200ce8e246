"""The Python ASGI loader keeps spawn_servers/CONTRACT.md: on asyncio and on Trio, on every interpreter that is here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from python_asgi import LOOPS, subject
from python_wsgi import compile_loader, others

from passenger_trio.testing.conformance import CHECKS, Check, Stage, check_spawn_server

OTHERS = others() if "PASSENGER_TRIO_TEST_ALL_PYTHONS" in os.environ else dict(list(others().items())[:1])
"""The oldest, which has to understand the loader; with the newest the WSGI loader runs, and the two have most of their code in common."""
CASES = [
    (check, preloaded, loop)
    for check in CHECKS
    for preloaded in (False, True)
    for loop in LOOPS
    if check.concerns(subject(preloaded=preloaded, loop=loop))
]


@pytest.fixture(scope="module")
def stages() -> Iterator[dict[tuple[bool, str], Stage]]:
    """Whether it is preloaded, event loop -> a stage that shares its worker, among those checks that may."""
    with ExitStack() as stack:
        kinds = [(preloaded, loop) for preloaded in (False, True) for loop in LOOPS]
        yield {
            (preloaded, loop): stack.enter_context(subject(preloaded=preloaded, loop=loop).stage(share=True))
            for preloaded, loop in kinds
        }


@pytest.mark.os
@pytest.mark.parametrize(
    ("check", "preloaded", "loop"),
    CASES,
    ids=[f"{check}-{'forked' if forked else 'started'}-{loop}" for check, forked, loop in CASES],
)
def test_contract(check: Check, preloaded: bool, loop: str, stages: dict[tuple[bool, str], Stage]) -> None:
    """Each check by its name, with this interpreter."""
    check(subject(preloaded=preloaded, loop=loop), stages[preloaded, loop])


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.timeout(360)
@pytest.mark.parametrize("python", OTHERS.values(), ids=OTHERS.keys())
def test_contract_on_other_interpreters(python: str) -> None:
    """All checks at once; a failure names each clause. They have no Trio."""
    compile_loader(python)
    done = check_spawn_server(subject(python), share=True)
    assert len(done) > len(CHECKS)
