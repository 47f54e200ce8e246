"""Limits of all processes of one application together: what its options mean in the files of a cgroup (version 2; OP9).

Pure: ``system.app_cgroups`` writes the files. The options have the names of the kernel's files
(Documentation/admin-guide/cgroup-v2.rst). 0 or an empty text sets no limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from passenger_trio.errors import OptionError
from passenger_trio.options import AppOptions

__all__ = ["CGROUP_OPTIONS", "UNLIMITED_FILES", "files_of", "parse_cpu_max"]

CGROUP_OPTIONS = ("memory_high", "memory_max", "cpu_weight", "cpu_max", "pids_max")
UNLIMITED_FILES: Mapping[str, str] = {
    "memory.high": "max",
    "memory.max": "max",
    "cpu.weight": "100",
    "cpu.max": "max",
    "pids.max": "max",
}
"""File -> what the kernel has in it at first: a limit that is taken back becomes this."""

_PERIOD = 100_000
_CPU_MAX = re.compile(r"([0-9]+)(?: ([0-9]+))?", re.ASCII)
_PERCENT = re.compile(r"([0-9]+)%", re.ASCII)


def files_of(app: AppOptions) -> dict[str, str]:
    """File -> its content, for the limits that are set.

    :raises OptionError: ``cpu_max`` has none of the forms of ``parse_cpu_max``.
    """
    wanted = {
        "memory.high": str(app.memory_high) if app.memory_high else "",
        "memory.max": str(app.memory_max) if app.memory_max else "",
        "cpu.weight": str(app.cpu_weight) if app.cpu_weight else "",
        "cpu.max": parse_cpu_max(app.cpu_max),
        "pids.max": str(app.pids_max) if app.pids_max else "",
    }
    return {name: text for name, text in wanted.items() if text}


def parse_cpu_max(text: str, option: str = "--cpu-max") -> str:
    """The content of ``cpu.max`` from ``150%`` (of one core), or from ``QUOTA`` or ``QUOTA PERIOD`` in microseconds as
    the kernel has it. An empty text sets no limit, and stays empty.

    :raises OptionError: the text has none of these forms, or the kernel would reject the value.
    """
    if text == "":
        return ""
    percent, kernel = _PERCENT.fullmatch(text), _CPU_MAX.fullmatch(text)
    quota = int(percent[1]) * _PERIOD // 100 if percent else int(kernel[1]) if kernel else 0
    period = int(kernel[2] or _PERIOD) if kernel else _PERIOD
    if not 1000 <= quota < 2**43 or not 1000 <= period <= 1_000_000:
        raise OptionError(
            option, text, "a share of one core, 150%, or QUOTA PERIOD in microseconds, 50000 100000, both 1000 or more"
        )
    return f"{quota} {period}"
