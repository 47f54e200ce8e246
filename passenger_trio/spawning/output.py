"""What an application writes to its standard output and error: one pipe, cut into lines, given to whoever listens, the tail kept.

Nothing is parsed from it. Laws: the reader's memory is bounded whatever is written (a long line is cut); a flood slows its
writer down and not the supervisor (F56): one read of at most ``_BURST`` bytes every ``_PAUSE`` seconds, and not the next before its lines were given, at
most ``_LINES`` every ``_PAUSE`` seconds. So neither many bytes, nor many writes, nor many empty lines cost more than that. What these allow is far more than
an application writes that does anything else (OP20); lines are given in lists, because one list costs whoever listens what one line does.

Where whoever listens has no room (``has_room``), reading waits for ``_PATIENCE`` at most, and the application with it; then it goes on, and lines are lost, which
whoever listens counts: a reader of the log that has stopped reading may not stop applications.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

import trio

__all__ = ["MAX_LINE", "TAIL_LINES", "OutputPipe"]

MAX_LINE = 8192
"""Bytes; a longer line is given in pieces."""
TAIL_LINES = 200

_BURST = 65536
_LINES = 1000
_PAUSE = 0.002
_BATCH = 3072
"""Bytes: a pipe that is ready takes 4096 (``PIPE_BUF``)."""
_PREFIX = 100
"""Bytes that whoever listens may add to a line."""
_PATIENCE = 1.0
_LOOK = 0.01
"""Seconds between two questions for room."""
_LAST_LINES = 2000
"""Lines that are given at once when there is no time to wait (``drain``); of more only the tail is kept, and their number told."""
_LAST_READS = 16


class OutputPipe:
    """The reading end. ``writing_end`` is given to a program and then closed here by ``close_writing_end``."""

    def __init__(self, on_lines: Callable[[list[str]], None] | None = None) -> None:
        self._reading_end, self.writing_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reading_end, False)
        self._buffer = b""
        """Read, and not yet given."""
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.on_lines = on_lines
        self.has_room: Callable[[], bool] = _always
        """Whether ``on_lines`` can take something now."""
        self._impatient = False
        """Room was waited for in vain, and there has been none since."""
        self._ended = False

    def close_writing_end(self) -> None:
        fd, self.writing_end = self.writing_end, -1
        if fd >= 0:
            os.close(fd)

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, oldest first; a line that has not ended yet is the last."""
        *lines, partial = self._buffer.split(b"\n")
        waiting = [_text(line[:MAX_LINE]) for line in lines[-TAIL_LINES:]]
        return (*self._tail, *waiting, *((_text(partial[:MAX_LINE]),) if partial else ()))[-TAIL_LINES:]

    async def run(self) -> None:
        """Read until the end, that is, until nobody holds the writing end any more. May be cancelled and run again: no byte is lost."""
        await trio.lowlevel.checkpoint()
        while self._waiting or not self._ended:
            if not self._waiting:
                await trio.lowlevel.wait_readable(self._reading_end)
                self._read()
            if not self._give(_LINES):
                await self._wait_for_room()
            if self._waiting or not self._ended:
                await trio.sleep(_PAUSE)

    async def _wait_for_room(self) -> None:
        with trio.move_on_after(_PATIENCE) as patience:
            while not self.has_room():  # noqa: ASYNC110  a poll of a descriptor that may be a file, which cannot be waited for
                await trio.sleep(_LOOK)
        self._impatient = patience.cancelled_caught

    def at_end(self) -> bool:
        """Whether nobody can write any more, and all was read. Reads what is there."""
        self.close_writing_end()
        self.drain()
        return self._ended

    def drain(self) -> None:
        """Take what is there now, without waiting."""
        room = _LAST_LINES
        left_out = 0
        for _ in range(_LAST_READS):
            data = self._read()
            room -= self._give(room, whatever=True)
            if not room:
                left_out += self._leave_out()
            if not data:
                break
        if left_out and self.on_lines is not None:
            self.on_lines([f"({left_out} lines of output came too fast and are left out)"])

    def close(self) -> None:
        """Take what is there, then close. Idempotent."""
        self.close_writing_end()
        if self._reading_end >= 0:
            self.drain()
            if self._buffer:
                self._hand_over([_text(self._buffer)])
                self._buffer = b""
            fd, self._reading_end = self._reading_end, -1
            trio.lowlevel.notify_closing(fd)
            os.close(fd)
            self._ended = True

    @property
    def _waiting(self) -> bool:
        """Whether there is a line, or the first piece of one that is too long."""
        return b"\n" in self._buffer or len(self._buffer) > MAX_LINE

    def _read(self) -> int:
        """Read once; the number of bytes. Only when no line waits, so that the buffer stays bounded."""
        if self._ended:
            return 0
        try:
            data = os.read(self._reading_end, _BURST)
        except BlockingIOError:
            return 0
        self._ended = not data
        self._buffer += data
        return len(data)

    def _give(self, most: int, *, whatever: bool = False) -> int:
        """Give lines that wait; their number, at most ``most``.

        :param whatever: also where there is no room.
        """
        given = 0
        while given < most:
            if self.has_room():
                self._impatient = False
            elif not (whatever or self._impatient):
                break
            count = self._give_batch(most - given)
            if not count:
                break
            given += count
        return given

    def _give_batch(self, most: int) -> int:
        """So many lines as are sure to find room where there is any; one, if it is longer than that."""
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
        self._hand_over(lines)
        return len(lines)

    def _leave_out(self) -> int:
        """Take the lines that wait into the tail without giving them; their number."""
        *lines, self._buffer = self._buffer.split(b"\n")
        self._buffer = self._buffer[-MAX_LINE:]
        self._tail.extend(_text(line[:MAX_LINE]) for line in lines[-TAIL_LINES:])
        return len(lines)

    def _hand_over(self, lines: list[str]) -> None:
        if lines:
            self._tail.extend(lines)
            if self.on_lines is not None:
                self.on_lines(lines)


def _always() -> bool:
    return True


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode("utf-8", "replace")
