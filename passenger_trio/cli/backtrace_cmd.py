"""``passenger-trio backtrace``: what processes are doing, for a person who asks why one hangs."""

from __future__ import annotations

import json
from typing import Any

import click

from passenger_trio.admin.client import order
from passenger_trio.cli.choose_instance import choose, instance_option

__all__ = ["backtrace"]


@click.command(short_help="Show what a process is doing: the stacks of its threads and tasks.")
@click.argument("what", metavar="PID|APP")
@click.option("--json", "as_json", is_flag=True, help="Print the instance's own answer, as JSON.")
@instance_option
def backtrace(what: str, as_json: bool, instance: str | None) -> None:
    """Show what the process PID is doing, or all processes of APP (its name as `passenger-trio status` shows it).

    Python: the stacks of all threads, and the asyncio or Trio tasks of a worker. Ruby: the stacks of all threads.
    Node.js: the stack of the main thread, and what it waits for. Other programs: what the kernel says of their threads.
    A process that is starting, and a preloader, can be asked, too. The process is not disturbed.
    """
    target: dict[str, Any] = {"pid": int(what)} if what.isascii() and what.isdigit() else {"group": what}
    answer = order(choose(instance).admin_socket, "/v1/backtrace", target)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    shown = []
    for process in answer["processes"]:
        indented = "\n".join(f"  {line}".rstrip() for line in process["text"].splitlines())
        shown.append(f"{process['role']} {process['pid']} of {process['group']}\n{indented}")
    click.echo("\n\n".join(shown))
