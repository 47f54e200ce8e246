"""Files without a name, and what goes into them past memory."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from passenger_trio.system import tempfiles
from passenger_trio.system.tempfiles import ROOM, Received


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = tempfiles.open_unlinked(str(tmp_path))
    yield descriptor
    os.close(descriptor)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def content(descriptor: int) -> bytes:
    return os.pread(descriptor, 1 << 20, 0)


def test_what_comes_is_written_until_nothing_comes(file: int, pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"x" * 100_000)
    assert tempfiles.receive_at(ours, file, 10, 1 << 20) == Received(100_000)
    assert content(file) == bytes(10) + b"x" * 100_000


def test_fault_16_the_network_is_not_waited_for(file: int, pair: Pair) -> None:
    """Counted by the kernel: a thread that waits for something gives the processor back."""
    ours, theirs = pair
    assert not ours.getblocking()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    for number in range(200):
        theirs.send(b"x")
        assert tempfiles.receive_at(ours, file, number, 100) == Received(1)
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before < 100


def test_no_more_than_was_wanted_comes(file: int, pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"abcdef")
    assert tempfiles.receive_at(ours, file, 0, 4) == Received(4)
    assert ours.recv(10) == b"ef"


@pytest.mark.parametrize("reset", [False, True])
def test_a_good_end_is_left_to_the_next_who_reads_and_another_is_told(reset: bool, file: int, pair: Pair) -> None:
    ours, theirs = pair
    if reset:
        ours.send(b"which is never read")
    else:
        theirs.sendall(b"abc")
    theirs.close()
    if reset:
        assert tempfiles.receive_at(ours, file, 0, 100) == Received(0, broken=True), "the kernel tells it once"
    else:
        assert tempfiles.receive_at(ours, file, 0, 100) == Received(3)
        assert ours.recv(10) == b""


def test_what_is_written_may_be_made_of_what_came(file: int, pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"1a2b3c!rest")

    def take(view: memoryview) -> tuple[Sequence[bytes | memoryview], int]:
        pieces: list[bytes | memoryview] = []
        at = 0
        while bytes(view[at : at + 1]) not in (b"!", b""):
            pieces += (b"<", view[at + 1 : at + 2], b">")
            at += 2
        return pieces, at

    assert tempfiles.receive_at(ours, file, 0, 2 * ROOM, take) == Received(9, untaken=b"!rest")
    assert content(file) == b"<a><b><c>"
    theirs.sendall(b"!")
    assert tempfiles.receive_at(ours, file, 9, 2 * ROOM, take) == Received(0, untaken=b"!")


def test_room_is_left_for_what_is_added(file: int, pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"x" * 10_000)
    received = tempfiles.receive_at(ours, file, 0, 5_000, lambda view: ([bytes(ROOM), view], len(view)))
    assert received.written <= 5_000
    assert tempfiles.receive_at(ours, file, 0, ROOM, lambda view: ([view], len(view))) == Received(0)


def test_what_the_disk_does_not_take_is_told(file: int, pair: Pair, no_signal: None) -> None:
    ours, theirs = pair
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    theirs.sendall(b"abcdefgh!")
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, hard))
    try:
        received = tempfiles.receive_at(ours, file, 0, 2 * ROOM, lambda view: ([view[:4], b"-", view[4:8]], 8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert received == Received(5, b"efgh", errno.EFBIG, b"!")
    assert content(file) == b"abcd-"


@pytest.fixture
def no_signal() -> Iterator[None]:
    """A file that gets too long is an error, and not the end of the process. (Python ignores SIGXFSZ by itself; this says so.)"""
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGXFSZ, before)


def test_R34_nobody_can_give_it_a_name_or_read_it(tmp_path: Path) -> None:
    """It is ours alone (0600), has no name, and gets none: not by a link through /proc either (``O_EXCL``)."""
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for opened in (tempfiles.open_unlinked, tempfiles.open_and_unlink):
        descriptor = opened(str(tmp_path))
        try:
            status = os.fstat(descriptor)
            assert (stat.S_IMODE(status.st_mode), status.st_nlink, list(tmp_path.iterdir())) == (0o600, 0, [])
            with pytest.raises(FileNotFoundError):
                # With a directory's descriptor it is linkat, which alone can follow that link.
                os.link(f"/proc/self/fd/{descriptor}", "name", dst_dir_fd=directory, follow_symlinks=True)
        finally:
            os.close(descriptor)
    os.close(directory)
