"""KE9, fault 21, for real Ruby: an application whose processes crash is revived by mending its file, although a preloader holds what it had loaded.

Starts the command: a start that fails is the subject.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from faces_tools import write_app
from needs import needs

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

RUBY = shutil.which("ruby") or ""

ANSWER = 'run ->(env) { [200, { "content-type" => "text/plain" }, ["well"]] }\n'
CRASHES = {
    "in a request": "run ->(env) { Process.exit!(3) }\n",
    "by a signal in a request": "run ->(env) { Process.kill(:SEGV, Process.pid); sleep 60 }\n",
    "when a process starts": "PassengerTrio.on_event(:starting_worker_process) { |_| Process.exit!(3) }\n" + ANSWER,
    "while it is loaded": "Process.exit!(3)\n" + ANSWER,
}


@pytest.mark.parametrize("how", CRASHES)
def test_it_is_revived_by_mending_its_file(tmp_path: Path, how: str) -> None:
    """KE9, fault 21."""
    needs(bool(RUBY), "Ruby")
    root = write_app(tmp_path / "app", CRASHES[how], "config.ru")
    arguments = ("--ruby", RUBY, "--spawn-method", "smart", "--stat-throttle-rate", "100ms", "--retry", "off")
    with Supervisor.start(root, *arguments) as server:
        preloader = server.preloader_pid
        assert preloader is not None or "request" not in how
        assert server.get("/").status == (502 if "request" in how else 500)
        write_app(root, ANSWER, "config.ru")
        assert eventually(lambda: (r := server.get("/")).status == 200 and r, 40.0).body == b"well"
        assert server.preloader_pid not in (None, preloader), "it is forked from what was loaded anew"
