"""What the fronts of a server serve together. Each front gets its share of the limits (``share``)."""

from __future__ import annotations

from passenger_trio.core.model import GroupKey
from passenger_trio.late_classes import frozen
from passenger_trio.options import AppOptions, Config

__all__ = ["FrontsConfig"]


@frozen
class FrontsConfig:
    config: Config
    routes: tuple[tuple[GroupKey, AppOptions], ...]
    """The applications that are served."""
    sessions: int
    """The most sessions that all processes together can have; 0: no limit."""
    max_pool_size: int
    disk: int
    """The most bytes that all buffers together have on disk."""
