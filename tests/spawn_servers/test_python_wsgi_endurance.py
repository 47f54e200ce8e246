"""The Python WSGI loader under attack: whatever comes, in whatever pieces, the worker lives and leaks nothing."""

from __future__ import annotations

import contextlib
import fcntl
import io
import itertools
import random
import resource
import socket
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from passenger_trio_loader.control_connection import encode_line
from passenger_trio_loader.session_frames import FrameReader
from passenger_trio_loader.wsgi.head import percent_decoded
from passenger_trio_loader.wsgi.input import Input
from passenger_trio_loader.wsgi.worker import Worker
from python_wsgi import IS_PYPY, worker_of

from passenger_trio.testing.conformance import Loader, eventually, frame, request_head

REQUEST = (
    frame("H", request_head("POST", "/echo", {"CONTENT_LENGTH": "9"}))
    + frame("D", b"some")
    + frame("D", b"thing")
    + frame("E")
)


def descriptors(worker: Loader) -> int:
    return len(list(Path(f"/proc/{worker.pid}/fd").iterdir()))


def memory(worker: Loader) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1]) * 4096


@contextlib.contextmanager
def unharmed(threads: int = 1) -> Iterator[Loader]:
    """A worker that answers at the end, in the process that it was, with the descriptors that it had."""
    with worker_of("conformance", threads=threads) as worker:
        worker.request()
        with worker.open():
            before = descriptors(worker)  # with one stream, accepted or about to be
        yield worker
        for _ in range(threads + 1):
            assert worker.request().body == b"hello"
        assert eventually(lambda: descriptors(worker) <= before), f"{before} descriptors, then {descriptors(worker)}"
        assert len(list(Path(f"/proc/{worker.pid}/task").iterdir())) == 2 + (threads if threads > 1 else 0)
        assert "Traceback" not in worker.output.text()


@pytest.mark.os
@pytest.mark.parametrize("threads", [1, 4])
def test_sessions_leak_nothing(threads: int) -> None:
    """1 000 sessions on one stream, 200 streams, 50 aborted responses, 50 aborted requests."""
    with unharmed(threads) as worker:
        with worker.open() as stream:
            for _ in range(100):
                stream.request()
            start = memory(worker)
            for _ in range(1000):
                assert stream.request("POST", "/echo", b"body").body == b"body"
        for _ in range(200):
            assert worker.request().status == 200
        for number in range(50):
            with worker.open() as stream:
                stream.begin("GET", "/endless?/dev/null")
                stream.next_frame()
                if number % 2:
                    stream.send(frame("A"))
                    while stream.next_frame() is not None:
                        pass
            with worker.open() as stream:
                stream.send(REQUEST[: -5 - number])
        assert worker.request().status == 200
        assert memory(worker) - start < 4_000_000 or IS_PYPY  # its heap and its compiler grow by themselves


@pytest.mark.os
@pytest.mark.parametrize("how", ["close", "half-close", "abort"])
def test_a_request_may_break_off_anywhere(how: str) -> None:
    with unharmed() as worker:
        for at in range(0, len(REQUEST), 7):
            with worker.open() as stream:
                stream.send(REQUEST[:at])
                if how == "half-close":
                    stream.socket.shutdown(socket.SHUT_WR)
                    response = stream.response()
                    assert not response.complete or response.flags & 1
                elif how == "abort":
                    stream.send(frame("A"))
                    stream.socket.shutdown(socket.SHUT_WR)
                    stream.response()


@pytest.mark.os
def test_a_reader_may_go_away_anywhere() -> None:
    """In the middle of large responses of every kind."""
    with unharmed() as worker:
        for target in ("/large", "/endless?/dev/null", "/chunks"):
            for at in (0, 1, 5, 30, 60, 70_000, 500_000):
                with worker.open() as stream:
                    stream.begin("GET", target)
                    have = 0
                    while have < min(at, 65 if target == "/chunks" else at):
                        have += len(stream.socket.recv(at - have))


@pytest.mark.os
def test_random_bytes_are_never_answered() -> None:
    with unharmed() as worker:
        source = random.Random(3)
        for number in range(200):
            data = bytearray(REQUEST if number % 2 else source.randbytes(source.randrange(1, 2000)))
            if number % 2:
                # One byte of the framing of the head, or of its type, is another.
                at = source.randrange(0, 5)
                data[at] ^= 1 << source.randrange(8)
            with worker.open() as stream:
                stream.send(bytes(data))
                stream.socket.shutdown(socket.SHUT_WR)
                assert stream.ended(), (number, stream.next_frame())


@pytest.mark.os
def test_a_worker_without_descriptors_waits_for_one() -> None:
    """EMFILE on accept: said once in a while, no busy loop, and over as soon as there is one."""
    with worker_of("conformance") as worker:
        limits = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
        used = {int(path.name) for path in Path(f"/proc/{worker.pid}/fd").iterdir()}
        lowest_free = next(number for number in itertools.count() if number not in used)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
        # The kernel takes the descriptor before it waits for a connection: if the worker waits already, it has one more.
        with worker.open() as one:
            one.begin()
            assert eventually(lambda: one.is_taken or "cannot accept" in worker.output.text())
        assert worker.output.wait_for("passenger_trio: cannot accept a connection")
        with worker.open() as stream:
            stream.begin()
            resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, limits)
            assert stream.response().body == b"hello"
        assert worker.output.text().count("cannot accept") < 20


