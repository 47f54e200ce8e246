"""The answer of ``/v1/status`` -> the text that ``passenger-trio status`` prints, in the layout
that Passenger's users know.

Pure. A missing member (of an older instance, or of a process that is gone) shows as a dash, and
never breaks the rest. Text from outside is made printable, because it goes to a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

__all__ = ["count_requests", "human_age", "human_memory", "render_status"]

_RULE = 11


def render_status(answer: Mapping[str, Any], *, name: str = "", date: str = "") -> str:
    """The whole text, with its last newline.

    :param answer: the JSON object that the instance sent.
    :param name: the instance's name.
    :param date: the current time, as text.
    """
    pool = _mapping(answer.get("pool"))
    requests = _mapping(answer.get("requests"))
    connections = _mapping(answer.get("connections"))
    log = _mapping(answer.get("access_log"))
    buffers = _mapping(answer.get("buffers"))
    groups = [_mapping(group) for group in _list(answer.get("groups"))]
    rejected = requests.get("rejected")
    refused = sum(rejected.values()) if isinstance(rejected, dict) else rejected
    lines = _aligned(
        [
            ("Version", _text(answer.get("version"))),
            ("Date", date),
            ("Instance", f"{name} (pid {_text(answer.get('pid'))}, up {human_age(answer.get('uptime'))})".strip()),
            ("Listens on", " ".join(_text(address) for address in _list(answer.get("addresses"))) or "-"),
        ]
    )
    if answer.get("draining") and not answer.get("stopping"):
        lines.append("Draining: each connection ends after its response, until `passenger-trio resume`")
    if answer.get("stopping"):
        lines.append("Stopping: requests in hand are finished, no new ones are taken")
    lines += ["", _rule("General information")]
    lines += _aligned(
        [
            ("Max pool size", _text(pool.get("max")) + _asked(_mapping(pool.get("memory")))),
            *_room(_mapping(pool.get("memory"))),
            ("App groups", str(len(groups))),
            ("Processes", f"{_text(pool.get('size'))}{_spawning(pool.get('spawning'))}"),
            ("Requests in queue", _text(pool.get("queue"))),
            (
                "Requests",
                f"{_served(requests)} served, {_text(requests.get('active'))} active, {_text(refused)} refused",
            ),
            *(
                [
                    (
                        "Buffered",
                        f"{human_memory(buffers.get('memory'))} in memory, {human_memory(buffers.get('disk'))} on disk",
                    )
                ]
                if buffers
                else []
            ),
            *(
                [("Access log", f"{_text(log['dropped'])} lines lost: {_text(log.get('last_error'))}")]
                if log.get("dropped")
                else []
            ),
            (
                "Connections",
                f"{_text(connections.get('open'))} open, {_text(connections.get('accepted'))} accepted"
                + (f", {_text(connections['upgraded'])} upgraded" if connections.get("upgraded") else ""),
            ),
            *(_front(front) for front in _fronts(answer)),
        ]
    )
    for broken in map(_mapping, _list(answer.get("broken_files"))):
        error = _text(broken.get("error"))
        file = _text(broken.get("file"))
        lines.append(f"Not taken over: {error if error.startswith(file) else f'{file}: {error}'}")
    lines += _faults(_mapping(answer.get("faults")))
    lines += ["", _rule("Application groups")]
    for group in groups:
        lines += [*_group(group), ""]
    if not groups:
        lines.append("(none)")
    return "\n".join(lines).rstrip("\n") + "\n"


def _asked(room: Mapping[str, Any]) -> str:
    return f" ({_text(room.get('asked'))})" if room else ""


def _room(room: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the most processes follow from the memory (OP6)."""
    if not room:
        return []
    share = room.get("share")
    percent = f"{share:.0%}" if isinstance(share, int | float) else "-"
    size, free = human_memory(room.get("next_size")), room.get("free")
    left = f"{human_memory(-free)} over" if isinstance(free, int) and free < 0 else f"{human_memory(free)} free"
    whose = f"{size}, as {_text(room['next_app'])} has on average" if room.get("next_app") else size
    if room.get("is_guess"):
        whose = f"{size} until it is measured"
    used = f"{human_memory(room.get('own'))} of the server, {human_memory(room.get('used'))} of the processes"
    if room.get("reserved"):
        used += f", {human_memory(room['reserved'])} kept for processes that must start"
    return [
        ("Memory", f"{percent} of {human_memory(room.get('total'))} ({_text(room.get('source'))}): {used}, {left}"),
        (
            "Fits",
            f"{_text(room.get('fits'))} processes; one more counts {whose}"
            f" (minimum {_text(room.get('minimum'))}, at most {_text(room.get('most'))} for the open files)",
        ),
    ]


