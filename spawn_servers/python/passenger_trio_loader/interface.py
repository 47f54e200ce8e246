"""What an interface between server and application (WSGI, ASGI) tells the rest of the loader."""


class Interface:
    """What a loader tells ``main`` of the interface that it serves. A loader has one class that says this."""

    name = ""
    """As people write it: ``"WSGI"``."""
    options = {}
    """Members that its options must have besides those of every loader: name -> type."""

    def prepare(self, options):
        """Make the runtime ready for this interface, before the application is loaded.

        :raises Unfit: it lacks something.
        """

    def checked(self, found, name, where):
        """``found`` if it is an application.

        :raises Unfit: it is not.
        """
        raise NotImplementedError

    def turned_out(self, application, options):
        """The interface that the application has, which was loaded: this one, or another, where this one was guessed.

        :raises Unfit: it can be served by neither.
        """
        return self

    def worker(self, application, options, lifeline):
        """What serves it: an object with ``listen``, ``socket_message``, ``run(announce)``, ``stop``, ``cancel``,
        ``give_up`` and ``remove_socket``. ``run`` calls ``announce`` once, in the main thread, when the application may
        be served. Behind ``stop``, ``cancel`` says that sessions in hand have had their time, and ``give_up`` that
        nobody waits for them any more; both come from the lifeline's thread."""
        raise NotImplementedError


class Unfit(Exception):
    """The application was not found, or is not one. Carries the ``error`` message."""

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
