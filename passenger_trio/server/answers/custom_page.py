"""Error pages of the embedding program's own (LI7).

Law: if the program gives no page, or fails, the client gets the usual one.
"""

from __future__ import annotations

from typing import Protocol

from passenger_trio.core.model import SpawnFailure
from passenger_trio.late_classes import frozen
from passenger_trio.server.answers.page_layout import Page

__all__ = ["ErrorPage", "FailedRequest"]


@frozen
class FailedRequest:
    """A request that the server answers itself, because there is no process or the application failed.

    :ivar status: of the response: 500, 502, 503, 504.
    :ivar id: of the request; it is also in the log and in ``X-Request-Id``.
    :ivar code: a short stable word: ``queue_full``, ``spawn_failed``, ``incomplete_response`` ...
    :ivar app: the application's name.
    :ivar path: the path as the client sent it.
    :ivar accept: the value of the client's ``Accept``, or ``""``.
    :ivar failure: why the application does not start, for ``spawn_failed``. Not for strangers (R26).
    """

    status: int
    id: str
    code: str
    app: str
    path: str
    accept: str
    failure: SpawnFailure | None


class ErrorPage(Protocol):
    """Returns the page of a failed request, or None for the usual one."""

    def __call__(self, request: FailedRequest, /) -> Page | None: ...
