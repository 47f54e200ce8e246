"""The spill ledger: where the bytes of one buffer are, and what its producer may do next. And the quota that all buffers share.

A buffer stands between a producer (an application that answers, a client that uploads) and a consumer who may be slower. The ledger sees a stream of bytes
and three positions in it; it moves no byte itself::

    0 ........ base ........ sent ........ stored ........ taken
               |-- in the file, of which --|--- in memory ---|
               |- sent already -|- unread -|

``sent`` may also be beyond ``stored``: then the file has nothing unread, and memory begins at ``sent``. While bytes are being written to the file
(``storing``) they are still in memory, so a consumer who is fast again need not wait for the disk: it may overtake the writer.

Laws: bytes leave in the order in which they came, so what is on disk goes before what is in memory; a file that has nothing unread is truncated before
it is used again; with a disk memory holds at most ``batch`` bytes, and at most ``threshold`` of them while the producer rests; without one, at most
``threshold``. What counts for the watermark is what the buffer *occupies*, memory and the file's whole length, not what is unread: a client that is always a little behind
would otherwise let the file grow for ever.

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

A write takes a thread, which costs as much as writing 256 KiB does: so it is given ``batch`` bytes where the producer is that fast, and never fewer than ``threshold``.
"""

from __future__ import annotations

import errno
import sys
from collections import Counter
from enum import Enum
from typing import Final

from passenger_trio.errors import InvariantBroken

__all__ = ["BATCH", "FAULTS", "THRESHOLD", "SpillLedger", "SpillQuota", "Step"]

THRESHOLD: Final = 128 * 1024
BATCH: Final = 256 * 1024


class Step(Enum):
    """What a producer does next."""

    READ = "read"
    STORE = "store"
    PAUSE = "pause"


class SpillLedger:
    """The positions of one buffer. ``watermark``: bytes that it may occupy (0: no limit)."""

    __slots__ = ("base", "batch", "coming", "sent", "stored", "storing", "taken", "threshold", "watermark")

    def __init__(self, watermark: int = 0, threshold: int = THRESHOLD, batch: int = BATCH) -> None:
        self.watermark = watermark
        self.threshold = threshold
        self.batch = batch
        self.taken = 0
        """Bytes that came."""
        self.sent = 0
        """Bytes that went."""
        self.stored = 0
        """The end of what is in the file, as a position in the stream."""
        self.base = 0
        """The position in the stream of the file's first byte."""
        self.storing = 0
        """Bytes from ``stored`` on that are being written."""
        self.coming = False
        """Whether bytes are on their way to the end of the file, past memory."""

    # -- what there is ------------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Bytes that came and did not go."""
        return self.taken - self.sent

    @property
    def memory(self) -> int:
        """Bytes of the backlog that are in memory."""
        return self.taken - max(self.sent, self.stored)

    @property
    def unread(self) -> int:
        """Bytes of the backlog that are in the file, and go first."""
        return max(0, self.stored - self.sent)

    @property
    def file_length(self) -> int:
        return self.stored - self.base

    @property
    def occupied(self) -> int:
        """Memory and the file's length; bytes that are being written will be in the file, also those that the consumer has overtaken."""
        end = self.stored + self.storing
        return end - self.base + self.taken - max(self.sent, end)

    @property
    def drained(self) -> bool:
        """The file has bytes, and all of them went: it is to be truncated, and that told (``truncated``)."""
        return self.stored > self.base and self.sent >= self.stored and not self.storing and not self.coming

    @property
    def takes_bulk(self) -> bool:
        """Whether bytes may come to the file's end past memory: nothing is on its way there, or stands before it."""
        return not (self.memory or self.storing or self.coming or self.drained)

    # -- what happens -------------------------------------------------------------------------------------------

    def take(self, count: int) -> None:
        """The producer brought ``count`` bytes, which are in memory now."""
        if self.coming and count:
            raise InvariantBroken("bytes overtook those that are on their way to the file")
        self.taken += count

    def pass_through(self, count: int) -> None:
        """``count`` bytes went to the consumer at once."""
        if self.backlog or self.coming:
            raise InvariantBroken("bytes overtook those that came before them")
        self.taken += count
        self.sent += count

    def give(self, count: int) -> None:
        """``count`` bytes of the backlog went to the consumer: unread ones first."""
        if not 0 <= count <= self.backlog:
            raise InvariantBroken("a buffer gave what it had not")
        self.sent += count

    def begin_store(self, count: int) -> int:
        """The first ``count`` bytes of memory are being written to the file. Where in the file?"""
        if self.storing or not 0 < count <= self.memory:
            raise InvariantBroken("a buffer stores what it has not, or twice")
        if self.drained:
            raise InvariantBroken("a drained file was not truncated")
        if self.stored == self.base:
            self.base = self.stored = max(self.sent, self.stored)
        self.storing = count
        return self.stored - self.base

    def begin_coming(self) -> int:
        """Bytes will come and go to the file's end at once. Where is that? Until ``take_stored`` nothing else comes; the consumer may go on."""
        if not self.takes_bulk:
            raise InvariantBroken("bytes overtake those that came before them, on their way to the file")
        self.coming = True
        if self.stored == self.base:
            self.base = self.stored = self.taken
        return self.file_length

    def take_stored(self, count: int) -> None:
        """``count`` bytes came and are in the file already."""
        if not self.coming:
            raise InvariantBroken("bytes are in a file that nobody has opened for them")
        self.coming = False
        self.taken += count
        self.stored += count

    def end_store(self, written: int) -> None:
        """So many of them are in the file; the others stay in memory."""
        if not 0 <= written <= self.storing:
            raise InvariantBroken("more was written than was given")
        self.stored += written
        self.storing = 0

    def truncated(self) -> int:
        """The drained file is empty again; how long it was."""
        if not self.drained:
            raise InvariantBroken("a file was truncated that is not drained")
        length = self.file_length
        self.base = self.stored
        return length

    def forget_file(self) -> int:
        """The file is closed, whatever it held; how long it was."""
        length = self.file_length
        self.base = self.stored
        return length

    # -- what to do ---------------------------------------------------------------------------------------------

    def room(self, *, disk: bool) -> int:
        """Bytes that may be brought now. ``disk``: whether it can be written to."""
        room = (self.batch if disk else self.threshold) - self.memory
        if self.watermark:
            room = min(room, self.watermark - self.occupied)
        return max(0, room)

    def room_in_file(self) -> int:
        """Bytes that may come past memory."""
        return sys.maxsize if not self.watermark else max(0, self.watermark - self.occupied)

    def step(self, *, disk: bool, more: bool) -> Step:
        """The table above. ``more``: the producer has something at once."""
        room = self.room(disk=disk)
        if self.memory > self.threshold and disk and not (more and room):
            return Step.STORE
        return Step.READ if room else Step.PAUSE


