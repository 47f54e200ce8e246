"""OP25, OP18: small faults that a new user meets, each as it is met.

Starts the command: its signals, its end and its start are the subject.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faces_tools import BEHAVIOURS, gate, run_command, write_app

from passenger_trio.core.redaction import is_secret_name
from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os


@pytest.mark.parametrize("name", ["GITHUB_PAT", "STRIPE_SK", "SMTP_USERPASS", "DB_PW"])
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)
    assert not is_secret_name("PATH")
    assert not is_secret_name("TASK")


@pytest.mark.parametrize("table", ["pool", "server"])
def test_a_name_with_hyphens_in_toml(tmp_path: Path, table: str) -> None:
    write_app(tmp_path)
    (tmp_path / "passenger-trio.toml").write_text(f'[{table}]\n"max-pool-size" = 3\n')
    done = run_command("config", "check", str(tmp_path))
    assert done.returncode == 2
    assert (
        f"{tmp_path}/passenger-trio.toml:2: there is no option max-pool-size; did you mean max_pool_size?"
        in done.stderr
    )


def test_a_clash_of_names_has_file_and_line(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write_app(tmp_path / name / "shop")
    text = '[[app]]\nroot = "x/shop"\nbase_uri = "/x"\n\n[[app]]\nroot = "y/shop"\nbase_uri = "/y"\n'
    (tmp_path / "passenger-trio.toml").write_text(text)
    done = run_command("config", "check", str(tmp_path))
    assert done.returncode == 2
    assert f"{tmp_path}/passenger-trio.toml:6: name: 'shop' cannot be used" in done.stderr
    assert "y/shop another name" in done.stderr


def test_a_hook_whose_program_does_not_exist(tmp_path: Path) -> None:
    write_app(tmp_path)
    for words in (("start", "-p", "0"), ("config", "check")):
        env = {"PASSENGER_TRIO_HOOK": "process_attached=/nowhere/program"}
        done = run_command(*words, str(tmp_path), env=env)
        assert done.returncode == 2
        assert "there is no program /nowhere/program" in done.stderr


def test_a_directory_that_may_not_be_read(tmp_path: Path) -> None:
    """The superuser may read everything, so the test gives that up."""
    locked = tmp_path / "locked"
    write_app(locked)
    locked.chmod(0)
    try:
        done = subprocess.run(
            [
                *("setpriv", "--bounding-set", "-dac_override,-dac_read_search"),
                *(sys.executable, "-m", "passenger_trio", "start", str(locked), "-p", "0"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        locked.chmod(0o700)
    assert done.returncode == 4, done.stderr
    assert f"the directory {locked} cannot be read: permission denied" in done.stderr


def test_a_deleted_directory_is_not_the_interpreter_s_fault(tmp_path: Path) -> None:
    root = write_app(tmp_path / "shop")
    with Supervisor.start(root, "--stat-throttle-rate", "0") as server:
        shutil.rmtree(root)
        server.send_signal(signal.SIGHUP)
        line = server.wait_log("does not exist any more")
        assert str(root) in line
        assert "interpreter" not in line


def test_a_forced_end_has_an_exit_code_of_its_own() -> None:
    """OP25: the second SIGTERM cuts off what the first one would have finished."""
    with gate() as at_gate, Supervisor.start(BEHAVIOURS, *at_gate.arguments) as server:
        with server.connect() as client:
            client.send(b"GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n")
            at_gate.wait_arrival()
            server.send_signal(signal.SIGTERM)
            server.wait_log("draining")
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 6
        server.wait_log("ending at once")


def test_help_names_every_startup_file() -> None:
    text = run_command("start", "--help").stdout
    for name in ("passenger_wsgi.py", "passenger_asgi.py", "wsgi.py", "asgi.py", "config.ru"):
        assert name in text


def test_a_start_that_fails_is_told_once_with_what_to_try(tmp_path: Path) -> None:
    """OP18, OP25: one traceback, and what the error page shows under "what to try"."""
    write_app(tmp_path, "def application(environ, start_response): ...\nimport no_such_thing_at_all\n")
    with Supervisor.start(tmp_path, "--stat-throttle-rate", "0") as server:
        server.wait_log("What to try: ")
        page = server.get("/").body.decode()
        told = next(line for line in server.log if "What to try: " in line)
        assert "no_such_thing_at_all" in told
        assert "What to try" in page
        error = told.partition("[error ")[2].partition("]")[0]
        of_it = [line for line in server.log if error in line or "app_pid" in line]
        assert sum("import no_such_thing_at_all" in line for line in of_it) == 1
        assert sum("What to try: " in line for line in of_it) == 1


def test_a_slow_start_is_told_while_it_lasts(tmp_path: Path) -> None:
    """OP18."""
    write_app(tmp_path, "import time\ntime.sleep(6)\n" + "def application(environ, start_response): ...\n")
    with Supervisor.start(tmp_path, "--spawn-method", "direct") as server:
        assert "is still loading, for 5 s so far" in server.wait_log("is still loading")
        seen = len([line for line in server.log if "is still loading" in line])
        assert seen == 1
        eventually(lambda: len(server.pids) == 1)
