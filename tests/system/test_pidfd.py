"""PidFd: whoever's child it is, its end is seen, and a signal reaches it and its group and nobody else."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from needs import needs
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from passenger_trio.system.pidfd import PidFd, parent_of
from passenger_trio.system.syscalls import P_PID, WEXITED, WNOWAIT, pidfd_open, pidfd_send_signal, waitid

pytestmark = [pytest.mark.os, pytest.mark.usefixtures("nothing_left")]


@contextmanager
def shell(script: str, *, group: bool = True) -> Iterator[subprocess.Popen[str]]:
    """A child that says its first line on standard output; killed at the end, with its group if it leads one."""
    child = subprocess.Popen(
        ["/bin/sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0 if group else None,
    )
    try:
        yield child
    finally:
        try:
            (os.killpg if group else os.kill)(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.close()
        child.stdout.close()
        try:
            os.waitpid(child.pid, 0)
        except ChildProcessError:
            pass
        child.returncode = 0


def first_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


@contextmanager
def pinned(pid: int) -> Iterator[PidFd]:
    pidfd = PidFd.open(pid)
    try:
        yield pidfd
    finally:
        pidfd.close()


async def wait(pidfd: PidFd) -> None:
    with trio.fail_after(5):
        await pidfd.wait_exit()


async def test_a_child_is_reaped_and_its_exit_status_told() -> None:
    with shell("read x; exit 3") as child, pinned(child.pid) as pidfd:
        assert not pidfd.poll()
        assert not pidfd.exited
        assert pidfd.exit_status is None
        assert child.stdin is not None
        child.stdin.close()
        await wait(pidfd)
        assert pidfd.exited
        assert pidfd.exit_status == 3
        assert parent_of(child.pid) is None, "it was reaped"


async def test_a_signal_that_killed_is_a_negative_status() -> None:
    with shell("read x") as child, pinned(child.pid) as pidfd:
        assert pidfd.send_signal(signal.SIGKILL)
        await wait(pidfd)
        assert pidfd.exit_status == -signal.SIGKILL


async def test_a_child_that_ended_before_it_was_pinned_is_seen_while_nobody_has_reaped_it() -> None:
    with shell("exit 5") as child:
        waitid(P_PID, child.pid, WEXITED | WNOWAIT)
        with pinned(child.pid) as pidfd:
            assert pidfd.poll()
            assert pidfd.exit_status == 5


async def test_no_such_process() -> None:
    with shell("exit 0") as child:
        os.waitpid(child.pid, 0)
        with pytest.raises(ProcessLookupError):
            PidFd.open(child.pid)


async def test_a_grandchild_is_watched_like_a_child_but_its_status_is_its_parents_to_tell() -> None:
    # The shell waits for a line, not for its child, which stays a zombie.
    with shell("sleep 60 & echo $!; read x") as child:
        pid = int(first_line(child))
        assert parent_of(pid) == child.pid
        with pinned(pid) as pidfd:
            assert not pidfd.poll()
            assert pidfd.send_signal(signal.SIGTERM)
            await wait(pidfd)
            assert pidfd.exited
            assert pidfd.exit_status is None
            assert not pidfd.send_signal(signal.SIGTERM), "it has ended"


async def test_the_status_of_anothers_child_is_there_until_its_parent_has_waited_for_it() -> None:
    """TH2: of a process that was taken into use where it waited."""
    # Not a shell's child: a shell may wait for it by itself before it is told to.
    forks = "import os, sys; pid = os.fork() or os._exit(7); print(pid, flush=True); sys.stdin.readline(); os.wait(); print('waited', flush=True); input()"
    with shell(f'exec {sys.executable} -S -c "{forks}"') as parent:
        with pinned(int(first_line(parent))) as pidfd:
            await pidfd.wait_exit()
            assert pidfd.exit_status is None
            assert pidfd.status_of_zombie() == 7
            assert parent.stdin is not None
            parent.stdin.write("\n")
            parent.stdin.flush()
            assert first_line(parent) == "waited"
            assert pidfd.status_of_zombie() is None
    with pinned(os.getpid()) as running:
        assert running.status_of_zombie() is None


async def test_wait_exit_is_a_checkpoint_also_when_it_has_ended() -> None:
    with shell("exit 0") as child, pinned(child.pid) as pidfd:
        await wait(pidfd)
        with assert_checkpoints():
            await pidfd.wait_exit()


async def test_a_wait_that_is_cancelled_can_be_gone_on_with() -> None:
    with shell("read x") as child, pinned(child.pid) as pidfd:
        with trio.CancelScope() as scope:
            scope.cancel()
            await pidfd.wait_exit()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pidfd.wait_exit)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        assert not pidfd.exited
        pidfd.signal_group(signal.SIGKILL)
        await wait(pidfd)


async def test_close_is_idempotent_and_nothing_is_signalled_after_it() -> None:
    with shell("read x") as child:
        pidfd = PidFd.open(child.pid)
        pidfd.close()
        pidfd.close()
        assert not pidfd.send_signal(signal.SIGKILL)
        assert not pidfd.signal_group(signal.SIGKILL)
        assert not pidfd.poll()
        with pytest.raises(trio.ClosedResourceError):
            await pidfd.wait_exit()
        assert parent_of(child.pid) == os.getpid(), "it lives"


async def test_close_wakes_whoever_waits() -> None:
    with shell("read x") as child:
        pidfd = PidFd.open(child.pid)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def waiter() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await pidfd.wait_exit()

            await wait_all_tasks_blocked()
            pidfd.close()


async def test_what_was_seen_before_the_close_is_still_known_after_it() -> None:
    with shell("exit 4") as child:
        pidfd = PidFd.open(child.pid)
        await wait(pidfd)
        pidfd.close()
        assert pidfd.exited
        assert pidfd.exit_status == 4


# --- groups -----------------------------------------------------------------------------------------------------------


async def test_a_signal_reaches_the_whole_group() -> None:
    with shell("sleep 60 & echo $!; wait") as child:
        with pinned(child.pid) as leader, pinned(int(first_line(child))) as member:
            assert leader.signal_group(signal.SIGTERM)
            await wait(leader)
            await wait(member)


async def test_a_signal_reaches_the_members_that_outlived_their_leader() -> None:
    with shell("sleep 60 & echo $!; exit 0") as child:
        with pinned(child.pid) as leader, pinned(int(first_line(child))) as member:
            await wait(leader)
            assert leader.exit_status == 0
            assert not member.poll()
            assert leader.signal_group(signal.SIGKILL)
            await wait(member)


async def test_a_group_without_members_is_not_there() -> None:
    with shell("exit 0") as child, pinned(child.pid) as pidfd:
        await wait(pidfd)
        assert not pidfd.signal_group(signal.SIGKILL)


async def test_who_leads_no_group_is_signalled_alone() -> None:
    """A program that has not made its group yet is in ours: the signal must not come to us."""
    with shell("read x", group=False) as child, pinned(child.pid) as pidfd:
        assert os.getpgid(child.pid) == os.getpgrp()
        assert pidfd.signal_group(signal.SIGTERM)
        await wait(pidfd)
        assert pidfd.exit_status == -signal.SIGTERM
        assert not pidfd.signal_group(signal.SIGTERM)


def test_a_signal_that_is_not_allowed_is_one_that_nobody_got() -> None:
    needs(os.getuid() == 0, "root, who alone can make a process that it may not signal")
    with shell("read x") as stranger:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setuid(65534)
                pidfd = PidFd.open(stranger.pid)
                status = pidfd.send_signal(signal.SIGTERM) + 2 * pidfd.signal_group(signal.SIGTERM)
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert parent_of(stranger.pid) == os.getpid()


# --- parents ----------------------------------------------------------------------------------------------------------


def test_the_parent_of_a_process() -> None:
    assert parent_of(os.getpid()) == os.getppid()
    with shell("read x") as child:
        assert parent_of(child.pid) == os.getpid()
    assert parent_of(child.pid) is None


def test_the_parent_is_found_whatever_the_process_is_called() -> None:
    with shell(r"printf 'a) R 1 (b' >/proc/$$/comm; echo; read x") as child:
        first_line(child)
        with open(f"/proc/{child.pid}/stat") as file:
            assert "(a) R 1 (b)" in file.read()
        assert parent_of(child.pid) == os.getpid()


async def test_an_older_kernel_and_a_pid_that_was_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Section F: where groups have no name but a pid, that is nobody's once its end was seen: another may lead a group of that number by now."""

    def older(fd: int, number: int, info: None = None, flags: int = 0) -> None:
        if flags:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        pidfd_send_signal(fd, number)

    monkeypatch.setattr("passenger_trio.system.pidfd.pidfd_send_signal", older)
    with shell("exit 0") as ended, shell("echo; read x") as other:
        first_line(other)
        leads = PidFd.open(other.pid)
        assert leads.signal_group(0)
        leads.close()
        was = PidFd.open(ended.pid)
        await was.wait_exit()
        was.pid = other.pid
        assert not was.signal_group(signal.SIGKILL)
        assert not was.send_signal(signal.SIGKILL)
        was.close()
        assert other.poll() is None


def test_this_kernel_names_groups_by_pidfd() -> None:
    """The tests above are of that way; on an older kernel they are of the other (EINVAL)."""
    with shell("read x") as child:
        fd = pidfd_open(child.pid)
        try:
            pidfd_send_signal(fd, 0, None, 4)
        except OSError as error:
            assert error.errno == errno.EINVAL  # noqa: PT017
        finally:
            os.close(fd)
