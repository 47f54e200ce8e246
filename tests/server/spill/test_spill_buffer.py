"""The executed buffer: real files, real sockets, real threads; what comes out is what went in."""

from __future__ import annotations

import errno
import os
import random
import socket
from pathlib import Path

import pytest
import trio
import trio.testing
from failing_files import FailingFiles
from held_clock import HeldClock
from hypothesis import given, settings
from hypothesis import strategies as st

from passenger_trio.core.buffer_sizes import BATCH, THRESHOLD
from passenger_trio.core.spill_ledger import SpillLedger
from passenger_trio.errors import SpillLost
from passenger_trio.server.spill.spill_buffer import SpillBuffer
from passenger_trio.server.spill.spill_storage import SpillStorage
from passenger_trio.system import tempfiles
from passenger_trio.system.raw_stream import RawStream

PAGE = 4096
RANDOM = random.Random(7).randbytes(2 * 1024**2)


class Ends:
    """A buffer between a producer, who is the test, and a client on a socket pair."""

    def __init__(
        self, files: FailingFiles | None = None, *, directory: str = "", limit: int = 1 << 40, watermark: int = 0
    ) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.stream, self.client = RawStream(ours), RawStream(theirs)
        self.files = files or FailingFiles()
        self.space = SpillStorage(directory, limit, trio.current_time, self.files)
        self.space.limiter = HeldClock()  # type: ignore[assignment]
        self.buffer = SpillBuffer(self.space, SpillLedger(watermark))
        self.came = bytearray()
        self.went = bytearray()

    def put(self, size: int) -> None:
        at = len(self.came) % len(RANDOM)
        data = (RANDOM[at:] + RANDOM)[:size]
        self.came += data
        self.buffer.put((data[: size // 3], memoryview(data)[size // 3 :]))

    async def bring(self, size: int) -> None:
        """As a producer does: never more than there is room for."""
        while size:
            room = self.buffer.room()
            if not room or self.buffer.over_threshold:
                room = await self.buffer.make_room()
            self.put(min(room, size))
            size -= min(room, size)
            self.check()

    def drain_some(self) -> int:
        """The socket is filled, and the client reads it empty; how much went."""
        total = 0
        while self.buffer.ledger.backlog and (sent := self.buffer.send_nowait(self.stream)):
            total += sent
        self.read()
        self.check()
        return total

    def read(self) -> None:
        while True:
            try:
                self.went += self.client.recv_nowait(1 << 20)
            except trio.WouldBlock:
                return

    def drain(self) -> None:
        while self.buffer.ledger.backlog:
            self.drain_some()
        assert self.went == self.came

    def check(self) -> None:
        ledger = self.buffer.ledger
        assert ledger.memory <= BATCH
        assert not ledger.watermark or ledger.occupied <= ledger.watermark
        assert self.space.quota.used >= ledger.file_length
        assert self.space.quota.used <= self.space.quota.limit
        if self.buffer.file is not None:
            assert os.fstat(self.buffer.file).st_size == ledger.file_length

    def close(self) -> None:
        self.buffer.close()
        assert self.space.quota.used == 0
        assert not self.space.buffers
        self.stream.close()
        self.client.close()


SIZES = st.sampled_from(
    [
        1,
        100,
        PAGE - 1,
        PAGE,
        PAGE + 1,
        THRESHOLD - 1,
        THRESHOLD,
        THRESHOLD + 1,
        BATCH - 1,
        BATCH,
        BATCH + 1,
        2 * BATCH + 5,
    ]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("bring"), SIZES),
        st.tuples(st.just("drain"), st.just(0)),
        st.tuples(st.just("store"), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(
    STEPS,
    st.sampled_from([0, BATCH, 1024**2 - 1, 1024**2]),
    st.lists(st.sampled_from([None, (0, errno.EIO), (PAGE, errno.ENOSPC)]), max_size=4),
)
def test_what_comes_out_is_what_went_in(
    steps: list[tuple[str, int]], watermark: int, faults: list[tuple[int, int] | None]
) -> None:
    async def play() -> None:
        ends = Ends(FailingFiles(writes=faults), watermark=watermark)
        async with trio.open_nursery() as nursery:

            async def keep_draining() -> None:
                while True:
                    await trio.sleep(0.2)
                    ends.drain_some()

            nursery.start_soon(keep_draining)  # else a paused producer would wait for ever
            for what, size in steps:
                if what == "bring":
                    await ends.bring(size)
                elif what == "store" and ends.buffer.ledger.memory and not ends.buffer.ledger.drained:
                    await ends.buffer.store()
                else:
                    ends.drain_some()
            nursery.cancel_scope.cancel()
        ends.drain()
        assert ends.buffer.ledger.file_length == 0
        ends.close()

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_up_to_the_threshold_there_is_no_file_and_no_thread() -> None:
    ends = Ends()
    await ends.bring(THRESHOLD)
    assert ends.buffer.room() == BATCH - THRESHOLD
    assert not ends.buffer.over_threshold
    assert ends.files.opened == 0
    ends.drain()
    ends.close()
    assert ends.files.written == []


async def test_one_byte_more_goes_to_disk_when_the_producer_rests() -> None:
    ends = Ends()
    await ends.bring(THRESHOLD)
    ends.put(1)
    assert ends.buffer.over_threshold
    assert await ends.buffer.make_room() == BATCH
    assert ends.files.written == [THRESHOLD + 1]
    assert (ends.buffer.ledger.memory, ends.space.quota.used) == (0, THRESHOLD + 1)
    ends.drain()
    assert ends.files.truncated == 1
    assert ends.space.quota.used == 0
    assert ends.files.sent == THRESHOLD + 1
    ends.put(10)  # in memory again
    ends.drain()
    assert len(ends.files.written) == 1
    ends.close()


async def test_a_fast_producer_is_written_in_batches() -> None:
    ends = Ends()
    for _ in range(8):
        while room := ends.buffer.room():
            ends.put(min(room, 65536))
        await ends.buffer.make_room()
    assert ends.files.written == [BATCH] * 8
    ends.drain()
    ends.close()


async def test_a_flood_of_tiny_pieces_costs_its_bytes() -> None:
    ends = Ends()
    for _ in range(5000):
        ends.put(7)
    assert ends.buffer.ledger.memory == 35000
    assert ends.space.memory == 35000
    ends.drain()
    ends.close()


async def test_a_client_overtakes_a_slow_write() -> None:
    """While a batch is being written its bytes go out from memory."""
    ends = Ends()
    ends.put(BATCH)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.buffer.store)
        while not ends.buffer.ledger.storing:
            await trio.lowlevel.checkpoint()
        assert ends.drain_some() > 0
        ends.put(1000)
    ends.drain()
    ends.close()


# -- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "wait"), [(errno.ENOENT, 10), (errno.EROFS, 10), (errno.EMFILE, 1)])
async def test_F29_F32_no_file_is_memory_and_a_pause(
    error: int, wait: int, autojump_clock: trio.testing.MockClock
) -> None:
    ends = Ends(FailingFiles(opens=[error]))
    await ends.bring(THRESHOLD)
    ends.put(1)
    begun = trio.current_time()
    await ends.buffer.make_room()
    assert trio.current_time() - begun == pytest.approx(wait, abs=0.5)
    assert ends.files.opened == 2
    assert sum(ends.space.quota.errors.values()) == 1
    ends.drain()
    ends.close()


async def test_F27_a_full_disk_keeps_what_was_not_written(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends(FailingFiles(writes=[(5000, errno.ENOSPC), (0, errno.ENOSPC), (1, errno.EDQUOT)]))
    ends.put(BATCH)
    begun = trio.current_time()
    await ends.buffer.make_room()
    assert trio.current_time() - begun == pytest.approx(3, abs=0.5)  # tried again each second
    assert ends.files.written == [BATCH, BATCH - 5000, BATCH - 5000, BATCH - 5001]
    assert ends.space.quota.errors == {"no_space": 3}
    assert ends.space.quota.paused == 1
    assert len(caplog.records) == 1  # one line a minute
    ends.drain()
    ends.close()


async def test_F27_a_paused_producer_goes_on_when_the_client_reads(autojump_clock: trio.testing.MockClock) -> None:
    ends = Ends(FailingFiles(writes=[(0, errno.ENOSPC)] * 1000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.bring, 1024**2)
        while len(ends.came) < 1024**2 or ends.buffer.ledger.backlog:
            await trio.sleep(0.3)
            assert ends.buffer.ledger.memory <= BATCH
            ends.drain_some()
    ends.drain()
    assert 1 < ends.space.quota.errors["no_space"] < 30
    ends.close()


async def test_F30_the_quota_is_back_pressure(autojump_clock: trio.testing.MockClock) -> None:
    ends = Ends(limit=BATCH)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.bring, 1024**2)
        while not ends.space.quota.errors:  # noqa: ASYNC110 - the buffer tells nobody
            await trio.sleep(0.3)
        assert THRESHOLD <= len(ends.came) - ends.space.quota.used <= BATCH
        assert ends.space.quota.used <= BATCH
        assert ends.space.quota.errors["quota"] == 1
        while ends.buffer.ledger.backlog:
            ends.drain_some()
            await trio.sleep(0.3)
    ends.drain()
    ends.close()


async def test_F28_what_cannot_be_read_back_is_lost_and_said() -> None:
    ends = Ends(FailingFiles(sends=[errno.EIO]))
    ends.put(BATCH)
    await ends.buffer.store()
    with pytest.raises(SpillLost):
        ends.buffer.send_nowait(ends.stream)
    assert ends.space.quota.errors == {"read": 1}
    ends.close()


async def test_F28_a_file_that_became_shorter_is_no_end() -> None:
    ends = Ends()
    ends.put(BATCH)
    await ends.buffer.store()
    assert ends.buffer.file is not None
    os.truncate(f"/proc/self/fd/{ends.buffer.file}", 10)
    assert ends.buffer.send_nowait(ends.stream) == 10
    with pytest.raises(SpillLost):
        ends.buffer.send_nowait(ends.stream)
    ends.close()


async def test_a_broken_client_is_not_a_broken_disk() -> None:
    ends = Ends()
    ends.put(BATCH)
    await ends.buffer.store()
    ends.client.close()
    with pytest.raises(trio.BrokenResourceError):
        ends.buffer.send_nowait(ends.stream)
    assert not ends.space.quota.errors
    ends.close()


async def test_closing_frees_everything_whenever() -> None:
    before = set(os.listdir("/proc/self/fd"))
    for cancel in (True, False):
        ends = Ends()
        ends.put(BATCH)
        with trio.CancelScope() as scope:
            if cancel:
                scope.cancel()
            await ends.buffer.store()
        ends.buffer.close()
        ends.close()  # twice is once
    assert set(os.listdir("/proc/self/fd")) == before


# -- files without a name -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("opener", [tempfiles.open_unlinked, tempfiles.open_and_unlink])
def test_R34_a_file_has_no_name_and_is_ours(opener: object, tmp_path: Path) -> None:
    assert callable(opener)
    descriptor = opener(str(tmp_path))
    assert not list(tmp_path.iterdir())
    found = os.fstat(descriptor)
    assert (found.st_mode & 0o777, found.st_nlink, found.st_uid) == (0o600, 0, os.getuid())
    assert tempfiles.write_at(descriptor, b"hello", 3) == (5, None)
    assert os.pread(descriptor, 10, 0) == b"\0\0\0hello"
    with pytest.raises(OSError):
        os.link(f"/proc/self/fd/{descriptor}", tmp_path / "name", follow_symlinks=True)
    os.close(descriptor)


def test_the_free_space_of_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert tempfiles.free_space(str(tmp_path)) > 0
    assert tempfiles.free_space(str(tmp_path / "gone")) == 0