def _fronts(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    fronts = answer.get("fronts")
    return [_mapping(front) for front in fronts] if isinstance(fronts, list) else []


def _front(front: Mapping[str, Any]) -> tuple[str, str]:
    """A front process."""
    if not front.get("pid"):
        return f"Front {_text(front.get('number'))}", "is being started"
    restarts = front.get("restarts")
    return (
        f"Front {_text(front.get('number'))}",
        f"pid {_text(front.get('pid'))}, {_text(front.get('connections'))} connections, "
        f"{_text(front.get('busy'))} requests, {_text(front.get('slots'))} slots"
        + (f", started again {_text(restarts)} times" if restarts else "")
        + ("" if front.get("active") or not front.get("alive") else ", not active")
        + ("" if front.get("alive") else ", shows no life"),
    )


def _faults(faults: Mapping[str, Any]) -> list[str]:
    """The faults of passenger_trio itself; there should be none."""
    lines: list[str] = []
    for task, about in _mapping(faults.get("tasks")).items():
        fault = _mapping(about)
        again = "; it keeps failing, and the server does without it" if fault.get("failing") else ""
        lines.append(
            f"Fault of passenger_trio, please report it (the log has where): {_text(task)}, {_text(fault.get('count'))} times, "
            f"last {_ago(fault.get('age'))}: {_text(fault.get('last'))}{again}"
        )
    return ["", *lines] if lines else []


def human_age(seconds: Any) -> str:
    """``3s``, ``2m 5s``, ``1h 4m``, ``2d 3h``."""
    if not isinstance(seconds, int | float):
        return "-"
    left = max(0, int(seconds))
    for (unit, size), (smaller, small) in pairwise(_UNITS):
        if left >= size:
            rest = left % size // small
            return f"{left // size}{unit} {rest}{smaller}"
    return f"{left}s"


_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def human_memory(size: Any) -> str:
    """Bytes -> ``24M``, ``1.5G``."""
    if not isinstance(size, int | float):
        return "-"
    mebibytes = size / 1024**2
    if mebibytes >= 1024:
        return f"{mebibytes / 1024:.1f}G"
    return f"{mebibytes:.0f}M" if mebibytes >= 10 else f"{mebibytes:.1f}M"


def _group(group: Mapping[str, Any]) -> list[str]:
    lines = [f"{_text(group.get('name'))} ({_text(group.get('environment'))}):{_spawning(group.get('spawning'))}"]
    lines += [
        "  " + line
        for line in _aligned(
            [
                ("App root", _text(group.get("root"))),
                ("Interpreter", f"{_text(group.get('interpreter'))} ({_text(group.get('app_type'))})"),
                *_spawn_method(_mapping(group.get("spawn_method"))),
                ("Requests in queue", _text(group.get("queue"))),
            ]
        )
    ]
    error = _mapping(group.get("last_error"))
    if error:
        lines.append(f"  Last error: {_text(error.get('summary'))} [{_text(error.get('id') or error.get('error_id'))}]")
    if group.get("restarting"):
        lines.append(
            "  Restarting: waits for processes that are to go" if group.get("waits_for_room") else "  Restarting..."
        )
    if group.get("leaving"):
        lines.append("  Removed: finishes its requests, and ends")
    rejected = _mapping(group.get("rejected"))
    if rejected:
        why = _mapping(rejected.get("error"))
        kept = "nothing serves" if rejected.get("kept") is False else "the previous version keeps serving"
        lines.append(f"  The restart {_ago(rejected.get('age'))} failed, and {kept}:")
        lines.append(f"    {_text(why.get('summary'))} [{_text(why.get('id'))}]")
    waits = group.get("backing_off_for")
    if isinstance(waits, int | float):
        lines.append(f"  The next attempt to start it is in {human_age(waits)}")
    preloader = _mapping(group.get("preloader"))
    if preloader:
        lines.append(f"  * Preloader  PID: {_text(preloader.get('pid')):<8} Memory: {_memory(preloader)}")
    for process in _list(group.get("processes")):
        lines += _process(_mapping(process))
    return lines


def _spawn_method(method: Mapping[str, Any]) -> list[tuple[str, str]]:
    """``direct (auto); not safe to fork: the thread APScheduler``."""
    asked, used = method.get("asked"), method.get("used")
    if not asked:
        return []
    found = [_text(_mapping(hazard).get("what")) for hazard in _list(method.get("hazards"))]
    words = _text(asked) if used in (None, asked) else f"{_text(used)} ({_text(asked)})"
    return [("Spawn method", f"{words}; not safe to fork: {', '.join(found)}" if found else words)]


def _process(process: Mapping[str, Any]) -> list[str]:
    sessions = f"{_text(process.get('sessions'))}/{_text(process.get('concurrency'))}"
    lines = [
        f"  * PID: {_text(process.get('pid')):<8} Sessions: {sessions:<6} Processed: {_text(process.get('processed')):<8}"
        f" Uptime: {human_age(process.get('uptime'))}",
        f"    CPU: {_percent(process.get('cpu')):<8} Memory  : {_memory(process):<6} Last used: {_ago(process.get('last_used'))}",
    ]
    if process.get("state") not in (None, "running", "enabled"):
        lines.append(f"    {_text(process.get('state')).capitalize()}{_drains(process)}")
    return lines


def _served(requests: Mapping[str, Any]) -> str:
    """The number of requests that have ended. Requests in flight do not count."""
    total, active = requests.get("total"), requests.get("active")
    return str(max(0, total - active)) if isinstance(total, int) and isinstance(active, int) else _text(total)


def _drains(process: Mapping[str, Any]) -> str:
    """The requests that a leaving process waits for, and the time limit."""
    if not process.get("leaving"):
        return "..." if process.get("state") == "stopping" else ""
    ends = process.get("ends_in")
    limit = f", ended in {human_age(ends)} at the latest" if isinstance(ends, int | float) else ""
    return f": {count_requests(process.get('sessions'))}{limit} ({_text(process.get('leaving'))})"


def count_requests(number: Any) -> str:
    """``1 request in hand``, ``2 requests in hand``."""
    return f"{_text(number)} request{'' if number == 1 else 's'} in hand"


def _memory(member: Mapping[str, Any]) -> str:
    """The memory of a process: its proportional share if the kernel reported it, else its resident set."""
    memory = _mapping(member.get("memory"))
    shared = memory.get("pss")
    return human_memory(shared if shared is not None else memory.get("rss"))


def _percent(value: Any) -> str:
    return f"{value:.0f}%" if isinstance(value, int | float) else "-"


def _ago(seconds: Any) -> str:
    return f"{human_age(seconds)} ago" if isinstance(seconds, int | float) else "never"


def _spawning(count: Any) -> str:
    if not isinstance(count, int) or not count:
        return ""
    return f" (spawning {count} new process{'es' if count > 1 else ''}...)"


def _rule(title: str) -> str:
    return f"{'-' * _RULE} {title} {'-' * _RULE}"


def _aligned(rows: list[tuple[str, str]]) -> list[str]:
    width = max(len(label) for label, _ in rows)
    return [f"{label:<{width}} : {text}" for label, text in rows]


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return "".join(char if char.isprintable() else "?" for char in str(value))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
