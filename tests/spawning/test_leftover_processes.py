"""What outlives a process (KE14): TERM, a time, KILL for its group; its output is read for as long as somebody has it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from passenger_trio.spawning.leftover_processes import Remains
from passenger_trio.spawning.output import OutputPipe
from passenger_trio.system.pidfd import PidFd, pin_child
from passenger_trio.testing.harness import is_running

pytestmark = [pytest.mark.os, pytest.mark.usefixtures("nothing_left")]


@asynccontextmanager
async def serving() -> AsyncIterator[Remains]:
    remains = Remains()
    async with trio.open_nursery() as nursery:
        await nursery.start(remains.serve)
        yield remains
        nursery.cancel_scope.cancel()


async def leave(trap: str) -> tuple[PidFd, int, OutputPipe, list[str]]:
    """A leader that has ended, and the member of its group that it has left behind, which says what it gets."""
    lines: list[str] = []
    output = OutputPipe(lines.extend)
    script = f"{trap}; echo ready $$; while :; do sleep 0.05; done"
    leader = subprocess.Popen(
        ["/bin/sh", "-c", 'sh -c "$0" & exit 0', script], stdout=output.writing_end, process_group=0
    )
    pidfd = pin_child(leader.pid)
    leader.returncode = 0  # it is the pidfd's to reap
    output.close_writing_end()
    await pidfd.wait_exit()
    with trio.fail_after(20):
        while not lines:
            output.drain()
            await trio.sleep(0.01)
    return pidfd, int(lines[0].split()[1]), output, lines


async def until_gone(pid: int) -> None:
    with trio.fail_after(20):
        while is_running(pid):  # noqa: ASYNC110  a grandchild, of which nobody is told
            await trio.sleep(0.01)


async def test_KE14_a_member_of_the_group_gets_TERM_and_what_it_still_says_is_heard() -> None:
    async with serving() as remains:
        pidfd, member, output, lines = await leave('trap "echo told; exit" TERM')
        remains.adopt_output(output)
        remains.adopt_group(pidfd, 60)
        with trio.fail_after(20):
            await remains.wait_no_groups()
            while remains.pipes:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert not is_running(member)
        assert lines[1:] == ["told"]
        assert remains.groups == 0


async def test_KE14_one_that_does_not_heed_TERM_is_killed_after_its_time() -> None:
    async with serving() as remains:
        pidfd, member, output, _ = await leave('trap "" TERM')
        remains.adopt_output(output)
        remains.adopt_group(pidfd, 0.3)
        await until_gone(member)
        await remains.wait_no_groups()


async def test_KE14_when_the_server_ends_nothing_is_left() -> None:
    async with serving() as remains:
        pidfd, member, output, _ = await leave('trap "" TERM')
        remains.adopt_output(output)
        remains.adopt_group(pidfd, 60)
    await until_gone(member)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_KE14_where_nobody_serves_it_ends_at_once(when: str) -> None:
    remains = Remains()
    if when == "after":
        async with serving() as remains:
            pass
    pidfd, member, output, _ = await leave('trap "" TERM')
    remains.adopt_output(output)
    remains.adopt_group(pidfd, 60)
    await until_gone(member)


async def test_nothing_is_kept_of_a_group_without_members_and_a_pipe_without_writers() -> None:
    async with serving() as remains:
        output = OutputPipe()
        child = subprocess.Popen(["/bin/true"], stdout=output.writing_end, process_group=0)
        pidfd = pin_child(child.pid)
        child.returncode = 0
        await pidfd.wait_exit()
        remains.adopt_output(output)
        remains.adopt_group(pidfd, 60)
        assert (remains.groups, remains.pipes) == (0, 0)
        with pytest.raises(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)


async def test_what_is_left_in_the_step_in_which_the_last_one_has_ended_is_ended_at_once() -> None:
    """KE1: a library's tree is cancelled as a whole, so a process may end between the last task of ``serve`` and its end."""
    first, member, output, _ = await leave("trap '' TERM")
    second, other, more, _ = await leave("trap '' TERM")
    failures: list[Exception] = []

    class Adopts(trio.abc.Instrument):
        def task_exited(self, task: trio.lowlevel.Task) -> None:
            if task.name.endswith("Remains._end"):
                try:
                    remains.adopt_output(more)
                    remains.adopt_group(second, 60)
                except RuntimeError as error:
                    failures.append(error)

    async with serving() as remains:
        output.close()
        remains.adopt_group(first, 60)
        await trio.testing.wait_all_tasks_blocked()
        instrument = Adopts()
        trio.lowlevel.add_instrument(instrument)
    trio.lowlevel.remove_instrument(instrument)
    assert failures == []
    await until_gone(member)
    await until_gone(other)
