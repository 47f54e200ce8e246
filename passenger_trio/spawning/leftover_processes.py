"""What remains of an ended process: other members of its process group, and programs that write to
its output.

The rule (KE14): when a worker or a preloader has ended, the rest of its process group gets SIGTERM,
and after ``grace`` seconds SIGKILL. A program with its own session (``setsid``, ``daemon``) is left
alone until the server stops. Programs that hold the output pipe may go on writing: the pipe is read
until no program holds it.

Laws:

* No state of a group or a pipe that has ended is kept, so nothing accumulates.
* A group is identified by the pidfd of its leader, so no other process is signalled.
* When ``serve`` is cancelled, groups are killed and pipes closed. Before and after ``serve``
  the object keeps nothing.
"""

from __future__ import annotations

import signal
from functools import partial

import trio

from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.spawning.output import OutputPipe
from passenger_trio.system.pidfd import PidFd

__all__ = ["Remains"]

_POLL_INTERVAL = 0.1
"""Seconds between two checks of a group that is being ended. The kernel reports the end of a
process, not of a group.
"""


class Remains:
    """The remains of all processes of a server. ``serve`` must be running before anything is adopted."""

    def __init__(self, kernel: ErrorKernel | None = None) -> None:
        self._kernel = kernel or ErrorKernel()
        self._nursery: trio.Nursery | None = None
        self.groups: int = 0
        """Process groups that are being ended."""
        self.pipes: int = 0
        """Output pipes that are open although their process has ended."""
        self._fewer = trio.Event()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                # Race: a process ends while the tasks below do. The nursery takes no more of them.
                self._nursery = None

    def adopt_output(self, output: OutputPipe) -> None:
        """The process has ended: read on, and close the pipe when no program holds it."""
        nursery = self._nursery
        if nursery is None or output.at_end():
            output.close()
            return
        self.pipes += 1
        nursery.start_soon(self._read, output)

    def adopt_group(self, pidfd: PidFd, grace: float) -> None:
        """The leader has ended: end the other members, and close ``pidfd``."""
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
                while pidfd.signal_group(0):  # noqa: ASYNC110  the kernel reports the end of a process, not of a group
                    await trio.sleep(_POLL_INTERVAL)
        finally:
            with self._kernel.contain("what a process has left"):
                pidfd.signal_group(signal.SIGKILL)
            with self._kernel.contain("what a process has left"):
                pidfd.close()
            self.groups -= 1
            fewer, self._fewer = self._fewer, trio.Event()
            fewer.set()
