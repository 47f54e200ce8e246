"""Possessive quantifiers: only where the interpreter reads them rightly, and never where greedy ones would mean something else."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys

import pytest

import passenger_trio
from passenger_trio.codecs.patterns import compiled, greedy


def test_every_possessive_pattern_has_a_greedy_one() -> None:
    found = 0
    for module in pkgutil.walk_packages(passenger_trio.__path__, "passenger_trio."):
        if module.name.endswith("__main__") or ".testing.worker." in module.name:
            continue  # a program; what runs in applications' processes
        for name, pattern in vars(importlib.import_module(module.name)).items():
            if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, bytes):
                structure = repr(re._parser.parse(greedy(pattern.pattern)))  # type: ignore[attr-defined]
                assert "POSSESSIVE" not in structure, f"{module.name}.{name}"
                found += greedy(pattern.pattern) != pattern.pattern
    assert found == 0 if sys.implementation.name == "pypy" else found > 5


@pytest.mark.parametrize(
    ("text", "matches"), [(b"", False), (b"=", False), (b"a", False), (b"a=", True), (b"ab=c", True), (b"a=b=", False)]
)
def test_both_read_the_same(text: bytes, matches: bool) -> None:
    pattern = rb"([a-z]++)=((?:[a-z]++)?+)"
    assert bool(compiled(pattern).fullmatch(text)) is matches
    assert bool(re.fullmatch(greedy(pattern), text)) is matches
