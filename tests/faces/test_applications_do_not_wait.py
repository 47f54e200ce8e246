"""KE13, faults 14 and 15: real applications do not wait for each other: for slots to load in, at the start of the server, for places in a full pool.

Starts the command: several applications in one server, and its start, are the subject.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from faces_tools import BEHAVIOURS, HELLO, clients, gate, run_command, write_app

from passenger_trio.core.policy import PoolPolicy
from passenger_trio.core.recorder import Entry, from_json
from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

HANGS = "import time\ntime.sleep(600)\n" + HELLO
CRASHES = "import os\nos._exit(3)\n" + HELLO
PID = HELLO.replace('b"hello"', "b'%d' % __import__('os').getpid()")


def write(root: Path, pool: str = "", **apps: str) -> None:
    """A directory for each application, and a configuration with all of them, in this order."""
    text = [f"[pool]\nstat_throttle_rate = '100ms'\n{pool}\n"]
    for name, code in apps.items():
        (root / name).mkdir()
        (root / name / "passenger_wsgi.py").write_text(code)
        minimum = 0 if name == "fresh" else 1
        text.append(
            f'[[app]]\nroot = "{name}"\nbase_uri = "/{name}"\nmin_instances = {minimum}\nstart_timeout = "600s"\n'
        )
    (root / "passenger-trio.toml").write_text("\n".join(text))


def group(server: Supervisor, name: str) -> dict[str, object]:
    return next(found for found in server.status()["groups"] if found["name"] == name)


@pytest.mark.parametrize("cores", ["0", "0,1"], ids=["one core", "two cores"])
@pytest.mark.parametrize("method", ["smart", "direct"])
def test_beside_one_that_hangs_others_start_are_replaced_and_restarted(tmp_path: Path, cores: str, method: str) -> None:
    """Fault 14. What hangs would do so for ten minutes: whoever waited for it would not be back within this test."""
    write(tmp_path, hangs=HANGS, crashes=CRASHES, blog=PID, wiki=PID, fresh=PID)
    with Supervisor.start(tmp_path, "--spawn-method", method, prefix=("taskset", "-c", cores)) as server:
        server.wait_log("serving while hangs (development) is still loading")
        first = {name: int(server.get(f"/{name}").body) for name in ("blog", "wiki", "fresh")}
        for name, pid in first.items():
            os.kill(pid, signal.SIGKILL)
            eventually(lambda pid=pid: pid not in server.pids)
            first[name] = int(server.get(f"/{name}").body)
        (tmp_path / "hangs" / "tmp").mkdir()
        (tmp_path / "hangs" / "tmp" / "restart.txt").touch()
        for name in ("blog", "wiki"):
            asked = run_command("restart", name, "--wait", "--instance", str(server.instance_dir))
            assert asked.returncode == 0, asked
            assert int(server.get(f"/{name}").body) != first[name]
        assert group(server, "hangs")["spawning"] >= 1  # type: ignore[operator]
        assert group(server, "hangs")["processes"] == []
        server.kill()  # nobody waits for ten minutes either
        eventually(lambda: not server.marked_processes())


def test_an_idle_process_makes_room_for_a_request_that_waits_beside_its_own(tmp_path: Path) -> None:
    """Fault 15: the second request waited for the first, beside idle processes of another application."""
    (tmp_path / "passenger-trio.toml").write_text(
        "[pool]\nmax_pool_size = 4\n"
        + "".join(
            f'[[app]]\nroot = "{BEHAVIOURS}"\nname = "{name}"\nbase_uri = "/{name}"\n' for name in ("shop", "blog")
        )
    )
    with gate() as at_gate, Supervisor.start(tmp_path, *at_gate.arguments) as server, clients(5) as send:
        for name, count in (("shop", 3), ("blog", 2)):
            answers = [send(server, f"/{name}/gate") for _ in range(count)]
            pids = {at_gate.wait_arrival() for _ in answers}
            assert len(pids) == count
            at_gate.open()
            assert [answer.result().status for answer in answers] == [200] * count
        eventually(lambda: len(server.pids) == 4)


THREADED = "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n" + PID


def test_what_turns_out_unsafe_to_fork_takes_a_slot_for_each_that_loads(tmp_path: Path) -> None:
    """KE13: with ``--spawn-method auto`` those that had waited for the preloader loaded the application all at once, and counted as one."""
    write(tmp_path, "max_concurrent_spawns = 2", shop=THREADED, blog=THREADED)
    with Supervisor.start(tmp_path, "--min-instances", "2", "--max-pool-size", "4") as server:
        eventually(lambda: len(server.pids) == 4, 30.0)
        dump = json.loads(run_command("trace", "--instance", str(server.instance_dir)).stdout)
    policy = PoolPolicy(from_json(dump["limits"]))
    told = []
    for recorded in dump["entries"]:
        entry = Entry(*from_json(recorded))
        assert getattr(policy, entry.fact)(*entry.arguments, **entry.named) == entry.answer
        assert policy.state.slots_used <= 3, "one more than there are, for who has nobody"
        if entry.fact == "found_unsafe":
            told.append(entry.arguments[0].name)
        for attempt in policy.state.attempts.values():
            if attempt.group.key.name in told and not attempt.abandoned:
                assert attempt.has_slot or attempt.slow, "it loads the application by itself, and takes no slot"
    assert sorted(told) == ["blog", "shop"]


def test_beside_restarts_that_hang_in_a_pool_of_one_a_process_is_replaced_and_what_is_mended_comes(
    tmp_path: Path,
) -> None:
    """KE13: what hangs fills the pool's hard ceiling; and the restart that mends it does not wait for the start timeout either."""
    write(tmp_path, "max_pool_size = 1", blog=PID)
    with (tmp_path / "passenger-trio.toml").open("a") as configuration:
        for name in ("one", "two"):
            write_app(tmp_path / name, HANGS)
            configuration.write(
                f'[[app]]\nroot = "{name}"\nbase_uri = "/{name}"\nmin_instances = 0\nstart_timeout = "600s"\n'
            )
    with Supervisor.start(tmp_path) as server:
        pid = int(server.get("/blog").body)
        for name in ("one", "two"):
            run_command("restart", name, "--instance", str(server.instance_dir))
        eventually(lambda: group(server, "one")["spawning"] == group(server, "two")["spawning"] == 1)
        time.sleep(1.2)  # they hang, and do not just begin
        os.kill(pid, signal.SIGKILL)
        assert int(server.get("/blog").body) != pid
        write_app(tmp_path / "one", PID)
        asked = run_command("restart", "one", "--wait", "--instance", str(server.instance_dir))
        assert asked.returncode == 0, asked
        server.kill()
        eventually(lambda: not server.marked_processes())
