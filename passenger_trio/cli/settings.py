"""Which source of an option's value wins: the command line, else the environment, else the file,
else the default.

Some defaults come from environment variables that other programs use too (``PORT``,
``WEB_CONCURRENCY``, ``RAILS_ENV`` ...: OP10). An empty variable counts as unset.

An application option on the command line or in the environment applies to every application of the
file.

``file_values`` converts the values of a file; ``settled`` has the result, with the origin of each value.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from passenger_trio.cli.applications import Mount
from passenger_trio.cli.apps_dir import AppFolder
from passenger_trio.cli.file_values import convert_value, text_value
from passenger_trio.cli.flags import Flag, click_option, flags
from passenger_trio.cli.settled import Origins, Settled
from passenger_trio.core.config_text import ConfigText, Setting, read_passengerfile, read_toml
from passenger_trio.core.option_checks import check
from passenger_trio.core.pool_size_option import ceiling_of
from passenger_trio.errors import ConfigError, NothingToServe, OptionError
from passenger_trio.late_classes import frozen
from passenger_trio.options import AppOptions, Config, PoolOptions, ServerOptions

if TYPE_CHECKING:
    from passenger_trio.spawning.detect import DetectedApp

__all__ = ["find_config", "settle"]

_EVERYWHERE = "0.0.0.0"
_PLAIN = AppOptions()
CONFIG_NAMES = ("passenger-trio.toml", "Passengerfile.json")


def find_config(explicit: str, root: str) -> ConfigText | None:
    """The given file, else the one in ``root``.

    :raises ConfigError: the file is unreadable or invalid.
    """
    candidates = [explicit] if explicit else [os.path.join(root, name) for name in CONFIG_NAMES]
    for path in candidates:
        try:
            text = Path(path).read_text("utf-8")
        except FileNotFoundError:
            if explicit:
                raise ConfigError(path, 0, "there is no such file") from None
            continue
        except (OSError, UnicodeDecodeError) as exc:
            if not explicit and (isinstance(exc, NotADirectoryError) or not os.access(root, os.R_OK | os.X_OK)):
                continue  # detection reports what is wrong with the directory
            raise ConfigError(path, 0, f"it cannot be read: {exc}") from None
        return read_passengerfile(text, path) if path.endswith(".json") else read_toml(text, path)
    return None


def settle(
    ctx: click.Context,
    values: Mapping[str, Any],
    file: ConfigText | None,
    *,
    root: str,
    target: str,
    environ: Mapping[str, str],
    mounts: Sequence[Mount] = (),
    is_named: bool = True,
    folder: AppFolder | None = None,
) -> Settled:
    """The configuration, with the origin of each value.

    :param ctx: the context of ``start``, which knows the values that were given.
    :param environ: the supervisor's environment, for the variables that replace a default.
    :param mounts: applications in addition to those of the file, or to ``root`` and ``target``.
    :param is_named: whether to serve ``root`` if the file names no application.
    :param folder: what is known of the files of ``--apps-dir``.
    :raises ConfigError: the file has an invalid value.
    :raises click.ClickException: a variable has an invalid value.
    :raises OptionError: two values contradict each other.
    """
    origins: Origins = {}
    every = flags()

    def members(owner: type[Any], table: str, said: Mapping[str, Setting]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for flag in every:
            if flag.owner is not owner:
                continue
            name = f"{table}.{flag.field}"
            given = _given(ctx, flag)
            if given:
                found[flag.field] = flag.default if values[flag.name] is None else values[flag.name]
                origins[name] = given
            elif file is not None and flag.field in said:
                found[flag.field] = convert_value(flag, said[flag.field], file)
                origins[name] = file.where(said[flag.field])
            else:
                found[flag.field], origins[name] = _default(flag, environ, ctx)
        return found

    listening = members(ServerOptions, "server", file.server if file else {})
    if (origins["server.port"], origins["server.address"]) == ("environment PORT", "default"):
        # A platform that sets PORT connects from another host, so listen on every address (as gunicorn does).
        listening["address"], origins["server.address"] = _EVERYWHERE, "environment PORT"
    if listening["socket"] and origins["server.port"] == "environment PORT":
        # PORT replaces the default port only. With --socket there is no TCP port, so ignore it.
        defaults = ServerOptions()
        listening["port"], origins["server.port"] = defaults.port, "default"
        if origins["server.address"] == "environment PORT":
            listening["address"], origins["server.address"] = defaults.address, "default"
    server = ServerOptions(**listening)
    pool = PoolOptions(**members(PoolOptions, "pool", file.pool if file else {}))
    base = os.path.dirname(file.path) or "." if file else root
    if server.apps_dir:
        from_file = file is not None and origins["server.apps_dir"].startswith(file.path)
        server = attrs.evolve(
            server, apps_dir=os.path.abspath(os.path.join(base if from_file else ".", server.apps_dir))
        )
    serves_root = is_named and (not server.apps_dir or bool(target))
    tables = (file.apps if file else ()) or (({},) if serves_root else ())
    apps = []
    for number, said in enumerate(tables):
        table = f"app[{number}]"
        where = text_value(said, "root", file)
        of = members(AppOptions, table, said)
        if target and file and "target" in said and said["target"].value != target:
            raise ConfigError(
                file.path,
                said["target"].line,
                f"target: the command line names another, {target!r}: give one of the two",
            )
        origins[f"{table}.root"] = file.where(said["root"]) if file and "root" in said else "command line"
        origins[f"{table}.target"] = (
            file.where(said["target"]) if file and "target" in said else "command line" if target else "default"
        )
        apps.append(
            AppOptions(
                root=os.path.join(base, where) if where else root,
                target=text_value(said, "target", file) or target,
                **of,
            )
        )
    for number, one in enumerate(mounts, len(apps)):
        table = f"app[{number}]"
        of = members(AppOptions, table, {}) | attrs.asdict(one)
        origins |= {f"{table}.{name}": "command line" for name in attrs.asdict(one)}
        apps.append(AppOptions(**of))
    own: tuple[AppOptions, ...] = tuple(apps)
    if server.apps_dir:
        outside = _from_outside(ctx, values, environ, every)
        alone = Config(server=server, pool=pool, apps=())

        def of_file(text: ConfigText) -> tuple[AppOptions, DetectedApp]:
            return _app_of_file(text, outside, alone)

        named = [app if app.name else attrs.evolve(app, name=_directory_name(app.root)) for app in apps]
        apps += (folder or AppFolder()).read(server.apps_dir, of_file, named, ceiling_of(pool.max_pool_size))
    settled = Settled(Config(server=server, pool=pool, apps=tuple(apps)), origins, file)
    with settled.naming_places():
        check(settled.config, fresh=own)  # the files of --apps-dir were checked one by one
        for name in ("port", "address"):
            if server.socket and origins[f"server.{name}"] != "default":  # given, even if equal to the default
                raise OptionError(
                    f"--{name}", getattr(server, name), f"--socket listens on no {name}: give one of the two"
                )
    return settled


@frozen
class _Outside:
    """What holds for all files of ``--apps-dir``: worked out once, because there may be thousands.

    :ivar flags: of an application, by their fields.
    :ivar usual: the value of each field that a file leaves out, if that is not the default of ``AppOptions``.
    :ivar given: fields that the command line or the environment gives, which count more than a file.
    """

    flags: Mapping[str, Flag]
    usual: Mapping[str, Any]
    given: frozenset[str]


def _from_outside(
    ctx: click.Context, values: Mapping[str, Any], environ: Mapping[str, str], every: Sequence[Flag]
) -> _Outside:
    """:raises click.ClickException: a value of a variable is invalid."""
    own = {flag.field: flag for flag in every if flag.owner is AppOptions}
    given = frozenset(field for field, flag in own.items() if field != "name" and _given(ctx, flag))
    usual = {}
    for field, flag in own.items():
        value = values[flag.name]
        usual[field] = (flag.default if value is None else value) if field in given else _default(flag, environ, ctx)[0]
    usual = {field: value for field, value in usual.items() if value != getattr(_PLAIN, field)}
    return _Outside(own, usual, given)


def _app_of_file(text: ConfigText, outside: _Outside, alone: Config) -> tuple[AppOptions, DetectedApp]:
    """The application of a file of ``--apps-dir``, which can be served by itself; and what its directory has.

    :param alone: the options of the server and the pool.
    :raises PassengerError: it cannot.
    """
    from passenger_trio.preflight import examine_app

    said = text.apps[0]
    directory, _, name = text.path.rpartition("/")
    own: dict[str, Any] = {"name": name.removesuffix(".toml")}
    flags_of = outside.flags
    for field, setting in said.items():
        flag = flags_of.get(field)
        if flag is not None:
            own[field] = convert_value(flag, setting, text)
    of = {**outside.usual, **own}
    if not outside.given.isdisjoint(own):
        for field in outside.given & own.keys():
            of[field] = outside.usual.get(field, getattr(_PLAIN, field))
    root = text_value(said, "root", text)
    of["root"] = root if root.startswith("/") else f"{directory}/{root}"
    of["target"] = text_value(said, "target", text)
    app = AppOptions(**of)
    try:
        return app, examine_app(app, own, of, alone)
    except (OptionError, NothingToServe):
        origins = {f"app[0].{field}": text.where(setting) for field, setting in said.items()}
        with Settled(attrs.evolve(alone, apps=(app,)), origins, text).naming_places():
            raise


def _directory_name(root: str) -> str:
    return os.path.basename(os.path.abspath(root)) or "app"


def _given(ctx: click.Context, flag: Flag) -> str:
    source = ctx.get_parameter_source(flag.name)
    if source is click.core.ParameterSource.COMMANDLINE:
        return "command line"
    return f"environment {flag.env_name}" if source is click.core.ParameterSource.ENVIRONMENT else ""


def _default(flag: Flag, environ: Mapping[str, str], ctx: click.Context) -> tuple[Any, str]:
    """The default value of an option, and its origin."""
    for variable in flag.variables:
        if environ.get(variable):
            try:
                return click_option(flag).type_cast_value(ctx, environ[variable]), f"environment {variable}"
            except click.BadParameter as exc:
                exc.param_hint = f"{variable} in the environment"
                raise
    return flag.default, "default"
