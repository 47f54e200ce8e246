"""Section 2 of the contract: the end, by shutdown, by a signal, and when the supervisor is gone."""

from __future__ import annotations

import random
import signal
import threading

from passenger_trio.testing.conformance.basis import EXIT_TIMEOUT, TIMEOUT, eventually, expect
from passenger_trio.testing.conformance.observations import accepts, expect_clean_exit, expect_end_after_supervisor
from passenger_trio.testing.conformance.streams import Response
from passenger_trio.testing.conformance.subject import Stage, check


@check()
def ends_on_shutdown(stage: Stage) -> None:
    """shutdown: finish the sessions in hand, run exit hooks, exit 0."""
    worker = stage.worker()
    with worker.open() as idle, worker.open() as busy:
        expect(idle.request().body == b"hello", "no answer")
        # A worker of concurrency 1 takes the next stream when this one has ended.
        idle.close()
        gate = stage.supervisor.directory / "gate"
        busy.begin("GET", f"/gate?{gate}")
        expect(busy.next_frame() is not None and busy.next_frame() == ("D", b"one"), "no first chunk")
        worker.shut_down()
        gate.touch()
        expect(busy.next_frame() == ("D", b"two"), "the session in hand was not finished")
        expect(busy.next_frame() is not None, "the session in hand has no end")
        expect_clean_exit(stage, worker)


@check()
def ends_idle_streams(stage: Stage) -> None:
    """shutdown: streams that wait for a session do not keep a worker from ending."""
    worker = stage.worker(threads=3)
    with worker.open() as one, worker.open() as two:
        expect(one.request().body == b"hello" and two.request().body == b"hello", "no answer")
        worker.shut_down()
        expect_clean_exit(stage, worker)
        expect(one.ended() and two.ended(), "bytes on an idle stream")


@check()
def finishes_a_session_whose_head_came_before_shutdown(stage: Stage) -> None:
    """shutdown: finish the sessions in hand; a head that the supervisor sent before it is in hand."""
    worker = stage.worker()
    with worker.open() as stream:
        expect(stream.request().body == b"hello", "no answer")
        body = random.Random(1).randbytes(300_000)
        head, rest = stream.encode("POST", "/echo", body)
        stream.send(head)
        worker.shut_down()
        response = Response()
        sender = threading.Thread(target=stream.send, args=(rest,), daemon=True)
        sender.start()
        response = stream.response()
        sender.join(TIMEOUT)
        expect(response.complete and response.body == body, "the session was cut off")
    expect_clean_exit(stage, worker)


@check(protocol="session")
def finishes_a_session_behind_an_unread_body(stage: Stage) -> None:
    """shutdown: a session whose head came before it is finished, also behind a request body that was not read yet."""
    for turn, size in enumerate((10, 66_000)):
        worker = stage.worker()
        gate = stage.supervisor.directory / f"last-{turn}"
        with worker.open() as stream:
            head, body = stream.encode("POST", f"/deaf-gate?{gate}", b"x" * size)
            stream.send(head)
            expect(stream.response().body == b"deaf", "no answer before the body")
            stream.send(body, *stream.encode("POST", "/echo", b"next"))
            worker.shut_down()
            gate.touch()
            response = stream.response()
            expect(response.body == b"next", f"behind {size} bytes: {response}")
            expect_clean_exit(stage, worker)


@check()
def stops_on_sigterm(stage: Stage) -> None:
    """SIGTERM: the same as shutdown."""
    worker = stage.worker()
    gate = stage.supervisor.directory / "gate"
    with worker.open() as stream:
        stream.begin("GET", f"/gate?{gate}")
        expect(stream.next_frame() is not None and stream.next_frame() == ("D", b"one"), "no first chunk")
        worker.kill(signal.SIGTERM)
        gate.touch()
        expect(stream.next_frame() == ("D", b"two"), "the session in hand was not finished")
        expect_clean_exit(stage, worker)


@check()
def treats_shutdown_and_sigterm_as_one_stop(stage: Stage) -> None:
    """SIGTERM: the same as shutdown. Both come when a service manager signals every process of the server: the sessions in hand are finished."""
    worker = stage.worker()
    gate = stage.supervisor.directory / "gate"
    with worker.open() as stream:
        stream.begin("GET", f"/gate?{gate}")
        expect(stream.next_frame() is not None and stream.next_frame() == ("D", b"one"), "no first chunk")
        worker.kill(signal.SIGTERM)
        expect(eventually(lambda: not accepts(worker.socket_path)), "it still accepts streams after SIGTERM")
        worker.shut_down()
        expect(not eventually(lambda: worker.is_gone, 0.3), "it did not wait for the session in hand")
        gate.touch()
        expect(stream.next_frame() == ("D", b"two"), "the session in hand was not finished")
        expect_clean_exit(stage, worker)


