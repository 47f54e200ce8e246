"""Regular expressions with possessive quantifiers, on every interpreter.

A possessive quantifier does not backtrack. So a head that does not match fails at once, and a match stores no
backtracking points. PyPy 3.11 compiles them wrongly (``X++`` matches the empty string, nested ones match too
little), so PyPy gets the same pattern with greedy quantifiers. Both mean the same only while the text behind
a repetition cannot begin with what it repeats: keep it so.
"""

from __future__ import annotations

import re
import sys

__all__ = ["compiled", "greedy"]

_POSSESSIVE = re.compile(rb"(?<=[\])])([*+?])\+")


def compiled(pattern: bytes) -> re.Pattern[bytes]:
    """``re.compile`` for a pattern whose possessive quantifiers follow a class or a group."""
    return re.compile(greedy(pattern) if sys.implementation.name == "pypy" else pattern)


def greedy(pattern: bytes) -> bytes:
    """The pattern with greedy instead of possessive quantifiers."""
    return _POSSESSIVE.sub(rb"\1", pattern)
