"""Section 3 of the contract: sessions in which all goes well."""

from __future__ import annotations

import contextlib
import random
import select

from passenger_trio.testing.conformance.basis import MAX_FRAME, MAX_HEAD, expect
from passenger_trio.testing.conformance.streams import frame, request_head
from passenger_trio.testing.conformance.subject import Stage, check


@check(protocol="session", shares=True)
def answers_in_one_write(stage: Stage) -> None:
    """A small response is one write: R D E."""
    with stage.worker().open() as stream:
        for _ in range(50):
            stream.begin()
            data = stream.socket.recv(65536)
            stream._buffer = data
            response = stream.response()
            expect("".join(kind for kind, _ in response.frames) == "RDE", f"{response.frames}")
            expect(data == b"".join(frame(*found) for found in response.frames), "it came in more than one write")
            expect((response.status, response.body) == (200, b"hello"), f"{response}")


@check(shares=True)
def carries_many_sessions(stage: Stage) -> None:
    """A stream carries one session after another."""
    with stage.worker().open() as stream:
        for number in range(300):
            body = b"x" * number
            response = stream.request("POST", "/echo", body)
            expect(response.complete and not response.flags and response.body == body, f"session {number}: {response}")


@check(protocol="session", shares=True)
def reads_bytes_one_by_one(stage: Stage) -> None:
    """A session is the same however its bytes are cut."""
    with stage.worker().open() as stream:
        for _ in range(2):
            data = frame("H", request_head("POST", "/echo")) + frame("D", b"some") + frame("D", b"thing") + frame("E")
            for byte in data:
                stream.send(bytes((byte,)))
            expect(stream.response().body == b"something", "not the same")


@check(protocol="session", shares=True)
def hands_over_the_request(stage: Stage) -> None:
    """The names of the request head reach the application; PATH_INFO is decoded as the interface wants."""
    fields = {
        "SCRIPT_NAME": "/base",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "2",
        "HTTP_X_CUSTOM": "a\xe9b",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_EMPTY": "",
    }
    response = stage.worker().request("POST", "/meta?x=%20y&z", b"hi", fields)
    meta = dict(line.split("=", 1) for line in response.body.decode("latin-1").splitlines())
    wanted = {
        "REQUEST_METHOD": "POST",
        "QUERY_STRING": "x=%20y&z",
        "PATH_INFO": "/meta",
        "SERVER_NAME": "example.test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "HTTP_X_REQUEST_ID": "0123456789abcdef",
        **fields,
    }
    wrong = {name: (value, meta.get(name)) for name, value in wanted.items() if meta.get(name) != value}
    expect(not wrong, f"wanted and found: {wrong}")


@check(protocol="session", shares=True)
def takes_bodies_of_any_size(stage: Stage) -> None:
    """D: 1 to 16777216 bytes of request body; E ends it, whatever CONTENT_LENGTH says (a body of unknown length has none)."""
    with stage.worker().open() as stream:
        source = random.Random(2)
        for size in (0, 1, 65531, 65536, 65541, 1_000_003, MAX_FRAME + 7):
            body = source.randbytes(size)
            expect(stream.request("POST", "/echo", body).body == body, f"a body of {size} bytes")
        stream.send(frame("H", request_head("POST", "/echo")), *[frame("D", b"ab")] * 5000, frame("E"))
        expect(stream.response().body == b"ab" * 5000, "many small frames")


@check(shares=True)
def sends_bodies_of_any_size(stage: Stage) -> None:
    """No frame is longer than 16777216 bytes of payload."""
    response = stage.worker().request("GET", "/large")
    expect(response.complete and len(response.body) == 20_000_000, f"{len(response.body)} bytes")


@check(shares=True)
def sends_each_chunk_at_once(stage: Stage) -> None:
    """Each chunk that the application yields is written at once, before the next is asked for."""
    gate = stage.supervisor.directory / "gate"
    with stage.worker().open() as stream:
        stream.begin("GET", f"/gate?{gate}")
        expect(stream.next_frame() is not None and stream.next_frame() == ("D", b"one"), "the first chunk is held back")
        gate.touch()
        expect(stream.next_frame() == ("D", b"two") and stream.next_frame() == ("E", b""), "not the rest")
        response = stream.request("GET", "/chunks")
        expect(response.chunks == [b"one", b"two", b"three"] and response.complete, f"{response}")


@check(shares=True)
def sends_no_body_when_none_is_allowed(stage: Stage) -> None:
    """For HEAD requests, and statuses 204 and 304, a worker sends no D."""
    with stage.worker().open() as stream:
        for method, target in (
            ("HEAD", "/hello"),
            ("HEAD", "/chunks"),
            ("HEAD", "/large"),
            ("GET", "/status?204"),
            ("GET", "/status?304"),
        ):
            response = stream.request(method, target)
            kinds = [kind for kind, _ in response.frames]
            expect(kinds == ["R", "E"], f"{method} {target}: {kinds}")
        expect(stream.request("GET", "/status?203").body == b"body", "203 has a body")


@check(protocol="session", shares=True)
def takes_a_large_head(stage: Stage) -> None:
    """A head is at most 131072 bytes."""
    size = MAX_HEAD - len(request_head()) - len(b"HTTP_X\0\0")
    with stage.worker().open() as stream:
        expect(stream.request(fields={"HTTP_X": "x" * size}).body == b"hello", "no answer to the largest head")
        expect(stream.request().body == b"hello", "the stream does not go on")


@check(protocol="session")
def serves_its_concurrency(stage: Stage) -> None:
    """A worker of concurrency N serves N streams at the same time. Further connections wait in the listen queue."""
    worker = stage.worker(threads=3)
    gate = stage.supervisor.directory / "gate"
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(worker.open()) for _ in range(3)]
        for stream in streams:
            stream.begin("GET", f"/gate?{gate}")
        for stream in streams:
            expect(stream.next_frame() is not None and stream.next_frame() == ("D", b"one"), "no first chunk")
        waiting = stack.enter_context(worker.open())
        waiting.begin()
        ready, _, _ = select.select([waiting.socket], [], [], 0.05)
        expect(not ready, "a fourth session was served")
        gate.touch()
        for stream in streams:
            expect(stream.next_frame() == ("D", b"two"), "no second chunk")
            stream.close()
        expect(waiting.response().body == b"hello", "the one that waited was not served")


@check(shares=True)
def writes_output_at_once(stage: Stage) -> None:
    """Descriptors 1 and 2 are one pipe. What the application prints appears when it is printed."""
    worker = stage.worker()
    with worker.open() as stream:
        expect(stream.request("GET", "/print?a-line").body == b"printed", "no answer")
        expect(worker.output.wait_for("a-line\n"), f"the output: {worker.output.text()!r}")
