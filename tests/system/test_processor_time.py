"""FR6: how much of the processor a program has wanted, by the kernel's count."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from passenger_trio.system.processor_time import ProcessorTime, idle_time
from passenger_trio.system.syscalls import processors

PROGRAM = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
from passenger_trio.system.processor_time import ProcessorTime
count = ProcessorTime()
begun, used, until = count.used_and_wanted()[1], time.process_time(), time.monotonic() + 1
while time.monotonic() < until:
    pass
print(count.used_and_wanted()[1] - begun, int(1e6 * (time.process_time() - used)))
"""


def test_it_counts_what_the_program_ran() -> None:
    count = ProcessorTime()
    before, ran = count.used_and_wanted()[1], time.thread_time()
    while time.thread_time() < ran + 0.05:
        pass
    assert count.used_and_wanted()[1] - before >= 40_000
    used, wanted = count.used_and_wanted()
    assert used <= wanted
    count.close()
    assert count.used_and_wanted()[1] > 0, "closed, it says the process's time"


def test_it_counts_what_the_program_had_to_wait_for_others() -> None:
    """Three programs that want all of one processor: each gets a third, and has wanted three times as much."""
    core = str(min(os.sched_getaffinity(0)))
    programs = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, core], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for program in programs:
        wanted, used = map(int, program.communicate(timeout=60)[0].split())
        assert program.returncode == 0
        assert wanted >= used
        assert wanted >= 1.3 * used, "a second of the clock, of which it got less"


def test_where_the_kernel_does_not_count_it_is_the_time_that_the_process_ran(tmp_path: Path) -> None:
    for text in (None, "", "no numbers here"):
        path = tmp_path / f"schedstat-{text}"
        if text is not None:
            path.write_text(text)
        count = ProcessorTime(str(path))
        before = time.process_time_ns() // 1000
        assert before <= count.used_and_wanted()[1] <= time.process_time_ns() // 1000
        count.close()


STAT = """cpu  100 0 100 4000 400 0 0 0 0 0
cpu0 50 0 50 1000 100 0 0 0 0 0
cpu1 50 0 50 3000 300 0 0 0 0 0
cpu10 50 0 50 9000 900 0 0 0 0 0
intr 17 0
cpu11 1 1 1 1 1
"""


@pytest.mark.parametrize(
    ("numbers", "ticks"), [({0}, 1100), ({1}, 3300), ({0, 1}, 4400), ({10}, 9900), ({2}, None), ({0, 11}, None)]
)
def test_the_idle_time_of_some_processors(tmp_path: Path, numbers: set[int], ticks: int | None) -> None:
    """Neither all of them, nor those whose number begins with the same digits, nor what comes after the processors."""
    (tmp_path / "stat").write_text(STAT)
    assert idle_time(numbers, str(tmp_path / "stat")) == (ticks and ticks / os.sysconf("SC_CLK_TCK"))


@pytest.mark.parametrize("text", [None, "", "cpu0 1 2\n", "cpu0 a b c d e\n", "no numbers here\n"])
def test_where_the_kernel_does_not_say_it_the_idle_time_is_unknown(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "stat").write_text(text)
    assert idle_time({0}, str(tmp_path / "stat")) is None


def test_the_idle_time_of_this_machine_does_not_go_back() -> None:
    before = idle_time(processors())
    time.sleep(0.1)
    after = idle_time(processors())
    assert before is not None
    assert after is not None
    assert before <= after
