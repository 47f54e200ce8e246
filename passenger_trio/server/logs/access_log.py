"""The access log: lines are gathered on the request path and written in batches elsewhere.

``record`` formats a line and appends it; it never waits and never raises. The task ``run`` writes what has
gathered at most ``FLUSH_INTERVAL`` seconds after the first line of a batch, or as soon as there are
``FLUSH_BYTES``, by one thread hop for each batch: a file on a slow disk and a pipe that nobody reads can both
hold up whoever writes to them, and that must not be the event loop.

Laws (F54, F55):

* Memory is bounded: beyond ``MAX_BACKLOG`` bytes new lines are dropped and counted.
* A write that fails (no reader, no space) drops its batch and is counted; the next batch is tried anew.
    Nothing is raised.
* A line is written once or not at all. After a write that broke off in the middle of a line, the next begins
    on a new line.
* Where no thread can be had, what was gathered waits for one.
* ``reopen`` loses and repeats no line: what was recorded before may be in the old file or in the new one.
* What goes wrong with one batch, by mistake, costs that batch (KE1).
* When ``run`` is cancelled it writes what is left, for ``LAST_FLUSH`` seconds at most.
"""

from __future__ import annotations

import fcntl
import os
import select

import attrs
import trio

from passenger_trio.errors import OptionError
from passenger_trio.kernel import ErrorKernel
from passenger_trio.options import Config
from passenger_trio.server.logs.access_format import AccessRecord, format_combined, format_json
from passenger_trio.system.syscalls import F_DUPFD_CLOEXEC
from passenger_trio.system.threads import NoThread, in_thread

__all__ = ["AccessLog", "AccessLogStatistics", "AccessRecord"]

FLUSH_INTERVAL = 0.2
FLUSH_BYTES = 64 * 1024
MAX_BACKLOG = 8 * 1024 * 1024
LAST_FLUSH = 1.0
_RETRY = 0.2
"""Seconds until a thread is asked for again."""

_FORMATS = {"combined": format_combined, "json": format_json}


@attrs.frozen
class AccessLogStatistics:
    """:ivar written: lines; ``dropped``: lines that were lost; ``backlog``: bytes not written yet.
    :ivar errors: how often opening or writing failed; ``last_error`` says why, the last time.
    """

    written: int
    dropped: int
    errors: int
    backlog: int
    last_error: str


_NO_LOG = ("off", "none")
"""Values of ``access_log``. (A file of such a name is ``./none``.)"""


