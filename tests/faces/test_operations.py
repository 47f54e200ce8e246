"""The commands for operators, tried on real instances as a new user would.

Starts the command: the commands for operators are the subject.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faces_tools import BEHAVES, BEHAVIOURS, Gate, clients, run_command

from passenger_trio.admin.registry import create_instance_dir
from passenger_trio.core.recorder import replay
from passenger_trio.pool.events import EVENTS
from passenger_trio.testing import Supervisor, eventually
from passenger_trio.testing.live_app import LiveApp

pytestmark = pytest.mark.os


def ask(server: Supervisor, *words: str) -> str:
    done = run_command(*words, "--instance", str(server.instance_dir))
    assert done.returncode == 0, done
    return done.stdout


@BEHAVES
def test_requests_in_flight(live_app: LiveApp, at_gate: Gate) -> None:
    server = live_app.server
    assert ask(server, "requests") == "No request is in flight.\n"
    with clients(2) as send:
        answer = send(live_app, "/gate?password=x")
        pid = at_gate.wait_arrival()
        text = eventually(lambda: next((t for t in [ask(server, "requests")] if "slow path" in t), ""))
        assert "GET /gate " in text
        assert "password" not in text
        assert str(pid) in text
        [request] = json.loads(ask(server, "requests", "--json"))["requests"]
        assert request["pid"] == pid
        at_gate.open()
        assert answer.result().status == 200


def test_requests_tell_what_is_held_for_each_in_memory_and_on_disk() -> None:
    """Section E: a short body that is still coming, a long one that is on disk, and a response whose client does not read."""

    def held(path: str, way: str, where: str) -> int:
        requests = json.loads(ask(server, "requests", "--json"))["requests"]
        return next((int(one["buffered"][way][where]) for one in requests if one["path"] == path), 0)

    with Supervisor.start(BEHAVIOURS, "--min-instances", "2", "--body-timeout", "5m") as server:
        short, long, reader = server.connect(), server.connect(), server.connect()
        with short, long, reader:
            short.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 5000)
            long.send(b"POST /pid HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 2_000_000)
            reader.send(b"GET /big?24 HTTP/1.1\r\nHost: x\r\n\r\n")
            eventually(lambda: held("/echo", "request", "memory") == 5000)
            eventually(lambda: held("/pid", "request", "disk") + held("/pid", "request", "memory") == 2_000_000)
            assert held("/pid", "request", "disk") > 1_500_000
            eventually(lambda: held("/big", "response", "disk") > 8_000_000)
            assert held("/big", "response", "memory") < 1_000_000
            assert held("/big", "request", "disk") == held("/echo", "request", "disk") == 0
            text = ask(server, "requests")
            assert "HELD UP" in text
            assert " 4.9K " in text


def test_memory_of_each_process_and_what_copy_on_write_saves() -> None:
    with Supervisor.start(BEHAVIOURS, "--min-instances", "2") as server:
        text = ask(server, "memory")
        assert "supervisor" in text
        assert "preloader of behaviours (development)" in text
        assert all(str(pid) in text for pid in server.pids)
        assert "more if nothing were shared (copy-on-write)" in text


@BEHAVES
def test_a_process_is_detached_after_its_requests_and_replaced(live_app: LiveApp, at_gate: Gate) -> None:
    server = live_app.server
    with clients(1) as send:
        answer = send(live_app, "/gate")
        pid = at_gate.wait_arrival()
        assert ask(server, "detach", str(pid)) == f"process {pid} of behaviours (development) is detached\n"
        eventually(lambda: pid not in server.pids)
        assert live_app.get("/pid").status == 200
        at_gate.open()
        assert answer.result().status == 200
    again = run_command("detach", str(pid), "--instance", str(server.instance_dir))
    assert (again.returncode, "no process" in again.stderr) == (1, True)


def test_drain_and_resume() -> None:
    with Supervisor.start(BEHAVIOURS) as server, server.connect() as client:
        assert client.get("/pid").header("Connection") != "close"
        ask(server, "drain", "--wait")
        assert server.get("/pid").header("Connection") == "close"
        assert "Draining" in run_command("status", str(server.instance_dir)).stdout
        ask(server, "resume")
        with server.connect() as later:
            assert later.get("/pid").header("Connection") != "close"


def test_stop_waits_for_the_end() -> None:
    with Supervisor.start(BEHAVIOURS) as server:
        assert "has ended" in ask(server, "stop")
        assert server.wait() == 0


def test_reopen_logs() -> None:
    with Supervisor.start(BEHAVIOURS) as server:
        server.get("/pid")
        server.wait_access_log("/pid")
        (server.home / "access.log").rename(server.home / "access.log.1")
        ask(server, "reopen-logs")
        server.get("/env")
        server.wait_access_log("/env")
        (server.home / "access.log").rename(server.home / "access.log.2")
        server.send_signal(signal.SIGUSR1)
        server.wait_log("SIGUSR1: opening the log files anew")
        server.get("/pid?again")
        server.wait_access_log("/pid?again")


def test_R50_a_rotation_under_load_loses_no_line_and_repeats_none() -> None:
    """F55. Renamed, then SIGUSR1, again and again: each request has one line, in one of the files."""
    asked = [f"/pid?{number}" for number in range(400)]
    with Supervisor.start(BEHAVIOURS, "--min-instances", "2", "--max-pool-size", "2") as server:
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(server.get, path) for path in asked]
            number = 0
            while not all(answer.done() for answer in answers):
                (server.home / "access.log").rename(server.home / f"access.log.{number}")
                server.send_signal(signal.SIGUSR1)
                eventually((server.home / "access.log").exists)
                number += 1
            assert number > 1
            assert all(answer.result().status == 200 for answer in answers)

        def logged() -> list[str]:
            files = server.home.glob("access.log*")
            return [found for path in files for found in re.findall(r"/pid\?\d+", path.read_text())]

        eventually(lambda: len(logged()) >= len(asked))
        assert sorted(logged()) == sorted(asked)


def test_status_is_watched_until_the_instance_ends() -> None:
    with Supervisor.start(BEHAVIOURS) as server:
        watching = subprocess.Popen(
            [sys.executable, "-m", "passenger_trio", "status", "--watch", str(server.instance_dir)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert watching.stdout is not None
        assert "Version" in watching.stdout.readline()
        os.kill(server.pid, signal.SIGTERM)
        out, _ = watching.communicate(timeout=30)
        assert "has ended" in out
        assert watching.returncode == 0


def test_two_instances_are_listed_and_one_must_be_chosen(instance_dir: Path) -> None:
    # Without --instance-dir they register themselves below XDG_RUNTIME_DIR.
    env = {"XDG_RUNTIME_DIR": str(instance_dir)}
    default = ("--instance-dir", "")
    with (
        Supervisor.start(BEHAVIOURS, *default, env=env) as first,
        Supervisor.start(BEHAVIOURS, *default, env=env) as second,
    ):
        ours = (first.pid, second.pid)
        rows = [row for row in json.loads(run_command("list", "--json", env=env).stdout) if row["pid"] in ours]
        assert [row["pid"] for row in rows] == [first.pid, second.pid]
        starting = create_instance_dir(base=f"{instance_dir}/passenger-trio")
        assert f"{starting.name}  starting\n" in run_command("list", env=env).stdout, "it was listed as pid 0"
        starting.remove()
        for command in (("status",), ("requests",), ("memory",), ("restart", "--wait"), ("detach", "1"), ("stop",)):
            refused = run_command(*command, env=env)
            assert refused.returncode == 1, command
            assert "several instances run; choose one" in refused.stderr
            assert str(second.pid) in refused.stderr
        assert run_command("restart", "--wait", "--instance", rows[1]["name"], env=env).returncode == 0
        assert (first.group()["generation"], second.group()["generation"]) == (1, 2)
        assert run_command("status", rows[0]["name"], env=env).returncode == 0


def test_events_are_followed_and_hooks_are_run(instance_dir: Path) -> None:
    seen = instance_dir / "seen"
    hook = f"process_detached=/bin/sh -c 'echo $PASSENGER_TRIO_HOOK $PASSENGER_TRIO_HOOK_PID >> {seen}'"
    other = f"process_detached=/usr/bin/touch {seen}.too"
    with Supervisor.start(BEHAVIOURS, "--hook", hook, "--hook", other) as server:
        [pid] = server.pids
        following = subprocess.Popen(
            [sys.executable, "-m", "passenger_trio", "events", "--instance", str(server.instance_dir)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert following.stdout is not None
        # It listens once it sees something that is asked for again and again.
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(iter(following.stdout.readline, "")), daemon=True)
        reader.start()
        eventually(lambda: ask(server, "restart", "--wait") and any("process_detached" in line for line in lines))
        assert {json.loads(line)["event"] for line in lines} <= set(EVENTS)
        eventually(lambda: seen.exists() and f"process_detached {pid}\n" in seen.read_text())
        eventually(lambda: seen.with_name("seen.too").exists())
    following.wait(10)
    reader.join(10)
    following.stdout.close()
    refused = run_command("start", str(BEHAVIOURS), "--hook", "nothing=true")
    assert (refused.returncode, "the events are process_attached" in refused.stderr) == (2, True)


@pytest.mark.parametrize("method", ["smart", "direct"])
def test_a_hook_is_told_how_a_process_has_ended_and_why(instance_dir: Path, method: str) -> None:
    """OB7: exit status, signal, reason and group, of a process that crashed, one that ended by itself, one that was to go, and
    those that end with the server: it waits for the hooks of the last exits.
    """
    seen = instance_dir / "seen"
    members = "$PASSENGER_TRIO_HOOK_".join(["", "EXIT_STATUS|", "SIGNAL|", "REASON|", "GROUP"])
    hook = f"process_exited=/bin/sh -c 'sleep 0.3; echo \"{members}\" >> {seen}'"
    with Supervisor.start(BEHAVIOURS, "--hook", hook, "--spawn-method", method, "--retry", "off") as server:

        def told(count: int) -> str:
            return eventually(lambda: (seen.read_text().splitlines() if seen.exists() else [])[count:])[0]

        os.kill(server.pids[0], signal.SIGSEGV)
        assert told(0) == "|SIGSEGV||behaviours (development)"
        assert server.get("/exit?4").status == 502
        assert told(1) == "4|||behaviours (development)"
        eventually(lambda: server.pids)
        ask(server, "detach", str(server.pids[0]))
        assert told(2) == "0||an operator detached it|behaviours (development)"
        rest = len(eventually(lambda: server.pids))
        server.stop()
    ended = seen.read_text().splitlines()[3:]
    assert ended == ["0||the pool is shutting down|behaviours (development)"] * rest


def test_the_trace_of_a_server_replays() -> None:
    with Supervisor.start(BEHAVIOURS) as server:
        server.get("/pid")
        ask(server, "restart", "--wait")
        dump = json.loads(ask(server, "trace"))
    assert dump["whole"]
    entries = list(replay(dump))
    assert len(entries) > 5
    assert all(entry.answer == answer for entry, answer in entries)
