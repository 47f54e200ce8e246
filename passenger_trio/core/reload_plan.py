"""What a new configuration changes in a running server: a function of two configurations, and its result as a value.

This module knows options and applications. It never knows a process, a socket or a file.

==============  ======================================================================================
change          how it is applied
==============  ======================================================================================
ADDED           an application starts
REMOVED         an application finishes its requests, and ends
RESTARTED       an option changed that processes get at their start: rolling restart of the application
LIVE            limits, timeouts, sizes, routes: at once, for later requests
LISTENERS       new listeners are opened first; unchanged ones stay open
IMPOSSIBLE      needs a new start of the server; if the plan has one of these, no change is applied
==============  ======================================================================================

Laws: two equal configurations give an empty plan. Name and environment identify an application: with another
name, or another environment, it is another application. An option that this module does not know never counts as
LIVE: if it belongs to an application it restarts that application, if it belongs to the server it is IMPOSSIBLE.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import attrs

from passenger_trio.core.app_cgroup import CGROUP_OPTIONS
from passenger_trio.core.model import GroupKey
from passenger_trio.late_classes import frozen
from passenger_trio.options import AppOptions, PoolOptions, ServerOptions

__all__ = ["AppSetup", "Change", "Kind", "Plan", "Setup", "make_plan"]

LIVE_APP = frozenset(
    {
        *CGROUP_OPTIONS,
        "friendly_error_pages",
        "hard_memory_limit",
        "host_name",
        "max_drain_time",
        "max_instances",
        "max_preloader_idle_time",
        "max_process_lifetime",
        "max_request_queue_size",
        "max_request_queue_time",
        "max_request_time",
        "max_requests",
        "max_requests_jitter",
        "memory_limit",
        "min_instances",
        "reload",
        "reload_dir",
        "reload_exclude",
        "reload_include",
        "request_buffering",
        "response_buffer_high_watermark",
        "restart_dir",
        "retry",
        "start_timeout",
        "sticky_sessions",
        "sticky_sessions_cookie_attributes",
        "sticky_sessions_cookie_name",
        "streamed_paths",
    }
)
"""Options of an application that its processes do not depend on."""
LIVE_POOL = frozenset(
    {
        "hook",
        "max_concurrent_spawns",
        "max_pool_size",
        "memory_check_interval",
        "pool_idle_time",
        "stat_throttle_rate",
    }
)
LISTENERS = frozenset({"address", "port", "socket", "socket_backlog", "socket_mode"})
_PLACES = frozenset({"address", "port", "socket"})
LIVE_SERVER = frozenset(
    {
        "abort_on_startup_error",
        "access_log",
        "access_log_format",
        "allowed_methods",
        "body_min_rate",
        "body_timeout",
        "data_buffer_max",
        "disable_log_prefix",
        "header_timeout",
        "keep_alive_timeout",
        "log_format",
        "log_level",
        "max_connection_age",
        "max_connections",
        "max_header_field_size",
        "max_header_fields",
        "max_header_size",
        "max_request_body",
        "max_request_line",
        "max_requests_per_connection",
        "plain_parser",
        "shutdown_timeout",
        "trusted_proxies",
        "upgrade_idle_timeout",
        "websocket_drain",
        "websocket_max_message_size",
        "websocket_ping_interval",
        "websocket_ping_timeout",
        "write_timeout",
    }
)

_NAMES = frozenset({"name", "environment"})
"""The options that identify an application."""


class Kind(enum.Enum):
    """How a change is applied. The value is the first word of its line."""

    ADDED = "+"
    REMOVED = "-"
    RESTARTED = "*"
    LIVE = "~"
    LISTENERS = "="
    IMPOSSIBLE = "!"


@frozen
class Change:
    """One change. ``subject``: an application, ``server`` or ``pool``."""

    kind: Kind
    subject: str
    what: str

    @property
    def line(self) -> str:
        """One line for people."""
        return f"{self.kind.value} {self.subject}: {self.what}"


@frozen
class AppSetup:
    """One application. ``found``: what its directory has, by name: its type, interpreter, startup file."""

    key: GroupKey
    options: AppOptions
    found: tuple[tuple[str, str], ...] = ()


@frozen
class Setup:
    """A configuration, with what the applications' directories have."""

    server: ServerOptions
    pool: PoolOptions
    apps: tuple[AppSetup, ...]


