"""Dates of HTTP (RFC 9110 section 5.6.7, IMF-fixdate): English, whatever the locale is.

(``email.utils`` can do this, too, but importing it loads a large part of the ``email`` package.)
"""

from __future__ import annotations

import time

__all__ = ["http_date"]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(seconds: int) -> bytes:
    """``Sun, 06 Nov 1994 08:49:37 GMT``.

    :param seconds: since the epoch.
    """
    year, month, day, hour, minute, second, weekday, _, _ = time.gmtime(seconds)
    text = f"{_DAYS[weekday]}, {day:02d} {_MONTHS[month - 1]} {year:04d} {hour:02d}:{minute:02d}:{second:02d} GMT"
    return text.encode("ascii")
