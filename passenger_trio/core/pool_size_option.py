"""``--max-pool-size``: a number of processes, ``auto``, or a share of the memory (OP6).

Pure. A value of the option is a whole number, ``"auto"``, or a text like ``"75%"``. ``processes_by_memory`` turns a share into a number.
"""

from __future__ import annotations

import sys

from passenger_trio.errors import OptionError

__all__ = ["AUTO", "AUTO_SHARE", "ceiling_of", "parse_pool_size", "share_of"]

AUTO = "auto"
AUTO_SHARE = 0.75
"""The share of ``auto``. Passenger's server optimization guide computes with it, too: a quarter stays for everything else."""

_HINT = "a number of processes from 1, auto (as many as fit into 75% of the memory), or another share: 50%"


def parse_pool_size(value: str | int, option: str = "--max-pool-size") -> int | str:
    """A number, ``auto`` or a share, as the option has it.

    :raises OptionError: the value is none of them.
    """
    text = str(value).strip()
    if isinstance(value, bool) or not text.isascii():
        raise OptionError(option, value, _HINT)
    if text == AUTO:
        return AUTO
    percent = text.removesuffix("%")
    if percent != text and percent.isdecimal() and len(percent) <= 3 and 1 <= int(percent) <= 100:
        return f"{int(percent)}%"
    try:
        number = int(text)
    except ValueError:
        raise OptionError(option, value, _HINT) from None
    if number < 1:
        raise OptionError(option, value, "it must be 1 or more, auto, or a share of the memory: 50%")
    return number


def share_of(value: int | str) -> float:
    """The share of the memory that processes may use; 0: the pool has a fixed number of them.

    :param value: as ``parse_pool_size`` returns it.
    """
    if isinstance(value, int):
        return 0.0
    return AUTO_SHARE if value == AUTO else int(value.removesuffix("%")) / 100


def ceiling_of(value: int | str) -> int:
    """The most processes that the minimums may ask for. A share sets no bound: it never goes below the minimums."""
    return value if isinstance(value, int) else sys.maxsize
