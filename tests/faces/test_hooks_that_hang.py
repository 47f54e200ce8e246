"""A hook has a time, and what it has started goes with it (section F)."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import trio

from passenger_trio.events import ProcessDetached
from passenger_trio.pool import hooks
from passenger_trio.pool.events import Events
from passenger_trio.testing.harness import eventually, is_running

pytestmark = pytest.mark.os

HANGS = "import os, sys, time\nchild = os.fork()\nif child: open(sys.argv[1], 'w').write(f'{os.getpid()} {child} ')\ntime.sleep(600)\n"


@pytest.mark.parametrize("limit", [0.5, 30.0], ids=["longer than it may", "longer than the server"])
async def test_a_hook_that_hangs_is_killed_with_what_it_has_started(
    limit: float,
    nothing_left: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And the next hook is run."""
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(hooks, "_TIME", limit)
    told, next_one = tmp_path / "pids", tmp_path / "next"
    events = Events()
    commands = ((sys.executable, "-c", HANGS, str(told)), ("touch", str(next_one)))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(hooks.Hooks(events, {"process_detached": commands}).run)
            events.publish(ProcessDetached(time=0.0, group="shop", pid=1, reason="a test"))

            def pids() -> list[int]:
                text = told.read_text() if told.exists() else ""
                return [int(word) for word in text.split()] if text.endswith(" ") else []

            started = await trio.to_thread.run_sync(lambda: eventually(pids))
            if limit < 30:
                await trio.to_thread.run_sync(lambda: eventually(next_one.exists))
            nursery.cancel_scope.cancel()
    assert next_one.exists() is (limit < 30)
    assert [record for record in caplog.records if "and was killed" in record.message]
    eventually(lambda: not any(map(is_running, started)), 10, "the hook and what it has started are gone")
