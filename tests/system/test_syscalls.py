"""The system calls by ``ctypes``, for interpreters without them: what they give is what the standard library gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from passenger_trio.system.pidfd import is_readable
from passenger_trio.system.syscalls import (
    P_PID,
    P_PIDFD,
    SO_PEERCRED,
    WEXITED,
    call_pidfd_open,
    call_pidfd_send_signal,
    call_waitid,
    processors,
)


@pytest.mark.os
def test_a_child_is_pinned_signalled_and_reaped() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    fd = call_pidfd_open(child.pid)
    try:
        assert not os.get_inheritable(fd)
        assert call_waitid(P_PIDFD, fd, WEXITED | os.WNOHANG) is None
        assert not is_readable(fd)
        call_pidfd_send_signal(fd, signal.SIGKILL)
        ended = call_waitid(P_PIDFD, fd, WEXITED)
        assert ended == (child.pid, signal.SIGKILL, 2)  # CLD_KILLED
        with pytest.raises(ProcessLookupError):
            call_pidfd_send_signal(fd, 0)
        with pytest.raises(ChildProcessError):
            call_waitid(P_PIDFD, fd, WEXITED)
    finally:
        os.close(fd)
        child.wait()


@pytest.mark.os
def test_an_exit_code() -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    assert call_waitid(P_PID, child.pid, WEXITED) == (child.pid, 3, 1)  # CLD_EXITED
    child.wait()


def test_who_is_not_there() -> None:
    with pytest.raises(ProcessLookupError):
        call_pidfd_open(2**22 + 1)  # beyond every pid


def test_constants_and_processors() -> None:
    assert SO_PEERCRED == 17
    assert 1 <= len(processors()) <= (os.cpu_count() or 1)
