"""The dashboard as one HTML document: its style, its script, and the tables that work without either (OB8).

``fragment`` is the part that changes. The server sends it as a whole after each change.

Laws: all text is escaped. The document loads nothing from elsewhere, and its Content-Security-Policy forbids that. The
policy forbids ``style`` attributes, too, so bars are SVG. Buttons are there only for readers with rights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from passenger_trio.dashboard.view import SIGNS, age, app_standing, by_attention, count, size, standing, waiting
from passenger_trio.system.times import utc_second

__all__ = ["document", "fragment", "policy"]

Json = Mapping[str, Any]

_REFRESH = 5
"""Seconds between two looks of a browser without JavaScript."""
_SHOWN = 60
"""Rows of a table."""
_FEW = 8
"""Up to so many applications are all shown in full. With more, quiet ones are shown in short."""
_STATES = {
    "busy": ("●", "busy"),
    "idle": ("○", "idle"),
    "disabled": ("◇", "disabled"),
    "out-of-band work": ("◔", "out-of-band work"),
    "stopping": ("◌", "leaving"),
}


def policy(nonce: str) -> str:
    """The Content-Security-Policy of the document."""
    return (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


@cache
def _asset(name: str) -> str:
    return files("passenger_trio.dashboard").joinpath(name).read_text("utf-8")


def document(body: str, nonce: str, title: str) -> str:
    """The whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">'
        '<meta name="referrer" content="no-referrer">'
        f'<noscript><meta http-equiv="refresh" content="{_REFRESH}"></noscript>'
        f'<title>{escape(title)}</title><style nonce="{nonce}">{_asset("style.css")}</style></head>\n'
        f'<body><div id="live">{body}</div>'
        f'<script nonce="{nonce}">{_asset("script.js")}</script></body></html>\n'
    )


def fragment(name: str, status: Json, requests: Sequence[Json], history: Json, *, controls: bool) -> str:
    """The changing part of the page. :param controls: whether there are buttons."""
    told = standing(status, requests)
    parts = [
        _head(name, status),
        f'<main><p class="sentence {told.level}"><span class="sign" aria-hidden="true">{SIGNS[told.level]}</span> '
        f"{escape(told.text)}</p>",
        _numbers(status, requests),
        _applications(status, controls),
        '<div class="columns"><div>',
        _waiting(requests),
        _in_flight(requests),
        "</div><div>",
        _failures(history),
        _restarts(history),
        _happened(history),
        "</div></div></main>",
    ]
    return "".join(parts)


def _head(name: str, status: Json) -> str:
    addresses = " ".join(escape(address) for address in status["addresses"])
    return (
        f'<header><h1>{escape(name)}</h1><p>{addresses} <span class="dim">pid {status["pid"]}, up {age(status["uptime"])}, '
        f"passenger_trio {escape(status['version'])}</span></p></header>"
    )


def _numbers(status: Json, requests: Sequence[Json]) -> str:
    pool = status["pool"]
    refused = sum(status["requests"]["rejected"].values())
    cells = (
        ('<a href="#applications">processes</a>', f"{pool['size']} of {pool['max']}"),
        ('<a href="#waiting">waiting</a>', pool["queue"]),
        ('<a href="#flights">in flight</a>', len(requests)),
        ("connections", status["connections"]["open"]),
        ("requests", status["requests"]["total"]),
        ("errors of the server", refused),
    )
    return (
        '<dl class="numbers">'
        + "".join(f"<div><dt>{word}</dt><dd>{value}</dd></div>" for word, value in cells)
        + "</dl>"
    )


# -- applications -----------------------------------------------------------------------------------------------------------


def _applications(status: Json, controls: bool) -> str:
    most = max((_memory(process) for group in status["groups"] for process in group["processes"]), default=1) or 1
    everything = _button("Restart all", "restart") if controls and len(status["groups"]) > 1 else ""
    lists = []
    for kind, groups in by_attention(status["groups"], _FEW).items():
        rows = "".join(_application(group, most, controls) for group in groups)
        body = f'<ul class="apps {kind}">{rows}</ul>'
        if kind == "asleep":
            body = f'<details id="asleep"><summary>{count(len(groups), "application")} without a process, until a request comes</summary>{body}</details>'
        lists.append(body)
    return f'<section id="applications"><h2>Applications {_json("status")} {everything}</h2>{"".join(lists)}{_legend()}</section>'


def _legend() -> str:
    signs = " ".join(
        f'<span class="key"><span aria-hidden="true">{sign}</span> {word}</span>' for sign, word in _STATES.values()
    )
    return (
        f'<p class="legend dim">{signs} <span class="key">◍ starting</span> <span class="key">upper bar: sessions in use</span> '
        '<span class="key">lower bar: memory, hatched what it shares</span></p>'
    )


