"""Children: how a program is started, and that nothing survives the end of a supervisor that owns its process.

What changes this process for good (becoming a subreaper, killing every descendant) is tried in a process of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest
from needs import needs

from passenger_trio.system.children import descendants, start_program

pytestmark = [pytest.mark.os, pytest.mark.usefixtures("nothing_left")]


def run(program: list[str], env: Mapping[str, str] | None = None, cwd: str = "/") -> tuple[int, str]:
    """Wait status and output of a program."""
    reading, writing = os.pipe()
    try:
        pid = start_program(program, cwd=cwd, env=env if env is not None else os.environ, output=writing)
        os.close(writing)
        writing = -1
        with os.fdopen(reading) as file:
            reading = -1
            output = file.read()
        return os.waitpid(pid, 0)[1], output
    finally:
        for fd in (reading, writing):
            if fd >= 0:
                os.close(fd)


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *arguments]


# --- starting ---------------------------------------------------------------------------------------------------------


def test_standard_output_and_error_are_the_pipe_and_the_status_is_ours_to_wait_for() -> None:
    status, output = run(["/bin/sh", "-c", "echo out; echo err >&2; exit 7"])
    assert output == "out\nerr\n"
    assert os.waitstatus_to_exitcode(status) == 7


def test_standard_input_is_nothing() -> None:
    assert run(["/bin/sh", "-c", "cat; readlink /proc/self/fd/0"])[1] == "/dev/null\n"


def test_it_leads_a_process_group_of_its_own_in_our_session() -> None:
    _, output = run(python("import os; print(os.getpid() == os.getpgrp(), os.getsid(0))"))
    assert output == f"True {os.getsid(0)}\n"


def test_no_other_descriptor_is_open() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    try:
        _, output = run(["/bin/ls", "/proc/self/fd"])
    finally:
        os.close(reading)
        os.close(writing)
    assert output.split() == ["0", "1", "2", "3"], "3 is the directory that ls reads"


def test_environment_and_directory_are_what_was_given_and_no_more(tmp_path: Path) -> None:
    _, output = run(["/bin/sh", "-c", "env; pwd"], {"ONLY": "this"}, str(tmp_path))
    assert sorted(line for line in output.splitlines() if not line.startswith(("PWD=", "_=", "SHLVL=", "OLDPWD="))) == [
        str(tmp_path),
        "ONLY=this",
    ]


def test_signals_that_python_ignores_are_as_usual() -> None:
    _, output = run(["/bin/sh", "-c", "grep -i sigign /proc/self/status"])
    assert int(output.split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0


@pytest.mark.parametrize(
    ("program", "cwd", "error"),
    [
        (["/no/such/program"], "/", FileNotFoundError),
        (["/etc/passwd"], "/", PermissionError),
        (["/bin/true"], "/no/such/directory", FileNotFoundError),
        (["/bin/true"], "/etc/passwd", NotADirectoryError),
    ],
)
def test_what_cannot_be_started_leaves_nothing(program: list[str], cwd: str, error: type[OSError]) -> None:
    with pytest.raises(error):
        run(program, cwd=cwd)


# --- descendants ------------------------------------------------------------------------------------------------------

FAMILY = "sleep 60 & sh -c 'sleep 60 & sleep 60 & echo; wait' & wait"


def test_descendants_are_found_parents_first() -> None:
    before = set(descendants(os.getpid()))  # the harness may have some
    with subprocess.Popen(["/bin/sh", "-c", FAMILY], stdout=subprocess.PIPE, process_group=0) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            found = descendants(child.pid)
            assert len(found) == 4
            inner = next(pid for pid in found if descendants(pid))
            assert len(descendants(inner)) == 2
            assert found.index(inner) < min(map(found.index, descendants(inner)))
            assert set(descendants(os.getpid())) - before == {child.pid, *found}
            assert set(descendants(child.pid, {inner})) == set(found) - {inner, *descendants(inner)}
        finally:
            os.killpg(child.pid, signal.SIGKILL)


def test_nobody_descends_from_nobody() -> None:
    with subprocess.Popen(["/bin/true"]) as child:
        pass
    assert descendants(child.pid) == []


def test_looking_while_processes_come_and_go_raises_nothing() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "for i in $(seq 400); do /bin/true; (:); done"]) as child:
        while child.poll() is None:
            descendants(os.getpid())


# --- the end ----------------------------------------------------------------------------------------------------------


def in_a_process_of_its_own(code: str) -> str:
    prelude = """
    import os, signal, subprocess, sys, time
    from passenger_trio.system.children import become_subreaper, descendants, end_strays
    from passenger_trio.system.syscalls import P_PID, WSTOPPED, pidfd_open, waitid
    def shell(script, **how):
        child = subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True, **how)
        child.returncode = 0
        return child
    def gone(pid):
        try:
            fd = pidfd_open(pid)
        except ProcessLookupError:
            return True
        os.close(fd)
        return False
    """
    done = subprocess.run(
        python(textwrap.dedent(prelude) + textwrap.dedent(code)), capture_output=True, text=True, timeout=20
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def test_orphans_come_to_a_subreaper() -> None:
    assert (
        in_a_process_of_its_own("""
        become_subreaper()
        child = shell("setsid sleep 60 & echo $!")
        pid = int(child.stdout.readline())
        os.waitpid(child.pid, 0)
        with open(f"/proc/{pid}/stat") as file:
            print(int(file.read().split()[3]) == os.getpid())
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    """)
        == "True\n"
    )


def test_nothing_survives_the_end() -> None:
    """R40. A child, its children in groups and sessions of their own, a daemon, one that ignores SIGTERM, one that was stopped."""
    assert (
        in_a_process_of_its_own("""
        become_subreaper()
        shell("exit 0")  # a zombie: reaped, and not counted
        child = shell('''
            setsid sh -c 'trap "" TERM; sleep 60 & sleep 61' & (setsid sleep 62 &) & sleep 63 & kill -STOP $!; echo; wait
        ''')
        child.stdout.readline()
        stopped = shell("kill -STOP $$; sleep 60")
        waitid(P_PID, stopped.pid, WSTOPPED)
        before = descendants(os.getpid())
        killed = set()
        while found := end_strays():
            killed.update(found)
        print(len(killed) >= 5, descendants(os.getpid()), [pid for pid in before if not gone(pid)])
    """)
        == "True [] []\n"
    )


def test_without_strays_nothing_is_killed() -> None:
    assert in_a_process_of_its_own("print(end_strays())") == "[]\n"


def test_who_is_to_be_kept_is_kept_with_its_children() -> None:
    assert (
        in_a_process_of_its_own("""
        kept = shell("sleep 60 & echo $!; wait")
        theirs = int(kept.stdout.readline())
        other = shell("exec sleep 60")
        print(end_strays({kept.pid}) == [other.pid], end_strays({kept.pid}))
        print(gone(kept.pid), gone(theirs), gone(other.pid))
        become_subreaper()
        while end_strays():
            pass
        print(gone(kept.pid), gone(theirs))
    """)
        == "True []\nFalse False True\nTrue True\n"
    )


def test_who_may_not_be_killed_does_not_hold_up_the_end() -> None:
    """An application may have started a program that runs as somebody else (sudo)."""
    needs(os.getuid() == 0, "root, who alone can make a process that it may not signal")
    assert (
        in_a_process_of_its_own("""
        stranger = shell("echo; exec sleep 60")  # belongs to root
        stranger.stdout.readline()
        os.setresuid(65534, 65534, 0)
        mine = shell("exec sleep 60")
        print(end_strays() == [mine.pid], end_strays(), gone(stranger.pid))
        os.setresuid(0, 0, 0)
        os.kill(stranger.pid, signal.SIGKILL)
        os.waitpid(stranger.pid, 0)
    """)
        == "True [] False\n"
    )


def test_a_pid_that_is_somebody_elses_by_the_time_it_is_pinned() -> None:
    """Section F: who was seen has ended, and its number was given to a process that is none of ours. It is pinned, looked at, and let be."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as stranger:
        assert (
            in_a_process_of_its_own(f"""
            from passenger_trio.system import children
            seen = children.descendants
            children.descendants = lambda root, keep=(): [*seen(root, keep), {stranger.pid}]
            mine = shell("exec sleep 60")
            print(end_strays() == [mine.pid], end_strays(), gone({stranger.pid}))
        """)
            == "True [] False\n"
        )
        assert stranger.poll() is None


