"""``passenger-trio top``: the processes of an instance, live, in a terminal.

It asks the instance once per period, and reads keys in between. ``admin/top_rows.py`` makes the rows; rich, an extra,
draws the table. The terminal is restored however the command ends.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from passenger_trio.admin.top_rows import ORDERS, Snapshot, rows, summary
from passenger_trio.cli.choose_instance import choose
from passenger_trio.errors import AdminError
from passenger_trio.system.extras import import_extra

__all__ = ["top"]

_COLUMNS = ("PID", "APPLICATION", "STATE", "REQS", "SERVED", "REQ/S", "CPU%", "MEMORY", "AGE")
_RIGHT = frozenset({"PID", "REQS", "SERVED", "REQ/S", "CPU%", "MEMORY", "AGE"})
_SORTED_BY = {
    "cpu": "CPU%",
    "memory": "MEMORY",
    "rate": "REQ/S",
    "served": "SERVED",
    "sessions": "REQS",
    "age": "AGE",
    "pid": "PID",
}
_KEYS = {"c": "cpu", "m": "memory", "r": "rate", "s": "served", "n": "sessions", "a": "age", "p": "pid"}
_HELP = "sort: c)pu m)emory r)ate s)erved n)ow a)ge p)id   q)uit"


@click.command(short_help="Show the processes, live.")
@click.argument("instance", required=False)
@click.option("--sort", type=click.Choice(ORDERS), default="cpu", show_default=True, help="What to sort by at first.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    default=1.0,
    show_default=True,
    help="Time between two looks.",
)
def top(instance: str | None, sort: str, interval: float) -> None:
    """Show the processes of a running instance, live: requests, processor and memory. Keys change the order; q ends it.

    It needs a terminal, and the extra `top` (pip install 'passenger-trio[top]'). `passenger-trio status --watch` needs
    neither.
    """
    live = import_extra("rich.live", "top", "passenger-trio top")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise AdminError("top needs a terminal; `passenger-trio status --watch` does not")
    chosen = choose(instance)
    before, now = None, _look(chosen.admin_socket)
    with _keys_at_once(), live.Live(screen=True, auto_refresh=False) as display:
        while True:
            display.update(_screen(now, before, sort, chosen.name), refresh=True)
            key = _wait_key(now.time + interval)
            if key in ("q", "\x1b", "\x03", ""):
                return
            if key is not None:
                sort = _KEYS.get(key, sort)
                continue
            try:
                before, now = now, _look(chosen.admin_socket)
            except AdminError:
                break
    click.echo(f"{chosen.name} has ended")


def _look(admin_socket: str) -> Snapshot:
    """:raises AdminError: the instance does not answer."""
    from passenger_trio.admin.client import fetch_status
    from passenger_trio.system.process_gauges import measure

    answer = fetch_status(admin_socket)
    pids = [process.get("pid") for group in answer.get("groups", ()) for process in group["processes"]]
    gauges = {pid: measure(pid) for pid in pids if pid is not None}
    times = {pid: gauge.cpu_time for pid, gauge in gauges.items() if gauge is not None}
    return Snapshot(answer, time.monotonic(), times)


def _wait_key(until: float) -> str | None:
    """The next key, or None when the time is over; ``""``: the terminal is gone."""
    ready, _, _ = select.select([sys.stdin], [], [], max(0.0, until - time.monotonic()))
    return os.read(sys.stdin.fileno(), 1).decode("latin-1") if ready else None


@contextmanager
def _keys_at_once() -> Iterator[None]:
    """Keys come without Return, and are not shown. Ctrl-C interrupts as always."""
    descriptor = sys.stdin.fileno()
    saved = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, saved)


def _screen(now: Snapshot, before: Snapshot | None, sort: str, name: str) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), expand=True, header_style="reverse")
    for title in _COLUMNS:
        mark = "*" if title == _SORTED_BY[sort] else ""
        table.add_column(
            title + mark,
            justify="right" if title in _RIGHT else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if title == "APPLICATION" else None,
            min_width=8 if title == "APPLICATION" else None,
        )
    for row in rows(now, before, sort):
        style = None if row.state == "running" else "dim"
        table.add_row(*map(Text, row.cells), style=style)
    head = Text(summary(now, before, name), no_wrap=True, overflow="ellipsis", style="bold")
    return Group(head, Text(_HELP, style="dim", no_wrap=True, overflow="ellipsis"), table)
