"""The one format of times that are written for people and programs (OB6): RFC 3339, in UTC, with milliseconds.

``2025-11-23T07:43:01.204Z``: in each line of the log, in both of its formats; in the JSON access log; in
``status`` and ``list``. So lines of different files sort and join as text, and no line is ambiguous in the
hour in which the clocks go back.

Two outsiders keep the form that their readers expect: ``combined`` and ``%t`` of the access log have
Apache's (also in UTC), and syslog has RFC 3164's. Numbers in JSON of the admin API are seconds since 1970.

Law: nothing here reads the clock. Each second is formatted once.
"""

from __future__ import annotations

import time

__all__ = ["rfc3339", "utc_second"]

_last = (-1, "")


def utc_second(second: int) -> str:
    """Seconds since 1970 -> ``"2025-11-23T07:43:01"``."""
    global _last
    last = _last  # read once: the access log is written in another thread
    if last[0] != second:
        _last = last = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
    return last[1]


def rfc3339(seconds: float) -> str:
    """Seconds since 1970 -> ``"2025-11-23T07:43:01.204Z"``."""
    second = int(seconds)
    return f"{utc_second(second)}.{int((seconds - second) * 1000):03d}Z"
