"""The front processes, as a reload sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from passenger_trio.core.model import GroupKey
from passenger_trio.options import AppOptions, Config

__all__ = ["OtherFronts"]


class OtherFronts(Protocol):
    """The front processes, all together."""

    async def reconfigure(
        self,
        config: Config,
        routes: Sequence[tuple[GroupKey, AppOptions]],
        sessions: int,
        max_pool_size: int,
        disk: int,
    ) -> None:
        """Serve this from now on. Returns when every front that answers does.

        :param disk: the most bytes that all buffers together have on disk.
        """

    async def is_asked_for(self, key: GroupKey) -> bool:
        """Whether a request for an application is on its way to a process."""
