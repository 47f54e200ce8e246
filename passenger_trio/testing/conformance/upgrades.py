"""Section 3 of the contract: streams that are handed over to the application."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

from passenger_trio.testing.conformance.basis import TIMEOUT, eventually, expect
from passenger_trio.testing.conformance.streams import Stream
from passenger_trio.testing.conformance.subject import Stage, check


def _note(stage: Stage) -> Path:
    """A file that does not exist yet."""
    return stage.supervisor.directory / f"note-{os.urandom(8).hex()}"


def _hand_over(stream: Stream, path: str, note: Path) -> None:
    """Send the request and read until the application has the stream and has written its first bytes."""
    stream.begin("GET", f"{path}?{note}", fields={"HTTP_CONNECTION": "Upgrade", "HTTP_UPGRADE": "websocket"})
    found = stream.next_frame()
    if path == "/raw":
        expect(found is not None and found[0] == "R" and found[1].startswith(b"101\0"), f"no head of 101: {found}")
        found = stream.next_frame()
    expect(found == ("U", b""), f"the stream is not handed over: {found}")
    if path == "/full":
        first = b"HTTP/1.1 200 OK\r\n\r\n"
        expect(stream.take(len(first)) == first, "what the application wrote first does not come as it is")


@check(hijack=True, shares=True)
def hands_the_stream_over(stage: Stage) -> None:
    """U: from here raw bytes both ways, behind an R of status 101 or without any head."""
    worker = stage.worker()
    bulk = bytes(range(97, 123)) * 100_000
    for path in ("/raw", "/full"):
        with worker.open() as stream:
            _hand_over(stream, path, _note(stage))
            for data in (b"a", b"E\0\0\0\0", b"H\xff\xff\xff\xff", b"\x81\x05hello", b"x" * 70_000):
                stream.send(data)
                expect(stream.take(len(data)) == data.upper(), f"{data[:20]!r} did not come back")
            for at in range(26):
                stream.send(bulk[at : at + 1])
                expect(stream.take(1) == bulk[at : at + 1].upper(), f"byte {at} did not come back")
            sender = threading.Thread(target=stream.send, args=(bulk,), daemon=True)
            sender.start()
            expect(stream.take(len(bulk)) == bulk.upper(), f"{len(bulk)} bytes did not come back")
            sender.join(TIMEOUT)


@check(hijack=True, shares=True)
def passes_the_ends_of_a_stream_that_was_handed_over(stage: Stage) -> None:
    """Either side ends its direction with a half-close, and the whole with a close; the stream is not used for sessions again."""
    worker = stage.worker()
    for path in ("/raw", "/full"):
        note = _note(stage)
        with worker.open() as stream:
            _hand_over(stream, path, note)
            stream.send(b"last words")
            stream.socket.shutdown(socket.SHUT_WR)
            expect(stream.take(10) == b"LAST WORDS", "what was sent before the end is lost")
            expect(stream.ended(), "bytes behind the end")
            expect(eventually(note.exists), "the application does not see the end")
        note = _note(stage)
        with worker.open() as stream:
            _hand_over(stream, path, note)
        expect(eventually(note.exists), "the application does not see the close")


@check(hijack=True, shares=True)
def a_stream_that_was_handed_over_does_not_count(stage: Stage) -> None:
    """The stream belongs to the application. The worker serves as many other sessions as before."""
    worker = stage.worker()
    with contextlib.ExitStack() as stack:
        streams = []
        for number in range(5):
            streams.append(stack.enter_context(worker.open()))
            _hand_over(streams[-1], ("/raw", "/full")[number % 2], _note(stage))
            expect(worker.request().body == b"hello", f"no session beside {number + 1} of them")
        for stream in streams:
            stream.send(b"still here")
            expect(stream.take(10) == b"STILL HERE", "it was ended by another's session")
