"""OP14: out-of-band work of real Python and Ruby applications: outside of requests, one process at a time, and unseen by clients.

Starts the command: two processes that outlast single tests are the subject.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from faces_tools import APPS

from passenger_trio.testing import Supervisor, eventually

pytestmark = [pytest.mark.os, pytest.mark.slow]

ROOTS = {"wsgi": APPS / "oob_work", "asgi": APPS / "oob_work_asgi", "rack": APPS.parent / "ruby" / "oob_work"}


@pytest.fixture(scope="module", params=ROOTS)
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Supervisor, Path]]:
    work = tmp_path_factory.mktemp("work")
    options = ("--min-instances", "2", "--max-pool-size", "2", "--env", f"WORK={work}")
    with Supervisor.start(ROOTS[request.param], *options) as server:
        eventually(lambda: len(server.pids) == 2)
        yield server, work


@pytest.fixture
def server(started: tuple[Supervisor, Path]) -> Supervisor:
    return started[0]


@pytest.fixture
def work(started: tuple[Supervisor, Path]) -> Iterator[Path]:
    for left in started[1].iterdir():
        left.unlink()
    yield started[1]
    (started[1] / "go").touch()
    eventually(lambda: set(states(started[0]).values()) == {"running"})


def begun(work: Path) -> list[int]:
    return [int(path.name.removeprefix("begun-")) for path in work.glob("begun-*")]


def log(work: Path) -> str:
    path = work / "log"
    return path.read_text() if path.exists() else ""


def states(server: Supervisor) -> dict[int, str]:
    (group,) = server.status()["groups"]
    return {process["pid"]: process["state"] for process in group["processes"]}


@pytest.mark.parametrize("path", ["/ask", "/ask-as-passenger-5"])
def test_a_process_works_out_of_routing(server: Supervisor, work: Path, path: str) -> None:
    """OP14: its clients do not see the header, and its requests go to the other one until it is back."""
    answer = server.get(path)
    names = [name.decode().lower() for name, _ in answer.headers]
    assert "x-other" in names
    assert not any("oob" in name or name.startswith("!~") for name in names)
    asked = int(answer.body)
    eventually(lambda: begun(work) == [asked])
    assert states(server)[asked] == "out-of-band work"
    (other,) = set(server.pids) - {asked}
    assert {int(server.get("/").body) for _ in range(6)} == {other}
    (work / "go").touch()
    eventually(lambda: set(states(server).values()) == {"running"})
    assert log(work) == f"{asked}\n"
    assert set(server.pids) == {asked, other}


def test_one_works_at_a_time_and_the_group_serves(server: Supervisor, work: Path) -> None:
    """OP14: the second one has its turn when the first is back."""
    first = int(server.get("/ask").body)
    eventually(lambda: begun(work) == [first])
    second = int(server.get("/ask").body)
    assert second != first
    for _ in range(3):
        assert int(server.get("/").body) == second
    assert begun(work) == [first]
    (work / "go").touch()
    eventually(lambda: log(work) == f"{first}\n{second}\n")


def test_work_that_raises_ends_nothing(server: Supervisor, work: Path) -> None:
    (work / "go").touch()
    (work / "fails").touch()
    pids = set(server.pids)
    asked = int(server.get("/ask").body)
    eventually(lambda: log(work))
    server.wait_log("the work fails")
    eventually(lambda: set(states(server).values()) == {"running"})
    assert set(server.pids) == pids
    assert asked in pids


def test_a_process_that_dies_at_its_work_is_replaced(server: Supervisor, work: Path) -> None:
    asked = int(server.get("/ask").body)
    eventually(lambda: begun(work) == [asked])
    os.kill(asked, 9)
    eventually(lambda: len(server.pids) == 2 and asked not in server.pids)
    assert server.get("/").status == 200


def test_the_only_process_works_when_it_is_idle(tmp_path: Path) -> None:
    """OP14: with one process nobody else could serve; it does its work between two requests, which wait so long."""
    (tmp_path / "go").touch()
    with Supervisor.start(ROOTS["wsgi"], "--max-pool-size", "1", "--env", f"WORK={tmp_path}") as server:
        pid = server.get("/ask").body.decode()
        eventually(lambda: log(tmp_path) == f"{pid}\n")
        assert server.get("/").body.decode() == pid
