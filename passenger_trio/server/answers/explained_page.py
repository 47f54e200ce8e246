"""The page that explains why a request found no process, or lost it: a crash, a full queue, a timeout (OB10).

The page says what happened and what to try, how the process ended and what it wrote, and what the application's processes are
doing. It is for development; ``answer_errors`` decides who may see it.

Law: texts of the application, and paths of requests, are shown without their secrets (``core/redaction.py``). Queries of
requests are not shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from passenger_trio.core.evidence import Evidence
from passenger_trio.core.redaction import redact_text, redact_value
from passenger_trio.late_classes import frozen
from passenger_trio.server.answers.error_page import (
    STATUS,
    WHY_SHOWN,
    Rejected,
    duration,
    json_page,
    rejected_members,
    rejected_section,
    shown,
    text_block,
)
from passenger_trio.server.answers.page_layout import Page, document, paragraphs, section, table, wants_json

__all__ = ["Failed", "OtherRequest", "explained_page"]

_MOST = 12
"""Requests that are shown, the oldest first."""


@frozen
class OtherRequest:
    """A request in flight of the same application."""

    method: str
    path: str
    stage: str
    age: float
    """Seconds."""
    pid: int
    """0: no process has it."""


@frozen
class Failed:
    """A request that failed.

    :ivar id: of the request; it is also in the log.
    :ivar code: of the error (``errors.py``).
    :ivar text: of the error.
    :ivar pid: of the process that had the request; 0: none had it.
    :ivar evidence: what the pool knows; None: nothing.
    """

    status: int
    id: str
    code: str
    text: str
    pid: int = 0
    retry_after: int | None = None
    evidence: Evidence | None = None
    others: Sequence[OtherRequest] = ()
    rejected: Rejected | None = None


_CAPACITY = (
    "Look below at what the processes are doing. Make these requests faster, or let more of them run at a time: more "
    "processes (--max-pool-size, --max-instances), more threads (--thread-count)"
)

_TABLE: dict[str, tuple[str, Callable[[Failed], str]]] = {
    "incomplete_response": (
        "The process did not finish its response",
        lambda failed: (
            "Look at what it wrote, below, and for what ended it: a call of exit, a signal, a crash of an extension "
            "module, the kernel's OOM killer (dmesg)."
            if failed.evidence is not None and failed.evidence.end is not None
            else "Look in the log for what became of the process, and in the application for what closes its connection."
        ),
    ),
    "process_unreachable": (
        "No process could be reached",
        lambda _: "Look at what the processes write, and for what ends them or removes their sockets.",
    ),
    "malformed_response": (
        "The process broke the protocol between it and the server",
        lambda _: (
            "Look for code that writes to descriptors that are not its own, or that forks and lets the child go on in the "
            "application."
        ),
    ),
    "unfit_response_head": (
        "The response is not valid HTTP",
        lambda _: "Correct the status or the header that is named above, where the application sets it.",
    ),
    "request_time_exceeded": (
        "The request took too long",
        lambda failed: (
            f"{_limit(failed, 'max_request_time', 's')}Make the request faster, move its work into a background job, or raise "
            "the limit. With --slow-request-time 5s the log has the stack of the process while a request lasts."
        ),
    ),
    "spill_lost": (
        "A buffer on disk could not be read",
        lambda _: "Look in the log for the error of the file system; --data-buffer-dir chooses another directory.",
    ),
    "queue_full": (
        "Too many requests wait for a process",
        lambda failed: (
            f"{_limit(failed, 'max_request_queue_size', 'requests')}{_CAPACITY}. A longer queue "
            "(--max-request-queue-size) only lets clients wait longer."
        ),
    ),
    "queue_timeout": (
        "No process became free in time",
        lambda failed: (
            f"{_limit(failed, 'max_request_queue_time', 's')}{_CAPACITY}. --max-request-queue-time lets requests wait longer."
        ),
    ),
    "no_process": (
        "No process could be borrowed",
        lambda _: "Raise the limit on open files of the server (ulimit -n), and look in the log for what is short.",
    ),
    "shutting_down": ("The server is stopping", lambda _: "Start it again, and load this page again."),
    "application_removed": (
        "The application was removed from this server",
        lambda _: "Add it to the configuration again, and reload: passenger-trio reload.",
    ),
}
"""The code of an error -> the title, and what to try."""


def explained_page(failed: Failed, accept: bytes = b"") -> Page:
    """:param accept: value of the request's ``Accept``."""
    summary, what_to_try = _TABLE.get(failed.code, ("The request was not served", lambda _: "Look in the log."))
    solution = what_to_try(failed)
    text = redact_text(failed.text)
    if text and not text.endswith("."):
        text += "."
    ending = _ending(failed)
    output = redact_text("\n".join(failed.evidence.output)) if failed.evidence is not None else ""
    rejected = shown(failed.rejected)
    title = STATUS.get(failed.status, (f"Error {failed.status}", ""))[0]
    if wants_json(accept):
        members = {"status": failed.status, "title": title, "detail": text, "id": failed.id, "code": failed.code}
        more = {"summary": summary, "solution": solution, "retry_after": failed.retry_after, "pid": failed.pid or None}
        found = {"ending": ending, "output": output.split("\n") if output else [], **_pool_members(failed)}
        return json_page({**members, **more, **found, **rejected_members(rejected)})
    return document(
        summary,
        f"{failed.status} {title}",
        "".join(
            [
                section("What happened", paragraphs(text[:1].upper() + text[1:]) + paragraphs(ending)),
                section("What to try", paragraphs(solution), hopeful=True),
                rejected_section(rejected),
                section("What it wrote", text_block(output)),
                section("Requests of the application", _requests(failed.others)),
                section("Processes of the application", _processes(failed.evidence)),
            ]
        ),
        f"Error ID: {failed.id} (also in the log). {WHY_SHOWN}",
    )


