"""Section 2 of the contract: a preloader, and what it forks."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from passenger_trio.testing.conformance.basis import EXIT_TIMEOUT, TIMEOUT, expect
from passenger_trio.testing.conformance.basis import eventually as soon
from passenger_trio.testing.conformance.loader import Loader, Output
from passenger_trio.testing.conformance.observations import expect_end_after_supervisor, process_facts
from passenger_trio.testing.conformance.subject import Stage, check
from passenger_trio.testing.harness import eventually, is_running


@check("forked")
def loads_once(stage: Stage) -> None:
    """A preloader loads the application once; each fork is a process of its own, with its own random numbers."""
    preloader = stage.start(preload=True)
    workers = [stage.supervisor.fork(preloader) for _ in range(3)]
    facts = [process_facts(worker) for worker in workers]
    expect({fact["loaded_by"] for fact in facts} == {str(preloader.pid)}, f"loaded by {facts}")
    expect([fact["pid"] for fact in facts] == [str(worker.pid) for worker in workers], f"pids {facts}")
    expect(len({fact["random"] for fact in facts}) == len(facts), f"the same random numbers: {facts}")


@check("forked")
def reports_forks_and_exits(stage: Stage) -> None:
    """forked: token, pid. child_exited: pid, status (as of waitpid). A preloader reaps the processes that it forked."""
    preloader = stage.start(preload=True)
    worker = stage.supervisor.fork(preloader)
    forked = preloader.expect("forked")
    expect(forked.get("pid") == worker.pid and forked.get("token") == worker.hello["token"], f"{forked}")
    worker.kill(signal.SIGKILL)
    exited = preloader.expect("child_exited")
    expect((exited.get("pid"), exited.get("status")) == (worker.pid, int(signal.SIGKILL)), f"{exited}")
    expect(not Path(f"/proc/{worker.pid}").exists(), "the process was not reaped")
    worker = stage.supervisor.fork(preloader)
    worker.shut_down()
    exited = preloader.expect("child_exited")
    expect((exited.get("pid"), exited.get("status")) == (worker.pid, 0), f"{exited}")


@check("forked")
def separates_a_fork(stage: Stage) -> None:
    """A forked process leads its own process group, and has no descriptor of the preloader's or of its siblings'."""
    preloader = stage.start(preload=True)
    first, second = stage.supervisor.fork(preloader), stage.supervisor.fork(preloader)
    for worker in (first, second):
        expect(os.getpgid(worker.pid) == worker.pid, f"process group {os.getpgid(worker.pid)} of {worker.pid}")
    # A fork may be ready before its preloader has closed what it was to pass on.
    shared: set[str] = set()
    for one, other in ((preloader, first), (preloader, second), (first, second)):
        if not soon(lambda one=one, other=other: not _descriptors(one) & _descriptors(other)):  # type: ignore[misc]
            shared |= _descriptors(one) & _descriptors(other)
    expect(not shared, f"shared descriptors: {shared}")


def _descriptors(loader: Loader) -> set[str]:
    """Its sockets and pipes."""
    folder = Path(f"/proc/{loader.pid}/fd")
    targets = {os.readlink(entry) for entry in folder.iterdir()}
    return {target for target in targets if target.startswith(("socket:", "pipe:"))}


@check("forked")
def gives_a_fork_its_output(stage: Stage) -> None:
    """A forked process puts the attached descriptor on 1 and 2."""
    preloader = stage.start(preload=True)
    worker = stage.supervisor.fork(preloader)
    expect(worker.request("GET", "/print?to-its-own-pipe").body == b"printed", "no answer")
    expect(worker.output.wait_for("to-its-own-pipe\n"), f"the output of the worker: {worker.output.text()!r}")
    expect("to-its-own-pipe" not in preloader.output.text(), "it went to the preloader's pipe")


@check("forked")
def reports_hazards(stage: Stage) -> None:
    """ready: a preloader reports what the application holds that processes cannot share, and nothing else. It forks all the same on request (OP15)."""
    for start, wanted in (("thread", ["thread"]), ("", [])):
        preloader = stage.start(preload=True, env={"CONFORMANCE_START": start})
        hazards = preloader.messages[-1].get("hazards", [])
        expect([hazard.get("kind") for hazard in hazards] == wanted, f"{hazards}")
        expect(all(isinstance(hazard.get("what"), str) and hazard["what"] for hazard in hazards), f"{hazards}")
        expect(stage.supervisor.fork(preloader).request().body == b"hello", "no fork")


@check("forked")
def serves_on_request(stage: Stage) -> None:
    """serve: in place of its first fork a preloader goes on as a worker, and ends as one (OP15)."""
    preloader = stage.start(preload=True, env={"CONFORMANCE_START": "thread"})
    preloader.send({"type": "serve"})
    ready = preloader.expect("ready")
    expect(
        [found.get("address") for found in ready.get("sockets", ())] == [f"unix:{preloader.socket_path}"], f"{ready}"
    )
    facts = process_facts(preloader)
    expect((facts["pid"], facts["loaded_by"]) == (str(preloader.pid),) * 2, f"{facts}")
    preloader.shut_down()
    expect(preloader.exit_status() == 0, f"exit status {preloader.exit_status()}")
    expect(stage.hooks() == [preloader.pid], f"exit hooks were run in {stage.hooks()}, the worker is {preloader.pid}")


@check("forked")
def refuses_a_fork_without_output(stage: Stage) -> None:
    """fork_failed: token, problem. One descriptor is attached to a fork message; without it there is no fork."""
    preloader = stage.start(preload=True)
    preloader.send({"type": "fork", "token": "without"})
    failed = preloader.expect("fork_failed")
    expect(failed.get("token") == "without" and bool(failed.get("problem")), f"{failed}")
    expect(stage.supervisor.fork(preloader).request().body == b"hello", "no fork after that")


@check("forked")
def forks_many_at_once(stage: Stage) -> None:
    """fork messages may follow each other without a pause; each has its own descriptor."""
    preloader = stage.start(preload=True)
    outputs = [Output() for _ in range(5)]
    try:
        for number, output in enumerate(outputs):
            preloader.send({"type": "fork", "token": f"many-{number}"}, [output.writing])
            output.close_writing_end()
        pids = {}
        for _ in outputs:
            message = preloader.expect("forked")
            pids[message["token"]] = message["pid"]
        expect(len(set(pids.values())) == len(outputs), f"{pids}")
    finally:
        # Nobody answers their hello: the end of the connection that is never accepted ends them.
        stage.supervisor._listener.close()
        for output in outputs:
            output.close()
    # Until then they may make files in a directory that is about to be removed.
    eventually(lambda: not any(map(is_running, pids.values())), TIMEOUT, "the end of processes that nobody answered")


@check("forked")
def preloader_ends_on_shutdown(stage: Stage) -> None:
    """At end of file or shutdown the preloader exits; the processes it forked live on."""
    preloader = stage.start(preload=True)
    worker = stage.supervisor.fork(preloader)
    preloader.shut_down()
    expect(preloader.exit_status() == 0, f"exit status {preloader.exit_status()}")
    expect(worker.request().body == b"hello", "the worker does not live on")
    expect(stage.hooks() == [], f"exit hooks were run in {stage.hooks()}, the worker is {worker.pid}")
    expect_end_after_supervisor(stage, worker)


@check("forked")
def preloader_ends_when_the_supervisor_is_gone(stage: Stage) -> None:
    """End of file: a preloader is gone within 1 second; the processes it forked have control connections of their own."""
    preloader = stage.start(preload=True)
    worker = stage.supervisor.fork(preloader)
    preloader.close_control()
    took = preloader.wait_gone(EXIT_TIMEOUT + TIMEOUT)
    expect(took < EXIT_TIMEOUT, f"it took {took:.2f} s")
    expect(worker.request().body == b"hello", "the worker does not live on")


@check("forked")
def preloader_stops_on_sigterm(stage: Stage) -> None:
    """SIGTERM to a preloader is the same as shutdown."""
    preloader = stage.start(preload=True)
    preloader.kill(signal.SIGTERM)
    status = preloader.exit_status()
    expect(status == 0, f"exit status {status}")
