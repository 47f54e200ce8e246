"""The checks before anything is opened or started.

``start`` makes them first; ``passenger-trio config check`` makes only them. They read the
applications' files and change nothing.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from passenger_trio.core.app_limits import Rights, check_grantable, limits_of
from passenger_trio.core.metrics_address import parse_metrics_address
from passenger_trio.core.option_checks import TYPE_OPTIONS, check, check_app, check_types
from passenger_trio.errors import NothingToServe, OptionError
from passenger_trio.options import AppOptions, Config, ServerOptions
from passenger_trio.server.health_paths import paths_of_health
from passenger_trio.server.mounts import check_apart, check_place
from passenger_trio.server.trusted_proxies import trusted_networks
from passenger_trio.spawning.accounts import remembering
from passenger_trio.spawning.app_spec import group_key
from passenger_trio.spawning.detect import DetectedApp, detect
from passenger_trio.spawning.env_files import read_env_files
from passenger_trio.spawning.known_apps import KnownApps
from passenger_trio.spawning.run_as import RunAs, check_fronts, check_reach, find_server_user, run_as
from passenger_trio.system import tempfiles
from passenger_trio.system.resource_limits import hard_limit, has_capability, most_files, own_nice

__all__ = ["examine", "examine_app"]


def examine(
    config: Config,
    *,
    may_be_empty: bool = False,
    known: KnownApps | None = None,
    is_embedded: bool = False,
) -> list[DetectedApp]:
    """Return the applications to serve. Opens and starts nothing. Raises ``NothingToServe`` and
    ``OptionError`` as ``serve``.

    :param may_be_empty: whether a configuration without an application is fit to be served.
    :param known: applications that ``examine_app`` has found fit, with these options of the server and the pool.
    :param is_embedded: whether a program embeds the server.
    """
    with remembering():
        return _examine(config, may_be_empty, known, is_embedded)


def _examine(config: Config, may_be_empty: bool, known: KnownApps | None, is_embedded: bool) -> list[DetectedApp]:
    fit = [None] * len(config.apps) if known is None else [known.get(app) for app in config.apps]
    check(config, fresh=[app for app, found in zip(config.apps, fit, strict=True) if found is None])
    if not config.apps and not (may_be_empty or config.server.apps_dir):
        raise NothingToServe("no application configured; add an [[app]] table or give a directory")
    apps = [found or _detect(number, app) for number, (app, found) in enumerate(zip(config.apps, fit, strict=True))]
    check_types(
        config.apps,
        [found.possible_types for found in apps],
        [None if found.can_fork else found.why_not_forked for found in apps],
    )
    fresh = [(number, app, apps[number]) for number, app in enumerate(config.apps) if fit[number] is None]
    for _, app, _ in fresh:
        check_place(app)
    check_apart([(group_key(app, found), app) for app, found in zip(config.apps, apps, strict=True)])
    if config.server.user:
        check_fronts(config.server)
    users = []
    for _, app, found in fresh:
        _check_limits(app, config.server)
        users.append(run_as(app, found, server_user=config.server.user, is_embedded=is_embedded))
        read_env_files(found.root, app.env_file)
    # Imported where they are needed: they come with the server itself, and the first process is started before that (DE10).
    if config.pool.hook:
        from passenger_trio.pool.hooks import parse_hooks

        parse_hooks(config.pool.hook)
    trusted_networks(config.server)
    if config.server.access_log_format not in ("combined", "json"):
        from passenger_trio.server.logs.format_string import compile_format

        compile_format(config.server.access_log_format)
    if config.server.health_path:
        paths_of_health(config.server.health_path)
    if config.server.metrics_listen:
        parse_metrics_address(config.server.metrics_listen)
    directory = config.server.data_buffer_dir
    if directory and not os.path.isdir(directory):
        raise OptionError("--data-buffer-dir", directory, "not a directory")
    if directory and not tempfiles.takes_files(directory):
        raise OptionError("--data-buffer-dir", directory, "no file can be made in it")
    # Last: options that cannot be used are told first.
    for (number, app, found), user in zip(fresh, users, strict=True):
        _check_reach(number, app, found, user, config.server)
    return apps


def examine_app(app: AppOptions, own: Mapping[str, Any], said: Collection[str], config: Config) -> DetectedApp:
    """Check one application by itself, as ``examine`` does, and return what its directory has.

    :param own: the options that are its own: those must fit its type.
    :param said: the options that may differ from their defaults.
    :param config: its ``server`` and ``pool`` count.
    :raises PassengerError: it cannot be served.
    """
    server = config.server
    check_app(app, config, said)
    found = _detect(0, app)
    if not TYPE_OPTIONS.isdisjoint(own):
        alone = AppOptions(root=app.root, target=app.target, **own)
        check_types([alone], [found.possible_types], [None if found.can_fork else found.why_not_forked])
    check_place(app)
    _check_limits(app, server)
    user = run_as(app, found, server_user=server.user, is_embedded=False)
    read_env_files(found.root, app.env_file)
    _check_reach(0, app, found, user, server)
    return found


def _check_limits(app: AppOptions, server: ServerOptions) -> None:
    limits = limits_of(app)
    if not limits:
        return  # as nearly all of thousands
    keeps_rights = not server.user or find_server_user(server.user).uid == os.geteuid()
    rights = Rights(
        may_raise=keeps_rights and has_capability("SYS_RESOURCE"),
        may_hasten=keeps_rights and has_capability("SYS_NICE"),
        most_files=most_files(),
        hard=hard_limit,
        nice=own_nice(),
    )
    check_grantable(limits, rights)


def _check_reach(number: int, app: AppOptions, found: DetectedApp, user: RunAs | None, server: ServerOptions) -> None:
    if app.preloader_socket:
        return  # its programs run already
    try:
        check_reach(app, found, user, server.user)
    except NothingToServe as error:
        error.number = number
        raise


def _detect(number: int, app: AppOptions) -> DetectedApp:
    try:
        return detect(app)
    except NothingToServe as error:
        error.number = number
        raise
