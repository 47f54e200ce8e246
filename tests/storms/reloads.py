"""20 reloads under load, each of which changes every kind of option at once: 0 failed requests is the goal, and untouched processes keep their pids.

    python tests/storms/reloads.py [reloads] [connections]

Two applications are asked all the time: one for which everything changes that can change without a restart (its pid must stay), one that is restarted by each reload. Beside them an application comes
and goes, the pool grows and shrinks, and the server listens in another place each time: on another port, or at another Unix socket. Clients know all the places, and no more than one of them answers;
whoever got a connection gets its answers. Every option of ``core/reload_plan`` that is changed at once is in here (``left_out`` says which is not), and those that a process is started with. Prints
the counts; exit code 1 if the goal is missed. ``tests/faces/test_storms.py`` runs a short one.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import attrs
from storm_tools import Load, write_version

from passenger_trio.admin.client import order
from passenger_trio.core.reload_plan import LISTENERS, LIVE_APP, LIVE_POOL, LIVE_SERVER
from passenger_trio.testing import RawClient, Supervisor, eventually

Value = str | int | bool | list[str]

# Two values of each option: of even and of odd turns.
SERVER: dict[str, tuple[Value, Value]] = {
    "socket_backlog": (1000, 1001),
    "access_log_format": ("combined", "json"),
    "allowed_methods": (["GET", "POST"], ["GET", "HEAD"]),
    "body_min_rate": (100, 200),
    "body_timeout": (50, 60),
    "data_buffer_max": ("100M", "200M"),
    "disable_log_prefix": (False, True),
    "header_timeout": (10, 11),
    "keep_alive_timeout": (20, 21),
    "log_format": ("json", "console"),
    "log_level": ("info", "debug"),
    "max_connection_age": ("1h", "2h"),
    "max_connections": (200, 300),
    "max_header_field_size": ("10K", "11K"),
    "max_header_fields": (90, 91),
    "max_header_size": ("20K", "21K"),
    "max_request_body": ("100K", "101K"),
    "max_request_line": ("5K", "6K"),
    "max_requests_per_connection": (1_000_000, 1_000_001),
    "plain_parser": (True, False),
    "shutdown_timeout": (30, 31),
    "abort_on_startup_error": (False, True),
    "trusted_proxies": (["unix"], ["10.0.0.0/8", "unix"]),
    "upgrade_idle_timeout": (100, 101),
    "websocket_drain": (4, 5),
    "websocket_max_message_size": ("1M", "2M"),
    "websocket_ping_interval": (30, 31),
    "websocket_ping_timeout": (20, 21),
    "write_timeout": (50, 51),
}
POOL: dict[str, tuple[Value, Value]] = {
    "max_pool_size": (4, 6),
    "pool_idle_time": (100, 101),
    "max_concurrent_spawns": (1, 2),
    "memory_check_interval": (3, 4),
    "stat_throttle_rate": (1, 2),
    "hook": (["process_attached=/bin/true"], ["process_detached=/bin/true"]),
}
KEPT: dict[str, tuple[Value, Value]] = {
    "cpu_max": ("190%", "180%"),
    "cpu_weight": (100, 101),
    "memory_high": ("800M", "801M"),
    "memory_max": ("900M", "901M"),
    "pids_max": (500, 501),
    "friendly_error_pages": ("on", "off"),
    "hard_memory_limit": ("950M", "951M"),
    "host_name": (["localhost"], ["localhost", "kept.example"]),
    "max_drain_time": (100, 101),
    "max_preloader_idle_time": (100, 101),
    "max_process_lifetime": ("2h", "3h"),
    "max_request_queue_size": (500, 501),
    "max_request_queue_time": (90, 91),
    "max_request_time": (80, 81),
    "max_requests": (10_000_000, 10_000_001),
    "max_requests_jitter": (10, 11),
    "memory_limit": ("900M", "901M"),
    "reload": (False, True),
    "reload_dir": (["."], ["tmp"]),
    "reload_exclude": (["data"], ["more"]),
    "reload_include": (["*.sql"], ["*.po"]),
    "request_buffering": (True, False),
    "response_buffer_high_watermark": ("1M", "2M"),
    "restart_dir": ("tmp", "data"),
    "retry": ("safe", "idempotent"),
    "start_timeout": (80, 81),
    "sticky_sessions": (False, True),
    "sticky_sessions_cookie_attributes": ("HttpOnly; SameSite=Lax", "SameSite=Strict"),
    "sticky_sessions_cookie_name": ("_passenger_route", "_two"),
    "streamed_paths": (["/a"], []),
}
CHANGED: dict[str, tuple[Value, Value]] = {
    "core": (0, "1M"),
    "cpu_time": ("1h", "2h"),
    "env_file": (["even.env"], ["odd.env"]),
    "max_instances": (3, 4),
    "min_instances": (1, 2),
    "nice": (0, 1),
    "open_files": (500, 501),
    "shutdown_timeout": (10, 11),
    "spawn_method": ("auto", "direct"),
    "startup_file": ("passenger_wsgi.py", "wsgi.py"),
    "thread_count": (2, 3),
    "umask": ("022", "027"),
}
OF_ROOT: dict[str, tuple[Value, Value]] = {"user": ("nobody", "daemon"), "group": ("nogroup", "daemon")}


def left_out() -> set[str]:
    """What can change at once and does not here. (Places and paths are in ``configure``.)"""
    known = set(SERVER) | set(POOL) | set(KEPT) | set(CHANGED)
    return (
        (LIVE_APP | LIVE_POOL | LIVE_SERVER | LISTENERS)
        - known
        - {"access_log", "address", "port", "socket", "socket_mode"}
    )


@attrs.define
class Outcome:
    answers: Counter[str]
    lines: int
    """Changes that were applied."""
    kept: bool
    """The untouched application has the process that it had."""
    came_and_went: int
    seconds: float
    places: int = 0
    """Where the server has listened."""

    @property
    def is_good(self) -> bool:
        return set(self.answers) == {"200"} and self.kept


class Places:
    """Where the server listens in turn. Clients try one after the other."""

    def __init__(self, root: Path) -> None:
        held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        ports = [sock.getsockname()[:2] for sock in held]
        for sock in held:
            sock.close()
        self.all: list[tuple[str, int] | str] = [ports[0], f"{root}/one.sock", ports[1], f"{root}/two.sock"]
        self.now = 0

    @property
    def lines(self) -> str:
        place = self.all[self.now]
        return (
            f'socket = "{place}"\nsocket_mode = "{600 + self.now}"'
            if isinstance(place, str)
            else f'address = "{place[0]}"\nport = {place[1]}'
        )

    def connect(self, timeout: float = 30.0) -> RawClient:
        """To the place that answers. There is one at any time; a round over them may miss it once, when it changes."""
        for turn in itertools.count():
            try:
                return RawClient(self.all[(self.now + turn) % len(self.all)], timeout)
            except OSError:
                if turn >= 3 * len(self.all):
                    raise
        raise AssertionError


def table(options: dict[str, tuple[Value, Value]], number: int) -> str:
    return "\n".join(f"{name} = {json.dumps(values[number % 2])}" for name, values in options.items())


def configure(root: Path, places: Places, number: int) -> None:
    """The configuration of one turn: whatever may change, changes."""
    places.now = number % len(places.all)
    interpreter = "/usr/bin/python3" if os.geteuid() == 0 else sys.executable  # others may not run root's
    mine = 'user = "root"\n' if os.geteuid() == 0 else ""
    tables = [
        f'[server]\n{places.lines}\naccess_log = "{root}/{number % 2}.log"\n{table(SERVER, number)}',
        f"[pool]\n{table(POOL, number)}",
        f'[[app]]\nroot = "kept"\nbase_uri = "/kept"\npython = "{sys.executable}"\n{mine}min_instances = 1\nmax_instances = 1\n{table(KEPT, number)}',
        f'[[app]]\nroot = "changed"\npython = "{interpreter if number % 2 else root / "python"}"\n'
        f'env = {{ TURN = "{number}" }}\n{table(CHANGED | (OF_ROOT if mine else {}), number)}',
    ]
    if number % 2:
        tables.append(
            f'[[app]]\nroot = "guest"\nbase_uri = "/guest"\nmin_instances = 0\npython = "{sys.executable}"\n{mine}'
        )
    (root / "passenger-trio.toml").write_text("\n\n".join(tables) + "\n")


def storm(reloads: int, connections: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="pt-storm-") as directory:
        root = Path(directory)
        root.chmod(0o755)
        for name in ("kept", "changed", "guest"):
            (root / name).mkdir()
            (root / name / "tmp").mkdir()
            write_version(root / name, name)
        shutil.copy(root / "changed" / "passenger_wsgi.py", root / "changed" / "wsgi.py")
        for turn in ("even", "odd"):
            (root / "changed" / f"{turn}.env").write_text(f"WHICH={turn}\n")
        (root / "python").symlink_to("/usr/bin/python3" if os.geteuid() == 0 else sys.executable)
        places = Places(root)
        configure(root, places, 0)
        begun = time.monotonic()
        lines = guests = 0
        # What the harness sets would come before the file.
        names = ("PORT", "ACCESS_LOG", "LOG_FORMAT", "USER")
        unset: dict[str, str | None] = dict.fromkeys(f"PASSENGER_TRIO_{name}" for name in names)
        with Supervisor.start(root, env=unset) as server:
            admin_socket = str(server.ready["admin_socket"])

            def pids(name: str) -> set[int]:
                groups = server.status()["groups"]
                return {p["pid"] for group in groups if group["name"] == name for p in group["processes"]}

            def ask(path: str) -> int:
                with places.connect() as client:
                    return client.get(path).status

            assert ask("/kept/") == 200
            before = pids("kept")
            with Load(places, connections, paths=("/kept/", "/", "/slow")) as load:
                for number in range(1, reloads + 1):
                    configure(root, places, number)
                    answer = order(admin_socket, "/v1/reload", {}, for_long=True)
                    assert answer["applied"], answer
                    lines += len(answer["changes"])
                    if number % 2:
                        assert ask("/guest/") == 200
                        guests += 1
                    else:
                        eventually(lambda: not pids("guest"), timeout=60)
            kept = bool(before & pids("kept"))
            for line in server.log if not kept else []:
                if "kept" in line and "ended" in line:
                    print(line, flush=True)
        # Leaving the block has checked that no process, socket or directory is left.
        return Outcome(load.outcomes, lines, kept, guests, time.monotonic() - begun, min(reloads + 1, 4))


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    outcome = storm(*(given + [20, 16][len(given) :]))
    print(outcome)
    sys.exit(0 if outcome.is_good else 1)
