"""OP6: how much memory there is. Most is tried with a directory that has the files of /proc and cgroupfs; the real ones last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from memory_cgroups import a_memory_cgroup, can_make_one

from passenger_trio.system.cgroup_dirs import own_directory
from passenger_trio.system.memory_limit import MemoryLimit, memory_limit

RAM = 1000 * 1024
V1 = "9223372036854771712\n"


def a_machine(root: Path, cgroups: str, mounts: str, files: dict[str, str]) -> MemoryLimit:
    """What is found there; the source is relative to it."""
    (root / "self").mkdir()
    (root / "self/cgroup").write_text(cgroups)
    (root / "self/mountinfo").write_text(mounts.format(dir=root))
    (root / "meminfo").write_text("MemTotal:           1000 kB\nMemFree:  1 kB\n")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        ((root / name).parent / "cgroup.procs").write_text("")
    found = memory_limit(str(root))
    return MemoryLimit(found.total, found.source.removeprefix(f"{root}/"))


TWO = "30 1 0:1 / {dir}/two rw - cgroup2 cgroup2 rw\n"
ONE = "31 1 0:2 / {dir}/one rw - cgroup cgroup rw,memory\n"


@pytest.mark.parametrize(
    ("cgroups", "mounts", "files", "expected"),
    [
        ("", "", {}, MemoryLimit(RAM, "RAM")),
        ("0::/a\n", TWO, {"two/a/memory.max": "5000\n"}, MemoryLimit(5000, "two/a/memory.max")),
        ("0::/a\n", TWO, {"two/a/memory.max": "max\n"}, MemoryLimit(RAM, "RAM")),
        ("0::/a\n", TWO, {"two/a/memory.max": "5000", "two/a/memory.high": "400"}, MemoryLimit(400, "two/a/memory.high")),
        ("0::/a/b\n", TWO, {"two/a/b/memory.max": "max", "two/a/memory.max": "70"}, MemoryLimit(70, "two/a/memory.max")),
        ("0::/a\n", TWO, {"two/a/memory.max": f"{RAM + 1}"}, MemoryLimit(RAM, "RAM")),
        ("4:memory:/a\n0::/\n", ONE, {"one/a/memory.limit_in_bytes": "5000\n"}, MemoryLimit(5000, "one/a/memory.limit_in_bytes")),
        ("4:memory:/a\n", ONE, {"one/a/memory.limit_in_bytes": V1}, MemoryLimit(RAM, "RAM")),
        ("4:cpu,memory:/a\n", ONE, {"one/a/memory.limit_in_bytes": "7"}, MemoryLimit(7, "one/a/memory.limit_in_bytes")),
        ("4:memory:/docker/x\n", "31 1 0:2 /docker/x {dir}/one rw - cgroup cgroup rw,memory\n", {"one/memory.limit_in_bytes": "9"}, MemoryLimit(9, "one/memory.limit_in_bytes")),
        ("4:memory:/a\n", "31 1 0:2 / {dir}/one rw - cgroup cgroup rw,cpu\n", {"one/a/memory.limit_in_bytes": "9"}, MemoryLimit(RAM, "RAM")),
    ],
    ids=["none", "max", "no limit", "high is lower", "above", "more than RAM", "v1", "v1 without", "v1 together", "container", "another controller"],
)  # fmt: skip
def test_OP6_the_smallest_limit_holds(
    tmp_path: Path, cgroups: str, mounts: str, files: dict[str, str], expected: MemoryLimit
) -> None:
    assert a_machine(tmp_path, cgroups, mounts, files) == expected


def test_OP6_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert memory_limit(str(tmp_path)) == MemoryLimit(0, "RAM")


@pytest.mark.os
def test_OP6_here() -> None:
    """The real files: without a cgroup the machine's RAM; in one of our own, where one can be made, its limit."""
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < memory_limit().total <= total
    if can_make_one():
        with a_memory_cgroup(300 * 1024**2) as group:
            program = "from passenger_trio.system.memory_limit import memory_limit as m; print(m().total, m().source)"
            words = subprocess.run(
                group.command(sys.executable, "-c", program), stdout=subprocess.PIPE, check=True, text=True
            ).stdout.split()
            assert words == [str(300 * 1024**2), group.limit_file]
    else:
        assert own_directory()[0] or own_directory(controller="memory")[0] or memory_limit().source == "RAM"
