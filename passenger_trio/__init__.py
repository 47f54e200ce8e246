"""passenger_trio: an application server that spawns, pools and supervises application processes, as
a Trio program.

Three entry points: the command ``passenger-trio start``, the library (``open_server`` and
``serve``), and the test harness (``passenger_trio.testing``). Names are imported on first use, so
that a command that needs little starts quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from passenger_trio.version import __version__

if TYPE_CHECKING:
    from passenger_trio.app_handle import AppHandle as AppHandle
    from passenger_trio.app_handle import AppProcess as AppProcess
    from passenger_trio.app_response import AppResponse as AppResponse
    from passenger_trio.borrowed_process import BorrowedProcess as BorrowedProcess
    from passenger_trio.errors import PassengerError as PassengerError
    from passenger_trio.extensions import Extensions as Extensions
    from passenger_trio.in_thread import ServerInThread as ServerInThread
    from passenger_trio.in_thread import run_in_thread as run_in_thread
    from passenger_trio.options import AppOptions as AppOptions
    from passenger_trio.options import Config as Config
    from passenger_trio.options import PoolOptions as PoolOptions
    from passenger_trio.options import ServerOptions as ServerOptions
    from passenger_trio.pool_tree import RunningPool as RunningPool
    from passenger_trio.pool_tree import open_pool as open_pool
    from passenger_trio.running import RunningServer as RunningServer
    from passenger_trio.served_app import ServedApp as ServedApp
    from passenger_trio.tree import open_server as open_server
    from passenger_trio.tree import serve as serve

_HOMES = {
    "AppHandle": "app_handle",
    "AppOptions": "options",
    "AppProcess": "app_handle",
    "AppResponse": "app_response",
    "BorrowedProcess": "borrowed_process",
    "Config": "options",
    "Extensions": "extensions",
    "PassengerError": "errors",
    "PoolOptions": "options",
    "RunningPool": "pool_tree",
    "RunningServer": "running",
    "ServedApp": "served_app",
    "ServerInThread": "in_thread",
    "ServerOptions": "options",
    "open_pool": "pool_tree",
    "open_server": "tree",
    "run_in_thread": "in_thread",
    "serve": "tree",
}

__all__ = [
    "AppHandle",
    "AppOptions",
    "AppProcess",
    "AppResponse",
    "BorrowedProcess",
    "Config",
    "Extensions",
    "PassengerError",
    "PoolOptions",
    "RunningPool",
    "RunningServer",
    "ServedApp",
    "ServerInThread",
    "ServerOptions",
    "__version__",
    "open_pool",
    "open_server",
    "run_in_thread",
    "serve",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
