"""Where a lint puts what it found: one JSON object a line, appended to the file in ``HARNESS_LINT``.

An append of one short line is atomic, so all processes of a server may share the file. A finding has
the rule's name and text, what the application did, and the request in which it did it.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

__all__ = ["Recorder"]

_LONGEST = 2000
"""Characters of a detail."""


class Recorder:
    """The findings of one request, or of the lifespan."""

    def __init__(self, rules: dict[str, str], request: str, request_id: str) -> None:
        self._rules = rules
        self._request = request
        self._id = request_id

    def add(self, rule: str, detail: Any) -> None:
        """The application has broken ``rule``: ``detail`` says how."""
        path = os.environ.get("HARNESS_LINT")
        if not path:
            return
        finding = {
            "rule": rule,
            "text": self._rules[rule],
            "detail": str(detail)[:_LONGEST],
            "request": self._request,
            "request_id": self._id,
            "pid": os.getpid(),
            "time": time.time(),
        }
        line = json.dumps(finding).encode() + b"\n"
        try:
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            return  # the harness has ended, and removed the file
        try:
            os.write(file, line)
        finally:
            os.close(file)
