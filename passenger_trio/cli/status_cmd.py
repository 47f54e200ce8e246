"""``passenger-trio status``: find the instance, fetch its status, print it."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from passenger_trio.cli.choose_instance import choose
from passenger_trio.errors import AdminError
from passenger_trio.system.times import rfc3339

__all__ = ["status"]

_PERIOD = 1.0


@click.command(short_help="Show what a running instance is doing.")
@click.argument("instance", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the instance's own answer, as JSON.")
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C or the end of the instance.")
def status(instance: str | None, as_json: bool, watch: bool) -> None:
    """Show what a running instance is doing: its processes, their requests, memory and age.

    INSTANCE is the name of an instance, the pid of its supervisor, or its directory; it is needed only if
    several run.
    """
    from passenger_trio.admin.client import fetch_status

    chosen = choose(instance)
    answer = fetch_status(chosen.admin_socket)
    while watch:
        # Move the cursor home, clear the screen, print.
        click.echo(f"\x1b[H\x1b[J{_text(answer, chosen.name, as_json)}", nl=False)
        time.sleep(_PERIOD)
        try:
            answer = fetch_status(chosen.admin_socket)
        except AdminError:
            click.echo(f"{chosen.name} has ended")
            return
    click.echo(_text(answer, chosen.name, as_json), nl=False)


def _text(answer: dict[str, Any], name: str, as_json: bool) -> str:
    if as_json:
        return json.dumps(answer, indent=2) + "\n"
    from passenger_trio.admin.render_status import render_status

    return render_status(answer, name=name, date=rfc3339(time.time()))
