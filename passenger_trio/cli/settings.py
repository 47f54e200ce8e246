"""The value of each option, and its origin: the command line, else the environment, else the file,
else the default.

Some defaults come from environment variables that other programs use too (``PORT``,
``WEB_CONCURRENCY``, ``RAILS_ENV`` ...: OP10). An empty variable counts as unset.

An application option on the command line or in the environment applies to every application of the
file.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from passenger_trio.cli.applications import Mount
from passenger_trio.cli.apps_dir import AppFolder
from passenger_trio.cli.flags import Flag, click_option, flags
from passenger_trio.core.config_text import ConfigText, Setting, read_passengerfile, read_toml
from passenger_trio.core.option_checks import check
from passenger_trio.core.pool_size import ceiling_of
from passenger_trio.errors import ConfigError, NothingToServe, OptionError, PassengerError
from passenger_trio.late_classes import frozen
from passenger_trio.options import AppOptions, Config, PoolOptions, ServerOptions

if TYPE_CHECKING:
    from passenger_trio.spawning.detect import DetectedApp

__all__ = ["Origins", "Settled", "find_config", "settle"]

_EVERYWHERE = "0.0.0.0"
CONFIG_NAMES = ("passenger-trio.toml", "Passengerfile.json")

Origins = dict[str, str]
"""Option as in the file (``app[0].root``, ``pool.max_pool_size``) -> the origin of its value."""


@frozen
class Settled:
    config: Config
    origins: Origins
    file: ConfigText | None

    @contextmanager
    def naming_places(self) -> Iterator[None]:
        """Add the origin of a bad value to its error: a line of the file, or a variable.

        :raises ConfigError: instead of an ``OptionError``, if the value comes from the file.
        """
        try:
            yield
        except OptionError as error:
            raise self._located(error) from error
        except NothingToServe as error:
            tables = self.file.apps if self.file is not None else ()
            if self.file is not None and error.number is not None and error.number < len(tables):
                lines = [setting.line for setting in tables[error.number].values() if setting.line]
                named = tables[error.number].get("root")
                place = f"{self.file.path}:{named.line if named else min(lines, default=1)}"
                error.args = (f"{place}: {error}",)
            raise

    def _located(self, error: OptionError) -> PassengerError:
        flag = next((flag for flag in flags() if error.option in (flag.long, flag.field)), None)
        field = flag.field if flag is not None else error.option
        for name, setting in self._settings(field, flag.owner if flag is not None else AppOptions):
            table, number = name
            options = self.config.apps[number] if table == "app" else getattr(self.config, table)
            value = getattr(options, field)
            if value != error.value and not (isinstance(value, tuple) and error.value in value):
                continue
            origin = self.origins.get(f"app[{number}].{field}" if table == "app" else f"{table}.{field}", "")
            if setting is not None and self.file is not None and origin == self.file.where(setting):
                return ConfigError(
                    self.file.path, setting.line, f"{field}: {error.value!r} cannot be used: {error.hint}"
                )
            if origin.startswith("environment "):
                variable = origin.removeprefix("environment ")
                return OptionError(f"{variable} in the environment", error.value, error.hint)
        return self._name_located(error)

    def _name_located(self, error: OptionError) -> PassengerError:
        """Add the place of the application whose name, which is that of its directory, is taken."""
        if error.option != "--name" or self.file is None:
            return error
        of = [
            number
            for number, app in enumerate(self.config.apps)
            if not app.name and os.path.basename(os.path.abspath(app.root)) == error.value
        ]
        setting = self.file.apps[of[-1]].get("root") if of and of[-1] < len(self.file.apps) else None
        if setting is None:
            return error
        return ConfigError(self.file.path, setting.line, f"name: {error.value!r} cannot be used: {error.hint}")

    def _settings(self, field: str, owner: type[Any]) -> list[tuple[tuple[str, int], Setting | None]]:
        """The places where an option may be in the file: its table, the table's number, and the
        value there.
        """
        file = self.file
        if owner is not AppOptions:
            table = "server" if owner is ServerOptions else "pool"
            said = {} if file is None else file.server if table == "server" else file.pool
            return [((table, 0), said.get(field))]
        tables = file.apps if file is not None else ()
        return [
            (("app", number), tables[number].get(field) if number < len(tables) else None)
            for number in range(len(self.config.apps))
        ]


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
                continue  # whoever looks for the application says what is wrong with its directory
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
                found[flag.field] = _convert(flag, said[flag.field], file)
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
        where = _text(said, "root", file)
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
                root=os.path.join(base, where) if where else root, target=_text(said, "target", file) or target, **of
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
            own[field] = _convert(flag, setting, text)
    of = {**outside.usual, **own}
    if not outside.given.isdisjoint(own):
        for field in outside.given & own.keys():
            of[field] = outside.usual.get(field, getattr(_PLAIN, field))
    of["root"] = os.path.join(directory, _text(said, "root", text))
    of["target"] = _text(said, "target", text)
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


_PLAIN = AppOptions()
_option = functools.cache(click_option)
_NOWHERE = click.Context(click.Command("config"))
_TEXTS = frozenset({"text", "path"})
"""Kinds of flags whose value is a text as it was given."""
_SMALL = frozenset({bool, int})
_MOST_CONVERTED = 1000
_CONVERTED: dict[tuple[str, type[Any], Any], tuple[Any]] = {}
"""Numbers and truth values that were converted before: thousands of files say the same."""


def _convert(flag: Flag, setting: Setting, file: ConfigText) -> Any:
    """Convert a value of the file to the schema's type, and check it as the flag is checked."""
    value = setting.value
    if type(value) is str and flag.kind in _TEXTS and "\0" not in value:
        return value  # nearly all values of thousands of files
    if value.__class__ in _SMALL:
        known = _CONVERTED.get((flag.name, value.__class__, value))
        if known is not None:
            return known[0]

    def refuse(complaint: str) -> ConfigError:
        return ConfigError(file.path, setting.line, f"{flag.field}{complaint}")

    if any("\0" in text for text in _texts(value)):
        raise refuse(" cannot have a NUL in it")
    if flag.kind == "list":
        if flag.name == "env" and isinstance(value, dict):
            for name, content in value.items():
                if not name or "=" in name:
                    raise refuse(f": {name!r} is no name of a variable")
                if isinstance(content, list | dict):
                    raise refuse(f": {name} cannot be {content!r}")
            return tuple((name, str(content)) for name, content in value.items())
        if not isinstance(value, list):
            raise refuse(f" must be a {'table' if flag.name == 'env' else 'list'}")
        for one in value:
            if isinstance(one, bool | list | dict):
                raise refuse(f" cannot have {one!r} in it")
    if flag.kind == "flag" and not isinstance(value, bool):
        raise refuse(" must be true or false")
    if (flag.kind != "flag" and isinstance(value, bool | dict | None)) or (
        flag.kind != "list" and isinstance(value, list)
    ):
        raise refuse(f" cannot be {value!r}")
    if flag.kind == "mode" and not isinstance(value, str):
        # TOML turns 0o660 into 432, and a user who writes 660 means octal.
        raise refuse(' must be a text: "0660"')
    try:
        converted = _option(flag).type_cast_value(
            _NOWHERE,
            [str(one) for one in value] if isinstance(value, list) else value if flag.kind == "flag" else str(value),
        )
    except click.ClickException as exc:
        raise refuse(f": {exc.message}") from None
    if value.__class__ in _SMALL and len(_CONVERTED) < _MOST_CONVERTED:
        _CONVERTED[flag.name, value.__class__, value] = (converted,)
    return converted


def _texts(value: Any) -> list[str]:
    """All texts in a value."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [text for one in value for text in _texts(one)] if isinstance(value, list) else [str(value)]


def _text(said: Mapping[str, Setting], name: str, file: ConfigText | None) -> str:
    if name not in said:
        return ""
    setting = said[name]
    if not isinstance(setting.value, str):
        raise ConfigError(file.path if file else "", setting.line, f"{name} must be a text")
    if "\0" in setting.value:
        raise ConfigError(file.path if file else "", setting.line, f"{name} cannot have a NUL in it")
    return setting.value
