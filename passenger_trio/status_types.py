"""What ``RunningServer.status`` gives, and ``passenger-trio status --json`` prints: the same members, with their types (LI3).

Times are seconds; sizes are bytes. Members may be added at any time.
"""

from __future__ import annotations

from typing import Any, TypedDict

__all__ = ["GroupStatus", "Memory", "MemoryRoom", "PoolStatus", "PreloaderStatus", "ProcessStatus", "ServerStatus"]


class Memory(TypedDict):
    """Memory of one process. None: the kernel does not tell."""

    rss: int
    pss: int | None
    """Shared memory divided among those that share it."""
    uss: int | None


class ProcessStatus(TypedDict):
    id: int
    pid: int | None
    state: str
    """running, disabled, out-of-band work, stopping."""
    generation: int
    to_replace: str | None
    """Why it is to be replaced."""
    leaving: str | None
    """Why it is retired after its last request."""
    ends_in: float | None
    sessions: int
    concurrency: int
    processed: int
    cpu: float | None
    """Percent of a core, since it is ready."""
    memory: Memory | None
    uptime: float
    last_used: float


class PreloaderStatus(TypedDict):
    pid: int
    uptime: float
    forks: int
    memory: Memory | None


class GroupStatus(TypedDict):
    """One application."""

    name: str
    environment: str
    root: str
    app_type: str
    interpreter: str
    spawn_method: dict[str, Any]
    queue: int
    spawning: int
    backing_off_for: float | None
    last_error: dict[str, str] | None
    generation: int
    restarting: bool
    waits_for_room: bool
    leaving: bool
    rejected: dict[str, Any] | None
    preloader: PreloaderStatus | None
    processes: list[ProcessStatus]


class MemoryRoom(TypedDict):
    """How the most processes follow from the memory (``--max-pool-size auto``). Sizes are bytes."""

    asked: str
    """The option's value: auto, 50%."""
    share: float
    total: int
    source: str
    """What sets the total: RAM, or a file of a cgroup."""
    own: int
    """What the server uses, with its fronts and preloaders."""
    used: int
    """What the processes use, as last measured; those that start, as estimated."""
    reserved: int
    """For the minimums, and for applications that are waited for."""
    free: int
    """Negative: more is used than the share. Something has to go if that is more than a quarter of ``next_size``."""
    next_size: int
    """What one process more is counted with: the average of ``next_app``."""
    next_app: str
    """The largest application that may grow; empty: none is awake."""
    is_guess: bool
    """Whether it was never measured."""
    minimum: int
    most: int
    """Not more, for want of descriptors."""
    fits: int


class PoolStatus(TypedDict):
    max: int
    memory: MemoryRoom | None
    """None: the number of processes is fixed."""
    size: int
    detached: int
    spawning: int
    queue: int


class ServerStatus(TypedDict):
    version: str
    pid: int
    uptime: float
    stopping: bool
    draining: bool
    addresses: list[str]
    pool: PoolStatus
    broken_files: list[dict[str, str]]
    """Files of ``--apps-dir`` that are not served as they are."""
    groups: list[GroupStatus]
    requests: dict[str, Any]
    buffers: dict[str, Any]
    access_log: dict[str, Any] | None
    connections: dict[str, int]
    faults: dict[str, Any]
    fronts: list[dict[str, Any]]
