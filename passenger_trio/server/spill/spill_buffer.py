"""The spill buffer: bytes between a producer and a slower consumer, in memory first, then in a file without a name.
``core/spill_ledger.py`` decides, this module executes.

One task puts bytes in, another takes them out; nobody else uses the buffer. Memory is one ``bytearray``, so a flood of
tiny pieces costs its bytes and nothing more (R33). A batch that is being written is kept beside it until it is written.

When the disk, a descriptor or a thread is not available, the producer gets no exception: the bytes stay in memory
(``ledger.memory`` counts them), the producer pauses, and the disk is tried again later (R35). Bytes are lost only if they
cannot be read back from disk, which ends that one response (``SpillLost``).

Laws: the bytes that leave are the bytes that came. A buffer whose consumer keeps up opens no file and enters no thread.
After ``close`` its disk space is free."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

import attrs
import trio

from passenger_trio.core.spill_ledger import SpillLedger, Step
from passenger_trio.late_classes import define
from passenger_trio.server.spill.spill_storage import SpillStorage
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.system.tempfiles import Received, Take
from passenger_trio.system.threads import NoThread, in_thread

__all__ = ["SpillBuffer"]

_SEND_AT_ONCE = 256 * 1024
_RECEIVE_AT_ONCE = 4 * 1024 * 1024
_WORTH_A_THREAD = 64 * 1024
"""A thread stores bytes in bulk only if at least so many have arrived: there are four threads, and none may wait for a client."""


@define(eq=False)
class SpillBuffer:
    """One buffer. ``ledger`` knows which bytes are where."""

    space: SpillStorage
    ledger: SpillLedger
    spilled: int = 0
    """Bytes that were ever written to disk."""
    file: int | None = None
    _tail: bytearray = attrs.field(factory=bytearray)
    _batch: bytearray | None = None
    """What is being written, from ``ledger.stored`` on; ``_tail`` is what comes after it."""
    _moved: trio.Event | None = None

    # -- the producer's side ------------------------------------------------------------------------------------

    def put(self, pieces: Sequence[bytes | memoryview], skip: int = 0) -> None:
        """Keep a copy of ``pieces``, without their first ``skip`` bytes."""
        tail = self._tail
        before = len(tail)
        for piece in pieces:
            if skip >= len(piece):
                skip -= len(piece)
            else:
                tail += piece[skip:] if skip else piece
                skip = 0
        self.ledger.take(len(tail) - before)
        self.space.buffers.add(self)

    def room(self) -> int:
        """Bytes that may be put in now."""
        ledger = self.ledger
        # An empty buffer has the same room with and without a usable disk, so the disk need not be asked.
        return ledger.room(disk=not ledger.memory or self.usable)

    @property
    def usable(self) -> bool:
        """Whether this buffer may try the disk now."""
        return self.space.usable(new_file=self.file is None)

    @property
    def over_threshold(self) -> bool:
        return self.ledger.memory > self.ledger.threshold

    async def make_room(self) -> int:
        """Like ``room``, but never 0: writes to disk, or waits for the consumer or the disk. For a producer that has no more bytes at once."""
        paused = False
        while True:
            disk = self.usable
            step = self.ledger.step(disk=disk, more=False)
            if step is Step.READ:
                await trio.lowlevel.checkpoint()
                return self.ledger.room(disk=disk)
            if step is Step.STORE:
                await self.store()
                continue
            if not paused:
                paused = True
                self.space.paused()
            self._moved = trio.Event()
            # The disk may become usable again while the consumer does not move.
            with trio.move_on_after(float("inf") if disk else self.space.quota.retry_in(self.space.current_time())):
                await self._moved.wait()
            self._moved = None

    async def store(self) -> None:
        """Write the bytes in memory to disk, as far as the quota and the disk allow. ``ledger.memory`` counts those that stay."""
        ledger, space = self.ledger, self.space
        granted = space.quota.reserve(ledger.memory)
        if not granted:
            await trio.lowlevel.checkpoint()
            return
        batch, self._tail = self._tail, bytearray()
        if granted < len(batch):
            self._tail += memoryview(batch)[granted:]
            del batch[granted:]
        self._batch = batch
        offset = ledger.begin_store(granted)
        opens = self.file is None
        space.open_files += opens
        written, error = 0, None
        try:
            # Not abandoned when cancelled: the thread has the descriptor.
            self.file, written, error = await in_thread(self._write, batch, offset, limiter=space.limiter)
        except NoThread:
            error = errno.EAGAIN
        finally:
            space.open_files -= opens and self.file is None
            overtaken = ledger.sent - ledger.stored
            ledger.end_store(written)
            self._batch = None
            rest = max(written, overtaken)
            if rest < granted:
                self._tail = batch[rest:] + self._tail
            self._account(granted, written)
        if error is not None:
            space.failed(error)

    def _account(self, granted: int, written: int) -> None:
        """Account for a write: ``written`` of the bytes that the quota had granted are on disk. Every write ends with this step."""
        quota = self.space.quota
        quota.release(granted - written)
        quota.spilled += written
        self.spilled += written
        self._truncate_if_drained()

    def _write(self, batch: bytearray, offset: int) -> tuple[int | None, int, int | None]:
        """In a thread: write, to a new file if there is none. Returns the file, the bytes written, and the error's number."""
        files, file = self.space.files, self.file
        if file is None:
            try:
                file = files.open_unlinked(self.space.directory)
            except OSError as error:
                return None, 0, error.errno or errno.EIO
        return file, *files.write_at(file, batch, offset)

    def wants_bulk(self, stream: RawStream) -> int:
        """How many bytes may go from ``stream`` to the file without passing memory; 0: none. Only if the consumer is behind, the file is in use, and enough has arrived for a thread."""
        ledger = self.ledger
        if self.file is None or not ledger.unread or not ledger.takes_bulk or not self.usable:
            return 0
        return ledger.room_in_file() if stream.waiting >= _WORTH_A_THREAD else 0

    async def store_coming(self, stream: RawStream, most: int, take: Take | None = None) -> Received:
        """Move the bytes that have arrived at ``stream``, and those that arrive meanwhile, to the file in one thread. Memory must be empty, and there must be
        a file. The consumer may go on meanwhile.

        :param most: bytes.
        :param take: see ``tempfiles.receive_at``. The thread calls it, so nothing else may use its objects meanwhile.

        Bytes that the disk did not take are in memory afterwards.
        """
        ledger, space = self.ledger, self.space
        assert self.file is not None
        offset = ledger.begin_coming()
        granted = space.quota.reserve(min(most, _RECEIVE_AT_ONCE))
        received = Received(0)
        try:
            received = await in_thread(
                space.files.receive_at, stream.socket, self.file, offset, granted, take, limiter=space.limiter
            )
        except NoThread:
            received = Received(0, error=errno.EAGAIN)
        finally:
            ledger.take_stored(received.written)
            space.buffers.add(self)
            self._account(granted, received.written)
        if received.error is not None:
            space.failed(received.error)
            self.put((received.rest,))
        return received

    # -- the consumer's side ------------------------------------------------------------------------------------

    def send_nowait(self, stream: RawStream) -> int:
        """Send some of the backlog to ``stream``: bytes on disk first, then bytes in memory. 0: the stream takes nothing now.

        :raises SpillLost: the file cannot be read.
        :raises trio.BrokenResourceError: the stream is broken.
        """
        ledger = self.ledger
        if ledger.unread:
            sent = self.send_stored(stream, ledger.sent - ledger.base, ledger.unread)
            ledger.give(sent)
            self._truncate_if_drained()
        else:
            overtaken = ledger.sent - ledger.stored
            if self._batch is not None and overtaken < len(self._batch):
                with memoryview(self._batch) as view:
                    sent = stream.send_nowait(view[overtaken : overtaken + _SEND_AT_ONCE])
                ledger.give(sent)
            else:
                with memoryview(self._tail) as view:
                    sent = stream.send_nowait(view[:_SEND_AT_ONCE])
                del self._tail[:sent]
                ledger.give(sent)
        if sent and self._moved is not None:
            self._moved.set()
        return sent

    def send_stored(self, stream: RawStream, offset: int, count: int) -> int:
        """Send bytes of the file to ``stream``. They also stay in the buffer. 0: the stream takes nothing now. Raises like ``send_nowait``."""
        assert self.file is not None
        try:
            sent = stream.send_file_nowait(self.space.files.send_file, self.file, offset, min(count, _SEND_AT_ONCE))
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self.space.lost(error.strerror or "an unknown error") from error
        if not sent:
            raise self.space.lost("it is shorter than what was written")
        return sent

    @property
    def tail(self) -> bytes:
        """The bytes in memory behind the file, for a consumer that reads them more than once."""
        return bytes(self._tail)

    def _truncate_if_drained(self) -> None:
        ledger = self.ledger
        if ledger.drained:
            assert self.file is not None
            try:
                self.space.files.truncate(self.file)
            except OSError:
                self._close_file()  # closing the file frees its space, too
            self.space.quota.release(ledger.truncated())

    def close(self) -> None:
        """Free memory and disk. No write may be under way."""
        self._close_file()
        self.space.quota.release(self.ledger.forget_file())
        self._tail = bytearray()
        self.space.buffers.discard(self)

    def _close_file(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None
            self.space.open_files -= 1