class AccessLog:
    """One destination. Give ``run`` to a nursery that outlives the clients' one."""

    def __init__(
        self,
        destination: str,
        format: str = "combined",
        *,
        max_backlog: int = MAX_BACKLOG,
        kernel: ErrorKernel | None = None,
    ) -> None:
        """:param destination: a file, which is appended to, or ``-`` for standard output.

        :raises OptionError: the file cannot be opened.
        """
        self.destination = destination
        self._kernel = kernel or ErrorKernel()
        self._format = _FORMATS[format]
        self._max_backlog = max_backlog
        try:
            self._file = _File(destination, _open(destination))
        except OSError as exc:
            raise OptionError("--access-log", destination, f"it cannot be opened: {exc.strerror}") from None
        self._lines: list[bytes] = []
        self._gathered = 0
        """Bytes in ``_lines``."""
        self._in_hand: _Batch | None = None
        """What the writer has."""
        self._written = 0
        self._dropped = 0
        self._errors = 0
        self._last_error = ""
        self._wants_reopen = False
        self._ended = False
        self._first = trio.Event()
        self._enough = trio.Event()
        # One writer: batches keep their order, and a writer that is stuck holds up no thread but its own.
        self._limiter = trio.CapacityLimiter(1)

    @classmethod
    def open(cls, config: Config, kernel: ErrorKernel | None = None) -> AccessLog | None:
        """The log that the options ask for, or None if they ask for none. Raises like the class."""
        destination = config.server.access_log
        if destination == "auto":
            destination = "-" if any(app.is_development for app in config.apps) else "off"
        return None if destination in _NO_LOG else cls(destination, config.server.access_log_format, kernel=kernel)

    def record(self, record: AccessRecord) -> None:
        """Log a request. Sync, and never waits: the line is written later."""
        line = self._format(record)
        gathered = self._gathered + len(line)
        # A writer that is stuck fills the backlog, not the memory.
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
        """Open the file anew by its name, after it was rotated. Sync: ``run`` does it, at once."""
        self._wants_reopen = True
        self._first.set()
        self._enough.set()

    def close(self) -> None:
        """For a log whose ``run`` was never begun; otherwise that has closed it, and this does nothing."""
        if not self._ended:
            self._ended = True
            os.close(self._file.fd)

    def statistics(self) -> AccessLogStatistics:
        backlog = self._gathered + (self._in_hand.size if self._in_hand else 0)
        return AccessLogStatistics(self._written, self._dropped, self._errors, backlog, self._last_error)

    async def run(self) -> None:
        """Write batches until cancelled; then write what is left, and close the file."""
        try:
            await self._kernel.supervise("the access log", self._write)
        finally:
            with self._kernel.contain("the access log"), trio.move_on_after(LAST_FLUSH, shield=True) as last:
                if self._in_hand is not None:
                    # Cancelled in the middle of a batch: its writer, if there is one, holds the limiter until it is done.
                    async with self._limiter:
                        pass
                    await self._hand_over(self._in_hand)
                await self._flush()
            self._ended = True
            self._dropped += len(self._lines) + (len(self._in_hand.lines) if self._in_hand else 0)
            self._lines.clear()
            self._gathered = 0
            if not last.cancelled_caught:
                # Under a writer that is stuck it stays open: its number must not become another file's.
                os.close(self._file.fd)

    async def _write(self) -> None:
        if self._in_hand is not None:
            # We are started again: nobody knows what of it was written, if a thread had it, and a line is not written twice.
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
        """Once, by a thread; and wait for one that can be had."""
        while not batch.begun:
            try:
                await in_thread(self._file.write, batch, abandon_on_cancel=True, limiter=self._limiter)
            except NoThread as error:
                self._errors += 1
                self._last_error = str(error)
                await trio.sleep(_RETRY)
        self._account()

    def _account(self) -> None:
        """Take over what the writer did. It counts in its batch, and not here, because it is another thread."""
        batch, self._in_hand = self._in_hand, None
        if batch is not None:
            self._written += len(batch.lines) - batch.lost
            self._dropped += batch.lost
            self._errors += len(batch.errors)
            self._last_error = batch.errors[-1] if batch.errors else self._last_error


@attrs.define(eq=False)
class _Batch:
    lines: list[bytes]
    size: int
    reopen: bool
    begun: bool = False
    """A thread has it."""
    lost: int = 0
    errors: list[str] = attrs.field(factory=list)


@attrs.define(eq=False)
class _File:
    """The destination, as the writing thread sees it."""

    destination: str
    fd: int
    torn: bool = False
    """The last write broke off in the middle of a line."""

    def write(self, batch: _Batch) -> None:
        """Everything that can block."""
        batch.begun = True
        if batch.reopen and self.destination != "-":
            try:
                fd, old = _open(self.destination), self.fd
            except OSError as exc:
                batch.errors.append(exc.strerror or str(exc))  # the old file is better than none
            else:
                self.fd, self.torn = fd, False
                os.close(old)
        data = b"".join(batch.lines)
        if self.torn and data:
            data = b"\n" + data
        view = memoryview(data)
        try:
            while view:
                try:
                    view = view[os.write(self.fd, view) :]
                except BlockingIOError:
                    # Standard output is shared, and somebody made it non-blocking.
                    select.select([], [self.fd], [])
        except OSError as exc:
            batch.errors.append(exc.strerror or str(exc))
            done = data[: len(data) - len(view)]
            self.torn = done[-1:] != b"\n" if done else self.torn
            batch.lost = min(len(batch.lines), bytes(view).count(b"\n"))
        else:
            self.torn = self.torn and not data


def _open(destination: str) -> int:
    if destination == "-":
        # A descriptor of our own: 1 may be closed by somebody, and become another file.
        return fcntl.fcntl(1, F_DUPFD_CLOEXEC, 3)
    # O_NONBLOCK: a FIFO without a reader is an error here, and not a wait for one.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    fd = os.open(destination, flags, 0o640)
    os.set_blocking(fd, True)
    return fd
