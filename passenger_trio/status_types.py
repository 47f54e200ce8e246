"""The types of the status that ``RunningServer.status`` returns and ``passenger-trio status --json`` prints, with the same members (LI3).

Times are seconds; sizes are bytes. Members may be added at any time.
"""

from __future__ import annotations

from typing import Any, TypedDict

__all__ = ["GroupStatus", "Memory", "MemoryRoom", "PoolStatus", "PreloaderStatus", "ProcessStatus", "ServerStatus"]


class Memory(TypedDict):
    """Memory of one process. None: the kernel does not report it."""

    rss: int
    pss: int | None
    """Proportional set size: shared memory is divided among the processes that share it."""
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
    """Percent of a core, on average since the process was ready."""
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
    """What the server itself uses, with its fronts and preloaders."""
    used: int
    """What the processes use, as last measured; processes that start, as estimated."""
    reserved: int
    """Kept for processes that are missing to the minimums, and for applications with waiting requests and no process."""
    free: int
    """What is left of the share. Negative: more is used. If that is more than a quarter of ``next_size``, an idle process is ended."""
    next_size: int
    """The assumed size of one more process: the average of ``next_app``."""
    next_app: str
    """The application with the largest processes that may grow; empty: none is awake."""
    is_guess: bool
    """Whether no process of ``next_app`` was ever measured."""
    minimum: int
    most: int
    """The most processes that the server's descriptors allow."""
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
    """Files of ``--apps-dir`` whose current text is not served."""
    groups: list[GroupStatus]
    requests: dict[str, Any]
    buffers: dict[str, Any]
    access_log: dict[str, Any] | None
    connections: dict[str, int]
    faults: dict[str, Any]
    fronts: list[dict[str, Any]]
