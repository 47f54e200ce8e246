"""What a forked worker makes anew before it does anything else: what each process must have of its own."""

import sys
from os import getpid

from passenger_trio_loader.preloading.event_loops import idle_loop
from passenger_trio_loader.preloading.exit_hooks import removing_finalizers


def renew():
    """What each process has of its own: called in a worker, right after the fork."""
    for one in (disown_finalizers, disown_temporary_files, disown_processes, renew_loop, renew_hubs, reseed):
        try:
            one()
        except Exception as error:
            sys.stderr.write("passenger_trio: %s: %s: %s\n" % (one.__name__, type(error).__name__, error))


def disown_finalizers():
    for finalizer, _ in removing_finalizers():
        finalizer.detach()


def disown_temporary_files():
    """A ``NamedTemporaryFile`` is removed by the process that made it: in another, its end is not the file's."""
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


def disown_processes():
    """As multiprocessing does it in its own children: those of the parent are not ours to end, or to wait for."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None:
        util._finalizer_registry.clear()
        process._children = set()
        util._run_after_forkers()


def renew_loop():
    """What it waits with was shared with the siblings, who would hear what was meant for us."""
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


def renew_hubs():
    """As gevent's and eventlet's own ``fork`` does it."""
    gevent = sys.modules.get("gevent.hub")
    if gevent is not None:
        gevent.reinit()
    hubs = sys.modules.get("eventlet.hubs")
    if hubs is not None and getattr(hubs._threadlocal, "hub", None) is not None:
        hubs.use_hub()


def reseed():
    """Two workers must not draw the same numbers.

    ``random`` sees to its own generator when the process forks, and so does OpenSSL (1.1.1, below every Python
    since 3.8, knows of forks); ``secrets`` and ``uuid4`` ask the kernel. NumPy's global generator does not.
    """
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