@pytest.mark.os
def test_a_large_upload_is_not_held_in_memory() -> None:
    """50 MB, read block by block."""
    size = 50_000_000
    with worker_of("reads_input") as worker, worker.open() as stream:
        before = int(stream.request("GET", "/count").body.split()[1])
        count, after = stream.request("POST", "/count", b"x" * size).body.split()
        assert int(count) == size
        assert int(after) - before < 8_000 or IS_PYPY, "KiB"


@pytest.mark.os
def test_a_large_upload_may_be_held_in_memory() -> None:
    body = b"0123456789" * 5_000_000
    with unharmed() as worker:
        assert worker.request("POST", "/echo", body).body == body


# The input against a file, in this process


CALLS = st.one_of(
    st.tuples(st.sampled_from(["read", "readline", "readlines"]), st.integers(-1, 40)),
    st.tuples(st.sampled_from(["read", "readline", "readlines"]), st.none()),
)
CHUNKS = st.lists(st.binary(min_size=1, max_size=20).map(lambda data: data.replace(b"\1", b"\n")), max_size=8)


@given(chunks=CHUNKS, cuts=st.lists(st.integers(0, 200), max_size=6), calls=st.lists(CALLS, max_size=12))
@settings(max_examples=300, deadline=None)
def test_input_is_a_file(chunks: list[bytes], cuts: list[int], calls: list[tuple[str, int | None]]) -> None:
    """However the body is cut into frames, and the frames into reads, it gives what a file of the same bytes gives."""
    wire = b"".join(frame("D", chunk) for chunk in chunks) + frame("E")
    pieces = _cut(wire, cuts)
    body = Input(_Pieces(pieces[1:]), FrameReader(pieces[0]))
    file = io.BytesIO(b"".join(chunks))
    for name, argument in calls:
        arguments = () if argument is None else (argument,)
        if name == "readlines" and argument == 0:
            continue  # a hint of 0 means "all" in io
        assert getattr(body, name)(*arguments) == getattr(file, name)(*arguments), (name, argument)
    assert b"".join(body) == file.read()
    assert body.read() == b""
    assert body.ended
    assert body.drain()


@given(wire=st.binary(max_size=60), cuts=st.lists(st.integers(0, 60), max_size=4))
@settings(max_examples=300, deadline=None)
def test_input_of_anything_ends(wire: bytes, cuts: list[int]) -> None:
    """Garbage, or a broken-off body: an OSError that frameworks know, or the end; and nothing is read that is no payload."""
    pieces = _cut(wire, cuts)
    body = Input(_Pieces(pieces[1:]), FrameReader(pieces[0]))
    whole = Input(_Pieces([]), FrameReader(wire))
    results = []
    for source in (body, whole):
        try:
            results.append(source.read())
        except ConnectionAbortedError:
            results.append(None)
    assert results[0] == results[1]
    assert (body.ended, body.broken) == (whole.ended, whole.broken)


class _Pieces:
    """A stream that gives these pieces, then ends."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    def recv(self, size: int, flags: int = 0) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[one:other] for one, other in itertools.pairwise(edges)] or [b""]


@given(text=st.text(alphabet=st.characters(max_codepoint=255), max_size=30))
def test_percent_decoding_is_that_of_urllib(text: str) -> None:
    assert percent_decoded(text) == unquote_to_bytes(text.encode("latin-1")).decode("latin-1")


@given(text=st.text(max_size=200_000 // 12), filler=st.integers(0, 70_000))
@settings(max_examples=30, deadline=None)
def test_no_line_is_too_long(text: str, filler: int) -> None:
    """And what is kept is the end."""
    line = encode_line({"type": "error", "traceback": "x" * filler + text * 12 + "the end", "summary": "s"})
    assert len(line) <= 65536
    assert line.endswith(b'"summary": "s"}\n')
    assert b'the end", "summary"' in line


def test_a_stream_of_one_byte_at_a_time_through_a_socket() -> None:
    """The whole worker in this process: its hot loop sees every possible cut of a head."""
    ours, theirs = socket.socketpair()
    worker = Worker(_application, {"threads": 1, "socket_dir": "/", "socket_name": "x", "server_software": "x"})
    thread = threading.Thread(target=worker._serve_stream, args=(theirs,))
    thread.start()
    with ours, theirs:
        wire = frame("H", request_head("POST", "/echo")) + frame("D", b"body") + frame("E")
        for at in range(1, len(wire)):
            ours.sendall(wire[:at])
            # The worker has taken the first piece before the second is sent.
            assert eventually(lambda: _unread(ours) == 0)
            ours.sendall(wire[at:])
            assert ours.recv(1000).endswith(frame("D", b"body") + frame("E"))
        ours.shutdown(socket.SHUT_WR)
        thread.join()


def _unread(sock: socket.socket) -> int:
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"))[0])


def _application(environ: dict[str, object], start_response: object) -> list[bytes]:
    start_response("200 OK", [])  # type: ignore[operator]
    return [environ["wsgi.input"].read()]  # type: ignore[attr-defined]
