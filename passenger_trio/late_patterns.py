"""Regular expressions that are compiled when they are first used: for texts that a start does not see (DE10).

Compiling takes ``re`` up to a few milliseconds for each. After the first use a pattern costs what a compiled one costs.
"""

from __future__ import annotations

import re
from typing import Any, cast

__all__ = ["Late", "late"]


def late(text: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    """``re.compile``, with an error in the pattern at its first use."""
    return cast("re.Pattern[str]", Late(text, flags))


class Late:
    """A pattern that is compiled with the first look at one of its attributes."""

    def __init__(self, text: str, flags: re.RegexFlag) -> None:
        self._text = text
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        found = getattr(re.compile(self._text, self._flags), name)
        setattr(self, name, found)
        return found
