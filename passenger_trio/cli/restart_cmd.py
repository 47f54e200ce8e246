"""``passenger-trio restart``: ask an instance to restart its applications, and print the result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from passenger_trio.admin.client import order
from passenger_trio.admin.render_status import count_requests, human_age
from passenger_trio.cli.choose_instance import choose, instance_option
from passenger_trio.errors import AdminError

__all__ = ["restart"]

_TURN = 0.5
"""Seconds per request to the instance. The progress is checked after each."""
_SLOW = 5.0
"""Seconds after which a starting process is reported."""
_DONE = {"asked": "is being restarted", "restarted": "is restarted"}


@click.command(short_help="Restart applications without losing a request.")
@click.argument("app", required=False)
@click.option(
    "--wait",
    is_flag=True,
    help="Return when a process of the new version was ready and no older one serves; exit code 1 if it did not start.",
)
@click.option("--hard", is_flag=True, help="End all processes at once; requests wait until the first new one is up.")
@instance_option
def restart(app: str | None, wait: bool, hard: bool, instance: str | None) -> int:
    """Restart APP (its name as `passenger-trio status` shows it), or all applications of an instance.

    A new process is up before an old one goes. If the new version does not start, the old one serves on. Where no
    process is running, one is started to see whether the version starts. A process that is replaced has
    --max-drain-time for its requests. Touching tmp/restart.txt in the application's directory does the same.
    """
    chosen = choose(instance)
    answer = order(chosen.admin_socket, "/v1/restart", {"group": app, "hard": hard})
    if wait:
        answer = {"groups": _wait(chosen.admin_socket, answer["groups"])}
    failed = False
    for group in answer["groups"]:
        name = f"{group['name']} ({group['environment']})"
        if group["result"] == "rejected":
            failed = True
            error = group["error"] or {}
            outcome = "is NOT restarted, the version before serves on"
            if not group["kept"]:
                outcome = "does NOT start, and there is no process of the version before"
            click.echo(f"{name} {outcome}: {error.get('summary', 'no reason is known')}", err=True)
            if error.get("id"):
                click.echo(f"  The log of the instance says more [error {error['id']}].", err=True)
        else:
            click.echo(f"{name} {_DONE[group['result']]}")
    if not answer["groups"]:
        raise AdminError("the instance has no application")
    return 1 if failed else 0


def _wait(admin_socket: str, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Wait until every restart has ended. Print each new reason for waiting."""
    ended: list[dict[str, Any]] = []
    said: set[str] = set()
    while groups:
        asked = [{name: group[name] for name in ("name", "environment", "generation")} for group in groups]
        answer = order(admin_socket, "/v1/wait-restarted", {"groups": asked, "within": _TURN})
        groups = [group for group in answer["groups"] if group["result"] == "waiting"]
        ended += [group for group in answer["groups"] if group["result"] != "waiting"]
        for group in groups:
            for reason, line in _waits_for(group):
                if reason not in said:
                    said.add(reason)
                    click.echo(line, err=True)
    return sorted(ended, key=lambda group: (group["name"], group["environment"]))


def _waits_for(group: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The reasons why a restart waits, each with a line that reports it."""
    name = f"{group['name']} ({group['environment']})"
    for process in group["waits_for"]:
        ends = process["ends_in"]
        until = "" if ends is None else f", and is ended in {human_age(ends)} at the latest"
        yield (
            f"{name} {process['pid']}",
            f"{name} waits for process {process['pid']} of {process['group']}, which has {count_requests(process['sessions'])}{until}",
        )
    if not group["waits_for"] and (group["starting_for"] or 0) >= _SLOW:
        yield (
            f"{name} {group['generation']}",
            f"{name}: a new process has been starting for {group['starting_for']:.0f} s",
        )
