"""Two applications of one user in one server, and one of them is hostile (KE5): it takes its neighbour's socket, and fills ours.

Starts the command: several applications in one server are the subject.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faces_tools import APPS, run_command

from passenger_trio.testing import RawClient, Supervisor, eventually

pytestmark = pytest.mark.os

GENERIC = APPS.parent / "generic" / "program.py"
PROGRAM = f"{sys.executable} {GENERIC} --socket $SOCKET"
COOKIE = "session=very-private"
WSGI = {"root": str(APPS / "behaviours")}
VICTIMS = {
    "wsgi": WSGI,
    "program": {"root": str(GENERIC.parent), "app_start_command": PROGRAM},
    "program-of-two-processes": {"root": str(GENERIC.parent), "app_start_command": PROGRAM + " --fork"},
}


@contextmanager
def beside_a_hostile_one(
    tmp_path: Path, victim: dict[str, str], *arguments: str, env: dict[str, str | None] | None = None
) -> Iterator[Supervisor]:
    """The victim is at ``/``, the hostile application below ``/hostile``."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in victim.items()]
    lines += ["[[app]]", f"root = {json.dumps(str(APPS / 'hostile'))}", "base_uri = '/hostile'"]
    lines += [f"env = {{ STOLEN = {json.dumps(str(tmp_path / 'stolen'))} }}"]
    (tmp_path / "passenger-trio.toml").write_text("\n".join(["[[app]]", *lines, ""]))
    with Supervisor.start(tmp_path, *arguments, env=env) as server:
        yield server


def order(server: Supervisor, what: str, *words: object) -> str:
    """Let the hostile application do something; what it says of that."""
    answer = server.get(f"/hostile/{what}?" + "&".join(map(str, words)))
    assert answer.status == 200, server.log_tail
    return answer.body.decode()


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_socket_that_somebody_else_has_bound_again_gets_no_request(tmp_path: Path, victim: str) -> None:
    """KE5, fault 13: the kernel says who listens. The request goes to a process of the application, and its cookie nowhere else."""
    with beside_a_hostile_one(tmp_path, VICTIMS[victim]) as server:
        # A server does not wait at its start for every application.
        before = eventually(lambda: server.status()["groups"][0]["processes"])[0]["pid"]
        assert order(server, "steal", server.instance_dir) == "1"
        answer = server.get("/pid", Cookie=COOKIE)
        assert answer.status == 200, server.log_tail
        assert int(answer.body.split()[0]) != before, "the one whose socket was taken is replaced"
        server.wait_log(f"on the socket of pid {before}")
    stolen = tmp_path / "stolen"
    assert not stolen.exists() or COOKIE.encode() not in stolen.read_bytes()


def test_a_full_spawn_socket_keeps_no_loader_out(tmp_path: Path) -> None:
    """KE5, fault 12: silent connections, kept and renewed, and loaders of another application come through, forked and started."""
    with beside_a_hostile_one(tmp_path, WSGI, "--max-pool-size", "3") as server:
        spawn_socket = server.instance_dir / "spawn.sock"
        assert int(order(server, "fill", spawn_socket, 64)) >= 64
        order(server, "fill", spawn_socket, 200)
        [group] = [group for group in server.status()["groups"] if group["name"] == "behaviours"]
        for _ in range(2):
            done = run_command("restart", "behaviours", "--wait", "--instance", str(server.instance_dir))
            assert done.returncode == 0, (done, server.log_tail)
            assert server.get("/pid").status == 200
        [after] = [group for group in server.status()["groups"] if group["name"] == "behaviours"]
        assert after["generation"] == group["generation"] + 2
        assert after["last_error"] is None


def test_R48_nothing_of_one_application_is_in_the_other(tmp_path: Path) -> None:
    """What is in an environment or on a command line can be read by every program of the same user: each application's has its own variables only."""
    with beside_a_hostile_one(tmp_path, WSGI, env={"OF_THE_SERVER": "s", "PASSENGER_TRIO_TOKEN": "t"}) as server:
        status = server.status()
        by_name = {
            group["name"]: [process["pid"] for process in group["processes"]] + [group["preloader"]["pid"]]
            for group in status["groups"]
        }
        ours = f"STOLEN={tmp_path / 'stolen'}"
        for name, pids in by_name.items():
            for pid in pids:
                environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
                assert (ours in environment) == (name == "hostile")
                assert "PASSENGER_TRIO_TOKEN=t" not in environment, "what is meant for the server stays there"
                command = Path(f"/proc/{pid}/cmdline").read_text()
                assert str(tmp_path / "stolen") not in command
                assert "token" not in command.lower()
        seen = json.loads(server.get("/env").body)
        assert not [name for name in seen if "TOKEN" in name or "SPAWN" in name or name == "STOLEN"]
        # What the loaders were given to introduce themselves with works once: nobody else gets in by it.
        [given] = [
            word.partition("=")[2]
            for word in Path(f"/proc/{by_name['behaviours'][-1]}/environ").read_text().split("\0")
            if word.startswith("PASSENGER_TRIO_SPAWN_TOKEN=")
        ]
        with RawClient(str(server.instance_dir / "spawn.sock")) as caller:
            hello = {
                "type": "hello",
                "token": given,
                "contract": 1,
                "role": "preloader",
                "language": "x",
                "version": "x",
            }
            caller.send(json.dumps({**hello, "pid": 1}).encode() + b"\n")
            assert caller.receive_all() == b""
        server.wait_log("has no valid token of a pending spawn")
