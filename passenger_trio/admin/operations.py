"""The orders of the admin API: POST, with a JSON object that names the target.

Each operation is a function of the API's context and that object. The route (``admin/routes.py``)
defines the object's members. The operation finds the target, tells the pool, and returns the
result. A name is matched exactly: ``shop`` never means ``shop2``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import trio

from passenger_trio.admin.context import Admin
from passenger_trio.app_handle import AppHandle
from passenger_trio.core.model import GroupKey, SessionOutcome, SpawnFailure
from passenger_trio.errors import (
    AdminRefused,
    CheckoutError,
    NotFound,
    NotPossible,
    PassengerError,
    RestartFailed,
    SpawnError,
)
from passenger_trio.pool.session import Session
from passenger_trio.pool.waiter import Waiter
from passenger_trio.running import RunningServer
from passenger_trio.served_app import ServedApp
from passenger_trio.spawning.backtraces import Program, take_backtrace

__all__ = [
    "LONGEST_WAIT",
    "backtrace",
    "detach",
    "disable",
    "drain",
    "enable",
    "failure_summary",
    "reload",
    "reopen_logs",
    "restart",
    "resume",
    "shutdown",
    "spawn",
    "wait_restarted",
]


LONGEST_WAIT = 60.0
"""Seconds."""
_MOST_BACKTRACES = 100
"""In one answer, which is at most 16 MiB long."""


def failure_summary(failure: SpawnFailure | None) -> dict[str, str] | None:
    """A short form of a failure, for an answer."""
    if failure is None:
        return None
    return {"id": failure.error_id, "category": failure.category.value, "summary": failure.summary}


async def restart(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    """``group``: one group (default: all). ``hard``: at once. ``wait``: answer when the restart has ended."""
    server = admin.server
    if server.stopping:
        raise AdminRefused(409, "the instance is stopping")
    keys = _groups(admin, order)
    apps = [app for app in server.every_app() if app.key in keys]
    targets = server.restart(*apps, hard=order.get("hard", False)) if apps else {}
    results: list[dict[str, Any]] = []
    if not order.get("wait"):
        results = [_result(app.key, generation, "asked") for app, generation in targets.items()]
    else:

        async def wait(app: AppHandle, generation: int) -> None:
            results.append(await _ended(app, generation))

        async with trio.open_nursery() as waiting:
            for app, generation in targets.items():
                waiting.start_soon(wait, app, generation)
    return {"groups": sorted(results, key=lambda result: (result["name"], result["environment"]))}


async def wait_restarted(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    """``groups``: from the answer of ``restart``. ``within``: seconds after which restarts that
    have not ended are reported as "waiting", with the processes that they wait for.
    """
    server = admin.server
    apps = [_app(server, asked) for asked in order["groups"]]
    targets = {app.key: asked["generation"] for app, asked in zip(apps, order["groups"], strict=True)}
    results = {key: _waiting(server, key, generation) for key, generation in targets.items()}

    async def wait(app: AppHandle) -> None:
        results[app.key] = await _ended(app, targets[app.key])

    with trio.move_on_after(order["within"]):
        async with trio.open_nursery() as waiting:
            for app in apps:
                waiting.start_soon(wait, app)
    for key, generation in targets.items():
        if results[key]["result"] == "waiting":
            results[key] = _waiting(server, key, generation)
    return {"groups": [results[key] for key in sorted(results, key=lambda key: (key.name, key.environment))]}


async def reload(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    """``dry_run``: change nothing. An error is a part of the answer: nothing was changed then."""
    dry_run = bool(order.get("dry_run"))
    try:
        plan = await admin.server.reloading.reload_source(dry_run=dry_run)
    except PassengerError as error:
        return {"changes": list(getattr(error, "lines", ())), "error": str(error), "applied": False}
    return {"changes": list(plan.lines), "error": None, "applied": not dry_run}


async def detach(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    """``pid``: a process that serves. ``wait``: answer when it has ended."""
    app, pid = _app_of(admin, order)
    with _refused():
        app.detach(pid)
    if order.get("wait"):
        await app.wait_gone(pid)
    return {"pid": pid, "group": str(app.key)}


async def backtrace(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    """``pid``: one process, preloader or program that starts. ``group``: all of an application. Neither: all.

    The answer has them by application, the oldest first, so a preloader is before what it forked. (Their PIDs do not say that: the kernel
    begins again after its highest one.)
    """
    pid = order.get("pid")
    keys = _groups(admin, order)
    programs = {
        of: (spec, program)
        for spec in admin.server.reloading.served.every_spec
        if spec.key in keys
        for of, program in spec.live_programs().items()
        if pid in (None, of)
    }
    if not programs:
        raise AdminRefused(404, f"no process {pid} of an application runs" if pid else "no process of it runs")
    texts: dict[int, str] = {}

    async def take(of: int, program: Program) -> None:
        if program.pidfd is not None:
            texts[of] = await take_backtrace(program.control, program.pidfd, program.output)

    async with trio.open_nursery() as asking:
        for of, (_, program) in list(programs.items())[:_MOST_BACKTRACES]:
            asking.start_soon(take, of, program)
    return {
        "processes": [
            {"pid": of, "group": str(spec.key), "role": program.role, "text": texts[of]}
            for of, (spec, program) in programs.items()
            if of in texts
        ]
    }


async def disable(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    """``pid``: a process that serves, and that is not the only one."""
    app, pid = _app_of(admin, order)
    with _refused():
        sessions = app.disable(pid)
    return {"pid": pid, "group": str(app.key), "sessions": sessions}


async def enable(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    """``pid``: a process that was disabled. Nothing happens if it serves."""
    app, pid = _app_of(admin, order)
    with _refused():
        app.enable(pid)
    return {"pid": pid, "group": str(app.key)}


def _app_of(admin: Admin, order: Mapping[str, Any]) -> tuple[ServedApp, int]:
    pid = order["pid"]
    with _refused():
        return admin.server.app_of(pid), pid


@contextmanager
def _refused() -> Iterator[None]:
    """Turn the errors of a handle into the API's."""
    try:
        yield
    except NotFound as error:
        raise AdminRefused(404, str(error)) from None
    except NotPossible as error:
        raise AdminRefused(409, str(error)) from None


