"""FR2, FR6: how many processors the server may use. Most is tried with a directory that has the files of /proc and cgroupfs; the real ones last."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from passenger_trio.system.cgroup_dirs import own_directory
from passenger_trio.system.processor_quota import ProcessorQuota, cpus, processor_quota, usable
from passenger_trio.system.syscalls import processors

TWO = "30 1 0:1 / {dir}/two rw - cgroup2 cgroup2 rw\n"
ONE = "31 1 0:2 / {dir}/one rw - cgroup cgroup rw,cpu,cpuacct\n"
APART = "31 1 0:2 / {dir}/one rw - cgroup cgroup rw,cpu\n32 1 0:3 / {dir}/acct rw - cgroup cgroup rw,cpuacct\n"
HALF = {"one/a/cpu.cfs_quota_us": "50000\n", "one/a/cpu.cfs_period_us": "100000\n"}
NONE = ProcessorQuota()


def a_machine(root: Path, cgroups: str, mounts: str, files: dict[str, str]) -> ProcessorQuota:
    """What is found there; the file is relative to it."""
    (root / "self").mkdir()
    (root / "self/cgroup").write_text(cgroups)
    (root / "self/mountinfo").write_text(mounts.format(dir=root))
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        ((root / name).parent / "cgroup.procs").write_text("")
    found = processor_quota(str(root))
    return ProcessorQuota(found.cores, found.usage.removeprefix(f"{root}/"))


@pytest.mark.parametrize(
    ("cgroups", "mounts", "files", "expected"),
    [
        ("", "", {}, NONE),
        ("0::/a\n", TWO, {"two/a/cpu.max": "200000 100000\n"}, ProcessorQuota(2.0, "two/a/cpu.stat")),
        ("0::/a\n", TWO, {"two/a/cpu.max": "max 100000\n"}, NONE),
        ("0::/a/b\n", TWO, {"two/a/b/cpu.max": "max 100000", "two/a/cpu.max": "150000 100000"}, ProcessorQuota(1.5, "two/a/cpu.stat")),
        ("0::/a/b\n", TWO, {"two/a/b/cpu.max": "10000 100000", "two/a/cpu.max": "15 10"}, ProcessorQuota(0.1, "two/a/b/cpu.stat")),
        ("0::/a\n", TWO, {"two/a/cpu.max": "much\n"}, NONE),
        ("0::/a\n", TWO, {"two/a/cpu.max": "0 0\n"}, NONE),
        ("4:cpu,cpuacct:/a\n", ONE, HALF, ProcessorQuota(0.5, "one/a/cpuacct.usage")),
        ("4:cpu,cpuacct:/a\n", ONE, {**HALF, "one/a/cpu.cfs_quota_us": "-1\n"}, NONE),
        ("4:cpu:/a\n5:cpuacct:/a\n", APART, {**HALF, "acct/a/cpuacct.usage": "1"}, ProcessorQuota(0.5, "acct/a/cpuacct.usage")),
        ("4:cpu:/a\n5:cpuacct:/other\n", APART, {**HALF, "acct/other/cpuacct.usage": "1"}, ProcessorQuota(0.5, "")),
    ],
    ids=["no cgroup", "v2", "v2 without", "above", "the smaller one", "no number", "zero", "v1", "v1 without", "v1 apart", "v1 elsewhere"],
)  # fmt: skip
def test_FR2_the_smallest_quota_holds(
    tmp_path: Path, cgroups: str, mounts: str, files: dict[str, str], expected: ProcessorQuota
) -> None:
    assert a_machine(tmp_path, cgroups, mounts, files) == expected


def test_FR6_what_was_used_of_it(tmp_path: Path) -> None:
    two, one = tmp_path / "cpu.stat", tmp_path / "cpuacct.usage"
    two.write_text("usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n")
    one.write_text("2500000000\n")
    assert ProcessorQuota(1, str(two)).used() == 1.5
    assert ProcessorQuota(1, str(one)).used() == 2.5
    two.write_text("user_usec 1\n")
    one.write_text("\n")
    for path in (str(two), str(one), str(tmp_path / "none"), ""):
        assert ProcessorQuota(1, path).used() is None


@pytest.mark.parametrize(
    ("quota", "expected"), [(math.inf, 4), (4.0, 4), (9.5, 4), (2.0, 2), (1.2, 2), (0.1, 1)], ids=str
)
def test_FR2_a_part_of_a_processor_counts_as_one(quota: float, expected: int) -> None:
    assert usable(4, quota) == expected


@contextmanager
def half_a_processor() -> Iterator[list[str]]:
    """Cgroups with a quota of half a processor, below those of the test run; none where the machine lets us make none."""
    made: list[str] = []
    try:
        for controller in ("", "cpu", "cpuacct"):
            above = own_directory(controller=controller)[0]
            path = f"{above}/passenger-trio-test.{os.getpid()}"
            if not above or path in made:
                continue
            try:
                os.mkdir(path)
                made.append(path)
            except OSError:
                continue
            if not controller and not os.path.exists(f"{path}/cpu.max"):
                os.rmdir(made.pop())
                continue
            for name, text in (("cpu.max", "50000 100000"), ("cpu.cfs_quota_us", "50000")):
                if os.path.exists(f"{path}/{name}"):
                    Path(path, name).write_text(text)
            if not controller:
                break  # version 2 has all of it
        has_quota = any(os.path.exists(f"{path}/{name}") for path in made for name in ("cpu.max", "cpu.cfs_quota_us"))
        yield made if has_quota else []
    finally:
        for path in made:
            os.rmdir(path)


PROGRAM = """
import time
from passenger_trio.system.processor_quota import cpus, processor_quota
quota = processor_quota()
before = quota.used()
while time.process_time() < 0.2:
    pass
print(quota.cores, cpus(), quota.used() - before)
"""


@pytest.mark.os
def test_FR2_here() -> None:
    """The real files; in cgroups of our own, where they can be made, their quota."""
    assert 1 <= cpus() <= len(processors())
    with half_a_processor() as cgroups:
        if not cgroups:
            return
        enter = "".join(f"echo $$ >{path}/cgroup.procs && " for path in cgroups)
        done = subprocess.run(
            ["/bin/sh", "-c", f'{enter} exec "$@"', "sh", sys.executable, "-c", PROGRAM],
            capture_output=True,
            text=True,
            check=True,
        )
    cores, count, used = done.stdout.split()
    assert (float(cores), int(count)) == (0.5, 1)
    assert 0.02 < float(used) < 5
