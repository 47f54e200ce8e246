"""The owner's end of a front's log: what a front tells is written as a line of the server's log, with the front's number.

Knows lines that were read and checked (``codecs/front_reports.py``). Law: a line's fields never replace what a record has by itself.
"""

from __future__ import annotations

import logging

from passenger_trio.codecs.front_reports import Line
from passenger_trio.system.logs import ROOT_LOGGER

__all__ = ["log_level", "write_line"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "front"}
"""Names that ``extra`` must not have."""


def log_level(configured: str) -> int:
    """The lowest level that is logged, now or by the configuration, which a reload may change: a front need not send others."""
    return min(logging.getLogger(ROOT_LOGGER).getEffectiveLevel(), logging.getLevelNamesMapping()[configured.upper()])


def write_line(line: Line, front: int) -> None:
    """Write a line of a front."""
    extra = {name: value for name, value in line.extra.items() if name not in _STANDARD}
    if line.traceback:
        extra["traceback"] = line.traceback
    logging.getLogger(line.logger).log(line.level, "%s", line.event, extra={**extra, "front": front})