def _application(group: Json, most: int, controls: bool) -> str:
    told = app_standing(group)
    name = f"{group['name']} ({group['environment']})"
    tiles = "".join(_tile(process, most) for process in group["processes"])
    tiles += '<li class="tile starting"><b aria-hidden="true">◍</b> <span>starting</span></li>' * group["spawning"]
    waits = f'<span class="waits">{group["queue"]} wait</span>' if group["queue"] else ""
    restart = _button("Restart", "restart", group=name) if controls else ""
    key = escape(f"app-{name}", quote=True)
    table = _processes(group["processes"], controls)
    return (
        f'<li class="app {told.level}"><div class="who"><h3><span class="sign" aria-hidden="true">{SIGNS[told.level]}</span> '
        f"{escape(group['name'])}</h3><p>{escape(told.text)} {waits}</p>"
        f'<p class="dim">{escape(group["environment"])}, generation {group["generation"]}</p>{restart}</div>'
        f'<ul class="strip">{tiles}</ul>'
        f'<details id="{key}"><summary>Processes of {escape(group["name"])}</summary>{table}</details></li>'
    )


def _state(process: Json) -> tuple[str, str]:
    state = process["state"]
    return _STATES["busy" if process["sessions"] else "idle"] if state == "running" else _STATES[state]


def _memory(process: Json) -> int:
    memory = process["memory"]
    return int(memory["pss"] or memory["rss"]) if memory else 0


def _memory_words(process: Json) -> str:
    """A process's memory: its PSS, its private part, and the part that it shares with others."""
    memory = process["memory"]
    if not memory or memory["uss"] is None:
        return size(_memory(process))
    return f"{size(_memory(process))}, own {size(memory['uss'])}, shared {size(max(0, memory['rss'] - memory['uss']))}"


def _tile(process: Json, most: int) -> str:
    sign, word = _state(process)
    share = process["sessions"] / process["concurrency"] if process["concurrency"] else float(process["sessions"] > 0)
    memory, pss = process["memory"], _memory(process)
    own = min(pss, memory["uss"]) if memory and memory["uss"] is not None else pss
    note = f"pid {process['pid']}, generation {process['generation']}: {word}, {share:.0%} of its sessions in use, {_memory_words(process)}"
    return (
        f'<li class="tile {"busy" if process["sessions"] else "idle"} shade{process["generation"] % 3}" title="{escape(note, quote=True)}">'
        f'<b aria-hidden="true">{sign}</b> <span>{process["pid"] or "?"}</span><small>g{process["generation"]}</small>'
        f"{_bar(share)}{_bar(own / most, (pss - own) / most)}</li>"
    )


def _bar(solid: float, hatched: float = 0.0) -> str:
    width = 100 * min(1.0, solid)
    rest = (
        f'<rect class="hatched" x="{width:.1f}" width="{100 * min(1.0 - width / 100, hatched):.1f}" height="6"/>'
        if hatched
        else ""
    )
    return (
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><defs>'
        '<pattern id="h" width="4" height="6" patternUnits="userSpaceOnUse"><rect width="2" height="6"/></pattern></defs>'
        f'<rect class="ground" width="100" height="6"/><rect width="{width:.1f}" height="6"/>{rest}</svg>'
    )


def _processes(processes: Sequence[Json], controls: bool) -> str:
    rows = []
    for process in processes:
        buttons = ""
        if controls and process["state"] == "running" and process["pid"]:
            buttons = _button("Detach", "detach", pid=process["pid"]) + _button(
                "Disable", "disable", pid=process["pid"]
            )
        if controls and process["state"] == "disabled":
            buttons = _button("Enable", "enable", pid=process["pid"])
        why = process["leaving"] or process["to_replace"] or ""
        rows.append(
            (
                process["pid"],
                f"{_state(process)[0]} {_state(process)[1]}" + (f": {why}" if why else ""),
                f"{process['sessions']} of {process['concurrency'] or '∞'}"
                + (f" ({process['sessions'] / process['concurrency']:.0%})" if process["concurrency"] else ""),
                process["processed"],
                "" if process["cpu"] is None else f"{process['cpu']:.0f} %",
                _memory_words(process),
                age(process["uptime"]),
                process["generation"],
                _Raw(buttons),
            )
        )
    heads = ("pid", "state", "sessions", "served", "CPU", "memory (PSS)", "age", "generation", "" if controls else None)
    return _table(
        [head for head in heads if head is not None], [row if controls else row[:-1] for row in rows], "No process."
    )


# -- requests, failures, events -----------------------------------------------------------------------------------------------


def _waiting(requests: Sequence[Json]) -> str:
    rows = [
        (age(one["in_stage"]), one["group"], f"{one['method']} {one['path']}", one["client"])
        for one in waiting(requests)
    ]
    return f"<section id=waiting><h2>Waiting for a process {_json('requests')}</h2>{_table(('for', 'application', 'request', 'client'), rows, 'Nobody waits.')}</section>"


