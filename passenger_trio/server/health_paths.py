"""Paths of the public listeners at which the server answers its health (``--health-path``, OB3).

The server answers such a request itself, whatever application is mounted at the path. Anybody may ask, so
the answer names no application and no reason (R26); the admin socket gives both. The request belongs to no application:
it is not counted, and is not in the access log.

Laws: without the option there is no such path. A path is compared byte for byte, without decoding: any other spelling
of it goes to the application."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from passenger_trio.core.health import QUESTIONS
from passenger_trio.errors import OptionError

__all__ = ["Ask", "HealthPaths", "paths_of_health"]

Ask = Callable[[str, bool], Awaitable[tuple[int, bytes]]]
"""Question (``core.health.QUESTIONS``), with a line for each check -> status and text."""

_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~!$&'()*+,;=:@-]+)*/?")


def paths_of_health(prefix: str) -> dict[bytes, str]:
    """Path -> question.

    :param prefix: ``/-/health`` for ``/-/health/livez``; ``/`` for ``/livez``.
    :raises OptionError: ``prefix`` is no path.
    """
    if not prefix.startswith("/") or not _PREFIX.fullmatch(prefix):
        raise OptionError(
            "--health-path", prefix, "a path as it stands in a URL, from its first slash on, without escapes: /-/health"
        )
    return {f"{prefix.rstrip('/')}/{question}".encode("ascii"): question for question in QUESTIONS}


class HealthPaths:
    """The paths, and the function that answers."""

    def __init__(self, prefix: str, ask: Ask) -> None:
        """:raises OptionError: see ``paths_of_health``."""
        self.ask = ask
        self.question_at: Callable[[bytes], str | None] = paths_of_health(prefix).get
