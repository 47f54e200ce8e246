"""DE10: a pattern that is compiled late is the pattern."""

from __future__ import annotations

import re

import pytest

from passenger_trio.late_patterns import late


def test_DE10_it_is_compiled_once() -> None:
    pattern = late(r"(\w)-", re.ASCII)
    assert "search" not in vars(pattern)
    assert pattern.search("a-")
    assert vars(pattern)["search"] == re.compile(r"(\w)-", re.ASCII).search
    assert pattern.sub(r"\1+", "a-b-ä-") == "a+b+ä-"
    assert (pattern.pattern, pattern.groups) == (r"(\w)-", 1)


def test_DE10_an_error_comes_with_its_use() -> None:
    pattern = late("(")
    with pytest.raises(re.error):
        pattern.search("")