def _in_flight(requests: Sequence[Json]) -> str:
    rows = [
        (
            age(one["age"]),
            one["group"],
            one["stage"].removesuffix(" (slow path)"),
            f"{one['method']} {one['path']}",
            one["pid"] or "",
        )
        for one in sorted(requests, key=lambda one: -one["age"])
    ]
    return f"<section id=flights><h2>In flight {_json('requests')}</h2>{_table(('age', 'application', 'stage', 'request', 'pid'), rows, 'No request is in flight.')}</section>"


def _failures(history: Json) -> str:
    items = []
    for one in reversed(history["failures"]):
        steps = "".join(map(_journey_step, one["steps"]))
        output = "\n".join(one["output"])
        shown = f"<pre tabindex=0>{escape(one['traceback'] or output)}</pre>" if one["traceback"] or output else ""
        items.append(
            f'<li><details id="failure-{escape(one["id"], quote=True)}"><summary><b>{escape(one["group"])}</b>: {escape(one["summary"])} '
            f'<span class="dim">{age(one["age"])} ago, error {escape(one["id"])}</span></summary>'
            f"<p>{escape(one['problem'])}</p><p>{escape(one['solution'])}</p><ol class=journey>{steps}</ol>{shown}</details></li>"
        )
    body = f'<ul class="failures">{"".join(items)}</ul>' if items else '<p class="dim">No start has failed.</p>'
    return f"<section><h2>Failed starts {_json('history')}</h2>{body}</section>"


def _journey_step(step: Json) -> str:
    took = "" if step["seconds"] is None else f' <span class="dim">{step["seconds"]:.2f} s</span>'
    return f"<li>{_STEP[step['state']]} {escape(step['title'])}{took}</li>"


_STEP = {"not_started": "· not reached:", "in_progress": "… under way:", "performed": "✓", "errored": "✗ failed:"}
_WORDS = {
    "process_attached": "process {pid} is ready",
    "process_detached": "process {pid} gets no more requests: {reason}",
    "process_exited": "process {pid} ended",
    "spawn_failed": "a start failed: {summary}",
    "queue_full": "a request was refused: the queue is full",
    "request_time_exceeded": "process {pid} is killed: a request took too long",
    "memory_limit_exceeded": "process {pid} is killed: it uses too much memory",
    "drain_time_exceeded": "process {pid} is ended: its requests took too long",
    "restart_ended": "restarted: generation {generation} serves",
    "restart_rejected": "restart failed: generation {generation} does not start",
}


_OF_RESTARTS = (
    "restart_ended",
    "restart_rejected",
    "process_detached",
    "request_time_exceeded",
    "memory_limit_exceeded",
    "drain_time_exceeded",
)


def _restarts(history: Json) -> str:
    """Counts of how restarts have ended, why processes were taken out of routing, and how many ended by themselves."""
    events = [
        event
        for event in reversed(history["events"])
        if event["event"] in _OF_RESTARTS or (event["event"] == "process_exited" and not event["reason"])
    ]
    rows = [_event(event) for event in events]
    return f"<section><h2>Restarts and replacements {_json('history')}</h2>{_table(('time', 'application', 'what, and why'), rows, 'None yet.')}</section>"


def _happened(history: Json) -> str:
    rows = [_event(event) for event in reversed(history["events"])]
    return f"<section><h2>What happened {_json('history')}</h2>{_table(('time', 'application', 'event'), rows, 'Nothing yet.')}</section>"


def _event(event: Json) -> tuple[str, str, str]:
    """One event: its time, its application, and its text."""
    text = _WORDS.get(event["event"], event["event"].replace("_", " ")).format_map(_Blank(event))
    if event["event"] == "process_exited":
        how = event["signal"] or (None if event["exit_status"] is None else f"status {event['exit_status']}")
        text += "".join(f" ({part})" for part in (how, event["reason"]) if part)
    return f"{utc_second(int(event['time']))[11:]}Z", event.get("group", ""), text


class _Blank(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return ""


# -- parts ------------------------------------------------------------------------------------------------------------------


class _Raw(str):
    """HTML of ours."""

    __slots__ = ()


def _table(heads: Iterable[str], rows: Sequence[Sequence[object]], nothing: str) -> str:
    if not rows:
        return f'<p class="dim">{nothing}</p>'
    head = "".join(f"<th scope=col>{escape(one)}</th>" for one in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{one if isinstance(one, _Raw) else escape(str(one))}</td>" for one in row) + "</tr>"
        for row in rows[:_SHOWN]
    )
    more = f'<p class="dim">and {len(rows) - _SHOWN} more</p>' if len(rows) > _SHOWN else ""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}'


def _button(word: str, action: str, **order: object) -> str:
    hidden = "".join(
        f'<input type="hidden" name="{name}" value="{escape(str(value), quote=True)}">' for name, value in order.items()
    )
    return f'<form method="post" action="act"><input type="hidden" name="do" value="{action}">{hidden}<button>{word}</button></form>'


def _json(name: str) -> str:
    return f'<a class="json" href="{name}.json">JSON</a>'
