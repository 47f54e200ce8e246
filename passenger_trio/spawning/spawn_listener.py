"""The spawn listener: loaders connect back to ``spawn.sock``, and each becomes a control connection.

The listener knows the pending spawns, the ``hello`` message and the kernel's credentials of a connection. After ``hello`` the spawner
reads the connection.

A spawn first registers itself (``expect``: a fresh single-use token, and which peers may present it), then starts the
program. A connection is accepted when its token belongs to a pending spawn and the kernel's credentials fit. The listener never
believes what a peer says about itself (R47). It closes every other connection after ``_HELLO_TIME``. When more than
``_MAX_CALLERS`` connections wait, it closes strangers first (KE5, ``core.caller_limit``).

Laws:

* A token works once, and ends with its pending spawn.
* A stranger can neither use up a token nor keep an expected loader out.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import trio

from passenger_trio.codecs.control_protocol import Backtrace, Hello, LineReader, Message, encode_backtrace
from passenger_trio.core.caller_limit import CallerLimit
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import SpawnServerError
from passenger_trio.late_classes import define
from passenger_trio.log_lines import processes as lines
from passenger_trio.spawning.early_loader import SPAWN_BACKLOG, EarlyLoader
from passenger_trio.spawning.output import OutputPipe
from passenger_trio.system.callers import Caller, serve_callers
from passenger_trio.system.pidfd import PidFd
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.system.unix_peers import PeerCredentials

__all__ = ["ControlConnection", "PendingSpawn", "SpawnListener"]

_HELLO_TIME = 5.0
_MAX_CALLERS = 64
_MAX_REMAINING = 256
_BURST = 64
_PAUSE = 0.02
"""Seconds of rest after each ``_BURST`` messages of one loader: a loader that floods the server slows down only itself."""


@define(eq=False)
class _Answer:
    came: trio.Event = attrs.field(factory=trio.Event)
    text: str | None = None


class ControlConnection:
    """The control connection of one loader, after its ``hello``."""

    def __init__(self, stream: RawStream, reader: LineReader, hello: Hello, pidfd: PidFd) -> None:
        self._stream = stream
        self._reader = reader
        self._received = 0
        self.hello = hello
        self.pidfd = pidfd
        """The peer, pinned when it connected. The connection does not own it."""
        self._backtraces: dict[int, _Answer] = {}
        self._asked = 0

    async def receive(self) -> Message | None:
        """The next message. None: the loader is gone, or this connection was closed.

        :raises SpawnServerError: the loader broke the contract.
        """
        if self._stream.fd < 0:
            await trio.lowlevel.checkpoint()
            return None
        if self._received == _BURST:
            self._received = 0
            await trio.sleep(_PAUSE)
        self._received += 1
        while (message := self._next_message()) is None:
            try:
                data = await self._stream.recv()
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._reader.feed(data)
        return message

    def _next_message(self) -> Message | None:
        """The next message. A ``backtrace`` message is no result: it goes to the caller of ``ask_backtrace``."""
        while isinstance(message := self._reader.next_message(), Backtrace):
            answer = self._backtraces.pop(message.id, None)
            if answer is not None:  # else: it came too late, or was not asked for
                answer.text = message.text
                answer.came.set()
        return message

    async def ask_backtrace(self, timeout: float) -> str | None:
        """Ask the loader what its process is doing, and wait for the answer. Another task must call ``receive``.

        :param timeout: seconds.
        :returns: None: there was no answer in time.
        """
        self._asked += 1
        number = self._asked
        answer = self._backtraces[number] = _Answer()
        try:
            with trio.move_on_after(timeout):
                if self.send_nowait(encode_backtrace(number)):
                    await answer.came.wait()
            return answer.text
        finally:
            self._backtraces.pop(number, None)

    def remaining_messages(self) -> Iterator[Message]:
        """The messages that have already arrived, at most ``_MAX_REMAINING``: a loader that lives might send for ever.

        :raises SpawnServerError: the loader broke the contract.
        """
        for _ in range(_MAX_REMAINING):
            while (message := self._next_message()) is None:
                try:
                    data = self._stream.recv_nowait()
                except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                    return
                if not data:
                    return
                self._reader.feed(data)
            yield message

    def send_nowait(self, line: bytes, descriptors: tuple[int, ...] = ()) -> bool:
        """Send a line, with descriptors attached to its first byte. False when the loader is gone or does not read.

        Control messages are few and small: a loader whose socket buffer they fill has stopped reading.
        """
        if self._stream.fd < 0:
            return False
        try:
            sent = (
                socket.send_fds(self._stream.socket, [line], list(descriptors))
                if descriptors
                else self._stream.socket.send(line)
            )
        except OSError:
            return False
        return sent == len(line)

    def close(self) -> None:
        self._stream.close()


@define(eq=False)
class PendingSpawn:
    """A spawn that waits for its loader to connect with ``token``."""

    token: str
    role: str
    accepts: Callable[[PeerCredentials], bool]
    _came: trio.Event = attrs.field(factory=trio.Event)
    _connection: ControlConnection | None = None

    async def wait(self) -> ControlConnection:
        """The connection, once the loader has said hello."""
        await self._came.wait()
        assert self._connection is not None
        connection, self._connection = self._connection, None
        return connection

    def _fulfil(self, connection: ControlConnection) -> None:
        self._connection = connection
        self._came.set()

    def _abandon(self) -> None:
        if self._connection is not None:  # the loader connected, but its spawn had been given up
            self._connection.close()
            self._connection.pidfd.close()
            self._connection = None


@define(eq=False)
class EarlyProgram:
    """A loader that was started early, taken over by its spawn."""

    pending: PendingSpawn
    pidfd: PidFd
    output: OutputPipe
    socket_name: str
    control: ControlConnection | None
    """None: it has no options yet, and connects as others do."""


class SpawnListener:
    """The listener of one instance."""

    def __init__(
        self, path: str, kernel: ErrorKernel | None = None, *, mode: int = 0o600, early: EarlyLoader | None = None
    ) -> None:
        """:param mode: the mode of the socket's file: 0o666 if applications run as other users.
        :param early: a loader that was started before the server, with a token of its own.
        """
        self.path = path
        self._mode = mode
        self._kernel = kernel or ErrorKernel()
        self._expected: dict[str, PendingSpawn] = {}
        self._caller_limit = CallerLimit(_MAX_CALLERS)
        self._early = early
        self._early_pending: PendingSpawn | None = None
        if early is not None:
            # It may connect before its spawn begins.
            self._early_pending = PendingSpawn(
                early.token, early.role, lambda peer: peer.pid == early.pidfd.pid and peer.uid == early.uid
            )
            self._expected[early.token] = self._early_pending

    def take_early(
        self,
        role: str,
        command: tuple[str, ...],
        environment: dict[str, str],
        umask: int,
        options_for: Callable[[str], bytes],
    ) -> EarlyProgram | None:
        """The loader that was started early, if it is the one that the first spawn wants; ``expect`` gets the pending spawn.

        :param options_for: the message with the options, for the name of a socket.
        """
        pending, self._early_pending = self._early_pending, None
        early = self._early
        if pending is None or early is None:
            return None
        output = early.take_output(role, command, environment, umask, options_for(early.socket_name))
        if output is None:
            self._forget(pending)
            return None
        control = None
        if (connection := early.take_connection()) is not None:
            self._expected.pop(pending.token, None)
            # The same pidfd: the launch has pinned the program with it.
            control = ControlConnection(RawStream(connection.sock), connection.reader, connection.hello, early.pidfd)
        return EarlyProgram(pending, early.pidfd, output, early.socket_name, control)

    def end_early(self) -> None:
        """End the loader that was started early, if no spawn has taken it."""
        pending, self._early_pending = self._early_pending, None
        if pending is not None and self._early is not None:
            self._early.end()
            self._forget(pending)

    @contextmanager
    def expect(
        self, role: str, accepts: Callable[[PeerCredentials], bool], early: PendingSpawn | None = None
    ) -> Iterator[PendingSpawn]:
        """Within the block, a loader of ``role`` may connect with the token of the pending spawn.

        :param early: the pending spawn of ``take_early``, to continue with.
        """
        pending = early or PendingSpawn(secrets.token_hex(16), role, accepts)
        if early is None:
            self._expected[pending.token] = pending
        try:
            yield pending
        finally:
            self._forget(pending)

    def _forget(self, pending: PendingSpawn) -> None:
        self._expected.pop(pending.token, None)
        pending._abandon()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled."""
        await serve_callers(
            self.path,
            self._receive_caller,
            self,
            backlog=SPAWN_BACKLOG,
            failed=lambda exc: lines.spawn_socket_failed(reason=str(exc.strerror)),
            kernel=self._kernel,
            task="a connection to the spawn socket",
            task_status=task_status,
            mode=self._mode,
            listening=self._early.take_listening() if self._early is not None else None,
        )

    def arrive(self, caller: Caller) -> int | None:
        """Which connection to close so that a new one has room."""
        return self._caller_limit.arrive(caller.number, caller.peer.pid, expected=self._expects(caller.peer))

    def leave(self, number: int) -> None:
        """A connection has become a control connection, or is closed."""
        self._caller_limit.leave(number)

    def _expects(self, peer: PeerCredentials) -> bool:
        """Whether the peer may belong to a pending spawn. Only the kernel's credentials are known yet."""
        try:
            return any(pending.accepts(peer) for pending in self._expected.values())
        except OSError:
            return False  # no descriptor is left to examine it

    async def _receive_caller(self, caller: Caller) -> None:
        stream = RawStream(caller.socket)
        pidfd: PidFd | None = None
        try:
            credentials = caller.peer
            # Pin the peer before reading from it: its pid names no other process while it lives.
            pidfd = PidFd.open(credentials.pid)
            with trio.move_on_after(_HELLO_TIME):
                reader = LineReader()
                while (message := reader.next_message()) is None:
                    data = await stream.recv()
                    if not data:
                        return
                    reader.feed(data)
                if not isinstance(message, Hello):
                    raise SpawnServerError("the first control message is not 'hello'")
                pending = self._expected.get(message.token)
                if pending is None or pending.role != message.role or not pending.accepts(credentials):
                    raise SpawnServerError(f"pid {credentials.pid} has no valid token of a pending spawn")
                del self._expected[message.token]
                pending._fulfil(ControlConnection(stream, reader, message, pidfd))
                stream, pidfd = None, None  # type: ignore[assignment]  # the control connection owns them now
        except (SpawnServerError, trio.BrokenResourceError, OSError) as exc:
            # OSError: the peer has ended, or its pid cannot be seen from here, or no descriptor is left to pin it with.
            lines.spawn_connection_rejected(pid=caller.peer.pid, uid=caller.peer.uid, reason=str(exc))
        finally:
            if stream is not None:
                stream.close()
            if pidfd is not None:
                pidfd.close()
