"""A loader that was started before the rest of the server, and everything that a spawn needs to take it over.

The spawn socket listens already, and the loader has a token for it. So the loader connects and says hello. ``let_load`` gives it its options, and it loads the
application while the server is imported. The caller that takes the loader owns the program, its output and its connection. The listening socket becomes
the spawn listener's.

Laws:

* As to the spawn listener, only the kernel's credentials and the token show that the peer is the loader (R47).
* Nothing here waits for the loader, and nothing needs Trio: a server whose start fails before Trio runs ends it, too.
"""

from __future__ import annotations

import select
import signal
import socket

from passenger_trio.codecs.control_protocol import Hello, LineReader
from passenger_trio.errors import SpawnServerError
from passenger_trio.late_classes import define
from passenger_trio.spawning.output import OutputPipe
from passenger_trio.system.listen import remove_unix_socket
from passenger_trio.system.pidfd import PidFd
from passenger_trio.system.unix_peers import peer_credentials

__all__ = ["SPAWN_BACKLOG", "EarlyConnection", "EarlyLoader"]

SPAWN_BACKLOG = 128
"""Of the spawn socket."""
_MAX_STRANGERS = 8
_HELLO_TIME = 50
"""Milliseconds. A loader says hello in the step after it has connected."""
_READ = 4096


@define(eq=False)
class EarlyConnection:
    """The control connection of a loader that has its options."""

    sock: socket.socket
    reader: LineReader
    """With what came after the hello."""
    hello: Hello


@define(eq=False)
class EarlyLoader:
    """A loader that was started early, until it is taken or ended."""

    role: str
    command: tuple[str, ...]
    environment: dict[str, str]
    umask: int
    uid: int
    token: str
    path: str
    """The path of the spawn socket."""
    socket_name: str
    """The name of its socket in the options."""
    options: bytes
    """The message with its options."""
    pidfd: PidFd
    _output: OutputPipe
    _listening: socket.socket | None
    _connection: EarlyConnection | None = None
    _is_open: bool = True
    _is_spoilt: bool = False
    """Whether its connection was lost."""

    def let_load(self) -> None:
        """If the loader has said hello, send its options. May be called again."""
        strangers = 0
        while self._connection is None and self._listening is not None and strangers < _MAX_STRANGERS:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return  # it has not connected, or no descriptor is left
            try:
                peer = peer_credentials(sock)
                if (peer.pid, peer.uid) == (self.pidfd.pid, self.uid):
                    self._connection = self._shake_hands(sock)
                    self._is_spoilt = self._connection is None
                    return
                strangers += 1
            except OSError:
                self._is_spoilt = True
                return
            finally:
                if self._connection is None:
                    sock.close()

    def _shake_hands(self, sock: socket.socket) -> EarlyConnection | None:
        """:raises OSError: the connection is broken."""
        sock.setblocking(False)
        reader = LineReader()
        readable = select.poll()
        readable.register(sock, select.POLLIN)
        try:
            while (message := reader.next_message()) is None:
                if not readable.poll(_HELLO_TIME) or not (data := sock.recv(_READ)):
                    return None
                reader.feed(data)
        except SpawnServerError:
            return None
        if not isinstance(message, Hello) or (message.token, message.role) != (self.token, self.role):
            return None
        if sock.send(self.options) != len(self.options):
            return None
        return EarlyConnection(sock, reader, message)

    def take_listening(self) -> socket.socket | None:
        """Take the listening spawn socket, once."""
        listening, self._listening = self._listening, None
        return listening

    def take_connection(self) -> EarlyConnection | None:
        """Take the connection of a loader that has its options, once, after ``take_output``."""
        connection, self._connection = self._connection, None
        return connection

    def take_output(
        self, role: str, command: tuple[str, ...], environment: dict[str, str], umask: int, options: bytes
    ) -> OutputPipe | None:
        """Take the program of ``pidfd``, once, and return its output. None: it was taken before, its connection was lost, or the spawn wants another
        program. Then the early program is ended.

        :param options: the message that the spawn would send, with ``socket_name``.
        """
        wanted = (role, command, environment, umask, options)
        if self._is_spoilt or wanted != (self.role, self.command, self.environment, self.umask, self.options):
            self.end()
        if not self._is_open:
            return None
        self._is_open = False
        return self._output

    def end(self) -> None:
        """End the program, if no spawn has taken it. No task waits for its descriptors."""
        if self._is_open:
            self._is_open = False
            self.pidfd.signal_group(signal.SIGKILL)
            self.pidfd.reap_and_discard()
            self._output.discard()
            connection = self.take_connection()
            if connection is not None:
                connection.sock.close()

    def close(self) -> None:
        """End and close everything that was not taken. Idempotent."""
        self.end()
        listening = self.take_listening()
        if listening is not None:
            listening.close()
            remove_unix_socket(self.path)
