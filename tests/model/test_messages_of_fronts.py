"""FR6: how many messages a request costs. Clients ask again as soon as they are answered, so every slot is busy all the time."""

from __future__ import annotations

import heapq
import itertools
import random

import pytest
from fronts_world import KEY, FrontsWorld, TheFront

from passenger_trio.core.policy_limits import GroupLimits, PoolLimits

_THINKS = 0.0001
"""Seconds from an answer to the client's next request."""


def messages_a_request(
    fronts: int, slots: int, clients: int, *, serving: int = 0, request: float = 0.001, seconds: float = 0.12
) -> float:
    """With requests that take so long, give or take a half.

    :param serving: how many of the fronts have clients; 0: all.
    """
    numbers = random.Random(1)
    world = FrontsWorld(
        GroupLimits(min_instances=slots), PoolLimits(max_pool_size=slots, max_concurrent_spawns=slots), numbers.random
    )
    for _ in range(fronts):
        world.front_comes()
    world.advance(0.3)
    order = itertools.count()
    coming = [(world.now + _THINKS * at, next(order), world.fronts[at % (serving or fronts)]) for at in range(clients)]
    ending: list[tuple[float, int, TheFront, int]] = []
    known: set[int] = set()
    ends, counting, before = world.now + seconds, world.now + seconds / 5, (0, 0)
    while world.now < ends:
        for front in world.fronts:
            for session in front.running:
                if session not in known:
                    known.add(session)
                    heapq.heappush(
                        ending, (world.now + request * (0.5 + numbers.random()), next(order), front, session)
                    )
        if world.now > counting and before == (0, 0):
            before = world.messages, world.served
        nexts = [heap[0][0] for heap in (coming, ending) if heap]
        due = min(nexts, default=ends)
        step = min(due, world.now + 0.0002) - world.now
        if step > 0:
            world.advance(step)
            continue
        if coming and coming[0][0] <= world.now:
            world.request(heapq.heappop(coming)[2], KEY)
            continue
        _, _, front, session = heapq.heappop(ending)
        known.discard(session)
        world.ends(front, session)
        heapq.heappush(coming, (world.now + _THINKS, next(order), front))
    world.quiesce()
    return (world.messages - before[0]) / (world.served - before[1])


@pytest.mark.parametrize(
    ("slots", "most"),
    [
        (2, 0.3),  # it was 2.0: a level to the owner, and one to the other front, for each request
        (8, 0.1),
    ],
)
def test_FR6_fronts_whose_own_slots_serve_send_few_messages(slots: int, most: float) -> None:
    assert messages_a_request(2, slots, 32, seconds=0.4) < most


def test_FR6_a_front_that_serves_alone_sends_few_messages() -> None:
    """As one of several fronts does while the load needs no other: nobody waits elsewhere, so nothing else tells it how few of its waiters to list."""
    assert (
        messages_a_request(2, 2, 32, serving=1, seconds=0.8) < 0.1
    )  # it was 0.19, most of them Wants that listed all waiters


def test_FR6_of_a_short_queue_that_changes_with_each_request_few_messages_tell() -> None:
    assert messages_a_request(2, 2, 4, serving=1, request=0.0002, seconds=0.8) < 0.015  # it was 0.034
