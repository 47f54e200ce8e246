"""WSGI, as ``process.main`` sees it: what an application is, and what serves it."""

from passenger_trio_loader.interface import Interface, StartFailed
from passenger_trio_loader.loading import is_coroutine_function
from passenger_trio_loader.wsgi.worker import Worker


class Wsgi(Interface):
    name = "WSGI"

    def __init__(self):
        self._may_be_other = False

    def prepare(self, options):
        self._may_be_other = bool(options.get("guessed"))
        if options["threads"] > 1:
            import passenger_trio_loader.wsgi.interrupting  # noqa: F401  slow, so only where there are threads

    def actual_interface(self, application, options):
        if not (self._may_be_other and is_asgi(application)):
            return self
        # Imported late, because few guesses are wrong.
        from passenger_trio_loader.asgi.interface import Asgi

        asgi = Asgi()
        asgi.prepare(options)
        return asgi

    def check_application(self, found, name, where):
        if self._may_be_other and is_asgi(found):
            return found
        if is_coroutine_function(found):
            raise StartFailed(
                "configuration",
                "%s in %s is an ASGI application, not a WSGI application" % (name, where),
                "It is an async callable: WSGI would call it as a function and get a coroutine instead of a response.",
                "Serve it as ASGI (--app-type asgi), or name a WSGI application instead, as in module:object.",
            )
        if not callable(found):
            raise StartFailed(
                "configuration",
                "%s in %s is not a WSGI application: it cannot be called" % (name, where),
                "It is of the type %s. A WSGI application is called with an environ and a start_response function."
                % type(found).__name__,
                "Name the object that is the application, as in module:object"
                " (a function that makes one: module:factory()).",
            )
        return found

    def make_worker(self, application, options, watcher):
        return Worker(application, options, watcher)


def is_asgi(found):
    """Whether an object is an ASGI application, judged by its signature."""
    if is_coroutine_function(found):
        return True
    code = getattr(found, "__code__", None)
    return code is not None and code.co_varnames[: code.co_argcount] == ("scope", "receive", "send")
