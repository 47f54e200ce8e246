"""The checks of ``spawn_servers/CONTRACT.md``: a program that passes them can be a loader.

``check_spawn_server(subject)`` runs them all; ``CHECKS`` has them one by one, each with the clause that it checks, for a test
that wants to name what broke::

    @pytest.mark.parametrize("check", CHECKS, ids=str)
    def test_contract(check, subject):
        check(subject)

``FakeSupervisor`` plays the supervisor's side, synchronously, on the standard library alone (``spawning`` is what this must not
depend on). It starts loaders, shakes hands, forks from preloaders, opens session streams, and ends all that it started.

The checks drive an application that every language has to provide (``tests/apps/python/conformance`` is the first): it
answers at these paths, and obeys these environment variables.

=====================================  ==========================================================================
``/hello``                             200, one chunk ``hello``
``/meta``                              the lines ``NAME=VALUE`` of what the interface calls the request, as far as there (over HTTP: by the CGI names)
``/echo``                              the request body, read whole, then sent whole
``/deaf``                              ``deaf``; the request body is not read
``/chunks``                            three chunks ``one``, ``two``, ``three``, with no declared length
``/gate?PATH``                         a chunk ``one``; when the file PATH exists, a chunk ``two``
``/endless?PATH``                      chunks of 1 000 bytes for ever; when it is closed, a line goes to the file PATH
``/large``                             one chunk of 20 000 000 bytes
``/raise``, ``/raise-late``            raises before the head; raises after a head and a chunk ``begun``
``/exit``                              calls the language's way to end a process in good order
``/nul``                               a header value with a NUL byte
``/short``, ``/long``                  declares a length of 10 and sends 5 bytes; of 5 and sends ``0123456789``
``/status?CODE``                       answers with CODE and a body ``body``
``/print?TEXT``                        prints TEXT as a line on standard output; ``printed``
``/sleep?SECONDS``, ``/spin?SECONDS``  sleeps, or computes, and answers ``done``
``/process``                           the lines ``pid``, ``loaded_by`` (pid when loaded), ``random`` (a number from the language's
                                       general generator), ``signals`` (those ignored), ``variables`` (names of the environment)
``CONFORMANCE_HOOK_FILE``              an exit hook appends the pid as a line to this file
``CONFORMANCE_START=raise``            raises while it is loaded; ``raise-long``: with a text of 200 000 characters;
                                       ``exit``: ends the process; ``sleep``: sleeps for a minute; ``thread``: starts a thread
``/ws-echo?PROTOCOL``                  accepts a WebSocket with that subprotocol (or none) and a field ``x-offered``: those that the client
                                       offers, joined with ``,``; sends back what it gets, but for the texts ``close CODE REASON``,
                                       ``raise``, ``return``, and ``too long`` (tries to send 16 MiB and a byte; ``refused``)
``/ws-note?PATH``                      accepts; at the end a line ``CODE REASON`` goes to the file PATH, and a message is sent
``/ws-refuse``, ``/ws-deny``           refuses the handshake; with 401, ``x-test: 1`` and a body ``who `` ``are you``
``/ws-raise``                          raises before it has answered the handshake
``/raw?PATH``, ``/full?PATH``          takes the connection over: behind a head of 101; without one, and then the response is ``HTTP/1.1 200 OK``
                                       and an empty line. Answers bytes in upper case till they end; then a line goes to the file PATH
=====================================  ==========================================================================
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final

__all__ = [
    "CHECKS",
    "Check",
    "ConformanceFailure",
    "FakeSupervisor",
    "Loader",
    "LoaderFailed",
    "Response",
    "Stage",
    "Stream",
    "Subject",
    "check_spawn_server",
    "eventually",
    "frame",
    "pairs",
    "request_head",
]

PATIENCE: Final = 10.0
"""Seconds that anything may take before it counts as not happening."""
START_PATIENCE: Final = 60.0
"""Seconds in which an interpreter must have started. A virtual machine on a busy computer takes its time."""
LAST_SECOND: Final = 1.0
"""Section 2: gone within this time of the supervisor's end."""
MAX_LINE: Final = 65536
MAX_HEAD: Final = 128 * 1024
MAX_FRAME: Final = 16 * 1024 * 1024
CONTRACT_VERSION: Final = 1

Message = dict[str, Any]


class ConformanceFailure(AssertionError):
    """A loader does not keep the contract. The text names every clause that is broken."""


class LoaderFailed(Exception):
    """A loader reported an ``error`` (``message``), or ended before it was ready (``message`` is empty)."""

    def __init__(self, text: str, message: Message) -> None:
        super().__init__(text)
        self.message = message


# Frames


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
        self.socket.settimeout(PATIENCE)
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
            sender.join(PATIENCE)
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


# Processes


