"""Fault 14, KE13: at the start nobody waits for an application that hangs. The whole tree over fake processes; the clock jumps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from passenger_trio.core.scaling import SLOW_AFTER
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import StartupAborted, StartupStopped
from passenger_trio.options import AppOptions, Config, PoolOptions, ServerOptions
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.spawning.dummy import DummySpawner
from passenger_trio.spawning.spawner import Spawner
from passenger_trio.tree import open_tree

HELLO = Path(__file__).resolve().parent.parent / "apps" / "python" / "hello"


def config_of(place: Path, *apps: AppOptions, fatal: bool) -> Config:
    """:param fatal: whether a failed start ends the server."""
    return Config(
        server=ServerOptions(
            socket=str(place / "listen"),
            instance_dir=str(place / "i"),
            access_log="off",
            abort_on_startup_error=fatal,
        ),
        pool=PoolOptions(stat_throttle_rate=0.0),
        apps=apps,
    )


@pytest.mark.parametrize("fatal", [False, True])
async def test_the_first_that_is_there_is_served_and_the_rest_is_not_waited_for(
    tmp_path: Path, autojump_clock: MockClock, fatal: bool
) -> None:
    """Where a failed start is to be fatal, nobody is served before all have started."""
    socket = tmp_path / "listen"
    apps = [AppOptions(root=str(HELLO), name=name, base_uri=f"/{name}") for name in ("hangs", "blog")]
    config = config_of(tmp_path, *apps, fatal=fatal)
    delays = {"hangs": 30.0, "blog": 0.5}

    def make_spawners(spec: AppSpec, *_: object) -> Callable[[int], Spawner]:
        return lambda generation: DummySpawner(delays=(delays[spec.key.name],))

    begun = trio.current_time()
    answered_at = 0.0
    answered = trio.Event()

    async def ask() -> None:
        nonlocal answered_at
        stream = await trio.open_unix_socket(str(socket))
        await stream.send_all(b"GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\n")
        assert b" 404 " in await stream.receive_some()
        answered_at = trio.current_time() - begun
        answered.set()
        await stream.aclose()

    async with trio.open_nursery() as clients:
        clients.start_soon(ask)
        tree = open_tree(
            config,
            ErrorKernel(),
            make_spawners=make_spawners,
        )
        async with tree as server:
            ready = trio.current_time() - begun
            await answered.wait()
            assert [len(group.processes) for group in server.pool.statistics().groups] == ([1, 1] if fatal else [0, 1])
    expected = (30.0, 30.0) if fatal else (0.5, SLOW_AFTER)
    assert (answered_at, ready) == pytest.approx(expected, abs=0.2)


class NeverServes(DummySpawner):
    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        raise OSError("no")


@pytest.mark.parametrize("fatal", [False, True])
async def test_who_is_told_to_stop_while_it_starts_starts_no_longer(
    tmp_path: Path, autojump_clock: MockClock, fatal: bool
) -> None:
    """KE8: ``stop`` over the admin socket was heard when the last application had been loaded, or had had its start timeout."""
    config = config_of(tmp_path, AppOptions(root=str(HELLO), name="hangs"), fatal=fatal)
    spawner = DummySpawner(delays=(600.0,))
    begun = trio.current_time()

    async def stop() -> None:
        socket = tmp_path / "i" / "admin.sock"
        await trio.sleep(5.0)
        stream = await trio.open_unix_socket(str(socket))
        await stream.send_all(b"POST /v1/shutdown HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n")
        assert b" 200 " in await stream.receive_some()
        await stream.aclose()

    async with trio.open_nursery() as operators:
        operators.start_soon(stop)
        with pytest.raises(StartupStopped):
            async with open_tree(config, ErrorKernel(), make_spawners=lambda *_: lambda generation: spawner):
                raise AssertionError("it has started")
    assert trio.current_time() - begun < 10.0
    assert spawner.cancelled == 1


async def test_a_spawner_that_does_not_come_up_costs_an_attempt_its_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """KE1: the attempt waited for it without a limit, and with it whoever waited for the application."""
    config = config_of(tmp_path, AppOptions(root=str(HELLO), name="shop"), fatal=True)
    with trio.fail_after(60.0), pytest.raises(StartupAborted, match="did not foresee"):
        async with open_tree(config, ErrorKernel(), make_spawners=lambda *_: lambda generation: NeverServes()):
            raise AssertionError("it has started")
