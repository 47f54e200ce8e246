"""A handle for one application of a running server or pool: functions that do what the commands do (LI2).

It keeps nothing but the application's key. So it stays valid over restarts, and may be made anew at any time."""

from __future__ import annotations

from collections.abc import Collection

import trio

from passenger_trio.core import readiness
from passenger_trio.core.model import GroupKey
from passenger_trio.core.state import EnabledStatus
from passenger_trio.core.statistics import GroupStatistics
from passenger_trio.errors import NotFound, NotPossible, RestartFailed, SpawnError
from passenger_trio.late_classes import frozen
from passenger_trio.options import AppOptions
from passenger_trio.pool.pool import Pool
from passenger_trio.pool.session import Process
from passenger_trio.spawning.spawner import LiveProcess

__all__ = ["AppHandle", "AppProcess", "find_key"]


@frozen
class AppProcess:
    """One process of an application, as it was when it was asked for.

    :ivar generation: of the code: it counts restarts.
    :ivar serves: whether it gets requests; else it finishes those that it has.
    :ivar sessions: requests that it has now.
    :ivar concurrency: requests that it takes at the same time; 0: any number.
    :ivar processed: requests that it has served.
    :ivar age: seconds since it became ready.
    """

    pid: int
    generation: int
    serves: bool
    sessions: int
    concurrency: int
    processed: int
    age: float


@frozen(eq=False)
class AppHandle:
    """One application. ``RunningServer.app`` and ``RunningPool.app`` make it."""

    key: GroupKey
    options: AppOptions
    _pool: Pool

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def environment(self) -> str:
        """development, production, ..."""
        return self.key.environment

    # -- to know ------------------------------------------------------------------------------------------------

    def statistics(self) -> GroupStatistics:
        """The state of the application's group now.

        :raises NotFound: it was removed.
        """
        try:
            return self._pool.group_statistics(self.key)
        except KeyError:
            raise NotFound(f"there is no application {str(self.key)!r}") from None

    @property
    def processes(self) -> tuple[AppProcess, ...]:
        """Its processes: those that serve, oldest first, then those that are to end."""
        now = self._pool.current_time()
        return tuple(
            AppProcess(
                pid=live.live.pid,
                generation=process.generation,
                serves=process.state is EnabledStatus.ENABLED,
                sessions=process.sessions,
                concurrency=process.concurrency,
                processed=process.processed,
                age=now - process.since,
            )
            for process in self.statistics().processes
            if (live := self._pool.processes.get(process.id)) is not None
        )

    async def wait_ready(self) -> None:
        """Return when as many processes serve as ``min_instances`` asks for.

        :raises SpawnError: the application does not start.
        :raises NotFound: it was removed.
        """
        while True:
            changed = self._pool.changed
            group = self.statistics()
            if group.last_failure is not None:
                await trio.lowlevel.checkpoint()
                raise SpawnError(group.last_failure)
            if readiness.is_settled(self._pool.active_statistics(), group):
                await trio.lowlevel.checkpoint()
                return
            await changed.wait()

    # -- to do --------------------------------------------------------------------------------------------------

    def restart(self, *, hard: bool = False) -> int:
        """Replace every process, rolling: the old ones serve until the new ones do. Returns at once.

        :param hard: do not wait for the requests in flight.
        :returns: the generation that the restart leads to, for ``wait_restarted``.
        :raises NotFound: the application was removed.
        """
        self.statistics()
        return self._pool.restart(self.key, hard=hard)

    async def wait_restarted(self, generation: int | None = None) -> None:
        """Return when every process that serves is of that generation (default: of the last restart).

        :raises RestartFailed: that version did not start, and the previous one keeps serving.
        :raises NotFound: the application was removed.
        """
        self.statistics()
        wanted = self._pool.restart_target(self.key) if generation is None else generation
        rejection = await self._pool.wait_restarted(self.key, wanted)
        if rejection is not None:
            self.statistics()  # raises NotFound, if that is why
            raise RestartFailed(rejection.generation, rejection.kept, rejection.failure)

    def detach(self, pid: int) -> None:
        """Take a process out of routing. It finishes its requests and ends; another one replaces it.

        :raises NotFound: no such process of this application serves.
        """
        if not self._pool.detach(self._process(pid).id):
            raise NotFound(f"no process {pid} of {self.key} serves")

    async def wait_gone(self, pid: int) -> None:
        """Return when a process has ended; at once if there is none of that pid."""
        await trio.lowlevel.checkpoint()
        for process in tuple(self._pool.processes.values()):
            if process.live.pid == pid and process.group == self.key:
                await self._pool.wait_gone(process.id)

    def disable(self, pid: int) -> int:
        """Take a process out of routing until ``enable``. It finishes its requests and keeps its place.

        :returns: the number of its requests.
        :raises NotFound: no such process of this application serves.
        :raises NotPossible: it is the only one that serves.
        """
        process = self._process(pid)
        if not self._pool.disable(process.id):
            raise NotPossible(f"process {pid} cannot be disabled: no other process of {self.key} serves")
        return next(one.sessions for one in self.statistics().processes if one.id == process.id)

    def enable(self, pid: int) -> None:
        """Put a process that was disabled back into routing. Nothing happens if it serves.

        :raises NotFound: this application has no such process.
        """
        self._pool.enable(self._process(pid).id)

    async def backtrace(self, pid: int) -> str:
        """What a process is doing: the stacks of its threads and tasks, for people. Takes 4 seconds at most, and
        does not disturb it.

        :raises NotFound: this application has no such process.
        """
        return await self._process(pid).live.backtrace()

    def _process(self, pid: int) -> Process[LiveProcess]:
        for process in self._pool.processes.values():
            if process.live.pid == pid and process.group == self.key and not process.leaving:
                return process
        raise NotFound(f"no process {pid} of {self.key} serves")


def find_key(keys: Collection[GroupKey], name: str) -> GroupKey:
    """The application that a program names.

    :param name: its name, or ``name (environment)`` where several have the name; empty: the only one.
    :raises NotFound: there is no such application, or the name means several.
    """
    found = [key for key in keys if not name or name in (key.name, str(key))]
    if len(found) != 1:
        asked = f"there is no application {name!r}" if not found else "name one of the applications"
        raise NotFound(f"{asked}; there are: {', '.join(map(str, keys)) or 'none'}")
    return found[0]
