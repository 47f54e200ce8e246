"""The access log: the request path collects lines, and a thread writes them in batches.

``record`` formats a line and appends it; it never waits and never raises. The task ``run`` writes
the lines at most ``FLUSH_INTERVAL`` seconds after the first line of a batch, or as soon as there
are ``FLUSH_BYTES``. Each batch takes one call in a thread: a file on a slow disk or a pipe without
a reader can block its writer, which must not be the event loop.

Laws (F54, F55):

* Memory is bounded: beyond ``MAX_BACKLOG`` bytes new lines are dropped and counted.
* A failed write (no reader, no space) drops its batch and is counted; the next batch is written
  as usual. Nothing is raised.
* A line is written once or not at all. If a write stops in the middle of a line, the next one
  begins on a new line.
* If no thread is available, the lines wait for one.
* ``reopen`` loses and repeats no line: lines that were recorded before may be in the old file or in
  the new one. While the new one cannot be opened, lines go to the old one, and each batch tries
  again (KE2).
* An unexpected error in one batch costs that batch (KE1).
* When ``run`` is cancelled, it writes the remaining lines, for ``LAST_FLUSH`` seconds at most.
"""

from __future__ import annotations

import fcntl
import os
import select
from typing import Protocol

import attrs
import trio

from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import OptionError
from passenger_trio.late_classes import define, frozen
from passenger_trio.options import Config
from passenger_trio.server.logs.access_format import format_combined, format_json
from passenger_trio.server.logs.access_record import AccessRecord
from passenger_trio.server.logs.format_string import compile_format
from passenger_trio.server.logs.syslog import Syslog, syslog_path
from passenger_trio.system.syscalls import F_DUPFD_CLOEXEC
from passenger_trio.system.threads import NoThread, in_thread

__all__ = ["AccessLog", "AccessLogStatistics", "AccessRecord"]

FLUSH_INTERVAL = 0.2
FLUSH_BYTES = 64 * 1024
MAX_BACKLOG = 8 * 1024 * 1024
LAST_FLUSH = 1.0
_RETRY = 0.2
"""Seconds until the next attempt to get a thread."""

_FORMATS = {"combined": format_combined, "json": format_json}


@frozen
class AccessLogStatistics:
    """Totals of one log.

    :ivar written: lines.
    :ivar dropped: lines that were lost.
    :ivar errors: number of failures to open or to write.
    :ivar backlog: bytes not yet written.
    :ivar last_error: the reason of the last failure.
    """

    written: int
    dropped: int
    errors: int
    backlog: int
    last_error: str


_NO_LOG = ("off", "none")
"""Values of ``access_log`` that mean no log. (To name a file so, write ``./none``.)"""


class AccessLog:
    """One destination. Start ``run`` in a nursery that outlives the one of the clients."""

    def __init__(
        self,
        destination: str,
        format: str = "combined",
        *,
        max_backlog: int = MAX_BACKLOG,
        kernel: ErrorKernel | None = None,
        lock: int = -1,
    ) -> None:
        """:param destination: a file, to which lines are appended, ``-`` for standard output, ``syslog``, or
            ``syslog:PATH`` (its socket).
        :param format: ``combined``, ``json``, or a format string (``format_string``).
        :param lock: descriptor of a file to lock while a batch is written, if other processes write to the
            same destination, so that their lines do not mix. -1: no other process writes.

        :raises OptionError: the destination cannot be opened, or the format has an unknown directive.
        """
        self.destination = destination
        self._kernel = kernel or ErrorKernel()
        self._format = _FORMATS.get(format) or compile_format(format)
        self._max_backlog = max_backlog
        try:
            path = syslog_path(destination)
            self._file: _Writer = _SyslogFile(Syslog(path)) if path else _File(destination, _open(destination), lock)
        except OSError as exc:
            raise OptionError("--access-log", destination, f"it cannot be opened: {exc.strerror}") from None
        self._lines: list[bytes] = []
        self._gathered = 0
        """Bytes in ``_lines``."""
        self._in_hand: _Batch | None = None
        """The batch that is being written."""
        self._written = 0
        self._dropped = 0
        self._errors = 0
        self._last_error = ""
        self._wants_reopen = False
        self._ended = False
        self._first = trio.Event()
        self._enough = trio.Event()
        # One writer: batches keep their order, and a stuck writer blocks only its own thread.
        self._limiter = trio.CapacityLimiter(1)

    @classmethod
    def open(cls, config: Config, kernel: ErrorKernel | None = None, lock: int = -1) -> AccessLog | None:
        """The log that the options ask for, or None if they ask for none.

        :raises OptionError: the file cannot be opened.
        """
        destination = cls.destination_of(config)
        return (
            None
            if destination in _NO_LOG
            else cls(destination, config.server.access_log_format, kernel=kernel, lock=lock)
        )

    @staticmethod
    def destination_of(config: Config) -> str:
        """The destination of the log, by the options."""
        destination = config.server.access_log
        if destination == "auto":
            return "-" if any(app.is_development for app in config.apps) else "off"
        return destination

    def record(self, record: AccessRecord) -> None:
        """Log a request. Synchronous, never waits: the line is written later."""
        line = self._format(record)
        gathered = self._gathered + len(line)
        # A stuck writer fills the backlog, not the memory.
        if gathered + (self._in_hand.size if self._in_hand else 0) > self._max_backlog or self._ended:
            self._dropped += 1
            return
        self._gathered = gathered
        self._lines.append(line)
        if len(self._lines) == 1:
            self._first.set()
        if gathered >= FLUSH_BYTES:
            self._enough.set()

    def reopen(self) -> None:
        """Open the file again by its name, after a rotation. Synchronous: ``run`` does it at once."""
        self._wants_reopen = True
        self._first.set()
        self._enough.set()

    def close(self) -> None:
        """Close a log whose ``run`` was never begun. Otherwise ``run`` closes it, and this does nothing."""
        if not self._ended:
            self._ended = True
            self._file.close()

    def statistics(self) -> AccessLogStatistics:
        backlog = self._gathered + (self._in_hand.size if self._in_hand else 0)
        return AccessLogStatistics(self._written, self._dropped, self._errors, backlog, self._last_error)

    async def run(self) -> None:
        """Write batches until cancelled; then write the remaining lines, and close the file."""
        try:
            await self._kernel.supervise("the access log", self._write)
        finally:
            with self._kernel.contain("the access log"), trio.move_on_after(LAST_FLUSH, shield=True) as last:
                if self._in_hand is not None:
                    # Cancelled in the middle of a batch: its thread, if any, holds the limiter
                    # until it is done.
                    async with self._limiter:
                        pass
                    await self._hand_over(self._in_hand)
                await self._flush()
            self._ended = True
            self._dropped += len(self._lines) + (len(self._in_hand.lines) if self._in_hand else 0)
            self._lines.clear()
            self._gathered = 0
            if not last.cancelled_caught:
                # Keep the descriptor open for a stuck writer: its number must not become another
                # file's.
                self._file.close()

    async def _write(self) -> None:
        if self._in_hand is not None:
            # Started again after an error. If a thread had the batch, the number of written lines
            # is unknown, and no line may be written twice.
            if self._in_hand.begun:
                self._in_hand.lost = len(self._in_hand.lines)
            await self._hand_over(self._in_hand)
        while True:
            await self._first.wait()
            with trio.move_on_after(FLUSH_INTERVAL):
                await self._enough.wait()
            await self._flush()

    async def _flush(self) -> None:
        batch = self._in_hand = _Batch(self._lines, self._gathered, self._wants_reopen)
        self._lines, self._gathered, self._wants_reopen = [], 0, False
        self._first, self._enough = trio.Event(), trio.Event()
        await self._hand_over(batch)

    async def _hand_over(self, batch: _Batch) -> None:
        """Write a batch once, in a thread; wait until one is available."""
        while not batch.begun:
            try:
                await in_thread(self._file.write, batch, abandon_on_cancel=True, limiter=self._limiter)
            except NoThread as error:
                self._errors += 1
                self._last_error = str(error)
                await trio.sleep(_RETRY)
        self._account()

    def _account(self) -> None:
        """Count the writer's results. The writer runs in another thread, so it counts in its batch."""
        batch, self._in_hand = self._in_hand, None
        if batch is not None:
            self._written += len(batch.lines) - batch.lost
            self._dropped += batch.lost
            self._errors += len(batch.errors)
            self._last_error = batch.errors[-1] if batch.errors else self._last_error


