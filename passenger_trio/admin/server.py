"""The admin API of an instance: JSON over HTTP on its Unix socket.

One request a connection; a caller has ``_TIME`` for it, and no more than ``_MAX_CALLERS`` are served at a time, so that a slow or hostile one costs
nothing (F60). It answers from the first moment of the start until the last process is gone.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import h11
import trio

from passenger_trio import __version__
from passenger_trio.admin import resources
from passenger_trio.admin.operations import OPERATIONS, Operation, OperationRefused, failure_summary
from passenger_trio.core.lobby import Lobby
from passenger_trio.core.state import EnabledStatus
from passenger_trio.core.statistics import GroupStatistics, ProcessStatistics
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.system.callers import Caller, serve_callers
from passenger_trio.system.gauges import ProcessGauge, measure
from passenger_trio.system.sockets import RawStream, peer_credentials
from passenger_trio.system.threads import NoThread, in_thread

if TYPE_CHECKING:
    from passenger_trio.tree import RunningServer

__all__ = ["serve_admin"]

_TIME = 10.0
_MAX_CALLERS = 16
_MAX_STAYING = 64
_MAX_REQUEST = 16384

_log = logging.getLogger("passenger_trio.admin")


async def serve_admin(
    server: RunningServer,
    specs: Sequence[AppSpec],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen on the instance's admin socket until cancelled."""
    admin = _Admin(server, specs, trio.current_time())
    await serve_callers(
        server.admin_socket,
        admin.serve_caller,
        admin,
        backlog=128,
        failed=lambda exc: _log.warning("accept on the admin socket failed: %s", exc.strerror),
        kernel=server.front.kernel,
        task="a caller on the admin socket",
        task_status=task_status,
    )


@attrs.frozen
class _Call:
    connection: h11.Connection
    request: h11.Request
    body: bytes


