"""An access log of the embedding program's own, beside the configured one (LI7).

Laws: each record goes to both, in order; a fault of the program's costs that record there, and nothing else (KE1).
"""

from __future__ import annotations

from typing import Protocol

from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.server.logs.access_log import AccessLog, AccessLogStatistics
from passenger_trio.server.logs.access_record import AccessRecord

__all__ = ["OnRequest", "RecordTee", "Records"]


class OnRequest(Protocol):
    """Called with the record of each finished request, and of refused ones as far as they are logged (ED14)."""

    def __call__(self, record: AccessRecord, /) -> None: ...


class Records(Protocol):
    """Where the records of finished requests go."""

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
