"""Fault injection: what goes wrong in production, on purpose and with a seed.

``FaultSetup`` is made before the server is started, because some faults happen inside of its
processes; ``Faults`` makes the faults of a running server. Each is a context manager::

    setup = FaultSetup()
    with Supervisor.start(root, env=setup.environment) as server:
        faults = setup.faults(server, seed=1)
        with faults.kill(at="mid_body"):
            assert not server.get("/report").complete
        with faults.slow_read(rate=10_000) as slow:
            assert slow.get("/report").complete

``fault.py`` has the laws, ``clients``, ``processes``, ``machine`` and ``deploys`` have the faults.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from passenger_trio.testing.faults.clients import (
    EarlyEof,
    HalfClose,
    Pipeline,
    Reset,
    SlowRead,
    SplitAt,
    StopReading,
    Trickle,
)
from passenger_trio.testing.faults.deploys import BrokenRelease, RestartNow, SlowRelease
from passenger_trio.testing.faults.fault import Fault, FaultNeverFired, FaultNotPossible
from passenger_trio.testing.faults.machine import (
    ClockJump,
    DiskFull,
    Machine,
    NoDescriptors,
    PausedSupervisor,
    SlowDisk,
)
from passenger_trio.testing.faults.plan import Plan
from passenger_trio.testing.faults.processes import AtPoint, Deadly, Hold, KilledAtAccept, Stopped

if TYPE_CHECKING:
    from passenger_trio.testing.harness import Supervisor

__all__ = ["Fault", "FaultNeverFired", "FaultNotPossible", "FaultSetup", "Faults"]

F = TypeVar("F", bound=Fault)
Point = Literal["head", "mid_body", "before_end", "after_end"]


class FaultSetup:
    """What a server must be started with, so that there can be faults. ``close`` removes it."""

    def __init__(self, *, machine: bool = False, directory: Path | None = None) -> None:
        """:param machine: also for a full or slow disk and a jumping clock, which need a C compiler.
        :param directory: where to make its files (default: that of the run).

        :raises FaultNotPossible: ``machine``, and there is no C compiler.
        """
        self.plan = Plan(directory)
        self.machine = Machine(directory) if machine else None
        self.environment = {**self.plan.environment, **(self.machine.environment if self.machine is not None else {})}
        """Environment variables, for ``Supervisor.start``."""

    def faults(self, server: Supervisor, seed: int = 0) -> Faults:
        return Faults(server, self, seed)

    def close(self) -> None:
        self.plan.close()
        if self.machine is not None:
            self.machine.close()


class Faults:
    """The faults of one server. Times are seconds, sizes bytes.

    A parameter that is left out is drawn from ``random``, whose seed is ``seed``: the same seed gives
    the same faults.
    """

    def __init__(
        self,
        server: Supervisor | None,
        setup: FaultSetup | None = None,
        seed: int = 0,
        *,
        address: str | tuple[str, int] = "",
        on_made: Callable[[Fault], None] = lambda fault: None,
    ) -> None:
        """:param server: None: a server that is not ours. Then ``address`` is needed, and there are faults of clients only.
        :param address: where the faults of clients connect (default: to the server).
        :param on_made: gets each fault, before it begins.
        """
        self._server = server
        self.address = address or self.server.address
        self._on_made = on_made
        self.setup = setup
        self.seed = seed
        self.random = random.Random(seed)

    @property
    def server(self) -> Supervisor:
        """:raises FaultNotPossible: the server was not started by the harness."""
        if self._server is None:
            raise FaultNotPossible(
                "this server runs elsewhere (--passenger-server): only faults of clients are possible"
            )
        return self._server

    def points(self, size: int, count: int = 20) -> list[int]:
        """At most ``count`` offsets in ``size`` bytes, for ``after``: both ends and what the seed draws in between."""
        if size <= count:
            return list(range(size))
        inner = self.random.sample(range(2, size - 1), count - 3)
        return sorted({0, 1, size - 1, *inner})

    # Clients

    def slow_read(self, rate: int | None = None) -> SlowRead:
        """The client reads ``rate`` bytes a second."""
        return self._note(SlowRead(self.address, self.seed, rate or self.random.randrange(20_000, 200_000)))

    def stop_reading(self, after: int | None = None) -> StopReading:
        """The client stops reading when it has ``after`` bytes."""
        return self._note(StopReading(self.address, self.seed, self._drawn(after, 0, 1000)))

    def reset(self, after: int | None = None, of: Literal["response", "request"] = "response") -> Reset:
        """The connection is reset when ``after`` bytes of the response or of the request have passed."""
        return self._note(Reset(self.address, self.seed, self._drawn(after, 0, 100), of))

    def half_close(self) -> HalfClose:
        """The client ends its sending side behind its request."""
        return self._note(HalfClose(self.address, self.seed))

    def trickle(self, size: int = 1, gap: float = 0.001) -> Trickle:
        """The client sends ``size`` bytes every ``gap`` seconds."""
        return self._note(Trickle(self.address, self.seed, size, gap))

    def split_at(self, *offsets: int, gap: float = 0.02) -> SplitAt:
        """What the client sends arrives in pieces that are cut at ``offsets`` (by default one is drawn)."""
        return self._note(SplitAt(self.address, self.seed, offsets or (self.random.randrange(1, 30),), gap))

    def pipeline(self, *more: bytes) -> Pipeline:
        """``more`` requests come right behind the client's (by default one GET of ``/``)."""
        return self._note(Pipeline(self.address, self.seed, more or (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",)))

    def early_eof(self, after: int | None = None, *, close: bool = True) -> EarlyEof:
        """The client abandons its request after ``after`` bytes; ``close=False``: it ends its sending side only."""
        return self._note(EarlyEof(self.address, self.seed, self._drawn(after, 1, 30), close))

    # Processes

    def kill(
        self,
        at: Literal["accept", "head", "mid_body", "before_end", "after_end"] = "head",
        *,
        times: int = 1,
        path: str = "",
    ) -> AtPoint | KilledAtAccept:
        """SIGKILL. :param path: only for requests whose path begins so. :param times: so many processes, one after another."""
        if at == "accept":
            return self._note(KilledAtAccept(self.server, self.seed))
        return self._at_point("kill", at, times=times, path=path)

    def exit(self, at: Point = "head", *, status: int = 1, times: int = 1, path: str = "") -> AtPoint:
        """The application ends its process, and runs no clean-up."""
        return self._at_point("exit", at, status=status, times=times, path=path)

    def hang(self, at: Point = "head", *, path: str = "") -> AtPoint:
        """The process does nothing any more, its event loop included, until the fault ends."""
        return self._at_point("hang", at, path=path)

    def stop(self, at: Point = "head", *, path: str = "") -> Stopped:
        """SIGSTOP. The process goes on when the fault ends."""
        return self._note(Stopped(self._plan("stop"), self.seed, "stop", (at,), at=at, path=path))

    def hold(self, at: Point = "head", *, path: str = "") -> Hold:
        """A request waits at the point until ``release``; ``wait_fired`` tells when it is there."""
        return self._note(Hold(self._plan("hold"), self.seed, "hold", (at,), at=at, path=path))

    def oom(self, at: Point = "head", *, size: int = 64 << 20, path: str = "") -> AtPoint:
        """The process takes ``size`` bytes of memory more. A memory limit of the server may end it; else it gets SIGKILL,
        as from the kernel when memory is short.
        """
        return self._at_point("oom", at, size=size, path=path)

    def close_stream(self, at: Point = "head", *, path: str = "") -> AtPoint:
        """The process closes its streams from the server, and lives on."""
        return self._at_point("close_stream", at, path=path)

    def bad_frame(self, at: Point = "head", *, path: str = "") -> AtPoint:
        """The process sends the server bytes that are not its protocol."""
        return self._at_point("bad_frame", at, path=path)

    def slow_start(self, seconds: float | None = None, *, times: int = 1) -> AtPoint:
        """The next process takes ``seconds`` longer to start."""
        plan = self._plan("slow_start")
        seconds = self.random.uniform(0.5, 2.0) if seconds is None else seconds
        return self._note(AtPoint(plan, self.seed, "slow_start", ("fork",), seconds=seconds, times=times))

    def crash_on_start(self, how: Literal["raise", "exit", "kill"] = "raise", *, times: int = 1) -> AtPoint:
        """The next ``times`` processes fail when they start: by an exception, by exit, by SIGKILL."""
        plan, said = self._plan("crash_on_start"), "a crash at start (a fault of the harness)"
        values = (self.server, plan, self.seed, "crash_on_start", ("fork",))
        return self._note(Deadly(*values, how=how, times=times, message=said, status=1))

    # The machine

    def disk_full(self, after: int = 0) -> DiskFull:
        """The disk for buffers takes ``after`` bytes more."""
        return self._note(DiskFull(self.server, self._machine("disk_full"), self.seed, after=after))

    def slow_disk(self, seconds: float = 0.05) -> SlowDisk:
        """Each write to a buffer on disk takes ``seconds`` longer."""
        return self._note(SlowDisk(self.server, self._machine("slow_disk"), self.seed, seconds=seconds))

    def clock_jump(self, seconds: int | None = None) -> ClockJump:
        """The wall clock of the server and its applications is ``seconds`` ahead; negative: behind."""
        drawn = self.random.choice((-1, 1)) * self.random.randrange(60, 2 * 86_400) if seconds is None else seconds
        return self._note(ClockJump(self.server, self._machine("clock_jump"), self.seed, seconds=drawn))

    def no_descriptors(self, spare: int = 1) -> NoDescriptors:
        """The server can open ``spare`` descriptors more."""
        return self._note(NoDescriptors(self.server, self.seed, spare))

    def pause_supervisor(self, seconds: float | None = None) -> PausedSupervisor:
        """The server does not run, for the length of the block or for ``seconds``."""
        return self._note(PausedSupervisor(self.server, self.seed, seconds))

    # Deploys

    def restart_now(self, at: Point | None = None, *, group: str = "") -> RestartNow:
        """A restart: at once, or in the middle of the next request that comes to the point ``at``."""
        return self._note(
            RestartNow(self.server, None if at is None else self._plan("restart_now"), self.seed, at, group)
        )

    def broken_release(self, how: Literal["raise", "exit", "kill"] = "raise", *, group: str = "") -> BrokenRelease:
        """A restart to a release that cannot be loaded."""
        return self._note(
            BrokenRelease(self.server, self._plan("broken_release"), self.seed, "broken_release", group, how=how)
        )

    def slow_release(self, seconds: float | None = None, *, group: str = "") -> SlowRelease:
        """A restart to a release that takes ``seconds`` to load."""
        seconds = self.random.uniform(0.5, 2.0) if seconds is None else seconds
        return self._note(
            SlowRelease(self.server, self._plan("slow_release"), self.seed, "slow_release", group, seconds=seconds)
        )

    # Parts

    def _drawn(self, value: int | None, least: int, most: int) -> int:
        return self.random.randrange(least, most) if value is None else value

    def _at_point(self, name: str, at: str, **values: object) -> AtPoint:
        plan = self._plan(name)
        if name == "hang":
            return self._note(AtPoint(plan, self.seed, name, (at,), at=at, **values))
        return self._note(Deadly(self.server, plan, self.seed, name, (at,), at=at, **values))

    def _note(self, fault: F) -> F:
        self._on_made(fault)
        return fault

    def _plan(self, name: str) -> Plan:
        self.server  # noqa: B018  it must be ours
        if self.setup is None:
            raise FaultNotPossible(
                f"{name} happens inside of the application: start the server with FaultSetup.environment"
            )
        return self.setup.plan

    def _machine(self, name: str) -> Machine:
        self.server  # noqa: B018  it must be ours
        if self.setup is None or self.setup.machine is None:
            raise FaultNotPossible(f"{name} needs a server that was started with FaultSetup(machine=True).environment")
        return self.setup.machine