@attrs.define(eq=False)
class _Admin:
    server: RunningServer
    specs: Sequence[AppSpec]
    started: float
    limiter: trio.CapacityLimiter = attrs.field(factory=partial(trio.CapacityLimiter, 1))
    lobby: Lobby = attrs.field(factory=partial(Lobby, _MAX_CALLERS, _MAX_STAYING))

    def arrive(self, caller: Caller) -> int | None:
        """Who is to go for a new caller."""
        return self.lobby.arrive(caller.number, caller.peer.pid)

    def leave(self, number: int) -> None:
        """A caller is gone."""
        self.lobby.leave(number)

    async def serve_caller(self, caller: Caller) -> None:
        stream = RawStream(caller.socket)
        try:
            with trio.move_on_after(_TIME) as scope:
                call = await self._receive(stream)
                if call is not None:
                    await self._serve_call(stream, call, scope)
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            pass  # it did not wait for the answer, or does not speak HTTP
        finally:
            stream.close()

    async def _receive(self, stream: RawStream) -> _Call | None:
        """The whole request. None: there is none, or it was refused."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_REQUEST)
        request: h11.Request | None = None
        body = b""
        size = 0
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await stream.recv()
                size += len(data)
                if size > _MAX_REQUEST:
                    await self._reply(stream, connection, 413, {"error": "the request is too long"})
                    return None
                connection.receive_data(data)
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                return None
        assert request is not None
        return _Call(connection, request, bytes(body))

    async def _serve_call(self, stream: RawStream, call: _Call, scope: trio.CancelScope) -> None:
        peer = peer_credentials(stream.socket)
        connection, request = call.connection, call.request
        if peer.uid not in (0, os.getuid()):
            _log.warning("user %d (pid %d) was refused on the admin socket", peer.uid, peer.pid)
            return await self._reply(stream, connection, 403, {"error": "this instance belongs to another user"})
        path = request.target.partition(b"?")[0].decode("ascii", "replace")
        if path == "/v1/events" and request.method == b"GET":
            scope.deadline = math.inf
            return await self._stream_events(stream, connection)
        found, ordered = _RESOURCES.get(path), OPERATIONS.get(path)
        if found is None and ordered is None:
            return await self._reply(stream, connection, 404, {"error": "no such resource"})
        if found is not None and request.method == b"GET":
            try:
                shown = await found(self)
            except NoThread as error:
                return await self._reply(
                    stream, connection, 503, {"error": f"no thread can be had for it now: {error}"}
                )
            return await self._reply(stream, connection, 200, shown)
        if ordered is None or request.method != b"POST":
            possible = "GET" if found is not None else "POST"
            return await self._reply(stream, connection, 405, {"error": f"only {possible} is possible"})
        return await self._reply(stream, connection, *await self._perform(stream, ordered, call.body, scope))

    async def _stream_events(self, stream: RawStream, connection: h11.Connection) -> None:
        """One JSON object a line, as it happens, for as long as the caller listens."""
        headers = [("Content-Type", "application/x-ndjson"), ("Connection", "close")]
        begin = connection.send(h11.Response(status_code=200, headers=headers)) or b""
        with self.server.pool.events.listen() as listener:
            async with trio.open_nursery() as streaming:
                streaming.start_soon(_until_gone, stream, streaming.cancel_scope)
                await stream.send_all(begin)
                async for event in listener:
                    await stream.send_all(connection.send(h11.Data(data=json.dumps(event).encode() + b"\n")) or b"")

    async def _perform(
        self, stream: RawStream, ordered: Operation, body: bytes, scope: trio.CancelScope
    ) -> tuple[int, object]:
        """Perform an operation, for as long as its caller waits for it."""
        try:
            order = json.loads(body or b"{}")
        except ValueError:
            order = None
        if not isinstance(order, dict):
            return 422, {"error": "the body must be a JSON object"}
        result: tuple[int, object] = 408, {"error": "nobody waits for it any more"}
        async with trio.open_nursery() as performing:
            performing.start_soon(_until_gone, stream, performing.cancel_scope)
            # What takes its time is bounded by the start timeouts of the applications, not by a caller's slowness.
            scope.deadline = math.inf
            try:
                result = 200, await ordered(self.server, order)
            except OperationRefused as refused:
                result = refused.status, {"error": str(refused)}
            performing.cancel_scope.cancel()
        return result

    async def _reply(self, stream: RawStream, connection: h11.Connection, status: int, value: object) -> None:
        body = json.dumps(value).encode() + b"\n"
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
        out = [
            connection.send(h11.Response(status_code=status, headers=headers)),
            connection.send(h11.Data(data=body)),
            connection.send(h11.EndOfMessage()),
        ]
        await stream.send_all(b"".join(piece for piece in out if piece))
        stream.send_eof()

    # -- resources ----------------------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """Everything that ``passenger-trio status`` shows."""
        server = self.server
        pool = server.pool
        statistics = pool.statistics()
        pids = [process.live.pid for process in pool.processes.values()]
        pids += [preloader.pid for home in pool.homes.values() for preloader in home.preloaders]
        try:
            gauges = await in_thread(_measure_all, pids, limiter=self.limiter)
        except NoThread:
            gauges = {}  # everything else is known
        now = trio.current_time()
        front = server.front
        by_key = {spec.key: spec for spec in self.specs}
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime": now - self.started,
            "stopping": server.stopping,
            "draining": front.draining,
            "addresses": server.addresses,
            "pool": {
                "max": statistics.limits.max_pool_size,
                "size": statistics.capacity_used,
                "detached": statistics.detached,
                "spawning": sum(len(group.attempts) for group in statistics.groups),
                "queue": sum(group.queue_length for group in statistics.groups),
            },
            "groups": [self._group(group, by_key[group.key], gauges, now) for group in statistics.groups],
            "requests": {"total": front.requests, "active": front.active, "rejected": dict(front.rejected)},
            "buffers": {
                "directory": front.spill.directory,
                "memory": front.spill.memory,
                "disk": front.spill.quota.used,
                "disk_max": front.spill.quota.limit,
                "spilled": front.spill.quota.spilled,
                "paused": front.spill.quota.paused,
                "errors": dict(front.spill.quota.errors),
            },
            "connections": {"open": len(front.connections), "accepted": front.accepted, "upgraded": front.upgraded},
        }

    def _group(
        self, group: GroupStatistics, spec: AppSpec, gauges: dict[int, ProcessGauge], now: float
    ) -> dict[str, Any]:
        preloader = next(iter(self.server.pool.homes[group.key].preloaders), None)
        rejection = group.rejection
        failure = group.last_failure
        backing_off = group.backing_off_until
        return {
            "name": group.key.name,
            "environment": group.key.environment,
            "root": spec.detected.root,
            "app_type": spec.detected.app_type,
            "interpreter": spec.detected.python,
            "queue": group.queue_length,
            "spawning": len(group.attempts),
            "backing_off_for": max(0.0, backing_off - now) if backing_off is not None else None,
            "last_error": failure_summary(failure),
            "generation": group.generation,
            "restarting": group.restarting,
            "held_up": group.held_up,
            "rejected": None
            if rejection is None
            else {"age": now - rejection.at, "kept": rejection.kept, "error": failure_summary(rejection.failure)},
            "preloader": None
            if preloader is None
            else {
                "pid": preloader.pid,
                "uptime": now - preloader.started,
                "forks": preloader.forks,
                "memory": _memory(gauges.get(preloader.pid)),
            },
            "processes": [self._process(process, gauges, now) for process in group.processes],
        }

    def _process(self, process: ProcessStatistics, gauges: dict[int, ProcessGauge], now: float) -> dict[str, Any]:
        found = self.server.pool.processes.get(process.id)
        pid = found.live.pid if found is not None else None
        gauge = gauges.get(pid) if pid is not None else None
        uptime = now - process.since
        return {
            "id": process.id,
            "pid": pid,
            "state": "running" if process.state is EnabledStatus.ENABLED else "stopping",
            "generation": process.generation,
            "worn": process.worn.value if process.worn else None,
            "leaving": process.leaving.value if process.leaving else None,
            "ends_in": process.drained_by - now if process.leaving and process.drained_by < math.inf else None,
            "sessions": process.sessions,
            "concurrency": process.concurrency,
            "processed": process.processed,
            "cpu": round(100 * gauge.cpu_time / max(uptime, 0.01), 1) if gauge is not None else None,
            "memory": _memory(gauge),
            "uptime": uptime,
            "last_used": now - process.last_used,
        }

    async def requests(self) -> dict[str, Any]:
        """See ``resources``."""
        return resources.requests(self.server)

    async def memory(self) -> dict[str, Any]:
        """See ``resources``."""
        return await resources.memory(self.server, self.limiter)

    async def trace(self) -> dict[str, Any]:
        """What the pool was told and what it decided."""
        return await in_thread(self.server.pool.trace(), limiter=self.limiter)


_RESOURCES: dict[str, Callable[[_Admin], Any]] = {
    "/v1/status": _Admin.status,
    "/v1/requests": _Admin.requests,
    "/v1/memory": _Admin.memory,
    "/v1/trace": _Admin.trace,
}


def _measure_all(pids: list[int]) -> dict[int, ProcessGauge]:
    return {pid: gauge for pid in pids if (gauge := measure(pid)) is not None}


async def _until_gone(stream: RawStream, scope: trio.CancelScope) -> None:
    try:
        while await stream.recv():
            pass
    except trio.BrokenResourceError:
        pass
    scope.cancel()


def _memory(gauge: ProcessGauge | None) -> dict[str, int | None] | None:
    return None if gauge is None else {"rss": gauge.rss, "pss": gauge.pss, "uss": gauge.uss}
