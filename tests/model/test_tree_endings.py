"""KE8, fault 5: the whole tree over fake processes, ended at any moment in any way: nothing is left, nothing is raised that is not the block's own, and no task has failed.

The plan of a trial is drawn by Hypothesis: applications whose processes take their time to come, fail to come, end by themselves, do not obey, and end late when they are
killed; clients that hold sessions; restarts. The clock jumps, so that a trial lasts milliseconds; listeners and the instance directory are real.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from passenger_trio.core.model import GroupKey, SessionOutcome
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import CheckoutError, StartupAborted
from passenger_trio.options import AppOptions, Config, PoolOptions, ServerOptions
from passenger_trio.pool.pool import Pool
from passenger_trio.pool.session import Session
from passenger_trio.running import RunningServer
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner, dummy_failure
from passenger_trio.tree import open_tree

HELLO = Path(__file__).resolve().parent.parent / "apps" / "python" / "hello"
LONGEST = 400.0
"""Virtual seconds in which every trial must have ended: shutdown timeouts, the pool's time, the ladder, and what was waited for before."""


@attrs.frozen
class App:
    """How the processes of one application behave."""

    least: int
    delays: tuple[float, ...]
    fails: tuple[bool, ...]
    obeys: bool
    can_be_asked: bool
    late: float
    """Seconds from SIGKILL to its end: the kernel may hold it."""


apps = st.builds(
    App,
    least=st.integers(0, 2),
    delays=st.lists(st.sampled_from([0.0, 0.0, 0.1, 3.0, 1000.0]), min_size=1, max_size=4).map(tuple),
    fails=st.lists(st.booleans(), min_size=1, max_size=3).map(tuple),
    obeys=st.booleans(),
    can_be_asked=st.booleans(),
    late=st.sampled_from([0.0, 0.0, 1.0, 4.0, 7.0]),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.1, 1.0, 10.0])),
        st.tuples(st.just("exit"), st.integers(0, 20)),
        st.tuples(st.just("hold"), st.integers(0, 20)),
        st.tuples(st.just("use"), st.integers(0, 20)),
        st.tuples(st.just("restart"), st.integers(0, 20)),
    ),
    max_size=12,
)
ENDINGS = ("stop", "stop, then cut off", "cut off", "ValueError", "KeyboardInterrupt", "SystemExit", "group")
ERRORS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("the block's own"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    "group": lambda: BaseExceptionGroup("the block's own", [ValueError("one"), SystemExit(3)]),
}


class Slow(DummyProcess):
    """It ends some time after it was killed."""

    late = 0.0
    undead: trio.Nursery
    dying = False

    def signal_group(self, number: int) -> bool:
        if number != signal.SIGKILL or not self.late or self.exit_status is not None:
            return super().signal_group(number)
        if not self.dying:
            self.dying = True
            self.undead.start_soon(self.die)
        return True

    async def die(self) -> None:
        await trio.sleep(self.late)
        self.exit(-signal.SIGKILL)

    def close(self) -> None:
        self.closed = True  # also where the keeper has given up on it


class Fakes(DummySpawner):
    def __init__(self, app: App, undead: trio.Nursery) -> None:
        failures = tuple(dummy_failure() if fails else None for fails in app.fails)
        super().__init__(delays=app.delays, failures=failures)
        self.app, self.undead = app, undead

    async def spawn(self) -> DummyProcess:
        process = await super().spawn()
        process.__class__ = Slow
        assert isinstance(process, Slow)
        process.obeys, process.can_be_asked = self.app.obeys, self.app.can_be_asked
        process.late, process.undead = self.app.late, self.undead
        return process


def config(directory: str, plan: list[App]) -> Config:
    return Config(
        server=ServerOptions(
            socket=f"{directory}/listen.sock", instance_dir=f"{directory}/i", access_log="off", shutdown_timeout=5.0
        ),
        pool=PoolOptions(max_pool_size=max(1, sum(app.least for app in plan)), stat_throttle_rate=0.0),
        apps=tuple(
            AppOptions(
                root=str(HELLO),
                name=f"app{number}",
                base_uri=f"/{number}",
                min_instances=app.least,
                shutdown_timeout=5.0,
            )
            for number, app in enumerate(plan)
        ),
    )


