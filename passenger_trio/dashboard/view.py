"""The state of an instance as a sentence, and of each application as a word: what an operator reads first.

Pure: this module turns the admin API's answers into values. It never knows HTML. Laws: the worst thing comes first. A state is a
word and a sign, so that colour is never the only difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from passenger_trio.late_classes import frozen

__all__ = [
    "SIGNS",
    "Standing",
    "age",
    "app_standing",
    "by_attention",
    "count",
    "in_order",
    "size",
    "standing",
    "waiting",
]

SIGNS = {"ok": "✓", "notice": "▲", "bad": "✗"}
_RANK = {"bad": 0, "notice": 1, "ok": 2}
_LONG = 1.0
"""Seconds of waiting that are worth a notice."""

Json = Mapping[str, Any]


@frozen
class Standing:
    """:ivar level: ``ok``, ``notice`` or ``bad``."""

    level: str
    text: str


def standing(status: Json, requests: Sequence[Json]) -> Standing:
    """The instance in one sentence, the worst first."""
    told = [app_standing(group) for group in status["groups"]]
    bad = [(group, one) for group, one in zip(status["groups"], told, strict=True) if one.level == "bad"]
    noticed = [(group, one) for group, one in zip(status["groups"], told, strict=True) if one.level == "notice"]
    words: list[str] = []
    if status["stopping"]:
        words.append("stopping: the requests in flight are finished")
    elif status["draining"]:
        words.append("draining: each connection ends after its response")
    for found in (bad, noticed):
        if len(found) > 2:
            words.append(f"{len(found)} applications: {found[0][1].text}")
        else:
            words += [f"{group['name']} {one.text}" for group, one in found]
    queue = waiting(requests)
    if queue:
        words.append(
            f"{count(len(queue), 'request')} wait{'s' * (len(queue) == 1)}, the oldest for {age(queue[0]['age'])}"
        )
    failing = [task for task, fault in status["faults"]["tasks"].items() if fault["failing"]]
    words += [f"{task} keeps failing" for task in failing]
    slow = bool(queue) and queue[0]["in_stage"] > _LONG
    level = (
        "bad" if bad else "notice" if noticed or slow or failing or status["stopping"] or status["draining"] else "ok"
    )
    begin = "Not all is well" if level == "bad" else "Serving"
    return Standing(level, f"{begin}; {'; '.join(words)}." if words else f"{begin}; nobody waits.")


def app_standing(group: Json) -> Standing:
    """One application, as the rest of a sentence that begins with its name."""
    serving = [process for process in group["processes"] if process["state"] in ("running", "out-of-band work")]
    error = group["last_error"]
    if not serving and error is not None:
        again = f", and is tried again in {age(group['backing_off_for'])}" if group["backing_off_for"] else ""
        return Standing("bad", f"does not start: {error['summary']}{again}")
    if group["rejected"] is not None:
        if group["rejected"]["kept"]:
            return Standing("notice", "serves the version before: its last restart failed")
        return Standing("bad", "was restarted and does not start")
    if error is not None:
        return Standing("notice", f"had a failed start: {error['summary']}")
    if group["restarting"]:
        return Standing("notice" if group["waits_for_room"] else "ok", "is being restarted")
    if not serving and group["spawning"]:
        return Standing("notice", "is being started")
    if not serving:
        return Standing("ok", "has no process until a request comes")
    busy = sum(process["sessions"] > 0 for process in serving)
    return Standing("ok", f"serves with {count(len(serving), 'process', 'processes')}, {busy} busy")


def in_order(groups: Sequence[Json]) -> list[Json]:
    """Applications that need attention first, then by name."""
    return sorted(groups, key=lambda group: (_RANK[app_standing(group).level], -group["queue"], group["name"]))


def by_attention(groups: Sequence[Json], few: int) -> dict[str, list[Json]]:
    """How to show each application: ``full``. If there are more than ``few``, those without trouble are ``short``, or
    ``asleep`` if they have no process. Kinds without applications are left out.
    """
    kinds: dict[str, list[Json]] = {}
    for group in in_order(groups):
        kind = "full"
        if len(groups) > few and app_standing(group).level == "ok" and not group["queue"]:
            kind = "short" if group["processes"] or group["spawning"] else "asleep"
        kinds.setdefault(kind, []).append(group)
    return {kind: kinds[kind] for kind in ("full", "short", "asleep") if kind in kinds}


def waiting(requests: Sequence[Json]) -> list[Json]:
    """The requests that wait for a process, the oldest first."""
    return sorted(
        (one for one in requests if one["stage"].startswith("waiting for a process")), key=lambda one: -one["age"]
    )


def age(seconds: float) -> str:
    """A time as people write it: ``0.3 s``, ``12 s``, ``4 min``, ``3 h``, ``2 d``."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    for limit, unit, word in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {word}"
    return f"{seconds / 86400:.0f} d"


def size(number: float) -> str:
    """Bytes as people write them."""
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1024 or unit == "GB":
            return f"{number:.0f} {unit}" if number >= 10 or unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError("unreachable")


def count(number: int, one: str, many: str = "") -> str:
    """``1 request``, ``2 requests``."""
    return f"{number} {one if number == 1 else many or one + 's'}"
