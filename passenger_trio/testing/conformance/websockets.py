"""Section 3 of the contract: WebSocket sessions."""

from __future__ import annotations

import random
import select
import socket
import struct
import time

from passenger_trio.testing.conformance.basis import MAX_FRAME, eventually, expect
from passenger_trio.testing.conformance.observations import accepts, expect_clean_exit
from passenger_trio.testing.conformance.streams import Stream, frame, request_head
from passenger_trio.testing.conformance.subject import Stage, check

_FIELDS = {"REQUEST_SCHEME": "ws", "HTTP_UPGRADE": "websocket"}


def _handshake(stream: Stream, target: str, offered: str = "") -> None:
    fields = dict(_FIELDS)
    if offered:
        fields["HTTP_SEC_WEBSOCKET_PROTOCOL"] = offered
    stream.begin("GET", target, fields=fields)


def _open_websocket(stream: Stream, target: str = "/ws-echo", offered: str = "") -> dict[str, str]:
    """The pairs of the acceptance."""
    _handshake(stream, target, offered)
    found = stream.next_frame()
    expect(found is not None and found[0] == "W", f"not accepted: {found}")
    assert found is not None
    texts = found[1].decode("latin-1").split("\0")
    expect(texts.pop() == "" and len(texts) % 2 == 0, f"not pairs: {found[1]!r}")
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _close(code: int, reason: str = "") -> bytes:
    return frame("C", struct.pack(">H", code) + reason.encode())


@check(websocket=True)
def carries_messages(stage: Stage) -> None:
    """After W, both ways: T (valid UTF-8, may be empty), B (may be empty). After a C to the worker it sends E, and the stream goes on."""
    source = random.Random(3)
    with stage.worker().open() as stream:
        for _ in range(3):
            _open_websocket(stream)
            for size in (0, 1, 125, 65531, 65536, 3_000_000):
                data = source.randbytes(size)
                stream.send(frame("B", data))
                expect(stream.next_frame() == ("B", data), f"a message of {size} bytes")
            for text in ("", "a", "Größe \u20ac \U0001f600" * 1000):
                stream.send(frame("T", text.encode()))
                expect(stream.next_frame() == ("T", text.encode()), f"a text of {len(text)} characters")
            stream.send(*[frame("T", b"%d" % number) for number in range(300)])
            for number in range(300):
                expect(stream.next_frame() == ("T", b"%d" % number), f"message {number} of many")
            stream.send(_close(1000, "done"))
            expect(stream.next_frame() == ("E", b""), "no end behind the close")
        expect(stream.request().body == b"hello", "the stream does not go on")


@check(websocket=True)
def reads_messages_byte_by_byte(stage: Stage) -> None:
    """A WebSocket session is the same however its bytes are cut."""
    head = request_head("GET", "/ws-echo", {"REQUEST_SCHEME": "wss"})
    data = [frame("H", head), frame("E"), frame("T", b"some"), frame("B", b""), frame("T", b""), _close(3000, "x")]
    with stage.worker().open() as stream:
        for byte in data[0]:
            stream.send(bytes((byte,)))
        # The application may have accepted before its request has ended, or only then.
        for byte in data[1]:
            stream.send(bytes((byte,)))
        found = stream.next_frame()
        expect(found is not None and found[0] == "W", f"{found}")
        for byte in b"".join(data[2:5]):
            stream.send(bytes((byte,)))
        rest = [stream.next_frame() for _ in range(3)]
        expect(rest == [("T", b"some"), ("B", b""), ("T", b"")], f"{rest}")
        for byte in data[5]:
            stream.send(bytes((byte,)))
        expect(stream.next_frame() == ("E", b""), "no end behind the close")