@frozen
class Plan:
    """What changes.

    :ivar changes: every change, for people.
    :ivar restarted: applications to restart; their live options may have changed, too.
    :ivar changed: applications that have only live changes.
    """

    changes: tuple[Change, ...] = ()
    added: tuple[GroupKey, ...] = ()
    removed: tuple[GroupKey, ...] = ()
    restarted: tuple[GroupKey, ...] = ()
    changed: tuple[GroupKey, ...] = ()

    @property
    def impossible(self) -> tuple[Change, ...]:
        """Changes that need a new start of the server."""
        return tuple(change for change in self.changes if change.kind is Kind.IMPOSSIBLE)

    @property
    def listens_elsewhere(self) -> bool:
        return any(change.kind is Kind.LISTENERS for change in self.changes)

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(change.line for change in self.changes)

    @property
    def of_listeners(self) -> tuple[str, ...]:
        """Lines of the changes that several fronts cannot make while they run: each front got its listening sockets at its start."""
        return tuple(
            change.line
            for change in self.changes
            if change.kind is Kind.LISTENERS and change.what.partition(":")[0] in _PLACES
        )


def make_plan(before: Setup, after: Setup) -> Plan:
    """What changes between two configurations.

    :param before: what is served now. :param after: what is to be served.
    """
    changes = _options("server", before.server, after.server, _of_server)
    changes += _options("pool", before.pool, after.pool, lambda name: _if(name in LIVE_POOL))
    old = {app.key: app for app in before.apps}
    new = {app.key: app for app in after.apps}
    added = tuple(key for key in new if key not in old)
    removed = tuple(key for key in old if key not in new)
    changes += [Change(Kind.ADDED, str(key), f"it is served from {new[key].options.root}") for key in added]
    changes += [Change(Kind.REMOVED, str(key), "it ends after its requests") for key in removed]
    restarted: list[GroupKey] = []
    changed: list[GroupKey] = []
    for key in filter(old.__contains__, new):
        if old[key] == new[key]:
            continue
        of_app = _options(str(key), old[key].options, _as_written_before(new[key], old[key]), _of_app)
        of_app += _found(key, dict(old[key].found), dict(new[key].found))
        changes += of_app
        if any(change.kind is Kind.RESTARTED for change in of_app):
            restarted.append(key)
        elif of_app:
            changed.append(key)
    return Plan(tuple(changes), added, removed, tuple(restarted), tuple(changed))


def _as_written_before(new: AppSetup, old: AppSetup) -> AppOptions:
    """The new options, with the directory spelt as before if it is the same directory.

    A configuration file that was given by a relative path is read again by an absolute path. That alone changes no
    application.
    """
    where, before = dict(new.found).get("directory"), dict(old.found).get("directory")
    if where is None or where != before or new.options.root == old.options.root:
        return new.options
    return attrs.evolve(new.options, root=old.options.root)


def _of_server(name: str) -> Kind:
    return Kind.LISTENERS if name in LISTENERS else _if(name in LIVE_SERVER)


def _if(is_live: bool) -> Kind:
    return Kind.LIVE if is_live else Kind.IMPOSSIBLE


def _of_app(name: str) -> Kind:
    return Kind.LIVE if name in LIVE_APP else Kind.RESTARTED


def _options(subject: str, before: Any, after: Any, kind_of: Any) -> list[Change]:
    if before == after:
        return []
    changes = []
    for field in attrs.fields(type(before)):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old == new or field.name in _NAMES:
            continue
        kind = kind_of(field.name)
        if field.name == "env":
            what = _variables(dict(old), dict(new))
        else:
            what = f"{field.name}: {_shown(old)} -> {_shown(new)}"
        if kind is Kind.IMPOSSIBLE:
            what += " (not while it runs: start the server anew)"
        elif kind is Kind.RESTARTED:
            what += " (it is restarted, rolling)"
        changes.append(Change(kind, subject, what))
    return changes


def _found(key: GroupKey, before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    return [
        Change(
            Kind.RESTARTED,
            str(key),
            f"{name}: {_shown(before.get(name, ''))} -> {_shown(after.get(name, ''))} (it is restarted, rolling)",
        )
        for name in sorted(before.keys() | after.keys())
        if before.get(name, "") != after.get(name, "")
    ]


def _variables(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """The names of the variables that differ, without their values, which may be secrets."""
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    marks = {name: "+" if name not in before else "-" if name not in after else "~" for name in names}
    return f"env: {' '.join(marks[name] + name for name in names)}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}s"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return str(value) if value != "" else "none"
