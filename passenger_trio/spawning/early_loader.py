"""A loader that was started before the server: what a spawn needs to take it over.

It has a token of the spawn socket, which listens already, so it connects, says hello and waits. Whoever takes it owns the program and its output.
The listening socket becomes the spawn listener's.
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
    """Until it is taken, or ended."""

    role: str
    command: tuple[str, ...]
    environment: dict[str, str]
    umask: int
    uid: int
    token: str
    path: str
    """Of the spawn socket."""
    pidfd: PidFd
    _output: OutputPipe
    _listening: socket.socket | None
    _is_open: bool = True

    def take_listening(self) -> socket.socket | None:
        """The listening spawn socket, once."""
        listening, self._listening = self._listening, None
        return listening

    def take_output(
        self, role: str, command: tuple[str, ...], environment: dict[str, str], umask: int
    ) -> OutputPipe | None:
        """Take the program, which is ``pidfd``'s, once: its output. None: it was taken, or the spawn wants another program; then it is
        ended.
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
                pass  # it had ended before, and was reaped as a stranger
            self.pidfd.close()
            self._output.close()

    def close(self) -> None:
        """End all that was not taken. Idempotent."""
        self.end()
        listening = self.take_listening()
        if listening is not None:
            listening.close()
            remove_unix_socket(self.path)
