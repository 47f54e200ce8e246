"""TH8: the directory of a run whose process and servers were all killed goes with the next run; that of one that lives stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from passenger_trio.testing.run_directory import run_directory

pytestmark = pytest.mark.os

PROGRAM = """
import sys
from passenger_trio.testing.run_directory import HOME, run_directory, temporary_directory
(temporary_directory(HOME) / "log").write_text("a line")
print(run_directory(), flush=True)
sys.stdin.read()
"""


def begin(temporary: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_TH8_the_next_run_removes_what_the_dead_have_left(instance_dir: Path) -> None:
    killed, left = begin(instance_dir)
    living, stays = begin(instance_dir)
    somebodys = instance_dir / "pt-run-of-somebody"
    somebodys.mkdir()
    killed.kill()
    killed.communicate()
    assert (list(left.glob("home-*/log")), list(stays.glob("home-*/log"))) != ([], [])
    assert left.exists()
    after, own = begin(instance_dir)
    assert sorted(instance_dir.iterdir()) == sorted([stays, own, somebodys])
    for process in (after, living):
        process.communicate()
    assert list(instance_dir.iterdir()) == [somebodys], "who exits removes its own"
    somebodys.rmdir()


def test_TH8_others_may_pass_through_it_and_not_list_it() -> None:
    assert run_directory().stat().st_mode & 0o777 == 0o711
    assert run_directory() == run_directory()
