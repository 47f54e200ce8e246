"""Commands that change or show one thing of an instance. Each makes one call to the admin API and
prints a few lines.
"""

from __future__ import annotations

import json
import time

import click

from passenger_trio.admin.client import fetch, follow, order
from passenger_trio.admin.instances import find_instance, list_instances
from passenger_trio.admin.render_requests_and_memory import render_memory, render_requests
from passenger_trio.admin.render_status import count_requests
from passenger_trio.cli.choose_instance import choose, instance_option
from passenger_trio.errors import AdminError
from passenger_trio.system.times import rfc3339

__all__ = [
    "detach",
    "disable",
    "drain",
    "enable",
    "events",
    "list_",
    "memory",
    "reopen_logs",
    "requests",
    "resume",
    "stop",
    "trace",
]

_POLL = 0.05

_json_option = click.option("--json", "as_json", is_flag=True, help="Print the instance's own answer, as JSON.")


@click.command(short_help="Show the requests in flight.")
@_json_option
@instance_option
def requests(as_json: bool, instance: str | None) -> None:
    """Show the requests in flight, oldest first: age, stage, client and process."""
    answer = fetch(choose(instance).admin_socket, "/v1/requests")
    click.echo(json.dumps(answer, indent=2) + "\n" if as_json else render_requests(answer), nl=False)


@click.command(short_help="Show the memory of each process.")
@_json_option
@instance_option
def memory(as_json: bool, instance: str | None) -> None:
    """Show the memory of each process (PSS: its share; USS: its own; RSS: all it maps), and what copy-on-write saves."""
    answer = fetch(choose(instance).admin_socket, "/v1/memory")
    click.echo(json.dumps(answer, indent=2) + "\n" if as_json else render_memory(answer), nl=False)


@click.command(short_help="Take one process out of routing, after its requests.")
@click.argument("pid", type=int)
@instance_option
def detach(pid: int, instance: str | None) -> None:
    """Take the process PID out of routing: it finishes its requests and ends. A new one is spawned if it is needed."""
    answer = order(choose(instance).admin_socket, "/v1/detach", {"pid": pid})
    click.echo(f"process {answer['pid']} of {answer['group']} is detached")


@click.command(short_help="Take one process out of routing, until it is enabled.")
@click.argument("pid", type=int)
@instance_option
def disable(pid: int, instance: str | None) -> None:
    """Take the process PID out of routing, until `enable`: it finishes its requests, gets no others, and keeps its place.

    So it can be looked at by a debugger or strace. The last process of an application that serves cannot be disabled.
    """
    answer = order(choose(instance).admin_socket, "/v1/disable", {"pid": pid})
    click.echo(f"process {answer['pid']} of {answer['group']} is disabled, with {count_requests(answer['sessions'])}")


@click.command(short_help="Put a disabled process back into routing.")
@click.argument("pid", type=int)
@instance_option
def enable(pid: int, instance: str | None) -> None:
    """Put the process PID, which was disabled, back into routing."""
    answer = order(choose(instance).admin_socket, "/v1/enable", {"pid": pid})
    click.echo(f"process {answer['pid']} of {answer['group']} is enabled")


@click.command(short_help="Make clients reconnect elsewhere: close each connection after its response.")
@click.option("--wait", is_flag=True, help="Return when no request is in flight.")
@instance_option
def drain(wait: bool, instance: str | None) -> None:
    """Make clients reconnect elsewhere: close idle connections, close the others after their response, and report it in `status`.

    Clients that connect anyway are served. `passenger-trio resume` ends the drain.
    """
    chosen = choose(instance)
    answer = order(chosen.admin_socket, "/v1/drain", {})
    while wait and answer["active"]:
        time.sleep(_POLL)
        answer = {"active": len(fetch(chosen.admin_socket, "/v1/requests")["requests"])}
    click.echo(f"draining; {answer['active']} requests are in flight")


@click.command(short_help="End a drain.")
@instance_option
def resume(instance: str | None) -> None:
    """End a drain."""
    order(choose(instance).admin_socket, "/v1/resume", {})
    click.echo("connections are kept alive again")


@click.command(short_help="Stop an instance, and wait for its end.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="Seconds to wait; exit code 1 if it still runs then.",
)
@instance_option
def stop(timeout: float, instance: str | None) -> None:
    """Stop an instance: it finishes its requests, ends its processes and exits."""
    chosen = choose(instance)
    order(chosen.admin_socket, "/v1/shutdown", {})
    deadline = time.monotonic() + timeout
    while (found := find_instance(chosen.path)) is not None and found.is_live:
        if time.monotonic() > deadline:
            raise AdminError(f"{chosen.name} (pid {chosen.pid}) is stopping, but has not ended within {timeout:g} s")
        time.sleep(_POLL)
    click.echo(f"{chosen.name} (pid {chosen.pid}) has ended")


@click.command("reopen-logs", short_help="Reopen the log files, after a rotation.")
@instance_option
def reopen_logs(instance: str | None) -> None:
    """Reopen the log files, after they were renamed."""
    order(choose(instance).admin_socket, "/v1/reopen-logs", {})
    click.echo("reopening the log files")


@click.command(short_help="Follow what happens in the pool.")
@instance_option
def events(instance: str | None) -> None:
    """Print the pool's events as they happen, one JSON object per line, until Ctrl-C or the end of the instance."""
    for event in follow(choose(instance).admin_socket):
        click.echo(json.dumps(event))


@click.command(short_help="Dump the facts that the pool got, and its decisions.")
@instance_option
def trace(instance: str | None) -> None:
    """Dump the flight recorder as JSON for a bug report: the facts that the pool got, and its decisions.

    It holds the evidence of failed starts, which may quote the application's output.
    """
    click.echo(json.dumps(fetch(choose(instance).admin_socket, "/v1/trace")))


@click.command("list", short_help="List the instances of this user that run.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_(as_json: bool) -> None:
    """List the running instances of this user, oldest first. (One with --instance-dir is found only by its directory.)"""
    running = list_instances()
    if as_json:
        rows = [
            {
                "name": one.name,
                "pid": one.pid or None,
                "addresses": one.addresses,
                "path": one.path,
                "started": one.started,
            }
            for one in running
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for one in running:
        if not one.pid:  # it has not described itself yet
            click.echo(f"{one.name}  starting")
            continue
        since = rfc3339(one.started)
        click.echo(f"{one.name}  pid {one.pid}  since {since}  {' '.join(one.addresses)}")
    if not running:
        click.echo("no instance of yours runs")
