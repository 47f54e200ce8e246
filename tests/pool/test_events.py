"""OB7: what happens in the pool, as a stream of values."""

from __future__ import annotations

import gc
import json

import pytest
import trio
import trio.testing
from running_pool import KEY, only, running_pool, until

from passenger_trio import events
from passenger_trio.core.policy_limits import GroupLimits
from passenger_trio.events import Event, ProcessAttached, ProcessDetached, ProcessExited, QueueFull, RestartEnded
from passenger_trio.pool.events import Events, Listener
from passenger_trio.spawning.dummy import DummySpawner


async def test_it_gives_what_happens_in_order_and_ends_with_the_pool(autojump_clock: trio.testing.MockClock) -> None:
    heard: list[Event] = []

    async def listen(listener: Listener) -> None:
        async for event in listener:
            heard.append(event)

    spawner = DummySpawner()
    async with trio.open_nursery() as nursery:
        async with running_pool(spawner, group=GroupLimits(min_instances=1)) as pool:
            nursery.start_soon(listen, pool.events.listen())
            await until(pool, 1)
            pool.restart(KEY)
            await trio.sleep(10)
            spawner.processes[1].exit(1)
            await until(pool, 1)
    group, pids = str(KEY), [process.pid for process in spawner.processes]
    kinds = [(type(event), getattr(event, "pid", None)) for event in heard]
    assert kinds[0] == (ProcessAttached, pids[0])
    assert (ProcessAttached, pids[1]) in kinds
    assert kinds.index((ProcessDetached, pids[0])) < kinds.index((ProcessExited, pids[0]))
    assert RestartEnded in [type(event) for event in heard]
    assert (ProcessExited, pids[1]) in kinds
    assert {event.group for event in heard if isinstance(event, events.ProcessEvent)} == {group}
    assert all(event.time > 0 and event.lost_before == 0 for event in heard)


async def test_who_does_not_keep_up_loses_the_oldest_and_is_told_how_many() -> None:
    """Memory is bounded, and the pool never waits."""
    source = Events()
    slow, quick = source.listen(room=3), source.listen()
    for number in range(10):
        source.publish(ProcessExited(group="shop (test)", pid=number))
    first = await anext(slow)
    assert isinstance(first, ProcessExited)
    assert (first.pid, first.lost_before) == (7, 7)
    source.publish(QueueFull())
    rest = [await anext(slow) for _ in range(3)]
    assert [event.lost_before for event in rest] == [0, 0, 0]
    assert [event.name for event in rest] == ["process_exited", "process_exited", "queue_full"]
    assert len([await anext(quick) for _ in range(11)]) == 11
    with trio.move_on_after(0.01) as nothing:
        await anext(slow)
    assert nothing.cancelled_caught


async def test_a_listener_that_nobody_holds_is_forgotten() -> None:
    source = Events()
    for _ in range(100):
        source.listen()
    gc.collect()
    source.publish(QueueFull())
    assert len(source._listeners) == 0


async def test_a_listener_that_is_closed_ends_at_once_and_wakes_who_waits() -> None:
    source = Events()
    listener = source.listen()
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            assert [event async for event in listener] == []

        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        listener.close()
    with source.listen() as other:
        source.publish(QueueFull())
    with pytest.raises(StopAsyncIteration):
        await anext(other)
    source.publish(QueueFull())
    source.end()
    with pytest.raises(StopAsyncIteration):
        await anext(source.listen())


def test_every_kind_has_a_name_of_its_own_and_is_json() -> None:
    assert {kind.__name__ for kind in events.KINDS.values()} | {"Event", "ProcessEvent", "KINDS", "as_json"} == set(
        events.__all__
    )
    sent = json.loads(json.dumps(events.as_json(ProcessDetached(group="shop (test)", pid=7, reason="idle", time=1.5))))
    assert sent == {"event": "process_detached", "time": 1.5, "group": "shop (test)", "pid": 7, "reason": "idle"}
    assert events.as_json(QueueFull(lost_before=4))["lost_before"] == 4


async def test_what_a_process_that_ends_unasked_says(autojump_clock: trio.testing.MockClock) -> None:
    spawner = DummySpawner()
    async with running_pool(spawner) as pool:
        await until(pool, 1)
        with pool.events.listen() as listener:
            only(spawner).exit(3)
            event = await anext(listener)
    assert event == ProcessExited(group=str(KEY), pid=only_first(spawner), exit_status=3, time=event.time)


@pytest.mark.parametrize(("status", "told"), [(0, (0, None)), (-9, (None, "SIGKILL")), (-64, (None, "SIGRTMAX"))])
async def test_how_a_process_has_ended_and_why(
    autojump_clock: trio.testing.MockClock, status: int, told: tuple[int | None, str | None]
) -> None:
    """OB7: exit status, signal, reason and group are in the event, also of a process that was asked to go."""
    spawner = DummySpawner()
    async with running_pool(spawner) as pool:
        await until(pool, 1)
        with pool.events.listen() as listener:
            spawner.processes[0].obeys = False
            pool.detach(next(iter(pool.processes)))
            assert isinstance(await anext(listener), ProcessDetached)
            spawner.processes[0].exit(status)
            while not isinstance(event := await anext(listener), ProcessExited):
                pass
    assert (event.exit_status, event.signal) == told
    assert event.reason == "an operator detached it"
    assert event.group == str(KEY)


def only_first(spawner: DummySpawner) -> int:
    return spawner.processes[0].pid
