"""OP9: an application in a cgroup of its own, with the real cgroupfs. ``tests/system/test_app_cgroups.py`` has the controllers.

Starts the command: the cgroups that it makes at its start are the subject.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import needs

from passenger_trio.admin.client import order
from passenger_trio.testing import Supervisor, eventually
from passenger_trio.testing.harness import is_running

pytestmark = pytest.mark.os

APP = """
import os, subprocess
AT_LOAD = open("/proc/self/cgroup").read()
def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"].endswith("/daemon"):
        job = ["setsid", "-f", "sh", "-c", "echo $$ >daemon; trap '' HUP INT TERM; while :; do sleep 10; done"]
        subprocess.run(job, cwd=os.path.dirname(os.path.abspath(__file__)))
    return [f"{os.getpid()}\\n{AT_LOAD}".encode()]
"""


def inside(pid: int | str) -> str:
    """Its cgroup of version 2."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next((line[3:] for line in lines if line.startswith("0::/")), "")


class Site:
    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("shop", "blog", "wiki", "free"):
            (root / name).mkdir()
            (root / name / "passenger_wsgi.py").write_text(APP)
        self.write()
        self.server = Supervisor.start(root)
        own = inside(self.server.pid).removesuffix("/server")
        if "/passenger-trio." not in own:
            self.server.stop()
        needs("/passenger-trio." in own, "root, and a cgroup (version 2) in which others can be made")
        mounted = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        self.own = Path(next(fields[4] for fields in mounted if " - cgroup2 " in " ".join(fields)) + own)

    def write(self, *, without: str = "", **lines: str) -> None:
        lines = {"shop": "memory_max = '1G'\npids_max = 500\n", "blog": "", "wiki": "", "free": "", **lines}
        methods = {"shop": "smart", "blog": "direct", "wiki": "direct", "free": "direct"}
        tables = [
            f'[[app]]\nroot = "{name}"\nbase_uri = "/{name}"\nspawn_method = "{methods[name]}"\n{more}'
            for name, more in lines.items()
            if name != without
        ]
        (self.root / "passenger-trio.toml").write_text("\n\n".join(tables))

    def reload(self) -> list[str]:
        answer = order(f"{self.server.instance_dir}/admin.sock", "/v1/reload", {}, for_long=True)
        assert answer["error"] is None, answer
        return list(answer["changes"])

    def ask(self, path: str) -> tuple[int, str]:
        """The pid of the process, and the cgroup in which it loaded the application."""
        pid, *rest = self.server.get(path).body.decode().split("\n")
        return int(pid), next(line[3:] for line in rest if line.startswith("0::"))

    def warnings(self) -> list[str]:
        return [line for line in self.server.log if "cgroup" in line and "have no effect" in line]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    it = Site(tmp_path_factory.mktemp("cgroups"))
    with it.server as server:
        yield it
        assert server.stop() == 0
    assert not it.own.exists(), "nothing is left of the cgroups"


def test_OP9_programs_are_in_the_cgroup_before_they_load_the_application_and_so_are_their_forks(site: Site) -> None:
    pid, at_load = site.ask("/shop/")
    assert inside(pid) == at_load
    assert at_load.endswith("/app.1"), "the preloader has loaded it in there"
    assert (site.own / "app.1").is_dir()
    free, _ = site.ask("/free/")
    assert "/app." not in inside(free), "it has no limits"


def test_OP9_the_limits_hold_or_the_log_says_once_that_they_do_not(site: Site) -> None:
    controllers = (site.own / "cgroup.subtree_control").read_text().split()
    if {"memory", "pids"} <= set(controllers):
        assert (site.own / "app.1/memory.max").read_text() == f"{2**30}\n"
        assert (site.own / "app.1/pids.max").read_text() == "500\n"
        assert site.warnings() == []
    else:
        (line,) = site.warnings()
        assert "not delegated" in line


def test_OP9_OP3_who_gets_limits_while_it_runs_comes_into_a_cgroup_without_a_restart(site: Site) -> None:
    before, _ = site.ask("/blog/")
    site.write(blog="pids_max = 400\n")
    assert "~ blog (development): pids_max: 0 -> 400" in site.reload()
    after, _ = site.ask("/blog/")
    assert after == before
    assert "/app." in inside(after)
    assert len(site.warnings()) <= 1, "it was said before"


def test_OP9_what_has_escaped_from_an_application_that_is_removed_is_killed(site: Site) -> None:
    site.write(wiki="cpu_weight = 50\n")
    site.reload()
    site.ask("/wiki/daemon")
    told = site.root / "wiki/daemon"
    daemon = eventually(lambda: told.exists() and int(told.read_text() or 0), 30)
    mine = site.own / inside(daemon).rsplit("/", 1)[1]
    assert mine.name.startswith("app.")
    assert os.getsid(daemon) == daemon
    site.write(without="wiki")
    site.reload()
    eventually(lambda: not is_running(daemon), 60)
    eventually(lambda: not mine.exists(), 60)
    assert site.server.get("/shop/").status == 200
