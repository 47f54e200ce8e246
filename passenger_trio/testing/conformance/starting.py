"""Sections 1 and 2 of the contract: the start, and the control connection."""

from __future__ import annotations

import socket
from dataclasses import replace

from passenger_trio.system.unix_peers import peer_credentials
from passenger_trio.testing.conformance.basis import (
    CONTRACT_VERSION,
    TIMEOUT,
    ConformanceFailure,
    LoaderFailed,
    Message,
    expect,
)
from passenger_trio.testing.conformance.loader import Loader
from passenger_trio.testing.conformance.observations import process_facts
from passenger_trio.testing.conformance.subject import Stage, check


@check("started", shares=True)
def says_hello(stage: Stage) -> None:
    """hello: token, contract 1, role, language, version, pid; first line."""
    for preload in (False, True) if stage.subject.preload_command else (False,):
        loader = stage.start(preload=True) if preload else stage.worker()
        hello = loader.hello
        expect(hello.get("contract") == CONTRACT_VERSION, f"contract: {hello}")
        expect(hello.get("role") == ("preloader" if preload else "worker"), f"role: {hello}")
        expect(hello.get("pid") == loader.pid, f"pid: {hello}")
        expect(all(isinstance(hello.get(name), str) and hello[name] for name in ("language", "version")), f"{hello}")


@check("forked", shares=True)
def forked_worker_says_hello(stage: Stage) -> None:
    """A forked process opens its own control connection with the token of the fork message (role worker)."""
    worker = stage.worker()
    expect(worker.hello.get("role") == "worker", f"role: {worker.hello}")
    expect(worker.hello.get("pid") == worker.pid, f"pid: {worker.hello}")


@check(shares=True)
def removes_its_variables(stage: Stage) -> None:
    """The loader removes both variables from its environment before it loads the application."""
    names = process_facts(stage.worker())["variables"].split()
    left = [name for name in names if name.startswith("PASSENGER_TRIO_SPAWN_")]
    expect(not left, f"the application sees {left}")


@check()
def reports_steps(stage: Stage) -> None:
    """Steps in this order, each as in_progress and then performed with a duration; then ready. A worker may have a start_up."""
    worker = stage.worker()
    wanted = ["after_fork", "listen"] if stage.subject.preloaded else ["prepare_runtime", "load_application", "listen"]
    _expect_steps(worker, wanted)
    if stage.subject.preloaded:
        _expect_steps(stage.start(preload=True), ["prepare_runtime", "load_application"])


def _expect_steps(loader: Loader, wanted: list[str]) -> None:
    steps = [message for message in loader.messages if message["type"] == "step"]
    told = [(step["name"], step["state"]) for step in steps]
    if ("start_up", "in_progress") in told:
        wanted = [*wanted[:-1], "start_up", wanted[-1]]
    expect(told == [(name, state) for name in wanted for state in ("in_progress", "performed")], f"{told}")
    durations = [step.get("duration") for step in steps if step["state"] == "performed"]
    expect(all(isinstance(duration, float | int) and 0 <= duration < TIMEOUT for duration in durations), f"{durations}")
    expect(loader.messages[-1]["type"] == "ready", f"{loader.messages[-1]}")


@check()
def listens_on_its_path(stage: Stage) -> None:
    """ready: a worker names its concurrency and its socket, on exactly the path of the options. A preloader has no socket."""
    worker = stage.worker(threads=3)
    wanted = {"address": f"unix:{worker.socket_path}", "protocol": stage.subject.protocol, "concurrency": 3}
    told = worker.messages[-1].get("sockets")
    if stage.subject.websocket:
        wanted = {**wanted, "websocket": True}
    expect(told == [wanted], f"{worker.messages[-1]}")
    if stage.subject.preloaded:
        preloader = stage.start(preload=True)
        expect(not preloader.messages[-1].get("sockets"), f"{preloader.messages[-1]}")


@check(shares=True)
def listens_itself(stage: Stage) -> None:
    """The worker itself calls listen() on its socket: the supervisor compares the kernel's credentials of the listener with the worker's pid (KE5)."""
    worker = stage.worker()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(worker.socket_path)
        listener = peer_credentials(sock)
    expect(listener.pid == worker.pid, f"pid {listener.pid} listens, and not the worker (pid {worker.pid})")


@check()
def ignores_unknown_members_and_types(stage: Stage) -> None:
    """Unknown members are ignored; an unknown type is ignored by a loader."""
    worker = stage.worker(a_member_of_next_year=[1, 2, 3])
    worker.send({"type": "something_of_next_year", "fields": {}})
    expect(worker.request().body == b"hello", "no answer after an unknown message")
    if stage.subject.preloaded:
        preloader = stage.start(preload=True)
        preloader.send({"type": "something_of_next_year"})
        expect(stage.supervisor.fork(preloader).request().body == b"hello", "no fork after an unknown message")


@check()
def understands_messages_in_pieces(stage: Stage) -> None:
    """Each message is one JSON object on one line. A line may arrive in pieces, and pieces may hold several lines."""
    worker = stage.worker()
    for byte in b'{"type": "next_year"}\n{"type": "shutd':
        worker.control.sendall(bytes((byte,)))
    worker.control.sendall(b'own"}\n{"type": "next_year"}\n')
    worker.wait_gone()


@check()
def reports_a_failed_start(stage: Stage) -> None:
    """error: category, summary, problem, solution, traceback, details; the loader then exits with status 1."""
    loader = stage.start(preload=stage.subject.preloaded, env={"CONFORMANCE_START": "raise"}, wait=False)
    message = _expect_error(loader)
    expect(message["category"] == "application", f"category: {message}")
    expect(
        "conformance" in message["summary"] or "conformance" in message["problem"], f"the text is missing: {message}"
    )
    errored = [step for step in loader.messages if step.get("state") == "errored"]
    expect([step["name"] for step in errored] == ["load_application"], f"steps: {errored}")


@check()
def cuts_long_texts(stage: Stage) -> None:
    """No line is over 65536 bytes: texts are cut at their front."""
    _expect_error(stage.start(preload=stage.subject.preloaded, env={"CONFORMANCE_START": "raise-long"}, wait=False))


@check()
def survives_an_exit_at_load(stage: Stage) -> None:
    """error: an application that ends the process while it is loaded has failed to start."""
    _expect_error(stage.start(preload=stage.subject.preloaded, env={"CONFORMANCE_START": "exit"}, wait=False))


@check()
def reports_a_missing_file(stage: Stage) -> None:
    """error, category configuration: what is to be loaded does not exist."""
    subject = replace(stage.subject, startup_file="there_is_no_such_file")
    stage = Stage(subject, stage.supervisor)
    message = _expect_error(stage.start(preload=subject.preloaded, wait=False))
    expect(message["category"] == "configuration", f"category: {message}")


def _expect_error(loader: Loader) -> Message:
    try:
        loader.expect("ready")
    except LoaderFailed as failure:
        message = failure.message
    else:
        raise ConformanceFailure("it became ready")
    expect(bool(message), "it ended without an error message")
    texts = ("category", "summary", "problem", "solution", "traceback", "details")
    expect(all(isinstance(message.get(name), str) for name in texts), f"members: {message}")
    expect(message["category"] in ("application", "configuration", "loader"), f"category: {message['category']}")
    expect(bool(message["summary"]), "no summary")
    status = loader.exit_status()
    expect(status == 1, f"exit status {status}")
    return message
