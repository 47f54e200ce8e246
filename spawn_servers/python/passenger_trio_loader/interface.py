"""The boundary between the code that all Python loaders share and one interface (WSGI, ASGI).

``Interface`` is what ``process.main`` calls. ``StartFailed`` is how any step before ``ready`` reports what went wrong.
"""


class Interface:
    """What ``process.main`` needs of an interface. Each interface has one subclass."""

    name = ""
    """For people: ``"WSGI"``. In lower case, the contract's ``app_type``."""
    options = {}
    """Further members of ``options`` that this interface requires: name -> type."""

    def prepare(self, options):
        """Prepare the runtime for this interface, before the application is loaded.

        :raises StartFailed: the interpreter's environment lacks something.
        """

    def check_application(self, found, name, where):
        """Return ``found`` if it is an application of this interface.

        :param name: how the object is called. :param where: the module or file it is in.
        :raises StartFailed: it is not.
        """
        raise NotImplementedError

    def actual_interface(self, application, options):
        """The interface of the loaded application: this one, or another if this one was only a guess.

        :raises StartFailed: no interface can serve it.
        """
        return self

    def make_worker(self, application, options, watcher):
        """Make the worker: an object with ``listen``, ``socket_message``, ``run(announce)``, ``stop``, ``cancel``,
        ``give_up`` and ``remove_socket``.

        ``run`` calls ``announce`` once, in the main thread, when the application may be served. After ``stop``, the
        watcher's thread calls ``cancel`` when the time of the sessions in hand is over, and ``give_up`` when nobody
        waits for them any more.
        """
        raise NotImplementedError


class StartFailed(Exception):
    """There is no application to serve. Carries the members of the ``error`` message."""

    def __init__(self, category, summary, problem, solution, traceback=""):
        super().__init__(summary)
        self.message = {
            "category": category,
            "summary": summary,
            "problem": problem,
            "solution": solution,
            "traceback": traceback,
            "details": "",
        }
