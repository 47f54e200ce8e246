"""Hooks: commands of the operator that run when an event happens in the pool.

A hook is a program and its arguments, without a shell. Its environment describes the event:
``PASSENGER_TRIO_HOOK`` is the event's name, and each field is a variable
(``PASSENGER_TRIO_HOOK_EXIT_STATUS`` ...; OB7). Hooks run one after another, so many events at once
do not start many programs. A hook that takes too long is killed. Its result is logged and changes
nothing.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import OptionError
from passenger_trio.events import as_json
from passenger_trio.log_lines import server as lines
from passenger_trio.pool.events import EVENTS, Events
from passenger_trio.system.children import start_program
from passenger_trio.system.pidfd import PidFd, pin_child

__all__ = ["LAST", "Hooks", "parse_hooks"]

_TIME = 30.0
_KILL_TIME = 5.0
LAST = 5.0
"""Seconds for the hooks of the last events, when the pool has ended."""


def parse_hooks(texts: Sequence[str]) -> dict[str, list[tuple[str, ...]]]:
    """``EVENT=COMMAND`` texts -> the commands of each event.

    :raises OptionError: a text has another form, or its program does not exist.
    """
    hooks: dict[str, list[tuple[str, ...]]] = {}
    for text in texts:
        name, equals, command = text.partition("=")
        try:
            words = tuple(shlex.split(command))
        except ValueError as exc:
            raise OptionError("--hook", text, f"the command cannot be read: {exc}") from None
        if name not in EVENTS or not equals or not words:
            raise OptionError("--hook", text, f"write EVENT=COMMAND; the events are {', '.join(EVENTS)}")
        if shutil.which(words[0]) is None:
            raise OptionError("--hook", text, f"there is no program {words[0]} that can be run")
        hooks.setdefault(name, []).append(words)
    return hooks


class Hooks:
    """``run`` is its task."""

    def __init__(
        self, events: Events, hooks: Mapping[str, Sequence[tuple[str, ...]]], kernel: ErrorKernel | None = None
    ) -> None:
        self._events = events
        self._kernel = kernel or ErrorKernel()
        self._hooks = dict(hooks)
        self.ended: trio.Event = trio.Event()
        """Set when the pool has ended, and the hooks of its last events have ended."""

    def change(self, hooks: Mapping[str, Sequence[tuple[str, ...]]]) -> None:
        """Run other commands from the next event on."""
        self._hooks = dict(hooks)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled, or until the pool has ended. Reports itself as started when it listens."""
        with self._events.listen() as listener:
            task_status.started()
            async for event in listener:
                for command in self._hooks.get(event.name, ()):
                    with self._kernel.contain("a hook"):
                        await self._call(command, as_json(event))
        self.ended.set()

    async def _call(self, command: tuple[str, ...], event: Mapping[str, Any]) -> None:
        environment = {**os.environ, "PASSENGER_TRIO_HOOK": event["event"]}
        for name, value in event.items():
            environment[f"PASSENGER_TRIO_HOOK_{name.upper()}"] = "" if value is None else str(value)
        try:
            pidfd = pin_child(start_program(command, env=environment))
        except (OSError, ValueError) as exc:  # ValueError: a NUL in the environment
            why = exc.strerror if isinstance(exc, OSError) else str(exc)
            lines.hook_unusable(hook=event["event"], command=command[0], reason=str(why))
            return
        try:
            with trio.move_on_after(_TIME):
                await pidfd.wait_exit()
        finally:
            await _see_off(pidfd, event["event"])


async def _see_off(pidfd: PidFd, event: str) -> None:
    """Kill the program if it still runs, and log its result."""
    in_time = pidfd.poll()
    if not in_time:
        pidfd.signal_group(signal.SIGKILL)
        with trio.move_on_after(_KILL_TIME, shield=True):
            await pidfd.wait_exit()
        lines.hook_killed(hook=event, seconds=_TIME)
    elif pidfd.exit_status:
        lines.hook_failed(hook=event, status=pidfd.exit_status)
    pidfd.close()
