"""A process runs the code that is on disk when it starts: the cache of bytecode cannot tell apart what was saved within one second."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import sys
sys.path[:0] = sys.argv[1:3]
from passenger_trio_loader import fresh_code
fresh_code.MOMENT = float(sys.argv[3])
if fresh_code.MOMENT:
    fresh_code.trust_no_new_bytecode()
import code_of_the_application
print(code_of_the_application.VERSION)
"""
LOADERS = Path(__file__).resolve().parents[2] / "spawn_servers" / "python"


def version(root: Path, moment: float) -> int:
    """What a new process finds. :param moment: seconds; 0: an interpreter as it is."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", PROGRAM, str(LOADERS), str(root), str(moment)]
    return int(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=60).stdout)


def save(root: Path, number: int, at: float) -> None:
    """At a time that the file system counts."""
    (root / "code_of_the_application.py").write_text(f"VERSION = {number}\n")
    os.utime(root / "code_of_the_application.py", (at, at))


def test_two_versions_of_one_second(tmp_path: Path) -> None:
    second = float(int(time.time()))
    save(tmp_path, 1, second)
    assert version(tmp_path, 0) == 1
    save(tmp_path, 2, second + 0.5)
    assert version(tmp_path, 0) == 1, "so it is without us"
    assert version(tmp_path, 1000) == 2
    save(tmp_path, 3, second + 0.75)
    assert version(tmp_path, 1000) == 3, "nor was the last one put into the cache"


@pytest.mark.parametrize("age", [-50.0, 50.0])
def test_what_was_saved_before_is_taken_from_the_cache(tmp_path: Path, age: float) -> None:
    """Or, by a clock that was wrong, after now."""
    at = float(int(time.time() - age))
    save(tmp_path, 1, at)
    assert version(tmp_path, 20) == 1
    save(tmp_path, 2, at)
    assert version(tmp_path, 20) == 1, "it was cached"
    assert version(tmp_path, 1000) == 2
