"""A real cgroup with a limit of memory, below that of the test run, where the machine lets us make one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from passenger_trio.system.cgroup_dirs import own_directory

_VERSIONS = (("", "memory.max"), ("memory", "memory.limit_in_bytes"))
"""Controller as ``own_directory`` takes it, and the file with the limit."""


@attrs.frozen
class MemoryCgroup:
    path: str
    limit_file: str

    def limit(self, size: int) -> None:
        Path(self.limit_file).write_text(str(size))

    @property
    def usage(self) -> int:
        """Bytes in use. Where that cannot be written back the kernel takes no lower limit (version 1)."""
        name = "memory.current" if self.limit_file.endswith("memory.max") else "memory.usage_in_bytes"
        return int(Path(self.path, name).read_text())

    def command(self, *words: str) -> tuple[str, ...]:
        """The command that runs ``words`` in there."""
        return ("/bin/sh", "-c", f'echo $$ >{self.path}/cgroup.procs && exec "$@"', "sh", *words)


def _make() -> MemoryCgroup | None:
    for controller, name in _VERSIONS:
        above = own_directory(controller=controller)[0]
        path = f"{above}/passenger-trio-test.{os.getpid()}"
        try:
            if above:
                os.mkdir(path)
        except OSError:
            continue
        if above and os.access(f"{path}/{name}", os.W_OK):
            return MemoryCgroup(path, f"{path}/{name}")
        if above:
            os.rmdir(path)
    return None


def can_make_one() -> bool:
    made = _make()
    if made is not None:
        os.rmdir(made.path)
    return made is not None


@contextmanager
def a_memory_cgroup(size: int) -> Iterator[MemoryCgroup]:
    made = _make()
    assert made is not None, "ask can_make_one first"
    try:
        made.limit(size)
        yield made
    finally:
        for _ in range(200):
            try:
                os.rmdir(made.path)
                break
            except OSError:
                time.sleep(0.05)  # a process of it is just ending
