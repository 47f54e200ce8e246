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

    def wait_access(self, pattern: str, timeout: float = 10.0) -> dict[str, Any]:
        """The first line of the access log whose request (``GET /items?page=2``) matches a regular expression, as its JSON object: ``status``, ``pid``,
        ``duration``, ``queue_time`` ... It comes a moment after the response. (The server has an access log unless ``--passenger-trace`` is off.)

        :raises AssertionError: there is none in time.
        """
        compiled = re.compile(pattern)

        def find() -> dict[str, Any] | None:
            access = (record for record in self.records if record.get("event") == "access")
            return next(
                (record for record in access if compiled.search(f"{record['method']} {record['target']}")), None
            )

        found = eventually(find, timeout, f"a line of the access log that matches {pattern!r}")
        assert found is not None
        return found
