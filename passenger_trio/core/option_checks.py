"""Which values of options are invalid, and which options contradict each other.

There are three kinds of checks: each value alone (bounds, choices, form), options that contradict each
other, and options without an effect. An option that is set without an effect is an error, because the
operator relies on it. ``RULES`` lists what such an option needs besides; ``_TYPES`` lists the types of
applications that it is for.

This module is pure. Every error is an ``OptionError`` with the option, its value and the way out. A
caller that knows the source of the value (a line of a file, a variable) adds it (``cli.settled``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import compress
from operator import attrgetter, is_not
from typing import Any

import attrs

from passenger_trio.core.app_cgroup import CGROUP_OPTIONS, files_of
from passenger_trio.core.app_limits import limits_of
from passenger_trio.core.option_values import parse_fronts, parse_mode, parse_umask
from passenger_trio.core.pool_size_option import ceiling_of, parse_pool_size, share_of
from passenger_trio.errors import OptionError
from passenger_trio.late_classes import frozen
from passenger_trio.options import (
    LEAST,
    MAX_WEBSOCKET_MESSAGE,
    MOST,
    NOT_ZERO,
    AppOptions,
    Config,
    PoolOptions,
    ServerOptions,
)

__all__ = ["TYPE_OPTIONS", "check", "check_app", "check_minimums", "check_types"]

_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_WARMUP_URL = re.compile(r"/[!-\"$-~]*")
"""Path and query as in a request: visible ASCII, no fragment."""


@frozen
class _Needs:
    """An option that has an effect only under a condition.

    :ivar holds: the condition, given the configuration and the options object that contains the option.
    """

    owner: type[Any]
    field: str
    holds: Callable[[Config, Any], bool]
    hint: str


RULES = (
    _Needs(
        ServerOptions,
        "port",
        lambda config, server: not server.socket,
        "--socket listens on no port: give one of the two",
    ),
    _Needs(
        ServerOptions,
        "address",
        lambda config, server: not server.socket,
        "--socket listens on no address: give one of the two",
    ),
    _Needs(
        ServerOptions,
        "socket_mode",
        lambda config, server: bool(server.socket),
        "it is the mode of a Unix socket: give --socket, too",
    ),
    _Needs(
        ServerOptions,
        "websocket_ping_timeout",
        lambda config, server: server.websocket_ping_interval > 0,
        "nobody is pinged: --websocket-ping-interval is 0",
    ),
    _Needs(
        ServerOptions, "access_log_format", lambda config, server: server.access_log != "off", "--access-log is off"
    ),
    _Needs(
        ServerOptions,
        "abort_on_startup_error",
        lambda config, server: not config.apps or any(app.min_instances for app in config.apps),
        "nothing is started before the first request: --min-instances is 0",
    ),
    _Needs(
        PoolOptions,
        "memory_check_interval",
        lambda config, pool: (
            bool(share_of(pool.max_pool_size)) or any(app.memory_limit or app.hard_memory_limit for app in config.apps)
        ),
        "nothing is measured: give --memory-limit, --hard-memory-limit or --max-pool-size auto, too",
    ),
    _Needs(
        AppOptions,
        "max_requests_jitter",
        lambda config, app: app.max_requests > app.max_requests_jitter,
        "so many requests fewer than --max-requests: give --max-requests, and more than this",
    ),
    _Needs(
        AppOptions,
        "streamed_paths",
        lambda config, app: app.request_buffering,
        "with --no-request-buffering every request body is streamed",
    ),
    _Needs(
        AppOptions,
        "restart_dir",
        lambda config, app: config.pool.stat_throttle_rate > 0,
        "restart.txt is not looked at: --stat-throttle-rate is 0",
    ),
    _Needs(
        AppOptions,
        "max_preloader_idle_time",
        lambda config, app: app.spawn_method != "direct",
        "there is no preloader: --spawn-method is direct",
    ),
    *(
        _Needs(
            AppOptions,
            name,
            lambda config, app: app.sticky_sessions,
            "sessions are not sticky: give --sticky-sessions, too",
        )
        for name in ("sticky_sessions_cookie_name", "sticky_sessions_cookie_attributes")
    ),
    _Needs(
        AppOptions,
        "preloader_socket",
        lambda config, app: not (app.user or app.group),
        "the preloader runs already, as a user of its own: leave out --app-user and --app-group",
    ),
    *(
        _Needs(
            AppOptions,
            name,
            lambda config, app: not app.preloader_socket,
            "its processes come from a preloader that was started elsewhere, in a cgroup of its own",
        )
        for name in CGROUP_OPTIONS
    ),
)
"""The conditions of options. Only options that differ from their defaults are checked."""

_KINDS = {
    "wsgi": "a WSGI application",
    "asgi": "an ASGI application",
    "rack": "a Rack application",
    "node": "a Node.js application",
    "generic": "a program with a server of its own (--app-start-command)",
}
_FORKED = ("wsgi", "asgi", "rack")
_TYPES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("python", ("wsgi", "asgi"), "this option is for Python applications"),
    ("ruby", ("rack",), "this option is for Rack applications"),
    ("node", ("node",), "this option is for Node.js applications"),
    ("loop", ("asgi",), "only ASGI applications have an event loop to choose"),
    (
        "thread_count",
        ("wsgi", "rack"),
        "its requests at the same time are set by --max-concurrent-requests-per-process",
    ),
    (
        "max_concurrent_requests_per_process",
        ("asgi", "node", "generic"),
        "its requests at the same time are set by --thread-count",
    ),
    ("max_preloader_idle_time", _FORKED, "it has no preloader"),
    ("preloader_socket", _FORKED, "it has no preloader"),
)
"""Option, the types of applications that it is for, and the message for other types."""


def check(config: Config, *, fresh: Sequence[AppOptions] | None = None) -> None:
    """:param fresh: the applications that ``check_app`` has not checked before; by default all.
    :raises OptionError: a value is invalid, or two options contradict each other.
    """
    fresh = config.apps if fresh is None else fresh
    changed: dict[tuple[type[Any], str], list[Any]] = {}
    for options in (config.server, config.pool, *fresh):
        for name in _check_values(options):
            changed.setdefault((type(options), name), []).append(options)
    most = ceiling_of(config.pool.max_pool_size)
    message = config.server.websocket_max_message_size
    if message > MAX_WEBSOCKET_MESSAGE:
        raise OptionError("--websocket-max-message-size", message, "a process takes at most 16M at once")
    parse_mode(config.server.socket_mode, "--socket-mode")
    parse_fronts(config.server.fronts, "--fronts")
    for method in config.server.allowed_methods:
        if not _METHOD.fullmatch(method):
            raise OptionError("--allowed-methods", method, "one method each, as it stands in a request: GET")
        if method == "CONNECT":
            raise OptionError("--allowed-methods", method, "this server is no proxy")
    for app in fresh:
        _check_together(app)
    for rule in RULES:
        for options in changed.get((rule.owner, rule.field), ()):
            _check_rule(rule, config, options)
    check_minimums([app.min_instances for app in config.apps], most)


def check_app(app: AppOptions, config: Config, said: Collection[str] | None = None) -> None:
    """Check one application without knowing the others.

    :param config: only ``server`` and ``pool`` are used. They are not checked.
    :param said: the options that may differ from their defaults; None: all of them.
    :raises OptionError: as ``check``.
    """
    changed = _check_values(app) if said is None else _check_some(app, said)
    _check_together(app)
    if not _RULED.isdisjoint(changed):
        for rule in RULES:
            if rule.owner is AppOptions and rule.field in changed:
                _check_rule(rule, config, app)
    if app.min_instances:
        check_minimums([app.min_instances], ceiling_of(config.pool.max_pool_size))


def _check_values(options: Any) -> list[str]:
    """Check each value. Returns the fields that differ from their defaults: a default is valid, and most values are."""
    owner = type(options)
    changed = []
    values, usual, fields = _VALUES[owner](options), _USUAL[owner], _FIELDS[owner]
    for place in compress(range(len(usual)), map(is_not, values, usual)):
        value, default = values[place], usual[place]
        if value != default or type(value) is not type(default):
            field = fields[place]
            if field.metadata["kind"] not in _FREE:
                _check_value(field.name, value, field.metadata)
            changed.append(field.name)
    return changed


def _check_some(app: AppOptions, names: Collection[str]) -> list[str]:
    """Like ``_check_values``, but only these options: the file of one of thousands of applications sets three of seventy.

    Names of which no rule says anything are left out of the result.
    """
    usual = _DEFAULTS[AppOptions]
    changed = []
    for name in names:
        if name in _UNCHECKED:
            continue
        value, default = getattr(app, name), getattr(usual, name)
        if value is not default and (value != default or type(value) is not type(default)):
            metadata = _METADATA[name]
            if metadata["kind"] not in _FREE:
                _check_value(name, value, metadata)
            changed.append(name)
    return changed


def _check_rule(rule: _Needs, config: Config, options: Any) -> None:
    value = getattr(options, rule.field)
    if value is not None and value != _default(rule.owner, rule.field) and not rule.holds(config, options):
        raise OptionError(_flag(rule.field), value, rule.hint)


def check_types(
    apps: Sequence[AppOptions], types: Sequence[Collection[str]], cannot_fork: Sequence[str | None]
) -> None:
    """Check that each option that is set fits the type of an application.

    An option for several applications (from the command line) needs to fit only one of them.

    :param types: the type of each application; several types if only loading it shows which one.
    :param cannot_fork: why each application cannot be forked; None: it can.
    :raises OptionError: an option has no effect.
    """
    says_something = any(_TYPED(app) != _NOTHING_TYPED for app in apps)
    for field, wanted, hint in _TYPES if says_something else ():
        usual = _default(AppOptions, field)
        if all(getattr(app, field) == usual for app in apps):
            continue
        served = {getattr(app, field) for app, possible in zip(apps, types, strict=True) if set(wanted) & set(possible)}
        for app, possible in zip(apps, types, strict=True):
            value = getattr(app, field)
            if value != usual and value not in served:
                kind = _KINDS[next(iter(possible))]
                raise OptionError(_flag(field), value, f"{app.name or app.root} is {kind}: {hint}")
    if not any(app.spawn_method == "smart" and why is None for app, why in zip(apps, cannot_fork, strict=True)):
        for app, why in zip(apps, cannot_fork, strict=True):
            if app.spawn_method == "smart":
                raise OptionError("--spawn-method", "smart", f"{why}: leave it out, or give direct")


_RULED = frozenset(rule.field for rule in RULES if rule.owner is AppOptions)
_FREE = frozenset({"text", "path"})
"""Kinds of values that ``_check_value`` accepts as they are."""
TYPE_OPTIONS = frozenset({*(field for field, _, _ in _TYPES), "spawn_method"})
"""What ``check_types`` looks at."""


def _check_together(app: AppOptions) -> None:
    """Check the options of one application against each other."""
    if app.max_instances and app.min_instances > app.max_instances:
        raise OptionError("--min-instances", app.min_instances, f"--max-instances allows {app.max_instances} processes")
    if app.hard_memory_limit and app.hard_memory_limit < app.memory_limit:
        raise OptionError(
            "--hard-memory-limit",
            app.hard_memory_limit,
            f"a process is killed at it before it is replaced at --memory-limit ({app.memory_limit} bytes): make it the larger one",
        )
    if app.umask != "":
        parse_umask(app.umask, "--umask")
    if _LIMITS(app) != _NO_LIMITS:
        limits_of(app)
        files_of(app)
    if app.warmup_url and not _WARMUP_URL.fullmatch(app.warmup_url):
        raise OptionError(
            "--warmup-url", app.warmup_url, "a path as it stands in a request, from its first slash on: /health?deep=1"
        )


def check_minimums(minimums: Sequence[int], most: int) -> None:
    """Check that the pool has room for the minimums of all applications (OP7). Otherwise a spawn would wait for ever.

    :param minimums: of each application. :param most: processes that the pool may hold.
    :raises OptionError: there is no room.
    """
    for least in minimums:
        if least > most:
            raise OptionError("--min-instances", least, f"--max-pool-size allows {most} processes")
    together = sum(minimums)
    if together > most:
        raise OptionError(
            "--max-pool-size",
            most,
            f"the minimums of the {len(minimums)} applications (--min-instances) are {together} processes together: "
            f"allow {together} or more, or lower a minimum, to 0 if need be",
        )


def _check_value(name: str, value: Any, about: Mapping[str, Any]) -> None:
    option = _flag(name)
    if about["kind"] in ("int", "size", "duration"):
        least, most = LEAST.get(name, 0), MOST.get(name, math.inf)
        if not isinstance(value, int if about["kind"] == "int" else (int, float)):
            raise OptionError(option, value, "it must be a number")
        if not least <= value <= most:
            raise OptionError(
                option, value, f"it must be {f'from {least} to {most}' if name in MOST else f'{least} or more'}"
            )
        if name in NOT_ZERO and not value:
            raise OptionError(option, value, "it cannot be 0")
    elif about["kind"] == "pool size":
        if parse_pool_size(value, option) != value:
            raise OptionError(option, value, "a number is no text: give 6, 'auto', or '75%'")
    elif about["kind"] == "list":
        if not isinstance(value, tuple | list):
            raise OptionError(option, value, f"must be a tuple, for example ({value!r},)")
    elif about["kind"] == "choice" and value and value not in about["choices"]:
        raise OptionError(option, value, f"there are: {', '.join(about['choices'])}")


def _default(owner: type[Any], field: str) -> Any:
    return getattr(_DEFAULTS[owner], field)


_DEFAULTS: dict[type[Any], Any] = {owner: owner() for owner in (ServerOptions, PoolOptions, AppOptions)}
_FIELDS = {owner: attrs.fields(owner) for owner in _DEFAULTS}
_METADATA = {field.name: field.metadata for field in _FIELDS[AppOptions]}
_UNCHECKED = frozenset(name for name, metadata in _METADATA.items() if metadata["kind"] in _FREE) - _RULED
"""Options of applications about which nothing is checked that ``_check_some`` could find."""
_VALUES: dict[type[Any], Callable[[Any], tuple[Any, ...]]] = {
    owner: attrgetter(*(field.name for field in fields)) for owner, fields in _FIELDS.items()
}
_USUAL = {owner: _VALUES[owner](default) for owner, default in _DEFAULTS.items()}
"""The values of all fields, in their order."""
_TYPED: Callable[[AppOptions], tuple[Any, ...]] = attrgetter(*(field for field, _, _ in _TYPES))
_NOTHING_TYPED = _TYPED(_DEFAULTS[AppOptions])
_LIMITS: Callable[[AppOptions], tuple[Any, ...]] = attrgetter("core", *CGROUP_OPTIONS)
_NO_LIMITS = _LIMITS(_DEFAULTS[AppOptions])


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")
