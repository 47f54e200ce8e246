"""What the loader binds before the application is loaded, and what it makes of it.

gevent and eventlet replace sockets, threads and waits while an application is loaded. Names that are bound here keep
their meaning. ``asgi`` takes from here what it needs of them, because it may be imported after the application.
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


class Bare:
    """``with Bare(stream) as bare:`` a plain socket on the same descriptor.

    A stream may be an object of gevent's or eventlet's, which waits where a plain one says that it would have to, and
    which is not to be used in another thread than its own.

    :raises OSError:
    """

    def __init__(self, stream):
        number = stream.fileno()
        if number < 0:
            raise OSError(errno.EBADF, "it is closed")
        self._bare = Socket(fileno=number)

    def __enter__(self):
        return self._bare

    def __exit__(self, kind, error, traceback):
        self._bare.detach()


def nothing_to_read(stream):
    """Whether a read would wait. The end of a stream is something to read, and so is what has broken it."""
    try:
        with Bare(stream) as bare:
            bare.recv(1, MSG_PEEK | MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def is_green():
    """Whether the application has replaced what waits for sockets by what lets others run meanwhile: gevent and eventlet do."""
    return sys.modules["socket"].socket is not Socket and sys.modules["select"].select is not wait_for_sockets


def has_green_threads():
    return sys.modules["_thread"].start_new_thread is not start_new_thread


class NativeThread:
    """A thread of the operating system, whatever the application has made of ``threading``."""

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
    """What the kernel calls the threads of this process, also those that Python does not know of."""
    try:
        return set(listdir("/proc/self/task"))
    except OSError:
        return set()
