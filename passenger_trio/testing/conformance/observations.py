"""What several checks observe: a clean exit, the end after the supervisor's, what a worker says of its process."""

from __future__ import annotations

from pathlib import Path

from passenger_trio.testing.conformance.basis import EXIT_TIMEOUT, TIMEOUT, expect
from passenger_trio.testing.conformance.loader import Loader
from passenger_trio.testing.conformance.streams import Stream
from passenger_trio.testing.conformance.subject import Stage


def expect_clean_exit(stage: Stage, worker: Loader) -> None:
    if stage.subject.preloaded:
        worker.wait_gone()
    else:
        status = worker.exit_status()
        expect(status == 0, f"exit status {status}")
    expect(stage.hooks().count(worker.pid) == 1, f"exit hooks ran in {stage.hooks()}, the worker is {worker.pid}")


def accepts(path: str) -> bool:
    try:
        Stream(path).close()
    except OSError:
        return False
    return True


def expect_end_after_supervisor(stage: Stage, worker: Loader, hooked: bool = True) -> None:
    worker.close_control()
    took = worker.wait_gone(EXIT_TIMEOUT + TIMEOUT)
    expect(took < EXIT_TIMEOUT, f"the process was gone after {took:.2f} s")
    hooks = stage.hooks().count(worker.pid)
    expect(hooks == 1 or not (hooks or hooked), f"exit hooks ran in {stage.hooks()}, the worker is {worker.pid}")


def lines_of(note: Path) -> int:
    return note.read_text().count("\n") if note.exists() else 0


def process_facts(worker: Loader) -> dict[str, str]:
    lines = worker.request("GET", "/process").body.decode().splitlines()
    return dict(line.split("=", 1) for line in lines)
