"""Restarts of a real server: by command, by file, by signal; to versions that start and to one that does not.

Starts the command: restarts by command, file and signal are the subject.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from faces_tools import run_command

from passenger_trio.testing import Supervisor, eventually

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "storms"))

from rolling_restarts import storm
from storm_tools import write_version

pytestmark = pytest.mark.os

QUICK = ("--stat-throttle-rate", "50ms")


def serving(server: Supervisor) -> str:
    return server.get().body.split()[0].decode()


@pytest.mark.parametrize("method", ["smart", "direct"])
def test_no_request_fails_during_restarts_some_of_them_to_a_broken_version(method: str) -> None:
    outcome = storm(4, 8, "--spawn-method", method)
    assert set(outcome.answers) == {"200"}
    assert outcome.serving == {outcome.expected}
    assert dict(outcome.results) == {"restarted": 3, "rejected": 1}


def test_restart_txt_that_appears_or_changes_restarts_and_new_code_alone_does_not(tmp_path: Path) -> None:
    write_version(tmp_path, "v1")
    (tmp_path / "tmp").mkdir()
    file = tmp_path / "tmp" / "restart.txt"
    with Supervisor.start(tmp_path, *QUICK) as server:
        write_version(tmp_path, "v2")
        assert serving(server) == "v1"
        file.touch()
        eventually(lambda: serving(server) == "v2")
        write_version(tmp_path, "v3")
        os.utime(file, (1, 1))  # an older time is a change too
        eventually(lambda: serving(server) == "v3")
        file.unlink()
        write_version(tmp_path, "v4")
        # the restart to v3 serves before it ends: a second process may still be replaced
        status = eventually(lambda: (group := server.group()) and not group["restarting"] and group)
        assert status["generation"] == 3


def test_always_restart_txt_gives_each_request_the_code_as_it_is(tmp_path: Path) -> None:
    write_version(tmp_path, "v1")
    (tmp_path / "tmp").mkdir()
    file = tmp_path / "tmp" / "always_restart.txt"
    with Supervisor.start(tmp_path, *QUICK) as server:
        assert serving(server) == "v1"
        file.touch()
        server.wait_log("always_restart.txt exists")
        write_version(tmp_path, "v2")
        eventually(
            lambda: serving(server) == "v2"
        )  # with several fronts one may have a slot for as long as a message takes
        write_version(tmp_path, "v3")
        assert serving(server) == "v3"
        file.unlink()
        server.wait_log("always_restart.txt is gone")
        write_version(tmp_path, "v4")
        assert serving(server) == "v3"


def test_a_hangup_signal_restarts(tmp_path: Path) -> None:
    write_version(tmp_path, "v1")
    with Supervisor.start(tmp_path) as server:
        write_version(tmp_path, "v2")
        server.send_signal(signal.SIGHUP)
        eventually(lambda: serving(server) == "v2")


def test_a_hangup_signal_while_it_starts_restarts_when_it_has_started(tmp_path: Path) -> None:
    """Somebody deploys, and reloads, while the version before is being loaded."""
    write_version(tmp_path, "v1")
    old = (tmp_path / "passenger_wsgi.py").read_text()
    wait = "import os, time\nprint('loading', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    (tmp_path / "passenger_wsgi.py").write_text(wait + old)
    with Supervisor.start(tmp_path, wait=False) as server:
        server.wait_log("loading")
        write_version(tmp_path, "v2")
        server.send_signal(signal.SIGHUP)
        server.wait_log("restarting, once everything has started")
        (tmp_path / "go").touch()
        server.wait_ready()
        eventually(lambda: serving(server) == "v2")


def test_the_command_waits_and_says_what_came_of_it(tmp_path: Path) -> None:
    root = tmp_path / "shop"
    root.mkdir()
    write_version(root, "v1")
    with Supervisor.start(root) as server:
        restart = ("restart", "--wait", "--instance", str(server.instance_dir))
        write_version(root, "v2")
        done = run_command(*restart, "shop")
        assert (done.returncode, done.stdout) == (0, "shop (development) is restarted\n"), done
        assert serving(server) == "v2"

        write_version(root, "v3", broken=True)
        refused = run_command(*restart)
        assert refused.returncode == 1
        assert "NOT restarted" in refused.stderr
        assert "this version is broken" in refused.stderr
        assert serving(server) == "v2"
        status = run_command("status", str(server.instance_dir)).stdout
        assert "failed, and the previous version keeps serving" in status
        server.wait_log("gave up the restart of")

        # A process that dies now is forked from the preloader of the version that serves: the one on the disk does not start.
        os.kill(server.pids[0], signal.SIGKILL)
        eventually(lambda: server.pids, what="a process of the old version")
        assert serving(server) == "v2"

        write_version(root, "v4")
        assert run_command(*restart, "--hard").returncode == 0
        assert serving(server) == "v4"
        unknown = run_command(*restart, "sho")
        assert unknown.returncode == 1
        assert "there is no application 'sho'; there are: shop (development)" in unknown.stderr


def test_the_developers_page_tells_of_a_version_that_was_rejected(tmp_path: Path) -> None:
    """Deployment-error resistance: in development our own pages, like ``status``, say that a newer version did not start, and why; in production they do not."""
    for environment in ("development", "production"):
        write_version(tmp_path, "v1")
        fails = (tmp_path / "passenger_wsgi.py").read_text().replace("body = ", "environ['FAILS']\n    body = ")
        (tmp_path / "passenger_wsgi.py").write_text(fails)
        with Supervisor.start(tmp_path, "-e", environment) as server:
            restart = ("restart", "--wait", "--instance", str(server.instance_dir))
            told = "A newer version was rejected"
            assert told not in server.get().text
            write_version(tmp_path, "v2", broken=True)
            assert run_command(*restart).returncode == 1
            page = server.get()
            assert page.status == 500
            assert (told in page.text) == ("this version is broken" in page.text) == (environment == "development")
            if environment == "development":
                [error] = [json.loads(server.get(Accept="application/json").body)["error"]]
                assert "this version is broken" in error["rejected"]["summary"]
                assert error["rejected"]["id"] in page.text
                assert "this version is broken" in run_command("status", str(server.instance_dir)).stdout
            (tmp_path / "passenger_wsgi.py").write_text(fails)
            assert run_command(*restart).returncode == 0
            assert told not in server.get().text


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [("smart", ("--min-instances", "0"), ()), ("direct", ("--min-instances", "0"), ()), ("smart", (), ("--hard",))],
)
def test_a_version_that_raises_while_it_is_loaded_is_never_told_to_be_restarted(
    method: str, options: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    """Fault 18: where nothing served that could be kept, ``restart --wait`` said so at once, and nothing had been tried."""
    write_version(tmp_path, "v1")
    good = (tmp_path / "passenger_wsgi.py").read_text()
    with Supervisor.start(tmp_path, "--spawn-method", method, *options) as server:
        restart = ("restart", "--wait", "--instance", str(server.instance_dir), *words)
        (tmp_path / "passenger_wsgi.py").write_text("import time\ntime.sleep(0.4)\nraise ValueError('bad')\n" + good)
        refused = run_command(*restart)
        assert refused.returncode == 1, refused
        assert "does NOT start, and there is no process of the version before" in refused.stderr
        assert "ValueError: bad" in refused.stderr
        assert "failed, and nothing serves" in run_command("status", str(server.instance_dir)).stdout
        write_version(tmp_path, "v2")
        done = run_command(*restart)
        assert (done.returncode, done.stderr) == (0, "")
        assert server.pids, "one of the new version was ready"
        assert serving(server) == "v2"


def test_a_new_process_must_answer_the_warm_up_url(tmp_path: Path) -> None:
    write_version(tmp_path, "v1")
    with Supervisor.start(tmp_path, "--warmup-url", "/warm?up=1") as server:
        assert serving(server) == "v1"
        source = (tmp_path / "passenger_wsgi.py").read_text()
        (tmp_path / "passenger_wsgi.py").write_text(
            source.replace("body = ", "1 / (environ['QUERY_STRING'] != 'up=1')\n    body = ")
        )
        answer = run_command("restart", "--wait", "--instance", str(server.instance_dir))
        assert answer.returncode == 1
        assert "did not pass the warm-up request for /warm?up=1" in answer.stderr
        server.wait_log("ZeroDivisionError")
        assert serving(server) == "v1"
