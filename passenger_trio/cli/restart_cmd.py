"""``passenger-trio restart``: ask an instance to restart its applications, and say what came of it."""

from __future__ import annotations

import click

from passenger_trio.admin.client import order
from passenger_trio.cli.choose import choose, instance_option
from passenger_trio.errors import AdminError

__all__ = ["restart"]

_DONE = {"asked": "is being restarted", "restarted": "is restarted"}


@click.command(short_help="Restart applications without losing a request.")
@click.argument("app", required=False)
@click.option(
    "--wait", is_flag=True, help="Return when the restart has ended; exit code 1 if the new version did not start."
)
@click.option("--hard", is_flag=True, help="End all processes at once; requests wait until the first new one is up.")
@instance_option
def restart(app: str | None, wait: bool, hard: bool, instance: str | None) -> int:
    """Restart APP (its name as `passenger-trio status` shows it), or all applications of an instance.

    A new process is up before an old one goes. If the new version does not start, the old one serves on. Touching
    tmp/restart.txt in the application's directory does the same.
    """
    chosen = choose(instance)
    answer = order(chosen.admin_socket, "/v1/restart", {"group": app, "hard": hard, "wait": wait}, for_long=wait)
    failed = False
    for group in answer["groups"]:
        name = f"{group['name']} ({group['environment']})"
        if group["result"] == "rejected":
            failed = True
            error = group["error"] or {}
            click.echo(
                f"{name} is NOT restarted, the version before serves on: {error.get('summary', 'no reason is known')}",
                err=True,
            )
            if error.get("id"):
                click.echo(f"  The log of the instance says more [error {error['id']}].", err=True)
        else:
            click.echo(f"{name} {_DONE[group['result']]}")
    if not answer["groups"]:
        raise AdminError("the instance has no application")
    return 1 if failed else 0
