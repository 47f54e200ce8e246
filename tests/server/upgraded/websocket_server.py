"""A server with real processes, real TCP and the real clock whose application is ``tests/apps/loaders/websocket_loader.py``.

It is what ``tree`` makes, without what tests of WebSockets do not need: a pool, a front, a listener. ``stop`` drains it as the tree does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.pool.pool import Pool
from passenger_trio.server.front import Front
from passenger_trio.server.listening.listener import Listener
from passenger_trio.server.mounts import Route
from passenger_trio.spawning.app_spec import make_app_spec
from passenger_trio.spawning.detect import detect
from passenger_trio.spawning.direct import DirectSpawner
from passenger_trio.spawning.spawn_listener import SpawnListener
from passenger_trio.system.listen import listen_tcp

__all__ = ["LOADER", "WebSocketServer", "websocket_server"]

APPS = Path(__file__).resolve().parent.parent.parent / "apps"
LOADER = APPS / "loaders" / "websocket_loader.py"


@attrs.define(eq=False)
class WebSocketServer:
    """It serves."""

    pool: Pool
    front: Front
    address: str
    """``ws://127.0.0.1:PORT``"""
    clients: trio.Nursery
    accepting: trio.CancelScope

    def restart(self) -> None:
        """A rolling restart."""
        for key in self.pool.group_tasks:
            self.pool.restart(key)

    def stop(self) -> None:
        """Accept nothing more, and drain."""
        self.accepting.cancel()
        self.front.drain()
        self.clients.cancel_scope.deadline = trio.current_time() + self.front.options.shutdown_timeout

    async def until(self, fact: Callable[[], object]) -> None:
        """Wait for a fact."""
        with trio.fail_after(10):
            while not fact():  # noqa: ASYNC110 - the server tells nobody
                await trio.sleep(0.01)

    @property
    def sessions(self) -> int:
        return sum(p.sessions for group in self.pool.statistics().groups for p in group.processes)

    @property
    def pids(self) -> list[int]:
        return [process.live.pid for process in self.pool.processes.values()]


@asynccontextmanager
async def websocket_server(directory: Path, **options: Any) -> AsyncIterator[WebSocketServer]:
    """:param directory: for its sockets; empty at the end."""
    app = AppOptions(root=str(APPS / "python" / "hello"), python=sys.executable)
    spec = attrs.evolve(
        make_app_spec(app, detect(app), os.environ, str(directory)), command=(sys.executable, str(LOADER))
    )
    pool = Pool(PoolLimits(max_pool_size=2))
    spawn_listener = SpawnListener(str(directory / "spawn.sock"))
    async with trio.open_nursery() as nursery:
        await nursery.start(spawn_listener.serve)
        await nursery.start(pool.run)
        spawner = DirectSpawner(spec, spawn_listener, None)
        await pool.add_group(spec.key, GroupLimits(), lambda generation: spawner, 2.0)
        while not pool.processes:
            await pool.changed.wait()
        front = Front(ServerOptions(**options), pool, [Route(spec.key, app)], None)
        nursery.start_soon(front.deadline_scanner.run)
        await nursery.start(front.poller.run)
        [socket] = listen_tcp("127.0.0.1", 0, 1024)
        listener = Listener(socket, front)
        async with trio.open_nursery() as clients:
            accepting = trio.CancelScope()

            async def accept() -> None:
                with accepting:
                    await listener.run(clients)

            clients.start_soon(accept)
            address = listener.url.replace("http", "ws").rstrip("/")
            server = WebSocketServer(pool, front, address, clients, accepting)
            try:
                yield server
                if not accepting.cancel_called:
                    clients.cancel_scope.cancel()
            finally:
                listener.close()
        pool.shut_down()
        await pool.empty.wait()
        nursery.cancel_scope.cancel()
