"""Every error that passenger_trio raises on purpose.

The tree (``status`` is what an HTTP client sees, ``exit_code`` what a shell sees)::

    PassengerError
     |- OptionError                exit 2   an option has a value that cannot be used
     |- ConfigError                exit 2   a configuration file cannot be read, or says what cannot be
     |- NothingToServe             exit 4   no application was found where one was asked for
     |- BindError                  exit 5   an address cannot be listened on
     |- StartupAborted             exit 3   the application did not start, and that was to be fatal
     |- EnvironmentUnfit           exit 70  the machine lacks something (not Linux, kernel too old, no /proc)
     |- AdminError                 exit 1   the admin socket cannot be reached or refused
     |- AdminRefused               4xx      the admin API refuses a request
     |- RequestError               4xx/5xx  the client's bytes are refused
     |- CheckoutError              5xx      no process could be borrowed
     |   |- RequestQueueFull       503
     |   |- RequestQueueTimeout    504
     |   |- PoolShutDown           503
     |   `- SpawnError             500      the application does not start (carries a SpawnFailure)
     |- AppResponseError           502      a process answered badly
     |   |- ApplicationRaised      500      the application raised before it sent a response head
     |   |- UnfitResponseHead      500      the application's response head cannot be sent as HTTP (R21, R24)
     |   |- RequestTimeExceeded    504      the request lasted too long, and its process was killed for it
     |   |- ProcessUnreachable     502      nothing was sent: its socket refuses, or it is gone
     |   |- IncompleteResponse     502      the process went away before its response was whole
     |   |- MalformedResponse      502      the process broke the session protocol
     |   `- SpillLost              502      what was buffered on disk cannot be read back
     |- SpawnServerError                    a loader broke the control protocol
     `- InvariantBroken            exit 70  a law of core/invariants.py does not hold: our bug

The narrowest error is raised, with its evidence in attributes. Errors that are *decided* (queue full, spawn failed) are
made by the policy as values and raised by the pool at its seam; errors of the wire are raised by the codecs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from passenger_trio.core.model import SpawnFailure

__all__ = [
    "AdminError",
    "AdminRefused",
    "AppResponseError",
    "ApplicationRaised",
    "BindError",
    "CheckoutError",
    "ConfigError",
    "EnvironmentUnfit",
    "IncompleteResponse",
    "InvariantBroken",
    "MalformedResponse",
    "NothingToServe",
    "OptionError",
    "PassengerError",
    "PoolShutDown",
    "ProcessUnreachable",
    "RequestError",
    "RequestQueueFull",
    "RequestQueueTimeout",
    "RequestTimeExceeded",
    "SpawnError",
    "SpawnServerError",
    "SpillLost",
    "StartupAborted",
    "UnfitResponseHead",
]


class PassengerError(Exception):
    """The root of the tree."""

    exit_code: int = 70


class OptionError(PassengerError):
    """An option has a value that cannot be used; ``hint`` says what can."""

    exit_code = 2

    def __init__(self, option: str, value: object, hint: str) -> None:
        super().__init__(f"{option}: {value!r} cannot be used: {hint}")
        self.option = option
        self.value = value
        self.hint = hint


class ConfigError(PassengerError):
    """A configuration file cannot be read, or says what cannot be. ``line`` 0: no line in particular."""

    exit_code = 2

    def __init__(self, path: str, line: int, text: str) -> None:
        super().__init__(f"{path}:{line}: {text}" if line else f"{path}: {text}")
        self.path = path
        self.line = line


class NothingToServe(PassengerError):
    """No application was found; ``looked_for`` lists what would have been taken."""

    exit_code = 4

    def __init__(self, message: str, looked_for: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.looked_for = looked_for


class BindError(PassengerError):
    """An address cannot be listened on; the text says who holds it, where that can be known."""

    exit_code = 5


class StartupAborted(PassengerError):
    """The application did not start, and ``abort_on_startup_error`` makes that fatal."""

    exit_code = 3

    def __init__(self, failure: SpawnFailure) -> None:
        super().__init__(failure.summary)
        self.failure = failure


class StartupStopped(PassengerError):
    """The server was told to stop while it started: nobody has failed, and there is no server."""

    exit_code = 0

    def __init__(self) -> None:
        super().__init__("stopped while it started")


class EnvironmentUnfit(PassengerError):
    """The machine lacks something that the supervisor cannot do without."""

    exit_code = 70


class AdminError(PassengerError):
    """The admin socket of an instance cannot be reached, or the instance refused."""

    exit_code = 1


class AdminRefused(PassengerError):
    """What was asked of the admin API cannot be done.

    :ivar status: of the answer.
    :ivar allow: of a method that is not possible: those that are.
    """

    def __init__(self, status: int, text: str, *, allow: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.allow = allow


class RequestError(PassengerError):
    """A request is refused before any application sees it (edge rules R1 to R20).

    ``code`` is a short stable word for logs and counters (``"bare_lf"``); the text never repeats the client's bytes (R26).
    After it nothing more is read as a request on that connection (R18).
    """

    def __init__(self, status: int, code: str, text: str, *, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.text = text
        self.headers = headers


class CheckoutError(PassengerError):
    """No process could be borrowed for a request. ``code`` is a short stable word for counters."""

    status = 503
    code = "no_process"
    retry_after: int | None = None


class RequestQueueFull(CheckoutError):
    """As many requests as allowed wait already for a process of this group."""

    code = "queue_full"
    retry_after = 1

    def __init__(self) -> None:
        super().__init__("too many requests wait for a process already")


class RequestQueueTimeout(CheckoutError):
    """No process became free for the request within the time that it may wait."""

    status = 504
    code = "queue_timeout"

    def __init__(self) -> None:
        super().__init__("no process became free in time")


class PoolShutDown(CheckoutError):
    """The pool is shutting down."""

    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class SpawnError(CheckoutError):
    """The application does not start. ``failure`` says what happened, how far it came, and what to try."""

    status = 500
    code = "spawn_failed"

    def __init__(self, failure: SpawnFailure) -> None:
        super().__init__(failure.summary)
        self.failure = failure


class AppResponseError(PassengerError):
    """A process answered badly: 502 when no response byte has gone to the client."""

    status = 502
    code = "bad_app_response"


class ProcessUnreachable(AppResponseError):
    """A process could not be reached; nothing was sent, so any request may be tried elsewhere (R30)."""

    code = "process_unreachable"


class ApplicationRaised(AppResponseError):
    """The application raised before it sent a response head; the process is well."""

    status = 500
    code = "application_raised"

    def __init__(self, name: str, message: str, traceback: str) -> None:
        super().__init__(f"the application raised {name}: {message}")
        self.name = name
        self.message = message
        self.traceback = traceback


class UnfitResponseHead(AppResponseError):
    """The application's response head cannot be sent as HTTP (R21, R24). The text names a header, never its value; the process is well."""

    status = 500
    code = "unfit_response_head"


class RequestTimeExceeded(AppResponseError):
    """The request lasted for longer than ``max_request_time``, or than ``max_drain_time`` in a process that was to go; its process was ended."""

    status = 504
    code = "request_time_exceeded"


class IncompleteResponse(AppResponseError):
    """A process went away before its response was whole."""

    code = "incomplete_response"


class MalformedResponse(AppResponseError):
    """A process broke the session protocol: it is not used again."""

    code = "malformed_response"


class SpillLost(AppResponseError):
    """What was buffered on disk for this exchange cannot be read back; only this one is lost (R35)."""

    code = "spill_lost"


class SpawnServerError(PassengerError):
    """A loader broke the control protocol of ``spawn_servers/CONTRACT.md``."""


class InvariantBroken(PassengerError):
    """A law of ``core/invariants.py`` does not hold. This is our bug."""

    exit_code = 70
