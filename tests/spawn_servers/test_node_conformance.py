"""The Node loader keeps spawn_servers/CONTRACT.md, on every Node that is here."""

from __future__ import annotations

import re

import pytest
from node_http import LOADER, nodes, subject

from passenger_trio.testing.conformance import CHECKS, Check

NODES = nodes()
CASES = [
    pytest.param(check, node, id=f"{name}-{check}")
    for name, node in NODES.items()
    for check in CHECKS
    if check.concerns(subject(node))
]


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.parametrize(("check", "node"), CASES)
def test_contract(check: Check, node: str) -> None:
    """Each check by its name and with each Node, which the log of a run lists."""
    check(subject(node))


def test_there_is_a_node_to_check_and_enough_to_check() -> None:
    assert len(CASES) >= 25 * len(NODES) > 0


def test_it_uses_the_standard_library_of_node_16_only() -> None:
    text = LOADER.read_text()
    assert set(re.findall(r"require\('([^']+)'\)", text)) == {"cluster", "fs", "http", "module", "net", "path", "url", "worker_threads"}
    for newer in (r"structuredClone", r"\bfetch\(", r"\.at\(-?\d", r"Object\.hasOwn", r"closeIdleConnections", r"\.findLast", r"node:test"):
        assert not re.search(newer, text), newer
