"""Section 3 of the contract: sessions that break, by the application, the client, or bytes that are in no contract."""

from __future__ import annotations

import socket
import struct
from functools import partial

from passenger_trio.testing.conformance.basis import MAX_FRAME, MAX_HEAD, eventually, expect
from passenger_trio.testing.conformance.observations import lines_of
from passenger_trio.testing.conformance.streams import Response, frame, request_head
from passenger_trio.testing.conformance.subject import Stage, check


@check(protocol="session", shares=True)
def leaves_a_short_response_incomplete(stage: Stage) -> None:
    """The application sends less than the content-length it declared: no E, the stream is closed."""
    worker = stage.worker()
    response = worker.request("GET", "/short")
    expect(not response.complete and response.body == b"01234", f"{response}")
    expect(worker.request().body == b"hello", "the worker does not live on")


@check(protocol="session")
def drops_excess_bytes(stage: Stage) -> None:
    """What the application sends beyond its content-length is dropped by the worker, which says so on standard error."""
    worker = stage.worker()
    response = worker.request("GET", "/long")
    expect(response.complete and response.body == b"01234", f"{response}")
    expect(eventually(lambda: len(worker.output.text()) > 0), "nothing on standard error")


@check(protocol="session")
def reports_an_exception(stage: Stage) -> None:
    """X (class, message, traceback) takes the place of R, and E follows. The traceback is in the output, too."""
    worker = stage.worker()
    with worker.open() as stream:
        response = stream.request("GET", "/raise")
        expect(response.error is not None and response.complete, f"{response}")
        expect("".join(kind for kind, _ in response.frames) == "XE", f"{response.frames}")
        assert response.error is not None
        name, text, traceback = response.error
        expect(bool(name) and "conformance" in text and "conformance" in traceback, f"{response.error}")
        expect(worker.output.wait_for("conformance"), f"the output: {worker.output.text()!r}")
        expect(stream.request().body == b"hello", "the stream does not go on")


@check(protocol="session")
def leaves_a_response_incomplete_after_an_exception(stage: Stage) -> None:
    """When the application raises after its head was sent, the worker sends no E but closes the stream."""
    worker = stage.worker()
    response = worker.request("GET", "/raise-late")
    expect(not response.complete and response.body == b"begun", f"{response}")
    expect(worker.output.wait_for("conformance"), f"the output: {worker.output.text()!r}")
    expect(worker.request().body == b"hello", "the worker does not live on")


@check(protocol="session", shares=True)
def survives_an_exit_in_a_session(stage: Stage) -> None:
    """An application that ends its process in a session has raised: X, and the worker lives."""
    worker = stage.worker()
    response = worker.request("GET", "/exit")
    expect(response.error is not None and response.complete, f"{response}")
    expect(worker.request().body == b"hello", "the worker does not live on")


@check(protocol="session", shares=True)
def reports_a_nul(stage: Stage) -> None:
    """A NUL in a value, which the framing cannot carry, is reported with X."""
    worker = stage.worker()
    with worker.open() as stream:
        response = stream.request("GET", "/nul")
        expect(response.error is not None and response.complete, f"{response}")
        expect(stream.request().body == b"hello", "the stream does not go on")


@check(protocol="session", shares=True)
def refuses_garbage(stage: Stage) -> None:
    """A worker refuses a head, a frame type or a length that is not in the contract by closing the stream, and lives."""
    worker = stage.worker()
    good = request_head()
    garbage = {
        "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "zeros": b"\0" * 64,
        "an unknown type": frame("Z", b"x"),
        "a response frame": frame("R", good),
        "a body without a head": frame("D", b"x"),
        "an end without a head": frame("E"),
        "an empty head": frame("H") + frame("E"),
        "a head that is too long": struct.pack(">cI", b"H", MAX_HEAD + 1),
        "a head that is far too long": struct.pack(">cI", b"H", 0xFFFFFFFF),
        "a head without its last NUL": frame("H", good[:-1]) + frame("E"),
        "a name without a value": frame("H", good + b"HTTP_X\0") + frame("E"),
        "an empty name": frame("H", good + b"\0x\0") + frame("E"),
        "a name that comes twice": frame("H", good + b"HTTP_HOST\0other\0") + frame("E"),
        "no method": frame("H", good.replace(b"REQUEST_METHOD\0GET\0", b"")) + frame("E"),
        "no path": frame("H", good.replace(b"PATH_INFO\0/hello\0", b"")) + frame("E"),
        "no remote address": frame("H", good.replace(b"REMOTE_ADDR\x00192.0.2.1\x00", b"")) + frame("E"),
        "an empty body frame": frame("H", good) + frame("D") + frame("E"),
        "a body frame that is too long": frame("H", good) + struct.pack(">cI", b"D", MAX_FRAME + 1),
        "an end with a payload": frame("H", good) + frame("E", b"x"),
        "an unknown type in a session": frame("H", good) + frame("Q"),
        "a head in a session": frame("H", good) + frame("H", good),
        "a request behind a request": frame("H", good) + frame("E") + frame("H", good) + frame("E"),
    }
    for name, data in garbage.items():
        with worker.open() as stream:
            stream.send(data)
            expect(stream.ended(), f"{name}: it was answered with {stream._buffer[:200]!r}")
    expect(worker.request().body == b"hello", "the worker does not live on")


