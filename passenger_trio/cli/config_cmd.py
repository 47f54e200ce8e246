"""``passenger-trio config``: check a configuration without serving, and show where each value comes from."""

from __future__ import annotations

import os
from typing import Any

import attrs
import click

from passenger_trio.cli.flags import flags
from passenger_trio.cli.settings import find_config, settle
from passenger_trio.cli.settled import Settled
from passenger_trio.errors import ConfigError

__all__ = ["config"]


@click.group(short_help="Check the configuration, or show where it comes from.")
def config() -> None:
    """Check the configuration of an application's directory, or show where each value comes from.

    Options come from the command line, else from the environment, else from passenger-trio.toml (or Passengerfile.json) in
    the directory, else from their defaults.
    """


@config.command()
@click.argument("directory", default=".", metavar="[DIR]")
@click.option("--config", "path", default="", metavar="FILE", help="Check this file instead of the one in DIR.")
def check(directory: str, path: str) -> None:
    """Read the configuration as `start` would, and find its applications, but start nothing."""
    from passenger_trio.cli.banner import mounted_at
    from passenger_trio.preflight import examine

    settled = _settled(directory, path)
    with settled.naming_places():
        apps = examine(settled.config)
    for app, found in zip(settled.config.apps, apps, strict=True):
        click.echo(f"{app.name or found.root}: {found.reason}; {mounted_at(app)}")
    file = settled.file
    if file is not None and file.ignored:
        click.echo(f"{file.path}: these keys mean nothing to passenger-trio: {', '.join(file.ignored)}", err=True)
    click.echo(f"{file.path if file else 'no file'}: all is well")


@config.command()
@click.argument("directory", default=".", metavar="[DIR]")
@click.option("--config", "path", default="", metavar="FILE", help="Show this file instead of the one in DIR.")
@click.option("--origin", is_flag=True, help="Show where each value comes from.")
@click.option("--all", "everything", is_flag=True, help="Also show defaults.")
def show(directory: str, path: str, origin: bool, everything: bool) -> None:
    """Show the options that are not at their defaults."""
    settled = _settled(directory, path)
    for name, value in _values(settled):
        where = settled.origins[name]
        if everything or where != "default":
            click.echo(f"{name} = {value}{f'    # {where}' if origin else ''}")


def _settled(directory: str, path: str) -> Settled:
    from passenger_trio.cli.start_cmd import start

    ctx = start.make_context("start", [directory], obj=None)
    file = find_config(path, directory)
    if path and file is None:
        raise ConfigError(path, 0, "there is no such file")
    values: dict[str, Any] = ctx.params
    return settle(ctx, values, file, root=directory, target="", environ=os.environ)


def _values(settled: Settled) -> list[tuple[str, str]]:
    shown = {(flag.owner, flag.field): flag for flag in flags()}
    rows = []
    config = settled.config
    tables: list[tuple[str, attrs.AttrsInstance]] = [("server", config.server), ("pool", config.pool)]
    tables += [(f"app[{number}]", app) for number, app in enumerate(config.apps)]
    for table, options in tables:
        for field in attrs.fields(type(options)):
            value = getattr(options, field.name)
            flag = shown.get((type(options), field.name))
            if field.name == "env":
                text = " ".join(f"{name}=..." for name, _ in value)  # the values may be secrets
            else:
                text = attrs.evolve(flag, default=value).shown_default if flag is not None else str(value)
            rows.append((f"{table}.{field.name}", text))
    return rows
