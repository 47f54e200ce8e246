"""The banner of ``start``: a few lines on standard error (one per application if there are
several), or one JSON object with ``--log-format json``.

The banner goes to standard error because standard output belongs to the access log, which may be
piped into a program.
"""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING

from passenger_trio.core.pool_size_option import ceiling_of
from passenger_trio.spawning.app_spec import concurrency_of
from passenger_trio.version import __version__

if TYPE_CHECKING:
    from passenger_trio.options import AppOptions
    from passenger_trio.running import RunningServer
    from passenger_trio.spawning.detect import DetectedApp

__all__ = ["as_json", "as_lines", "mounted_at", "show"]

_SHOWN = 100
"""The most applications that the banner names. With thousands, the server would write megabytes into its log, and wait for its reader (OP5)."""

_BOLD, _SOFT, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[0m"


def mounted_at(app: AppOptions) -> str:
    """The mount of an application: ``any host/``, ``example.com/shop``."""
    return f"{' '.join(app.host_name) or 'any host'}{app.base_uri or '/'}"


def show(server: RunningServer, fd: int = 2) -> None:
    """Write the banner. Ignores a standard error that is not writable."""
    if server.config.server.log_format == "json":
        text = as_json(server)
    else:
        text = "\n".join(as_lines(server, coloured=os.isatty(fd) and "NO_COLOR" not in os.environ))
    try:
        os.write(fd, (text + "\n").encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def as_lines(server: RunningServer, *, coloured: bool = False) -> list[str]:
    """The banner for people."""
    bold, soft, reset = (_BOLD, _SOFT, _RESET) if coloured else ("", "", "")
    rows = _the_one(server) if len(server.apps) == 1 else _several(server)
    rows += [
        ("admin", f"passenger-trio status; the socket is {server.admin_socket}"),
    ]
    return [
        f"passenger-trio {__version__} serves {bold}{' and '.join(server.addresses)}{reset}",
        *(f"  {soft}{name:<11}{reset}  {text}" for name, text in rows),
        f"  {soft}{'':<11}{reset}  Ctrl-C stops",
    ]


def _the_one(server: RunningServer) -> list[tuple[str, str]]:
    found, app = server.apps[0], server.config.apps[0]
    return [
        ("application", f"{found.root} ({app.environment}): {found.reason}"),
        ("interpreter", f"{found.python}: {found.python_reason}"),
        ("pool", _limits(server)),
    ]


def _several(server: RunningServer) -> list[tuple[str, str]]:
    """One line per application, with its mount. At most a hundred are shown; ``status`` shows all."""
    rows = [
        ("application", f"{mounted_at(app)}: {found.root} ({app.environment}): {found.reason}")
        for app, found in list(zip(server.config.apps, server.apps, strict=True))[:_SHOWN]
    ]
    if len(server.apps) > _SHOWN:
        rows.append(("", f"and {len(server.apps) - _SHOWN} more"))
    return [*rows, ("pool", f"up to {_most(server)} processes for {len(server.apps)} applications")]


def as_json(server: RunningServer) -> str:
    """The banner for programs: a log line in JSON."""
    import logging

    from passenger_trio.system.logs import ROOT_LOGGER, JsonFormatter

    record = logging.makeLogRecord({"name": ROOT_LOGGER, "levelno": logging.INFO, "levelname": "INFO", "msg": "ready"})
    pool = server.config.pool
    vars(record).update(
        version=__version__,
        pid=os.getpid(),
        addresses=server.addresses,
        admin_socket=server.admin_socket,
        max_pool_size=pool.max_pool_size,
        applications=[
            _application(app, found) for app, found in islice(zip(server.config.apps, server.apps, strict=True), _SHOWN)
        ],
    )
    if len(server.apps) > _SHOWN:
        vars(record).update(more_applications=len(server.apps) - _SHOWN)
    return JsonFormatter().format(record)


def _most(server: RunningServer) -> str:
    said = server.config.pool.max_pool_size
    return str(said) if isinstance(said, int) else f"{server.pool.max_pool_size} (as fit into memory: {said})"


def _limits(server: RunningServer) -> str:
    app = server.config.apps[0]
    most = _most(server)
    if app.max_instances:
        most = str(min(ceiling_of(server.config.pool.max_pool_size), app.max_instances))
    concurrency = concurrency_of(app, server.apps[0])
    if server.apps[0].app_type not in ("wsgi", "rack"):
        each = (
            f"up to {concurrency} requests at a time each" if concurrency else "any number of requests at a time each"
        )
        if server.apps[0].app_type == "asgi" and app.loop != "auto":
            each += f", on {app.loop}"
    else:
        each = f"{concurrency} threads each" if concurrency > 1 else "one thread each"
    method = app.spawn_method if server.apps[0].can_fork else "direct"
    how = {
        "auto": "forked from a preloader if that is safe",
        "smart": "forked from a preloader",
        "direct": "started one by one",
    }[method]
    why = "" if server.apps[0].can_fork else f": {server.apps[0].why_not_forked}"
    queue = (
        f"{app.max_request_queue_size} requests may wait"
        if app.max_request_queue_size
        else "any number of requests may wait"
    )
    return f"{app.min_instances} to {most} processes, {how} ({method}{why}), {each}; {queue}"


def _application(app: AppOptions, found: DetectedApp) -> dict[str, object]:
    return {
        "root": found.root,
        "mounted_at": mounted_at(app),
        "environment": app.environment,
        "app_type": found.app_type,
        "reason": found.reason,
        "interpreter": found.python,
        "interpreter_reason": found.python_reason,
        "spawn_method": app.spawn_method if found.can_fork else "direct",
        "min_instances": app.min_instances,
        "thread_count": app.thread_count,
        "concurrency": concurrency_of(app, found),
    }
