"""The spill ledger: where the bytes of one buffer are, and what its producer may do next.

A buffer stands between a producer (an application that responds, a client that uploads) and a consumer
that may be slower. The ledger sees a stream of bytes and positions in it; it moves no byte
itself::

    0 ........ base ........ sent ........ stored ........ taken
               |-- in the file, of which --|--- in memory ---|
               |- sent already -|- unread -|

``sent`` may also exceed ``stored``: then the file has nothing unread, and memory begins at ``sent``.
While bytes are being written to the file (``storing``) they are still in memory. So a consumer that
becomes fast again may overtake the writer and need not wait for the disk.

Laws:

* Bytes leave in the order of their arrival, so the bytes on disk leave before those in memory.
* A file that has nothing unread is truncated before it is used again.
* With a usable disk, memory holds at most ``batch`` bytes, and at most ``threshold`` of them while the
  producer pauses; without one, at most ``threshold``.
* The watermark limits what the buffer *occupies*: memory and the whole length of the file, not only
  the unread part. Otherwise the file would grow for ever for a client that is always a little behind.

What the producer does next (``step``)::

    memory            occupied       disk usable          disk not usable
    ---------------   ------------   ------------------   ------------------
    <= threshold      < watermark    READ                 READ (PAUSE at the threshold)
    <= threshold      >= watermark   PAUSE                PAUSE
    > threshold       < watermark    READ if the producer PAUSE
                                     has more at once and
                                     a batch is not full,
                                     else STORE
    > threshold       >= watermark   STORE                PAUSE

A write needs a thread, which costs as much as writing 256 KiB. So a write gets ``batch`` bytes if the
producer is fast enough, and never fewer than ``threshold``.
"""

from __future__ import annotations

import sys
from enum import Enum

from passenger_trio.core.buffer_sizes import BATCH, THRESHOLD
from passenger_trio.errors import InvariantBroken

__all__ = ["SpillLedger", "Step"]


class Step(Enum):
    """What a producer does next."""

    READ = "read"
    STORE = "store"
    PAUSE = "pause"


class SpillLedger:
    """The positions of one buffer. ``watermark``: bytes that the buffer may occupy (0: no limit)."""

    __slots__ = ("base", "batch", "coming", "sent", "stored", "storing", "taken", "threshold", "watermark")

    def __init__(self, watermark: int = 0, threshold: int = THRESHOLD, batch: int = BATCH) -> None:
        self.watermark: int = watermark
        self.threshold: int = threshold
        self.batch: int = batch
        self.taken: int = 0
        """Bytes that arrived."""
        self.sent: int = 0
        """Bytes that left."""
        self.stored: int = 0
        """The end of the file's content, as a position in the stream."""
        self.base: int = 0
        """The position in the stream of the first byte of the file."""
        self.storing: int = 0
        """Bytes after ``stored`` that are being written."""
        self.coming: bool = False
        """Whether bytes are on their way directly to the end of the file, without passing memory."""

    # -- where the bytes are ------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Bytes that arrived and have not left."""
        return self.taken - self.sent

    @property
    def memory(self) -> int:
        """Bytes of the backlog in memory."""
        return self.taken - max(self.sent, self.stored)

    @property
    def unread(self) -> int:
        """Bytes of the backlog in the file; they leave first."""
        return max(0, self.stored - self.sent)

    @property
    def file_length(self) -> int:
        return self.stored - self.base

    @property
    def occupied(self) -> int:
        """Memory plus the length of the file. Bytes being written count, even if already consumed."""
        end = self.stored + self.storing
        return end - self.base + self.taken - max(self.sent, end)

    @property
    def drained(self) -> bool:
        """Whether the file has bytes, and all of them have left. If so, truncate the file, and call ``truncated``."""
        return self.stored > self.base and self.sent >= self.stored and not self.storing and not self.coming

    @property
    def takes_bulk(self) -> bool:
        """Whether bytes may go directly to the end of the file: none are on their way there, and none must go first."""
        return not (self.memory or self.storing or self.coming or self.drained)

    # -- events -------------------------------------------------------------------------------------------------

    def take(self, count: int) -> None:
        """The producer brought ``count`` bytes; they are in memory now."""
        if self.coming and count:
            raise InvariantBroken("bytes overtook those that are on their way to the file")
        self.taken += count

    def pass_through(self, count: int) -> None:
        """The consumer took ``count`` bytes at once."""
        if self.backlog or self.coming:
            raise InvariantBroken("bytes overtook those that came before them")
        self.taken += count
        self.sent += count

    def give(self, count: int) -> None:
        """The consumer took ``count`` bytes of the backlog: unread ones first."""
        if not 0 <= count <= self.backlog:
            raise InvariantBroken("a buffer gave bytes that it does not have")
        self.sent += count

    def begin_store(self, count: int) -> int:
        """Begin to write the first ``count`` bytes of memory to the file. Returns the offset in the file."""
        if self.storing or not 0 < count <= self.memory:
            raise InvariantBroken("a buffer stores bytes that it does not have, or stores them twice")
        if self.drained:
            raise InvariantBroken("a drained file was not truncated")
        if self.stored == self.base:
            self.base = self.stored = max(self.sent, self.stored)
        self.storing = count
        return self.stored - self.base

    def begin_coming(self) -> int:
        """Begin to move bytes directly to the end of the file. Returns the offset in the file.

        No other bytes may arrive until ``take_stored``; the consumer may continue.
        """
        if not self.takes_bulk:
            raise InvariantBroken("bytes overtake those that came before them, on their way to the file")
        self.coming = True
        if self.stored == self.base:
            self.base = self.stored = self.taken
        return self.file_length

    def take_stored(self, count: int) -> None:
        """``count`` bytes arrived, and are in the file already."""
        if not self.coming:
            raise InvariantBroken("bytes are in a file that nobody has opened for them")
        self.coming = False
        self.taken += count
        self.stored += count

    def end_store(self, written: int) -> None:
        """The write ended: ``written`` bytes are in the file, the others stay in memory."""
        if not 0 <= written <= self.storing:
            raise InvariantBroken("more was written than was given")
        self.stored += written
        self.storing = 0

    def truncated(self) -> int:
        """The drained file is empty again. Returns its length before."""
        if not self.drained:
            raise InvariantBroken("a file was truncated that is not drained")
        length = self.file_length
        self.base = self.stored
        return length

    def forget_file(self) -> int:
        """The file is closed, whatever it held. Returns its length."""
        length = self.file_length
        self.base = self.stored
        return length

    # -- what to do ---------------------------------------------------------------------------------------------

    def room(self, *, disk: bool) -> int:
        """Bytes that the producer may bring now. ``disk``: whether the disk is usable."""
        room = (self.batch if disk else self.threshold) - self.memory
        if self.watermark:
            room = min(room, self.watermark - self.occupied)
        return max(0, room)

    def room_in_file(self) -> int:
        """Bytes that may go directly to the file."""
        return sys.maxsize if not self.watermark else max(0, self.watermark - self.occupied)

    def step(self, *, disk: bool, more: bool) -> Step:
        """The table above. ``more``: the producer has more bytes at once."""
        room = self.room(disk=disk)
        if self.memory > self.threshold and disk and not (more and room):
            return Step.STORE
        return Step.READ if room else Step.PAUSE
