"""What an operator can order over the admin socket: POST, with a JSON object that says to whom or what.

Each operation is a function of the running server and that object. It looks up what is meant, tells the pool, and answers with what
came of it. A name is matched exactly: ``shop`` never means ``shop2``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio

from passenger_trio.core.model import GroupKey, SpawnFailure

if TYPE_CHECKING:
    from passenger_trio.tree import RunningServer

__all__ = ["OPERATIONS", "Operation", "OperationRefused", "failure_summary"]


class OperationRefused(Exception):
    """It cannot be done; ``status`` is the answer's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def failure_summary(failure: SpawnFailure | None) -> dict[str, str] | None:
    """A failure in the few words that fit into an answer."""
    if failure is None:
        return None
    return {"id": failure.error_id, "category": failure.category.value, "summary": failure.summary}


async def restart(server: RunningServer, order: Mapping[str, Any]) -> dict[str, Any]:
    """``group``: one of them (default: all). ``hard``: at once. ``wait``: answer when it has ended."""
    if server.stopping:
        raise OperationRefused(409, "the instance is stopping")
    targets = {key: server.pool.restart(key, hard=_flag(order, "hard")) for key in _groups(server, order)}
    results: list[dict[str, Any]] = []
    if not _flag(order, "wait"):
        results = [_result(key, generation, "asked") for key, generation in targets.items()]
    else:

        async def wait(key: GroupKey, generation: int) -> None:
            rejection = await server.pool.wait_restarted(key, generation)
            if rejection is None:
                results.append(_result(key, generation, "restarted"))
            else:
                results.append(_result(key, generation, "rejected", failure_summary(rejection.failure)))

        async with trio.open_nursery() as waiting:
            for key, generation in targets.items():
                waiting.start_soon(wait, key, generation)
    return {"groups": sorted(results, key=lambda result: (result["name"], result["environment"]))}


async def detach(server: RunningServer, order: Mapping[str, Any]) -> dict[str, Any]:
    """``pid``: a process that serves."""
    pid = order.get("pid")
    found = next((process for process in server.pool.processes.values() if process.live.pid == pid), None)
    if found is None or not server.pool.detach(found.id):
        raise OperationRefused(404, f"no process {pid!r} serves")
    return {"pid": pid, "group": str(found.group)}


async def drain(server: RunningServer, order: Mapping[str, Any]) -> dict[str, Any]:
    """Connections end after their response, until ``resume``."""
    server.front.drain()
    return {"draining": True, "active": server.front.active}


async def resume(server: RunningServer, order: Mapping[str, Any]) -> dict[str, Any]:
    """Connections are kept alive again."""
    if server.stopping:
        raise OperationRefused(409, "the instance is stopping")
    server.front.draining = False
    return {"draining": False}


async def shutdown(server: RunningServer, order: Mapping[str, Any]) -> dict[str, Any]:
    """As SIGTERM."""
    server.stop()
    return {"stopping": True}


async def reopen_logs(server: RunningServer, order: Mapping[str, Any]) -> dict[str, Any]:
    """After a rotation."""
    server.reopen_logs()
    return {"reopened": True}


def _result(key: GroupKey, generation: int, result: str, error: object = None) -> dict[str, Any]:
    return {
        "name": key.name,
        "environment": key.environment,
        "generation": generation,
        "result": result,
        "error": error,
    }


def _groups(server: RunningServer, order: Mapping[str, Any]) -> list[GroupKey]:
    wanted = order.get("group")
    every = list(server.pool.homes)
    if wanted is None:
        return every
    found = [key for key in every if wanted in (key.name, str(key))]
    if not found:
        raise OperationRefused(404, f"there is no application {wanted!r}; there are: {', '.join(map(str, every))}")
    return found


def _flag(order: Mapping[str, Any], name: str) -> bool:
    value = order.get(name, False)
    if not isinstance(value, bool):
        raise OperationRefused(422, f"{name} must be true or false")
    return value


Operation = Callable[["RunningServer", Mapping[str, Any]], Awaitable[dict[str, Any]]]

OPERATIONS: dict[str, Operation] = {
    "/v1/restart": restart,
    "/v1/detach": detach,
    "/v1/drain": drain,
    "/v1/resume": resume,
    "/v1/shutdown": shutdown,
    "/v1/reopen-logs": reopen_logs,
}
