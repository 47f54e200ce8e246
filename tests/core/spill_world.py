"""A spill buffer of lists and no I/O: it does what the ledger says, with real bytes, and checks the ledger's laws after each step."""

from __future__ import annotations

from passenger_trio.core.spill_ledger import SpillLedger, Step

__all__ = ["SpillWorld", "drive"]


class SpillWorld:
    """``disk``: whether it can be written to. Bytes that come are numbered, so that none can be taken for another."""

    def __init__(self, watermark: int = 0, threshold: int = 8, batch: int = 16) -> None:
        self.ledger = SpillLedger(watermark, threshold, batch)
        self.disk = True
        self.came = bytearray()
        self.went = bytearray()
        self.file = bytearray()
        self.memory = bytearray()
        self.writing: tuple[int, bytes] | None = None
        self.truncations = 0
        self.coming_to = 0

    def next_bytes(self, count: int) -> bytes:
        start = len(self.came)
        return bytes(number % 251 for number in range(start, start + count))

    def produce(self, wanted: int) -> None:
        """The producer brings up to ``wanted`` bytes, as it may; the client takes none of them at once."""
        if self.ledger.coming:
            return
        count = min(wanted, self.ledger.room(disk=self.disk))
        data = self.next_bytes(count)
        self.came += data
        self.memory += data
        self.ledger.take(count)

    def pass_through(self, count: int, taken: int) -> None:
        """As ``produce``, but the client takes ``taken`` of them at once, if nothing is before them."""
        if self.ledger.backlog or self.ledger.coming:
            return
        data = self.next_bytes(min(count, self.ledger.room(disk=self.disk)))
        taken = min(taken, len(data))
        self.came += data
        self.went += data[:taken]
        self.ledger.pass_through(taken)
        self.memory += data[taken:]
        self.ledger.take(len(data) - taken)

    def begin_store(self, most: int = 1 << 30) -> None:
        ledger = self.ledger
        if self.writing is None and ledger.memory and not ledger.drained:
            count = min(ledger.memory, most)
            self.writing = ledger.begin_store(count), bytes(self.memory[:count])

    def begin_coming(self) -> None:
        """Bytes will come by a way of their own, behind a file that holds everything else."""
        ledger = self.ledger
        if not ledger.memory and not self.writing and not ledger.coming and not ledger.drained:
            self.coming_to = ledger.begin_coming()
            del self.file[self.coming_to :]

    def take_stored(self, count: int) -> None:
        """They came; the consumer may have emptied the file meanwhile."""
        ledger = self.ledger
        if ledger.coming:
            assert self.coming_to == len(self.file)
            data = self.next_bytes(min(count, ledger.room_in_file()))
            self.came += data
            self.file += data
            ledger.take_stored(len(data))
            self.truncate_if_drained()

    def end_store(self, written: int) -> None:
        if self.writing is not None:
            (offset, data), self.writing = self.writing, None
            written = min(written, len(data))
            self.file[offset:] = data[:written]
            before = self.ledger.memory
            self.ledger.end_store(written)
            del self.memory[: before - self.ledger.memory]
            self.truncate_if_drained()

    def consume(self, wanted: int) -> None:
        """Unread bytes of the file go first; bytes that are being written still are in memory."""
        ledger = self.ledger
        if ledger.unread:
            at = ledger.sent - ledger.base
            data = bytes(self.file[at : at + min(wanted, ledger.unread)])
        else:
            data = bytes(self.memory[:wanted])
            del self.memory[:wanted]
        self.went += data
        ledger.give(len(data))
        self.truncate_if_drained()

    def truncate_if_drained(self) -> None:
        if self.ledger.drained:
            assert self.ledger.truncated() == len(self.file)
            self.file.clear()
            self.truncations += 1

    def check(self) -> None:
        ledger = self.ledger
        assert self.came.startswith(self.went)
        assert ledger.taken == len(self.came)
        assert ledger.sent == len(self.went)
        assert ledger.memory == len(self.memory)
        assert ledger.file_length == len(self.file)
        assert ledger.backlog == ledger.memory + ledger.unread
        assert 0 <= ledger.base <= ledger.stored <= ledger.taken
        assert ledger.memory <= ledger.batch
        if ledger.watermark:
            assert ledger.occupied <= ledger.watermark
        if not self.writing and not ledger.coming:
            assert not ledger.drained
            for more in (False, True):
                step = ledger.step(disk=self.disk, more=more)
                room = ledger.room(disk=self.disk)
                assert (step is Step.READ) <= (room > 0)
                assert (step is Step.STORE) <= (self.disk and ledger.memory > ledger.threshold)
                # Whoever is paused is so because of bytes whose going will end it.
                assert (step is Step.PAUSE) <= (ledger.backlog > 0)
                if not more and step is Step.READ:
                    assert ledger.memory <= ledger.threshold

    def finish(self) -> None:
        """The consumer takes everything; then the buffer is as new."""
        self.end_store(1 << 30)
        self.take_stored(0)
        while self.ledger.backlog:
            self.consume(7)
            self.check()
        assert self.went == self.came
        assert not self.file
        assert self.ledger.room(disk=True) == min(self.ledger.batch, self.ledger.watermark or self.ledger.batch)


def drive(data: bytes) -> None:
    """Bytes as a script: the first two make the world, each pair after them is a step and its number."""
    world = SpillWorld(watermark=data[0] % 70 if data else 0, threshold=1 + (data[1] % 12 if len(data) > 1 else 7))
    for what, number in zip(data[2::2], data[3::2], strict=False):
        match what % 8:
            case 0 | 1:
                world.produce(number % 40)
            case 2:
                world.consume(number % 40)
            case 3:
                world.begin_store(1 + number % 40)
            case 4:
                world.end_store(number % 40)
            case 5:
                world.pass_through(number % 40, number // 16)
            case 7:
                if world.ledger.coming:
                    world.take_stored(number % 40)
                else:
                    world.begin_coming()
            case 6:
                world.disk = bool(number % 2)
        world.check()
    world.disk = True
    world.finish()
