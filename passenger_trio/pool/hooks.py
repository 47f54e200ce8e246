"""Hooks: commands of the operator that are run when something happens in the pool.

A hook is a program and its arguments, without a shell. What happened is in its environment: ``PASSENGER_TRIO_HOOK`` is the event's name, and each
field is a variable (``PASSENGER_TRIO_HOOK_PID`` ...). Hooks run one after another, so that a storm of events is no storm of programs; one that takes too
long is killed; what comes of one is logged and changes nothing.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from passenger_trio.errors import OptionError
from passenger_trio.kernel import ErrorKernel
from passenger_trio.pool.events import EVENTS, Events

__all__ = ["Hooks", "parse_hooks"]

_TIME = 30.0

_log = logging.getLogger("passenger_trio.pool")


def parse_hooks(texts: Sequence[str]) -> dict[str, list[tuple[str, ...]]]:
    """``EVENT=COMMAND`` texts -> the commands of each event.

    :raises OptionError: one is none.
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

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started when it listens."""
        with self._events.listen() as listener:
            task_status.started()
            async for event in listener:
                for command in self._hooks.get(event["event"], ()):
                    with self._kernel.contain("a hook"):
                        await self._call(command, event)

    async def _call(self, command: tuple[str, ...], event: Mapping[str, Any]) -> None:
        environment = {**os.environ, "PASSENGER_TRIO_HOOK": event["event"]}
        for name, value in event.items():
            environment[f"PASSENGER_TRIO_HOOK_{name.upper()}"] = "" if value is None else str(value)
        try:
            with trio.move_on_after(_TIME) as scope:
                done = await trio.run_process(
                    command,
                    env=environment,
                    check=False,
                    stdin=subprocess.DEVNULL,
                    process_group=0,
                    deliver_cancel=_kill_group,
                )
        except OSError as exc:
            _log.error("the hook for %s cannot be run: %s: %s", event["event"], command[0], exc.strerror)
            return
        if scope.cancelled_caught:
            _log.error("the hook for %s took longer than %d s and was killed", event["event"], _TIME)
        elif done.returncode:
            _log.warning("the hook for %s ended with status %d", event["event"], done.returncode)


async def _kill_group(process: trio.Process) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
