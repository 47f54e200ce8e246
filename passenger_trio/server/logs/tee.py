"""Gives each record of the access log to a function of the embedding program, too (LI7).

Laws: each record goes to the log and to the function, in order. If the function raises, it has lost that record, and nothing else happens (KE1).
"""

from __future__ import annotations

from typing import Protocol

from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.server.logs.access_log import AccessLog, AccessLogStatistics
from passenger_trio.server.logs.access_record import AccessRecord

__all__ = ["OnRequest", "RecordTee", "Records"]


class OnRequest(Protocol):
    """Called with the record of each finished request, and of each refused request that is logged (ED14)."""

    def __call__(self, record: AccessRecord, /) -> None: ...


class Records(Protocol):
    """A destination of the records of finished requests."""

    def record(self, record: AccessRecord) -> None:
        """Never waits, and raises nothing."""

    def reopen(self) -> None: ...

    def statistics(self) -> AccessLogStatistics: ...


class RecordTee:
    """See ``Records``."""

    def __init__(self, on_request: OnRequest, log: AccessLog | None, kernel: ErrorKernel) -> None:
        self._on_request = on_request
        self._log = log
        self._kernel = kernel

    def record(self, record: AccessRecord) -> None:
        if self._log is not None:
            self._log.record(record)
        with self._kernel.contain("on_request"):
            self._on_request(record)

    def reopen(self) -> None:
        if self._log is not None:
            self._log.reopen()

    def statistics(self) -> AccessLogStatistics:
        return self._log.statistics() if self._log is not None else AccessLogStatistics(0, 0, 0, 0, "")
