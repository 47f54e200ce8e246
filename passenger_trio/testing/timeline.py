"""The timeline of one test: each request as its client, the queue, the process and the application
saw it, and what happened to the server meanwhile.

Four sources meet here. The tap knows the client's side, the access log the time in the queue and the
process, the wrapper the application's time (``worker/times.py``), the server's log the rest. A
request of the tap and a line of the access log belong together if method and target are the same and
they began closest to each other; the access log and the wrapper both have the request's id.

Pure but for reading the clock of this machine, which all of them share. ``timeline_page`` makes an
HTML document of it, ``evidence`` collects the sources.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from passenger_trio.late_classes import frozen
from passenger_trio.testing.exchange import Exchange
from passenger_trio.testing.lint import Finding

__all__ = ["Line", "Row", "Timeline", "is_access_before", "make_timeline"]

_ROWS, _LINES = 60, 150
"""Of requests and of the log that a terminal shows; the files have all."""
_APART = 5.0
"""Seconds by which the two views of one request may differ."""


@frozen
class Row:
    """One request. Times are seconds since the test began; None: unknown, or it has not happened.

    :ivar outcome: as its client saw it; ``not seen`` for a request that did not come through the tap.
    :ivar queued: seconds in the queue.
    :ivar served: seconds in the server, from the first byte of the request to the last of the response.
    :ivar raised: what the application raised.
    """

    method: str
    target: str
    outcome: str
    status: int | None = None
    size: int = 0
    connected: float | None = None
    begun: float | None = None
    sent: float | None = None
    first_byte: float | None = None
    ended: float | None = None
    request_id: str = ""
    arrived: float | None = None
    queued: float | None = None
    served: float | None = None
    pid: int | None = None
    retried: bool = False
    spilled: int = 0
    app_begun: float | None = None
    app_ended: float | None = None
    app_pid: int | None = None
    raised: str = ""

    @property
    def at(self) -> float:
        """When it began, as far as is known."""
        return min(time for time in (self.begun, self.arrived, self.app_begun, self.connected, 1e9) if time is not None)


@frozen
class Line:
    """One line of the server's log. ``at``: seconds since the test began."""

    at: float
    level: str
    text: str


@frozen
class Timeline:
    """All that is known of one test.

    :ivar begun: when it began, in seconds since the epoch.
    :ivar faults: faults that the test made, each as text.
    """

    test: str
    begun: float
    seed: int
    rows: tuple[Row, ...] = ()
    log: tuple[Line, ...] = ()
    findings: tuple[Finding, ...] = ()
    faults: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return attrs.asdict(self)

    def as_text(self) -> str:
        """For a terminal."""
        lines = [f"requests (seconds since the test began; --passenger-seed {self.seed}):"]
        if len(self.rows) > _ROWS:
            lines.append(f"  {len(self.rows) - _ROWS} earlier requests are left out here")
        for row in self.rows[-_ROWS:]:
            lines += _row_as_text(row)
        if not self.rows:
            lines.append("  none")
        if self.faults:
            lines += ["faults:", *(f"  {fault}" for fault in self.faults)]
        if self.log:
            left_out = len(self.log) - _LINES
            lines.append(f"log ({left_out} earlier lines are left out here):" if left_out > 0 else "log:")
            lines += [f"  {line.at:8.3f} {line.level:<8} {line.text}" for line in self.log[-_LINES:]]
        if self.findings:
            lines.append("lint:")
            lines += [f"  {text}" for finding in self.findings for text in str(finding).splitlines()]
        return "\n".join(lines)


def _row_as_text(row: Row) -> list[str]:
    status = "---" if row.status is None else str(row.status)
    lines = [f"  {row.at:8.3f} {row.method} {row.target}  {status}, {row.size} bytes, {row.outcome}"]
    client = [
        ("connected", row.connected),
        ("sent", row.sent),
        ("first byte", row.first_byte),
        ("last byte", row.ended),
    ]
    seen = [f"{name} {time:.3f}" for name, time in client if time is not None]
    if seen:
        lines.append(f"           client      {', '.join(seen)}")
    if row.queued is not None and row.served is not None:
        lines.append(f"           queue       {row.queued:.3f} s")
        words = f"pid {row.pid}, {row.served - row.queued:.3f} s" if row.pid else "none"
        words += ", sent again to another process" if row.retried else ""
        words += f", {row.spilled} bytes buffered on disk" if row.spilled else ""
        lines.append(f"           process     {words}  [{row.request_id}]")
    elif row.outcome != "not seen":
        lines.append("           process     no line of the access log: the server has not finished with it")
    if row.app_begun is not None:
        until = "has not ended" if row.app_ended is None else f"to {row.app_ended:.3f}"
        raised = f", raised {row.raised}" if row.raised else ""
        lines.append(f"           application {row.app_begun:.3f} {until}{raised}")
    return lines