async def trial(directory: str, plan: list[App], acts: list[tuple[str, float]], ending: str, at: float) -> ErrorKernel:
    """:param at: when a tree that is cut off is cut off, if it has not ended by then; it may not even be ready."""
    kernel = ErrorKernel()
    spawners: list[Fakes] = []
    error = ERRORS[ending]() if ending in ERRORS else None
    cut = trio.CancelScope(deadline=trio.current_time() + at if "cut off" in ending else float("inf"))
    # What is not ready after a while is somebody's who has lost patience.
    patience = trio.CancelScope(deadline=trio.current_time() + 60.0)

    def make(*what: object) -> Callable[[int], Fakes]:
        number = len(made)
        made.append(number)

        def spawner(generation: int) -> Fakes:
            spawners.append(Fakes(plan[number], undead))
            return spawners[-1]

        return spawner

    made: list[int] = []
    with trio.fail_after(LONGEST):
        async with trio.open_nursery() as undead:
            raised: BaseException | None = None
            try:
                with cut, patience:
                    async with open_tree(config(directory, plan), kernel, make_spawners=make) as server:
                        patience.deadline = float("inf")
                        async with trio.open_nursery() as clients:
                            for act in acts:
                                await perform(server, spawners, clients, *act)
                            if ending == "stop":
                                clients.cancel_scope.deadline = trio.current_time() + 2.0
                            elif ending != "stop, then cut off":
                                clients.cancel_scope.cancel()
                        if error is not None:
                            raise error
                        if ending == "cut off":
                            await trio.sleep_forever()
            except (ValueError, KeyboardInterrupt, SystemExit, BaseExceptionGroup) as exc:
                raised = exc
            assert raised is None or raised is error, repr(raised)
            assert error is None or raised is error or patience.cancelled_caught
            for fakes in spawners:
                for process in fakes.processes:
                    assert process.exit_status is not None or process.dying or not process._streams, "it lives"  # type: ignore[attr-defined]
                    assert process.closed, "what belongs to it was not let go"
    return kernel


async def perform(
    server: RunningServer, spawners: list[Fakes], clients: trio.Nursery, what: str, number: float
) -> None:
    processes = [process for fakes in spawners for process in fakes.processes if process.exit_status is None]
    keys = list(server.pool.group_tasks)
    key = keys[int(number) % len(keys)]
    if what == "wait":
        await trio.sleep(number)
    elif what == "exit":
        if processes:
            processes[int(number) % len(processes)].exit(1)
    elif what == "restart":
        server.pool.restart(key, hard=number > 15)
    else:
        clients.start_soon(use, server, key, what == "hold")
        await trio.lowlevel.checkpoint()


async def borrow(pool: Pool, key: GroupKey) -> Session:
    found = pool.checkout_or_queue(key, pool.current_time())
    if isinstance(found, Session):
        await trio.lowlevel.checkpoint()
        return found
    try:
        return await found.wait()
    except trio.Cancelled:
        found.leave()
        raise


async def use(server: RunningServer, key: GroupKey, hold: bool) -> None:
    try:
        session = await borrow(server.pool, key)
    except CheckoutError:
        return
    try:
        await trio.sleep(1000.0 if hold else 0.2)
    finally:
        session.close(SessionOutcome.DONE)


def run(plan: list[App], acts: list[tuple[str, float]], ending: str, at: float) -> None:
    with tempfile.TemporaryDirectory(prefix="pt-") as directory:
        clock = trio.testing.MockClock(autojump_threshold=0)
        kernel = trio.run(trial, directory, plan, acts, ending, at, clock=clock)
        assert os.listdir(directory) == []
    assert kernel.faults == {}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    plan=st.lists(apps, min_size=1, max_size=4),
    acts=steps,
    ending=st.sampled_from(ENDINGS),
    at=st.sampled_from([0.0, 0.05, 0.5, 3.0, 12.0, 30.0]),
)
def test_it_ends_cleanly_from_every_state(
    plan: list[App], acts: list[tuple[str, float]], ending: str, at: float
) -> None:
    run(plan, acts, ending, at)


NEVER = App(1, (1000.0,), (False,), True, True, 0.0)
WELL = App(1, (0.0,), (False,), True, True, 0.0)


@pytest.mark.parametrize("at", [0.0, 0.05, 5.0])
def test_never_ready_and_cut_off(at: float) -> None:
    run([WELL, WELL, NEVER], [], "cut off", at)


def test_several_groups_are_cut_off_at_shutdown_and_a_process_ends_late() -> None:
    late = attrs.evolve(WELL, obeys=False, can_be_asked=False, late=4.0)
    run([WELL, late, WELL, late], [("hold", 0), ("hold", 1), ("hold", 2), ("wait", 1.0)], "stop, then cut off", 12.0)


def test_a_start_that_is_to_be_fatal_ends_it() -> None:
    """With the error that says so, and not in a group."""
    plan = [WELL, attrs.evolve(WELL, fails=(True,))]

    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="pt-") as directory:
            settled = config(directory, plan)
            settled = attrs.evolve(settled, server=attrs.evolve(settled.server, abort_on_startup_error=True))
            async with trio.open_nursery() as undead:
                made = iter(plan)

                def make(*what: object) -> Callable[[int], Fakes]:
                    app = next(made)
                    return lambda generation: Fakes(app, undead)

                with pytest.raises(StartupAborted):
                    async with open_tree(settled, ErrorKernel(), make_spawners=make):
                        pytest.fail("it is ready")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
