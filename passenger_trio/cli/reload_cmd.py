"""``passenger-trio reload``: let an instance read its configuration anew, and print what changes."""

from __future__ import annotations

import click

from passenger_trio.admin.client import order
from passenger_trio.cli.choose_instance import choose, instance_option

__all__ = ["reload"]


@click.command(short_help="Read the configuration anew, without losing a request.")
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
@instance_option
def reload(dry_run: bool, instance: str | None) -> int:
    """Let an instance read its configuration file anew, and apply what has changed, without losing a request.

    The arguments and the environment that it was started with still count. Applications are added, removed after
    their requests, or changed; all others keep their processes. Limits, timeouts and sizes change at once; what
    processes were started with (env, interpreter, target, threads) restarts that application, rolling. On an error,
    or if a change needs a new start of the server, nothing changes and the exit code is 1.
    """
    answer = order(choose(instance).admin_socket, "/v1/reload", {"dry_run": dry_run}, for_long=True)
    for line in answer["changes"]:
        click.echo(line)
    if answer["error"] is not None:
        click.echo(f"passenger-trio: {answer['error']}", err=True)
        return 1
    if not answer["changes"]:
        click.echo("nothing has changed")
    elif dry_run:
        click.echo("(nothing was changed: --dry-run)")
    return 0
