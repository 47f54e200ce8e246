"""The schema of ``options`` -> the flags of ``start``. A new option in the schema is a new flag,
without further code.

The tables here add facts that are not in the schema: the heading of a flag in ``--help``, and
whether the short help shows the flag. Defaults are shown as people write them (``5m``, ``128K``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import click

from passenger_trio.cli.flag_types import Number, Pair, PoolSize, Quantity
from passenger_trio.late_classes import frozen
from passenger_trio.options import LEAST, MOST, NOT_ZERO, AppOptions, PoolOptions, ServerOptions

__all__ = [
    "ENV_PREFIX",
    "SECTIONS",
    "Flag",
    "click_option",
    "flags",
    "human_duration",
    "human_size",
]

ENV_PREFIX = "PASSENGER_TRIO_"
SECTIONS = ("Listening", "Application", "Users and limits", "Pool", "Restarts", "Recycling", "Time and limits", "Logs")

_OWNERS: tuple[tuple[type[Any], str], ...] = (
    (ServerOptions, "Time and limits"),
    (PoolOptions, "Pool"),
    (AppOptions, "Application"),
)
"""The classes of the schema, and the heading of their options unless ``_SECTION_OF`` has another."""

_SECTION_OF = {
    "address": "Listening",
    "port": "Listening",
    "socket": "Listening",
    "socket_mode": "Listening",
    "socket_backlog": "Listening",
    "user": "Listening",
    "fronts": "Listening",
    "front_balance": "Listening",
    "app_user": "Users and limits",
    "app_group": "Users and limits",
    "umask": "Users and limits",
    "open_files": "Users and limits",
    "processes": "Users and limits",
    "core": "Users and limits",
    "address_space": "Users and limits",
    "cpu_time": "Users and limits",
    "nice": "Users and limits",
    "memory_high": "Users and limits",
    "memory_max": "Users and limits",
    "cpu_weight": "Users and limits",
    "cpu_max": "Users and limits",
    "pids_max": "Users and limits",
    "apps_dir": "Application",
    "instance_dir": "Listening",
    "lifeline": "Listening",
    "trusted_proxies": "Listening",
    "abort_on_startup_error": "Application",
    "min_instances": "Pool",
    "max_instances": "Pool",
    "max_request_queue_size": "Pool",
    "max_preloader_idle_time": "Pool",
    "max_request_queue_time": "Pool",
    "max_requests": "Recycling",
    "max_requests_jitter": "Recycling",
    "max_process_lifetime": "Recycling",
    "max_request_time": "Recycling",
    "memory_limit": "Recycling",
    "hard_memory_limit": "Recycling",
    "memory_check_interval": "Recycling",
    "force_max_concurrent_requests_per_process": "Pool",
    "unlimited_concurrency_paths": "Pool",
    "max_concurrent_requests_per_process": "Pool",
    "sticky_sessions": "Pool",
    "sticky_sessions_cookie_name": "Pool",
    "sticky_sessions_cookie_attributes": "Pool",
    "reload_dir": "Restarts",
    "reload_include": "Restarts",
    "reload_exclude": "Restarts",
    "warmup_url": "Restarts",
    "max_drain_time": "Restarts",
    "restart_dir": "Restarts",
    "stat_throttle_rate": "Restarts",
    "access_log": "Logs",
    "access_log_format": "Logs",
    "metrics_listen": "Logs",
    "health_path": "Logs",
    "slow_request_time": "Logs",
    "tracing": "Logs",
    "log_level": "Logs",
    "disable_log_prefix": "Logs",
    "log_format": "Logs",
}
_COMMON = frozenset(
    {
        "address",
        "port",
        "socket",
        "environment",
        "startup_file",
        "python",
        "ruby",
        "app_start_command",
        "env",
        "spawn_method",
        "thread_count",
        "loop",
        "start_timeout",
        "max_pool_size",
        "min_instances",
        "max_request_queue_size",
        "pool_idle_time",
        "reload",
        "shutdown_timeout",
        "access_log",
        "log_level",
        "log_format",
    }
)
"""The flags that ``--help`` shows; ``--help-all`` shows every flag."""

_POSITIONAL = frozenset({"root", "target"})
"""Fields that are not flags: the arguments of ``start``."""

_OTHER_NAMES = {
    "trusted_proxies": ("--forwarded-allow-ips",),
    "address": ("--host",),
    "socket": ("--uds",),
    "base_uri": ("--root-path",),
    "max_pool_size": ("-w", "--workers"),
}
"""The names that other servers use for these flags. Help and errors have ours only."""

_RENAMED = {
    (AppOptions, "shutdown_timeout"): "process_shutdown_timeout",
    (AppOptions, "user"): "app_user",
    (AppOptions, "group"): "app_group",
}
"""Fields whose name is also in another class."""

_METAVARS = {"duration": "TIME", "size": "SIZE", "int": "N", "path": "PATH", "text": "NAME", "mode": "MODE"}
_METAVAR_OF = {
    "lifeline": "PID",
    "app_start_command": "COMMAND",
    "env": "NAME=VALUE",
    "max_pool_size": "N|auto|N%",
    "health_path": "PATH",
    "metrics_listen": "ADDRESS",
    "access_log_format": "FORMAT",
    "trusted_proxies": "ADDRESS",
    "allowed_methods": "METHOD",
    "fronts": "N|auto",
    "address": "HOST",
    "base_uri": "PATH",
    "core": "SIZE",
    "cpu_max": "SHARE",
    "host_name": "HOST",
    "hook": "EVENT=COMMAND",
    "warmup_url": "PATH",
    "streamed_paths": "PATH",
    "unlimited_concurrency_paths": "PATH",
    "sticky_sessions_cookie_attributes": "TEXT",
    "reload_dir": "PATH",
    "env_file": "FILE",
    "reload_include": "PATTERN",
    "reload_exclude": "PATTERN",
}


@frozen
class Flag:
    """One option as a flag.

    :ivar name: the name with underscores: ``max_pool_size``.
    :ivar kind: as in ``options.option``.
    """

    name: str
    field: str
    owner: type[Any]
    section: str
    kind: str
    help: str
    default: Any
    short: str
    choices: tuple[str, ...]
    variables: tuple[str, ...] = ()

    @property
    def long(self) -> str:
        """``--max-pool-size``"""
        return "--" + self.name.replace("_", "-")

    @property
    def env_name(self) -> str:
        return ENV_PREFIX + self.name.upper()

    @property
    def is_common(self) -> bool:
        return self.name in _COMMON

    @property
    def shown_default(self) -> str:
        """The default as users write it; ``""`` if none is shown."""
        if self.kind == "flag":
            return "on" if self.default else "off"
        if self.kind == "duration":
            return human_duration(self.default)
        if self.kind == "size":
            return human_size(self.default)
        return " ".join(map(str, self.default)) if self.kind == "list" else str(self.default)

    @property
    def metavar(self) -> str:
        if self.kind == "choice":
            return "|".join(self.choices)
        return _METAVAR_OF.get(self.name) or _METAVARS.get(self.kind, "TEXT")


def flags() -> list[Flag]:
    """Every flag, in the order of the schema."""
    found = []
    for owner, section in _OWNERS:
        for field in attrs.fields(owner):
            if field.name not in _POSITIONAL:
                name = _RENAMED.get((owner, field.name), field.name)
                about = field.metadata
                found.append(
                    Flag(
                        name=name,
                        field=field.name,
                        owner=owner,
                        section=_SECTION_OF.get(name, section),
                        kind=about["kind"],
                        help=about["help"],
                        default=field.default,
                        short=about["short"],
                        choices=about["choices"],
                        variables=about["variables"],
                    )
                )
    return found


def click_option(flag: Flag) -> click.Option:
    """The flag as a click option. Its value has the type of the schema's field."""
    spellings = [f"{flag.long}/--no-{flag.long[2:]}" if flag.kind == "flag" else flag.long]
    spellings += _OTHER_NAMES.get(flag.name, ())
    if flag.short:
        spellings.insert(0, f"-{flag.short}")
    details: dict[str, Any] = {"default": flag.default, "metavar": flag.metavar}
    if flag.kind == "flag":
        details = {"default": flag.default}
    elif flag.kind == "list":
        details |= {"multiple": True, "type": Pair() if flag.name == "env" else click.STRING}
    elif flag.kind == "choice":
        details |= {"type": click.Choice(flag.choices), "default": flag.default or None}
    elif flag.kind == "int":
        details["type"] = Number(LEAST.get(flag.name, 0), MOST.get(flag.name))
    elif flag.kind == "pool size":
        details["type"] = PoolSize()
    elif flag.kind in ("duration", "size"):
        details["type"] = Quantity(flag.kind, flag.name in NOT_ZERO)
    default = " or ".join([*(f"${variable}" for variable in flag.variables[:1]), flag.shown_default])
    help = f"{flag.help} [{default}]" if default else flag.help
    option = click.Option if flag.kind == "list" else _OnceOption
    return option([*spellings, flag.name], help=help, envvar=flag.env_name, **details)


