"""Regular expressions that are compiled when they are first used, so that a start does not pay for patterns that it does not use (DE10).

Compiling a pattern takes up to a few milliseconds. After its first use it costs the same as a compiled one.
"""

from __future__ import annotations

import re
from typing import Any, cast

__all__ = ["Late", "late"]


def late(text: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    """``re.compile``, with an error in the pattern at its first use."""
    return cast("re.Pattern[str]", Late(text, flags))


class Late:
    """A pattern that is compiled when one of its attributes is first read."""

    def __init__(self, text: str, flags: re.RegexFlag) -> None:
        self._text = text
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        found = getattr(re.compile(self._text, self._flags), name)
        setattr(self, name, found)
        return found
