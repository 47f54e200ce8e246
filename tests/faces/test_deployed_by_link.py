"""A deployment that switches a symbolic link (Capistrano's ``current``): each restart follows it again (OP21, fault 23).

Starts the command: restarts by signal are the subject.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

APP = """
import os, helper
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{helper.VERSION} {os.path.realpath(os.getcwd()).rpartition('/')[2]}".encode()]
"""


def release(root: Path, number: str) -> None:
    directory = root / "releases" / number
    (directory / "tmp").mkdir(parents=True)
    (directory / "passenger_wsgi.py").write_text(APP)
    (directory / "helper.py").write_text(f"VERSION = {number!r}\n")
    (root / "next").symlink_to(f"releases/{number}")
    os.replace(root / "next", root / "current")


@pytest.mark.parametrize("given", ["", ".", "absolute", "config"])
@pytest.mark.parametrize("way", ["restart.txt", "SIGHUP", "SIGHUP, the old release removed"])
def test_OP21_a_restart_serves_the_new_release(tmp_path: Path, given: str, way: str) -> None:
    release(tmp_path, "1")
    current = tmp_path / "current"
    (tmp_path / "passenger-trio.toml").write_text('[[app]]\nroot = "current"\n')
    more = {"": (), ".": (".",), "absolute": (str(current),), "config": ("--config", "../../passenger-trio.toml")}
    with Supervisor.start(
        None, *more[given], "--stat-throttle-rate", "100ms", cwd=current, env={"PWD": str(current)}
    ) as server:
        assert server.get("/").body == b"1 1"
        release(tmp_path, "2")
        if way == "restart.txt":
            (tmp_path / "releases/2/tmp/restart.txt").touch()
        else:
            if way != "SIGHUP":
                shutil.rmtree(tmp_path / "releases/1")
            server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.get("/").body == b"2 2")
        assert [group["name"] for group in server.status()["groups"]] == ["current"]


@pytest.mark.parametrize("given", ["", "--config"])
def test_OP21_a_reload_reads_the_configuration_of_the_new_release(tmp_path: Path, given: str) -> None:
    """It lies in the release, and the server was started there."""
    release(tmp_path, "1")
    current = tmp_path / "current"
    (current / "passenger-trio.toml").write_text("[pool]\nmax_pool_size = 1\n")
    more = (given, "passenger-trio.toml") if given else ()
    with Supervisor.start(None, *more, cwd=current, env={"PWD": str(current)}) as server:
        assert server.status()["pool"]["max"] == 1
        release(tmp_path, "2")
        (current / "passenger-trio.toml").write_text("[pool]\nmax_pool_size = 2\n")
        server.send_signal(signal.SIGHUP)
        eventually(lambda: server.get("/").body == b"2 2")
        assert server.status()["pool"]["max"] == 2
