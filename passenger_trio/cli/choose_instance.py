"""Chooses the instance for a command."""

from __future__ import annotations

import os

import click

from passenger_trio.admin.instances import Instance, find_instance, list_instances
from passenger_trio.errors import AdminError

__all__ = ["choose", "instance_option", "table"]

instance_option = click.option(
    "--instance",
    metavar="NAME",
    help="Name of the instance, pid of its supervisor, or its directory; needed only if several run.",
)


def choose(wanted: str | None) -> Instance:
    """Return the instance that ``wanted`` names, or the only one.

    :raises AdminError: no instance matches, or several do.
    """
    if wanted is not None and (os.sep in wanted or os.path.isdir(wanted)):
        found = find_instance(wanted)
        if found is None or not found.is_live:
            raise AdminError(f"no instance runs in {wanted}")
        return found
    running = list_instances()
    if wanted is not None:
        found = next((one for one in running if wanted in (one.name, str(one.pid))), None)
        if found is not None:
            return found
        others = f"; these do:\n{table(running)}" if running else ""
        raise AdminError(f"no instance {wanted} of yours runs{others}")
    if not running:
        raise AdminError("no instance of yours runs (one with --instance-dir is asked by its directory)")
    if len(running) > 1:
        context = click.get_current_context(silent=True)
        command = context.command_path if context is not None else "passenger-trio status"
        plain = command.endswith(" status")
        example = f"{command} {running[0].name}" if plain else f"{command} --instance {running[0].name}"
        raise AdminError(f"several instances run; choose one: {example}\n{table(running)}")
    return running[0]


def table(instances: list[Instance]) -> str:
    """One line per instance."""
    return "\n".join(f"  {one.name}  pid {one.pid}  {' '.join(one.addresses)}" for one in instances)
