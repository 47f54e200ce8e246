"""Two answers of ``/v1/status`` -> the rows that ``passenger-trio top`` shows.

Pure; ``cli/top_cmd.py`` draws them. A missing member shows as a dash, and sorts last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from passenger_trio.admin.render_status import human_age, human_memory
from passenger_trio.late_classes import frozen

__all__ = ["ORDERS", "Row", "Snapshot", "rows", "summary"]

ORDERS = ("cpu", "memory", "rate", "served", "sessions", "age", "pid")
"""By what rows can be sorted. The letter that asks for it in ``top`` is the first one of its name."""


@frozen
class Snapshot:
    """A status, when it was asked for (monotonic seconds), and the processor time of each process by then, in seconds."""

    status: Mapping[str, Any]
    time: float
    cpu_times: Mapping[int, float] = attrs.field(factory=dict)


@frozen
class Row:
    """One process. Numbers are None where they are unknown."""

    pid: int | None
    group: str
    state: str
    sessions: int
    concurrency: int | None
    served: int
    cpu: float | None
    """Percent of one processor since the snapshot before."""
    rate: float | None
    """Requests a second since then."""
    memory: int | None
    age: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """As they are shown: pid, application, state, requests, served, rate, cpu, memory, age."""
        most = "-" if self.concurrency is None else str(self.concurrency or "any")
        return (
            "-" if self.pid is None else str(self.pid),
            _printable(self.group),
            _printable(self.state),
            f"{self.sessions}/{most}",
            str(self.served),
            "-" if self.rate is None else f"{self.rate:.1f}",
            "-" if self.cpu is None else f"{self.cpu:.0f}",
            human_memory(self.memory),
            human_age(self.age),
        )


def rows(now: Snapshot, before: Snapshot | None, order: str) -> list[Row]:
    """A row for each process, the largest first; by pid and by age the smallest first.

    :param order: one of ``ORDERS``.
    """
    served_before = {process.get("pid"): process.get("processed") for _, process in _processes(before)}
    seconds = now.time - before.time if before is not None else 0.0
    found = []
    for group, process in _processes(now):
        pid = process.get("pid")
        served = process.get("processed") or 0
        memory = process.get("memory") or {}
        cpu = rate = None
        if seconds > 0:
            if (earlier := served_before.get(pid)) is not None:
                rate = max(0.0, (served - earlier) / seconds)
            cpu = _cpu(now, before, pid, seconds)
        found.append(
            Row(
                pid=pid,
                group=str(group.get("name", "-")),
                state=str(process.get("state", "-")),
                sessions=process.get("sessions") or 0,
                concurrency=process.get("concurrency"),
                served=served,
                cpu=cpu,
                rate=rate,
                memory=memory.get("rss") if memory.get("pss") is None else memory.get("pss"),
                age=process.get("uptime"),
            )
        )
    sign = 1 if order in ("pid", "age") else -1

    def rank(row: Row) -> tuple[bool, float, int]:
        value = getattr(row, order)
        return value is None, sign * (value or 0), row.pid or 0

    return sorted(found, key=rank)


def _cpu(now: Snapshot, before: Snapshot | None, pid: int | None, seconds: float) -> float | None:
    if before is None or pid is None or pid not in now.cpu_times or pid not in before.cpu_times:
        return None
    return max(0.0, 100 * (now.cpu_times[pid] - before.cpu_times[pid]) / seconds)


def summary(now: Snapshot, before: Snapshot | None, name: str) -> str:
    """One line about the whole instance."""
    status = now.status
    pool, requests = status.get("pool") or {}, status.get("requests") or {}
    total = requests.get("total")
    total_before = ((before.status.get("requests") or {}) if before is not None else {}).get("total")
    rate = "-"
    if before is not None and total is not None and total_before is not None and now.time > before.time:
        rate = f"{max(0, total - total_before) / (now.time - before.time):.1f}"
    state = ", stopping" if status.get("stopping") else ", draining" if status.get("draining") else ""
    return (
        f"{_printable(name)}, up {human_age(status.get('uptime'))}{state}: {pool.get('size', '-')} of {pool.get('max', '-')} processes, "
        f"{pool.get('queue', '-')} queued, {requests.get('active', '-')} active, {rate}/s"
    )


def _processes(snapshot: Snapshot | None) -> Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    if snapshot is None:
        return []
    return [(group, process) for group in snapshot.status.get("groups") or () for process in group["processes"]]


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
