"""Texts of options as people write them (``30s``, ``512M``, ``0660``) -> values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from passenger_trio.errors import OptionError
from passenger_trio.options import FRONTS_AUTO

__all__ = ["parse_duration", "parse_fronts", "parse_mode", "parse_size", "parse_umask"]

_MOST_FRONTS = 64
_DURATION_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {
    "": 1,
    "b": 1,
    **{unit: 1024**power for power, letter in enumerate("kmgt", 1) for unit in (letter, letter + "b", letter + "ib")},
}
_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*\Z", re.ASCII)


def parse_duration(text: str | float, option: str = "duration") -> float:
    """Seconds from ``30``, ``30s``, ``1.5m``, ``2h``, ``250ms``, ``1d``.

    :raises OptionError: not one of these.
    """
    return _quantity(text, option, _DURATION_UNITS, "a number of seconds, or with a unit: 250ms, 30s, 5m, 2h, 1d")


def parse_size(text: str | float, option: str = "size") -> int:
    """Bytes from ``65536``, ``64K``, ``512M``, ``1GiB``. Every unit is a power of 1024.

    :raises OptionError: not one of these.
    """
    return int(_quantity(text, option, _SIZE_UNITS, "a number of bytes, or with a unit: 64K, 512M, 1GiB"))


def parse_mode(text: str, option: str = "mode") -> int:
    """The mode of a file from ``0660`` or ``660``: octal, permissions only.

    :raises OptionError: not a mode.
    """
    if not isinstance(text, str) or not _MODE.fullmatch(text):
        raise OptionError(
            option, text, "three octal digits, with or without a leading 0; 0660 lets the owner and the group connect"
        )
    return int(text, 8)


def parse_umask(text: str, option: str = "umask") -> int:
    """A umask from ``0022`` or ``022``; -1 from ``""``, which changes nothing.

    :raises OptionError: not a umask.
    """
    if text == "":
        return -1
    if not isinstance(text, str) or not _MODE.fullmatch(text):
        raise OptionError(
            option, text, "three octal digits, with or without a leading 0; 0027 keeps others from new files"
        )
    return int(text, 8)


def parse_fronts(text: str, option: str = "fronts") -> str:
    """A number of front processes, or ``auto``.

    :raises OptionError: neither.
    """
    if text == FRONTS_AUTO or (text.isascii() and text.isdecimal() and len(text) < 4 and 0 < int(text) <= _MOST_FRONTS):
        return text
    raise OptionError(option, text, f"a number from 1 to {_MOST_FRONTS}, or {FRONTS_AUTO}: half of the cores")


def _quantity(text: str | float, option: str, units: Mapping[str, float], hint: str) -> float:
    match = _QUANTITY.match(str(text))
    scale = units.get(match[2].lower()) if match is not None else None
    quantity = float(match[1]) * scale if match is not None and scale is not None else math.inf
    if quantity == math.inf:  # also the result of very many digits
        raise OptionError(option, text, hint)
    return quantity
