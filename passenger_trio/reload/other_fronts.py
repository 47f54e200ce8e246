"""The front processes, as a reload sees them."""

from __future__ import annotations

from typing import Protocol

from passenger_trio.core.fronts.fronts_config import FrontsConfig
from passenger_trio.core.model import GroupKey

__all__ = ["OtherFronts"]


class OtherFronts(Protocol):
    """The front processes, all together."""

    async def reconfigure(self, config: FrontsConfig) -> None:
        """Serve this from now on. Returns when every front that answers does."""

    async def is_asked_for(self, key: GroupKey) -> bool:
        """Whether a request for an application is on its way to a process."""
