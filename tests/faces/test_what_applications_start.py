"""Programs that an application starts (KE14, fault 17): they keep their output, and end by the rule: TERM, a time, KILL; ``setsid`` jobs are left alone.

Starts the command: restarts by command, and the end, are the subject.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from faces_tools import run_command, write_app

from passenger_trio.testing import Supervisor, eventually
from passenger_trio.testing.harness import is_running

pytestmark = pytest.mark.os

APP = """
import os, subprocess, sys
JOB = '''
import os, signal, sys, time
name, stubborn = sys.argv[1:]
def end(*_):
    print(name, "got TERM", flush=True)
    if stubborn == "no":
        sys.exit()
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
open(os.path.join(os.environ["DIR"], name), "w").write(str(os.getpid()))
count = 0
while True:
    count += 1
    print(name, count, flush=True)
    time.sleep(0.05)
'''
def job(name, stubborn="no", **more):
    subprocess.Popen([sys.executable, "-c", JOB, name, stubborn], **more)
if os.environ.get("AT_IMPORT"):
    job("helper")
def application(environ, start_response):
    what = environ["PATH_INFO"][1:]
    if what == "job":
        job("job")
    elif what == "stubborn":
        job("stubborn", "yes")
    elif what == "session":
        job("session", start_new_session=True)
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""


def start(tmp_path: Path, *arguments: str, **env: str) -> Supervisor:
    return Supervisor.start(write_app(tmp_path / "app", APP), *arguments, env={"DIR": str(tmp_path), **env})


def pid_of(tmp_path: Path, name: str) -> int:
    eventually(lambda: (tmp_path / name).exists() and (tmp_path / name).read_text())
    return int((tmp_path / name).read_text())


def restart(server: Supervisor) -> None:
    done = run_command("restart", "--wait", "--instance", str(server.instance_dir))
    assert done.returncode == 0, done.stderr


def wait_more(server: Supervisor, name: str) -> None:
    """It writes on."""
    seen = sum(f'"event":"{name} ' in line for line in server.log)
    eventually(lambda: sum(f'"event":"{name} ' in line for line in server.log) > seen + 2)


@pytest.mark.parametrize("method", ["smart", "direct"])
def test_KE14_a_job_gets_TERM_when_its_worker_was_replaced_and_its_output_is_read_to_the_end(
    tmp_path: Path, method: str
) -> None:
    with start(tmp_path, "--spawn-method", method) as server:
        server.get("/job")
        job = pid_of(tmp_path, "job")
        restart(server)
        server.wait_log("job got TERM")
        eventually(lambda: not is_running(job))


def test_KE14_a_job_that_takes_no_TERM_is_killed_after_its_time(tmp_path: Path) -> None:
    with start(tmp_path, "--process-shutdown-timeout", "1s") as server:
        server.get("/stubborn")
        job = pid_of(tmp_path, "stubborn")
        restart(server)
        server.wait_log("stubborn got TERM")
        eventually(lambda: not is_running(job))


def test_KE14_a_session_of_its_own_is_left_alone_and_keeps_its_output_until_the_server_stops(tmp_path: Path) -> None:
    with start(tmp_path) as server:
        worker = int(server.get("/session").body)
        job = pid_of(tmp_path, "session")
        restart(server)
        eventually(lambda: not is_running(worker))
        wait_more(server, "session")
        assert is_running(job)
        assert "session got TERM" not in "\n".join(server.log)
    assert not is_running(job)


def test_KE14_a_helper_of_a_preloader_lives_while_its_processes_do_and_nothing_piles_up(tmp_path: Path) -> None:
    """20 cycles: each preloader's helper ends with the last process of that preloader."""
    with start(tmp_path, "--spawn-method", "smart", AT_IMPORT="1") as server:
        helpers = []
        descriptors = 0
        for cycle in range(20):
            helpers.append(pid_of(tmp_path, "helper"))
            assert is_running(helpers[-1])
            if cycle == 1:
                eventually(lambda: not is_running(helpers[0]))
                descriptors = len(os.listdir(f"/proc/{server.pid}/fd"))
            (tmp_path / "helper").unlink()
            restart(server)
        eventually(lambda: not any(map(is_running, helpers)))
        eventually(lambda: len(os.listdir(f"/proc/{server.pid}/fd")) <= descriptors + 2)
        last = pid_of(tmp_path, "helper")
        wait_more(server, "helper")
    assert not is_running(last)


def test_KE14_a_helper_outlives_an_idle_preloader_that_is_let_go(tmp_path: Path) -> None:
    with start(tmp_path, "--spawn-method", "smart", "--max-preloader-idle-time", "1s", AT_IMPORT="1") as server:
        helper = pid_of(tmp_path, "helper")
        worker = int(server.get("/").body)
        preloader = server.preloader_pid
        assert preloader is not None
        os.kill(preloader, signal.SIGKILL)  # whatever it ends by
        eventually(lambda: not is_running(preloader))
        wait_more(server, "helper")
        assert is_running(helper)
        assert int(server.get("/").body) == worker
