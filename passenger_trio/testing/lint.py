"""What the lints at the boundaries found: the application against its interface, and responses
against HTTP.

The interface is checked inside of the process (``worker/``), which appends its findings to a file:
WSGI by ``wsgiref.validate``'s checks, ASGI by an automaton, Rack by ``Rack::Lint``. Responses are
checked here by httplint, which knows the fields and the caching rules of the RFCs; a server that
checks itself would check what it believes.

A finding is what a standard forbids. Advice (httplint's warnings, but for a field whose syntax is
wrong) is none.
"""

from __future__ import annotations

import html
import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from passenger_trio.late_classes import frozen
from passenger_trio.testing.faults.plan import WRAPPER
from passenger_trio.testing.run_directory import run_directory

__all__ = ["Finding", "LintFile", "lint_response"]

Fields = Iterable[tuple[bytes, bytes]]


@frozen
class Finding:
    """One violation.

    :ivar rule: its name, such as ``asgi.start-twice`` or ``http.BAD_SYNTAX``.
    :ivar text: the rule itself, with its source.
    :ivar detail: what the application did.
    :ivar request: method and path.
    """

    rule: str
    text: str
    detail: str
    request: str
    request_id: str = ""
    pid: int = 0
    time: float = 0.0

    def __str__(self) -> str:
        return f"{self.request}: {self.detail} [{self.rule}]\n    {self.text}"


class LintFile:
    """The file to which the application's processes append. ``environment`` is for their start."""

    def __init__(self, directory: Path | None = None) -> None:
        """:param directory: where to make it (default: that of the run)."""
        descriptor, self.path = tempfile.mkstemp(prefix="lint-", dir=directory or run_directory())
        os.close(descriptor)

    @property
    def environment(self) -> dict[str, str]:
        return {"HARNESS_WRAPPER": str(WRAPPER), "HARNESS_LINT": self.path}

    def mark(self) -> int:
        """Where the next findings begin."""
        return os.path.getsize(self.path)

    def since(self, mark: int) -> list[Finding]:
        """The findings after a mark, each violation of a request once."""
        with open(self.path, "rb") as file:
            file.seek(mark)
            *lines, _ = file.read().split(b"\n")
        return list(dict.fromkeys(Finding(**json.loads(line)) for line in lines))

    def close(self) -> None:
        Path(self.path).unlink(missing_ok=True)


def lint_response(
    method: bytes,
    target: bytes,
    request_fields: Fields,
    status: int,
    reason: bytes,
    fields: Fields,
    body: bytes,
    *,
    complete: bool = True,
) -> list[Finding]:
    """Check one response, as the client got it.

    :param body: without its transfer coding.
    :raises ImportError: httplint is not installed (the extra ``testing`` has it).
    """
    try:
        from httplint import HttpRequestLinter, HttpResponseLinter
        from httplint.note import levels
    except ImportError:
        raise ImportError("checking responses needs httplint: pip install 'passenger-trio[testing]'") from None
    request: Any = HttpRequestLinter()
    request.process_request_topline(method, target, b"HTTP/1.1")
    request.process_headers(list(request_fields))
    request.finish_content(True)
    linter: Any = HttpResponseLinter(_related=request, no_content=not complete or method == b"HEAD" or status == 304)
    linter.process_response_topline(b"HTTP/1.1", b"%d" % status, reason)
    linter.process_headers(list(fields))
    linter.feed_content(body)
    linter.finish_content(complete)
    where = f"{method.decode('latin-1')} {target.decode('latin-1')}"
    return [
        Finding(f"http.{type(note).__name__}", _plain(note.detail), str(note.summary), where)
        for note in linter.notes
        if note.level is levels.BAD or type(note).__name__ == "BAD_SYNTAX"
    ]


def _plain(markup: str) -> str:
    """The text of a note, with the addresses that it links to."""
    linked = re.sub(r'<a href="([^"]*)">([^<]*)</a>', r"\2 (\1)", str(markup))
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", linked)).split())
