"""TCP ports of this machine: find a free one for a program, find its listeners, connect to it.

The kernel cannot reserve a port for another program: the first program that binds it gets it.
``Ports`` keeps our own programs apart. It takes ports below the range that the kernel uses for
outgoing connections. ``listener_uids`` checks which user really listens.
"""

from __future__ import annotations

import errno
import os
import random
import select
import socket

from passenger_trio.system.raw_stream import RawStream

__all__ = ["Ports", "connect_tcp_nowait", "listener_uids"]

_LOWEST = 16384
_TRIES = 200
_LISTEN = "0A"


class Ports:
    """Ports on the loopback interface, each given to one program at a time."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self) -> int:
        """A port without a listener.

        :raises OSError: no free port was found (EADDRINUSE), or no descriptor is left for the
            search.
        """
        highest = _lowest_ephemeral()
        for _ in range(_TRIES):
            port = random.randrange(_LOWEST, highest)
            if port not in self._taken and _is_free(port):
                self._taken.add(port)
                return port
        raise OSError(errno.EADDRINUSE, "no free TCP port is found")

    def release(self, port: int) -> None:
        """The program has ended. Idempotent."""
        self._taken.discard(port)


def connect_tcp_nowait(host: str, port: int) -> RawStream:
    """Connect to a TCP port of this machine. The connection may still be in progress on return (the
    listen queue is full); then bytes wait for it.

    :raises OSError: no program listens there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.connect((host, port))
        except BlockingIOError:
            # On the loopback interface a refusal has arrived by now.
            poll = select.poll()
            poll.register(sock, select.POLLOUT)
            if poll.poll(0) and (number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                raise OSError(number, os.strerror(number)) from None
    except BaseException:
        sock.close()
        raise
    return RawStream(sock)


def listener_uids(port: int) -> set[int]:
    """The users whose sockets listen on a port, on any address. Empty if that is unknown (no
    descriptor is left).
    """
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{name}") as file:
                lines = file.read().splitlines()[1:]
        except FileNotFoundError:
            continue  # no IPv6 here
        except OSError:
            return set()  # half of the listeners might be taken for all
        for line in lines:
            words = line.split()
            if words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                found.add(int(words[7]))
    return found


def _lowest_ephemeral() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            lowest = int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        lowest = 32768
    return lowest if lowest > _LOWEST + 1024 else 65536


def _is_free(port: int) -> bool:
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                # Sockets of an earlier program in TIME_WAIT do not matter.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((address, port))
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                raise
            if exc.errno != errno.EAFNOSUPPORT and exc.errno != errno.EADDRNOTAVAIL:
                return False
    return True
