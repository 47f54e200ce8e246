"""Listening: on TCP addresses, and on the path of a Unix socket. Law: on an error nothing stays behind, neither a socket nor a file."""

from __future__ import annotations

import errno
import os
import socket
import stat
from itertools import chain

__all__ = ["MAX_UNIX_PATH", "holder_of_port", "listen_tcp", "listen_unix", "remove_unix_socket"]

MAX_UNIX_PATH = 107
"""The longest path of a Unix socket, in bytes (sun_path, without its NUL)."""

_PORT_TRIES = 20
"""Attempts to find a port that is free on every address."""


def listen_tcp(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listen on every address that ``host`` names; port 0 takes one free port for all of them.

    :param host: a name or an address; an IPv6 address may be in brackets, as in a URL.
    :raises OSError: an address cannot be bound; no socket stays open.
    """
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    tries: list[list[socket.socket]] = []
    try:
        while True:
            sockets: list[socket.socket] = []
            tries.append(sockets)
            try:
                for family, kind, proto, _, address in dict.fromkeys(infos):
                    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, proto)
                    sockets.append(sock)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    if port == 0 and len(sockets) > 1:
                        address = (address[0], sockets[0].getsockname()[1], *address[2:])
                    sock.bind(address)
                    sock.listen(backlog)
                return tries.pop()
            except OSError as exc:
                # The port is free on one address and taken on another. While we hold it, the kernel
                # gives a different one.
                taken = port == 0 and exc.errno == errno.EADDRINUSE and len(sockets) > 1
                if not taken or len(tries) == _PORT_TRIES:
                    raise
    finally:
        for sock in chain.from_iterable(tries):
            sock.close()


def listen_unix(path: str, backlog: int, *, mode: int = 0o666) -> socket.socket:
    """Listen on a Unix socket at ``path``. Replaces a stale socket there; leaves a live one, or any
    other file, alone (F58).

    :raises FileExistsError: the file at the path is not a socket.
    :raises OSError: another process listens there (EADDRINUSE), the path is too long
        (ENAMETOOLONG), ...
    """
    if len(os.fsencode(path)) > MAX_UNIX_PATH:
        raise OSError(errno.ENAMETOOLONG, f"a socket's path may be {MAX_UNIX_PATH} bytes long", path)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISSOCK(found.st_mode):
            raise FileExistsError(errno.EEXIST, "a file that is not a socket is there", path)
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # stale: its listener is gone
        except BlockingIOError:
            raise OSError(errno.EADDRINUSE, "somebody listens there", path) from None
        else:
            raise OSError(errno.EADDRINUSE, "somebody listens there", path)
        finally:
            probe.close()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    old_umask = os.umask(0o177)  # no other user may connect between bind and chmod
    bound = False
    try:
        sock.bind(path)
        bound = True
        os.chmod(path, mode)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        if bound:
            remove_unix_socket(path)
        raise
    finally:
        os.umask(old_umask)
    return sock


def remove_unix_socket(path: str) -> None:
    """Remove a socket's file. A failure (the application put a directory there) is ignored."""
    try:
        os.unlink(path)
    except OSError:
        pass


def holder_of_port(port: int) -> str:
    """The process that listens on a TCP port, for an error message: ``"nginx (pid 17)"``, or ``""``
    if it is unknown.
    """
    import psutil

    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return ""
    for connection in connections:
        if (
            connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port == port
            and connection.pid
        ):
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.Error:
                return f"pid {connection.pid}"
    return ""