class Loader:
    """One process that has connected back: a worker or a preloader."""

    def __init__(
        self, control: socket.socket, pid: int, pidfd: int, output: _Output, process: subprocess.Popen[bytes] | None
    ) -> None:
        self.control = control
        self.pid = pid
        self.messages: list[Message] = []
        """All that came over the control connection, ``hello`` first."""
        self.socket_path = ""
        self.output = output
        self._process = process
        self._pidfd = pidfd
        self._partial = b""
        self._unread: list[Message] = []

    @property
    def hello(self) -> Message:
        return self.messages[0]

    def receive(self, timeout: float = PATIENCE) -> Message | None:
        """The next message; None when the loader has hung up.

        :raises ConformanceFailure: nothing came in time, or it is no message.
        """
        deadline = time.monotonic() + timeout
        while not self._unread:
            self.control.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.control.recv(MAX_LINE)
            except TimeoutError:
                raise ConformanceFailure(f"no message of the loader in {timeout} s") from None
            except ConnectionResetError:
                data = b""
            if not data:
                expect(not self._partial, f"the control connection ended within a message: {self._partial!r}")
                return None
            *lines, self._partial = (self._partial + data).split(b"\n")
            for line in lines:
                expect(len(line) < MAX_LINE, f"a message of {len(line) + 1} bytes")
                message = json.loads(line.decode("utf-8"))
                expect(isinstance(message, dict) and isinstance(message.get("type"), str), f"no message: {line!r}")
                self._unread.append(message)
        self.messages.append(self._unread.pop(0))
        return self.messages[-1]

    def expect(self, kind: str, timeout: float = START_PATIENCE) -> Message:
        """The next message of a type; others, which came before it, are in ``messages``.

        :raises LoaderFailed: an ``error`` came instead, or nothing at all.
        """
        while True:
            message = self.receive(timeout)
            if message is None:
                raise LoaderFailed(f"the loader hung up without {kind!r}; its output: {self.output.text()!r}", {})
            if message["type"] == kind:
                return message
            if message["type"] == "error":
                raise LoaderFailed(str(message.get("summary")), message)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        line = json.dumps(message).encode() + b"\n"
        socket.send_fds(self.control, [line], list(descriptors))

    def shut_down(self) -> None:
        """Send ``shutdown``."""
        self.send({"type": "shutdown"})

    def hang_up(self) -> None:
        """What the loader sees of a supervisor that was killed."""
        self.control.close()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, unless it is gone."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    @property
    def is_gone(self) -> bool:
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def wait_gone(self, timeout: float = PATIENCE) -> float:
        """Seconds until the process was gone.

        :raises ConformanceFailure: it is not.
        """
        begun = time.monotonic()
        if not select.select([self._pidfd], [], [], timeout)[0]:
            raise ConformanceFailure(f"the process is still there after {timeout} s")
        return time.monotonic() - begun

    def exit_status(self, timeout: float = PATIENCE) -> int:
        """Wait for the end of a process that was started (not forked); its status as of ``Popen.returncode``."""
        assert self._process is not None, "the preloader knows the exit status of a forked process"
        self.wait_gone(timeout)
        return self._process.wait(PATIENCE)

    def open(self) -> Stream:
        """A new stream to a worker, in the protocol that it has named."""
        ready = next((message for message in self.messages if message["type"] == "ready"), {})
        speaks_http = any(found.get("protocol") == "http" for found in ready.get("sockets", ()))
        return HttpStream(self.socket_path) if speaks_http else Stream(self.socket_path)

    def request(
        self, method: str = "GET", target: str = "/hello", body: bytes = b"", fields: Mapping[str, str] | None = None
    ) -> Response:
        """One session on a stream of its own."""
        with self.open() as stream:
            return stream.request(method, target, body, fields)

    def close(self) -> None:
        self.kill()
        if self._process is not None:
            self._process.wait(PATIENCE)
        else:
            self.wait_gone()
        self.control.close()
        self.output.close()
        os.close(self._pidfd)


