"""KE12: a cgroup of our own, and what is killed of those that dead supervisors have left. Most is tried with a directory that has the files of cgroupfs, which are ordinary ones there:
so it is seen what is written. ``tests/faces/test_killed.py`` has the real ones.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from needs import needs

from passenger_trio.system.cgroup_dirs import own_directory
from passenger_trio.system.cgroups import _WATCHDOG, enter_own_cgroup, kill_abandoned

NAMESPACE = os.stat("/proc/self/ns/pid").st_ino


def start_time(pid: int | str) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat[stat.rindex(")") + 2 :].split()[19])


def cgroup(above: Path, name: str) -> Path:
    directory = above / name
    directory.mkdir()
    (directory / "cgroup.kill").write_text("")
    return directory


def killed(directory: Path) -> bool:
    return (directory / "cgroup.kill").read_text() == "1"


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_KE12_that_of_a_dead_supervisor_is_killed(tmp_path: Path) -> None:
    name = f"passenger-trio.{NAMESPACE}.{dead_pid()}.5"
    directory = cgroup(tmp_path, name)
    assert kill_abandoned(str(tmp_path)) == [name]
    assert killed(directory)


def test_KE12_that_of_its_watchdog_goes_too(tmp_path: Path) -> None:
    """OP9: a watchdog has one of its own where controllers are handed down."""
    name = f"passenger-trio.{NAMESPACE}.{dead_pid()}.5.watch"
    directory = cgroup(tmp_path, name)
    assert kill_abandoned(str(tmp_path)) == [name]
    assert killed(directory)


def test_KE12_also_where_its_pid_is_somebody_else_now(tmp_path: Path) -> None:
    directory = cgroup(tmp_path, f"passenger-trio.{NAMESPACE}.{os.getpid()}.{start_time('self') - 1}")
    kill_abandoned(str(tmp_path))
    assert killed(directory)


def test_KE12_the_watchdog_does_not_wait_when_nobody_is_left(tmp_path: Path) -> None:
    """As a shell sees it: its ``sleep`` is one that leaves a mark."""
    programs, group = tmp_path / "bin", cgroup(tmp_path, "a")
    programs.mkdir()
    (programs / "sleep").write_text('#!/bin/sh\necho "$1" >>"$MARKS"\n')
    (programs / "sleep").chmod(0o755)
    marks = tmp_path / "marks"
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "MARKS": str(marks)}
    for populated, waits in ((1, 0.75), (0, 0.0)):
        marks.write_text("")
        (group / "cgroup.kill").write_text("")
        (group / "cgroup.events").write_text(f"populated {populated}\nfrozen 0\n")
        subprocess.run(["/bin/sh", "-c", _WATCHDOG, "sh", str(group)], stdin=subprocess.DEVNULL, env=environment)
        assert (group / "cgroup.kill").read_text() == "1\n"
        waited = [float(line) for line in marks.read_text().split()]
        # Then it tries to remove the directory, ten times, which is no cgroup and has files.
        assert sum(waited[:-10]) == pytest.approx(waits)


@pytest.mark.parametrize(
    "name",
    [
        f"passenger-trio.{NAMESPACE}.{os.getpid()}.{start_time('self')}",
        f"passenger-trio.{NAMESPACE + 1}.{dead_pid()}.5",
        "passenger-trio",
        f"passenger-trio.{dead_pid()}.5",
        f"x-passenger-trio.{NAMESPACE}.{dead_pid()}.5",
        f"passenger-trio.{NAMESPACE}.{dead_pid()}.5.slice",
        "system.slice",
    ],
    ids=["lives", "another pid namespace", "no pid", "no namespace", "other prefix", "other suffix", "a stranger's"],
)
def test_KE12_that_of_a_living_one_and_of_strangers_is_not(tmp_path: Path, name: str) -> None:
    directory = cgroup(tmp_path, name)
    assert kill_abandoned(str(tmp_path)) == []
    assert not killed(directory)


def test_KE12_that_of_another_user_is_not(tmp_path: Path) -> None:
    needs(os.geteuid() == 0, "root, to give a directory away")
    directory = cgroup(tmp_path, f"passenger-trio.{NAMESPACE}.{dead_pid()}.5")
    os.chown(directory, 54_321, 54_321)
    assert kill_abandoned(str(tmp_path)) == []
    assert not killed(directory)


def test_KE12_where_proc_tells_nothing_nobody_is_taken_for_dead(tmp_path: Path) -> None:
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    (tmp_path / "proc/self/ns/pid").symlink_to("/proc/self/ns/pid")
    directory = cgroup(tmp_path, f"passenger-trio.{NAMESPACE}.{dead_pid()}.5")
    assert kill_abandoned(str(tmp_path), str(tmp_path / "proc")) == []
    assert not killed(directory)


def test_KE12_where_there_is_no_kill_nothing_is_left(tmp_path: Path) -> None:
    """A kernel before 5.14, or a directory that is no cgroup."""
    assert enter_own_cgroup(str(tmp_path)) is None
    assert not list(tmp_path.iterdir())


def test_KE12_where_nothing_can_be_made(tmp_path: Path) -> None:
    assert enter_own_cgroup(str(tmp_path / "not there")) is None
    assert kill_abandoned(str(tmp_path / "not there")) == []


@pytest.mark.parametrize(
    ("cgroups", "mounts", "expected"),
    [
        ("0::/a/b\n", "30 1 0:1 / {dir} rw - cgroup2 cgroup2 rw\n", "{dir}/a/b"),
        ("3:cpu:/x\n0::/a/b\n", "30 1 0:1 /a {dir}/a rw shared:1 - cgroup2 none rw\n", "{dir}/a/b"),
        ("0::/../b\n", "30 1 0:1 /a {dir} rw - cgroup2 none rw\n", ""),
        ("3:cpu:/a/b\n", "30 1 0:1 / {dir} rw - cgroup2 none rw\n", ""),
        ("0::/a/b\n", "30 1 0:1 / {dir} rw - cgroup cgroup rw\n", ""),
        ("0::/a/c\n", "30 1 0:1 / {dir} rw - cgroup2 cgroup2 rw\n", ""),
    ],
    ids=["version 2", "hybrid, a part mounted", "outside of the namespace", "version 1", "version 1 mounted", "gone"],
)
def test_KE12_where_our_own_cgroup_is(tmp_path: Path, cgroups: str, mounts: str, expected: str) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text(cgroups)
    (tmp_path / "self/mountinfo").write_text(mounts.format(dir=tmp_path))
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/cgroup.procs").write_text("")
    assert own_directory(str(tmp_path))[0] == expected.format(dir=tmp_path)
