"""A worker's listening socket: a Unix socket with mode 0600, to which the supervisor connects its streams."""

import errno
import os
from socket import AF_UNIX
from socket import socket as Socket

from passenger_trio_loader.at_fork import own_descriptors
from passenger_trio_loader.interface import StartFailed

OUT_OF_SOMETHING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED, errno.EAGAIN)


def open_listener(path, backlog=128):
    """Bind and listen.

    :param backlog: how many connections may wait for ``accept``.
    :raises StartFailed: the operating system refused.
    """
    listener = Socket(AF_UNIX)
    own_descriptors.add(listener)
    listener.settimeout(None)
    try:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(backlog)
    except OSError as error:
        raise cannot_listen(path, error)
    return listener


def cannot_listen(path, error):
    return StartFailed(
        "loader",
        "The application is loaded, but the process cannot listen on %s" % path,
        "The operating system refused: %s." % error,
        "Check that the instance directory exists, that its path is shorter than about 80 bytes, "
        "and the limits on processes and memory of the account.",
    )


def remove_file(path):
    try:
        os.unlink(path)
    except OSError:
        pass  # The supervisor removes the file in any case.
