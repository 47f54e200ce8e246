"""OP17: which process may get the signal that makes it write its stacks, and what the kernel says of one that answers nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from passenger_trio.spawning.backtraces import catches, kernel_view

pytestmark = pytest.mark.os

NUMBER = signal.SIGRTMAX - 5
SETS = "import signal, sys; signal.signal({number}, {how}); print(flush=True); sys.stdin.read()"


@pytest.mark.parametrize(
    ("how", "caught"), [("lambda *_: None", True), ("signal.SIG_DFL", False), ("signal.SIG_IGN", False)]
)
def test_OP17_only_a_process_that_catches_the_signal_gets_it(how: str, caught: bool) -> None:
    """By default it would end the process."""
    program = (sys.executable, "-c", SETS.format(number=int(NUMBER), how=how))
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert catches(process.pid, NUMBER) is caught
        assert not catches(process.pid, NUMBER - 1)
        assert not catches(process.pid, NUMBER + 1)
        assert f"{process.pid} " in kernel_view(process.pid)
        process.communicate(b"")
    assert not catches(process.pid, NUMBER), "it has ended"
    assert kernel_view(process.pid) == "the process has ended"


def test_OP17_the_kernels_view_names_each_thread_and_its_state() -> None:
    view = kernel_view(os.getpid())
    assert f"(pid {os.getpid()})" in view
    assert "running" in view
