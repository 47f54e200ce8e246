"""What an operator can order over the admin socket: POST, with a JSON object that says to whom or what.

Each operation is a function of the running server and that object. It looks up what is meant, tells the pool, and answers with what
came of it. A name is matched exactly: ``shop`` never means ``shop2``.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio

from passenger_trio.core.model import GroupKey, SpawnFailure
from passenger_trio.core.state import Rejection

if TYPE_CHECKING:
    from passenger_trio.tree import RunningServer

__all__ = ["OPERATIONS", "Operation", "OperationRefused", "failure_summary"]


_LONGEST_WAIT = 60.0
"""Seconds."""


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
            results.append(_ended(key, generation, await server.pool.wait_restarted(key, generation)))

        async with trio.open_nursery() as waiting:
            for key, generation in targets.items():
                waiting.start_soon(wait, key, generation)
    return {"groups": sorted(results, key=lambda result: (result["name"], result["environment"]))}


async def wait_restarted(server: RunningServer, order: Mapping[str, Any]) -> dict[str, Any]:
    """``groups``: what ``restart`` answered. ``within``: seconds after which those that have not ended are "waiting", with what they wait for."""
    within = order.get("within")
    if not isinstance(within, int | float) or not 0 <= within <= _LONGEST_WAIT:
        raise OperationRefused(422, f"within must be a number of seconds up to {_LONGEST_WAIT:g}")
    targets = {_key(server, asked): asked["generation"] for asked in _asked(order)}
    results = {key: _waiting(server, key, generation) for key, generation in targets.items()}

    async def wait(key: GroupKey, generation: int) -> None:
        rejection = await server.pool.wait_restarted(key, generation)
        results[key] = _ended(key, generation, rejection)

    with trio.move_on_after(within):
        async with trio.open_nursery() as waiting:
            for key, generation in targets.items():
                waiting.start_soon(wait, key, generation)
    for key, generation in targets.items():
        if results[key]["result"] == "waiting":
            results[key] = _waiting(server, key, generation)
    return {"groups": [results[key] for key in sorted(results, key=lambda key: (key.name, key.environment))]}


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


def _ended(key: GroupKey, generation: int, rejection: Rejection | None) -> dict[str, Any]:
    if rejection is None:
        return _result(key, generation, "restarted")
    return {**_result(key, generation, "rejected", failure_summary(rejection.failure)), "kept": rejection.kept}


def _waiting(server: RunningServer, key: GroupKey, generation: int) -> dict[str, Any]:
    """A restart that has not ended: the processes that are in its way, or how long the new one has been starting."""
    now = server.pool.now()
    groups = server.pool.statistics().groups
    [group] = [group for group in groups if group.key == key]
    draining = [(of, process) for of in groups for process in of.processes if process.leaving is not None]
    return {
        **_result(key, generation, "waiting"),
        "starting_for": max((now - attempt.begun for attempt in group.attempts), default=None),
        "waits_for": [
            {
                "pid": server.pool.processes[process.id].live.pid,
                "group": str(of.key),
                "sessions": process.sessions,
                "ends_in": None if process.drained_by == math.inf else process.drained_by - now,
            }
            for of, process in draining
            if group.held_up
        ],
    }


def _asked(order: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    asked = order.get("groups")
    if not isinstance(asked, list) or not all(
        isinstance(one, dict) and type(one.get("generation")) is int for one in asked
    ):
        raise OperationRefused(422, "groups must be a list of objects with name, environment and generation")
    return asked


def _key(server: RunningServer, asked: Mapping[str, Any]) -> GroupKey:
    for key in server.pool.homes:
        if (key.name, key.environment) == (asked.get("name"), asked.get("environment")):
            return key
    raise OperationRefused(404, f"there is no application {asked.get('name')!r} ({asked.get('environment')!r})")


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
    "/v1/wait-restarted": wait_restarted,
    "/v1/detach": detach,
    "/v1/drain": drain,
    "/v1/resume": resume,
    "/v1/shutdown": shutdown,
    "/v1/reopen-logs": reopen_logs,
}
