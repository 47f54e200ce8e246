"""Every error that passenger_trio raises on purpose.

The tree (``status`` is for HTTP clients, ``exit_code`` for shells)::

    PassengerError
     |- OptionError                exit 2   an option has an invalid value
     |- ConfigError                exit 2   a configuration file is unreadable or invalid
     |- NothingToServe             exit 4   no application was found
     |- BindError                  exit 5   cannot listen on an address
     |- StartupAborted             exit 3   the application did not start, and that is fatal
     |- StartupStopped             exit 0   the server was stopped during its start
     |- Forced                     exit 6   a second signal ended the server at once
     |- EnvironmentUnfit           exit 70  the machine lacks something (not Linux, kernel too old, no /proc)
     |- MissingExtra               exit 2   an optional dependency is not installed
     |- AdminError                 exit 1   the admin socket cannot be reached, or the instance refused
     |- AdminRefused               4xx      the admin API refuses a request
     |- NotFound                            a program asks for an application or a process that is not there
     |- NotPossible                         what a program, or an operator, wants of a process cannot be done
     |- RestartFailed                       a program waits for a restart, and the new version did not start
     |- RequestError               4xx/5xx  the client's bytes are refused
     |- CheckoutError              5xx      no process could be borrowed
     |   |- RequestQueueFull       503
     |   |- RequestQueueTimeout    504
     |   |- PoolShutDown           503
     |   `- SpawnError             500      the application does not start (has a SpawnFailure)
     |- AppResponseError           502      a process sent a bad response
     |   |- ApplicationRaised      500      the application raised before it sent a response head
     |   |- UnfitResponseHead      500      the response head is not valid HTTP (R21, R24)
     |   |- RequestTimeExceeded    504      the request lasted too long, and its process was killed
     |   |- ProcessUnreachable     502      nothing was sent: the socket refuses, or the process is gone
     |   |- IncompleteResponse     502      the process ended before its response was complete
     |   |- MalformedResponse      502      the process broke the session protocol
     |   `- SpillLost              502      buffered bytes on disk cannot be read back
     |- SpawnServerError                    a loader broke the control protocol
     `- InvariantBroken            exit 70  a law of core/invariants.py does not hold: our bug

Code raises the narrowest error, with its evidence in attributes. Errors that are *decided* (queue
full, spawn failed) are values of the policy, and the pool raises them at its interface. The codecs raise
the errors of bytes on the wire.
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
    "ApplicationRemoved",
    "BindError",
    "CheckoutError",
    "ConfigError",
    "EnvironmentUnfit",
    "Forced",
    "IncompleteResponse",
    "InvariantBroken",
    "MalformedResponse",
    "MissingExtra",
    "NotFound",
    "NotPossible",
    "NothingToServe",
    "OptionError",
    "PassengerError",
    "PoolShutDown",
    "ProcessUnreachable",
    "ReloadRefused",
    "RequestError",
    "RequestQueueFull",
    "RequestQueueTimeout",
    "RequestTimeExceeded",
    "RestartFailed",
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
    """An option has an invalid value; ``hint`` says which values are valid."""

    exit_code = 2

    def __init__(self, option: str, value: object, hint: str) -> None:
        super().__init__(f"{option}: {value!r} cannot be used: {hint}")
        self.option = option
        self.value = value
        self.hint = hint


class ConfigError(PassengerError):
    """A configuration file is unreadable or invalid. ``line`` 0: the error concerns no single line."""

    exit_code = 2

    def __init__(self, path: str, line: int, text: str) -> None:
        super().__init__(f"{path}:{line}: {text}" if line else f"{path}: {text}")
        self.path = path
        self.line = line


class NothingToServe(PassengerError):
    """No application was found; ``looked_for`` lists the names that detection tried. ``number``: which application
    of the configuration it is, if that is known.
    """

    exit_code = 4

    def __init__(self, message: str, looked_for: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.looked_for = looked_for
        self.number: int | None = None


class BindError(PassengerError):
    """Cannot listen on an address. The text names the program that holds it, if that is known."""

    exit_code = 5


class StartupAborted(PassengerError):
    """The application did not start, and ``abort_on_startup_error`` makes that fatal."""

    exit_code = 3

    def __init__(self, failure: SpawnFailure) -> None:
        super().__init__(failure.summary)
        self.failure = failure


class StartupStopped(PassengerError):
    """The server was told to stop during its start. Nothing failed, and there is no server."""

    exit_code = 0

    def __init__(self) -> None:
        super().__init__("stopped during its start")


class Forced(PassengerError):
    """A second signal ended the server before its requests were finished."""

    exit_code = 6


class EnvironmentUnfit(PassengerError):
    """The machine lacks something that the supervisor needs."""

    exit_code = 70


class MissingExtra(PassengerError):
    """A feature needs an optional dependency that is not installed; the text names the extra."""

    exit_code = 2


class ReloadRefused(PassengerError):
    """A running server cannot take over a configuration, and nothing was changed. ``lines``: one for each
    change that needs a new start of the server.
    """

    exit_code = 1

    def __init__(self, text: str, lines: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.lines = lines


class AdminError(PassengerError):
    """The admin socket of an instance cannot be reached, or the instance refused."""

    exit_code = 1


class AdminRefused(PassengerError):
    """The admin API cannot fulfil a request.

    :ivar status: the status of the answer.
    :ivar allow: the allowed methods, if the method is not one of them.
    """

    def __init__(self, status: int, text: str, *, allow: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.allow = allow


class NotFound(PassengerError):
    """There is no such application, or no such process."""


class NotPossible(PassengerError):
    """What is wanted cannot be done as things are. The text says why."""


class RestartFailed(PassengerError):
    """The version that a restart was to lead to did not start.

    :ivar generation: the one that failed.
    :ivar kept: whether the previous version keeps serving.
    :ivar failure: why; None: the attempts were given up.
    """

    def __init__(self, generation: int, kept: bool, failure: SpawnFailure | None) -> None:
        super().__init__(
            f"generation {generation} did not start{', and the one before it serves' if kept else ''}"
            f"{f': {failure.summary}' if failure is not None else ''}"
        )
        self.generation = generation
        self.kept = kept
        self.failure = failure


class RequestError(PassengerError):
    """A request is refused before any application sees it (edge rules R1 to R20).

    ``code`` is a short stable word for logs and counters (``"bare_lf"``). The text never repeats
    the client's bytes (R26). After this error, no more bytes of that connection are read as a
    request (R18).
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
    """The queue of this group is full."""

    code = "queue_full"
    retry_after: int | None = 1

    def __init__(self) -> None:
        super().__init__("too many requests wait for a process already")


