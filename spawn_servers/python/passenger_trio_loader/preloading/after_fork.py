"""What a forked worker resets before anything else runs: what each process must have of its own.

One step that fails is reported on standard error. The others are done all the same.
"""

import sys
from os import getpid

from passenger_trio_loader.preloading.event_loops import idle_loop
from passenger_trio_loader.preloading.exit_hooks import removing_finalizers


def renew_in_worker():
    """Run all steps. Called in a worker, right after the fork."""
    for one in (
        drop_finalizers_of_preloader,
        keep_files_of_preloader,
        forget_processes_of_preloader,
        recreate_event_loop,
        recreate_hubs,
        reseed,
    ):
        try:
            one()
        except Exception as error:
            sys.stderr.write("passenger_trio: %s: %s: %s\n" % (one.__name__, type(error).__name__, error))


def drop_finalizers_of_preloader():
    for finalizer, _ in removing_finalizers():
        finalizer.detach()


def keep_files_of_preloader():
    """Only the process that made a ``NamedTemporaryFile`` removes the file."""
    closer = getattr(sys.modules.get("tempfile"), "_TemporaryFileCloser", None)
    if closer is None:
        return
    made = closer.__init__

    def init(self, *arguments, **keywords):
        made(self, *arguments, **keywords)
        self.made_in = getpid()

    def guarded(method):
        def guard(self, *arguments, **keywords):
            if getattr(self, "made_in", None) != getpid():
                self.delete = False
            return method(self, *arguments, **keywords)

        return guard

    closer.__init__ = init
    for name in ("cleanup", "close"):
        if name in vars(closer):
            setattr(closer, name, guarded(vars(closer)[name]))


def forget_processes_of_preloader():
    """As multiprocessing does in its own children: a worker neither ends nor waits for children of the preloader."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None:
        util._finalizer_registry.clear()
        process._children = set()
        util._run_after_forkers()


def recreate_event_loop():
    """Replace the selector and the wake-up sockets of asyncio's loop. Shared ones would wake the wrong process."""
    loop = idle_loop()
    if loop is None:
        return
    selector = type(loop._selector)
    loop._selector.close()
    loop._ssock.close()
    loop._csock.close()
    loop._internal_fds = 0
    loop._selector = selector()
    loop._make_self_pipe()


def recreate_hubs():
    """As the ``fork`` functions of gevent and eventlet do."""
    gevent = sys.modules.get("gevent.hub")
    if gevent is not None:
        gevent.reinit()
    hubs = sys.modules.get("eventlet.hubs")
    if hubs is not None and getattr(hubs._threadlocal, "hub", None) is not None:
        hubs.use_hub()


def reseed():
    """Give NumPy's global generator a new seed, so that workers do not draw the same numbers.

    ``random`` reseeds itself after a fork, and so does OpenSSL since 1.1.1, which every Python since 3.8 uses.
    ``secrets`` and ``uuid4`` ask the kernel.
    """
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
