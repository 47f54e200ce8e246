"""Starts the tasks that serve operators: the admin socket, the metrics listeners, the watch of slow requests.

The nursery tree imports this module after the first processes were started (``later``): importing the rest of
``admin/`` would delay them.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial

import trio

from passenger_trio.admin.context import Admin
from passenger_trio.admin.metrics import families
from passenger_trio.admin.metrics_listener import serve_metrics
from passenger_trio.admin.server import serve_admin
from passenger_trio.admin.slow_requests import watch_slow_requests
from passenger_trio.admin.status import status
from passenger_trio.running import Reports, RunningServer

__all__ = ["serve_operators"]


async def serve_operators(
    server: RunningServer,
    tree: trio.Nursery,
    listening: socket.socket,
    scraped: Sequence[socket.socket],
    started: float,
) -> None:
    """Start the tasks. Returns when the admin socket answers.

    :param listening: the admin socket.
    :param scraped: the listening sockets of ``--metrics-listen``.
    :param started: when the server was started, in Trio's seconds.
    """
    kernel, options = server.front.kernel, server.config.server
    admin = Admin(server, started)
    server.reports = Reports(partial(status, admin), partial(families, admin))
    serve = partial(serve_admin, admin, listening)
    await tree.start(partial(kernel.supervise_started, "the admin socket", serve, must_start=True))
    if options.slow_request_time:
        watch = partial(watch_slow_requests, admin, options.slow_request_time)
        tree.start_soon(kernel.supervise, "the watch of slow requests", watch)
    if scraped:
        tree.start_soon(kernel.supervise, "the metrics listeners", serve_metrics, admin, scraped)