def test_no_descriptor_is_left_of_it() -> None:
    assert (
        in_a_process_of_its_own("""
        become_subreaper()
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            subprocess.Popen(["/bin/sh", "-c", "sleep 60 & sleep 60"], stdin=subprocess.DEVNULL).returncode = 0
        while end_strays():
            pass
        print(os.listdir("/proc/self/fd") == before)
    """)
        == "True\n"
    )


def test_orphans_that_end_are_reaped_and_whoever_is_watched_is_left_to_his_watcher() -> None:
    assert (
        in_a_process_of_its_own("""
        import trio
        from passenger_trio.system.children import reap_strangers
        from passenger_trio.system.pidfd import PidFd

        async def main():
            become_subreaper()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reap_strangers)
                orphans = []
                for _ in range(2):
                    child = shell("setsid sleep 0.1 & echo $!")
                    orphans.append(int(child.stdout.readline()))
                    watched = PidFd.open(child.pid)
                    await watched.wait_exit()
                    watched.close()
                ours = shell("sleep 0.3; exit 7")
                watched = PidFd.open(ours.pid)
                await watched.wait_exit()
                watched.close()
                with trio.fail_after(10):
                    while descendants(os.getpid()):
                        await trio.sleep(0.05)
                print(watched.exit_status, [gone(pid) for pid in orphans])
                nursery.cancel_scope.cancel()

        trio.run(main)
    """)
        == "7 [True, True]\n"
    )
