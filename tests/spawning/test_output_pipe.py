"""OutputPipe: lines come out whole and in order, nothing is lost, and no flood costs more than its share."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from passenger_trio.spawning.output import MAX_LINE, TAIL_LINES, OutputPipe

pytestmark = pytest.mark.usefixtures("nothing_left")

BURST = 65536
LINES = 1000
PAUSE = 0.002
Opened = tuple[OutputPipe, list[str]]


def pipe() -> Opened:
    lines: list[str] = []
    return OutputPipe(lines.extend), lines


@pytest.fixture
async def opened() -> Iterator[Opened]:
    output, lines = pipe()
    yield output, lines
    output.close()


def write(output: OutputPipe, data: bytes) -> None:
    assert os.write(output.writing_end, data) == len(data)


# --- lines ------------------------------------------------------------------------------------------------------------


async def test_lines_are_cut_and_a_line_without_an_end_waits(opened: Opened) -> None:
    output, lines = opened
    write(output, b"one\ntwo\r\n\nthr")
    output.drain()
    assert lines == ["one", "two", ""]
    assert output.tail == ("one", "two", "", "thr")
    write(output, b"ee\n")
    output.drain()
    assert lines == ["one", "two", "", "three"]


async def test_what_is_no_utf_8_is_replaced(opened: Opened) -> None:
    output, lines = opened
    write(output, "é漢\n".encode() + b"\xff\xfe\n\0\x1b[1m\n")
    output.drain()
    assert lines == ["é漢", "\ufffd\ufffd", "\0\x1b[1m"]


@pytest.mark.parametrize("size", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 2 * MAX_LINE, 2 * MAX_LINE + 5])
@pytest.mark.parametrize("step", [MAX_LINE * 3, 4096, 1000])
async def test_a_long_line_is_given_in_pieces_however_it_comes(opened: Opened, size: int, step: int) -> None:
    output, lines = opened
    data = b"x" * size + b"\nnext\n"
    for start in range(0, len(data), step):
        write(output, data[start : start + step])
        output.drain()
    assert lines == ["x" * min(MAX_LINE, size - at) for at in range(0, size, MAX_LINE)] + ["next"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=20) | st.just(b"\n") | st.just(b"a" * (MAX_LINE + 3)), max_size=8))
def test_it_does_not_matter_how_the_bytes_come(pieces: list[bytes]) -> None:
    async def read(pieces: list[bytes]) -> list[str]:
        output, lines = pipe()
        for piece in filter(None, pieces):
            write(output, piece)
            output.drain()
        output.close()
        return lines

    assert trio.run(read, pieces) == trio.run(read, [b"".join(pieces)])


async def test_the_tail_is_the_last_lines(opened: Opened) -> None:
    output, _ = opened
    write(output, b"".join(b"%d\n" % number for number in range(TAIL_LINES + 50)) + b"partial")
    output.drain()
    assert output.tail == (*map(str, range(51, TAIL_LINES + 50)), "partial")


async def test_without_a_listener_the_tail_is_kept_all_the_same() -> None:
    output = OutputPipe()
    write(output, b"a\n")
    output.close()
    assert output.tail == ("a",)


async def test_whoever_listens_may_come_later(opened: Opened) -> None:
    output, lines = opened
    output.on_lines = None
    write(output, b"a\n")
    output.drain()
    later: list[str] = []
    output.on_lines = later.extend
    write(output, b"b\n")
    output.drain()
    assert (lines, later) == ([], ["b"])


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_it_reads_until_nobody_can_write(opened: Opened, autojump_clock: MockClock) -> None:
    output, lines = opened
    other = os.dup(output.writing_end)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.run)
        write(output, b"a\n")
        output.close_writing_end()
        await trio.sleep(100)
        assert lines == ["a"]
        assert nursery.child_tasks
        os.write(other, b"b\n")
        os.close(other)
    assert lines == ["a", "b"]
    await output.run()  # the end stays the end


async def test_a_reader_that_is_cancelled_loses_nothing(opened: Opened, autojump_clock: MockClock) -> None:
    output, lines = opened
    for number in range(20):
        with trio.move_on_after(PAUSE / 3 * (number % 4)):
            await output.run()
        write(output, b"%d\n" % number)
    output.close_writing_end()
    await output.run()
    assert lines == [str(number) for number in range(20)]


async def test_drain_does_not_wait(opened: Opened) -> None:
    output, lines = opened
    output.drain()
    assert lines == []
    output.close_writing_end()
    output.drain()
    output.drain()
    assert lines == []


async def test_close_gives_what_is_there_and_the_line_that_has_not_ended() -> None:
    output, lines = pipe()
    write(output, b"a\nb")
    output.close()
    assert lines == ["a", "b"]
    output.close()
    output.drain()
    assert lines == ["a", "b"]
    assert output.tail == ("a", "b")
    assert output.writing_end == -1
    await output.run()


async def test_close_takes_a_pipe_that_is_full() -> None:
    output, lines = pipe()
    write(output, b"x" * 99 + b"\n" + b"y" * (BURST - 100))
    output.close()
    assert "".join(lines) == "x" * 99 + "y" * (BURST - 100)


# --- floods (F56) -----------------------------------------------------------------------------------------------------


async def flood(output: OutputPipe, data: bytes) -> None:
    """Write as fast as the pipe takes it, and end."""
    fd = os.dup(output.writing_end)
    output.close_writing_end()
    os.set_blocking(fd, False)
    rest = memoryview(data)
    while rest:
        await trio.lowlevel.wait_writable(fd)
        rest = rest[os.write(fd, rest) :]
    os.close(fd)


async def test_a_flood_of_bytes_slows_its_writer_down(opened: Opened, autojump_clock: MockClock) -> None:
    output, lines = opened
    data = (b"x" * 999 + b"\n") * 2000
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.run)
        await flood(output, data)
    assert len(lines) == 2000
    assert trio.current_time() - begun >= (len(data) / BURST - 2) * PAUSE


async def test_a_flood_of_empty_lines_is_given_a_few_at_a_time(opened: Opened, autojump_clock: MockClock) -> None:
    output, _ = opened
    times: Counter[float] = Counter()
    output.on_lines = lambda given: times.update([trio.current_time()] * len(given))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.run)
        await flood(output, b"\n" * 10_000)
    assert times.total() == 10_000
    assert max(times.values()) <= LINES
    assert max(times) - min(times) >= (10_000 / LINES - 1) * PAUSE * 0.99


async def test_a_flood_of_small_writes_wakes_nobody_for_each(opened: Opened, autojump_clock: MockClock) -> None:
    output, _ = opened
    times: Counter[float] = Counter()
    output.on_lines = lambda given: times.update([trio.current_time()] * len(given))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.run)
        for _ in range(200):
            write(output, b"x\n")
            await trio.sleep(0.001)
        output.close_writing_end()
    assert times.total() == 200
    assert len(times) <= 0.2 / PAUSE + 2


async def test_the_tail_in_the_middle_of_a_flood_is_what_was_read(opened: Opened, autojump_clock: MockClock) -> None:
    output, lines = opened
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.run)
        await wait_all_tasks_blocked()
        write(output, b"".join(b"%d\n" % number for number in range(1000)))
        await trio.sleep(PAUSE / 2)
        assert len(lines) == LINES
        assert output.tail == tuple(map(str, range(1000 - TAIL_LINES, 1000)))
        nursery.cancel_scope.cancel()


async def test_the_end_of_a_flood_is_told_by_its_tail_and_a_number() -> None:
    """``close`` does not wait, so it cannot spread 65,000 lines over time; nor may it stop everything for a second."""
    output, lines = pipe()
    write(output, b"\n" * (BURST - 5) + b"last\n")
    output.close()
    assert len(lines) == 2001
    assert lines[-1] == f"({BURST - 4 - 2000} lines of output came too fast and were dropped)"
    assert output.tail[-1] == "last"
    assert len(output.tail) == TAIL_LINES


# --- real programs ----------------------------------------------------------------------------------------------------


@pytest.mark.os
async def test_a_grandchild_that_holds_the_pipe_holds_up_the_reader_but_not_the_close() -> None:
    output, lines = pipe()
    came = trio.Event()
    output.on_lines = lambda given: (lines.extend(given), came.set())  # type: ignore[func-returns-value]
    child = subprocess.Popen(
        ["/bin/sh", "-c", "sleep 60 & echo from the child"], stdout=output.writing_end, process_group=0
    )
    output.close_writing_end()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.run)
        with trio.fail_after(5):
            await came.wait()
        child.wait()
        await wait_all_tasks_blocked(0.05)
        assert nursery.child_tasks, "it reads on: the pipe is open"
        nursery.cancel_scope.cancel()
    output.close()
    os.killpg(child.pid, signal.SIGKILL)
    assert lines == ["from the child"]
