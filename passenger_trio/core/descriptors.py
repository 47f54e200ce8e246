"""How many descriptors clients may use (R36): their connections, and the files of the buffers between them
and the processes.

Other modules measure, and this module decides. One part of the process's limit is
reserved for what the server needs to stay alive (its pool, its sockets, ``/proc``), another for the
streams to the processes. Connections and buffer files share the rest, first come, first served. The
server never closes a connection to get a file. A buffer that gets no file stays in memory, which
pauses its producer (R35).

Laws: ``takes_connection`` and ``takes_file`` are false when the rest is used up; a configured ceiling
limits connections, but not files.
"""

from __future__ import annotations

import errno

from passenger_trio.late_classes import frozen

__all__ = ["SHORT_OF_DESCRIPTORS", "Descriptors"]

_UNLIMITED = 1_000_000
_LEAST = 16
_RESERVED = 40
"""Reserved for the server: listeners, poll sets, logs, connections to its own sockets, reading ``/proc``."""
_FOR_EACH_PROCESS = 4
"""A pidfd, a control connection, an output pipe; and one more while a process is replaced."""
_LEAST_RESERVED = 64
SHORT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors that mean that this server is short of descriptors or memory (R36); the peer is not to blame."""


@frozen
class Descriptors:
    """The descriptors that clients may use. Made by ``measured``."""

    connections: int
    """The most connections at the same time."""
    together: int
    """The most connections and files at the same time."""

    @classmethod
    def measured(cls, limit: int, configured: int, sessions: int, processes: int) -> Descriptors:
        """Compute the ceilings from the limit of the process.

        :param limit: descriptors that the process may have (``RLIMIT_NOFILE``); negative: no limit.
        :param configured: the most connections that the operator allows; 0: as many as the limit leaves.
        :param sessions: sessions that can be open at the same time: each holds a stream to a process. 0: as many as
            there are connections.
        :param processes: the most processes of the pool.
        """
        if limit < 0:
            return cls(configured or _UNLIMITED, 2 * _UNLIMITED)
        left = limit - max(_LEAST_RESERVED, _RESERVED + _FOR_EACH_PROCESS * processes)
        # A connection has at most one session. So a third of the rest suffices for any number, with a file for each.
        connections = max(_LEAST, left - 2 * sessions if sessions else 0, left // 3)
        streams = min(2 * sessions or connections, connections)
        together = max(_LEAST, left - streams)
        return cls(min(configured or connections, connections, together), together)

    def takes_connection(self, connections: int, files: int) -> bool:
        """Whether to accept one more connection when this many connections and files are open."""
        return connections < self.connections and connections + files < self.together

    def takes_file(self, connections: int, files: int) -> bool:
        """Whether one more buffer may have a file."""
        return connections + files < self.together