class _Output:
    """The pipe on a process's descriptors 1 and 2, read by a thread."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        self._data = bytearray()
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self._reading, self._stop], [], [])
            if self._reading not in ready:
                return
            data = os.read(self._reading, 65536)
            if not data:
                return
            self._data += data

    def text(self) -> str:
        """All that has come so far."""
        return bytes(self._data).decode("utf-8", "replace")

    def wait_for(self, text: str) -> bool:
        return eventually(lambda: text in self.text())

    def stop_reading(self) -> None:
        """Let the pipe fill up."""
        os.write(self._stopped, b"x")
        self._thread.join()

    def close_writing_end(self) -> None:
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def close(self) -> None:
        self.close_writing_end()
        os.close(self._stopped)
        self._thread.join()
        os.close(self._reading)
        os.close(self._stop)


class FakeSupervisor:
    """Plays the supervisor: a context manager that ends everything that was started in it.

    ::

        with FakeSupervisor() as supervisor:
            worker = supervisor.start([sys.executable, "wsgi_loader.py"], app_root, startup_file)
            assert worker.request("GET", "/").status == 200

            preloader = supervisor.start([sys.executable, "wsgi_loader.py", "--preload"], app_root, startup_file)
            worker = supervisor.fork(preloader)
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="pt-")
        self.directory = Path(self._directory.name)
        """A private directory. Control and worker sockets are in it."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.directory / "spawn.sock"))
        self._listener.listen(16)
        self._listener.settimeout(PATIENCE)
        self._loaders: list[Loader] = []
        self._options: Message = {}
        self._spawns = 0

    def __enter__(self) -> FakeSupervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, remove all files."""
        while self._loaders:
            self._loaders.pop().close()
        self._listener.close()
        self._directory.cleanup()

    def start(
        self,
        command: Sequence[str],
        app_root: str | os.PathLike[str],
        startup_file: str | os.PathLike[str] = "",
        *,
        env: Mapping[str, str] | None = None,
        wait: bool = True,
        **options: Any,
    ) -> Loader:
        """Start a loader, and see it through until it is ready.

        :param startup_file: relative to ``app_root``, or absolute.
        :param env: variables that are added to the few that a program cannot do without.
        :param options: members of the ``options`` message that are not to be as usual.
        :param wait: False: only until it has its options.
        :raises LoaderFailed: it did not become ready.
        """
        loader = self.launch(command, app_root, env=env)
        self.send_options(loader, app_root, startup_file, **options)
        if wait:
            loader.expect("ready")
        return loader

    def launch(
        self, command: Sequence[str], app_root: str | os.PathLike[str], *, env: Mapping[str, str] | None = None
    ) -> Loader:
        """Start a loader and take its ``hello``; it has no options yet."""
        token = self._token()
        output = _Output()
        try:
            process = subprocess.Popen(
                command,
                cwd=app_root,
                stdin=subprocess.DEVNULL,
                stdout=output.writing,
                stderr=output.writing,
                process_group=0,
                env={
                    **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
                    "PYTHONDONTWRITEBYTECODE": "1",
                    **(env or {}),
                    "PASSENGER_TRIO_SPAWN_SOCKET": str(self.directory / "spawn.sock"),
                    "PASSENGER_TRIO_SPAWN_TOKEN": token,
                },
            )
        except OSError:
            output.close()
            raise
        output.close_writing_end()
        pidfd = os.pidfd_open(process.pid)
        try:
            control = self._accept(pidfd)
        except BaseException as error:
            process.kill()
            process.wait()
            os.close(pidfd)
            error.add_note(f"output of the loader: {output.text()!r}")
            output.close()
            raise
        return self._greeted(Loader(control, process.pid, pidfd, output, process), token)

    def send_options(
        self,
        loader: Loader,
        app_root: str | os.PathLike[str],
        startup_file: str | os.PathLike[str] = "",
        **options: Any,
    ) -> None:
        """Answer a ``hello``."""
        root = os.path.abspath(app_root)
        self._options = {
            "type": "options",
            "contract": CONTRACT_VERSION,
            "app_root": root,
            "app_type": "wsgi",
            "startup_file": os.path.join(root, startup_file) if startup_file else "",
            "entry_module": "",
            "entry_object": "",
            "entry_is_factory": False,
            "environment": "test",
            "threads": 1,
            "loop": "asyncio",
            "socket_dir": str(self.directory),
            "base_uri": "",
            "server_software": "passenger_trio/test",
            "name": "conformance",
            **options,
        }
        self._send_options(loader)

    def fork(self, preloader: Loader, *, wait: bool = True) -> Loader:
        """Ask a preloader for a worker, and see that through until it is ready."""
        token = self._token()
        output = _Output()
        preloader.send({"type": "fork", "token": token}, [output.writing])
        output.close_writing_end()
        try:
            control = self._accept()
        except BaseException:
            output.close()
            raise
        pid = struct.unpack("3i", control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        loader = self._greeted(Loader(control, pid, os.pidfd_open(pid), output, None), token)
        self._send_options(loader)
        if wait:
            loader.expect("ready")
        return loader

    def _token(self) -> str:
        self._spawns += 1
        return f"token-{self._spawns}-{os.urandom(8).hex()}"

    def _accept(self, pidfd: int | None = None) -> socket.socket:
        """:param pidfd: of the process that is waited for, so that nobody waits for the dead."""
        listener = self._listener.fileno()
        watched = [listener] if pidfd is None else [listener, pidfd]
        ready, _, _ = select.select(watched, [], [], PATIENCE if pidfd is None else START_PATIENCE)
        if listener not in ready:
            raise LoaderFailed("the loader ended, or waits, before it connected", {})
        control, _ = self._listener.accept()
        return control

    def _greeted(self, loader: Loader, token: str) -> Loader:
        self._loaders.append(loader)
        hello = loader.receive()
        expect(hello is not None and hello["type"] == "hello", f"the first message is no hello: {hello}")
        expect(loader.hello.get("token") == token, "the hello has another token than the spawn")
        return loader

    def _send_options(self, loader: Loader) -> None:
        name = f"w{self._spawns}"
        loader.socket_path = str(self.directory / name)
        loader.send({"socket_name": name, **self._options})


def expect(holds: bool, text: str) -> None:
    if not holds:
        raise ConformanceFailure(text)


def eventually(holds: Callable[[], object], timeout: float = PATIENCE) -> bool:
    """Whether it comes to hold in time."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


# Checks


@dataclass(frozen=True)
class Subject:
    """What is checked: a loader, with the application that the checks need.

    :ivar command: starts a worker.
    :ivar preload_command: starts a preloader; empty if the loader has none.
    :ivar app_root: directory of the conformance application.
    :ivar startup_file: its file.
    :ivar preloaded: check workers that were forked, instead of those that were started.
    :ivar env: variables that the interpreter needs.
    :ivar loop: member of the options: the event loop of an ASGI application.
    :ivar websocket: its workers take WebSocket sessions.
    :ivar hijack: its applications can take connections over.
    :ivar protocol: of its workers' sockets: ``session`` or ``http``. Some checks are about frames, and concern the first only.
    :ivar interrupts: whether an application that computes can be interrupted, to run its exit hooks.
    """

    command: tuple[str, ...]
    app_root: str
    startup_file: str
    preload_command: tuple[str, ...] = ()
    preloaded: bool = False
    app_type: str = "wsgi"
    env: Mapping[str, str] = field(default_factory=dict)
    loop: str = "asyncio"
    websocket: bool = False
    hijack: bool = False
    protocol: str = "session"
    interrupts: bool = True

    @contextlib.contextmanager
    def stage(self, *, share: bool = False) -> Iterator[Stage]:
        """:param share: see ``Stage``."""
        with FakeSupervisor() as supervisor:
            yield Stage(self, supervisor, share=share)


class Stage:
    """A subject and a supervisor.

    :ivar share: checks that may do so use one worker after the other, which is not started again for each (where a start takes seconds).
    """

    def __init__(self, subject: Subject, supervisor: FakeSupervisor, *, share: bool = False) -> None:
        self.subject = subject
        self.supervisor = supervisor
        self.share = share
        self.hook_file = supervisor.directory / "hooks"
        self._shared: Loader | None = None

    def start(
        self, *, preload: bool, env: Mapping[str, str] | None = None, wait: bool = True, **options: Any
    ) -> Loader:
        subject = self.subject
        return self.supervisor.start(
            subject.preload_command if preload else subject.command,
            subject.app_root,
            subject.startup_file,
            env=self._env(env),
            wait=wait,
            app_type=subject.app_type,
            loop=subject.loop,
            **options,
        )

    def launch(self) -> Loader:
        subject = self.subject
        command = subject.preload_command if subject.preloaded else subject.command
        return self.supervisor.launch(command, subject.app_root, env=self._env(None))

    def worker(self, env: Mapping[str, str] | None = None, **options: Any) -> Loader:
        """A worker, started or forked, as the subject says."""
        shares = self.share and not env and not options
        if shares and self._shared is not None and not self._shared.is_gone:
            return self._shared
        if self.subject.preloaded:
            worker = self.supervisor.fork(self.start(preload=True, env=env, **options))
        else:
            worker = self.start(preload=False, env=env, **options)
        if shares:
            self._shared = worker
        return worker

    def hooks(self) -> list[int]:
        """Pids of the processes whose exit hooks were run."""
        return [int(line) for line in self.hook_file.read_text().split()] if self.hook_file.exists() else []

    def _env(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return {"CONFORMANCE_HOOK_FILE": str(self.hook_file), **self.subject.env, **(env or {})}


@dataclass(frozen=True)
class Check:
    """One check. Call it with a subject; ``clause`` is what the contract says."""

    name: str
    clause: str
    run: Callable[[Stage], None]
    mode: str
    """``"both"``: of a worker that was started, and of one that was forked; ``"started"``; ``"forked"``."""
    shares: bool = False
    """Whether it is about sessions only, so that its worker may have served others before, and may afterwards."""
    websocket: bool = False
    hijack: bool = False
    protocol: str = ""
    """The only protocol that it is about, or ``""``."""

    def __str__(self) -> str:
        return self.name

    def concerns(self, subject: Subject) -> bool:
        if (subject.preloaded and not subject.preload_command) or self.protocol not in ("", subject.protocol):
            return False
        if (self.websocket and not subject.websocket) or (self.hijack and not subject.hijack):
            return False
        return self.mode == "both" or (self.mode == "forked") == subject.preloaded

    def __call__(self, subject: Subject, stage: Stage | None = None) -> None:
        """:param stage: one that shares its worker, of the same subject.
        :raises ConformanceFailure: the clause is broken.
        """
        try:
            with contextlib.nullcontext(stage) if stage and self.shares else subject.stage() as its_own:
                self.run(its_own)
        except (LoaderFailed, OSError, ValueError) as error:
            raise ConformanceFailure(f"{self.clause}\n{type(error).__name__}: {error}") from error
        except ConformanceFailure as failure:
            raise ConformanceFailure(f"{self.clause}\n{failure}") from failure


_checks: list[Check] = []


def _check(
    mode: str = "both", *, protocol: str = "", websocket: bool = False, hijack: bool = False, shares: bool = False
) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    def register(function: Callable[[Stage], None]) -> Callable[[Stage], None]:
        clause = " ".join((function.__doc__ or "").split())
        _checks.append(Check(function.__name__, clause, function, mode, shares, websocket, hijack, protocol))
        return function

    return register


def check_spawn_server(subject: Subject) -> list[str]:
    """Run every check that concerns the subject, with workers that are started and, if it can preload, with forked ones.

    :returns: the names of the checks that were run.
    :raises ConformanceFailure: at least one failed; the text has them all.
    """
    done: list[str] = []
    failures: list[str] = []
    for preloaded in (False, True):
        variant = replace(subject, preloaded=preloaded)
        for check in CHECKS:
            if check.concerns(variant):
                done.append(f"{check.name}[{'forked' if preloaded else 'started'}]")
                try:
                    check(variant)
                except ConformanceFailure as failure:
                    failures.append(f"{done[-1]}: {failure}")
    if failures:
        raise ConformanceFailure("\n\n".join(failures))
    return done


# Section 1 and 2: start, control connection


@_check("started")
def says_hello(stage: Stage) -> None:
    """hello: token, contract 1, role, language, version, pid; first line."""
    for preload in (False, True) if stage.subject.preload_command else (False,):
        loader = stage.start(preload=preload)
        hello = loader.hello
        expect(hello.get("contract") == CONTRACT_VERSION, f"contract: {hello}")
        expect(hello.get("role") == ("preloader" if preload else "worker"), f"role: {hello}")
        expect(hello.get("pid") == loader.pid, f"pid: {hello}")
        expect(all(isinstance(hello.get(name), str) and hello[name] for name in ("language", "version")), f"{hello}")


@_check("forked")
def forked_worker_says_hello(stage: Stage) -> None:
    """A forked process opens its own control connection with the token of the fork message (role worker)."""
    worker = stage.worker()
    expect(worker.hello.get("role") == "worker", f"role: {worker.hello}")
    expect(worker.hello.get("pid") == worker.pid, f"pid: {worker.hello}")


@_check()
def hides_its_variables(stage: Stage) -> None:
    """The loader removes both variables from its environment before it loads the application."""
    names = _process_facts(stage.worker())["variables"].split()
    left = [name for name in names if name.startswith("PASSENGER_TRIO_SPAWN_")]
    expect(not left, f"the application sees {left}")


@_check()
def reports_steps(stage: Stage) -> None:
    """Steps in this order, each as in_progress and then performed with a duration; then ready. A worker may have a start_up."""
    worker = stage.worker()
    wanted = ["after_fork", "listen"] if stage.subject.preloaded else ["prepare_runtime", "load_application", "listen"]
    _expect_steps(worker, wanted)
    if stage.subject.preloaded:
        _expect_steps(stage.start(preload=True), ["prepare_runtime", "load_application"])


def _expect_steps(loader: Loader, wanted: list[str]) -> None:
    steps = [message for message in loader.messages if message["type"] == "step"]
    told = [(step["name"], step["state"]) for step in steps]
    if ("start_up", "in_progress") in told:
        wanted = [*wanted[:-1], "start_up", wanted[-1]]
    expect(told == [(name, state) for name in wanted for state in ("in_progress", "performed")], f"{told}")
    durations = [step.get("duration") for step in steps if step["state"] == "performed"]
    expect(
        all(isinstance(duration, float | int) and 0 <= duration < PATIENCE for duration in durations), f"{durations}"
    )
    expect(loader.messages[-1]["type"] == "ready", f"{loader.messages[-1]}")


@_check()
def listens_where_it_was_told(stage: Stage) -> None:
    """ready: a worker names its socket, which is exactly the one it was told, and its concurrency; a preloader has none."""
    worker = stage.worker(threads=3)
    wanted = {"address": f"unix:{worker.socket_path}", "protocol": stage.subject.protocol, "concurrency": 3}
    told = worker.messages[-1].get("sockets")
    if stage.subject.websocket:
        wanted = {**wanted, "websocket": True}
    expect(told == [wanted], f"{worker.messages[-1]}")
    if stage.subject.preloaded:
        preloader = stage.start(preload=True)
        expect(not preloader.messages[-1].get("sockets"), f"{preloader.messages[-1]}")


@_check()
def ignores_what_it_does_not_know(stage: Stage) -> None:
    """Unknown members are ignored; an unknown type is ignored by a loader."""
    worker = stage.worker(a_member_of_next_year=[1, 2, 3])
    worker.send({"type": "something_of_next_year", "fields": {}})
    expect(worker.request().body == b"hello", "no answer after an unknown message")
    if stage.subject.preloaded:
        preloader = stage.start(preload=True)
        preloader.send({"type": "something_of_next_year"})
        expect(stage.supervisor.fork(preloader).request().body == b"hello", "no fork after an unknown message")


@_check()
def understands_messages_in_pieces(stage: Stage) -> None:
    """Each message is one JSON object on one line, however it is cut or joined on its way."""
    worker = stage.worker()
    for byte in b'{"type": "next_year"}\n{"type": "shutd':
        worker.control.sendall(bytes((byte,)))
    worker.control.sendall(b'own"}\n{"type": "next_year"}\n')
    worker.wait_gone()


@_check()
def reports_a_failed_start(stage: Stage) -> None:
    """error: category, summary, problem, solution, traceback, details; the loader then exits with status 1."""
    loader = stage.start(preload=stage.subject.preloaded, env={"CONFORMANCE_START": "raise"}, wait=False)
    message = _expect_error(loader)
    expect(message["category"] == "application", f"category: {message}")
    expect(
        "conformance" in message["summary"] or "conformance" in message["problem"], f"the text is missing: {message}"
    )
    errored = [step for step in loader.messages if step.get("state") == "errored"]
    expect([step["name"] for step in errored] == ["load_application"], f"steps: {errored}")


@_check()
def cuts_long_texts(stage: Stage) -> None:
    """No line is over 65536 bytes: texts are cut at their front."""
    _expect_error(stage.start(preload=stage.subject.preloaded, env={"CONFORMANCE_START": "raise-long"}, wait=False))


@_check()
def survives_an_exit_at_load(stage: Stage) -> None:
    """Start-up failed: an application that ends the process while it is loaded is reported as well."""
    _expect_error(stage.start(preload=stage.subject.preloaded, env={"CONFORMANCE_START": "exit"}, wait=False))


@_check()
def reports_a_missing_file(stage: Stage) -> None:
    """error, category configuration: what was to be loaded is not there."""
    subject = replace(stage.subject, startup_file="there_is_no_such_file")
    stage = Stage(subject, stage.supervisor)
    message = _expect_error(stage.start(preload=subject.preloaded, wait=False))
    expect(message["category"] == "configuration", f"category: {message}")


def _expect_error(loader: Loader) -> Message:
    try:
        loader.expect("ready")
    except LoaderFailed as failure:
        message = failure.message
    else:
        raise ConformanceFailure("it became ready")
    expect(bool(message), "it ended without an error message")
    texts = ("category", "summary", "problem", "solution", "traceback", "details")
    expect(all(isinstance(message.get(name), str) for name in texts), f"members: {message}")
    expect(message["category"] in ("application", "configuration", "loader"), f"category: {message['category']}")
    expect(bool(message["summary"]), "no summary")
    status = loader.exit_status()
    expect(status == 1, f"exit status {status}")
    return message


# Section 2: the end


@_check()
def ends_on_shutdown(stage: Stage) -> None:
    """shutdown: finish the sessions in hand, run exit hooks, exit 0."""
    worker = stage.worker()
    with worker.open() as idle, worker.open() as busy:
        expect(idle.request().body == b"hello", "no answer")
        # A worker of concurrency 1 takes the next stream when this one has ended.
        idle.close()
        gate = stage.supervisor.directory / "gate"
        busy.begin("GET", f"/gate?{gate}")
        expect(busy.next_frame() is not None and busy.next_frame() == ("D", b"one"), "no first chunk")
        worker.shut_down()
        gate.touch()
        expect(busy.next_frame() == ("D", b"two"), "the session in hand was not finished")
        expect(busy.next_frame() is not None, "the session in hand has no end")
        _expect_clean_exit(stage, worker)


@_check()
def ends_idle_streams(stage: Stage) -> None:
    """shutdown: streams that wait for a session do not keep a worker from ending."""
    worker = stage.worker(threads=3)
    with worker.open() as one, worker.open() as two:
        expect(one.request().body == b"hello" and two.request().body == b"hello", "no answer")
        worker.shut_down()
        _expect_clean_exit(stage, worker)
        expect(one.ended() and two.ended(), "bytes on an idle stream")


@_check()
def finishes_a_session_whose_head_came_before_shutdown(stage: Stage) -> None:
    """shutdown: finish the sessions in hand; a head that the supervisor sent before it is in hand."""
    worker = stage.worker()
    with worker.open() as stream:
        expect(stream.request().body == b"hello", "no answer")
        body = random.Random(1).randbytes(300_000)
        head, rest = stream.encode("POST", "/echo", body)
        stream.send(head)
        worker.shut_down()
        response = Response()
        sender = threading.Thread(target=stream.send, args=(rest,), daemon=True)
        sender.start()
        response = stream.response()
        sender.join(PATIENCE)
        expect(response.complete and response.body == body, "the session was cut off")
    _expect_clean_exit(stage, worker)


def _expect_clean_exit(stage: Stage, worker: Loader) -> None:
    if stage.subject.preloaded:
        worker.wait_gone()
    else:
        status = worker.exit_status()
        expect(status == 0, f"exit status {status}")
    expect(stage.hooks().count(worker.pid) == 1, f"exit hooks were run in {stage.hooks()}, the worker is {worker.pid}")


@_check()
def obeys_sigterm(stage: Stage) -> None:
    """SIGTERM: the same as shutdown."""
    worker = stage.worker()
    gate = stage.supervisor.directory / "gate"
    with worker.open() as stream:
        stream.begin("GET", f"/gate?{gate}")
        expect(stream.next_frame() is not None and stream.next_frame() == ("D", b"one"), "no first chunk")
        worker.kill(signal.SIGTERM)
        gate.touch()
        expect(stream.next_frame() == ("D", b"two"), "the session in hand was not finished")
        _expect_clean_exit(stage, worker)


@_check()
def obeys_a_second_sigterm_at_once(stage: Stage) -> None:
    """A second SIGTERM ends it at once."""
    worker = stage.worker()
    with worker.open() as stream:
        stream.begin("GET", f"/gate?{stage.supervisor.directory / 'gate'}")
        expect(stream.next_frame() is not None and stream.next_frame() == ("D", b"one"), "no first chunk")
        worker.kill(signal.SIGTERM)
        # Two signals that are pending together are one. The first was heard when nobody is let in any more.
        expect(eventually(lambda: not _accepts(worker.socket_path)), "it still accepts streams after SIGTERM")
        worker.kill(signal.SIGTERM)
        worker.wait_gone()


def _accepts(path: str) -> bool:
    try:
        Stream(path).close()
    except OSError:
        return False
    return True


@_check()
def ignores_sigint(stage: Stage) -> None:
    """SIGINT is ignored, and no program that the application starts inherits that."""
    worker = stage.worker()
    worker.kill(signal.SIGINT)
    expect(worker.request().body == b"hello", "no answer after SIGINT")
    with worker.open() as stream:
        stream.begin("GET", "/sleep?0.05")
        worker.kill(signal.SIGINT)
        expect(stream.response().body == b"done", "the session in hand was disturbed")


@_check()
def ends_when_the_supervisor_is_gone(stage: Stage) -> None:
    """End of file: it runs its exit hooks, and its process is gone within 1 second."""
    worker = stage.worker()
    with worker.open() as stream:
        expect(stream.request().body == b"hello", "no answer")
        _expect_end_of_orphan(stage, worker)


@_check()
def ends_when_the_supervisor_is_gone_while_it_sleeps(stage: Stage) -> None:
    """End of file, in the middle of a session that sleeps: gone within 1 second, exit hooks and all."""
    worker = stage.worker()
    with worker.open() as stream:
        stream.begin("GET", "/sleep?60")
        expect(eventually(lambda: stream.is_taken), "the session does not begin")
        _expect_end_of_orphan(stage, worker)


@_check()
def ends_when_the_supervisor_is_gone_while_it_computes(stage: Stage) -> None:
    """End of file, in the middle of a session that computes: gone within 1 second, exit hooks and all."""
    worker = stage.worker(threads=2)
    with worker.open() as one, worker.open() as two:
        one.begin("GET", "/spin?60")
        two.begin("GET", "/spin?60")
        expect(eventually(lambda: one.is_taken or two.is_taken), "no session begins")
        expect(not stage.subject.interrupts or eventually(lambda: two.is_taken), "the second session does not begin")
        _expect_end_of_orphan(stage, worker, stage.subject.interrupts)


def _expect_end_of_orphan(stage: Stage, worker: Loader, hooked: bool = True) -> None:
    worker.hang_up()
    took = worker.wait_gone(LAST_SECOND + PATIENCE)
    expect(took < LAST_SECOND, f"it took {took:.2f} s")
    hooks = stage.hooks().count(worker.pid)
    expect(hooks == 1 or not (hooks or hooked), f"exit hooks were run in {stage.hooks()}, the worker is {worker.pid}")


@_check()
def ends_when_the_supervisor_is_gone_while_it_loads(stage: Stage) -> None:
    """End of file while the application is loaded: gone within 1 second."""
    loader = stage.start(preload=stage.subject.preloaded, env={"CONFORMANCE_START": "sleep"}, wait=False)
    while (loader.receive() or {}).get("name") != "load_application":
        pass
    loader.hang_up()
    took = loader.wait_gone(LAST_SECOND + PATIENCE)
    expect(took < LAST_SECOND, f"it took {took:.2f} s")


@_check()
def ends_when_the_supervisor_is_gone_before_the_options(stage: Stage) -> None:
    """End of file before the options came: gone within 1 second."""
    loader = stage.launch()
    loader.hang_up()
    took = loader.wait_gone(LAST_SECOND + PATIENCE)
    expect(took < LAST_SECOND, f"it took {took:.2f} s")


@_check()
def ends_on_shutdown_while_it_loads(stage: Stage) -> None:
    """shutdown while the application is loaded: exit 0 (there is no session in hand)."""
    loader = stage.start(preload=stage.subject.preloaded, env={"CONFORMANCE_START": "sleep"}, wait=False)
    while (loader.receive() or {}).get("name") != "load_application":
        pass
    loader.shut_down()
    status = loader.exit_status()
    expect(status == 0, f"exit status {status}")


# Section 2: a preloader


@_check("forked")
def loads_once(stage: Stage) -> None:
    """A preloader loads the application once; each fork is a process of its own, with its own random numbers."""
    preloader = stage.start(preload=True)
    workers = [stage.supervisor.fork(preloader) for _ in range(3)]
    facts = [_process_facts(worker) for worker in workers]
    expect({fact["loaded_by"] for fact in facts} == {str(preloader.pid)}, f"loaded by {facts}")
    expect([fact["pid"] for fact in facts] == [str(worker.pid) for worker in workers], f"pids {facts}")
    expect(len({fact["random"] for fact in facts}) == len(facts), f"the same random numbers: {facts}")


@_check("forked")
def tells_of_forks_and_exits(stage: Stage) -> None:
    """forked: token, pid. child_exited: pid, status (as of waitpid). A preloader reaps the processes that it forked."""
    preloader = stage.start(preload=True)
    worker = stage.supervisor.fork(preloader)
    forked = preloader.expect("forked")
    expect(forked.get("pid") == worker.pid and forked.get("token") == worker.hello["token"], f"{forked}")
    worker.kill(signal.SIGKILL)
    exited = preloader.expect("child_exited")
    expect((exited.get("pid"), exited.get("status")) == (worker.pid, int(signal.SIGKILL)), f"{exited}")
    expect(not Path(f"/proc/{worker.pid}").exists(), "the process was not reaped")
    worker = stage.supervisor.fork(preloader)
    worker.shut_down()
    exited = preloader.expect("child_exited")
    expect((exited.get("pid"), exited.get("status")) == (worker.pid, 0), f"{exited}")


@_check("forked")
def separates_a_fork(stage: Stage) -> None:
    """A forked process leads its own process group, and has no descriptor of the preloader's or of its siblings'."""
    preloader = stage.start(preload=True)
    first, second = stage.supervisor.fork(preloader), stage.supervisor.fork(preloader)
    for worker in (first, second):
        expect(os.getpgid(worker.pid) == worker.pid, f"process group {os.getpgid(worker.pid)} of {worker.pid}")
    theirs = [_descriptors(loader) for loader in (preloader, first, second)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        expect(not theirs[one] & theirs[other], f"shared descriptors: {theirs[one] & theirs[other]}")


def _descriptors(loader: Loader) -> set[str]:
    """What its sockets and pipes are."""
    folder = Path(f"/proc/{loader.pid}/fd")
    targets = {os.readlink(entry) for entry in folder.iterdir()}
    return {target for target in targets if target.startswith(("socket:", "pipe:"))}


@_check("forked")
def gives_a_fork_its_output(stage: Stage) -> None:
    """A forked process puts the attached descriptor on 1 and 2."""
    preloader = stage.start(preload=True)
    worker = stage.supervisor.fork(preloader)
    expect(worker.request("GET", "/print?to-its-own-pipe").body == b"printed", "no answer")
    expect(worker.output.wait_for("to-its-own-pipe\n"), f"the output of the worker: {worker.output.text()!r}")
    expect("to-its-own-pipe" not in preloader.output.text(), "it went to the preloader's pipe")


@_check("forked")
def tells_of_threads(stage: Stage) -> None:
    """The event threads_at_fork comes before the first fork if the application has started threads, and only then."""
    for start, wanted in (("thread", 1), ("", 0)):
        preloader = stage.start(preload=True, env={"CONFORMANCE_START": start})
        for _ in range(2):
            stage.supervisor.fork(preloader)
            preloader.expect("forked")
        events = [message for message in preloader.messages if message.get("name") == "threads_at_fork"]
        expect(len(events) == wanted, f"{events}")
        if events:
            expect(events[0].get("fields") == {"count": 1}, f"{events}")
            kinds = [message["type"] for message in preloader.messages]
            expect(kinds.index("event") < kinds.index("forked"), f"{kinds}")


@_check("forked")
def refuses_a_fork_without_output(stage: Stage) -> None:
    """fork_failed: token, problem. One descriptor is attached to a fork message; without it there is no fork."""
    preloader = stage.start(preload=True)
    preloader.send({"type": "fork", "token": "without"})
    failed = preloader.expect("fork_failed")
    expect(failed.get("token") == "without" and bool(failed.get("problem")), f"{failed}")
    expect(stage.supervisor.fork(preloader).request().body == b"hello", "no fork after that")


@_check("forked")
def forks_many_at_once(stage: Stage) -> None:
    """fork messages may follow each other without a pause; each has its own descriptor."""
    preloader = stage.start(preload=True)
    outputs = [_Output() for _ in range(5)]
    try:
        for number, output in enumerate(outputs):
            preloader.send({"type": "fork", "token": f"many-{number}"}, [output.writing])
            output.close_writing_end()
        pids = {}
        for _ in outputs:
            message = preloader.expect("forked")
            pids[message["token"]] = message["pid"]
        expect(len(set(pids.values())) == len(outputs), f"{pids}")
    finally:
        # Nobody answers their hello: the end of the connection that is never accepted ends them.
        stage.supervisor._listener.close()
        for output in outputs:
            output.close()


@_check("forked")
def preloader_ends_on_shutdown(stage: Stage) -> None:
    """At end of file or shutdown the preloader exits; the processes it forked live on."""
    preloader = stage.start(preload=True)
    worker = stage.supervisor.fork(preloader)
    preloader.shut_down()
    expect(preloader.exit_status() == 0, f"exit status {preloader.exit_status()}")
    expect(worker.request().body == b"hello", "the worker does not live on")
    expect(stage.hooks() == [], f"exit hooks were run in {stage.hooks()}, the worker is {worker.pid}")
    _expect_end_of_orphan(stage, worker)


@_check("forked")
def preloader_ends_when_the_supervisor_is_gone(stage: Stage) -> None:
    """End of file: a preloader is gone within 1 second; the processes it forked have their own lifelines."""
    preloader = stage.start(preload=True)
    worker = stage.supervisor.fork(preloader)
    preloader.hang_up()
    took = preloader.wait_gone(LAST_SECOND + PATIENCE)
    expect(took < LAST_SECOND, f"it took {took:.2f} s")
    expect(worker.request().body == b"hello", "the worker does not live on")


@_check("forked")
def preloader_obeys_sigterm(stage: Stage) -> None:
    """SIGTERM to a preloader is the same as shutdown."""
    preloader = stage.start(preload=True)
    preloader.kill(signal.SIGTERM)
    status = preloader.exit_status()
    expect(status == 0, f"exit status {status}")


# Section 3: sessions


@_check(protocol="session", shares=True)
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


@_check(shares=True)
def carries_many_sessions(stage: Stage) -> None:
    """A stream carries one session after another."""
    with stage.worker().open() as stream:
        for number in range(300):
            body = b"x" * number
            response = stream.request("POST", "/echo", body)
            expect(response.complete and not response.flags and response.body == body, f"session {number}: {response}")


@_check(protocol="session", shares=True)
def reads_bytes_one_by_one(stage: Stage) -> None:
    """A session is the same however its bytes are cut."""
    with stage.worker().open() as stream:
        for _ in range(2):
            data = frame("H", request_head("POST", "/echo")) + frame("D", b"some") + frame("D", b"thing") + frame("E")
            for byte in data:
                stream.send(bytes((byte,)))
            expect(stream.response().body == b"something", "not the same")


@_check(protocol="session", shares=True)
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


@_check(protocol="session", shares=True)
def takes_bodies_of_any_size(stage: Stage) -> None:
    """D: 1 to 16777216 bytes of request body; E ends it, whatever CONTENT_LENGTH says (a body of unknown length has none)."""
    with stage.worker().open() as stream:
        source = random.Random(2)
        for size in (0, 1, 65531, 65536, 65541, 1_000_003, MAX_FRAME + 7):
            body = source.randbytes(size)
            expect(stream.request("POST", "/echo", body).body == body, f"a body of {size} bytes")
        stream.send(frame("H", request_head("POST", "/echo")), *[frame("D", b"ab")] * 5000, frame("E"))
        expect(stream.response().body == b"ab" * 5000, "many small frames")


@_check(shares=True)
def sends_bodies_of_any_size(stage: Stage) -> None:
    """No frame is longer than 16777216 bytes of payload."""
    response = stage.worker().request("GET", "/large")
    expect(response.complete and len(response.body) == 20_000_000, f"{len(response.body)} bytes")


@_check(shares=True)
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


@_check(shares=True)
def sends_no_body_where_none_may_be(stage: Stage) -> None:
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


@_check(protocol="session", shares=True)
def leaves_a_short_response_incomplete(stage: Stage) -> None:
    """The application sends less than the content-length it declared: no E, the stream is closed."""
    worker = stage.worker()
    response = worker.request("GET", "/short")
    expect(not response.complete and response.body == b"01234", f"{response}")
    expect(worker.request().body == b"hello", "the worker does not live on")


@_check(protocol="session")
def drops_what_is_too_much(stage: Stage) -> None:
    """What the application sends beyond its content-length is dropped by the worker, which says so on standard error."""
    worker = stage.worker()
    response = worker.request("GET", "/long")
    expect(response.complete and response.body == b"01234", f"{response}")
    expect(eventually(lambda: len(worker.output.text()) > 0), "nothing on standard error")


@_check(protocol="session")
def reports_an_exception(stage: Stage) -> None:
    """X: class, message, traceback; in place of R; an E follows. The traceback is in the output as well."""
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


@_check(protocol="session")
def leaves_a_response_that_raised_incomplete(stage: Stage) -> None:
    """When the application raises after its head was sent, the worker sends no E but closes the stream."""
    worker = stage.worker()
    response = worker.request("GET", "/raise-late")
    expect(not response.complete and response.body == b"begun", f"{response}")
    expect(worker.output.wait_for("conformance"), f"the output: {worker.output.text()!r}")
    expect(worker.request().body == b"hello", "the worker does not live on")


@_check(protocol="session", shares=True)
def survives_an_exit_in_a_session(stage: Stage) -> None:
    """An application that ends the process in good order in a session has raised: X, and the worker lives."""
    worker = stage.worker()
    response = worker.request("GET", "/exit")
    expect(response.error is not None and response.complete, f"{response}")
    expect(worker.request().body == b"hello", "the worker does not live on")


@_check(protocol="session", shares=True)
def reports_a_nul(stage: Stage) -> None:
    """A NUL in a value, which the framing cannot carry, is reported with X."""
    worker = stage.worker()
    with worker.open() as stream:
        response = stream.request("GET", "/nul")
        expect(response.error is not None and response.complete, f"{response}")
        expect(stream.request().body == b"hello", "the stream does not go on")


@_check(protocol="session", shares=True)
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


@_check(protocol="session")
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


@_check(protocol="session", shares=True)
def survives_broken_off_heads(stage: Stage) -> None:
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


@_check(protocol="session", shares=True)
def takes_a_large_head(stage: Stage) -> None:
    """A head is at most 131072 bytes."""
    size = MAX_HEAD - len(request_head()) - len(b"HTTP_X\0\0")
    with stage.worker().open() as stream:
        expect(stream.request(fields={"HTTP_X": "x" * size}).body == b"hello", "no answer to the largest head")
        expect(stream.request().body == b"hello", "the stream does not go on")


@_check(protocol="session", shares=True)
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
    expect(eventually(partial(_lines, note)), "the response was not closed")
    expect(_lines(note) == 1, "the response was closed more than once")
    expect(worker.request().body == b"hello", "the worker does not live on")


@_check()
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
        expect(eventually(partial(_lines, note)), "the response was not closed")
        expect(_lines(note) == 1, "the response was closed more than once")
        expect(worker.request().body == b"hello", "the worker does not live on")
    expect("raceback" not in worker.output.text(), f"an abort is not an error: {worker.output.text()}")


@_check(protocol="session", shares=True)
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


@_check(protocol="session", shares=True)
def drops_a_body_that_nobody_reads(stage: Stage) -> None:
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


@_check(protocol="session")
def serves_as_many_as_it_promised(stage: Stage) -> None:
    """Concurrency N: up to N streams at the same time; further connections wait in the listen queue."""
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


@_check(shares=True)
def writes_output_at_once(stage: Stage) -> None:
    """1 and 2 are one pipe that belongs to the application; what it prints is to be seen when it is printed."""
    worker = stage.worker()
    with worker.open() as stream:
        expect(stream.request("GET", "/print?a-line").body == b"printed", "no answer")
        expect(worker.output.wait_for("a-line\n"), f"the output: {worker.output.text()!r}")


# Section 3: WebSocket


def _handshake(stream: Stream, target: str, offered: str = "") -> None:
    fields = {"REQUEST_SCHEME": "ws", "HTTP_UPGRADE": "websocket"}
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


@_check(websocket=True)
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


@_check(websocket=True)
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


@_check(websocket=True)
def chooses_a_subprotocol(stage: Stage) -> None:
    """W: sec-websocket-protocol is the chosen subprotocol, if any; the others are extra header fields of the 101."""
    worker = stage.worker()
    for target, chosen in (("/ws-echo?two", {"sec-websocket-protocol": "two"}), ("/ws-echo", {})):
        with worker.open() as stream:
            told = _open_websocket(stream, target, "one, two")
            expect(told == {"x-offered": "one,two", **chosen}, f"{told}")


@_check(websocket=True)
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


@_check(websocket=True)
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


@_check(websocket=True)
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


@_check(websocket=True)
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


@_check(websocket=True)
def tells_how_a_websocket_ended(stage: Stage) -> None:
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


@_check(websocket=True)
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


@_check(websocket=True)
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


@_check(websocket=True)
def refuses_to_send_too_long_a_message(stage: Stage) -> None:
    """A message longer than a frame (16 MiB) cannot be sent; a worker refuses its application such a send."""
    with stage.worker().open() as stream:
        _open_websocket(stream)
        stream.send(frame("T", b"too long"))
        expect(stream.next_frame() == ("T", b"refused"), "not refused")


@_check(websocket=True)
def an_open_websocket_is_in_hand(stage: Stage) -> None:
    """shutdown: a WebSocket is a session in hand, which the supervisor closes."""
    worker = stage.worker()
    with worker.open() as stream:
        _open_websocket(stream)
        worker.shut_down()
        expect(eventually(lambda: not _accepts(worker.socket_path)), "it still accepts streams")
        stream.send(frame("T", b"still here"))
        expect(stream.next_frame() == ("T", b"still here"), "it was cut off")
        stream.send(_close(1001))
        expect(stream.next_frame() == ("E", b""), "no end")
        _expect_clean_exit(stage, worker)


def _note(stage: Stage) -> Path:
    """A file that is not there yet."""
    return stage.supervisor.directory / f"note-{os.urandom(8).hex()}"


def _hand_over(stream: Stream, path: str, note: Path) -> None:
    """Until the stream is the application's, and what that says first has come."""
    stream.begin("GET", f"{path}?{note}", fields={"HTTP_CONNECTION": "Upgrade", "HTTP_UPGRADE": "websocket"})
    found = stream.next_frame()
    if path == "/raw":
        expect(found is not None and found[0] == "R" and found[1].startswith(b"101\0"), f"no head of 101: {found}")
        found = stream.next_frame()
    expect(found == ("U", b""), f"the stream is not handed over: {found}")
    if path == "/full":
        first = b"HTTP/1.1 200 OK\r\n\r\n"
        expect(stream.take(len(first)) == first, "what the application wrote first does not come as it is")


@_check(hijack=True, shares=True)
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
            sender.join(PATIENCE)


@_check(hijack=True, shares=True)
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


@_check(hijack=True, shares=True)
def a_stream_that_was_handed_over_takes_no_place(stage: Stage) -> None:
    """The stream is the application's: the worker serves as many sessions beside it as before."""
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


def _lines(note: Path) -> int:
    return note.read_text().count("\n") if note.exists() else 0


def _process_facts(worker: Loader) -> dict[str, str]:
    lines = worker.request("GET", "/process").body.decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


CHECKS: Final[tuple[Check, ...]] = tuple(_checks)
