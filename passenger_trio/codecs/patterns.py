"""Regular expressions with possessive quantifiers, on every interpreter.

A possessive quantifier gives nothing back, so a head that does not match is given up at once, and a match keeps no record of where it
could give back. PyPy 3.11 misreads them (``X++`` matches the empty string there, nested ones match too little), so it gets the same
pattern with greedy ones. That is the same language only while what follows a repetition cannot begin with what it repeats: keep it so.
"""

from __future__ import annotations

import re
import sys

__all__ = ["compiled", "greedy"]

_POSSESSIVE = re.compile(rb"(?<=[\])])([*+?])\+")


def compiled(pattern: bytes) -> re.Pattern[bytes]:
    """``re.compile`` for a pattern whose possessive quantifiers stand behind a class or a group."""
    return re.compile(greedy(pattern) if sys.implementation.name == "pypy" else pattern)


def greedy(pattern: bytes) -> bytes:
    """The pattern with greedy quantifiers for possessive ones."""
    return _POSSESSIVE.sub(rb"\1", pattern)
