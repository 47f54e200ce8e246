"""Where a program listens that does not know our contract, and whether the process that listens there is the right one.

This module knows addresses, pids and users, by the kernel's word. It never knows why a program was started.

Law (R47, KE5): an address alone proves nothing, because another process may have bound it first. A connection to a Unix socket is used only if the
program, or a process that belongs to it, listens there. A port is used only if the application's user or the program itself listens there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from passenger_trio.late_classes import frozen
from passenger_trio.system.children import descendants
from passenger_trio.system.ports import connect_tcp_nowait, listener_uids
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.system.unix_peers import PeerCredentials, connect_unix_nowait

__all__ = ["Endpoint", "belongs", "listens_on", "probe"]


@frozen
class Endpoint:
    """Where a program listens: ``host`` and ``port``, or, if ``port`` is 0, the Unix socket ``host``."""

    host: str
    port: int = 0

    def connect_nowait(self, believe: Callable[[PeerCredentials], bool]) -> RawStream:
        """:param believe: for the Unix socket: whether the listening process is the right one.
        :raises OSError: no process listens there, or the wrong one does.
        """
        return connect_tcp_nowait(self.host, self.port) if self.port else connect_unix_nowait(self.host, believe)


def probe(socket_path: str, port: int, pid: int, uid: int) -> Endpoint | None:
    """The endpoint at which the program accepts a connection; None: there is none yet.

    On the port, the listener must be the application's user, or the program itself (which may have become another
    user): another process may have taken the port first (R47).
    """
    for endpoint in (Endpoint(socket_path), Endpoint("127.0.0.1", port), Endpoint("::1", port)):
        try:
            stream = endpoint.connect_nowait(partial(belongs, pid))
        except OSError:
            continue
        stream.close()
        if (
            not endpoint.port
            or listener_uids(port) == {uid}
            or any(place.endswith(f":{port}") for place in listens_on(pid))
        ):
            return endpoint
    return None


def belongs(pid: int, listener: PeerCredentials) -> bool:
    """Whether the listening process is the program, a member of its process group or a descendant.
    It may run as another user.
    """
    if not listener.pid:
        return False  # its pid is in another pid namespace
    try:
        if listener.pid == pid or os.getpgid(listener.pid) == pid:
            return True
    except OSError:
        return False  # it has ended, so its group is unknown
    return listener.pid in descendants(pid)


def listens_on(pid: int) -> list[str]:
    """The addresses on which a process and its descendants listen, for people. Empty if they are
    unknown (no descriptor is left).
    """
    found = set()
    try:
        import psutil

        for member in (pid, *descendants(pid)):
            try:
                process = psutil.Process(member)
                for connection in getattr(process, "net_connections", process.connections)("tcp"):
                    if connection.status == psutil.CONN_LISTEN:
                        host = f"[{connection.laddr.ip}]" if ":" in connection.laddr.ip else connection.laddr.ip
                        found.add(f"{host}:{connection.laddr.port}")
            except psutil.Error:
                continue  # the process has ended
    except (OSError, ImportError):
        pass
    return sorted(found)
