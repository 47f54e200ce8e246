"""The owner's end of a front's log: writes each line of a front to the server's log, with the front's number.

This module gets lines that were decoded and checked (``codecs/front_reports.py``). Law: a line's fields never replace a standard
attribute of a log record.
"""

from __future__ import annotations

import logging

from passenger_trio.codecs.front_reports import Line
from passenger_trio.system.logs import ROOT_LOGGER

__all__ = ["log_level", "write_line"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "front"}
"""Names that ``extra`` must not have."""


def log_level(configured: str) -> int:
    """The lowest level that the server logs now, or would log by its configuration (a reload may return to that). A front need
    not send lines below it."""
    return min(logging.getLogger(ROOT_LOGGER).getEffectiveLevel(), logging.getLevelNamesMapping()[configured.upper()])


def write_line(line: Line, front: int) -> None:
    """Write a line of a front."""
    extra = {name: value for name, value in line.extra.items() if name not in _STANDARD}
    if line.traceback:
        extra["traceback"] = line.traceback
    logging.getLogger(line.logger).log(line.level, "%s", line.event, extra={**extra, "front": front})