@check(websocket=True)
def refuses_before_the_end_of_the_request(stage: Stage) -> None:
    """A handshake may be refused before the E of its request was read; then the stream is at a boundary behind that E."""
    worker = stage.worker()
    for target, status in (("/ws-refuse", 403), ("/ws-deny", 401)):
        with worker.open() as stream:
            stream.send(frame("H", request_head("GET", target, _FIELDS)))
            response = stream.response()
            expect(response.complete and response.status == status and not response.flags, f"{response}")
            stream.send(frame("E"))
            expect(stream.request().body == b"hello", "the stream does not go on")
    with worker.open() as stream:
        stream.send(frame("H", request_head("GET", "/ws-refuse", _FIELDS)))
        expect(stream.response().complete, "no refusal")
        stream.send(frame("E"))
        time.sleep(0.05)  # it need not wait for ever for what has not come; but this has
        worker.shut_down()
        expect_clean_exit(stage, worker)


@check(websocket=True)
def chooses_a_subprotocol(stage: Stage) -> None:
    """W: sec-websocket-protocol is the chosen subprotocol, if any; the others are extra header fields of the 101."""
    worker = stage.worker()
    for target, chosen in (("/ws-echo?two", {"sec-websocket-protocol": "two"}), ("/ws-echo", {})):
        with worker.open() as stream:
            told = _open_websocket(stream, target, "one, two")
            expect(told == {"x-offered": "one,two", **chosen}, f"{told}")


@check(websocket=True)
def closes_from_its_side(stage: Stage) -> None:
    """A worker that sent C drops what still comes until it gets the supervisor's C, and sends E only after both."""
    with stage.worker().open() as stream:
        for text, wanted in ((b"close 3001 so long", _close(3001, "so long")), (b"return", _close(1000))):
            _open_websocket(stream)
            stream.send(frame("T", text), *[frame("T", b"too late")] * 3, frame("B", b"x" * 300_000))
            found = stream.next_frame()
            expect(found is not None and frame(*found) == wanted, f"{found}")
            ready, _, _ = select.select([stream.socket], [], [], 0.05)
            expect(not ready, "something behind C, and before the supervisor's C")
            stream.send(frame("T", b"much too late"), frame("C"))
            expect(stream.next_frame() == ("E", b""), "no end behind both closes")
        expect(stream.request().body == b"hello", "the stream does not go on")


@check(websocket=True)
def closes_that_cross(stage: Stage) -> None:
    """The supervisor's C may have been sent before the worker's came: both know where the session's bytes end."""
    with stage.worker().open() as stream:
        for _ in range(20):
            _open_websocket(stream)
            stream.send(frame("T", b"close 1000 bye"), _close(1001, "going"))
            found = stream.next_frame()
            if found == ("C", struct.pack(">H", 1000) + b"bye"):
                found = stream.next_frame()
            expect(found == ("E", b""), f"{found}")
        expect(stream.request().body == b"hello", "the stream does not go on")


@check(websocket=True)
def closes_when_the_application_raises(stage: Stage) -> None:
    """When the application raises after W: the worker sends C 1011."""
    worker = stage.worker()
    with worker.open() as stream:
        _open_websocket(stream)
        stream.send(frame("T", b"raise"))
        found = stream.next_frame()
        expect(found is not None and found[0] == "C" and found[1][:2] == struct.pack(">H", 1011), f"{found}")
        expect(worker.output.wait_for("conformance: raised on an open"), f"the output: {worker.output.text()!r}")
        stream.send(_close(1011))
        expect(stream.next_frame() == ("E", b""), "no end")
        expect(stream.request().body == b"hello", "the stream does not go on")


@check(websocket=True)
def refuses_a_handshake(stage: Stage) -> None:
    """The worker answers with an ordinary response (a rejection; X E as for any request): the stream is at a boundary as usual."""
    with stage.worker().open() as stream:
        _handshake(stream, "/ws-refuse")
        response = stream.response()
        expect((response.status, response.body, response.complete) == (403, b"", True), f"{response}")
        _handshake(stream, "/ws-deny")
        response = stream.response()
        told = (response.status, response.header("x-test"), response.chunks, response.complete)
        expect(told == (401, "1", [b"who ", b"are you"], True), f"{response}")
        _handshake(stream, "/ws-raise")
        response = stream.response()
        expect(response.error is not None and response.complete, f"{response}")
        expect(stream.request().body == b"hello", "the stream does not go on")


