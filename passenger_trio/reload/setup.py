"""Values that follow from a configuration: the setup that a plan compares, what ``--reload`` watches, and how many descriptors clients may use."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Sequence

from passenger_trio.core.descriptors import Descriptors
from passenger_trio.core.policy_limits import PoolLimits, session_limit
from passenger_trio.core.reload_plan import AppSetup, Setup
from passenger_trio.options import AppOptions, Config
from passenger_trio.pool.code_watcher import Watched, watched
from passenger_trio.spawning.app_spec import AppSpec, group_key
from passenger_trio.spawning.detect import DetectedApp

__all__ = ["descriptors_for", "setup_of", "watched_of"]


def watched_of(specs: Sequence[AppSpec]) -> list[Watched]:
    """What ``--reload`` watches.

    :raises OptionError: a directory does not exist.
    """
    return [watched(spec.key, spec.detected.root, spec.app) for spec in specs if spec.app.reload]


def descriptors_for(config: Config, specs: Sequence[AppSpec], limits: PoolLimits) -> Descriptors:
    """How many descriptors of this process clients may use."""
    sessions = session_limit([spec.concurrency for spec in specs], limits.max_pool_size)
    return Descriptors.measured(
        resource.getrlimit(resource.RLIMIT_NOFILE)[0], config.server.max_connections, sessions, limits.max_pool_size
    )


def setup_of(config: Config, apps: Iterable[tuple[AppOptions, DetectedApp]]) -> Setup:
    return Setup(
        config.server,
        config.pool,
        tuple(AppSetup(group_key(app, found), app, _found(found)) for app, found in apps),
    )


def _found(app: DetectedApp) -> tuple[tuple[str, str], ...]:
    """What the directory has that a process is started with. (A type that was a guess may have turned out another.)"""
    kind = "" if app.is_guess else app.app_type
    entry = f"{app.startup_file}{app.entry_module}:{app.entry_object}"
    return (
        ("directory", app.root),
        ("interpreter", app.python),
        ("type", kind),
        ("entry", entry),
        *((f"variable {name}", value) for name, value in app.env_additions),
    )
