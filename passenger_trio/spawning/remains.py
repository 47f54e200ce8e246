"""What outlives a process of an application: other members of its process group, and programs that still write to its output.

The rule (KE14). When a worker or a preloader has ended, what is left in its process group gets SIGTERM, and after ``grace`` seconds SIGKILL. A program that has made a
session of its own (``setsid``, ``daemon``) is left alone until the server stops. Whoever has the output pipe may go on writing: it is read until nobody has it.

Laws: nothing is kept of what has ended, so nothing piles up; a group is named by the pidfd of the process that led it, so no stranger is signalled. When ``serve``
is cancelled, the groups are killed and the pipes closed. Before and after ``serve`` nothing is kept at all.
"""

from __future__ import annotations

import signal
from functools import partial

import trio

from passenger_trio.kernel import ErrorKernel
from passenger_trio.spawning.output import OutputPipe
from passenger_trio.system.pidfd import PidFd

__all__ = ["Remains"]

_LOOK = 0.1
"""Seconds between two looks at a group that is to end: the kernel tells of the end of a process, not of a group."""


class Remains:
    """One server's. ``serve`` must be running before anything is adopted."""

    def __init__(self, kernel: ErrorKernel | None = None) -> None:
        self._kernel = kernel or ErrorKernel()
        self._nursery: trio.Nursery | None = None
        self.groups = 0
        """Process groups that are to end and have not yet."""
        self.pipes = 0
        """Pipes that somebody may still write to although the process that they were made for has ended."""
        self._fewer = trio.Event()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def adopt_output(self, output: OutputPipe) -> None:
        """The process has ended; read on, and close the pipe when nobody has it any more."""
        nursery = self._nursery
        if nursery is None or output.at_end():
            output.close()
            return
        self.pipes += 1
        nursery.start_soon(self._read, output)

    def adopt_group(self, pidfd: PidFd, grace: float) -> None:
        """The leader has ended; end the others, and close ``pidfd``."""
        nursery = self._nursery
        if nursery is None:
            pidfd.signal_group(signal.SIGKILL)
            pidfd.close()
        elif pidfd.signal_group(signal.SIGTERM):
            self.groups += 1
            nursery.start_soon(self._end, pidfd, grace)
        else:
            pidfd.close()

    async def wait_no_groups(self) -> None:
        """Return when no process group is left."""
        await trio.lowlevel.checkpoint()
        while self.groups:
            await self._fewer.wait()

    async def _read(self, output: OutputPipe) -> None:
        try:
            await self._kernel.supervise("a reader of an application's output", partial(output.run))
        finally:
            self.pipes -= 1
            with self._kernel.contain("what a process has left"):
                output.close()

    async def _end(self, pidfd: PidFd, grace: float) -> None:
        try:
            with self._kernel.contain("what a process has left", "it is killed"), trio.move_on_after(grace):
                while pidfd.signal_group(0):  # noqa: ASYNC110  the kernel tells of the end of a process, not of a group
                    await trio.sleep(_LOOK)
        finally:
            with self._kernel.contain("what a process has left"):
                pidfd.signal_group(signal.SIGKILL)
            with self._kernel.contain("what a process has left"):
                pidfd.close()
            self.groups -= 1
            fewer, self._fewer = self._fewer, trio.Event()
            fewer.set()
