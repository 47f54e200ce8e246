"""Lines of numbers that two processes share."""

from __future__ import annotations

import os
import subprocess
import sys

from passenger_trio.system.shared_page import SharedPage

WRITER = "import sys; from passenger_trio.system.shared_page import SharedPage; SharedPage(int(sys.argv[1]), 2, 3).line(1)[2] = 2**63"


def test_what_another_process_writes_is_seen() -> None:
    before = set(os.listdir("/proc/self/fd"))
    page = SharedPage.create(2, 3)
    first, second = page.line(0), page.line(1)
    first[0] = 7
    assert list(second) == [0, 0, 0]
    subprocess.run([sys.executable, "-c", WRITER, str(page.fd)], pass_fds=[page.fd], check=True)
    assert list(first) == [7, 0, 0]
    assert list(second) == [0, 0, 2**63]
    first.release()
    second.release()
    page.close()
    assert set(os.listdir("/proc/self/fd")) == before
