"""How processes of the Python WSGI loader end: with the supervisor, when they are told, and never by accident."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from python_wsgi import APPS, ROOT, command, worker_of

from passenger_trio.testing.conformance import FakeSupervisor, Loader, eventually, frame, request_head

pytestmark = pytest.mark.os

LAST_SECOND = 1.0


@contextlib.contextmanager
def stubborn(threads: int = 1, *, preloaded: bool = False) -> Iterator[tuple[Loader, Path]]:
    """A worker that does not want to end, and the file that its exit hook writes to."""
    with FakeSupervisor() as supervisor:
        note = supervisor.directory / "note"
        env = {"HOOK_FILE": str(note)}
        loader = supervisor.start(command(preload=preloaded), APPS / "stubborn", "app.py", env=env, threads=threads)
        yield (supervisor.fork(loader) if preloaded else loader), note


# The supervisor is gone


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("path", ["/sleep", "/spin", "/swallow", "/lock", "/take-sigterm"])
def test_nothing_in_a_session_outlives_the_supervisor(path: str, threads: int) -> None:
    """Gone within a second, and the exit hooks have run, once: in the main thread where it can be interrupted."""
    with stubborn(threads) as (worker, note), worker.open() as stream:
        stream.begin("GET", path)
        assert eventually(lambda: stream.is_taken)
        if path == "/swallow":
            # It is where it swallows, and not still on its way there.
            assert [stream.next_frame() for _ in range(2)][1] == ("D", b"begun\n")
        worker.close_control()
        assert worker.wait_gone() < LAST_SECOND
        in_main = threads > 1 or path != "/swallow"
        assert note.read_text().count("hook in ") == 1
        assert ("MainThread" in note.read_text()) == in_main


@pytest.mark.parametrize("preloaded", [False, True], ids=["started", "forked"])
def test_a_call_that_keeps_the_interpreter_lock_does_not_outlive_the_supervisor(preloaded: bool) -> None:
    """A regular expression that backtracks for years: no other thread runs, but signals are heard."""
    with stubborn(preloaded=preloaded) as (worker, note), worker.open() as stream:
        stream.begin("GET", "/keep-the-lock")
        assert [stream.next_frame() for _ in range(2)][1] == ("D", b"begun\n")
        worker.close_control()
        assert worker.wait_gone() < LAST_SECOND
        assert note.read_text().count("hook in MainThread") == 1


@pytest.mark.parametrize("preloaded", [False, True], ids=["started", "forked"])
@pytest.mark.parametrize("path", ["/", "/thread", "/slow-hook", "/take-wakeup", "/default-sigterm"])
def test_nothing_between_sessions_outlives_the_supervisor(path: str, preloaded: bool) -> None:
    """Threads that are no daemons, hooks that hang, signals that were taken."""
    with stubborn(preloaded=preloaded) as (worker, note), worker.open() as stream:
        assert stream.request("GET", path).body == b"done"
        worker.close_control()
        assert worker.wait_gone() < LAST_SECOND
        if path != "/slow-hook":  # it hangs in front of the hook that writes
            assert note.read_text().count("hook in ") == 1


def test_a_full_output_pipe_does_not_outlive_the_supervisor() -> None:
    """The worker is stuck in print(): whoever read its output stopped, and lives on."""
    with FakeSupervisor() as supervisor:
        worker = supervisor.start(
            command(), APPS / "stubborn", "app.py", env={"HOOK_FILE": str(supervisor.directory / "note")}
        )
        worker.output.stop_reading()
        with worker.open() as stream:
            stream.begin("GET", "/fill-output")
            assert eventually(lambda: stream.is_taken)
            worker.close_control()
            assert worker.wait_gone() < LAST_SECOND


def test_no_process_outlives_a_supervisor_that_was_killed() -> None:
    """SIGKILL, which nothing can be done about: the kernel closes the connections, and that is the word."""
    script = textwrap.dedent(
        """
        import sys, time
        sys.path[:0] = [{root!r}, {here!r}]
        from python_wsgi import APPS, command
        from passenger_trio.testing.conformance import FakeSupervisor
        supervisor = FakeSupervisor()
        env = {{"HOOK_FILE": "/dev/null"}}
        root = APPS / "stubborn"
        workers = [supervisor.start(command(), root, "app.py", env=env, threads=number) for number in (1, 2)]
        preloader = supervisor.start(command(preload=True), root, "app.py", env=env)
        workers += [supervisor.fork(preloader) for _ in range(3)]
        streams = [worker.open() for worker in workers]
        for stream, path in zip(streams, ("/sleep", "/spin", "/", "/swallow", "/sleep")):
            stream.begin("GET", path)
            while not stream.is_taken:
                pass
        print(supervisor.directory, *[loader.pid for loader in [preloader, *workers]], flush=True)
        time.sleep(60)
        """
    ).format(root=str(ROOT), here=str(Path(__file__).parent))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as supervisor:
        assert supervisor.stdout is not None
        directory, *pids = supervisor.stdout.readline().split()
        pidfds = [os.pidfd_open(int(pid)) for pid in pids]
        assert len(pidfds) == 6
        supervisor.kill()
        deadline = time.monotonic() + LAST_SECOND
        try:
            for pidfd in pidfds:
                assert select.select([pidfd], [], [], max(0, deadline - time.monotonic()))[0], (
                    "still there after a second"
                )
        finally:
            for pidfd in pidfds:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
            left = sorted(path.name for path in Path(directory).iterdir())
            shutil.rmtree(directory)
        assert left == ["spawn.sock"]


# Told to stop


def test_sigterm_works_although_the_application_took_the_wakeup_descriptor() -> None:
    with stubborn() as (worker, note), worker.open() as stream:
        assert stream.request("GET", "/take-wakeup").body == b"done"
        worker.kill(signal.SIGTERM)
        assert worker.exit_status() == 0
        assert note.read_text().count("hook in MainThread") == 1


def test_a_second_sigterm_ends_a_worker_that_is_stuck() -> None:
    """Even in one call into C that lets no signal handler of Python run."""
    with stubborn() as (worker, _), worker.open() as stream:
        stream.begin("GET", "/swallow")
        assert eventually(lambda: stream.is_taken)
        worker.kill(signal.SIGTERM)
        assert eventually(lambda: _refuses(worker))
        worker.kill(signal.SIGTERM)
        assert worker.exit_status() in (-signal.SIGTERM, 128 + signal.SIGTERM)


def _refuses(worker: Loader) -> bool:
    try:
        worker.open().close()
    except OSError:
        return True
    return False


def test_a_session_that_waits_in_the_queue_is_in_hand() -> None:
    """Its stream was connected, and its head sent, before the worker was told to stop."""
    with worker_of("conformance") as worker, worker.open() as first, worker.open() as second:
        first.begin("GET", "/sleep?0.2")
        assert eventually(lambda: first.is_taken)
        second.begin()
        worker.shut_down()
        assert first.response().body == b"done"
        first.close()
        assert second.response().body == b"hello"
        assert worker.exit_status() == 0


def test_stopping_races_with_sessions_that_begin() -> None:
    """Head and body in pieces, around the moment of the stop: what was begun before it is finished, always."""
    for round in range(20):
        with worker_of("conformance", threads=2) as worker, worker.open() as one, worker.open() as two:
            one.request()
            two.request()
            one.send(frame("H", request_head("POST", "/echo")), frame("D", b"some"))
            if round % 2:
                one.send(frame("D", b"thing"))
            worker.shut_down()
            if not round % 2:
                one.send(frame("D", b"thing"))
            one.send(frame("E"))
            assert one.response().body == b"something"
            assert worker.exit_status() == 0


def test_the_socket_is_removed() -> None:
    with worker_of("hello") as worker:
        assert Path(worker.socket_path).is_socket()
        assert Path(worker.socket_path).stat().st_mode & 0o777 == 0o600
        worker.shut_down()
        worker.wait_gone()
        assert not Path(worker.socket_path).exists()
    with worker_of("hello") as worker:
        worker.close_control()
        worker.wait_gone()
        assert not Path(worker.socket_path).exists()


# Processes that the application forks


def test_forked_processes_of_the_application_are_its_own() -> None:
    """SIGTERM and Ctrl-C work in them as in any process, and they hold nothing of ours open."""
    with worker_of("forks") as worker, worker.open() as stream:
        for _ in range(20):
            # The signal is there before the child has come to itself.
            assert stream.request("GET", "/terminate").body == b"%d" % -signal.SIGTERM
        assert stream.request("GET", "/interrupt").body == b"42"
        theirs = set(stream.request("GET", "/descriptors").body.decode().split())
        ours = {os.readlink(path) for path in Path(f"/proc/{worker.pid}/fd").iterdir()}
        assert not theirs & ours


def test_a_forked_process_does_not_hold_a_stream_open() -> None:
    """The end of an incomplete response is seen although a child of the application lives on."""
    with worker_of("forks") as worker:
        response = worker.request("GET", "/incomplete")
        assert (response.body, response.complete) == (b"short", False)
        os.killpg(worker.pid, signal.SIGKILL)


def test_a_forked_process_that_comes_back_does_not_answer() -> None:
    """The application forgot to end its child, which returns into the loader: the stream is the parent's."""
    with worker_of("forks") as worker, worker.open() as stream:
        response = stream.request("GET", "/stray")
        assert (response.body, response.complete) == (b"the parent", True)
        assert stream.request("GET", "/").status == 200


