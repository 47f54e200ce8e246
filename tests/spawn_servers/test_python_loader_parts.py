"""Parts of the Python loader by themselves, in this process: what the mutants of the loaders left unseen (HO5)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from passenger_trio_loader.at_fork import own_descriptors
from passenger_trio_loader.control_connection import ControlConnection
from passenger_trio_loader.listener import open_listener
from passenger_trio_loader.originals import tasks
from passenger_trio_loader.preloading import hazards

DEADLINE = 30.0


@pytest.fixture
def default_timeout() -> Iterator[None]:
    """As an application sets it for every socket that is made from then on."""
    socket.setdefaulttimeout(0.05)
    yield
    socket.setdefaulttimeout(None)


def test_a_control_connection_has_no_timeout(tmp_path: Path, default_timeout: None) -> None:
    """A forked worker connects after the application was loaded."""
    with socket.socket(socket.AF_UNIX) as supervisor:
        supervisor.bind(str(tmp_path / "spawn.sock"))
        supervisor.listen()
        control = ControlConnection(str(tmp_path / "spawn.sock"))
        assert control.socket.gettimeout() is None
        control.close()


def test_a_listener_has_no_timeout(tmp_path: Path, default_timeout: None) -> None:
    with open_listener(str(tmp_path / "worker.sock")) as listener:
        own_descriptors.discard(listener)
        assert listener.gettimeout() is None


def test_a_thread_that_is_about_to_end_is_no_hazard(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends while the loader settles, as one of a pool that was shut down a moment ago."""
    held = hazards.HeldResources()
    held.hooks.stop_recording()
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    settled: list[float] = []

    def settle(*waited_for: Any) -> None:
        settled.append(waited_for[-1])
        go.set()
        thread.join(DEADLINE)
        until = time.monotonic() + DEADLINE
        while str(thread.native_id) in tasks() and time.monotonic() < until:
            time.sleep(0.001)

    monkeypatch.setattr(hazards, "select", settle)
    try:
        assert not [hazard for hazard in held.hazards() if hazard["kind"] == "thread"]
    finally:
        go.set()
    assert settled == [hazards.SETTLE_TIME]
