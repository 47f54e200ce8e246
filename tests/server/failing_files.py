"""``system.tempfiles`` with errors between: each call takes the next of its plan, and is the real thing where there is none."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from passenger_trio.system import tempfiles

__all__ = ["FailingFiles"]


class FailingFiles:
    """:param opens: numbers of errors, None for success; the same for ``sends``. ``receives`` is as ``writes``. :param writes: (bytes written before the error, the error)."""

    def __init__(
        self,
        opens: Iterable[int | None] = (),
        writes: Iterable[tuple[int, int] | None] = (),
        sends: Iterable[int | None] = (),
        receives: Iterable[tuple[int, int] | None] = (),
    ) -> None:
        self._opens, self._writes, self._sends = iter(opens), iter(writes), iter(sends)
        self._receives = iter(receives)
        self.opened = 0
        self.written: list[int] = []
        """Bytes of each write that was wanted."""
        self.received: list[int] = []
        """Bytes of each spawn_listener that were written."""
        self.sent = 0
        self.truncated = 0

    def open_unlinked(self, directory: str) -> int:
        self.opened += 1
        _fail(next(self._opens, None))
        return tempfiles.open_unlinked(directory)

    def write_at(self, descriptor: int, data: bytes | bytearray, offset: int) -> tuple[int, int | None]:
        self.written.append(len(data))
        failure = next(self._writes, None)
        if failure is not None:
            written, error = tempfiles.write_at(descriptor, bytes(data[: failure[0]]), offset)
            return written, error or failure[1]
        return tempfiles.write_at(descriptor, data, offset)

    def receive_at(
        self, sock: socket.socket, descriptor: int, offset: int, most: int, take: tempfiles.Take | None = None
    ) -> tempfiles.Received:
        failure = next(self._receives, None)
        if failure is None:
            received = tempfiles.receive_at(sock, descriptor, offset, most, take)
            self.received.append(received.written)
            return received
        received = tempfiles.receive_at(sock, descriptor, offset, min(most, failure[0]), take)
        untaken = received.untaken
        rest = b""
        if not untaken:
            try:
                untaken = sock.recv(1000)
            except BlockingIOError:
                pass
            pieces, taken = take(memoryview(untaken)) if take else ([untaken], len(untaken))
            rest, untaken = b"".join(pieces), untaken[taken:]
        return tempfiles.Received(received.written, rest, received.error or failure[1], untaken, received.broken)

    def send_file(self, sock: int, descriptor: int, offset: int, count: int) -> int:
        _fail(next(self._sends, None))
        sent = tempfiles.send_file(sock, descriptor, offset, count)
        self.sent += sent
        return sent

    def truncate(self, descriptor: int) -> None:
        self.truncated += 1
        tempfiles.truncate(descriptor)


def _fail(error: int | None) -> None:
    if error is not None:
        raise OSError(error, os.strerror(error))
