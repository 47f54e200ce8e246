"""A process of the pool, as a front knows it. The owner keeps the process; a front only opens streams to it.

A front opens a stream by itself if the one that came with the slot must not be used, or has ended. As in the owner, the kernel tells
which process listens (KE5), because another process could bind the path.
"""

from __future__ import annotations

import os
from functools import partial

from passenger_trio.codecs.http1_worker import WORKER_PROTOCOLS
from passenger_trio.codecs.worker_protocol import WorkerProtocol
from passenger_trio.core.fronts.messages import ProcessCame
from passenger_trio.late_classes import define
from passenger_trio.spawning.endpoints import Endpoint, belongs
from passenger_trio.spawning.spawner import warn_of_stranger
from passenger_trio.system.crash_check import CrashCheck
from passenger_trio.system.pidfd import PidFd
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.system.unix_peers import PeerCredentials

__all__ = ["RemoteProcess"]


@define(eq=False)
class RemoteProcess:
    """See ``spawning.spawner.ServingProcess``."""

    pid: int
    concurrency: int
    websocket: bool
    worker_protocol: WorkerProtocol
    crash_check: CrashCheck | None
    _endpoint: Endpoint
    _pidfd: PidFd | None

    @classmethod
    def of(cls, came: ProcessCame) -> RemoteProcess:
        """Make the process from the owner's message."""
        protocol = WORKER_PROTOCOLS[came.protocol]
        pidfd: PidFd | None = None
        if protocol.name == "http":
            try:
                pidfd = PidFd.open(came.pid)
            except OSError:
                pass  # it has ended already, or no descriptor is left: the front will not see its end
        return cls(
            came.pid,
            came.concurrency,
            came.websocket,
            protocol,
            CrashCheck(pidfd) if pidfd is not None else None,
            _endpoint(came.address),
            pidfd,
        )

    def connect_nowait(self) -> RawStream:
        """See ``ServingProcess``."""
        return self._endpoint.connect_nowait(self._is_listener)

    def _is_listener(self, listener: PeerCredentials) -> bool:
        is_it = partial(belongs, self.pid) if self.worker_protocol.name == "http" else self._is_worker
        believed = is_it(listener)
        if not believed:
            warn_of_stranger(self.pid, listener)
        return believed

    def _is_worker(self, listener: PeerCredentials) -> bool:
        # The user of the application (OP8): the owner of its directory of sockets, which no other user can replace.
        return listener.pid == self.pid and listener.uid == os.stat(os.path.dirname(self._endpoint.host)).st_uid

    def close(self) -> None:
        """The process is gone."""
        if self._pidfd is not None:
            self._pidfd.close()


def _endpoint(address: str) -> Endpoint:
    if address.startswith("unix:"):
        return Endpoint(address.removeprefix("unix:"))
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return Endpoint(host.strip("[]"), int(port))
