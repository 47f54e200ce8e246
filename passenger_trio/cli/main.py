"""The entry point: chooses the subcommand, and turns errors into messages and exit codes.

The exit codes are those of ``errors``: 0 success, 1 no instance answers, 2 usage, 3 the application
did not start (if that is fatal), 4 no application found, 5 cannot bind, 70 internal error, 130
interrupted before the server was ready.

This is the outermost boundary, and the only place that catches everything: the user gets one clear
line and an exit code. The traceback of an internal error goes to the log, with each line prefixed
by a bar (in JSON: as a member). With ``--log-level debug`` it is printed unchanged.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from passenger_trio.errors import EnvironmentUnfit, PassengerError

__all__ = ["Outcome", "cli", "entry", "main"]

_COMMANDS = {
    "start": ("passenger_trio.cli.start_cmd", "Serve an application until Ctrl-C."),
    "status": ("passenger_trio.cli.status_cmd", "Show what a running instance is doing."),
    "config": ("passenger_trio.cli.config_cmd", "Check the configuration, or show where it comes from."),
    "requests": ("passenger_trio.cli.operate_cmds", "Show the requests in flight."),
    "memory": ("passenger_trio.cli.operate_cmds", "Show the memory of each process."),
    "restart": ("passenger_trio.cli.restart_cmd", "Restart applications without losing a request."),
    "reload": ("passenger_trio.cli.reload_cmd", "Read the configuration anew, without losing a request."),
    "detach": ("passenger_trio.cli.operate_cmds", "Take one process out of routing, after its requests."),
    "disable": ("passenger_trio.cli.operate_cmds", "Take one process out of routing, until it is enabled."),
    "enable": ("passenger_trio.cli.operate_cmds", "Put a disabled process back into routing."),
    "dashboard": ("passenger_trio.cli.dashboard_cmd", "Show an instance on a local page in the browser."),
    "top": ("passenger_trio.cli.top_cmd", "Show the processes, live."),
    "backtrace": ("passenger_trio.cli.backtrace_cmd", "Show what a process is doing."),
    "drain": ("passenger_trio.cli.operate_cmds", "Make clients reconnect elsewhere."),
    "resume": ("passenger_trio.cli.operate_cmds", "End a drain."),
    "stop": ("passenger_trio.cli.operate_cmds", "Stop an instance, and wait for its end."),
    "list": ("passenger_trio.cli.operate_cmds", "List the instances that run."),
    "events": ("passenger_trio.cli.operate_cmds", "Follow what happens in the pool."),
    "trace": ("passenger_trio.cli.operate_cmds", "Dump the facts that the pool got, and its decisions."),
    "reopen-logs": ("passenger_trio.cli.operate_cmds", "Reopen the log files, after a rotation."),
}
"""Name -> the module that has the command under the same name, and a summary."""

_LACKS = {
    errno.EMFILE: "this process may have {limit} descriptors, which does not suffice; raise the limit (ulimit -n 1024; LimitNOFILE= of a systemd unit)",
    errno.ENFILE: "the whole system has no descriptor left (sysctl fs.file-max)",
    errno.ENOMEM: "there is no memory left",
}
"""Errors of system calls that are no fault of ours, and what to do."""
_INTERNAL_ERROR = 70
_INTERRUPTED = 130


class Outcome:
    """The log format of the command, for reporting its failure. (A plain class: ``--help`` does not wait for attrs, DE10.)"""

    def __init__(self, log_level: str = "info", log_format: str = "console") -> None:
        self.log_level: str = log_level
        self.log_format: str = log_format


class _LazyGroup(click.Group):
    """Imports a subcommand when it is called. The list of subcommands is a table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        module = importlib.import_module(_COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, "list_" if name == "list" else name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from passenger_trio.version import __version__

        click.echo(f"passenger-trio {__version__}")
        ctx.exit()


@click.group(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="passenger-trio COMMAND --help says more about a command.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """An application server: it starts, pools and supervises the processes of an application.

    In the directory of an application (Flask, FastAPI, Rails, Express, ...), `passenger-trio start` serves it.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), color=ctx.color)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises nothing."""
    outcome = Outcome()
    try:
        result: Any = cli.main(arguments, prog_name="passenger-trio", standalone_mode=False, obj=outcome)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.ClickException as exc:
        return _misused(exc)
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    except BrokenPipeError:
        # The reader of our output went away (`passenger-trio --help | head -1`). Without this, Python would
        # report an error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except PassengerError as exc:
        return _refuse(exc)
    except BaseExceptionGroup as group:
        return _unwrap(group, outcome)
    except Exception as exc:  # noqa: BLE001  the outermost boundary
        return _refuse(EnvironmentUnfit(_lack(exc))) if _lack(exc) else _internal_error(exc, outcome)


def entry() -> None:
    """The console script."""
    _open_standard_descriptors()
    sys.exit(main())


def _open_standard_descriptors() -> None:
    """Open closed standard descriptors (0, 1, 2) on /dev/null. Otherwise the first files that we
    open would get these numbers, and output would be written into those files.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def _misused(error: click.ClickException) -> int:
    context: click.Context | None = getattr(error, "ctx", None)
    if isinstance(error, click.BadParameter) and context is not None and error.param is not None:
        # The value comes from a variable, so name the variable and not the flag.
        source, variable = context.get_parameter_source(error.param.name or ""), error.param.envvar
        if source is click.core.ParameterSource.ENVIRONMENT and isinstance(variable, str):
            error.param_hint = f"{variable} in the environment"
    click.echo(f"passenger-trio: {error.format_message()}", err=True)
    if context is not None:
        click.echo(f"  {context.command_path} --help shows what can be said.", err=True)
    return error.exit_code


def _refuse(error: PassengerError) -> int:
    click.echo(f"passenger-trio: {error}", err=True)
    return error.exit_code


def _unwrap(group: BaseExceptionGroup[BaseException], outcome: Outcome) -> int:
    """Handle the expected error inside the exception groups that nurseries make."""
    leaves = list(_leaves(group))
    foreseen = [leaf for leaf in leaves if isinstance(leaf, PassengerError)]
    if foreseen and len(foreseen) == len(leaves):
        return _refuse(foreseen[0])
    if all(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return _INTERRUPTED
    if lacks := [lack for lack in map(_lack, leaves) if lack]:
        return _refuse(EnvironmentUnfit(lacks[0]))
    return _internal_error(group, outcome)


def _lack(error: BaseException) -> str:
    """What the machine did not give us, and how to have it; empty: the error is another one. (A server that runs survives that: KE2.)"""
    if not isinstance(error, OSError) or error.errno not in _LACKS:
        return ""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return f"{os.strerror(error.errno)}: {_LACKS[error.errno].format(limit=limit)}"


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc


def _internal_error(exc: BaseException, outcome: Outcome) -> int:
    import logging
    import traceback

    from passenger_trio.system import logs

    text = "".join(traceback.format_exception(exc))
    logs.configure(outcome.log_level, outcome.log_format)
    if outcome.log_level == "debug":
        click.echo(text, err=True, nl=False)
    else:
        logging.getLogger(logs.ROOT_LOGGER).error("internal error", extra={"traceback": text})
    first = next(_leaves(exc), exc) if isinstance(exc, BaseExceptionGroup) else exc
    click.echo(
        f"passenger-trio: internal error: {type(first).__name__}: {first}\n"
        "  This is a fault of passenger-trio, not yours. Please report it with the log"
        f"{'' if outcome.log_level == 'debug' else ' (--log-level debug shows where it happened)'}.",
        err=True,
    )
    return _INTERNAL_ERROR
