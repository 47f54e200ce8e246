"""The commands that order something of an instance, or look at one thing of it: each is one call and a few lines of text."""

from __future__ import annotations

import json
import time

import click

from passenger_trio.admin.client import fetch, follow, order
from passenger_trio.admin.instances import find_instance, list_instances
from passenger_trio.admin.render_tables import render_memory, render_requests
from passenger_trio.cli.choose import choose, instance_option
from passenger_trio.errors import AdminError

__all__ = ["detach", "drain", "events", "list_", "memory", "reopen_logs", "requests", "resume", "stop", "trace"]

_POLL = 0.05

_json_option = click.option("--json", "as_json", is_flag=True, help="Print the instance's own answer, as JSON.")


@click.command(short_help="Show the requests in flight.")
@_json_option
@instance_option
def requests(as_json: bool, instance: str | None) -> None:
    """Show the requests in flight, the oldest first: how old, what they wait for, whose they are, which process has them."""
    answer = fetch(choose(instance).admin_socket, "/v1/requests")
    click.echo(json.dumps(answer, indent=2) + "\n" if as_json else render_requests(answer), nl=False)


@click.command(short_help="Show the memory of each process.")
@_json_option
@instance_option
def memory(as_json: bool, instance: str | None) -> None:
    """Show what each process costs (PSS: its share; USS: its own; RSS: all it sees), and what copy-on-write saves."""
    answer = fetch(choose(instance).admin_socket, "/v1/memory")
    click.echo(json.dumps(answer, indent=2) + "\n" if as_json else render_memory(answer), nl=False)


@click.command(short_help="Take one process out, after its requests.")
@click.argument("pid", type=int)
@instance_option
def detach(pid: int, instance: str | None) -> None:
    """Take the process PID out: it finishes the requests that it has, and ends. Another takes its place if it is needed."""
    answer = order(choose(instance).admin_socket, "/v1/detach", {"pid": pid})
    click.echo(f"process {answer['pid']} of {answer['group']} is detached")


@click.command(short_help="Let clients go elsewhere: each connection ends after its response.")
@click.option("--wait", is_flag=True, help="Return when no request is in flight.")
@instance_option
def drain(wait: bool, instance: str | None) -> None:
    """Let clients go elsewhere: idle connections are closed, the others end after their response, and `status` says so.

    Whoever comes all the same is served. `passenger-trio resume` ends it.
    """
    chosen = choose(instance)
    answer = order(chosen.admin_socket, "/v1/drain", {})
    while wait and answer["active"]:
        time.sleep(_POLL)
        answer = {"active": len(fetch(chosen.admin_socket, "/v1/requests")["requests"])}
    click.echo(f"draining; {answer['active']} requests are in flight")


@click.command(short_help="End what `drain` began.")
@instance_option
def resume(instance: str | None) -> None:
    """End what `passenger-trio drain` began."""
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
    """Stop an instance: it finishes the requests that it has, ends its processes and then itself."""
    chosen = choose(instance)
    order(chosen.admin_socket, "/v1/shutdown", {})
    deadline = time.monotonic() + timeout
    while (found := find_instance(chosen.path)) is not None and found.is_live:
        if time.monotonic() > deadline:
            raise AdminError(f"{chosen.name} (pid {chosen.pid}) is stopping, but has not ended within {timeout:g} s")
        time.sleep(_POLL)
    click.echo(f"{chosen.name} (pid {chosen.pid}) has ended")


@click.command("reopen-logs", short_help="Open the log files anew, after a rotation.")
@instance_option
def reopen_logs(instance: str | None) -> None:
    """Open the log files anew, after they were renamed."""
    order(choose(instance).admin_socket, "/v1/reopen-logs", {})
    click.echo("the log files are opened anew")


@click.command(short_help="Follow what happens in the pool.")
@instance_option
def events(instance: str | None) -> None:
    """Print what happens in the pool as it happens, one JSON object a line, until Ctrl-C or the end of the instance."""
    for event in follow(choose(instance).admin_socket):
        click.echo(json.dumps(event))


@click.command(short_help="Dump what the pool was told and decided.")
@instance_option
def trace(instance: str | None) -> None:
    """Dump the flight recorder as JSON: what the pool was told, and what it decided, for a report of a bug.

    It holds the evidence of failed starts, which may quote the application's output.
    """
    click.echo(json.dumps(fetch(choose(instance).admin_socket, "/v1/trace")))


@click.command("list", short_help="List the instances of this user that run.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_(as_json: bool) -> None:
    """List the instances of this user that run, the oldest first. (One with --instance-dir is found by its directory only.)"""
    running = list_instances()
    if as_json:
        rows = [
            {"name": one.name, "pid": one.pid, "addresses": one.addresses, "path": one.path, "started": one.started}
            for one in running
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for one in running:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.started))
        click.echo(f"{one.name}  pid {one.pid}  since {since}  {' '.join(one.addresses)}")
    if not running:
        click.echo("no instance of yours runs")
