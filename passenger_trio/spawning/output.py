"""What an application writes to its standard output and error: one pipe, cut into lines, tagged by whoever listens, the tail kept.

Nothing is parsed from it. Laws: the reader's memory is bounded whatever is written (a long line is cut); a flood slows its
writer down and not the supervisor (F56): one read of at most ``_BURST`` bytes every ``_PAUSE`` seconds, and not the next before its lines were given, at
most ``_LINES`` every ``_PAUSE`` seconds. So neither many bytes, nor many writes, nor many empty lines cost more than that.
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
_LINES = 200
_PAUSE = 0.02
_LAST_LINES = 2000
"""Lines that are given at once when there is no time to wait (``drain``); of more only the tail is kept, and their number told."""
_LAST_READS = 16


class OutputPipe:
    """The reading end. ``writing_end`` is given to a program and then closed here by ``close_writing_end``."""

    def __init__(self, on_line: Callable[[str], None] | None = None) -> None:
        self._reading_end, self.writing_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reading_end, False)
        self._buffer = b""
        """Read, and not yet given."""
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.on_line = on_line
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
            self._give(_LINES)
            if self._waiting or not self._ended:
                await trio.sleep(_PAUSE)

    def drain(self) -> None:
        """Take what is there now, without waiting."""
        room = _LAST_LINES
        left_out = 0
        for _ in range(_LAST_READS):
            data = self._read()
            room -= self._give(room)
            if not room:
                left_out += self._leave_out()
            if not data:
                break
        if left_out and self.on_line is not None:
            self.on_line(f"({left_out} lines of output came too fast and are left out)")

    def close(self) -> None:
        """Take what is there, then close. Idempotent."""
        self.close_writing_end()
        if self._reading_end >= 0:
            self.drain()
            if self._buffer:
                self._line(self._buffer)
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

    def _give(self, most: int) -> int:
        """Give lines that wait; their number, at most ``most``."""
        start = given = 0
        while given < most:
            end = self._buffer.find(b"\n", start, start + MAX_LINE + 1)
            if end >= 0:
                self._line(self._buffer[start:end])
                start = end + 1
            elif len(self._buffer) - start > MAX_LINE:
                self._line(self._buffer[start : start + MAX_LINE])
                start += MAX_LINE
            else:
                break
            given += 1
        self._buffer = self._buffer[start:]
        return given

    def _leave_out(self) -> int:
        """Take the lines that wait into the tail without giving them; their number."""
        *lines, self._buffer = self._buffer.split(b"\n")
        self._buffer = self._buffer[-MAX_LINE:]
        self._tail.extend(_text(line[:MAX_LINE]) for line in lines[-TAIL_LINES:])
        return len(lines)

    def _line(self, line: bytes) -> None:
        text = _text(line)
        self._tail.append(text)
        if self.on_line is not None:
            self.on_line(text)


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode("utf-8", "replace")
