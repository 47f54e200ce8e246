"""A send queue: bytes on their way to one side of a connection that stays open. They leave in the order of ``put``.

``put`` gives the kernel what it takes at once. The queue keeps the rest, and has a task while it keeps something, so no
writer waits for another one. A producer of many bytes calls ``wait_clear`` before it produces more, so the queue holds
at most what one producer makes at a time.

A broken connection is not an error here: bytes that cannot be sent are dropped, and the task that reads from that
connection sees its end."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from passenger_trio.system.raw_stream import RawStream

__all__ = ["SendQueue"]


class SendQueue:
    """:param tell: called while bytes are kept, with the time at which the kernel last took some. Called with infinity when no bytes are kept any more."""

    __slots__ = ("_clear", "_current_time", "_kept", "_nursery", "_stream", "_tell", "sent")

    def __init__(
        self, stream: RawStream, nursery: trio.Nursery, current_time: Callable[[], float], tell: Callable[[float], None]
    ) -> None:
        self._stream = stream
        self._nursery = nursery
        self._current_time = current_time
        self._tell = tell
        self.sent = 0
        """Bytes that the kernel has taken."""
        self._kept: bytearray | None = None
        self._clear: trio.Event | None = None
        """Exists while a task is in ``wait_clear``."""

    @property
    def kept(self) -> int:
        """Bytes that the kernel has not taken."""
        return 0 if self._kept is None else len(self._kept)

    def put(self, data: bytes) -> None:
        """Send ``data`` behind what was put before; never waits."""
        if self._kept is not None:
            self._kept += data
            return
        try:
            sent = self._stream.send_nowait(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        self.sent += sent
        if sent < len(data):
            self._kept = bytearray(data[sent:] if sent else data)
            self._tell(self._current_time())
            self._nursery.start_soon(self._write_kept)

    async def _write_kept(self) -> None:
        """Send the kept bytes, until none is left, or the stream is closed or broken."""
        stream = self._stream
        try:
            while self._kept:
                if stream.fd < 0:
                    break
                await trio.lowlevel.wait_writable(stream.socket)
                kept = self._kept
                if not kept:
                    break  # it was dropped meanwhile
                with memoryview(kept) as view:
                    sent = stream.send_nowait(view[:262144])
                if sent:
                    self.sent += sent
                    del kept[:sent]
                    self._tell(self._current_time())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._kept = None
            self._tell(math.inf)
            self.release()

    def drop(self) -> None:
        """Drop the kept bytes."""
        if self._kept is not None:
            self._kept = bytearray()
            self.release()

    async def wait_clear(self) -> None:
        """Return when no bytes are kept. If none are, return at once, without a checkpoint. ``release`` ends the wait early."""
        if self._kept is not None:
            if self._clear is None:
                self._clear = trio.Event()
            await self._clear.wait()

    def release(self) -> None:
        """End ``wait_clear``."""
        clear, self._clear = self._clear, None
        if clear is not None:
            clear.set()
