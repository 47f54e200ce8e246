"""What operators order of the pool, and waiting until that is done: restarts, and taking a process out of routing.

``core.operator_orders`` decides what an order does.
"""

from __future__ import annotations

import trio

from passenger_trio.core.model import (
    GroupKey,
    ProcessId,
)
from passenger_trio.core.state import Rejection
from passenger_trio.pool.process_facts import ProcessFacts

__all__ = ["OperatorOrders"]


class OperatorOrders(ProcessFacts):
    """Each order is one step. A separate coroutine (``wait_...``) waits for its result."""

    def restart(self, key: GroupKey, *, hard: bool = False) -> int:
        """Replace every process of a group. Return the generation that the restart leads to (see
        ``wait_restarted``).

        :raises KeyError: there is no such group.
        """
        return self.restart_all((key,), hard=hard)[key]

    def restart_all(self, keys: tuple[GroupKey, ...], *, hard: bool = False) -> dict[GroupKey, int]:
        """The same for several groups, in one step.

        :raises KeyError: there is no such group.
        """
        for key in keys:
            self.group_tasks[key]  # raises KeyError here: a caller's mistake is not a failure of the policy
        keys = tuple(filter(self.has, keys))  # a group that is being added starts with the current code anyway
        self._perform(self._policy.restart_all(keys, self.current_time(), hard=hard))
        self.notify_changed()
        return {key: self._policy.restart_target(key) for key in keys}

    def restart_target(self, key: GroupKey) -> int:
        """The generation that the last restart of a group leads to.

        :raises KeyError: there is no such group.
        """
        return self._policy.restart_target(key)

    async def wait_restarted(self, key: GroupKey, generation: int) -> Rejection | None:
        """Return when every process that serves is of that generation or a newer one; or return the
        rejection when the restart was given up.
        """
        while True:
            changed = self.changed
            if key not in self.group_tasks or self._policy.state.groups[key].leaving:
                await trio.lowlevel.checkpoint()
                return Rejection(generation, self.current_time(), None, kept=False)  # it was removed
            group = self._policy.group_statistics(key)
            rejection = group.rejection
            if rejection is not None and rejection.generation >= generation:
                await trio.lowlevel.checkpoint()
                return rejection
            if group.generation >= generation and not group.restarting:
                await trio.lowlevel.checkpoint()
                return None
            await changed.wait()

    def detach(self, id: ProcessId) -> bool:
        """Take a process out of routing. It finishes its requests. False: it serves no more."""
        commands = self._policy.detach(id, self.current_time())
        self._perform(commands)
        self.notify_changed()
        return bool(commands)

    def disable(self, id: ProcessId) -> bool:
        """Take a process out of routing until ``enable``. False: no other process would serve, or this one serves no more."""
        if not self._policy.may_disable(id):
            return False
        self._perform(self._policy.disable(id, self.current_time()))
        self.notify_changed()
        return True

    def enable(self, id: ProcessId) -> None:
        """Put a process back into routing. Nothing happens if it is in there, or serves no more."""
        self._perform(self._policy.enable(id, self.current_time()))
        self.notify_changed()

    async def wait_gone(self, id: ProcessId) -> None:
        """Return when the process has ended."""
        while id in self.processes:
            await self.changed.wait()
        await trio.lowlevel.checkpoint()

    def always_restart(self, key: GroupKey, always: bool) -> None:
        """Switch on or off that each request finds fresh processes.

        :raises KeyError: there is no such group.
        """
        self.group_tasks[key]
        self._perform(self._policy.always_restart(key, always, self.current_time()))
        self.notify_changed()

    def rejection(self, key: GroupKey) -> Rejection | None:
        """The last restart of a group, if it was given up."""
        group = self._policy.state.groups.get(key)
        return group.rejection if group is not None else None

    def generation(self, key: GroupKey) -> int:
        """The generation of a group that serves."""
        return self._policy.state.groups[key].generation

    def is_troubled(self, key: GroupKey) -> bool:
        """Whether a group does not start, or crashes. A change of its code then causes a restart."""
        return self._policy.is_troubled(key, self.current_time())

    def code_changed(self, key: GroupKey) -> None:
        """Report that the code of a group differs from the code that it has loaded."""
        self._perform(self._policy.code_changed(key, self.current_time()))
        self.notify_changed()
