"""A process that has connected back, as the supervisor sees it: its control connection, its output, its exit."""

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
    START_TIMEOUT,
    TIMEOUT,
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
        """All messages of the control connection, ``hello`` first."""
        self.socket_path = ""
        self.output = output
        self._process = process
        self._pidfd = pidfd
        self._partial = b""
        self._unread: list[Message] = []

    @property
    def hello(self) -> Message:
        return self.messages[0]

    def receive(self, timeout: float = TIMEOUT) -> Message | None:
        """The next message. None: the loader closed the connection.

        :raises ConformanceFailure: nothing arrived in time, or what arrived is not a message.
        """
        deadline = time.monotonic() + timeout
        while not self._unread:
            self.control.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.control.recv(MAX_LINE)
            except TimeoutError:
                raise ConformanceFailure(f"no message from the loader within {timeout} s") from None
            except ConnectionResetError:
                data = b""
            if not data:
                expect(not self._partial, f"the control connection ended within a message: {self._partial!r}")
                return None
            *lines, self._partial = (self._partial + data).split(b"\n")
            for line in lines:
                expect(len(line) < MAX_LINE, f"a message of {len(line) + 1} bytes")
                message = json.loads(line.decode("utf-8"))
                expect(isinstance(message, dict) and isinstance(message.get("type"), str), f"not a message: {line!r}")
                self._unread.append(message)
        self.messages.append(self._unread.pop(0))
        return self.messages[-1]

    def expect(self, kind: str, timeout: float = START_TIMEOUT) -> Message:
        """Wait for the next message of a type. Messages before it are in ``messages``.

        :raises LoaderFailed: an ``error`` arrived instead, or the connection ended.
        """
        while True:
            message = self.receive(timeout)
            if message is None:
                raise LoaderFailed(
                    f"the loader closed its control connection without {kind!r}; its output: {self.output.text()!r}", {}
                )
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

    def close_control(self) -> None:
        """Close the control connection, as the kernel does when the supervisor is killed."""
        self.control.close()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, unless the process is gone."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    @property
    def is_gone(self) -> bool:
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def wait_gone(self, timeout: float = TIMEOUT) -> float:
        """Wait for the exit. Returns the seconds that took.

        :raises ConformanceFailure: the process still runs.
        """
        begun = time.monotonic()
        if not select.select([self._pidfd], [], [], timeout)[0]:
            raise ConformanceFailure(f"the process still runs after {timeout} s")
        return time.monotonic() - begun

    def exit_status(self, timeout: float = TIMEOUT) -> int:
        """Wait for the exit of a started (not forked) process. Returns its status as of ``Popen.returncode``."""
        assert self._process is not None, "the preloader knows the exit status of a forked process"
        self.wait_gone(timeout)
        return self._process.wait(TIMEOUT)

    def open(self) -> Stream:
        """Open a stream to a worker, in the protocol that its ``ready`` named."""
        # The last one: a preloader that goes on as a worker is ready twice.
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
            self._process.wait(TIMEOUT)
        else:
            self.wait_gone()
        self.control.close()
        self.output.close()
        os.close(self._pidfd)


class Output:
    """The pipe on a process's descriptors 1 and 2. A thread reads it; ``text`` reads it, too, so that nothing written before is missing."""

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
        """Read once what is in the pipe. False at its end."""
        with self._turn:
            if not select.select([self._reading], [], [], 0)[0]:
                return True  # the other reader was first
            data = os.read(self._reading, 1 << 20)
            self._data += data
            return bool(data)

    def text(self) -> str:
        """Everything that was written so far."""
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