# The preloader


def test_workers_share_what_was_loaded_and_nothing_else() -> None:
    with FakeSupervisor() as supervisor:
        preloader = supervisor.start(command(preload=True), APPS / "shared_state", "app.py")
        workers = [supervisor.fork(preloader) for _ in range(3)]
        facts = []
        for worker in workers:
            for count in (1, 2):
                lines = worker.request().body.decode().splitlines()
                facts.append(dict(line.split("=", 1) for line in lines))
                assert facts[-1]["counter"] == str(count)
                assert facts[-1]["pid"] == str(worker.pid)
        assert {fact["loaded_by"] for fact in facts} == {str(preloader.pid)}
        assert len({fact["random"] for fact in facts}) == len(facts)
        assert {fact["after_fork"] for fact in facts} == {"True"}
        assert {fact["frozen"] for fact in facts} == {"True"}
        assert {fact["collects"] for fact in facts} == {"True"}
        # The generator is the application's own, seeded by it on purpose: it is left as it was.
        assert len({fact["own_generator"] for fact in facts}) == 2
        # What stood in a buffer when it forked is not printed again by each.
        assert preloader.output.wait_for("an unfinished line, in the buffer when it forks")
        assert all("unfinished" not in worker.output.text() for worker in workers)


def test_a_preloader_without_children_runs_its_hooks() -> None:
    for ending in ("shutdown", "hang up"):
        with FakeSupervisor() as supervisor:
            note = supervisor.directory / "note"
            env = {"HOOK_FILE": str(note)}
            preloader = supervisor.start(command(preload=True), APPS / "stubborn", "app.py", env=env)
            if ending == "shutdown":
                worker = supervisor.fork(preloader)
                worker.shut_down()
                preloader.expect("child_exited")
                preloader.shut_down()
                assert preloader.exit_status() == 0
                assert note.read_text().count("hook in MainThread") == 2
            else:
                preloader.close_control()
                assert preloader.wait_gone() < LAST_SECOND
                assert note.read_text().count("hook in MainThread") == 1


def test_a_fork_that_the_system_refuses(tmp_path: Path) -> None:
    """fork_failed, and the preloader lives. The refusal is played by a limit on processes, which root is not bound by."""
    (tmp_path / "app.py").write_text(
        "import errno\n"
        "import passenger_trio_loader.preloading.preloader as loader\n"
        "fork, calls = loader.fork, []\n"
        "def refuse():\n"
        "    calls.append(1)\n"
        "    if len(calls) == 1: raise OSError(errno.EAGAIN, 'Resource temporarily unavailable')\n"
        "    return fork()\n"
        "loader.fork = refuse\n"
        "from wsgiref.simple_server import demo_app as app\n"
    )
    with FakeSupervisor() as supervisor:
        preloader = supervisor.start(command(preload=True), tmp_path, "app.py")
        reading, writing = os.pipe()
        preloader.send({"type": "fork", "token": "refused"}, [writing])
        os.close(writing)
        failed = preloader.expect("fork_failed")
        assert failed["token"] == "refused"
        assert "temporarily unavailable" in failed["problem"]
        assert os.read(reading, 1) == b"", "the preloader keeps the descriptor"
        os.close(reading)
        assert supervisor.fork(preloader).request().status == 200