@check(websocket=True)
def reports_how_a_websocket_ended(stage: Stage) -> None:
    """C to the worker: the code and the reason reach the application; empty is 1005; an end of file is 1006. It may still send, which is dropped."""
    worker = stage.worker()
    for number, (sent, wanted) in enumerate(
        ((_close(4000, "Größe"), "4000 Größe\n"), (frame("C"), "1005 \n"), (_close(1006), "1006 \n"))
    ):
        note = stage.supervisor.directory / f"note-{number}"
        with worker.open() as stream:
            _open_websocket(stream, f"/ws-note?{note}")
            stream.send(sent)
            expect(stream.next_frame() == ("E", b""), "no end")
            expect(note.read_text() == wanted, f"{note.read_text()!r}, not {wanted!r}")


@check(websocket=True)
def notices_the_end_of_a_websocket_stream(stage: Stage) -> None:
    """End of file from the supervisor means as always: client gone, abort; also when more has come than the application takes."""
    worker = stage.worker(threads=2)
    for ending in (frame("A"), b""):
        with worker.open() as stream:
            _open_websocket(stream)
            stream.send(ending)
            stream.socket.shutdown(socket.SHUT_WR)
            found = stream.next_frame()
            expect(found in (("E", b"\1"), None), f"{found}")
            expect(found is None or stream.ended(), "the stream goes on")
    expect(worker.request().body == b"hello", "the worker does not live on")
    expect("raceback" not in worker.output.text(), f"an abort is not an error: {worker.output.text()}")


@check(websocket=True)
def refuses_garbage_in_a_websocket(stage: Stage) -> None:
    """What is not in the contract closes the stream, and the worker lives."""
    worker = stage.worker()
    head = frame("H", request_head("GET", "/ws-echo", {"REQUEST_SCHEME": "ws"}))
    garbage = {
        "a text that is no UTF-8": frame("T", b"\xff\xfe"),
        "half a code": frame("C", b"\x03"),
        "a reason that is no UTF-8": frame("C", b"\x03\xe8\xff"),
        "a reason that is too long": frame("C", b"\x03\xe8" + b"x" * 124),
        "a message that is too long": struct.pack(">cI", b"B", MAX_FRAME + 1),
        "a request body": frame("D", b"x"),
        "an end": frame("E"),
        "a head": head,
        "a message behind the close": _close(1000) + frame("T", b"x"),
    }
    for name, data in garbage.items():
        with worker.open() as stream:
            _open_websocket(stream)
            stream.send(data)
            expect(stream.next_frame() is None, f"{name}: it was answered")
    with worker.open() as stream:
        stream.send(head, frame("T", b"x"), frame("E"))
        expect(stream.ended(), "a message before the end of the request was answered")
    expect(worker.request().body == b"hello", "the worker does not live on")


@check(websocket=True)
def refuses_to_send_too_long_a_message(stage: Stage) -> None:
    """A message longer than a frame (16 MiB) cannot be sent; a worker refuses its application such a send."""
    with stage.worker().open() as stream:
        _open_websocket(stream)
        stream.send(frame("T", b"too long"))
        expect(stream.next_frame() == ("T", b"refused"), "not refused")


@check(websocket=True)
def an_open_websocket_is_in_hand(stage: Stage) -> None:
    """shutdown: a WebSocket is a session in hand, which the supervisor closes."""
    worker = stage.worker()
    with worker.open() as stream:
        _open_websocket(stream)
        worker.shut_down()
        expect(eventually(lambda: not accepts(worker.socket_path)), "it still accepts streams")
        stream.send(frame("T", b"still here"))
        expect(stream.next_frame() == ("T", b"still here"), "it was cut off")
        stream.send(_close(1001))
        expect(stream.next_frame() == ("E", b""), "no end")
        expect_clean_exit(stage, worker)
