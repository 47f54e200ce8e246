"""A loader that was started before the rest of the server, and everything that a spawn needs to take it over.

The spawn socket listens already, and the loader has a token for it. So the loader connects, says hello and waits. The caller that takes the loader owns the
program and its output. The listening socket becomes the spawn listener's.
"""

from __future__ import annotations

import os
import signal
import socket

from passenger_trio.late_classes import define
from passenger_trio.spawning.output import OutputPipe
from passenger_trio.system.listen import remove_unix_socket
from passenger_trio.system.pidfd import PidFd

__all__ = ["EarlyLoader"]


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
    pidfd: PidFd
    _output: OutputPipe
    _listening: socket.socket | None
    _is_open: bool = True

    def take_listening(self) -> socket.socket | None:
        """Take the listening spawn socket, once."""
        listening, self._listening = self._listening, None
        return listening

    def take_output(
        self, role: str, command: tuple[str, ...], environment: dict[str, str], umask: int
    ) -> OutputPipe | None:
        """Take the program of ``pidfd``, once, and return its output. None: it was taken before, or the spawn wants another program. In
        the second case the early program is ended.
        """
        if (role, command, environment, umask) != (self.role, self.command, self.environment, self.umask):
            self.end()
        if not self._is_open:
            return None
        self._is_open = False
        return self._output

    def end(self) -> None:
        """End the program, if no spawn has taken it. Must be called within a Trio run."""
        if self._is_open:
            self._is_open = False
            self.pidfd.signal_group(signal.SIGKILL)
            try:
                os.waitpid(self.pidfd.pid, 0)
            except ChildProcessError:
                pass  # it had ended before, and was already reaped
            self.pidfd.close()
            self._output.close()

    def close(self) -> None:
        """End and close everything that was not taken. Idempotent."""
        self.end()
        listening = self.take_listening()
        if listening is not None:
            listening.close()
            remove_unix_socket(self.path)
