"""Faults of deploys: a release that does not start, one that starts slowly, and a restart in the
middle of a request.

Nothing of the application's files is changed: a broken release is an application whose load fails
(``worker/fault_points.py``), which is the same to the server.
"""

from __future__ import annotations

import threading
from typing import Any

from passenger_trio.admin.client import order
from passenger_trio.testing.faults.fault import Fault
from passenger_trio.testing.faults.plan import Plan
from passenger_trio.testing.faults.processes import AtPoint, Hold
from passenger_trio.testing.harness import Supervisor, eventually

__all__ = ["BrokenRelease", "RestartNow", "SlowRelease"]

_LONG = 60.0


def _restart(server: Supervisor, group: str, *, wait: bool) -> list[dict[str, Any]]:
    wanted: dict[str, Any] = {"wait": wait, **({"group": group} if group else {})}
    results: list[dict[str, Any]] = order(str(server.ready["admin_socket"]), "/v1/restart", wanted, for_long=wait)[
        "groups"
    ]
    return results


class RestartNow(Fault):
    """A restart. With ``at``, the next request that comes to that point waits there until the
    restart has begun, and then goes on: it is served by the old process.

    :ivar generation: of the new processes.
    """

    name = "restart_now"
    hint = "no request came to its point"

    def __init__(self, server: Supervisor, plan: Plan | None, seed: int, at: str | None, group: str) -> None:
        super().__init__(seed, at=at, group=group)
        self.generation = 0
        self._server = server
        self._group = group
        self._hold = None if at is None or plan is None else Hold(plan, seed, "hold", (at,), path="")
        self._ended = threading.Event()
        self._error: BaseException | None = None

    def begin(self) -> None:
        if self._hold is None:
            self._begin_restart()
            return
        self._hold.begin()
        self._thread = threading.Thread(target=self._restart_when_held, name="fault restart_now", daemon=True)
        self._thread.start()

    def _begin_restart(self) -> None:
        results = _restart(self._server, self._group, wait=False)
        self.generation = max(result["generation"] for result in results)
        self.fired += 1

    def _restart_when_held(self) -> None:
        assert self._hold is not None
        while not self._ended.wait(0.005):
            if any(order.pid is not None for order in self._hold._orders):
                try:
                    self._begin_restart()
                except Exception as error:  # noqa: BLE001  the test's thread raises it
                    self._error = error
                self._hold.release()
                return

    def end(self) -> None:
        if self._hold is not None:
            self._ended.set()
            self._thread.join(15)
            self._hold.release()
        if self._error is not None:
            raise self._error
        if self.fired:
            eventually(lambda: not any(group["restarting"] for group in self._groups()), _LONG, "the restart ends")

    def _groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = self._server.status()["groups"]
        return [group for group in groups if not self._group or group["name"] == self._group]


class _Release(AtPoint):
    """A restart to a release that behaves in some way when it is loaded. ``begin`` orders it."""

    def __init__(self, server: Supervisor, plan: Plan, seed: int, name: str, group: str, **values: Any) -> None:
        super().__init__(plan, seed, name, ("load",), **values)
        self.hint = "the release was not loaded (it needs an application in Python, Ruby or Node.js)"
        self._server = server
        self._group = group


class BrokenRelease(_Release):
    """A release that cannot be loaded. The restart is over when the block begins.

    :ivar results: what the restart came to: ``outcome`` is ``rejected`` if the old version serves on.
    """

    results: list[dict[str, Any]]

    def begin(self) -> None:
        self.arm(self.values["how"], 50, message="a broken release (a fault of the harness)", status=1)
        self.results = _restart(self._server, self._group, wait=True)

    def end(self) -> None:
        super().end()
        if self.fired:
            # The application itself is fine: the next start succeeds.
            _restart(self._server, self._group, wait=True)


class SlowRelease(_Release):
    """A release that takes ``seconds`` to load. The block begins while it loads."""

    def begin(self) -> None:
        self.arm("sleep", seconds=self.values["seconds"])
        _restart(self._server, self._group, wait=False)
        self.wait_fired()

    def end(self) -> None:
        eventually(
            lambda: not any(group["restarting"] for group in self._server.status()["groups"]),
            _LONG + float(self.values["seconds"]),
            "the slow release serves",
        )
        super().end()
