"""OP6: ``--max-pool-size auto`` with real processes of a known size, in a cgroup where one can be made, else by a share of the RAM.

Starts the command: `--max-pool-size auto` is the subject.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from faces_tools import Load, run_command
from memory_cgroups import MemoryCgroup, a_memory_cgroup, can_make_one

from passenger_trio.admin.client import order
from passenger_trio.system.memory_limit import memory_limit
from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

M = 1024**2
EACH = 60 * M
APP = f"""
import time
BALLAST = b"x" * {EACH}
def application(environ, start_response):
    time.sleep(0.05)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"here"]
"""


class Site:
    """An application with processes of a known size, and a server that serves it within a small memory."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        (root / "passenger_wsgi.py").write_text(APP)
        self.group: MemoryCgroup | None = None
        self.share = "auto"
        if can_make_one():
            self.group = stack.enter_context(a_memory_cgroup(480 * M))
        else:
            self.share = f"{max(1, round(100 * 360 * M / memory_limit().total))}%"
        self.write(self.share)
        prefix = self.group.command() if self.group is not None else ()
        self.server = stack.enter_context(
            Supervisor.start(root, "--spawn-method", "direct", "-e", "production", prefix=prefix)
        )

    def write(self, size: str | int) -> None:
        text = f'[pool]\nmax_pool_size = {size if isinstance(size, int) else f"{size!r}"}\nmemory_check_interval = "200ms"\n'
        (self.root / "passenger-trio.toml").write_text(
            text + '\n[[app]]\nroot = "."\nmin_instances = 1\nmemory_limit = "1G"\n'
        )

    def reload(self) -> list[str]:
        answer = order(f"{self.server.instance_dir}/admin.sock", "/v1/reload", {}, for_long=True)
        assert answer["error"] is None, answer
        return list(answer["changes"])

    @property
    def pool(self) -> dict[str, Any]:
        return dict(self.server.status()["pool"])

    def processes(self) -> list[dict[str, Any]]:
        return list(self.server.status()["groups"][0]["processes"])

    def has_come_down(self) -> bool:
        room = self.pool["memory"]
        return bool(room["free"] >= -(room["next_size"] // 4))

    def fills_up(self) -> int:
        """Under load: the number of processes when there are as many as there may be, by measures."""

        def is_full() -> bool:
            pool, processes = self.pool, self.processes()
            assert pool["size"] <= max(pool["max"], len(processes))
            measured = not pool["memory"]["is_guess"] and all((one["memory"] or {}).get("pss") for one in processes)
            return bool(measured and pool["size"] == pool["max"] == len(processes) > 1 and not pool["spawning"])

        with Load(self.server, "/", 12, rest=0.0) as load:  # some are always waiting
            eventually(is_full, 60)
            eventually(is_full, 60)
            size = int(self.pool["size"])
        assert {r.status if not isinstance(r, Exception) else r for r in load.results} == {200}
        return size


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path_factory.mktemp("by-memory"), stack)


def test_OP6_as_many_processes_as_fit_by_their_measured_size(site: Site) -> None:
    size = site.fills_up()
    room = site.pool["memory"]
    budget = int(room["share"] * room["total"])
    whole = sum(one["memory"]["pss"] for one in site.processes())
    assert room["own"] + whole <= budget + EACH // 2, "by the measures, all fit, and may have grown a little since"
    assert room["own"] + whole + EACH > budget - EACH, "and not many more would"
    assert EACH < room["next_size"] < EACH + 60 * M
    assert size == site.pool["max"]
    if site.group is not None:
        assert (room["total"], room["source"]) == (480 * M, site.group.limit_file)
        assert budget == 360 * M


def test_OP6_status_shows_the_calculation(site: Site) -> None:
    text = run_command("status", str(site.server.instance_dir)).stdout
    lines = [line for line in text.splitlines() if line.startswith(("Max pool size", "Memory", "Fits"))]
    assert len(lines) == 3, text
    assert f"({site.share})" in lines[0]
    assert "of the server" in lines[1]
    assert "of the processes" in lines[1]
    assert f"as {site.root.name} (production) has on average" in lines[2]


def test_OP6_OP3_a_number_and_a_share_take_turns_while_it_runs(site: Site) -> None:
    site.fills_up()
    before = {one["pid"] for one in site.processes()}
    site.write(2)
    assert site.reload() == [f"~ pool: max_pool_size: {site.share} -> 2"]
    eventually(lambda: len(site.processes()) == 2)
    assert site.pool["memory"] is None
    assert {one["pid"] for one in site.processes()} < before, "those that stay are the same"
    site.write(site.share)
    assert site.reload() == [f"~ pool: max_pool_size: 2 -> {site.share}"]
    assert site.pool["max"] > 2
    assert site.fills_up() > 2


def test_OP6_when_the_memory_becomes_less_idle_processes_go(site: Site) -> None:
    """The limit of the cgroup is lowered while it is used; without a cgroup, the share is."""
    site.fills_up()
    total = site.pool["memory"]["total"]
    try:
        if site.group is not None:
            site.group.limit(max(300 * M, min(site.group.usage + 30 * M, 440 * M)))
        else:
            site.write(f"{max(1, int(site.share.removesuffix('%')) // 2)}%")
            site.reload()
        eventually(lambda: site.has_come_down() or len(site.processes()) == 1, 60)
        assert site.server.get("/").status == 200
    finally:  # other tests share the server, and come in any order
        if site.group is not None:
            site.group.limit(480 * M)
        site.write(site.share)
        site.reload()
    eventually(lambda: site.pool["memory"]["total"] == total, 30)


def test_OP6_a_new_application_is_measured_as_soon_as_it_is_ready(tmp_path: Path) -> None:
    """And not in the next round: of many that are visited now and then, each process made room for another before."""
    (tmp_path / "passenger_wsgi.py").write_text(APP)
    (tmp_path / "passenger-trio.toml").write_text(
        '[pool]\nmax_pool_size = "auto"\nmemory_check_interval = "1h"\n\n[[app]]\nroot = "."\nmin_instances = 0\n'
    )
    with Supervisor.start(tmp_path) as server:
        assert server.status()["pool"]["memory"]["is_guess"]
        assert server.get("/").status == 200
        eventually(lambda: not server.status()["pool"]["memory"]["is_guess"], 30)
