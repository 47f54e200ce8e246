"""The log of one test: the server's events, and what the application writes."""

from __future__ import annotations

import re
from typing import Any

from passenger_trio.testing.harness import eventually
from passenger_trio.testing.live_app import LiveApp

__all__ = ["LiveLog"]


class LiveLog:
    """Made by the fixture ``passenger_log``."""

    def __init__(self, live_app: LiveApp) -> None:
        self._live_app = live_app

    @property
    def records(self) -> list[dict[str, Any]]:
        """Each line as its JSON object: ``time``, ``level``, ``logger``, ``event`` ..."""
        return self._live_app.log

    @property
    def events(self) -> list[str]:
        """The texts of the lines."""
        return [str(record["event"]) for record in self.records]

    @property
    def output(self) -> list[str]:
        """The lines that the application has written to standard output and standard error."""
        return self._live_app.output()

    def wait(self, pattern: str, timeout: float = 10.0) -> str:
        """The first text that matches a regular expression. Lines come a moment after what they tell of.

        :raises AssertionError: there is none in time.
        """
        compiled = re.compile(pattern)
        return eventually(
            lambda: next((event for event in self.events if compiled.search(event)), ""),
            timeout,
            f"a log line that matches {pattern!r}; the log has: {self.events[-20:]}",
        )