FAULTS: Final = {
    errno.ENOSPC: ("no_space", 1.0),
    errno.EDQUOT: ("no_space", 1.0),
    errno.EFBIG: ("file_too_large", 1.0),
    errno.EIO: ("input_output", 1.0),
    errno.EMFILE: ("no_descriptor", 1.0),
    errno.ENFILE: ("no_descriptor", 1.0),
    errno.EAGAIN: ("no_thread", 1.0),
    errno.ENOMEM: ("no_memory", 1.0),
    errno.ENOENT: ("unavailable", 10.0),
    errno.ENOTDIR: ("unavailable", 10.0),
    errno.EACCES: ("unavailable", 10.0),
    errno.EPERM: ("unavailable", 10.0),
    errno.EROFS: ("unavailable", 10.0),
}
"""Error of a write or an open -> the word that it is counted under, and the seconds after which the disk is tried again (F27 to F32). EAGAIN is a thread's, which cannot be had."""

_OF_NEW_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""What says nothing of files that are open."""

_OTHER: Final = ("other", 1.0)
_LOG_EVERY: Final = 60.0


class SpillQuota:
    """What all buffers together may have on disk, and whether the disk can be used at all. The only owner of these numbers."""

    __slots__ = ("_logged", "_open_at", "_retry_at", "errors", "limit", "paused", "spilled", "used")

    def __init__(self, limit: int) -> None:
        """:param limit: bytes on disk."""
        self.limit = limit
        self.used = 0
        """Bytes on disk: the lengths of all files."""
        self.spilled = 0
        """Bytes that were ever written."""
        self.paused = 0
        """Times that a producer had to be paused."""
        self.errors: Counter[str] = Counter()
        """By the words of ``FAULTS``; ``quota``: the limit was reached; ``read``: what was written could not be read back."""
        self._retry_at = self._open_at = float("-inf")
        self._logged = float("-inf")

    def usable(self, now: float, *, new_file: bool = False) -> bool:
        """Whether a write may be tried, or one to a file that is still to be opened. Less than a threshold's worth of room is none."""
        open_at = self._open_at if new_file else self._retry_at
        return now >= self._retry_at and now >= open_at and self.limit - self.used >= THRESHOLD

    def exhausted(self, now: float) -> bool:
        """Whether it is the limit that forbids it."""
        return now >= self._retry_at and self.limit - self.used < THRESHOLD

    def retry_in(self, now: float) -> float:
        """Seconds after which it is worth to ask again. Who waits for others to release room asks each second."""
        return self._retry_at - now if now < self._retry_at else 1.0

    def reserve(self, wanted: int) -> int:
        """So many bytes of ``wanted`` may be written; they count from now on."""
        granted = max(0, min(wanted, self.limit - self.used))
        self.used += granted
        return granted

    def release(self, count: int) -> None:
        """So many bytes are off the disk, or were not written."""
        if not 0 <= count <= self.used:
            raise InvariantBroken("more disk space was released than was reserved")
        self.used -= count

    def failed(self, error: int | None, now: float) -> str:
        """A write or an open failed: nobody tries again before the time of ``FAULTS``. The word for it."""
        word, wait = FAULTS.get(error or 0, _OTHER)
        self.errors[word] += 1
        if error in _OF_NEW_FILES:
            self._open_at = max(self._open_at, now + wait)
        else:
            self._retry_at = max(self._retry_at, now + wait)
        return word

    def worth_a_line(self, now: float) -> bool:
        """Whether trouble may be logged: once a minute, whatever it is."""
        if now - self._logged < _LOG_EVERY:
            return False
        self._logged = now
        return True
