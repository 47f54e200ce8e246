"""The pool over real processes that are killed, stopped and retired while it works: everybody is answered, and nothing is left."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
import trio
from running_pool import check, checkout

from passenger_trio.codecs.session_protocol import encode_request, read_whole_response
from passenger_trio.core.model import SessionOutcome
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.errors import CheckoutError, ProcessUnreachable
from passenger_trio.options import AppOptions
from passenger_trio.pool.pool import Pool
from passenger_trio.spawning.app_spec import make_app_spec
from passenger_trio.spawning.detect import detect
from passenger_trio.spawning.direct import DirectSpawner
from passenger_trio.spawning.smart_forking import SmartSpawner
from passenger_trio.spawning.spawn_listener import SpawnListener

pytestmark = pytest.mark.os

HELLO = Path(__file__).resolve().parent.parent / "apps" / "python" / "hello"
NAMES = "REQUEST_METHOD REQUEST_URI SCRIPT_NAME PATH_INFO QUERY_STRING SERVER_PROTOCOL SERVER_NAME SERVER_PORT"
PAIRS = "".join(f"{name}\0/\0" for name in f"{NAMES} REMOTE_ADDR REMOTE_PORT REQUEST_SCHEME".split()).encode()


@pytest.mark.parametrize("method", ["smart", "direct"])
@pytest.mark.parametrize("ending", ["shut down", "cut off"])
async def test_a_storm_of_signals(method: str, ending: str, nothing_left: Path) -> None:
    chance = random.Random(7)
    app = AppOptions(root=str(HELLO), python=sys.executable, thread_count=2)
    spec = make_app_spec(app, detect(app), os.environ, str(nothing_left))
    spawn_listener = SpawnListener(str(nothing_left / "spawn.sock"))
    pool = Pool(PoolLimits(max_pool_size=3, max_concurrent_spawns=2, backoff_first=0.01, backoff_max=0.05))
    if method == "smart":
        spawner: DirectSpawner | SmartSpawner = SmartSpawner(
            spec,
            spawn_listener,
            on_preloader=lambda number, started: pool.preloader_changed(spec.key, 1, number, started),
            fork_time=1.0,
        )
    else:
        spawner = DirectSpawner(spec, spawn_listener)
    answered: Counter[str] = Counter()
    unanswered: list[str] = []
    over, served = trio.Event(), trio.Event()

    async def client() -> None:
        while not over.is_set():
            try:
                session = await checkout(pool, spec.key)
            except CheckoutError as error:
                answered[type(error).__name__] += 1
                await trio.sleep(0.01)
                continue
            outcome = SessionOutcome.PROCESS_FAILED
            keep = False
            try:
                stream = session.connect_nowait(new=chance.random() < 0.2)
                await stream.send_all(encode_request(PAIRS))
                with trio.move_on_after(20) as patience:
                    if read_whole_response(await stream.recv()) is not None:
                        outcome, keep = SessionOutcome.DONE, chance.random() < 0.8
                if patience.cancelled_caught:
                    unanswered.append(f"{session.pid} {session.reused} {pool.statistics()}")
            except (ProcessUnreachable, trio.BrokenResourceError):
                pass
            finally:
                session.close(outcome, keep_stream=keep)
            answered[outcome.name] += 1
            if outcome is SessionOutcome.DONE:
                served.set()

    async def killer() -> None:
        nonlocal served
        for _ in range(40):
            # Let somebody be served between two blows, however busy the machine is.
            served = trio.Event()
            with trio.move_on_after(1):
                await served.wait()
            await trio.sleep(0.03)
            check(pool)
            victims = [process.live for process in pool.processes.values()]
            if victims and chance.random() < 0.7:
                chance.choice(victims).signal_group(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV]))
            if spawner.preloader is not None and chance.random() < 0.3:
                os.kill(spawner.preloader.pid, signal.SIGKILL)
            elif chance.random() < 0.2:
                spawner.retire_preloader()
        over.set()

    with trio.fail_after(110):
        async with trio.open_nursery() as tree:
            await tree.start(spawn_listener.serve)
            await tree.start(pool.run)
            await pool.add_group(spec.key, GroupLimits(min_instances=2), spawner, 3.0)
            while not pool.processes:  # both may come in one step
                await pool.changed.wait()
            async with trio.open_nursery() as storm:
                storm.start_soon(killer)
                for _ in range(6):
                    storm.start_soon(client)
            if ending == "shut down":
                pool.shut_down()
                await pool.empty.wait()
            tree.cancel_scope.cancel()
    assert not unanswered
    assert answered["DONE"] > 10
    assert set(answered) <= {"DONE", "PROCESS_FAILED", "SpawnError"}
    assert not pool.processes
