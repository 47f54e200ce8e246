"""The session protocol as the supervisor speaks it: frames, responses, and streams to a worker; one that speaks HTTP is read as if it sent frames."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from passenger_trio.testing.conformance.basis import MAX_FRAME, MAX_HEAD, MAX_LINE, TIMEOUT, ConformanceFailure, expect


def frame(kind: str, payload: bytes = b"") -> bytes:
    """A frame of the session protocol."""
    return struct.pack(">cI", kind.encode("ascii"), len(payload)) + payload


def pairs(fields: Iterable[tuple[str, str]]) -> bytes:
    """Names and values, NUL-terminated."""
    return b"".join(name.encode("latin-1") + b"\0" + value.encode("latin-1") + b"\0" for name, value in fields)


def request_head(method: str = "GET", target: str = "/hello", fields: Mapping[str, str] | None = None) -> bytes:
    """The payload of ``H`` as the supervisor makes it; ``fields`` are added, or take the place of names that are there."""
    path, _, query = target.partition("?")
    head = {
        "REQUEST_METHOD": method,
        "REQUEST_URI": target,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "example.test",
        "SERVER_PORT": "80",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "40000",
        "REQUEST_SCHEME": "http",
        "HTTP_HOST": "example.test",
        "HTTP_X_REQUEST_ID": "0123456789abcdef",
        **(fields or {}),
    }
    return pairs(head.items())


@dataclass
class Response:
    """What came back on a stream, up to its end or the end of the stream."""

    frames: list[tuple[str, bytes]] = field(default_factory=list)
    status: int = 0
    reason: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    """The payloads of ``D``."""
    error: tuple[str, str, str] | None = None
    """``X``: class, message, traceback."""
    flags: int = 0
    complete: bool = False
    """``E`` came."""

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def header(self, name: str) -> str | None:
        """The value of the first header field of that name, whatever its case."""
        return next((value for found, value in self.headers if found.lower() == name.lower()), None)

    def take(self, kind: str, payload: bytes) -> None:
        """:raises ConformanceFailure: such a frame may not come here."""
        expect(not self.complete, f"frame {kind!r} after the end of the response")
        begun = any(found in "RX" for found, _ in self.frames)
        self.frames.append((kind, payload))
        if kind in "RI":
            expect(not begun, f"a second head: frame {kind!r}")
            expect(len(payload) <= MAX_HEAD, f"a head of {len(payload)} bytes")
            texts = payload.decode("latin-1").split("\0")
            expect(texts[-1] == "" and len(texts) % 2 == 1 and len(texts) >= 3, f"not pairs: {payload!r}")
            expect(all(texts[2:-1:2]), f"an empty header name: {payload!r}")
            expect(len(texts[0]) == 3 and texts[0].isdecimal(), f"not a status: {texts[0]!r}")
            if kind == "R":
                self.status, self.reason = int(texts[0]), texts[1]
                self.headers = list(zip(texts[2:-1:2], texts[3:-1:2], strict=True))
        elif kind == "D":
            expect(begun and self.error is None, "body before a head, or behind an error")
            expect(0 < len(payload) <= MAX_FRAME, f"a body frame of {len(payload)} bytes")
            self.chunks.append(payload)
        elif kind == "X":
            expect(not begun, "an error after a head")
            parts = payload.split(b"\0")
            expect(len(parts) == 4 and parts[3] == b"", f"not an error: {payload!r}")
            expect(len(payload) <= MAX_HEAD, f"an error of {len(payload)} bytes")
            self.error = (parts[0].decode(), parts[1].decode(), parts[2].decode())
        elif kind == "E":
            expect(len(payload) <= 1, f"flags of {len(payload)} bytes")
            self.flags = payload[0] if payload else 0
            self.complete = True
        else:
            raise ConformanceFailure(f"a frame of type {kind!r}")


class Stream:
    """A connection to a worker: one session after another."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self._buffer = b""
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        """One write."""
        self.socket.sendall(b"".join(parts))

    def encode(
        self, method: str = "GET", target: str = "/hello", body: bytes = b"", fields: Mapping[str, str] | None = None
    ) -> tuple[bytes, bytes]:
        """The head of a request, and the rest of it."""
        fields = dict(fields or {})
        if body:
            fields.setdefault("CONTENT_LENGTH", str(len(body)))
        data = [frame("D", body[at : at + MAX_FRAME]) for at in range(0, len(body), MAX_FRAME)]
        return frame("H", request_head(method, target, fields)), b"".join([*data, frame("E")])

    def begin(
        self, method: str = "GET", target: str = "/hello", body: bytes = b"", fields: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole request: one write if it is small."""
        self.send(*self.encode(method, target, body, fields))

    def request(
        self, method: str = "GET", target: str = "/hello", body: bytes = b"", fields: Mapping[str, str] | None = None
    ) -> Response:
        """One session."""
        # The response may be longer than the kernel's buffers, and begin before the worker has read the whole body.
        sender = threading.Thread(target=self._begin, args=(method, target, body, fields), daemon=True)
        if len(body) > MAX_LINE:
            sender.start()
            response = self.response()
            sender.join(TIMEOUT)
            return response
        self.begin(method, target, body, fields)
        return self.response()

    def _begin(self, method: str, target: str, body: bytes, fields: Mapping[str, str] | None) -> None:
        with contextlib.suppress(OSError):  # the worker did not want the whole body
            self.begin(method, target, body, fields)

    def response(self) -> Response:
        """Read to the end of the response, or of the stream."""
        response = Response()
        while not response.complete and (found := self.next_frame()) is not None:
            response.take(*found)
        expect(not (response.complete and self._buffer), f"bytes behind the end of the response: {self._buffer!r}")
        return response

    def next_frame(self) -> tuple[str, bytes] | None:
        """None: the stream ended (in the middle of a frame, perhaps)."""
        if not self._fill(5):
            return None
        length = struct.unpack(">I", self._buffer[1:5])[0]
        expect(length <= MAX_FRAME, f"a frame of {length} bytes")
        if not self._fill(5 + length):
            return None
        kind, payload = self._buffer[:1].decode("latin-1"), self._buffer[5 : 5 + length]
        self._buffer = self._buffer[5 + length :]
        return kind, payload

    def _fill(self, size: int) -> bool:
        pieces = [self._buffer]
        have = len(self._buffer)
        while have < size:
            try:
                data = self.socket.recv(max(65536, min(size - have, 1 << 20)))
            except ConnectionResetError:
                data = b""  # it closed with bytes of ours unread
            if not data:
                break
            pieces.append(data)
            have += len(data)
        self._buffer = b"".join(pieces)
        return have >= size

    def take(self, size: int) -> bytes:
        """So many raw bytes; fewer at the end of the stream."""
        self._fill(size)
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    @property
    def is_taken(self) -> bool:
        """Whether the worker has taken everything that was sent."""
        unread = fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0\0\0\0")
        return bool(struct.unpack("i", unread)[0] == 0)

    def ended(self) -> bool:
        """Wait for the end of the stream; False if bytes come instead."""
        return not self._fill(1)


class HttpStream(Stream):
    """A connection to a worker that speaks HTTP/1.1, whose responses are given as the frames that they would be."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._method = ""
        self._body: Iterator[tuple[str, bytes]] | None = None

    def encode(
        self, method: str = "GET", target: str = "/hello", body: bytes = b"", fields: Mapping[str, str] | None = None
    ) -> tuple[bytes, bytes]:
        self._method = method
        lines = [f"{method} {target} HTTP/1.1", "Host: example.test", "X-Request-Id: 0123456789abcdef"]
        lines += [f"{name}: {value}" for name, value in (fields or {}).items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1"), body

    def next_frame(self) -> tuple[str, bytes] | None:
        if self._body is None:
            head = self._line(b"\r\n\r\n")
            if head is None:
                return None
            status_line, *lines = head.decode("latin-1").split("\r\n")
            version, status, reason = (*status_line.split(" ", 2), "")[:3]
            expect(version == "HTTP/1.1" and len(status) == 3, f"not a status line: {status_line!r}")
            headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            self._body = self._frames(int(status), {name.lower(): value for name, value in headers})
            return "R", b"%b\0%b\0" % (status.encode(), reason.encode("latin-1")) + pairs(headers)
        found = next(self._body, None)
        if found is not None and found[0] == "E":
            self._body = None
        return found

    def _frames(self, status: int, headers: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
        """The body, and the end, if it comes."""
        end = "E", b"\1" if headers.get("connection", "").lower() == "close" else b""
        if self._method == "HEAD" or status in (204, 304):
            yield end
        elif headers.get("transfer-encoding") == "chunked":
            while (line := self._line(b"\r\n")) is not None:
                size = int(line, 16)
                if not self._fill(size + 2):
                    return
                data, self._buffer = self._buffer[:size], self._buffer[size + 2 :]
                if not size:
                    yield end
                    return
                for at in range(0, size, MAX_FRAME):
                    yield "D", data[at : at + MAX_FRAME]
        else:
            left = int(headers.get("content-length", 1 << 60))
            while left and self._fill(1):
                data, self._buffer = self._buffer[:left], self._buffer[left:]
                left -= len(data)
                yield "D", data
            if not left or "content-length" not in headers:
                yield end

    def _line(self, ending: bytes) -> bytes | None:
        while ending not in self._buffer:
            expect(len(self._buffer) <= MAX_HEAD, "a head of more than 131072 bytes")
            if not self._fill(len(self._buffer) + 1):
                return None
        line, _, self._buffer = self._buffer.partition(ending)
        return line
