"""Opens the listening sockets of a server. If an address is in use, the error says what to do."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack

from passenger_trio.core.option_values import parse_mode
from passenger_trio.errors import BindError, OptionError
from passenger_trio.options import ServerOptions
from passenger_trio.system.listen import holder_of_port, listen_tcp, listen_unix, remove_unix_socket

__all__ = ["bind"]


def bind(options: ServerOptions, resources: ExitStack) -> list[socket.socket]:
    """Listen on the addresses that the options name.

    :param resources: closes the sockets that are still open at its end.
    :raises OptionError: the path of the Unix socket is invalid.
    :raises BindError: an address cannot be listened on.
    """
    try:
        path = os.path.abspath(options.socket) if options.socket else ""
    except FileNotFoundError:
        raise OptionError("--socket", options.socket, "it is relative, and the working directory was removed") from None
    try:
        if path:
            sockets = [listen_unix(path, options.socket_backlog, mode=parse_mode(options.socket_mode))]
        else:
            sockets = listen_tcp(options.address, options.port, options.socket_backlog)
    except OSError as exc:
        raise _bind_error(options, exc) from exc
    for sock in sockets:
        resources.callback(_close_unused, sock, path)
    return sockets


def _close_unused(sock: socket.socket, path: str) -> None:
    """Close a listening socket that the server never used. (If it did, its ``Listener`` has closed it.)"""
    if sock.fileno() >= 0:
        sock.close()
        if path:
            remove_unix_socket(path)


def _bind_error(options: ServerOptions, exc: OSError) -> BindError:
    if options.socket:
        remove = ", or remove it" if isinstance(exc, FileExistsError) else ""
        return BindError(f"cannot listen on {options.socket}: {exc.strerror}; choose another with -S{remove}")
    host = options.address
    where = f"[{host}]:{options.port}" if ":" in host and not host.startswith("[") else f"{host}:{options.port}"
    if exc.errno == errno.EADDRINUSE:
        holder = holder_of_port(options.port)
        return BindError(f"{where} is in use{f' by {holder}' if holder else ''}; choose another port with -p")
    if exc.errno == errno.EACCES:
        return BindError(f"{where} may not be used by this user; ports below 1024 are reserved, choose another with -p")
    if isinstance(exc, socket.gaierror):
        return BindError(f"{options.address} is not an address of this machine; choose another with -a")
    return BindError(f"cannot listen on {where}: {exc.strerror}; choose another address with -a or port with -p")
