"""Slow requests (``--slow-request-time``): a request that takes longer is logged while it runs, with the times of its stages and
the stack of its process (OB9).

The log shows what the process does during the request, which nobody can find out later. One task looks at the
requests in flight, ``_LOOKS`` times within that time. A request itself pays nothing.

Laws: each request is logged once. WebSockets and relays are exempt. One look logs at most ``_MOST`` requests, the oldest
first, and the number of the others, so that a stall of everything does not flood the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import trio

from passenger_trio.admin.context import Admin
from passenger_trio.late_classes import define
from passenger_trio.log_lines import requests as lines
from passenger_trio.spawning.backtraces import take_backtrace

__all__ = ["SlowRequests", "watch_slow_requests"]

_LOOKS = 4
"""Within the time."""
_LEAST, _LONGEST = 0.05, 1.0
"""Seconds between two looks."""
_MOST = 5

Json = Mapping[str, Any]


@define
class SlowRequests:
    """Finds the requests to log. :ivar limit: seconds."""

    limit: float
    _told: set[str] = attrs.field(factory=set)

    def look(self, requests: Sequence[Json]) -> list[Json]:
        """The requests that have become slow since the last look, the oldest first."""
        slow = [one for one in requests if one["relay"] is None and one["age"] >= self.limit]
        new = [one for one in slow if one["id"] not in self._told]
        self._told = {one["id"] for one in slow}
        return sorted(new, key=lambda one: -float(one["age"]))


def sentence(request: Json) -> str:
    """The times of the stages, as the rest of a sentence."""
    stage = request["stage"].removesuffix(" (slow path)")
    queued = request["queue_time"]
    before = f"it waited {queued:.1f} s for a process, and is " if queued >= 0.05 else "it is "
    return f"{before}{stage} for {request['in_stage']:.1f} s"


async def watch_slow_requests(admin: Admin, limit: float) -> None:
    """Log slow requests until cancelled. :param limit: seconds."""
    watched = SlowRequests(limit)
    while True:
        await trio.sleep(min(_LONGEST, max(_LEAST, limit / _LOOKS)))
        slow = watched.look(await admin.server.requests_in_flight())
        for request in slow[:_MOST]:
            lines.request_slow(
                method=request["method"],
                path=request["path"],
                group=request["group"],
                seconds=request["age"],
                reason=sentence(request),
                request_id=request["id"],
                pid=request["pid"] or None,
            )
            if request["pid"]:
                for line in (await _stack(admin, request["pid"])).splitlines():
                    lines.request_slow_stack(
                        group=request["group"], request_id=request["id"], pid=request["pid"], text=line
                    )
        if len(slow) > _MOST:
            lines.requests_slow_more(requests=len(slow) - _MOST, limit=limit)


async def _stack(admin: Admin, pid: int) -> str:
    """The stack of a process of an application; empty if it has ended."""
    for spec in admin.server.reloading.served.every_spec:
        program = spec.live_programs().get(pid)
        if program is not None and program.pidfd is not None:
            return await take_backtrace(program.control, program.pidfd, program.output)
    return ""