class RequestQueueTimeout(CheckoutError):
    """No process became free within the time that the request may wait."""

    status = 504
    code = "queue_timeout"

    def __init__(self) -> None:
        super().__init__("no process became free in time")


class PoolShutDown(CheckoutError):
    """The pool is shutting down."""

    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class ApplicationRemoved(CheckoutError):
    """The application was removed while a request for it was on its way."""

    code = "application_removed"

    def __init__(self) -> None:
        super().__init__("the application was removed from this server")


class SpawnError(CheckoutError):
    """The application does not start. ``failure`` has the cause, how far the start came, and a suggestion."""

    status = 500
    code = "spawn_failed"

    def __init__(self, failure: SpawnFailure) -> None:
        super().__init__(failure.summary)
        self.failure = failure


class AppResponseError(PassengerError):
    """A process sent a bad response. The client gets 502 if no byte of a response was sent."""

    status = 502
    code = "bad_app_response"


class ProcessUnreachable(AppResponseError):
    """A process could not be reached. Nothing was sent, so any request may be tried on another
    process (R30).
    """

    code = "process_unreachable"


class ApplicationRaised(AppResponseError):
    """The application raised before it sent a response head. The process stays."""

    status = 500
    code = "application_raised"

    def __init__(self, name: str, message: str, traceback: str) -> None:
        super().__init__(f"the application raised {name}: {message}")
        self.name = name
        self.message = message
        self.traceback = traceback


class UnfitResponseHead(AppResponseError):
    """The application's response head is not valid HTTP (R21, R24). The text names a header, never
    its value. The process stays.
    """

    status = 500
    code = "unfit_response_head"


class RequestTimeExceeded(AppResponseError):
    """The request lasted longer than ``max_request_time``, or, in a leaving process, longer than
    ``max_drain_time``. Its process was ended.
    """

    status = 504
    code = "request_time_exceeded"


class IncompleteResponse(AppResponseError):
    """A process ended before its response was complete."""

    code = "incomplete_response"


class MalformedResponse(AppResponseError):
    """A process broke the session protocol. It is not used again."""

    code = "malformed_response"


class SpillLost(AppResponseError):
    """The bytes that were buffered on disk for this exchange cannot be read back. Only this
    exchange is lost (R35).
    """

    code = "spill_lost"


class SpawnServerError(PassengerError):
    """A loader broke the control protocol of ``spawn_servers/CONTRACT.md``."""


class BadFrontMessage(PassengerError):
    """A front said something that cannot be true."""


class InvariantBroken(PassengerError):
    """A law of ``core/invariants.py`` does not hold. This is our bug."""

    exit_code = 70
