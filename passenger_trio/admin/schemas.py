"""The schemas of the admin API's answers, in JSON Schema (2020-12, the version of OpenAPI 3.1).

Values only. An object has exactly the listed members, so a new member needs its schema in the same
change. Objects that count by name (errors by their code) allow any name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from passenger_trio.events import KINDS

__all__ = [
    "DESCRIPTION",
    "DETACHED",
    "DISABLED",
    "DRAINING",
    "ENABLED",
    "ERROR",
    "EVENT",
    "HISTORY",
    "MEMORY",
    "RELOADED",
    "REOPENED",
    "REQUESTS",
    "RESTARTED",
    "RESUMED",
    "SPAWNED",
    "STATUS",
    "STOPPING",
    "TRACE",
    "WAITED",
    "record",
]

Schema = dict[str, Any]


def record(members: Mapping[str, Schema], *, needed: Sequence[str] | None = None) -> Schema:
    """An object with these members and no others. :param needed: those that must be there (default: all)."""
    return {
        "type": "object",
        "properties": dict(members),
        "required": list(members if needed is None else needed),
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
BYTES: Schema = {"type": "integer", "minimum": 0, "description": "bytes"}
SECONDS: Schema = {"type": "number", "description": "seconds"}
FLAG: Schema = {"type": "boolean"}
COUNTED: Schema = {"type": "object", "additionalProperties": COUNT}
ALWAYS: Schema = {"const": True}

ERROR = record({"error": TEXT})
FAILURE = record({"id": TEXT, "category": TEXT, "summary": TEXT})
DESCRIPTION: Schema = {"type": "object", "required": ["openapi", "info", "paths"]}

_SIZES = record({"rss": BYTES, "pss": _maybe(BYTES), "uss": _maybe(BYTES)})
_PROCESS = record(
    {
        "id": COUNT,
        "pid": _maybe(COUNT),
        "state": _one_of("running", "disabled", "out-of-band work", "stopping"),
        "generation": COUNT,
        "to_replace": _maybe(TEXT),
        "leaving": _maybe(TEXT),
        "ends_in": _maybe(SECONDS),
        "sessions": COUNT,
        "concurrency": COUNT,
        "processed": COUNT,
        "cpu": _maybe({"type": "number", "minimum": 0}),
        "memory": _maybe(_SIZES),
        "uptime": SECONDS,
        "last_used": SECONDS,
    }
)
_GROUP = record(
    {
        "name": TEXT,
        "environment": TEXT,
        "root": TEXT,
        "app_type": TEXT,
        "interpreter": TEXT,
        "spawn_method": record(
            {
                "asked": _one_of("auto", "smart", "direct"),
                "used": _maybe(_one_of("smart", "direct")),
                "hazards": _list(record({"kind": TEXT, "what": TEXT})),
            }
        ),
        "queue": COUNT,
        "spawning": COUNT,
        "backing_off_for": _maybe(SECONDS),
        "last_error": _maybe(FAILURE),
        "generation": COUNT,
        "restarting": FLAG,
        "waits_for_room": FLAG,
        "leaving": FLAG,
        "rejected": _maybe(record({"age": SECONDS, "kept": FLAG, "error": _maybe(FAILURE)})),
        "preloader": _maybe(record({"pid": COUNT, "uptime": SECONDS, "forks": COUNT, "memory": _maybe(_SIZES)})),
        "processes": _list(_PROCESS),
    }
)
_ROOM = record(
    {
        "asked": TEXT,
        "share": {"type": "number"},
        "total": BYTES,
        "source": TEXT,
        "own": BYTES,
        "used": BYTES,
        "reserved": BYTES,
        "free": {"type": "integer"},
        "next_size": BYTES,
        "next_app": TEXT,
        "is_guess": FLAG,
        "minimum": COUNT,
        "most": COUNT,
        "fits": COUNT,
    }
)
_FAULT = record({"count": COUNT, "last": TEXT, "age": SECONDS, "failing": FLAG})
STATUS = record(
    {
        "version": TEXT,
        "pid": COUNT,
        "uptime": SECONDS,
        "stopping": FLAG,
        "draining": FLAG,
        "addresses": _list(TEXT),
        "pool": record(
            {
                "max": COUNT,
                "memory": _maybe(_ROOM),
                "size": COUNT,
                "detached": COUNT,
                "spawning": COUNT,
                "queue": COUNT,
            }
        ),
        "broken_files": _list(record({"file": TEXT, "error": TEXT})),
        "groups": _list(_GROUP),
        "requests": record({"total": COUNT, "active": COUNT, "rejected": COUNTED}),
        "buffers": record(
            {
                "directory": TEXT,
                "memory": BYTES,
                "disk": BYTES,
                "disk_max": BYTES,
                "spilled": COUNT,
                "paused": COUNT,
                "errors": COUNTED,
            }
        ),
        "access_log": _maybe(
            record({"written": COUNT, "dropped": COUNT, "errors": COUNT, "backlog": BYTES, "last_error": TEXT})
        ),
        "connections": record({"open": COUNT, "accepted": COUNT, "upgraded": COUNT}),
        "fronts": _list(
            record(
                {
                    "number": COUNT,
                    "pid": _maybe(COUNT),
                    "restarts": COUNT,
                    "connections": COUNT,
                    "busy": COUNT,
                    "slots": COUNT,
                    "lag": SECONDS,
                    "alive": FLAG,
                    "active": FLAG,
                }
            )
        ),
        "faults": record({"total": COUNT, "tasks": {"type": "object", "additionalProperties": _FAULT}}),
    }
)

_HELD = record({"memory": BYTES, "disk": BYTES})
REQUESTS = record(
    {
        "requests": _list(
            record(
                {
                    "id": TEXT,
                    "method": TEXT,
                    "path": TEXT,
                    "group": TEXT,
                    "client": TEXT,
                    "stage": TEXT,
                    "age": SECONDS,
                    "in_stage": SECONDS,
                    "queue_time": SECONDS,
                    "pid": _maybe(COUNT),
                    "buffered": record({"request": _HELD, "response": _HELD}),
                    "relay": _maybe(record({"bytes_up": BYTES, "bytes_down": BYTES, "idle": SECONDS})),
                }
            )
        )
    }
)

_COST = {"rss": BYTES, "pss": _maybe(BYTES), "uss": _maybe(BYTES), "shared": _maybe(BYTES)}
MEMORY = record(
    {
        "supervisor": _maybe(record({"pid": COUNT, **_COST})),
        "groups": _list(
            record(
                {
                    "name": TEXT,
                    "environment": TEXT,
                    "processes": _list(record({"role": _one_of("preloader", "process"), "pid": COUNT, **_COST})),
                    "saved": _maybe(BYTES),
                }
            )
        ),
    }
)

TRACE = record(
    {
        "limits": {"type": "object"},
        "whole": FLAG,
        "state": _maybe({"type": "object"}),
        "entries": _list({"type": "array"}),
    }
)

EVENT: Schema = {
    "type": "object",
    "properties": {"event": _one_of(*KINDS), "time": SECONDS, "lost_before": COUNT},
    "required": ["event", "time"],
}

_STEP = record(
    {"title": TEXT, "state": _one_of("not_started", "in_progress", "performed", "errored"), "seconds": _maybe(SECONDS)}
)
HISTORY = record(
    {
        "events": _list(EVENT),
        "failures": _list(
            record(
                {
                    "age": SECONDS,
                    "group": TEXT,
                    "id": TEXT,
                    "category": TEXT,
                    "summary": TEXT,
                    "problem": TEXT,
                    "solution": TEXT,
                    "traceback": TEXT,
                    "output": _list(TEXT),
                    "steps": _list(_STEP),
                }
            )
        ),
    }
)

_RESULT = {"name": TEXT, "environment": TEXT, "generation": COUNT, "error": _maybe(FAILURE)}
_IN_THE_WAY = record({"pid": COUNT, "group": TEXT, "sessions": COUNT, "ends_in": _maybe(SECONDS)})
_RESULTS = (
    record({**_RESULT, "result": _one_of("asked", "restarted")}),
    record({**_RESULT, "result": _one_of("rejected"), "kept": FLAG}),
)
_WAITING = record(
    {
        **_RESULT,
        "result": _one_of("waiting"),
        "starting_for": _maybe(SECONDS),
        "waits_for": _list(_IN_THE_WAY),
    }
)
RESTARTED = record({"groups": _list({"anyOf": list(_RESULTS)})})
WAITED = record({"groups": _list({"anyOf": [*_RESULTS, _WAITING]})})
BACKTRACES = record(
    {"processes": _list(record({"pid": COUNT, "group": TEXT, "role": _one_of("process", "preloader"), "text": TEXT}))}
)
SPAWNED = record(
    {
        "groups": _list(
            record(
                {
                    "name": TEXT,
                    "environment": TEXT,
                    "pid": _maybe(COUNT),
                    "error": _maybe(record({"code": TEXT, "cause": _maybe(FAILURE)})),
                }
            )
        )
    }
)
RELOADED = record({"changes": _list(TEXT), "error": _maybe(TEXT), "applied": FLAG})
DETACHED = record({"pid": COUNT, "group": TEXT})
DISABLED = record({"pid": COUNT, "group": TEXT, "sessions": COUNT})
ENABLED = record({"pid": COUNT, "group": TEXT})
DRAINING = record({"draining": ALWAYS, "active": COUNT})
RESUMED = record({"draining": {"const": False}})
STOPPING = record({"stopping": ALWAYS})
REOPENED = record({"reopened": ALWAYS})
