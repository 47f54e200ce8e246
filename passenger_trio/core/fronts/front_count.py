"""How many front processes a server has, and whether its slots are enough for them (FR2).

A front that has a slot serves without asking the owner. With fewer than ``SLOTS`` slots for each front, slots wander between
them, and nearly every request costs a message.
"""

from __future__ import annotations

from collections.abc import Sequence

from passenger_trio.options import FRONTS_AUTO

__all__ = ["MOST_AUTO", "MOST_WANTED", "SLOTS", "are_too_many", "front_count"]

SLOTS = 4
MOST_AUTO = 8
"""The most fronts with ``auto``. The owner needs more than one core before more of them help."""

MOST_WANTED = 128
"""A ``Want`` and a ``Recall`` list at most this many waiters. If a group has more slots, a front need not know how many."""


def front_count(asked: str, cpus: int) -> int:
    """The number of fronts that the option asks for.

    :param asked: a number or ``auto``, checked before (``option_values.parse_fronts``).
    :param cpus: processors that the server may use. ``auto`` leaves half of them to the applications.
    """
    return max(1, min(MOST_AUTO, cpus // 2)) if asked == FRONTS_AUTO else int(asked)


def are_too_many(fronts: int, concurrencies: Sequence[int], max_pool_size: int) -> bool:
    """Whether there are fewer than ``SLOTS`` slots for each of several fronts.

    :param concurrencies: requests that a process of each application serves at a time; 0: any number.
    """
    return fronts > 1 and all(concurrencies) and max_pool_size * max(concurrencies, default=1) < SLOTS * fronts
