"""Where loaders connect back: the listener on ``spawn.sock``, and the control connection that comes of it.

A spawn first says whom it expects (``expect``: a fresh single-use token, and who may present it), then starts the program. A
caller is believed when its token is expected and the kernel's credentials of its socket fit (R47: never what it says of itself). Everybody
else is hung up on after ``_HELLO_TIME``; when more than ``_MAX_CALLERS`` wait for that, strangers go first (KE5, ``core.lobby``).

Laws: a token works once; an expectation that is given up takes its token with it; a stranger cannot use up a token, nor keep an expected caller out.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import trio

from passenger_trio.codecs.control_protocol import Hello, LineReader, Message
from passenger_trio.core.lobby import Lobby
from passenger_trio.errors import SpawnServerError
from passenger_trio.kernel import ErrorKernel
from passenger_trio.system.callers import Caller, serve_callers
from passenger_trio.system.pidfd import PidFd
from passenger_trio.system.sockets import PeerCredentials, RawStream

__all__ = ["ControlConnection", "Expectation", "Reception"]

_HELLO_TIME = 5.0
_MAX_CALLERS = 64
_LAST_WORDS = 256
_BURST = 64
_PAUSE = 0.02
"""Seconds of rest after each ``_BURST`` messages of one loader: one that floods us slows itself down and nobody else."""

_log = logging.getLogger("passenger_trio.spawning")


class ControlConnection:
    """The control connection of one loader, after its ``hello``."""

    def __init__(self, stream: RawStream, reader: LineReader, hello: Hello, pidfd: PidFd) -> None:
        self._stream = stream
        self._reader = reader
        self._received = 0
        self.hello = hello
        self.pidfd = pidfd
        """The peer, pinned when it connected. The connection does not own it."""

    async def receive(self) -> Message | None:
        """The next message; None when the loader is gone, or was hung up on.

        :raises SpawnServerError: it broke the contract.
        """
        if self._stream.fd < 0:
            await trio.lowlevel.checkpoint()
            return None
        if self._received == _BURST:
            self._received = 0
            await trio.sleep(_PAUSE)
        self._received += 1
        while (message := self._reader.next_message()) is None:
            try:
                data = await self._stream.recv()
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._reader.feed(data)
        return message

    def last_words(self) -> Iterator[Message]:
        """The messages that are here already, for when nobody will listen any more. Bounded: a loader that lives might go on for ever.

        :raises SpawnServerError: it broke the contract.
        """
        for _ in range(_LAST_WORDS):
            while (message := self._reader.next_message()) is None:
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


@attrs.define(eq=False)
class Expectation:
    """Somebody will connect with ``token``."""

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
        if self._connection is not None:  # it came, and nobody waited any more
            self._connection.close()
            self._connection.pidfd.close()
            self._connection = None


class Reception:
    """The listener of one instance."""

    def __init__(self, path: str, kernel: ErrorKernel | None = None) -> None:
        self.path = path
        self._kernel = kernel or ErrorKernel()
        self._expected: dict[str, Expectation] = {}
        self._lobby = Lobby(_MAX_CALLERS)

    @contextmanager
    def expect(self, role: str, accepts: Callable[[PeerCredentials], bool]) -> Iterator[Expectation]:
        """Within the block a loader of ``role`` may connect with the expectation's token."""
        expectation = Expectation(secrets.token_hex(16), role, accepts)
        self._expected[expectation.token] = expectation
        try:
            yield expectation
        finally:
            self._expected.pop(expectation.token, None)
            expectation._abandon()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled."""
        await serve_callers(
            self.path,
            self._receive_caller,
            self,
            backlog=128,
            failed=lambda exc: _log.warning("accept on the spawn socket failed: %s", exc.strerror),
            kernel=self._kernel,
            task="a caller on the spawn socket",
            task_status=task_status,
        )

    def arrive(self, caller: Caller) -> int | None:
        """Who is to go for a new caller."""
        return self._lobby.arrive(caller.number, caller.peer.pid, expected=self._expects(caller.peer))

    def leave(self, number: int) -> None:
        """A caller has become a control connection, or is gone."""
        self._lobby.leave(number)

    def _expects(self, peer: PeerCredentials) -> bool:
        """Whether it may be one of those who are waited for, by the kernel's word alone: it has not said anything yet."""
        try:
            return any(expectation.accepts(peer) for expectation in self._expected.values())
        except OSError:
            return False  # no descriptor is left to look at it

    async def _receive_caller(self, caller: Caller) -> None:
        stream = RawStream(caller.socket)
        pidfd: PidFd | None = None
        try:
            credentials = caller.peer
            # Pin the peer before reading from it: while it has not ended its pid names it and nobody else.
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
                expectation = self._expected.get(message.token)
                if expectation is None or expectation.role != message.role or not expectation.accepts(credentials):
                    raise SpawnServerError(f"pid {credentials.pid} is not whom anybody expects")
                del self._expected[message.token]
                expectation._fulfil(ControlConnection(stream, reader, message, pidfd))
                stream, pidfd = None, None  # type: ignore[assignment]  # they belong to the connection now
        except (SpawnServerError, trio.BrokenResourceError, OSError) as exc:
            # OSError: it has ended already, it lives where we cannot see its pid, or no descriptor is left to pin it with.
            _log.warning("a caller on the spawn socket was hung up on: %s", exc)
        finally:
            if stream is not None:
                stream.close()
            if pidfd is not None:
                pidfd.close()
