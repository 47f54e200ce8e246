"""The recent history for the dashboard: the last events of the pool, and the last failed starts with their evidence."""

from __future__ import annotations

from typing import Any

import trio

from passenger_trio.admin.context import Admin
from passenger_trio.core.model import SpawnFailure
from passenger_trio.events import as_json

__all__ = ["history"]


def history(admin: Admin) -> dict[str, Any]:
    """Events and failed starts, each list oldest first."""
    pool = admin.server.pool
    now = trio.current_time()
    return {
        "events": [as_json(event) for event in pool.events.recent],
        "failures": [_failure(str(key), failure, now - at) for at, key, failure in pool.failures],
    }


def _failure(group: str, failure: SpawnFailure, age: float) -> dict[str, Any]:
    return {
        "age": age,
        "group": group,
        "id": failure.error_id,
        "category": failure.category.value,
        "summary": failure.summary,
        "problem": failure.problem,
        "solution": failure.solution,
        "traceback": failure.traceback,
        "output": list(failure.output),
        "steps": [
            {"title": step.title, "state": step.state.value, "seconds": step.duration} for step in failure.journey.steps
        ],
    }
