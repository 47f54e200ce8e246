"""The standard output and error of an application: one pipe, split into lines for the log; the last
lines are kept.

This module knows bytes and lines, and does not parse them. The receiver (``on_lines``) decides what
happens to the lines. Lines are delivered in lists: for the receiver, a list costs as much as a
line.

Laws:

* Memory is bounded, whatever the application writes: a long line is cut.
* A flood slows down its writer, not the supervisor (F56). Every ``_PAUSE`` seconds at most
  ``_BURST`` bytes are read and at most ``_LINES`` lines delivered; nothing is read while lines
  wait. This limit is far above the output of an application that also does other work (OP20).
* A log reader that has stopped reading does not stop applications. If the receiver has no room
  (``has_room``), reading waits for ``_ROOM_TIMEOUT`` at most, and so does the application. Then
  lines are delivered all the same; the receiver counts its losses.

Trio is imported where it is used: the first program gets its pipe before Trio is there (``early_start``, DE10).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["MAX_LINE", "TAIL_LINES", "OutputPipe"]

MAX_LINE = 8192
"""Bytes. A longer line is delivered in pieces."""
TAIL_LINES = 200

_BURST = 65536
_LINES = 1000
_PAUSE = 0.002
_BATCH = 3072
"""Bytes: a writable pipe takes 4096 (``PIPE_BUF``)."""
_PREFIX = 100
"""Bytes that the receiver may add to a line."""
_ROOM_TIMEOUT = 1.0
_ROOM_POLL = 0.01
"""Seconds between two checks for room."""
_LAST_LINES = 2000
"""Lines that ``drain`` delivers at most, because it cannot wait. Of more lines only the tail is
kept, and their number is logged.
"""
_LAST_READS = 16
_MAX_COPIED = 2000
"""Lines that a copy takes at most."""


class OutputPipe:
    """The reading end. ``writing_end`` is given to a program and then closed here by ``close_writing_end``."""

    def __init__(self, on_lines: Callable[[list[str]], None] | None = None) -> None:
        self._reading_end, writing_end = os.pipe2(os.O_CLOEXEC)
        self.writing_end: int = writing_end
        os.set_blocking(self._reading_end, False)
        self._buffer = b""
        """Bytes that were read, and not yet delivered."""
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.on_lines = on_lines
        self.has_room: Callable[[], bool] = _always
        """Whether ``on_lines`` can take lines now."""
        self._room_timed_out = False
        """Whether a wait for room has timed out, and there has been no room since."""
        self._ended = False
        self._copies: list[list[str]] = []

    @contextmanager
    def copied(self) -> Iterator[list[str]]:
        """Within the block, the lines that are delivered are appended to the list, too."""
        copy: list[str] = []
        self._copies.append(copy)
        try:
            yield copy
        finally:
            self._copies = [other for other in self._copies if other is not copy]

    def give_to(self, user: tuple[int, int, Sequence[int]] | None) -> None:
        """Make the pipe another user's (uid, gid, groups), who could not open /dev/stdout otherwise.

        :raises OSError: the kernel refuses.
        """
        if user is not None:
            os.fchown(self.writing_end, user[0], user[1])

    def close_writing_end(self) -> None:
        fd, self.writing_end = self.writing_end, -1
        if fd >= 0:
            os.close(fd)

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, oldest first, including an unfinished one."""
        *lines, partial = self._buffer.split(b"\n")
        waiting = [_text(line[:MAX_LINE]) for line in lines[-TAIL_LINES:]]
        return (*self._tail, *waiting, *((_text(partial[:MAX_LINE]),) if partial else ()))[-TAIL_LINES:]

    async def run(self) -> None:
        """Read until no process holds the writing end. May be cancelled and run again: no byte is lost."""
        import trio

        await trio.lowlevel.checkpoint()
        while self._waiting or not self._ended:
            if not self._waiting:
                await trio.lowlevel.wait_readable(self._reading_end)
                self._read()
            if not self._deliver(_LINES):
                await self._wait_for_room()
            if self._waiting or not self._ended:
                await trio.sleep(_PAUSE)

    async def _wait_for_room(self) -> None:
        import trio

        with trio.move_on_after(_ROOM_TIMEOUT) as timeout:
            while not self.has_room():  # noqa: ASYNC110 polls: Trio cannot wait for the descriptor if it is a file
                await trio.sleep(_ROOM_POLL)
        self._room_timed_out = timeout.cancelled_caught

    def at_end(self) -> bool:
        """Read the bytes that have arrived. Returns True at EOF: no process can write any more."""
        self.close_writing_end()
        self.drain()
        return self._ended

    def drain(self) -> None:
        """Read and deliver the bytes that have arrived, without waiting."""
        room = _LAST_LINES
        dropped = 0
        for _ in range(_LAST_READS):
            data = self._read()
            room -= self._deliver(room, force=True)
            if not room:
                dropped += self._drop_waiting()
            if not data:
                break
        if dropped and self.on_lines is not None:
            self.on_lines([f"({dropped} lines of output came too fast and were dropped)"])

    def discard(self) -> None:
        """Close the pipe without reading it. For a pipe that no task waits for: needs no event loop."""
        self.close_writing_end()
        fd, self._reading_end = self._reading_end, -1
        os.close(fd)

    def close(self) -> None:
        """Read and deliver the bytes that have arrived, then close. Idempotent."""
        self.close_writing_end()
        if self._reading_end >= 0:
            self.drain()
            if self._buffer:
                self._pass_on([_text(self._buffer)])
                self._buffer = b""
            fd, self._reading_end = self._reading_end, -1
            import trio

            trio.lowlevel.notify_closing(fd)
            os.close(fd)
            self._ended = True

    @property
    def _waiting(self) -> bool:
        """Whether a line is in the buffer, or the first piece of one that is too long."""
        return b"\n" in self._buffer or len(self._buffer) > MAX_LINE

    def _read(self) -> int:
        """Read once. Returns the number of bytes. Called only when no line waits, so that the
        buffer stays bounded.
        """
        if self._ended:
            return 0
        try:
            data = os.read(self._reading_end, _BURST)
        except BlockingIOError:
            return 0
        self._ended = not data
        self._buffer += data
        return len(data)

    def _deliver(self, most: int, *, force: bool = False) -> int:
        """Deliver waiting lines, at most ``most``. Returns their number.

        :param force: deliver even if there is no room.
        """
        given = 0
        while given < most:
            if self.has_room():
                self._room_timed_out = False
            elif not (force or self._room_timed_out):
                break
            count = self._deliver_batch(most - given)
            if not count:
                break
            given += count
        return given

    def _deliver_batch(self, most: int) -> int:
        """Deliver as many lines as are sure to fit when there is room; at least one."""
        buffer = self._buffer
        lines: list[str] = []
        start = 0
        while len(lines) < most and start + len(lines) * _PREFIX < _BATCH:
            end = buffer.find(b"\n", start, start + MAX_LINE + 1)
            if end >= 0:
                lines.append(_text(buffer[start:end]))
                start = end + 1
            elif len(buffer) - start > MAX_LINE:
                lines.append(_text(buffer[start : start + MAX_LINE]))
                start += MAX_LINE
            else:
                break
        self._buffer = buffer[start:]
        self._pass_on(lines)
        return len(lines)

    def _drop_waiting(self) -> int:
        """Move the waiting lines to the tail without delivering them. Returns their number."""
        *lines, self._buffer = self._buffer.split(b"\n")
        self._buffer = self._buffer[-MAX_LINE:]
        self._tail.extend(_text(line[:MAX_LINE]) for line in lines[-TAIL_LINES:])
        return len(lines)

    def _pass_on(self, lines: list[str]) -> None:
        if lines:
            self._tail.extend(lines)
            for copy in self._copies:
                copy += lines[: max(0, _MAX_COPIED - len(copy))]
            if self.on_lines is not None:
                self.on_lines(lines)


def _always() -> bool:
    return True


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode("utf-8", "replace")
