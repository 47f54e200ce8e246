"""OP9: what an application's options mean in the files of its cgroup."""

from __future__ import annotations

from typing import Any

import pytest

from passenger_trio.core.app_cgroup import CGROUP_OPTIONS, UNLIMITED_FILES, files_of, parse_cpu_max
from passenger_trio.core.option_checks import check
from passenger_trio.errors import OptionError
from passenger_trio.options import AppOptions, Config


@pytest.mark.parametrize(
    ("options", "files"),
    [
        ({}, {}),
        ({"memory_high": 1024}, {"memory.high": "1024"}),
        ({"memory_max": 2**40}, {"memory.max": str(2**40)}),
        ({"cpu_weight": 50}, {"cpu.weight": "50"}),
        ({"cpu_max": "150%"}, {"cpu.max": "150000 100000"}),
        ({"pids_max": 7}, {"pids.max": "7"}),
        ({"pids_max": 7, "memory_high": 5}, {"memory.high": "5", "pids.max": "7"}),
    ],
)
def test_OP9_the_files_of_a_cgroup(options: dict[str, Any], files: dict[str, str]) -> None:
    assert files_of(AppOptions(**options)) == files


def test_OP9_each_file_has_an_option_of_its_name_and_the_kernels_default() -> None:
    assert {name.replace(".", "_") for name in UNLIMITED_FILES} == set(CGROUP_OPTIONS)


@pytest.mark.parametrize(
    ("said", "file"),
    [
        ("", ""),
        ("1%", "1000 100000"),
        ("50%", "50000 100000"),
        ("20000", "20000 100000"),
        ("20000 50000", "20000 50000"),
    ],
)
def test_OP9_cpu_max_is_a_share_or_what_the_kernel_takes(said: str, file: str) -> None:
    assert parse_cpu_max(said) == file


@pytest.mark.parametrize(
    "said", ["0%", "max", "999", "20000 999", "20000 1000001", "5 %", "-5%", "1.5", "1e9", "٣%", "x"]
)
def test_OP9_cpu_max_that_the_kernel_would_refuse(said: str) -> None:
    with pytest.raises(OptionError, match="--cpu-max"):
        check(Config(apps=(AppOptions(cpu_max=said),)))


@pytest.mark.parametrize(("weight", "well"), [(1, True), (10_000, True), (10_001, False), (-1, False)])
def test_OP9_the_weights_that_the_kernel_takes(weight: int, well: bool) -> None:
    config = Config(apps=(AppOptions(cpu_weight=weight),))
    if well:
        check(config)
    else:
        with pytest.raises(OptionError, match="--cpu-weight"):
            check(config)


@pytest.mark.parametrize("option", CGROUP_OPTIONS)
def test_OP9_they_do_not_reach_the_processes_of_a_preloader_from_elsewhere(option: str) -> None:
    value = "50%" if option == "cpu_max" else 50
    with pytest.raises(OptionError, match=f"--{option.replace('_', '-')}"):
        check(Config(apps=(AppOptions(preloader_socket="/s", **{option: value}),)))
