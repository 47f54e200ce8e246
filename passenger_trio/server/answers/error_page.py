"""The text of an error page, as HTML or, for clients that prefer it, as JSON.

Law (R26): a page that explains (``explain``) is for development: it shows the evidence of a failed
start, or a traceback. Without ``explain`` a page has a status, a sentence from a table, and an
error id that is also in the log; it shows nothing of the exception, the environment, a path, or any
request. Pages of requests that found no process, or lost it: ``explained_page``. Texts of the application lose their secrets here
(``core/redaction.py``); the environment of a ``SpawnFailure`` is already redacted.

If the last restart was rejected, a page that explains says so: the older version failed this
request, and the newer one did not start for the reason shown.

The sender of a page adds status and framing; every ``Page`` has a content type and a body.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import attrs

from passenger_trio.core.journey import Journey, StepState
from passenger_trio.core.model import SpawnFailure
from passenger_trio.core.redaction import redact_text, redact_value
from passenger_trio.late_classes import frozen
from passenger_trio.server.answers.page_layout import (
    Page,
    document,
    escape,
    paragraphs,
    preformatted,
    section,
    small_document,
    table,
    wants_json,
)

__all__ = [
    "STATUS",
    "WHY_SHOWN",
    "Page",
    "Rejected",
    "application_error_page",
    "duration",
    "json_page",
    "plain_error",
    "rejected_members",
    "rejected_section",
    "shown",
    "spawn_failure_page",
    "text_block",
]

STATUS: dict[int, tuple[str, str]] = {
    400: ("Bad Request", "The request could not be understood."),
    403: ("Forbidden", "This may not be asked for."),
    404: ("Not Found", "There is nothing here."),
    405: ("Method Not Allowed", "This method is not possible here."),
    408: ("Request Timeout", "The request did not arrive in time."),
    413: ("Content Too Large", "The request is larger than is allowed here."),
    414: ("URI Too Long", "The address of the request is longer than is allowed here."),
    417: ("Expectation Failed", "The expectation of the request cannot be met."),
    426: ("Upgrade Required", "This is spoken here in another version of the protocol."),
    429: ("Too Many Requests", "There were too many requests. Try again in a moment."),
    431: ("Request Header Fields Too Large", "The header of the request is larger than is allowed here."),
    500: ("Internal Server Error", "Something went wrong on the server. It has been written down there."),
    501: ("Not Implemented", "The server does not know how to do this."),
    502: ("Bad Gateway", "The application gave no proper answer."),
    503: ("Service Unavailable", "The server cannot answer at the moment. Try again in a moment."),
    504: ("Gateway Timeout", "The application did not answer in time."),
    505: ("HTTP Version Not Supported", "Only HTTP/1.0 and HTTP/1.1 are spoken here."),
}
_MARKS = {
    StepState.PERFORMED: "✓",
    StepState.ERRORED: "✗",
    StepState.IN_PROGRESS: "…",
    StepState.NOT_STARTED: "·",
}
WHY_SHOWN = (
    "This page is shown because error pages explain themselves here (as in development); otherwise only the id is."
)


@frozen
class Rejected:
    """A newer version of the application that did not start, so that the older one still serves."""

    failure: SpawnFailure | None
    age: float
    """Seconds."""


def plain_error(status: int, *, error_id: str = "", accept: bytes = b"", text: str = "") -> Page:
    """The page of a status, without a diagnosis.

    :param error_id: an id that is also in the log.
    :param accept: value of the request's ``Accept``.
    :param text: a sentence of ours that replaces the table's; never any part of the request.
    """
    as_json = wants_json(accept) if accept else False
    if error_id:
        return _plain(status, error_id, as_json, text)
    return _plain_cached(status, as_json, text)


def spawn_failure_page(
    failure: SpawnFailure,
    *,
    explain: bool,
    accept: bytes = b"",
    retry_after: float | None = None,
    rejected: Rejected | None = None,
) -> Page:
    """The page of an application that does not start (status 500).

    :param explain: show the evidence; else only the error id.
    :param accept: value of the request's ``Accept``.
    :param retry_after: seconds until the next attempt, if known.
    """
    if not explain:
        return plain_error(500, error_id=failure.error_id, accept=accept)
    failure, rejected = _without_secrets(failure), shown(rejected)
    if wants_json(accept):
        return json_page({**_failure_members(failure, retry_after), **rejected_members(rejected)})
    return document(
        failure.summary or "The application does not start",
        "The application does not start",
        "".join(
            [
                section("What happened", paragraphs(failure.problem) + paragraphs(_ending(failure))),
                section(
                    "What to try",
                    paragraphs(failure.solution) + paragraphs(_next_attempt(retry_after)),
                    hopeful=True,
                ),
                rejected_section(rejected),
                section("Traceback", _traceback(failure.traceback)),
                section("How far it came", _journey(failure.journey)),
                section("What it wrote", text_block("\n".join(failure.output))),
                section("Details", text_block(failure.details)),
                section("Command", text_block(" ".join(failure.command)), folded=True),
                section("Environment (secrets are left out)", table(failure.environment), folded=True),
            ]
        ),
        f"Error ID: {failure.error_id} (also in the log). {WHY_SHOWN}",
    )


def application_error_page(
    error_id: str,
    class_name: str,
    message: str,
    traceback: str,
    *,
    explain: bool,
    accept: bytes = b"",
    rejected: Rejected | None = None,
) -> Page:
    """The page of a request for which the application raised an exception (status 500).

    :param class_name: of the exception. The worker reported it, as well as ``message`` and
        ``traceback``.
    :param explain: show them; else only the error id.
    :param accept: value of the request's ``Accept``.
    """
    if not explain:
        return plain_error(500, error_id=error_id, accept=accept)
    message, traceback, rejected = redact_text(message), redact_text(traceback), shown(rejected)
    if wants_json(accept):
        members = {"type": class_name, "message": message, "traceback": traceback}
        about = {"status": 500, "title": "The application raised an exception", "id": error_id}
        return json_page({**about, **members, **rejected_members(rejected)})
    return document(
        f"{class_name}: {message}" if message else class_name,
        "The application raised an exception",
        rejected_section(rejected) + section("Traceback", _traceback(traceback)),
        f"Error ID: {error_id} (also in the log). {WHY_SHOWN}",
    )


def _without_secrets(failure: SpawnFailure) -> SpawnFailure:
    return attrs.evolve(
        failure,
        summary=redact_text(failure.summary),
        problem=redact_text(failure.problem),
        solution=redact_text(failure.solution),
        traceback=redact_text(failure.traceback),
        output=tuple(redact_text("\n".join(failure.output)).split("\n")) if failure.output else (),
        details=redact_text(failure.details),
        command=tuple(map(redact_value, failure.command)),
    )


def shown(rejected: Rejected | None) -> Rejected | None:
    if rejected is None or rejected.failure is None:
        return rejected
    return attrs.evolve(rejected, failure=_without_secrets(rejected.failure))


def rejected_section(rejected: Rejected | None) -> str:
    if rejected is None:
        return ""
    failure = rejected.failure
    why = "" if failure is None else f"{failure.summary} (error {failure.error_id})"
    return section(
        "A newer version was rejected",
        paragraphs(
            f"The last restart, {duration(rejected.age)} ago, came to nothing. The previous version keeps serving, and this page is of that one.\n\n{why}"
        )
        + ("" if failure is None else paragraphs(failure.problem) + _traceback(failure.traceback)),
    )


def rejected_members(rejected: Rejected | None) -> dict[str, Any]:
    if rejected is None:
        return {}
    failure = rejected.failure
    why = {} if failure is None else {"id": failure.error_id, "summary": failure.summary, "problem": failure.problem}
    return {"rejected": {"age": rejected.age, **why, "traceback": "" if failure is None else failure.traceback}}


def _plain(status: int, error_id: str, as_json: bool, text: str) -> Page:
    title, usual_text = STATUS.get(status, (f"Error {status}", "The request could not be served."))
    if as_json:
        members: dict[str, Any] = {"status": status, "title": title, "detail": text or usual_text}
        return json_page({**members, "id": error_id} if error_id else members)
    return small_document(f"{status} {title}" if status in STATUS else title, text or usual_text, error_id)


_plain_cached = lru_cache(maxsize=256)(lambda status, as_json, text: _plain(status, "", as_json, text))


def json_page(members: dict[str, Any]) -> Page:
    text = json.dumps({"error": members}, indent=2)
    return Page(b"application/json", text.encode("ascii") + b"\n")


def _failure_members(failure: SpawnFailure, retry_after: float | None) -> dict[str, Any]:
    return {
        "status": 500,
        "title": "The application does not start",
        "id": failure.error_id,
        "category": failure.category.value,
        "summary": failure.summary,
        "problem": failure.problem,
        "solution": failure.solution,
        "retry_after": retry_after,
        "exit_status": failure.exit_status,
        "journey": {
            "type": failure.journey.type.value,
            "steps": [
                {"name": step.name, "title": step.title, "state": step.state.value, "duration": step.duration}
                for step in failure.journey.steps
            ],
        },
        "traceback": failure.traceback,
        "output": list(failure.output),
        "details": failure.details,
        "command": list(failure.command),
        "environment": dict(failure.environment),
    }


def _ending(failure: SpawnFailure) -> str:
    return f"The program ended: {failure.exit_status}." if failure.exit_status else ""


def _next_attempt(retry_after: float | None) -> str:
    if retry_after is None:
        return "When it is mended, load this page again: the application is then started anew."
    return f"The next attempt to start it is in {max(retry_after, 0.0):.1f} s. When it is mended, load this page again."


def _traceback(traceback: str) -> str:
    """Highlights the last line, which names the exception."""
    text = traceback.rstrip()
    if not text:
        return ""
    above, newline, last = text.rpartition("\n")
    return f"<pre>{escape(above)}{newline}<b>{escape(last)}</b></pre>"


def text_block(text: str) -> str:
    return preformatted(text) if text.strip() else ""


def _journey(journey: Journey) -> str:
    return "<ol>{}</ol>".format(
        "".join(
            f'<li class="{step.state.value}"><span>{_MARKS[step.state]}</span><span>{escape(step.title)}</span>'
            f"<time>{duration(step.duration)}</time></li>"
            for step in journey.steps
        )
    )


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