@define(eq=False)
class _Batch:
    lines: list[bytes]
    size: int
    reopen: bool
    begun: bool = False
    """Whether a thread has begun to write the batch."""
    lost: int = 0
    errors: list[str] = attrs.field(factory=list)


class _Writer(Protocol):
    """A destination, as the writing thread sees it."""

    def write(self, batch: _Batch) -> None:
        """Do everything that can block."""

    def close(self) -> None: ...


@define(eq=False)
class _SyslogFile:
    syslog: Syslog

    def write(self, batch: _Batch) -> None:
        """Do everything that can block."""
        batch.begun = True
        if batch.reopen:
            try:
                self.syslog.reopen()
            except OSError as exc:
                batch.errors.append(exc.strerror or str(exc))
        batch.lost, error = self.syslog.send(batch.lines)
        if error:
            batch.errors.append(error)

    def close(self) -> None:
        self.syslog.close()


@define(eq=False)
class _File:
    """The destination, as the writing thread sees it."""

    destination: str
    fd: int
    lock: int = -1
    torn: bool = False
    """Whether the last write stopped in the middle of a line."""
    reopen_due: bool = False
    """Whether the file must still be opened again, because that has failed."""

    def close(self) -> None:
        os.close(self.fd)

    def write(self, batch: _Batch) -> None:
        """Do everything that can block."""
        batch.begun = True
        if (batch.reopen or self.reopen_due) and self.destination != "-":
            try:
                fd, old = _open(self.destination), self.fd
            except OSError as exc:
                if not self.reopen_due:
                    batch.errors.append(exc.strerror or str(exc))
                self.reopen_due = True
            else:
                self.fd, self.torn, self.reopen_due = fd, False, False
                os.close(old)
        data = b"".join(batch.lines)
        if self.torn and data:
            data = b"\n" + data
        view = memoryview(data)
        try:
            if self.lock >= 0:
                fcntl.lockf(self.lock, fcntl.LOCK_EX)
            while view:
                try:
                    view = view[os.write(self.fd, view) :]
                except BlockingIOError:
                    # Standard output is shared, and another program made it non-blocking.
                    select.select([], [self.fd], [])
        except OSError as exc:
            batch.errors.append(exc.strerror or str(exc))
            done = data[: len(data) - len(view)]
            self.torn = done[-1:] != b"\n" if done else self.torn
            batch.lost = min(len(batch.lines), bytes(view).count(b"\n"))
        else:
            self.torn = self.torn and not data
        finally:
            if self.lock >= 0:
                fcntl.lockf(self.lock, fcntl.LOCK_UN)


def _open(destination: str) -> int:
    if destination == "-":
        # Use our own descriptor: 1 may be closed and become another file.
        return fcntl.fcntl(1, F_DUPFD_CLOEXEC, 3)
    # O_NONBLOCK: a FIFO without a reader is an error here instead of a wait.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    fd = os.open(destination, flags, 0o640)
    os.set_blocking(fd, True)
    return fd
