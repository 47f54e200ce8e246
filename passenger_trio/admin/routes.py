"""The routes of the admin API, by method and path.

A new route is a function of (``Admin``, order) and a line here. The line defines the order's
members, which are checked before the function is called, and the description of the route
(``openapi``).

Laws: an answer has exactly the members of its schema (a test checks this on a running server). A
route that may last long declares it (``lasts``), so that its callers are counted separately from
the few short ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs

from passenger_trio.admin import operations, resources, schemas, status
from passenger_trio.admin.context import Admin
from passenger_trio.admin.health import health_answer
from passenger_trio.admin.history import history
from passenger_trio.admin.metrics import metrics
from passenger_trio.codecs.admin_api import Field, Text
from passenger_trio.codecs.openmetrics import CONTENT_TYPE
from passenger_trio.errors import AdminRefused
from passenger_trio.late_classes import frozen
from passenger_trio.version import __version__

__all__ = ["ROUTES", "Answer", "Route", "find_route", "openapi"]

Answer = dict[str, Any] | bytes | Text
Run = Callable[[Admin, Mapping[str, Any]], Awaitable[Answer]]
"""Returns the answer, or its JSON if encoding takes long, or a text with its own status."""


@frozen
class Route:
    """:ivar run: None: the answer is a stream of events.
    :ivar lasts: whether an order may last as long as its caller waits.
    :ivar refusals: statuses besides those of every route.
    :ivar flags: words that a query may have. They are in the order, as true.
    :ivar content_type: of the answer.
    :ivar negative: a status whose answer is the text of a "no".
    """

    method: str
    path: str
    summary: str
    run: Run | None
    answer: dict[str, Any]
    order: Mapping[str, Field] = attrs.field(factory=dict)
    lasts: Callable[[Mapping[str, Any]], bool] = lambda order: False
    refusals: tuple[int, ...] = ()
    flags: Mapping[str, str] = attrs.field(factory=dict)
    content_type: str = "application/json"
    negative: tuple[int, ...] = ()


async def _openapi(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    return openapi()


async def _status(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    return dict(await status.status(admin))


async def _requests(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    return await resources.requests(admin)


async def _memory(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    return await resources.memory(admin)


async def _trace(admin: Admin, order: Mapping[str, Any]) -> bytes:
    return await resources.trace(admin)


async def _history(admin: Admin, order: Mapping[str, Any]) -> dict[str, Any]:
    return history(admin)


async def _metrics(admin: Admin, order: Mapping[str, Any]) -> Text:
    return Text(200, CONTENT_TYPE, b"", await metrics(admin))


def _health(question: str) -> Run:
    async def answer(admin: Admin, order: Mapping[str, Any]) -> Text:
        return health_answer(admin.server, question, verbose="verbose" in order, brief="brief" in order)

    return answer


def _health_route(question: str, summary: str) -> Route:
    return Route(
        "GET",
        f"/{question}",
        summary,
        _health(question),
        schemas.TEXT,
        flags={"verbose": "a line for each check", "brief": "with verbose: none for each application"},
        content_type="text/plain; charset=utf-8",
        negative=() if question == "livez" else (503,),
    )


ROUTES = (
    Route("GET", "/metrics", "Metrics, as OpenMetrics.", _metrics, schemas.TEXT, content_type=CONTENT_TYPE),
    _health_route("livez", "The event loop answers."),
    _health_route("readyz", "Whether the server can take requests, and why not."),
    _health_route("startupz", "Whether the applications have been ready."),
    Route("GET", "/v1/openapi.json", "This description.", _openapi, schemas.DESCRIPTION),
    Route("GET", "/v1/status", "The pool, its processes, and what is counted.", _status, schemas.STATUS),
    Route("GET", "/v1/requests", "Requests in flight, the oldest first.", _requests, schemas.REQUESTS),
    Route("GET", "/v1/history", "The last events, and the last failed starts.", _history, schemas.HISTORY),
    Route("GET", "/v1/memory", "What each process costs.", _memory, schemas.MEMORY, refusals=(503,)),
    Route(
        "GET",
        "/v1/trace",
        "What the pool was told and what it decided; it replays.",
        _trace,
        schemas.TRACE,
        refusals=(503,),
    ),
    Route("GET", "/v1/events", "Events as they happen, one JSON object a line.", None, schemas.EVENT),
    Route(
        *("POST", "/v1/restart", "Restart an application, or all of them.", operations.restart, schemas.RESTARTED),
        order={
            "group": Field("string", "its name, or its name and environment, as status shows it (default: all)"),
            "hard": Field("boolean", "end all processes at once"),
            "wait": Field("boolean", "answer when the restart has ended"),
        },
        lasts=lambda order: bool(order.get("wait")),
        refusals=(404, 409),
    ),
    Route(
        *("POST", "/v1/wait-restarted", "Wait for the end of restarts, for so long at most."),
        *(operations.wait_restarted, schemas.WAITED),
        order={
            "groups": Field(
                "array",
                "of restart's answer",
                is_needed=True,
                items={
                    "name": Field("string", "of a group", is_needed=True),
                    "environment": Field("string", "of that group", is_needed=True),
                    "generation": Field("integer", "that it is to have", is_needed=True),
                },
            ),
            "within": Field("number", "seconds", is_needed=True, bounds=(0, operations.LONGEST_WAIT)),
        },
        lasts=lambda order: True,
        refusals=(404,),
    ),
    Route(
        *("POST", "/v1/reload", "Read the configuration anew.", operations.reload, schemas.RELOADED),
        order={"dry_run": Field("boolean", "change nothing, and tell what would change")},
        lasts=lambda order: True,
    ),
    Route(
        *("POST", "/v1/detach", "Take a process out, after its requests.", operations.detach, schemas.DETACHED),
        order={
            "pid": Field("integer", "of a process that serves", is_needed=True),
            "wait": Field("boolean", "answer when the process has ended"),
        },
        lasts=lambda order: bool(order.get("wait")),
        refusals=(404,),
    ),
    Route(
        *("POST", "/v1/spawn", "Start a process where none is free.", operations.spawn, schemas.SPAWNED),
        order={
            "group": Field("string", "its name, or its name and environment, as status shows it (default: all)"),
            "more": Field("boolean", "start one also where one is free"),
        },
        lasts=lambda order: True,
        refusals=(404, 409),
    ),
    Route(
        *("POST", "/v1/backtrace", "What processes are doing: the stacks of their threads and tasks."),
        *(operations.backtrace, schemas.BACKTRACES),
        order={
            "pid": Field("integer", "of a process, a preloader, or a program that starts"),
            "group": Field("string", "its name, or its name and environment: all of its processes (default: of all)"),
        },
        refusals=(404,),
    ),
    Route(
        *("POST", "/v1/disable", "Take a process out of routing, until it is enabled."),
        *(operations.disable, schemas.DISABLED),
        order={"pid": Field("integer", "of a process that serves", is_needed=True)},
        refusals=(404, 409),
    ),
    Route(
        *("POST", "/v1/enable", "Put a disabled process back.", operations.enable, schemas.ENABLED),
        order={"pid": Field("integer", "of a process that was disabled", is_needed=True)},
        refusals=(404,),
    ),
    Route("POST", "/v1/drain", "End connections after their response.", operations.drain, schemas.DRAINING),
    Route("POST", "/v1/resume", "End a drain.", operations.resume, schemas.RESUMED, refusals=(409,)),
    Route("POST", "/v1/shutdown", "As SIGTERM.", operations.shutdown, schemas.STOPPING),
    Route("POST", "/v1/reopen-logs", "After a rotation.", operations.reopen_logs, schemas.REOPENED),
)

_BY_PATH: dict[str, dict[str, Route]] = {}
for _route in ROUTES:
    _BY_PATH.setdefault(_route.path, {})[_route.method] = _route


def find_route(method: str, path: str) -> Route:
    """:raises AdminRefused: there is no such route. HEAD is GET without the body of the answer."""
    methods = _BY_PATH.get(path)
    if methods is None:
        raise AdminRefused(404, "no such resource")
    found = methods.get("GET" if method == "HEAD" else method)
    if found is None:
        possible = sorted({*methods, *(("HEAD",) if "GET" in methods else ())})
        raise AdminRefused(405, f"only {' and '.join(possible)} is possible", allow=", ".join(possible))
    return found


_EVERY = {
    "400": "What came is no HTTP request.",
    "403": "The caller's user is neither the instance's nor the superuser.",
    "413": "The request is too long.",
}
_OF_ORDERS = {"422": "The order is no JSON object, or has members that are not described."}
_OF_SOME = {
    "404": "Nothing has that name or number.",
    "409": "The instance is stopping, or nobody else would serve.",
    "503": "The system refused a thread; try again.",
}


def openapi() -> dict[str, Any]:
    """The description of the API (OpenAPI 3.1)."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        operation: dict[str, Any] = {
            "operationId": f"{route.method.lower()}_{route.path.removeprefix('/v1').strip('/').replace('-', '_').replace('.', '_')}",
            "summary": route.summary,
            "responses": _responses(route),
        }
        if route.flags:
            operation["parameters"] = [
                {"name": name, "in": "query", "required": False, "schema": {"type": "string"}, "description": meaning}
                for name, meaning in route.flags.items()
            ]
        if route.method == "POST":
            operation["requestBody"] = {"content": {"application/json": {"schema": _order(route.order)}}}
            operation["requestBody"]["required"] = any(field.is_needed for field in route.order.values())
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "passenger_trio admin API",
            "version": __version__,
            "description": "JSON over HTTP/1.1 on the admin socket of an instance, one request a connection. HEAD is possible where GET is.",
        },
        "paths": paths,
        "components": {"schemas": {"Error": schemas.ERROR}},
    }


def _responses(route: Route) -> dict[str, Any]:
    kind = "application/x-ndjson" if route.run is None else route.content_type
    refusals = {**_EVERY, **(_OF_ORDERS if route.method == "POST" else {})}
    refusals |= {str(status): _OF_SOME[str(status)] for status in route.refusals}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "200": {"description": route.summary, "content": {kind: {"schema": route.answer}}},
        **{
            str(status): {"description": "No, and why.", "content": {kind: {"schema": route.answer}}}
            for status in route.negative
        },
        **{status: {"description": why, "content": error} for status, why in sorted(refusals.items())},
    }


def _order(fields: Mapping[str, Field]) -> dict[str, Any]:
    members = {name: _member(field) for name, field in fields.items()}
    return schemas.record(members, needed=[name for name, field in fields.items() if field.is_needed])


def _member(field: Field) -> dict[str, Any]:
    member: dict[str, Any] = {"type": field.kind if field.is_needed else [field.kind, "null"]}
    if field.kind == "array":
        member["items"] = _order(field.items)
    if field.bounds is not None:
        member["minimum"], member["maximum"] = field.bounds
    return {**member, "description": field.meaning}
