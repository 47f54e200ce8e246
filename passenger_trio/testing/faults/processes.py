"""Faults of the application's processes.

Most happen inside of the process, at an exact point (``worker/fault_points.py``), so they need a
server that was started with ``Plan.environment`` and an application in Python, Ruby or Node.js.
``KilledAtAccept`` works from outside, with any application.

Points: ``accept`` (the request is in the process's socket and not read), ``head`` (the application is
called), ``mid_body`` (a part of the response body is out), ``before_end`` (all but its last byte is),
``after_end`` (the client has the whole response; what the application does behind it is still to come).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Collection
from typing import Any

from passenger_trio.admin.client import fetch
from passenger_trio.errors import AdminError
from passenger_trio.testing.faults.fault import Fault
from passenger_trio.testing.faults.plan import Order, Plan
from passenger_trio.testing.harness import Supervisor, eventually, is_running

__all__ = ["AtPoint", "Deadly", "Hold", "KilledAtAccept", "Stopped"]


_MENDED = 60.0
"""Seconds in which a server starts a process again: more than its longest wait (``backoff_max``)."""
_BEHIND = 5.0
"""Seconds in which a process comes to the end of a response that its client has."""


class AtPoint(Fault):
    """Something that the process does to itself at a point, ``times`` times.

    :ivar pids: the processes in which it happened.
    """

    def __init__(self, plan: Plan, seed: int, name: str, points: tuple[str, ...], **values: Any) -> None:
        super().__init__(seed, **values)
        self.name = name
        self.hint = (
            "no process of the application came to its point"
            " (a fault inside of the process needs an application in Python, Ruby or Node.js)"
        )
        self.pids: list[int] = []
        self._plan = plan
        self._points = points
        self._orders: list[Order] = []

    def arm(self, action: str, times: int = 1, **order: Any) -> None:
        self._orders += [self._plan.arm(point, action, **order) for _ in range(times) for point in self._points]

    def begin(self) -> None:
        values = dict(self.values)
        values.pop("at", None)
        times = int(values.pop("times", 1))
        self.arm(
            {"slow_start": "sleep", "crash_on_start": values.pop("how", "")}.get(self.name, self.name), times, **values
        )

    def end(self) -> None:
        deadline = time.monotonic() + (_BEHIND if "after_end" in self._points else 0)
        while any(order.pid is None for order in self._orders) and time.monotonic() < deadline:
            time.sleep(0.005)
        for order in self._orders:
            pid = order.take_back()
            if pid is not None:
                self.fired += 1
                self.pids.append(pid)

    def wait_fired(self, timeout: float = 15.0) -> int:
        """Return the process in which it happened, when it has.

        :raises AssertionError: it has not, within ``timeout`` seconds.
        """
        return eventually(
            lambda: next((pid for order in self._orders if (pid := order.pid) is not None), 0),
            timeout,
            f"{self!r} fires",
        )


class Deadly(AtPoint):
    """A fault that ends processes, or their starts. A server waits longer after each of those, and refuses requests after some. So its end waits for that:
    the next request comes to the application, as before.
    """

    def __init__(
        self, server: Supervisor, plan: Plan, seed: int, name: str, points: tuple[str, ...], **values: Any
    ) -> None:
        super().__init__(plan, seed, name, points, **values)
        self._server = server

    def end(self) -> None:
        super().end()
        if not self._plan.are_starts_at_stake:
            _wait_as_before(self._server, self.pids)


class Stopped(AtPoint):
    """The process stops itself, as by SIGSTOP. It goes on when the fault ends."""

    def begin(self) -> None:
        self.arm("stop", path=self.values["path"])

    def end(self) -> None:
        super().end()
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass  # the server has replaced it


class Hold(AtPoint):
    """A request waits at a point until ``release``: so a test can do something in the middle of it."""

    def begin(self) -> None:
        self.arm("hold", path=self.values["path"])

    def release(self) -> None:
        """Let the request go on. Idempotent."""
        self.end()
        self._orders.clear()


class KilledAtAccept(Fault):
    """The process that gets the next request is killed before it has read any of it.

    All serving processes are stopped; the first that is given a request is killed, and the others
    go on.
    """

    name = "kill"
    hint = "no process was given a request"

    def __init__(self, server: Supervisor, seed: int, **values: Any) -> None:
        super().__init__(seed, at="accept", **values)
        self.pids: list[int] = []
        self._server = server
        self._stopped: list[int] = []
        self._ended = threading.Event()

    def begin(self) -> None:
        self._stopped = self._server.pids
        for pid in self._stopped:
            _signal(pid, signal.SIGSTOP)
        self._thread = threading.Thread(target=self._watch, name="fault kill(at=accept)", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            try:
                requests = fetch(str(self._server.ready["admin_socket"]), "/v1/requests")["requests"]
            except AdminError:
                continue  # busy, or about to end
            for request in requests:
                if request["pid"] in self._stopped:
                    _signal(request["pid"], signal.SIGKILL)
                    self.pids.append(request["pid"])
                    self.fired += 1
                    self._go_on()
                    return

    def _go_on(self) -> None:
        for pid in self._stopped:
            _signal(pid, signal.SIGCONT)
        self._stopped = []

    def end(self) -> None:
        self._ended.set()
        self._thread.join(15)
        self._go_on()
        _wait_as_before(self._server, self.pids)


def _wait_as_before(server: Supervisor, pids: Collection[int]) -> None:
    """Wait until the server has seen the end of those of the processes that have ended, starts none, and does not hold back the next start."""

    def is_as_before() -> bool:
        try:
            groups = server.status()["groups"]
        except AdminError:
            return server.process.poll() is not None
        known = {process["pid"] for group in groups for process in group["processes"]}
        seen = all(pid not in known or is_running(pid) for pid in pids)
        return seen and not any(group["spawning"] or group["backing_off_for"] is not None for group in groups)

    if pids:
        eventually(is_as_before, _MENDED, f"the server is as before the fault in {sorted(pids)}")


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it has ended meanwhile
