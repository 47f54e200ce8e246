"""The answers of ``/v1/requests`` and ``/v1/memory`` -> the tables that the commands print. Pure. A
missing member shows as a dash, as in ``render``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from passenger_trio.admin.render_status import human_memory

__all__ = ["render_memory", "render_requests"]


def render_requests(answer: Mapping[str, Any]) -> str:
    """One line per request, the oldest first."""
    rows = [
        (
            _seconds(request.get("age")),
            _seconds(request.get("in_stage")),
            str(request.get("stage", "-")),
            str(request.get("pid") or "-"),
            str(request.get("group", "-")),
            str(request.get("client", "-")),
            f"{request.get('method', '-')} {request.get('path', '-')}",
            *_buffered(request.get("buffered") or {}),
            *_relayed(request.get("relay") or {}),
            str(request.get("id", "-")),
        )
        for request in answer.get("requests", [])
    ]
    if not rows:
        return "No request is in flight.\n"
    return _table(
        (
            "AGE",
            "IN STAGE",
            "STAGE",
            "PID",
            "GROUP",
            "CLIENT",
            "REQUEST",
            "HELD UP",
            "HELD DOWN",
            "UP",
            "DOWN",
            "SILENT",
            "ID",
        ),
        rows,
    )


def render_memory(answer: Mapping[str, Any]) -> str:
    """One line per process, and one line per group for the memory that its processes share."""
    rows = []
    supervisor = answer.get("supervisor")
    if supervisor:
        rows.append(("supervisor", *_sizes(supervisor)))
    notes = []
    for group in answer.get("groups", []):
        name = f"{group.get('name', '-')} ({group.get('environment', '-')})"
        processes = group.get("processes", [])
        rows += [(f"{process.get('role', '-')} of {name}", *_sizes(process)) for process in processes]
        total = sum(process.get("pss") or process.get("rss") or 0 for process in processes)
        saved = group.get("saved")
        note = f"; {human_memory(saved)} more if nothing were shared (copy-on-write)" if saved is not None else ""
        notes.append(f"{name}: {human_memory(total)} in {len(processes)} processes{note}")
    return (
        _table(("PROCESS", "PID", "PSS", "USS", "RSS", "SHARED"), rows) + "\n" + "".join(f"{note}\n" for note in notes)
    )


def _sizes(process: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(process.get("pid", "-")),
        *(human_memory(process.get(name)) for name in ("pss", "uss", "rss", "shared")),
    )


def _buffered(buffered: Mapping[str, Any]) -> tuple[str, str]:
    """The bytes buffered for the application, and for the client. ``64K+3.0M`` is in memory and on
    disk; ``-``: none.
    """
    return _held(buffered.get("request") or {}), _held(buffered.get("response") or {})


def _held(held: Mapping[str, Any]) -> str:
    memory, disk = held.get("memory"), held.get("disk")
    if not memory and not disk:
        return "-"
    return _bytes(memory) + (f"+{_bytes(disk)}" if disk else "")


def _bytes(size: Any) -> str:
    if not isinstance(size, int):
        return "-"
    for unit, scale in (("G", 1024**3), ("M", 1024**2), ("K", 1024)):
        if size >= scale:
            return f"{size / scale:.1f}".removesuffix(".0") + unit
    return str(size)


def _relayed(relay: Mapping[str, Any]) -> tuple[str, str, str]:
    """An upgraded connection: bytes to the application, bytes to the client, seconds since the last
    of them.
    """
    return str(relay.get("bytes_up", "-")), str(relay.get("bytes_down", "-")), _seconds(relay.get("idle"))


def _seconds(value: Any) -> str:
    return f"{value:.2f}s" if isinstance(value, int | float) else "-"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, *rows]
    printable = [["".join(char if char.isprintable() else "?" for char in cell) for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in printable) for column in range(len(titles))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in printable
    )