def _limit(failed: Failed, name: str, unit: str) -> str:
    """The limit as a sentence; empty if it is unknown, or there is none."""
    value = getattr(failed.evidence.limits, name) if failed.evidence is not None else 0
    unit = unit.removesuffix("s") if value == 1 and unit != "s" else unit
    return f"The limit is {value:g} {unit} (--{name.replace('_', '-')}). " if value else ""


def _ending(failed: Failed) -> str:
    if not failed.pid or failed.evidence is None:
        return ""
    end = failed.evidence.end
    if end is None:
        return f"Process {failed.pid} had the request."
    return f"Process {failed.pid} ended: {end.how}{f' ({end.reason})' if end.reason else ''}."


def _requests(others: Sequence[OtherRequest]) -> str:
    rows = [
        (
            f"{one.method} {redact_value(one.path)}",
            f"{one.stage}, {duration(one.age)}",
            f"pid {one.pid}" if one.pid else "",
        )
        for one in others[:_MOST]
    ]
    more = paragraphs(f"and {len(others) - _MOST} more") if len(others) > _MOST else ""
    return table(rows) + more


def _processes(evidence: Evidence | None) -> str:
    if evidence is None:
        return ""
    rows = [
        (
            f"pid {one.pid}",
            f"{one.sessions}{f' of {one.concurrency}' if one.concurrency else ''} in progress",
            f"{one.processed} served in {duration(one.age)}",
            "" if one.state == "enabled" else one.state,
        )
        for one in evidence.processes
    ]
    counts = (
        f"{len(evidence.processes)} of {evidence.most_processes} processes, {evidence.starting} starting; "
        f"{evidence.waiting} request{' waits' if evidence.waiting == 1 else 's wait'}."
    )
    return paragraphs(counts) + table(rows)


def _pool_members(failed: Failed) -> dict[str, Any]:
    evidence = failed.evidence
    if evidence is None:
        return {}
    return {
        "processes": [attrs.asdict(one) for one in evidence.processes],
        "most_processes": evidence.most_processes,
        "starting": evidence.starting,
        "waiting": evidence.waiting,
        "requests": [{**attrs.asdict(one), "path": redact_value(one.path)} for one in failed.others[:_MOST]],
    }
