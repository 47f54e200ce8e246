"""A worker's socket: the Unix socket on which the supervisor connects its streams."""

import errno
import os
from socket import AF_UNIX
from socket import socket as Socket

from passenger_trio_loader.at_fork import belongings
from passenger_trio_loader.interface import Unfit

OUT_OF_SOMETHING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED, errno.EAGAIN)


def open_listener(path, backlog=128):
    """A worker's socket.

    :param backlog: connections that may come at once, before the worker has accepted the first of them.
    :raises Unfit: the operating system says no.
    """
    listener = Socket(AF_UNIX)
    belongings.add(listener)
    listener.settimeout(None)
    try:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(backlog)
    except OSError as error:
        raise cannot_listen(path, error)
    return listener


def cannot_listen(path, error):
    return Unfit(
        "loader",
        "The application is loaded, but the process cannot listen on %s" % path,
        "The operating system refused: %s." % error,
        "Check that the instance directory is there, that its path is no longer than about 80 bytes, "
        "and the limits on processes and memory of the account.",
    )


def remove_file(path):
    try:
        os.unlink(path)
    except OSError:
        pass  # The supervisor removes it in any case.
