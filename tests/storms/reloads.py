"""20 reloads under load, each of which changes every kind of option at once: 0 failed requests is the goal, and untouched processes keep their pids.

    python tests/storms/reloads.py [reloads] [connections]

Two applications are asked all the time: one that nothing changes for but limits (its pid must stay), one that is restarted by each reload. Beside
them an application comes and goes, the pool grows and shrinks, and the server listens at another socket every time, which is asked, too. Prints the
counts; exit code 1 if the goal is missed. ``tests/faces/test_storms.py`` runs a short one.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import attrs
from storm_tools import Load, write_version

from passenger_trio.admin.client import order
from passenger_trio.testing import Supervisor, eventually


@attrs.define
class Outcome:
    answers: Counter[str]
    lines: int
    """Changes that were applied."""
    kept: bool
    """The untouched application has the process that it had."""
    came_and_went: int
    seconds: float

    @property
    def is_good(self) -> bool:
        return set(self.answers) == {"200"} and self.kept


def configure(root: Path, number: int) -> None:
    """The configuration of one turn: whatever may change, changes."""
    odd = number % 2
    tables = [
        f"""[server]
keep_alive_timeout = {10 + number}
header_timeout = {10 + odd}
max_request_body = {1024 * (100 + number)}
socket_backlog = {1000 + odd}
access_log_format = "{"json" if odd else "combined"}"
""",
        f"""[pool]
max_pool_size = {4 + 2 * odd}
pool_idle_time = {100 + number}
max_concurrent_spawns = {1 + odd}
stat_throttle_rate = {1 + odd}
memory_check_interval = {3 + odd}
""",
        f"""[[app]]
root = "kept"
base_uri = "/kept"
min_instances = 1
max_instances = 1
max_request_queue_size = {500 + number}
max_request_time = {20 + number}
max_drain_time = {100 + odd}
memory_limit = "{900 + number}M"
retry = "{"safe" if odd else "idempotent"}"
""",
        f"""[[app]]
root = "changed"
min_instances = {1 + odd}
thread_count = {2 + odd}
spawn_method = "{"direct" if odd else "auto"}"
env = {{ TURN = "{number}" }}
""",
    ]
    if odd:
        tables.append('[[app]]\nroot = "guest"\nbase_uri = "/guest"\nmin_instances = 0\n')
    (root / "passenger-trio.toml").write_text("\n".join(tables))


def storm(reloads: int, connections: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="pt-storm-") as directory:
        root = Path(directory)
        for name in ("kept", "changed", "guest"):
            (root / name).mkdir()
            write_version(root / name, name)
        configure(root, 0)
        begun = time.monotonic()
        lines = guests = 0
        with Supervisor.start(root) as server:
            admin_socket = str(server.ready["admin_socket"])

            def pids(name: str) -> set[int]:
                groups = server.status()["groups"]
                return {p["pid"] for group in groups if group["name"] == name for p in group["processes"]}

            assert server.get("/kept/").status == 200
            before = pids("kept")
            with Load(server, connections, paths=("/kept/", "/", "/slow")) as load:
                for number in range(1, reloads + 1):
                    configure(root, number)
                    answer = order(admin_socket, "/v1/reload", {}, for_long=True)
                    assert answer["applied"], answer
                    lines += len(answer["changes"])
                    if number % 2:
                        assert server.get("/guest/").status == 200
                        guests += 1
                    else:
                        eventually(lambda: not pids("guest"), timeout=60)
            kept = bool(before & pids("kept"))
        # Leaving the block has checked that no process, socket or directory is left.
        return Outcome(load.outcomes, lines, kept, guests, time.monotonic() - begun)


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    outcome = storm(*(given + [20, 16][len(given) :]))
    print(outcome)
    sys.exit(0 if outcome.is_good else 1)
