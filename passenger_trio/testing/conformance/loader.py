"""A process that has connected back, seen from the supervisor: its control connection, its output, its end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from passenger_trio.testing.conformance.basis import (
    MAX_LINE,
    PATIENCE,
    START_PATIENCE,
    ConformanceFailure,
    LoaderFailed,
    Message,
    eventually,
    expect,
)
from passenger_trio.testing.conformance.streams import HttpStream, Response, Stream


class Loader:
    """One process that has connected back: a worker or a preloader."""

    def __init__(
        self, control: socket.socket, pid: int, pidfd: int, output: Output, process: subprocess.Popen[bytes] | None
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
        # The last one: a preloader that was told to serve is ready twice.
        ready = next((message for message in reversed(self.messages) if message["type"] == "ready"), {})
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


class Output:
    """The pipe on a process's descriptors 1 and 2, read by a thread; also by who asks, who would otherwise be told less than was written."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        self._data = bytearray()
        self._turn = threading.Lock()
        self._is_read = True
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self._reading, self._stop], [], [])
            if self._reading not in ready or not self._take():
                return

    def _take(self) -> bool:
        """One read of all that is in the pipe; False at its end."""
        with self._turn:
            if not select.select([self._reading], [], [], 0)[0]:
                return True  # the other one was first
            data = os.read(self._reading, 1 << 20)
            self._data += data
            return bool(data)

    def text(self) -> str:
        """All that was written so far."""
        if self._is_read:
            self._take()
        return bytes(self._data).decode("utf-8", "replace")

    def wait_for(self, text: str) -> bool:
        return eventually(lambda: text in self.text())

    def stop_reading(self) -> None:
        """Let the pipe fill up."""
        os.write(self._stopped, b"x")
        self._thread.join()
        self._is_read = False

    def close_writing_end(self) -> None:
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def close(self) -> None:
        self.close_writing_end()
        os.close(self._stopped)
        self._thread.join()
        self._is_read = False
        os.close(self._reading)
        os.close(self._stop)