def make_timeline(
    test: str,
    begun: float,
    seed: int,
    exchanges: Sequence[Exchange],
    log: Sequence[Mapping[str, Any]],
    times: Sequence[Mapping[str, Any]],
    findings: Sequence[Finding] = (),
    faults: Sequence[str] = (),
) -> Timeline:
    """Bring the sources together.

    :param log: lines of the server's log as JSON objects, those of the access log among them (with ``whole_second``, if their time has no fraction).
    :param times: lines of ``HARNESS_TIMES``.
    """

    def since(time: float | None) -> float | None:
        return None if time is None else round(time - begun, 6)

    access = [line for line in log if line.get("event") == "access"]
    spent = {str(line["request_id"]): line for line in times}
    pairing = _Pairing(access)
    rows = []
    for exchange in exchanges:
        line = pairing.take(exchange)
        row = Row(
            exchange.method or "?",
            exchange.target or "?",
            exchange.outcome,
            exchange.status,
            exchange.size,
            since(exchange.connected),
            since(exchange.begun),
            since(exchange.sent),
            since(exchange.first_byte),
            since(exchange.ended),
        )
        rows.append(_with_server(row, line, spent, begun))
    for line in pairing.left():
        row = Row(
            str(line["method"]) or "?",
            str(line["target"]) or "?",
            "not seen",
            int(line["status"]),
            int(line["bytes_sent"]),
        )
        rows.append(_with_server(row, line, spent, begun))
    events: list[Line] = []
    for line in log:
        if line.get("event") != "access":
            at = round(_epoch(line) - begun, 3) if "time" in line else (events[-1].at if events else 0.0)
            events.append(Line(at, str(line.get("level", "info")), str(line.get("event", ""))))
    return Timeline(
        test, begun, seed, tuple(sorted(rows, key=lambda row: row.at)), tuple(events), tuple(findings), tuple(faults)
    )


class _Pairing:
    """Which line of the access log is about the same request as what a client saw: each belongs to one at most. A test may have made thousands."""

    def __init__(self, access: Sequence[Mapping[str, Any]]) -> None:
        self._access = access
        self._taken: set[int] = set()
        self._alike: dict[tuple[object, object], list[tuple[float, int]]] = {}
        """Method and target -> time and place of each line, by time."""
        for place, line in enumerate(access):
            self._alike.setdefault((line["method"], line["target"]), []).append((_epoch(line), place))
        for lines in self._alike.values():
            lines.sort()

    def take(self, exchange: Exchange) -> Mapping[str, Any] | None:
        """The line that is closest in time."""
        lines = self._alike.get((exchange.method, exchange.target))
        if exchange.begun is None or not lines:
            return None
        began = exchange.begun
        after = bisect.bisect(lines, (began, -1))
        number = min(range(max(0, after - 1), min(len(lines), after + 1)), key=lambda one: abs(lines[one][0] - began))
        time, place = lines[number]
        if abs(time - began) >= _APART:
            return None
        del lines[number]
        self._taken.add(place)
        return self._access[place]

    def left(self) -> list[Mapping[str, Any]]:
        """The lines that nobody has taken, in their order."""
        return [line for place, line in enumerate(self._access) if place not in self._taken]


def _with_server(row: Row, line: Mapping[str, Any] | None, spent: Mapping[str, Mapping[str, Any]], begun: float) -> Row:
    if line is None:
        return row
    exact = not line.get("whole_second") or row.begun is None
    row = attrs.evolve(
        row,
        status=line["status"] if row.outcome == "read as bytes" else row.status,
        request_id=line["request_id"],
        arrived=round(_epoch(line) - begun, 3) if exact else row.begun,
        queued=line["queue_time"],
        served=line["duration"],
        pid=line["pid"] or None,
        retried=bool(line["retried"]),
        spilled=line["spilled"],
    )
    app = spent.get(str(line["request_id"]))
    if app is None:
        return row
    return attrs.evolve(
        row,
        app_begun=round(app["begun"] - begun, 6),
        app_ended=round(app["ended"] - begun, 6),
        app_pid=app["pid"],
        raised=app["raised"],
    )


def is_access_before(line: Mapping[str, Any], begun: float) -> bool:
    """Whether a line of the access log is about a request of an earlier test: such lines come a moment late."""
    resolution = 1.0 if line.get("whole_second") else 0.001
    return line.get("event") == "access" and _epoch(line) < begun - resolution


def _epoch(line: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(line["time"])).timestamp()
    except (KeyError, ValueError):
        return 0.0
