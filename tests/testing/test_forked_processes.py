"""TH2, TH3: an object of the test is served by copies of the test's process: the next ones are as that was when the test began, too."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from passenger_trio.testing import eventually
from passenger_trio.testing.harness import is_running
from passenger_trio.testing.live_app import LiveApp
from passenger_trio.testing.live_log import LiveLog

pytestmark = pytest.mark.os

word = ["before"]


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    if environ["PATH_INFO"] == "/exit":
        os._exit(7)
    while environ["QUERY_STRING"] and not os.path.exists(environ["QUERY_STRING"]):
        time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{word[0]} {os.getpid()}".encode()]


@pytest.fixture
def live_app(passenger_factory: Callable[..., LiveApp]) -> Iterator[LiveApp]:
    live_app: LiveApp = passenger_factory(application, max_pool_size=4)
    word[0] = "after"
    yield live_app
    word[0] = "before"


@pytest.mark.passenger_allow_log("before it answered|soon after they have started")
def test_TH2_a_process_that_dies_is_replaced_by_another_copy_and_how_it_ended_is_known(live_app: LiveApp) -> None:
    log, seen = LiveLog(live_app), live_app.pids
    os.kill(seen[0], signal.SIGKILL)
    log.wait(rf"process {seen[0]} .* killed by signal 9 \(SIGKILL\)")
    for _ in range(2):
        text, pid = live_app.get("/").text.split()
        assert text == "before"
        assert int(pid) not in seen
        seen.append(int(pid))
        assert live_app.server.post("/exit", b"").status == 502
        log.wait(rf"process {pid} .* exit status 7")


def test_TH2_several_at_the_same_time_and_a_restart(live_app: LiveApp, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(live_app.get, f"/?{gate}") for _ in range(4)]
        first = eventually(lambda: pids if len(pids := live_app.pids) == 4 else [], 60)
        gate.touch()
        assert {one.result().text for one in waiting} == {f"before {pid}" for pid in first}
    live_app.restart()
    [pid] = live_app.pids
    other = live_app.start_process()
    assert sorted(live_app.pids) == sorted({pid, other}), "one more, although one is free"
    live_app.server.end_processes([other])
    assert pid not in first
    assert live_app.get("/").text == f"before {pid}"


@pytest.mark.passenger_allow_log("soon after they have started")
def test_TH8_no_copy_is_left_when_the_test_has_ended(passenger_factory: Callable[..., LiveApp]) -> None:
    live_app = passenger_factory(application, max_pool_size=4)
    copies = live_app._forked
    assert copies is not None
    os.kill(live_app.pids[0], signal.SIGKILL)
    live_app.get("/")
    known = [pid for pid, _ in copies._copies]
    assert known[1:] == live_app.pids
    [next_one] = holders(os.readlink(f"/proc/self/fd/{copies._lifeline}")) - {os.getpid()}
    assert next_one not in known, "it waits, and was forked from the second"
    live_app.end()
    eventually(lambda: not any(map(is_running, [*known, next_one])))


def test_TH2_a_copy_that_cannot_be_made_says_why(
    passenger_factory: Callable[..., LiveApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is half sent by then. It is not the server that failed, and the next one finds it as it was."""

    def fails() -> int:
        raise BlockingIOError(11, "no process for you")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fork", fails)
        with pytest.raises(BlockingIOError, match="no process for you"):
            passenger_factory(application)
    live_app = passenger_factory(application)
    assert live_app.get("/").text == f"before {live_app.pids[0]}"


def holders(target: str) -> set[int]:
    """Who has this descriptor open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == target:
                found.add(int(link.parts[2]))
        except OSError:
            pass  # it has ended
    return found
