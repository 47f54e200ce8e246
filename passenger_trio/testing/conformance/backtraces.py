"""Section 2 of the contract: what a process is doing, for a person who asks (OP17)."""

from __future__ import annotations

import os
import time

from passenger_trio.testing.conformance.basis import TIMEOUT, ConformanceFailure, eventually, expect
from passenger_trio.testing.conformance.loader import Loader
from passenger_trio.testing.conformance.subject import Stage, check

_SECRET = "the value of a variable"


def _ask(loader: Loader, number: int) -> str:
    loader.send({"type": "backtrace", "id": number})
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        message = loader.receive()
        if message is None:
            raise ConformanceFailure("it closed its control connection instead of showing its stacks")
        if message["type"] == "backtrace":
            expect(message.get("id") == number, f"id: {message}")
            expect(isinstance(message.get("text"), str), f"text: {message}")
            return str(message["text"])
    raise ConformanceFailure("it did not show its stacks")


@check()
def shows_its_stacks(stage: Stage) -> None:
    """backtrace: each is answered with its id and a text, which has no environment variables; the process serves on."""
    worker = stage.worker(env={"CONFORMANCE_SECRET": _SECRET})
    text = _ask(worker, 1)
    expect("main thread" in text, f"no main thread: {text}")
    expect(stage.subject.app_type != "asgi" or " task " in text, f"no task of the event loop: {text}")
    expect(_SECRET not in text + _ask(worker, 2), "it shows environment variables")
    expect(worker.request().body == b"hello", "no answer after it showed its stacks")
    if stage.subject.preloaded:
        expect("main thread" in _ask(stage.start(preload=True), 1), "a preloader shows nothing")


@check()
def shows_its_stacks_while_it_computes(stage: Stage) -> None:
    """backtrace, in the middle of a session that computes: the text names the application's file."""
    worker = stage.worker(env={"CONFORMANCE_SECRET": _SECRET})
    with worker.open() as stream:
        stream.begin("GET", "/spin?60")
        expect(eventually(lambda: stream.is_taken), "the session does not begin")
        file = os.path.basename(stage.subject.startup_file)
        expect(eventually(lambda: file in _ask(worker, 3)), f"{file} is missing: {worker.messages[-1]}")


@check()
def shows_its_stacks_while_it_loads(stage: Stage) -> None:
    """backtrace while the application is loaded."""
    loader = stage.start(preload=stage.subject.preloaded, env={"CONFORMANCE_START": "sleep"}, wait=False)
    while (loader.receive() or {}).get("name") != "load_application":
        pass
    expect("main thread" in _ask(loader, 1), f"no main thread: {loader.messages[-1]}")


@check()
def shows_its_stacks_at_a_signal(stage: Stage) -> None:
    """backtrace_signal, if there is one: the stacks appear on descriptor 2, and the process serves on."""
    worker = stage.worker(env={"CONFORMANCE_SECRET": _SECRET})
    number = worker.hello.get("backtrace_signal", 0)
    if number:
        worker.kill(number)
        expect(worker.output.wait_for("most recent call"), f"no stacks on its output: {worker.output.text()!r}")
        expect(worker.request().body == b"hello", "no answer after the signal")