@check()
def exits_at_a_second_sigterm(stage: Stage) -> None:
    """A second SIGTERM ends it at once."""
    worker = stage.worker()
    with worker.open() as stream:
        stream.begin("GET", f"/gate?{stage.supervisor.directory / 'gate'}")
        expect(stream.next_frame() is not None and stream.next_frame() == ("D", b"one"), "no first chunk")
        worker.kill(signal.SIGTERM)
        # Two signals that are pending together are one. The first was heard when nobody is let in any more.
        expect(eventually(lambda: not accepts(worker.socket_path)), "it still accepts streams after SIGTERM")
        worker.kill(signal.SIGTERM)
        worker.wait_gone()


@check()
def ignores_sigint(stage: Stage) -> None:
    """SIGINT is ignored, and no program that the application starts inherits that."""
    worker = stage.worker()
    worker.kill(signal.SIGINT)
    expect(worker.request().body == b"hello", "no answer after SIGINT")
    with worker.open() as stream:
        stream.begin("GET", "/sleep?0.05")
        worker.kill(signal.SIGINT)
        expect(stream.response().body == b"done", "the session in hand was disturbed")


@check()
def ends_when_the_supervisor_is_gone(stage: Stage) -> None:
    """End of file: it runs its exit hooks, and its process is gone within 1 second."""
    worker = stage.worker()
    with worker.open() as stream:
        expect(stream.request().body == b"hello", "no answer")
        expect_end_after_supervisor(stage, worker)


@check()
def ends_when_the_supervisor_is_gone_while_it_sleeps(stage: Stage) -> None:
    """End of file, in the middle of a session that sleeps: gone within 1 second, exit hooks and all."""
    worker = stage.worker()
    with worker.open() as stream:
        stream.begin("GET", "/sleep?60")
        expect(eventually(lambda: stream.is_taken), "the session does not begin")
        expect_end_after_supervisor(stage, worker)


@check()
def ends_when_the_supervisor_is_gone_while_it_computes(stage: Stage) -> None:
    """End of file, in the middle of a session that computes: gone within 1 second, exit hooks and all."""
    worker = stage.worker(threads=2)
    with worker.open() as one, worker.open() as two:
        one.begin("GET", "/spin?60")
        two.begin("GET", "/spin?60")
        expect(eventually(lambda: one.is_taken or two.is_taken), "no session begins")
        # One that computes on its event loop takes the second only if that came at the same time.
        in_threads = stage.subject.interrupts and stage.subject.app_type != "asgi"
        expect(not in_threads or eventually(lambda: two.is_taken), "the second session does not begin")
        expect_end_after_supervisor(stage, worker, stage.subject.interrupts)


@check()
def ends_when_the_supervisor_is_gone_while_it_loads(stage: Stage) -> None:
    """End of file while the application is loaded: gone within 1 second."""
    loader = stage.start(preload=stage.subject.preloaded, env={"CONFORMANCE_START": "sleep"}, wait=False)
    while (loader.receive() or {}).get("name") != "load_application":
        pass
    loader.close_control()
    took = loader.wait_gone(EXIT_TIMEOUT + TIMEOUT)
    expect(took < EXIT_TIMEOUT, f"it took {took:.2f} s")


@check()
def ends_when_the_supervisor_is_gone_before_the_options(stage: Stage) -> None:
    """End of file before the options came: gone within 1 second."""
    loader = stage.launch()
    loader.close_control()
    took = loader.wait_gone(EXIT_TIMEOUT + TIMEOUT)
    expect(took < EXIT_TIMEOUT, f"it took {took:.2f} s")


@check()
def ends_on_shutdown_while_it_loads(stage: Stage) -> None:
    """shutdown while the application is loaded: exit 0 (there is no session in hand)."""
    loader = stage.start(preload=stage.subject.preloaded, env={"CONFORMANCE_START": "sleep"}, wait=False)
    while (loader.receive() or {}).get("name") != "load_application":
        pass
    loader.shut_down()
    status = loader.exit_status()
    expect(status == 0, f"exit status {status}; its output: {loader.output.text()!r}")
