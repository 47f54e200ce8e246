"""The statistics of a front as JSON values: counters for ``status``, and its requests in flight.

Read-only. The values of several fronts are added, so a counter is a number, or an object with numbers by name.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import trio

from passenger_trio.core.fronts.front_metrics import FrontMetrics
from passenger_trio.server.front import Front, OpenConnection
from passenger_trio.server.http.exchange import Exchange, Upgraded

__all__ = ["front_counts", "front_facts", "requests_in_flight"]


_SLICE = 500


def front_facts(front: Front) -> dict[str, Any]:
    """Counters, limits, and what is open now."""
    spill = front.spill
    return {
        "draining": front.draining,
        "requests": {"total": front.requests, "active": front.active, "rejected": dict(front.rejected)},
        "buffers": {
            "directory": spill.directory,
            "memory": spill.memory,
            "disk": spill.quota.used,
            "disk_max": spill.quota.limit,
            "spilled": spill.quota.spilled,
            "paused": spill.quota.paused,
            "errors": dict(spill.quota.errors),
        },
        "access_log": None if front.access_log is None else attrs.asdict(front.access_log.statistics()),
        "connections": {"open": len(front.connections), "accepted": front.accepted, "upgraded": front.upgraded},
        "faults": front.kernel.statistics(front.current_time()),
    }


async def front_counts(front: Front) -> FrontMetrics:
    """The values for the metrics. Looks at ``_SLICE`` connections in one step, so that the event loop is not blocked."""
    told = None if front.access_log is None else front.access_log.statistics()
    quota = front.spill.quota
    counts = FrontMetrics(
        tallies={route.key: route.tally for route in front.mounts.routes},
        refused=front.refused,
        rejected=Counter(front.rejected),
        buffer_errors=Counter(quota.errors),
        faults=Counter({task: fault.count for task, fault in front.kernel.faults.items()}),
        accepted=front.accepted,
        most_connections=front.most_connections,
        disk=quota.used,
        disk_limit=quota.limit,
        memory=front.spill.memory,
        pauses=quota.paused,
        has_log=told is not None,
        log_written=told.written if told else 0,
        log_dropped=told.dropped if told else 0,
        lag=front.deadline_scanner.lag,
    )
    for number, connection in enumerate(tuple(front.connections)):
        if number % _SLICE == _SLICE - 1:
            await trio.lowlevel.checkpoint()
        counts.stages[connection.stage.name.lower().removeprefix("slow_")] += 1
        exchange = connection.exchange
        if exchange is not None:
            counts.in_flight[exchange.route.key] += 1
            if exchange.upload is not None or exchange.buffer is not None:
                _, up, _, down = exchange.buffered()
                counts.spilled["request"] += up
                counts.spilled["response"] += down
    return counts


def requests_in_flight(front: Front, now: float) -> list[dict[str, Any]]:
    """Requests in flight. The query is left out, because it may hold secrets."""
    return [_request(connection, now) for connection in front.connections if connection.exchange is not None]


def _request(connection: OpenConnection, now: float) -> dict[str, Any]:
    exchange = connection.exchange
    assert exchange is not None
    return {
        "id": exchange.request_id.decode(),
        "method": exchange.head.method.decode("latin-1"),
        "path": exchange.head.path.decode("latin-1"),
        "group": exchange.route.group_name,
        "client": exchange.client(connection.peer.address),
        "stage": connection.stage.value,
        "age": now - exchange.started,
        "in_stage": now - connection.since,
        "queue_time": exchange.queue_time,
        "pid": exchange.pid or None,
        "buffered": _buffered(exchange),
        "relay": None if exchange.relay is None else _relay(exchange.relay, now),
    }


def _buffered(exchange: Exchange) -> dict[str, dict[str, int]]:
    """The bytes that are buffered for a request, in each direction."""
    up_memory, up_disk, down_memory, down_disk = exchange.buffered()
    return {
        "request": {"memory": up_memory, "disk": up_disk},
        "response": {"memory": down_memory, "disk": down_disk},
    }


def _relay(relay: Upgraded, now: float) -> dict[str, Any]:
    """An upgraded connection: bytes in each direction, and seconds since the last of them."""
    return {"bytes_up": relay.bytes_up, "bytes_down": relay.bytes_down, "idle": now - relay.active}