def human_duration(seconds: float) -> str:
    """``5m``, ``90s``, ``250ms``, in the form that ``parse_duration`` reads."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        # 90s, but 2m: use a unit only if the number is whole, and at least 120 seconds.
        if seconds >= max(size, 120) and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + ("s" if seconds else "")


def human_size(size: int) -> str:
    """``128K``, in the form that ``parse_size`` reads."""
    for unit, scale in (("T", 1024**4), ("G", 1024**3), ("M", 1024**2), ("K", 1024)):
        if size >= scale and size % scale == 0:
            return f"{size // scale}{unit}"
    return str(size)


class _OnceOption(click.Option):
    """An option that may be given once. A second, different value is an error, because one of the
    two would be ignored.
    """

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        every, self.opts = self.opts, self._own_names()
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = every

    def get_error_hint(self, ctx: click.Context | None) -> str:
        return " / ".join(f"'{name}'" for name in self._own_names())

    def _own_names(self) -> list[str]:
        others = _OTHER_NAMES.get(self.name or "", ())
        return [name for name in self.opts if name not in others]

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        # Make the parser keep every value, as for a repeatable option; ``consume_value`` reduces them to one.
        self.multiple = True
        try:
            super().add_to_parser(parser, ctx)
        finally:
            self.multiple = False

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, click.core.ParameterSource]:
        values = opts.get(self.name or "")
        if isinstance(values, list):
            if any(value != values[0] for value in values):
                said = " and ".join(map(repr, dict.fromkeys(values)))
                raise click.BadParameter(f"it is given more than once, as {said}: give it once", ctx, self)
            opts = {**opts, self.name or "": values[0]}
        return super().consume_value(ctx, opts)
