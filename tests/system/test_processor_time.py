"""FR6: how much of the processor a program has wanted, by the kernel's count."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from passenger_trio.system.processor_time import ProcessorTime

PROGRAM = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
from passenger_trio.system.processor_time import ProcessorTime
count = ProcessorTime()
begun, used, until = count.wanted(), time.process_time(), time.monotonic() + 1
while time.monotonic() < until:
    pass
print(count.wanted() - begun, int(1e6 * (time.process_time() - used)))
"""


def test_it_counts_what_the_program_ran() -> None:
    count = ProcessorTime()
    before, ran = count.wanted(), time.thread_time()
    while time.thread_time() < ran + 0.05:
        pass
    assert count.wanted() - before >= 40_000
    count.close()
    assert count.wanted() > 0, "closed, it says the process's time"


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
        assert before <= count.wanted() <= time.process_time_ns() // 1000
        count.close()
