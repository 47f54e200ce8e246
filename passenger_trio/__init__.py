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
    from passenger_trio.errors import PassengerError as PassengerError
    from passenger_trio.options import AppOptions as AppOptions
    from passenger_trio.options import Config as Config
    from passenger_trio.options import PoolOptions as PoolOptions
    from passenger_trio.options import ServerOptions as ServerOptions
    from passenger_trio.running import RunningServer as RunningServer
    from passenger_trio.tree import open_server as open_server
    from passenger_trio.tree import serve as serve

_HOMES = {
    "PassengerError": "errors",
    "AppOptions": "options",
    "Config": "options",
    "PoolOptions": "options",
    "ServerOptions": "options",
    "RunningServer": "running",
    "open_server": "tree",
    "serve": "tree",
}

__all__ = [
    "AppOptions",
    "Config",
    "PassengerError",
    "PoolOptions",
    "RunningServer",
    "ServerOptions",
    "__version__",
    "open_server",
    "serve",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
