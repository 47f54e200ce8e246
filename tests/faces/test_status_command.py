"""``passenger-trio status``: what it shows of a running instance, how it finds the one that is meant, whom its socket answers.

Starts the command: where its socket's mode and other instances are the subject.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faces_tools import BEHAVES, BEHAVIOURS, HELLO, clients, gate, in_threads, run_command, write_app

from passenger_trio.admin.client import fetch_status
from passenger_trio.admin.instances import list_instances
from passenger_trio.testing import RawClient, Supervisor, eventually
from passenger_trio.testing.live_app import LiveApp
from passenger_trio.testing.live_log import LiveLog

pytestmark = pytest.mark.os


@pytest.fixture
def runtime() -> Iterator[dict[str, str]]:
    """The environment in which instances are found that are started in it, and no others."""
    with tempfile.TemporaryDirectory(prefix="pt-") as directory:
        yield {"XDG_RUNTIME_DIR": directory, "TMPDIR": directory}


def start(runtime: dict[str, str], *arguments: str) -> Supervisor:
    """With a directory that can be found."""
    return Supervisor.start(BEHAVIOURS, "--instance-dir", "", *arguments, env=runtime)


def status_of(server: Supervisor, *arguments: str) -> str:
    """What the command prints; told by its pid which is meant, for whoever runs these tests may have instances of his own."""
    done = run_command(
        "status",
        str(server.pid),
        *arguments,
        env={"XDG_RUNTIME_DIR": str(Path(server.ready["admin_socket"]).parents[2])},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


class TestWhatItShows:
    def test_as_text(self, runtime: dict[str, str]) -> None:
        with (
            gate() as it,
            clients(1) as send,
            start(runtime, "--min-instances", "2", "--max-pool-size", "3", *it.arguments) as server,
        ):
            assert server.get("/pid").status == 200
            busy = send(server, "/gate")
            pid = it.wait_arrival()
            shown = status_of(server)
            for process in server.pids:
                assert f"PID: {process}" in shown
            line = next(line for line in shown.splitlines() if f"PID: {pid}" in line)
            assert "Sessions: 1/1" in line
            assert "behaviours" in shown
            assert str(BEHAVIOURS) in shown
            assert server.url in shown
            it.open()
            assert busy.result().status == 200

    def test_as_json_everything_that_the_issue_names(self, runtime: dict[str, str]) -> None:
        with start(runtime, "--thread-count", "2") as server:
            for _ in range(5):
                server.get("/pid")
            told: dict[str, Any] = json.loads(status_of(server, "--json"))
            assert told["pid"] == server.pid
            assert told["addresses"] == server.ready["addresses"]
            assert told["pool"] == {"max": 6, "size": 1, "detached": 0, "spawning": 0, "queue": 0, "memory": None}
            [group] = told["groups"]
            assert (group["name"], group["environment"], group["queue"]) == ("behaviours", "development", 0)
            [process] = group["processes"]
            assert process["pid"] == server.pids[0]
            assert (process["sessions"], process["concurrency"], process["processed"]) == (0, 2, 5)
            assert process["memory"]["pss"] > 0
            assert process["cpu"] >= 0
            assert 0 <= process["last_used"] <= process["uptime"] <= told["uptime"] + 1

    def test_who_waits_and_what_does_not_start(self, runtime: dict[str, str], tmp_path: Path) -> None:
        with gate() as it, clients(3) as send, start(runtime, "--max-pool-size", "1", *it.arguments) as server:
            answers = [send(server, "/gate") for _ in range(3)]
            it.wait_arrival()
            eventually(lambda: server.status()["pool"]["queue"] == 2)
            assert "Requests in queue : 2\n" in status_of(server)
            for _ in range(2):
                it.open()
                it.wait_arrival()
            it.open()
            assert {answer.result().status for answer in answers} == {200}
        root = write_app(tmp_path / "broken", HELLO + "\nraise ValueError('the moon is full')\n")
        with Supervisor.start(root, "--instance-dir", "", env=runtime) as server:
            assert "the moon is full" in status_of(server)

    def test_a_process_that_is_told_to_go_but_has_work_left(self, runtime: dict[str, str]) -> None:
        with (
            gate() as it,
            clients(1) as send,
            start(runtime, "--process-shutdown-timeout", "30s", *it.arguments) as server,
        ):
            answer = send(server, "/gate")
            pid = it.wait_arrival()
            server.send_signal(signal.SIGTERM)
            server.wait_log("draining")
            told = json.loads(status_of(server, "--json"))
            assert told["stopping"] is True
            assert [process["pid"] for process in told["groups"][0]["processes"]] == [pid]
            it.open()
            assert answer.result().status == 200


class TestWhichInstance:
    def test_none_is_exit_code_1_and_a_sentence(self, runtime: dict[str, str]) -> None:
        cases: list[list[str]] = [["nobody"], ["/nowhere/at/all"], ["4711"], ["nobody", "--json"]]
        if not list_instances():  # whoever runs these tests may have instances of his own
            cases += [[], ["--json"]]
        for arguments in cases:
            done = run_command("status", *arguments, env=runtime)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.startswith("passenger-trio: no instance ")
            assert "Traceback" not in done.stderr

    def test_the_only_one_need_not_be_named(self, runtime: dict[str, str]) -> None:
        with start(runtime) as server:
            done = run_command("status", "--json", env=runtime)
            if list_instances():
                assert (done.returncode, f"pid {server.pid}" in done.stderr) == (1, True)
            else:
                assert json.loads(done.stdout)["pid"] == server.pid

    def test_two_are_listed_and_either_can_be_chosen_by_name_pid_or_directory(self, runtime: dict[str, str]) -> None:
        with start(runtime) as first, start(runtime) as second:
            done = run_command("status", env=runtime)
            assert done.returncode == 1
            for server in (first, second):
                assert f"pid {server.pid}" in done.stderr
                assert server.url in done.stderr
                directory = Path(server.ready["admin_socket"]).parent
                assert directory.name in done.stderr
                for chosen in (directory.name, str(server.pid), str(directory)):
                    told = run_command("status", chosen, "--json", env=runtime)
                    assert told.returncode == 0, told.stderr
                    assert json.loads(told.stdout)["pid"] == server.pid
            assert run_command("status", "neither", env=runtime).returncode == 1

    def test_one_that_was_killed_is_not_taken_for_a_living_one(self, runtime: dict[str, str]) -> None:
        with start(runtime) as dead, start(runtime) as living:
            dead.kill()
            assert json.loads(status_of(living, "--json"))["pid"] == living.pid
            done = run_command("status", str(dead.pid), env=runtime)
            assert done.returncode == 1
            assert f"pid {dead.pid} " not in done.stderr

    def test_one_that_does_not_answer(self, runtime: dict[str, str]) -> None:
        """It is there, but its supervisor was stopped."""
        with start(runtime) as server:
            server.send_signal(signal.SIGSTOP)
            try:
                done = run_command("status", str(server.pid), env=runtime)
                assert done.returncode == 1
                assert "did not answer" in done.stderr
            finally:
                server.send_signal(signal.SIGCONT)
            status_of(server)


@BEHAVES
class TestTheAdminSocket:
    """F60."""

    def test_is_for_its_owner(self, live_app: LiveApp) -> None:
        """R49: the file's mode and its directory's; there is no password that could be empty, and nothing listens on TCP for it."""
        server = live_app.server
        path = Path(server.ready["admin_socket"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_refuses_another_user_that_comes_through(self, live_app: LiveApp, passenger_log: LiveLog) -> None:
        """The file's mode stops him; and if it did not, the kernel's word would: here the mode lets everybody in. (Only root can play somebody else.)"""
        stranger = 65534 if os.geteuid() == 0 else os.geteuid()
        caller = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b'GET /v1/status HTTP/1.0\\r\\n\\r\\n')\n"
        caller += "while data := s.recv(65536): print(data.decode(), end='')"
        server = live_app.server
        path = str(server.ready["admin_socket"])
        modes = {place: os.stat(place).st_mode for place in (path, str(server.home), str(server.instance_dir))}
        for place in modes:
            os.chmod(place, 0o666 if place == path else 0o755)
        try:
            told = subprocess.run(
                ["/usr/bin/env", "python3", "-c", caller, path],
                capture_output=True,
                text=True,
                check=True,
                user=stranger,
                extra_groups=[] if stranger == 65534 else None,
            ).stdout
        finally:
            for place, mode in modes.items():
                os.chmod(place, stat.S_IMODE(mode))
        if stranger == 65534:
            assert told.startswith("HTTP/1.1 403 ")
            assert "groups" not in told
            passenger_log.wait("user 65534")
        else:
            assert told.startswith("HTTP/1.1 200 ")

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
            (b"POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
            (b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", 413),
            (b"POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000, 413),
            (b"GET /v1/status?x=y HTTP/1.1\r\nHost: x\r\n\r\n", 200),
            (b"GET /v1/status HTTP/1.0\r\n\r\n", 200),
        ],
    )
    def test_answers_what_is_wrong(self, live_app: LiveApp, request_: bytes, status: int) -> None:
        server = live_app.server
        with RawClient(str(server.ready["admin_socket"])) as client:
            try:
                client.send(request_)
            except BrokenPipeError:
                assert status == 413
            assert client.read_response().status == status
            assert server.status()["pid"] == server.pid

    def test_garbage_and_callers_that_say_nothing_cost_nothing(self, live_app: LiveApp) -> None:
        server = live_app.server
        path = str(server.ready["admin_socket"])
        silent = [RawClient(path) for _ in range(12)]
        for number, client in enumerate(silent):
            client.send(b"GET /v1/sta"[: number or 1])
        with RawClient(path) as client:
            client.send(os.urandom(300) + b"\r\n\r\n")
            client.receive_all()
        with RawClient(path) as client:
            client.send(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
            client.reset()
        assert server.status()["pid"] == server.pid
        for client in silent:
            client.close()
        assert len({told["pid"] for told in in_threads(8, lambda _: fetch_status(path))}) == 1
        begun = time.monotonic()
        assert live_app.get("/pid").status == 200
        assert time.monotonic() - begun < 5

    def test_of_many_silent_callers_the_oldest_go_and_descriptors_come_back(self, live_app: LiveApp) -> None:
        """KE4"""
        server = live_app.server
        path = str(server.ready["admin_socket"])
        before = len(server.descriptors())
        crowd = [RawClient(path) for _ in range(40)]
        assert all(client.at_end() for client in crowd[:24])
        assert server.status()["pid"] == server.pid, "with sixteen others waiting"
        for client in crowd:
            client.close()
        eventually(lambda: len(server.descriptors()) <= before)
        assert eventually(lambda: server.status()["pid"]) == server.pid
