"""Whether the application's first program may start before the server itself has started (``early_start``)."""

from __future__ import annotations

from passenger_trio.options import Config

__all__ = ["may_load_early", "may_start_early"]


def may_start_early(config: Config) -> bool:
    """Whether the first spawn is already certain: the only application is known, and it has a process from the start."""
    if len(config.apps) != 1 or config.server.apps_dir:
        return False
    app = config.apps[0]
    return app.min_instances > 0 and not (app.app_start_command or app.preloader_socket or app.user or app.group)


def may_load_early(config: Config) -> bool:
    """Whether the application's own code may run before the server itself has started: not before all addresses are bound. A server
    that was started twice by mistake must not run an application twice.
    """
    return not config.server.metrics_listen  # bound by the server itself
