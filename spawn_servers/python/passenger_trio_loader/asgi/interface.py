"""ASGI, as ``process.main`` sees it: what an application is, which event loop it needs, and what serves it."""

from passenger_trio_loader.asgi.on_asyncio import AsyncioLoop
from passenger_trio_loader.asgi.on_trio import TrioLoop
from passenger_trio_loader.asgi.worker import Worker
from passenger_trio_loader.interface import Interface, StartFailed
from passenger_trio_loader.loading import is_coroutine_function

LOOPS = {"asyncio": AsyncioLoop, "trio": TrioLoop}


class Asgi(Interface):
    name = "ASGI"
    options = {"loop": str, "unlimited": bool, "app_type": str, "tasks": int}

    def __init__(self):
        self._loop = None
        self._loop_is_auto = False
        """``--loop auto``: the application decides."""

    def prepare(self, options):
        loop = options["loop"]
        self._loop_is_auto = loop == "auto"
        if self._loop_is_auto:
            loop = "asyncio"
        if loop not in LOOPS:
            raise StartFailed(
                "configuration",
                "There is no event loop %r" % options["loop"],
                "An ASGI application runs on asyncio or on Trio.",
                "Give one of: --loop %s." % " or ".join(LOOPS),
            )
        self._loop = LOOPS[loop]()

    def check_application(self, found, name, where):
        if not callable(found):
            raise StartFailed(
                "configuration",
                "%s in %s is not an ASGI application: it cannot be called" % (name, where),
                "It is of the type %s. An ASGI application is called with a scope, and the functions receive and send."
                % type(found).__name__,
                "Name the object that is the application, as in module:object"
                " (a function that makes one: module:factory()).",
            )
        if not is_coroutine_function(found) and takes_two(found):
            raise StartFailed(
                "configuration",
                "%s in %s is a WSGI application, not an ASGI application" % (name, where),
                "It is a function of two arguments. ASGI calls an application with three: scope, receive and send.",
                "Serve it as WSGI (--app-type wsgi), or name an ASGI application instead, as in module:object.",
            )
        return found

    def make_worker(self, application, options, watcher):
        loop = TrioLoop() if self._loop_is_auto and needs_trio(application) else self._loop
        # Where WSGI was guessed, ``threads`` is a number of threads. ASGI needs none: ``tasks`` counts.
        most = options["threads"] if options["app_type"] == "asgi" else options["tasks"]
        return Worker(application, options, watcher, loop, most)


def needs_trio(found):
    """Whether an application is of Quart-Trio, or wraps one that is."""
    for _ in range(10):
        if any(kind.__module__.partition(".")[0] == "quart_trio" for kind in type(found).__mro__):
            return True
        inner = vars(found) if hasattr(found, "__dict__") else {}
        found = next((inner[name] for name in ("app", "asgi_app", "_app", "application") if name in inner), None)
        found = getattr(found, "__self__", found)  # app.asgi_app = Middleware(app.asgi_app)
        if found is None:
            return False
    return False


def takes_two(found):
    """Whether an object certainly takes two arguments, not three."""
    code = getattr(found, "__code__", None)
    bound = 0
    if code is None:
        code = getattr(getattr(type(found), "__call__", None), "__code__", None)
        bound = 1
    return code is not None and code.co_argcount - bound == 2 and not code.co_flags & 0x04  # inspect.CO_VARARGS