async def spawn(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    """``group``: one group (default: all). Starts a process where none is free, and answers when one
    can serve, or why none can: as a request would, but no application sees it. ``more``: starts one also where one is free.
    """
    start = _one_more if order.get("more") else _free_process
    results: list[dict[str, Any]] = []
    for key in _groups(admin, order):
        pid: int | None = None
        error: dict[str, Any] | None = None
        try:
            pid = await start(admin.server, key)
        except CheckoutError as refusal:
            failure = refusal.failure if isinstance(refusal, SpawnError) else None
            error = {"code": refusal.code, "cause": failure_summary(failure)}
        results.append({"name": key.name, "environment": key.environment, "pid": pid, "error": error})
    return {"groups": results}


async def _free_process(server: RunningServer, key: GroupKey) -> int:
    """:raises CheckoutError: no process can serve."""
    session = await _check_out(server, key)
    session.close(SessionOutcome.NOT_STARTED)
    return session.pid


async def _one_more(server: RunningServer, key: GroupKey) -> int:
    """Take all free places in the processes that serve, so that the next session needs one more process.

    :raises CheckoutError: it cannot serve, or the pool has no room for it and none became free in the time of a request.
    :raises AdminRefused: a process takes any number of requests.
    """
    there = {process.pid: process.concurrency for process in server.app(str(key)).processes if process.serves}
    if 0 in there.values():
        raise AdminRefused(409, f"a process of {key} takes any number of requests: no second one is started")
    taken: list[Session] = []
    try:
        while not taken or taken[-1].pid in there:
            taken.append(await _check_out(server, key))
        return taken[-1].pid
    finally:
        for session in taken:
            session.close(SessionOutcome.NOT_STARTED)


async def _check_out(server: RunningServer, key: GroupKey) -> Session:
    found = server.pool.checkout_or_queue(key, server.pool.current_time())
    if not isinstance(found, Waiter):
        await trio.lowlevel.checkpoint()
        return found
    try:
        return await found.wait()
    finally:
        found.leave()


async def drain(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    """Close each connection after its response, until ``resume``."""
    return {"draining": True, "active": admin.server.drain()}


async def resume(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    """Keep connections alive again."""
    with _refused():
        admin.server.resume()
    return {"draining": False}


async def shutdown(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    """The same as SIGTERM."""
    admin.server.stop()
    return {"stopping": True}


async def reopen_logs(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    """For use after a rotation."""
    admin.server.reopen_logs()
    return {"reopened": True}


def _result(key: GroupKey, generation: int, result: str, error: object = None) -> dict[str, Any]:
    return {
        "name": key.name,
        "environment": key.environment,
        "generation": generation,
        "result": result,
        "error": error,
    }


async def _ended(app: AppHandle, generation: int) -> dict[str, Any]:
    try:
        await app.wait_restarted(generation)
    except NotFound:  # it was removed meanwhile
        return {**_result(app.key, generation, "rejected"), "kept": False}
    except RestartFailed as failed:
        return {**_result(app.key, generation, "rejected", failure_summary(failed.failure)), "kept": failed.kept}
    return _result(app.key, generation, "restarted")


def _waiting(server: RunningServer, key: GroupKey, generation: int) -> dict[str, Any]:
    """A restart that has not ended: the processes that it waits for, or how long the new process
    has been starting.
    """
    now = server.pool.current_time()
    group = server.pool.group_statistics(key)
    in_the_way = server.pool.statistics().groups if group.waits_for_room else ()
    draining = [(of, process) for of in in_the_way for process in of.processes if process.leaving is not None]
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
        ],
    }


def _app(server: RunningServer, asked: Mapping[str, Any]) -> AppHandle:
    for app in server.every_app():
        if (app.name, app.environment) == (asked["name"], asked["environment"]) and app.key in server.pool.group_tasks:
            return app
    raise AdminRefused(404, f"there is no application {asked['name']!r} ({asked['environment']!r})")


def _groups(admin: Admin, order: Mapping[str, Any]) -> list[GroupKey]:
    wanted = order.get("group")
    every = list(admin.server.pool.group_tasks)
    if wanted is None:
        return every
    found = [key for key in every if wanted in (key.name, str(key))]
    if not found:
        raise AdminRefused(404, f"there is no application {wanted!r}; there are: {', '.join(map(str, every))}")
    return found
