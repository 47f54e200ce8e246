"""The Python ASGI loader keeps spawn_servers/CONTRACT.md: on asyncio and on Trio, on every interpreter that is here."""

from __future__ import annotations

import pytest
from python_asgi import LOOPS, subject
from python_wsgi import interpreters

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
