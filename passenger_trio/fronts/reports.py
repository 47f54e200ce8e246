"""A front's side of the stream of orders and reports. It also carries the front's log: one process writes the log, so lines never mix.

Laws: sending a report never waits. When ``_MOST`` bytes wait for the owner, lines of the log are dropped, and the next line says how
many. Other reports are never dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from passenger_trio.codecs.front_reports import FrameReader, Line, Order, encode_line, read_order
from passenger_trio.system.logs import ROOT_LOGGER, extra_of

__all__ = ["LogToOwner", "Reports", "set_log_level"]

_MOST = 4 * 1024**2


class Reports:
    """``run`` is its task."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._waiting = bytearray()
        self._more = trio.Event()
        self._sent = trio.Event()

    def send(self, report: bytes) -> None:
        """Send a report, in order."""
        self._waiting += report
        self._more.set()

    @property
    def is_full(self) -> bool:
        """Whether so many bytes wait that lines of the log are dropped."""
        return len(self._waiting) > _MOST

    async def wait_sent(self) -> None:
        """Return when the kernel has taken all reports."""
        while self._waiting:
            await self._sent.wait()

    async def run(self) -> None:
        """Write reports until cancelled.

        :raises trio.BrokenResourceError: the owner is gone.
        """
        while True:
            await self._more.wait()
            self._more = trio.Event()
            data = bytes(self._waiting)
            await self._stream.send_all(data)
            del self._waiting[: len(data)]
            if self._waiting:
                self._more.set()
            sent, self._sent = self._sent, trio.Event()
            sent.set()

    async def hear(self, obey: Callable[[Order], None]) -> None:
        """Pass on the owner's orders until it is gone."""
        reader = FrameReader()
        while data := await self._stream.receive_some(65536):
            reader.feed(bytes(data))
            for payload in reader.frames():
                obey(read_order(payload))


def set_log_level(level: int) -> None:
    """Log this level and those above it from now on."""
    logging.getLogger(ROOT_LOGGER).setLevel(level)


class LogToOwner(logging.Handler):
    """Sends the records of this process to the owner."""

    def __init__(self, reports: Reports) -> None:
        super().__init__()
        self._reports = reports
        self._dropped = 0

    @classmethod
    def install(cls, reports: Reports, level: int) -> None:
        """Let the loggers of passenger_trio write to the owner."""
        root = logging.getLogger(ROOT_LOGGER)
        root.handlers[:] = [cls(reports)]
        root.setLevel(level)
        root.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        if self._reports.is_full:
            self._dropped += 1
            return
        if self._dropped:
            lost, self._dropped = self._dropped, 0
            text = f"{lost} lines of the log of a front were lost here"
            self._reports.send(encode_line(Line(logging.WARNING, record.name, text, {}, "")))
        self._reports.send(encode_line(_line(self, record)))


def _line(handler: logging.Handler, record: logging.LogRecord) -> Line:
    extra = {
        name: value if value is None or isinstance(value, str | int | float) else str(value)
        for name, value in extra_of(record).items()
    }
    formatter = handler.formatter or logging.Formatter()
    traceback = formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
    traceback = str(extra.pop("traceback", "")) + traceback
    return Line(record.levelno, record.name, record.getMessage(), extra, traceback)
