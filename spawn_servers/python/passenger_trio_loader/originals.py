"""The standard library as it was before the application was loaded.

gevent and eventlet replace sockets, threads and waits while an application is loaded. A name that is bound before
keeps its meaning. ``asgi`` may be imported after the application, so it takes such names from this module.
"""

import errno
import sys
from _thread import allocate_lock, start_new_thread
from os import listdir
from select import epoll  # noqa: F401  for asgi
from select import select as wait_for_sockets
from socket import MSG_DONTWAIT, MSG_PEEK
from socket import socket as Socket
from time import monotonic  # noqa: F401  for asgi


class PlainSocket:
    """``with PlainSocket(stream) as bare:`` a plain socket on the descriptor of a stream.

    The stream may be a socket of gevent's or eventlet's. Those wait where a plain one raises ``BlockingIOError``, and
    only their own thread may use them.

    :raises OSError: the stream is closed.
    """

    def __init__(self, stream):
        number = stream.fileno()
        if number < 0:
            raise OSError(errno.EBADF, "the stream is closed")
        self._bare = Socket(fileno=number)

    def __enter__(self):
        return self._bare

    def __exit__(self, kind, error, traceback):
        self._bare.detach()


def nothing_to_read(stream):
    """Whether a read would wait. It would not at the end of the stream, nor on a broken one."""
    try:
        with PlainSocket(stream) as bare:
            bare.recv(1, MSG_PEEK | MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def sockets_are_green():
    """Whether the application has patched the socket module, as gevent and eventlet do: waiting lets other greenlets run."""
    return sys.modules["socket"].socket is not Socket and sys.modules["select"].select is not wait_for_sockets


def threads_are_green():
    return sys.modules["_thread"].start_new_thread is not start_new_thread


class NativeThread:
    """A thread of the operating system, even if the application has patched ``threading``."""

    def __init__(self, target):
        self._ended = allocate_lock()
        self._ended.acquire()
        self.ident = start_new_thread(self._run, (target,))

    def is_alive(self):
        return self._ended.locked()

    def _run(self, target):
        try:
            target()
        finally:
            self._ended.release()

    def join(self):
        with self._ended:
            pass


def tasks():
    """The kernel's numbers of this process's threads, including those that Python does not know."""
    try:
        return set(listdir("/proc/self/task"))
    except OSError:
        return set()
