"""Sends the access log to syslog: each line is a datagram to the local daemon's socket (RFC 3164, as the C library writes it).

This runs in the writing thread. After a failure each batch makes one new connection, which reaches a daemon that was
started again. Lines that cannot be sent are counted as lost. The socket does not block: if the daemon does not read,
lines are lost, and the thread goes on."""

from __future__ import annotations

import os
import socket
import time

__all__ = ["SYSLOG", "Syslog", "syslog_path"]

SYSLOG = "syslog"
_DEFAULT = "/dev/log"
_PRIORITY = 3 * 8 + 6
"""Facility daemon, severity informational."""
_TIMEOUT = 1.0
"""Seconds for one line, while the daemon's queue is full."""


def syslog_path(destination: str) -> str | None:
    """The path of the socket that ``syslog`` or ``syslog:PATH`` names; None: the destination is not syslog."""
    if destination == SYSLOG:
        return _DEFAULT
    return destination.removeprefix("syslog:") if destination.startswith("syslog:/") else None


class Syslog:
    """:raises OSError: nobody listens at the path."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = self._connect()

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.settimeout(_TIMEOUT)
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        return sock

    def reopen(self) -> None:
        """Connect again. Keeps the connection if that fails.

        :raises OSError: nobody listens.
        """
        fresh = self._connect()
        self._socket.close()
        self._socket = fresh

    def send(self, lines: list[bytes]) -> tuple[int, str]:
        """Send each line. Returns how many were lost, and the last error."""
        head = f"<{_PRIORITY}>{time.strftime('%b %e %H:%M:%S')} passenger_trio[{os.getpid()}]: ".encode()
        lost, error, tried = 0, "", False
        for line in lines:
            data = head + line.rstrip(b"\n")
            try:
                self._socket.send(data)
                continue
            except OSError as exc:
                failure = exc
            if not tried:  # the daemon may have been started again
                tried = True
                try:
                    self.reopen()
                    self._socket.send(data)
                    continue
                except OSError as exc:
                    failure = exc
            lost, error = lost + 1, failure.strerror or str(failure)
        return lost, error

    def close(self) -> None:
        self._socket.close()