@check(protocol="session")
def refuses_garbage_in_a_response(stage: Stage) -> None:
    """Behind a whole request only A may come. Garbage ends the response without an E; the worker lives, and so do its streams."""
    worker = stage.worker(threads=2)
    with worker.open() as other:
        expect(other.request().body == b"hello", "no answer")
        for garbage in (frame("Q"), frame("H", request_head()) + frame("E")):
            with worker.open() as stream:
                stream.begin("GET", "/endless?/dev/null")
                expect(stream.next_frame() is not None and stream.next_frame() is not None, "no chunks")
                stream.send(garbage)
                while (found := stream.next_frame()) is not None:
                    expect(found[0] == "D", f"it was answered with {found}")
            expect(
                other.request().body == b"hello" and worker.request().body == b"hello", "the worker does not live on"
            )


@check(protocol="session", shares=True)
def survives_incomplete_heads(stage: Stage) -> None:
    """Between sessions and within a head, an end of file ends the stream, and the worker accepts the next one."""
    worker = stage.worker()
    whole = frame("H", request_head()) + frame("E")
    for at in range(0, len(whole) - 1, 23):
        with worker.open() as stream:
            stream.send(whole[:at])
    with worker.open() as stream:
        expect(stream.request().body == b"hello", "no answer after broken heads")
        stream.socket.shutdown(socket.SHUT_WR)
        expect(stream.ended(), "bytes after the end")
    expect(worker.request().body == b"hello", "the worker does not live on")


@check(protocol="session", shares=True)
def ends_an_aborted_response(stage: Stage) -> None:
    """A: the worker ends the response as soon as it can (the iterable is closed) and sends E with the close flag."""
    worker = stage.worker()
    note = stage.supervisor.directory / "closed"
    with worker.open() as stream:
        stream.begin("GET", f"/endless?{note}")
        expect(stream.next_frame() is not None and stream.next_frame() is not None, "no chunks")
        stream.send(frame("A"))
        last: tuple[str, bytes] | None = ("", b"")
        while (found := stream.next_frame()) is not None:
            last = found
        expect(last == ("E", b"\1"), f"the last frame is {last}")
    expect(eventually(partial(lines_of, note)), "the response was not closed")
    expect(lines_of(note) == 1, "the response was closed more than once")
    expect(worker.request().body == b"hello", "the worker does not live on")


@check()
def ends_the_response_of_a_broken_stream(stage: Stage) -> None:
    """End of file from the supervisor in the middle of a session means the same as A; so does a stream that is closed."""
    worker = stage.worker()
    for number, how in enumerate((socket.SHUT_WR, socket.SHUT_RDWR)):
        note = stage.supervisor.directory / f"closed-{number}"
        with worker.open() as stream:
            stream.begin("GET", f"/endless?{note}")
            expect(stream.next_frame() is not None and stream.next_frame() is not None, "no chunks")
            stream.socket.shutdown(how)
            while how == socket.SHUT_WR and stream.next_frame() is not None:
                pass
        expect(eventually(partial(lines_of, note)), "the response was not closed")
        expect(lines_of(note) == 1, "the response was closed more than once")
        expect(worker.request().body == b"hello", "the worker does not live on")
    expect("raceback" not in worker.output.text(), f"an abort is not an error: {worker.output.text()}")


@check(protocol="session", shares=True)
def tells_a_reader_that_the_client_is_gone(stage: Stage) -> None:
    """A, or an end of file, in the middle of the request body: the session ends, with the close flag if at all."""
    worker = stage.worker()
    for ending in (frame("A"), b""):
        with worker.open() as stream:
            stream.send(frame("H", request_head("POST", "/echo", {"CONTENT_LENGTH": "100"})), frame("D", b"some"))
            stream.send(ending)
            stream.socket.shutdown(socket.SHUT_WR)
            response = stream.response()
            expect(not response.complete or response.flags & 1 == 1, f"{response}")
    expect(worker.request().body == b"hello", "the worker does not live on")


@check(protocol="session", shares=True)
def drops_an_unread_body(stage: Stage) -> None:
    """It reads and drops what is left of the request body before it takes the next head, or closes the stream."""
    worker = stage.worker()
    with worker.open() as stream:
        for size in (1, 1000, 60_000):
            response = stream.request("POST", "/deaf", b"x" * size)
            expect(response.complete and response.body == b"deaf", f"{response}")
        expect(stream.request().body == b"hello", "the stream does not go on after small bodies")
    for size in (500_000, 30_000_000):
        with worker.open() as stream:
            response = stream.request("POST", "/deaf", b"x" * size)
            expect(response.complete and response.body == b"deaf", f"{response}")
            try:
                after: Response | None = stream.request()
            except (BrokenPipeError, ConnectionResetError):
                after = None
            expect(after is None or not after.frames or after.body == b"hello", f"{after}")
    expect(worker.request().body == b"hello", "the worker does not live on")


@check(protocol="session", shares=True)
def takes_the_next_head_behind_an_unread_body(stage: Stage) -> None:
    """The next head may follow as soon as the response has ended, also behind a request body that was not read yet; neither is lost."""
    worker = stage.worker()
    for turn, size in enumerate((1000, 66_000, 80_000)):
        gate = stage.supervisor.directory / f"gate-{turn}"
        with worker.open() as stream:
            response = stream.request("POST", f"/deaf-gate?{gate}", b"x" * size)
            expect(response.complete and response.body == b"deaf" and not response.flags, f"{response}")
            # The application is still at work, so what is left of the body and the next request are read together.
            stream.send(*stream.encode("POST", "/echo", b"next"))
            gate.touch()
            after = stream.response()
            expect(after.body == b"next", f"behind {size} bytes: {after}")
            expect(stream.request().body == b"hello", "the stream does not go on")
