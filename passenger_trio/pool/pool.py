"""The Pool: ``core.policy`` with a clock, tasks and processes around it.

The class has several parts, each in a module of its own. Each part knows only the parts before it: the effects of commands
(``effects``), the step and requests (``checkouts``), processes (``process_facts``), operators (``operator_orders``). This
module has the pool's nursery tree, its groups and its limits.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable
from typing import Any

import trio

from passenger_trio.core.evidence import Evidence
from passenger_trio.core.model import GroupKey, ProcessId
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.core.statistics import GroupGauges, GroupStatistics, PoolStatistics
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import PoolShutDown
from passenger_trio.pool.group_task import GroupTask
from passenger_trio.pool.lending import Lending
from passenger_trio.pool.operator_orders import OperatorOrders
from passenger_trio.spawning.choose_spawner import MakeSpawner
from passenger_trio.spawning.spawner import Spawner

__all__ = ["Pool"]


class Pool(OperatorOrders):
    """``run`` is its task. An unexpected exception ends the server only here (KE1)."""

    def __init__(self, limits: PoolLimits, kernel: ErrorKernel | None = None) -> None:
        super().__init__(limits, kernel or ErrorKernel())
        self._nursery: trio.Nursery | None = None
        self.lending: Lending = Lending(self._policy, self._perform, self.current_time)
        """For the desk that leases processes to fronts."""
        self._closed = False
        """Whether group tasks may no longer begin."""

    # -- the tree -----------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the pool's nursery. It ends when ``shut_down`` was called and everything is gone.
        Cancelling it kills everything.

        :raises Exception: the exception that the policy, or performing its commands, has raised.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._read_time_by(
                    trio.lowlevel.current_clock().current_time
                )  # the clock of ``trio.current_time``, with fewer calls
                nursery.start_soon(self._run_clock)
                task_status.started()
                try:
                    await self._over.wait()
                finally:
                    self._close(nursery)
        finally:
            self.empty.set()  # nothing is left, whatever ended the pool
            self.events.end()
        if self._failure is not None:
            raise self._failure

    def _close(self, nursery: trio.Nursery) -> None:
        """Let every group task end when it is empty. The reason is a complete shutdown, a failure
        of the policy, or cancellation.
        """
        if self._failure is None and not self.empty.is_set():
            # Cancelled. From here on the policy replaces no process that ends: a new process would be killed at once,
            # and idle group tasks are about to close.
            try:
                self.shut_down()
            except Exception:  # noqa: BLE001  failed has stored it
                pass
        self._closed = True
        for task in self.group_tasks.values():
            task.close()
        # The clock would run for ever. So would processes that a failed policy does not end.
        if self._failure is not None or not self.empty.is_set():
            nursery.cancel_scope.cancel()
        self._clock.stop()

    async def _run_clock(self) -> None:
        try:
            await self._clock.run()
        except Exception as error:  # noqa: BLE001  the timer is a part of the pool
            self.failed(error)

    async def add_group(
        self, key: GroupKey, limits: GroupLimits, spawner: Spawner | MakeSpawner, shutdown_timeout: float
    ) -> None:
        """Add a group and start its first processes. A group that was removed, and has not ended, stays,
        and is restarted.

        :param spawner: a callable that makes the spawner of each generation; or one spawner, for a
            group that is never restarted.
        :raises PoolShutDown: the pool has ended.
        """
        await trio.lowlevel.checkpoint()
        self.add_group_nowait(key, limits, spawner, shutdown_timeout)
        self.notify_changed()

    def add_group_nowait(
        self, key: GroupKey, limits: GroupLimits, spawner: Spawner | MakeSpawner, shutdown_timeout: float
    ) -> None:
        """Like ``add_group``, for one group of many. The caller must call ``notify_changed`` after some of them."""
        assert self._nursery is not None, "run() is not running"
        if self._closed:
            raise PoolShutDown
        make = spawner if callable(spawner) else lambda generation: spawner
        known = self.group_tasks.get(key)
        if known is not None:
            if not self._policy.state.open:
                return  # it ends with the others
            known.make_spawner, known.shutdown_timeout = make, shutdown_timeout
            commands = self._policy.add_group(key, limits, self.current_time(), random.random())
        else:
            self.group_tasks[key] = GroupTask(key, make, shutdown_timeout, self, self._kernel, self._nursery)
            commands = self._policy.add_group(key, limits, self.current_time())
        if commands or key in self.active:
            self._perform(commands)

    @property
    def active(self) -> Collection[GroupKey]:
        """The active groups (``core/active_groups``), and maybe some that have just become inactive."""
        return self._policy.state.active.keys()

    def remove_group(self, key: GroupKey) -> None:
        """Let a group serve its waiters, and end. The group is gone when ``group_tasks`` no longer has it."""
        self._perform(self._policy.remove_group(key, self.current_time()))
        self.notify_changed()

    def change_limits(self, limits: PoolLimits) -> None:
        """Change the limits of the whole pool. No request is lost."""
        self._perform(self._policy.change_pool_limits(limits, self.current_time()))
        self.notify_changed()

    def change_group(
        self, key: GroupKey, limits: GroupLimits, make_spawner: MakeSpawner | None, shutdown_timeout: float
    ) -> None:
        """Change the limits of a group. Only processes that exceed the new limits end.

        :param make_spawner: makes the spawners from the next generation on; None: as before.
        :raises KeyError: there is no such group.
        """
        task = self.group_tasks[key]
        task.shutdown_timeout = shutdown_timeout
        if make_spawner is not None:
            task.make_spawner = make_spawner
        self._perform(self._policy.change_group_limits(key, limits, self.current_time(), random.random()))
        self.notify_changed()

    def hasten(self, seconds: float) -> None:
        """Send SIGTERM to each process that is asked to end from now on after so many seconds at most."""
        for task in self.group_tasks.values():
            task.hasten(seconds)

    def shut_down(self) -> None:
        """Retire everything. ``empty`` is set when everything is gone."""
        self._perform(self._policy.shut_down(self.current_time()))

    # -- statistics and evidence --------------------------------------------------------------------------------

    async def backtrace(self, pid: int) -> str:
        """What a process of the pool is doing: the stacks of its threads and tasks, for people. Takes
        4 seconds at most. Whatever the process does, it is not disturbed.

        :raises LookupError: no process of the pool has this pid.
        """
        for process in self.processes.values():
            if process.live.pid == pid:
                return await process.live.backtrace()
        raise LookupError(pid)

    def trace(self) -> Callable[[], dict[str, Any]]:
        """Return a function that makes JSON values of the flight recorder's recording. It is slow,
        so call it in a thread.
        """
        return self._policy.dump()

    @property
    def max_pool_size(self) -> int:
        """The most processes, now."""
        return self._policy.state.limits.max_pool_size

    def statistics(self, keys: Iterable[GroupKey] | None = None) -> PoolStatistics:
        """The state of the pool now; read-only.

        :param keys: describe these groups only, and ignore unknown keys; None: all groups.
        """
        return self._policy.statistics(keys)

    def active_statistics(self) -> PoolStatistics:
        """Like ``statistics``, for the active groups only."""
        return self._policy.active_statistics()

    def deeds_of(self, id: ProcessId) -> int | None:
        """How many requests a process has served; None: it serves one now, or is gone."""
        known = self._policy.state.processes.get(id)
        return None if known is None or known.sessions else known.processed

    def gauges(self, keys: Iterable[GroupKey]) -> dict[GroupKey, GroupGauges]:
        """The numbers of these groups for the metrics. Unknown keys are ignored."""
        return self._policy.gauges(keys, self.current_time())

    def group_statistics(self, key: GroupKey) -> GroupStatistics:
        """The state of one group now; read-only.

        :raises KeyError: there is no such group.
        """
        return self._policy.group_statistics(key)

    async def evidence(self, key: GroupKey, pid: int, *, ends: bool) -> Evidence | None:
        """See ``PoolInterface``."""
        end = await self._ends.wait(key, pid) if pid and ends else None
        await trio.lowlevel.checkpoint()
        if not self.has(key):
            return None
        group = self._policy.group_statistics(key)
        return self._ends.evidence(group, self._policy.state.limits, pid, end, self.current_time())
