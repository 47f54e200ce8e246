"""Memory that several processes share: lines of 64-bit numbers, one writer for each line.

A number is read and written in one step, because it is aligned. Nothing else is promised: two numbers
of a line may be of different moments. So it is for hints and counters, never for a decision that must
not be wrong. The memory has no name; a process that inherits the descriptor attaches to it.
"""

from __future__ import annotations

import mmap
import os

from passenger_trio.system.tempfiles import default_directory, open_unlinked

__all__ = ["SharedPage"]

_WORD = 8


class SharedPage:
    """:ivar fd: the descriptor, for a process that is to share it."""

    def __init__(self, fd: int, lines: int, width: int) -> None:
        """Attach to the memory behind a descriptor, which the page owns from now on.

        :param lines: number of lines.
        :param width: numbers in a line.
        """
        self.fd = fd
        self.width = width
        self._map = mmap.mmap(fd, lines * width * _WORD)
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls, lines: int, width: int) -> SharedPage:
        """New memory, all zeros.

        :raises OSError: no descriptor, memory or file can be had.
        """
        new = getattr(os, "memfd_create", None)  # PyPy lacks it
        fd: int = new("passenger_trio") if new is not None else open_unlinked(default_directory())
        try:
            os.ftruncate(fd, lines * width * _WORD)
            return cls(fd, lines, width)
        except BaseException:
            os.close(fd)
            raise

    def line(self, number: int) -> memoryview:
        """A line, as numbers that can be read and assigned."""
        return self._words[number * self.width : (number + 1) * self.width]

    def close(self) -> None:
        """Give the memory back. Lines that were handed out must not be used any more."""
        try:
            self._words.release()
            self._map.close()
        except BufferError:
            pass  # somebody has a line still; the memory goes with it
        os.close(self.fd)
