"""The subject of the checks (a loader), the stage on which a check runs, and the register of checks.

Checks are registered in the order in which they are written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from passenger_trio.testing.conformance.basis import ConformanceFailure, LoaderFailed
from passenger_trio.testing.conformance.loader import Loader
from passenger_trio.testing.conformance.supervisor import FakeSupervisor


@dataclass(frozen=True)
class Subject:
    """A loader to be checked, with the application that the checks need.

    :ivar command: starts a worker.
    :ivar preload_command: starts a preloader; empty if the loader has none.
    :ivar app_root: directory of the conformance application.
    :ivar startup_file: its file.
    :ivar preloaded: check forked workers instead of started ones.
    :ivar env: variables that the interpreter needs.
    :ivar loop: the option of this name: the event loop of an ASGI application.
    :ivar websocket: its workers take WebSocket sessions.
    :ivar hijack: its applications can take connections over.
    :ivar protocol: of its workers' sockets: ``session`` or ``http``. Checks about frames concern ``session`` only.
    :ivar interrupts: whether the language can interrupt a computing application to run its exit hooks.
    """

    command: tuple[str, ...]
    app_root: str
    startup_file: str
    preload_command: tuple[str, ...] = ()
    preloaded: bool = False
    app_type: str = "wsgi"
    env: Mapping[str, str] = field(default_factory=dict)
    loop: str = "asyncio"
    websocket: bool = False
    hijack: bool = False
    protocol: str = "session"
    interrupts: bool = True

    @contextlib.contextmanager
    def stage(self, *, share: bool = False, beside: Stage | None = None) -> Iterator[Stage]:
        """:param share, beside: see ``Stage``."""
        with FakeSupervisor() as supervisor:
            yield Stage(self, supervisor, share=share, beside=beside)


class Stage:
    """Where a check runs: a subject and a supervisor.

    :ivar share: checks that allow it use the same worker, for interpreters whose start takes seconds.
    :ivar beside: a stage of the same subject that shares: plain workers are forked from its preloader, each for this stage alone.
    """

    def __init__(
        self, subject: Subject, supervisor: FakeSupervisor, *, share: bool = False, beside: Stage | None = None
    ) -> None:
        self.subject = subject
        self.supervisor = supervisor
        self.share = share
        self.beside = beside
        # The preloader was told the name of its file when it was started.
        self.hook_file: Path = beside.hook_file if beside is not None else supervisor.directory / "hooks"
        self._shared: Loader | None = None
        self._preloader: Loader | None = None

    def start(
        self, *, preload: bool, env: Mapping[str, str] | None = None, wait: bool = True, **options: Any
    ) -> Loader:
        subject = self.subject
        return self.supervisor.start(
            subject.preload_command if preload else subject.command,
            subject.app_root,
            subject.startup_file,
            env=self._env(env),
            wait=wait,
            app_type=subject.app_type,
            loop=subject.loop,
            **options,
        )

    def launch(self) -> Loader:
        subject = self.subject
        command = subject.preload_command if subject.preloaded else subject.command
        return self.supervisor.launch(command, subject.app_root, env=self._env(None))

    def worker(self, env: Mapping[str, str] | None = None, **options: Any) -> Loader:
        """A worker, started or forked, as the subject says."""
        shares = self.share and not env and not options
        if shares and self._shared is not None and not self._shared.is_gone:
            return self._shared
        if self.subject.preloaded and self.beside is not None and not env and not options:
            worker = self.supervisor.adopt(self.beside.fork(), self.beside.supervisor)
        elif self.subject.preloaded:
            worker = self.supervisor.fork(self.start(preload=True, env=env, **options))
        else:
            worker = self.start(preload=False, env=env, **options)
        if shares:
            self._shared = worker
        return worker

    def fork(self) -> Loader:
        """A plain worker of its own, from the one preloader of this stage."""
        if self._preloader is None or self._preloader.is_gone:
            self._preloader = self.start(preload=True)
        return self.supervisor.fork(self._preloader)

    def hooks(self) -> list[int]:
        """Pids of the processes that have run their exit hooks."""
        return [int(line) for line in self.hook_file.read_text().split()] if self.hook_file.exists() else []

    def _env(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return {"CONFORMANCE_HOOK_FILE": str(self.hook_file), **self.subject.env, **(env or {})}


@dataclass(frozen=True)
class Check:
    """One check. Call it with a subject; ``clause`` is what the contract says."""

    name: str
    clause: str
    run: Callable[[Stage], None]
    mode: str
    """``"both"``: of a worker that was started, and of one that was forked; ``"started"``; ``"forked"``."""
    shares: bool = False
    """Whether it changes nothing about its worker, so that it can use one of other checks, and leaves it to them."""
    websocket: bool = False
    hijack: bool = False
    protocol: str = ""
    """The only protocol that it concerns, or ``""``."""

    def __str__(self) -> str:
        return self.name

    def concerns(self, subject: Subject) -> bool:
        if (subject.preloaded and not subject.preload_command) or self.protocol not in ("", subject.protocol):
            return False
        if (self.websocket and not subject.websocket) or (self.hijack and not subject.hijack):
            return False
        return self.mode == "both" or (self.mode == "forked") == subject.preloaded

    def __call__(self, subject: Subject, stage: Stage | None = None) -> None:
        """:param stage: one that shares its worker and its preloader, of the same subject. A check that may share no worker has one of its
            own, forked from that preloader; a check about preloaders has a stage of its own.
        :raises ConformanceFailure: the clause is broken.
        """
        try:
            beside = stage if self.mode == "both" else None
            with contextlib.nullcontext(stage) if stage and self.shares else subject.stage(beside=beside) as its_own:
                self.run(its_own)
        except (LoaderFailed, OSError, ValueError) as error:
            raise ConformanceFailure(f"{self.clause}\n{type(error).__name__}: {error}") from error
        except ConformanceFailure as failure:
            raise ConformanceFailure(f"{self.clause}\n{failure}") from failure


registered: list[Check] = []


def check(
    mode: str = "both", *, protocol: str = "", websocket: bool = False, hijack: bool = False, shares: bool = False
) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    def register(function: Callable[[Stage], None]) -> Callable[[Stage], None]:
        clause = " ".join((function.__doc__ or "").split())
        registered.append(Check(function.__name__, clause, function, mode, shares, websocket, hijack, protocol))
        return function

    return register
