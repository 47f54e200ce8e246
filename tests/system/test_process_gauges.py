"""Gauges: what /proc says of a process, or None, and never an error."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

import pytest
from needs import needs

from passenger_trio.system.process_gauges import measure
from passenger_trio.system.syscalls import P_PID, WEXITED, WNOWAIT, waitid

MIB = 1024 * 1024


def test_of_this_process() -> None:
    before = measure(os.getpid())
    assert before is not None
    assert before.pid == os.getpid()
    ballast = mmap.mmap(
        -1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )  # new pages, whatever the heap has to spare
    ballast[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * (len(ballast) // os.sysconf("SC_PAGE_SIZE"))
    after = measure(os.getpid())
    assert after is not None
    assert after.rss - before.rss > 60 * MIB
    if after.pss is not None and before.pss is not None and after.uss is not None and before.uss is not None:
        assert after.uss <= after.pss <= after.rss + MIB
        assert after.uss - before.uss > 60 * MIB
    assert len(ballast) == 64 * MIB


def test_what_is_shared_counts_in_parts() -> None:
    """Section F: of pages that two processes have, each has half in its proportional size (PSS), nothing in its own (USS), and all in its resident size."""
    # Shared between parent and child from the start, so nothing of it is ever copied.
    shared = mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    shared[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * (len(shared) // os.sysconf("SC_PAGE_SIZE"))
    alone = measure(os.getpid())
    ready, tell = os.pipe()
    until, end = os.pipe()
    child = os.fork()
    if not child:
        os.close(end)
        assert sum(shared[:: os.sysconf("SC_PAGE_SIZE")])  # its own page table has them, too
        os.write(tell, b"x")
        os.read(until, 1)
        os._exit(0)
    try:
        os.read(ready, 1)
        both = measure(os.getpid())
    finally:
        for fd in (ready, tell, until, end):
            os.close(fd)
        os.waitpid(child, 0)
    assert alone is not None
    assert both is not None
    needs(both.pss is not None, "a kernel that tells the proportional size")
    assert alone.pss is not None
    assert both.pss is not None
    assert both.uss is not None
    assert abs(both.rss - alone.rss) < 8 * MIB
    assert alone.pss - both.pss > 28 * MIB
    assert both.rss - both.uss > 60 * MIB


def test_processor_time_grows_with_work() -> None:
    before = measure(os.getpid())
    assert before is not None
    assert before.cpu_time > 0
    target = before.cpu_time + 0.05
    for _ in range(10_000):
        sum(range(10_000))
        now = measure(os.getpid())
        assert now is not None
        assert now.cpu_time >= before.cpu_time
        if now.cpu_time >= target:
            break
    assert now.cpu_time >= target


@pytest.mark.os
def test_of_a_process_that_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        waitid(P_PID, child.pid, WEXITED | WNOWAIT)
        zombie = measure(child.pid)
        assert zombie is not None
        assert zombie.rss == 0
    assert measure(child.pid) is None


@pytest.mark.os
def test_the_name_of_the_process_confuses_nobody() -> None:
    script = r"printf 'x) 9 9 9' >/proc/$$/comm; echo; read x"
    with subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = measure(child.pid)
        assert found is not None
        assert 0 <= found.cpu_time < 60
