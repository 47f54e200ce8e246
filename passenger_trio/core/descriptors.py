"""How many descriptors clients may hold (R36): their connections, and the files of the buffers that stand between them and the processes.

Facts are measured elsewhere and come as numbers; this decides. Of the process's limit a part is kept for what the server needs to stay alive (its pool, its sockets, ``/proc``), a part for
the streams to the processes. The rest is shared by connections and buffers' files, first come, first served: a connection that is here is not closed for a file, and a buffer
that gets no file stays in memory, which holds its producer up (R35).

Laws: ``takes_connection`` and ``takes_file`` are false when nothing of that rest is left; a configured ceiling bounds connections and not files.
"""

from __future__ import annotations

import attrs

__all__ = ["Descriptors"]

_UNLIMITED = 1_000_000
_LEAST = 16
_RESERVED = 40
"""Kept for the server itself: listeners, poll sets, logs, the callers of its own sockets, what /proc is read by."""
_FOR_EACH_PROCESS = 4
"""A pidfd, a control connection, a pipe for output; and one that is being replaced."""
_LEAST_RESERVED = 64


@attrs.frozen
class Descriptors:
    """What clients may hold. Made by ``measured``."""

    connections: int
    """The most connections at a time."""
    together: int
    """The most connections and files at a time."""

    @classmethod
    def measured(cls, limit: int, configured: int, sessions: int, processes: int) -> Descriptors:
        """Of a process with a limit.

        :param limit: descriptors that the process may have (``RLIMIT_NOFILE``); negative: as many as it likes.
        :param configured: the most connections, as the operator wants it; 0 takes what the limit leaves.
        :param sessions: sessions that can be open at a time: each holds a stream to a process. 0: as many as there are connections.
        :param processes: the most processes of the pool.
        """
        if limit < 0:
            return cls(configured or _UNLIMITED, 2 * _UNLIMITED)
        left = limit - max(_LEAST_RESERVED, _RESERVED + _FOR_EACH_PROCESS * processes)
        # A connection has at most one session: with a third of what is left there is enough for any number, and for a file each.
        connections = max(_LEAST, left - 2 * sessions if sessions else 0, left // 3)
        streams = min(2 * sessions or connections, connections)
        together = max(_LEAST, left - streams)
        return cls(min(configured or connections, connections, together), together)

    def takes_connection(self, connections: int, files: int) -> bool:
        """Whether one more may be accepted, where so many are open."""
        return connections < self.connections and connections + files < self.together

    def takes_file(self, connections: int, files: int) -> bool:
        """Whether one more buffer may have a file."""
        return connections + files < self.together
