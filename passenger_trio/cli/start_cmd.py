"""``passenger-trio start``: makes a ``Config`` of the flags, and runs the server until a signal ends it."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from passenger_trio.cli.applications import Mount, mount, root_and_target
from passenger_trio.cli.bind import apply_bind
from passenger_trio.cli.flags import ENV_PREFIX, SECTIONS, click_option, flags

if TYPE_CHECKING:
    from passenger_trio.cli.main import Outcome
    from passenger_trio.running import RunningServer

__all__ = ["start"]

_HELP = """Serve the application in DIR (default: the current directory) until Ctrl-C.

The application is found by reading DIR's files: passenger_wsgi.py, passenger_asgi.py, wsgi.py, asgi.py, app.py, main.py, Django's manage.py, config.ru,
package.json, app.js, server.js, index.js. Or name it: module:object, module:factory(), file.py:object, file.js.
"""
_EPILOG = """Times are written 30, 30s, 5m, 2h, 250ms; sizes 65536, 64K, 512M, 1GiB. An option is given once, unless it is repeatable. Brackets show defaults. Each option can also be set by
an environment variable: --max-pool-size by PASSENGER_TRIO_MAX_POOL_SIZE.
"""


class _StartCommand(click.Command):
    """Its help has headings, and shows only the common options unless ``--help-all`` is given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            from passenger_trio.core.other_servers_options import advice_for

            advice = advice_for(error.option_name)
            if not advice:
                raise
            raise click.UsageError(f"there is no option {error.option_name}: {advice}", ctx) from None
        apply_bind(ctx)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shows_all = ctx.meta.get(_ALL, False)
        rows: dict[str, list[tuple[str, str]]] = {section: [] for section in SECTIONS}
        by_name = {flag.name: flag for flag in flags()}
        for param in self.params:
            flag = by_name.get(param.name or "")
            record = param.get_help_record(ctx)
            if flag is not None and record is not None and (flag.is_common or shows_all):
                rows[flag.section].append(record)
        for section, records in rows.items():
            if records:
                with formatter.section(section):
                    formatter.write_dl(records)
        with formatter.section("Help"):
            hidden = {*by_name, "what"} if shows_all else {*by_name, "what", "bind"}
            others = [param.get_help_record(ctx) for param in self.get_params(ctx) if param.name not in hidden]
            formatter.write_dl([record for record in others if record is not None])


_ALL = "passenger_trio.help_all"
_HAS_GENERATIONS = hasattr(gc, "freeze")
"""PyPy's collector is of another kind."""
_MANY = 1000
"""Applications."""
_NEAR = 0.8
"""How similar the names of a variable and of an option must be, of 1, for a warning."""


def _show_all(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


@click.pass_context
def _start(ctx: click.Context, /, what: tuple[str, ...], **values: Any) -> None:
    outcome: Outcome = ctx.obj
    outcome.log_level, outcome.log_format = values["log_level"], values["log_format"]
    # What is imported stays: looking for cycles in it is for nothing.
    gc.disable()
    from passenger_trio.cli.source import StartSource
    from passenger_trio.program import run

    _collect_less()
    root, target = root_and_target(what)
    mounts: tuple[Mount, ...] = values.pop("app")
    path = values.pop("config")
    source = StartSource(ctx, values, path, root, target, mounts, is_named=bool(what) or not mounts)
    settled = source.settle()
    config, file = settled.config, settled.file
    if _HAS_GENERATIONS and len(config.apps) > _MANY:
        gc.freeze()  # else the server would look at all of it when it is ready (OP5)
    outcome.log_level, outcome.log_format = config.server.log_level, config.server.log_format

    from passenger_trio.system import logs

    server = config.server
    logs.configure(server.log_level, server.log_format, bare=server.disable_log_prefix)
    if file is not None and file.ignored:
        import logging

        logging.getLogger(logs.ROOT_LOGGER).warning(
            "%s: these keys mean nothing here: %s", file.path, ", ".join(file.ignored)
        )

    _tell_of_misspelt(os.environ)

    with settled.naming_places():
        run(config, on_ready=_announce, source=source)


def _tell_of_misspelt(environ: Mapping[str, str]) -> None:
    """Warn of variables whose names are similar to an option's. Other variables with our prefix may
    belong to other programs.
    """
    known = {flag.env_name.removeprefix(ENV_PREFIX) for flag in flags()}
    for variable in environ:
        name = variable.removeprefix(ENV_PREFIX)
        if name == variable or name in known:
            continue
        import difflib
        import logging

        from passenger_trio.system import logs

        for near in difflib.get_close_matches(name, known, 1, _NEAR):
            logging.getLogger(logs.ROOT_LOGGER).warning(
                "%s is no option; did you mean %s?", variable, f"{ENV_PREFIX}{near}"
            )


def _announce(server: RunningServer) -> None:
    from passenger_trio.cli import banner

    banner.show(server)


def _collect_less() -> None:
    """Collect garbage less often: neither the start nor requests make many reference cycles, and a start with thousands
    of applications makes a million objects that stay.
    """
    if _HAS_GENERATIONS:
        gc.set_threshold(20_000, 20, 50)


start = _StartCommand(
    "start",
    callback=_start,
    help=_HELP,
    epilog=_EPILOG,
    short_help="Serve an application until Ctrl-C.",
    params=[
        click.Argument(["what"], nargs=-1, metavar="[DIR] [TARGET]"),
        *(click_option(flag) for flag in flags()),
        click.Option(
            ["-b", "--bind"],
            multiple=True,
            metavar="ADDRESS",
            help="The same as --address and --port, or --socket: HOST:PORT, :PORT or unix:PATH.",
        ),
        click.Option(
            ["--app"],
            multiple=True,
            metavar="WHERE=DIR",
            callback=lambda ctx, param, texts: tuple(mount(text) for text in texts),
            help="One more application: DIR or TARGET at /path, host or host/path; repeatable.",
        ),
        click.Option(
            ["--config"],
            default="",
            metavar="FILE",
            envvar="PASSENGER_TRIO_CONFIG",
            help="Configuration file (default: passenger-trio.toml or Passengerfile.json in DIR).",
        ),
        click.Option(
            ["--help-all"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_all,
            help="Show all options and exit.",
        ),
    ],
)
