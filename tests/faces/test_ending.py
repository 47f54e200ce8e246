"""How the server ends, and how it does not even begin: draining, signals, exit codes with one clear message each, and nothing left behind.

Starts the command: how it ends is the subject.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from faces_tools import AS_OURSELVES, BEHAVIOURS, FRONTS, HELLO, Load, clients, draining, gate, run_command, write_app

from passenger_trio.testing import RawClient, Response, Supervisor, eventually
from passenger_trio.testing.harness import is_running

pytestmark = pytest.mark.os

METHODS = pytest.mark.parametrize("method", ["smart", "direct"])


def refused(address: tuple[str, int] | str) -> bool:
    assert not isinstance(address, str)
    with socket.socket() as probe:
        return probe.connect_ex(address) != 0


class TestDraining:
    @METHODS
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
    def test_what_is_under_way_is_finished_and_nothing_new_is_taken(self, number: signal.Signals, method: str) -> None:
        """F15, R45."""
        options = ("--max-pool-size", "1", "--spawn-method", method)
        with gate() as it, clients(2) as send, Supervisor.start(BEHAVIOURS, *options, *it.arguments) as server:
            idle = server.connect()
            assert idle.get("/pid").status == 200
            served = send(server, "/gate")
            it.wait_arrival()
            waiting = send(server, "/gate?queued")
            eventually(lambda: server.status()["pool"]["queue"] == 1)
            server.send_signal(number)
            server.wait_log(draining(2))
            eventually(lambda: refused(server.address))
            assert idle.at_end()
            idle.close()
            assert server.status()["stopping"] is True
            it.open()
            it.wait_arrival()  # the one that waited is served, too
            it.open()
            for answer in (served.result(), waiting.result()):
                assert (answer.status, answer.complete) == (200, True)
            assert served.result().header("Connection") == "close"
            assert server.wait() == 0

    @METHODS
    def test_a_stream_goes_on_to_its_end(self, method: str) -> None:
        with (
            gate() as it,
            Supervisor.start(BEHAVIOURS, "--spawn-method", method, *it.arguments) as server,
            server.connect() as client,
        ):
            client.send(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            it.wait_arrival()
            server.send_signal(signal.SIGTERM)
            server.wait_log(draining(1))
            it.open()
            answer = client.read_response()
            assert (answer.body, answer.complete) == (b"first\nlast\n", True)
            assert server.wait() == 0

    def test_R45_a_request_that_outlasts_the_grace_is_cut_off_and_told_so(self, tmp_path: Path) -> None:
        """The client got a closed connection, and the access log said that it had left (499)."""
        options = ("--shutdown-timeout", "300ms", "--process-shutdown-timeout", "300ms")
        access = ("--access-log", str(tmp_path / "access"), "--access-log-format", "json")
        with gate() as it, clients(1) as send, Supervisor.start(BEHAVIOURS, *options, *access, *it.arguments) as server:
            answer = send(server, "/gate")
            it.wait_arrival()
            assert server.stop() == 0
            assert (answer.result().status, answer.result().header("Connection")) == (503, "close")
        assert [json.loads(line)["status"] for line in (tmp_path / "access").read_text().splitlines()] == [503]

    def test_a_half_sent_request_does_not_hold_it_up_for_long(self) -> None:
        with Supervisor.start(BEHAVIOURS, "--header-timeout", "1s", "--body-timeout", "1s") as server:
            with server.connect() as head, server.connect() as body:
                head.send(b"GET / HTTP/1.1\r\nHo")
                body.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12")
                eventually(lambda: server.status()["connections"]["open"] == 2)
                assert server.stop() == 0

    def test_under_load_no_request_that_was_accepted_fails(self) -> None:
        with Supervisor.start(BEHAVIOURS, "--min-instances", "2") as server:
            with Load(server, "/pid", connections=8) as load:
                eventually(lambda: len(load.results) > 300)
                server.send_signal(signal.SIGTERM)
                assert server.wait() == 0
            answers = [result for result in load.results if isinstance(result, Response)]
            assert {(answer.status, answer.complete) for answer in answers} == {(200, True)}
            # Everybody else could not connect, or was connected and had sent nothing that was read.
            assert {type(result) for result in load.results if not isinstance(result, Response)} <= {
                ConnectionRefusedError,
                ConnectionError,
                ConnectionResetError,
                BrokenPipeError,
            }

    def test_who_stands_in_the_kernels_queue_is_served(self) -> None:
        """They are connected, and have sent their requests: a listener that is closed would reset them."""
        with Supervisor.start(BEHAVIOURS, "--max-request-queue-size", "0") as server, ExitStack() as them:
            server.send_signal(signal.SIGSTOP)
            waiting = [them.enter_context(server.connect()) for _ in range(150)]
            for client in waiting:
                client.send(b"GET /pid HTTP/1.1\r\nHost: localhost\r\n\r\n")
            server.send_signal(signal.SIGTERM)  # heard in the step in which it goes on
            server.send_signal(signal.SIGCONT)
            assert {client.read_response().status for client in waiting} == {200}
            assert server.wait() == 0

    def test_hooks_of_the_application_run(self, tmp_path: Path) -> None:
        source = (
            f"import atexit, os\natexit.register(lambda: open({str(tmp_path / 'hooks')!r}, 'a').write('%d\\n' % os.getpid()))\n"
            + HELLO
        )
        root = write_app(tmp_path / "app", source)
        with Supervisor.start(root, "--min-instances", "2", "--spawn-method", "direct") as server:
            pids = server.pids
            server.stop()
        assert sorted(map(int, (tmp_path / "hooks").read_text().split())) == sorted(pids)


def test_under_nohup_a_terminal_that_goes_away_does_not_end_it() -> None:
    """A hangup that whoever started us has had ignored stays ignored."""
    with Supervisor.start(BEHAVIOURS, prefix=("nohup",)) as server:
        server.send_signal(signal.SIGHUP)
        for _ in range(3):
            assert server.get("/pid").status == 200
        assert server.status()["stopping"] is False


class TestTheSecondSignal:
    """F17."""

    @METHODS
    @pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
    def test_ends_it_at_once(self, numbers: tuple[int, int], method: str) -> None:
        with (
            gate() as it,
            clients(2) as send,
            Supervisor.start(BEHAVIOURS, "--spawn-method", method, *it.arguments) as server,
        ):
            stuck = [send(server, "/gate"), send(server, "/ignore-term")]
            pids = [it.wait_arrival() for _ in stuck]
            server.send_signal(numbers[0])
            server.wait_log(draining(2))
            begun = time.monotonic()
            server.send_signal(numbers[1])
            assert server.wait() == 6
            took = time.monotonic() - begun
            assert took < 8, "the shutdown timeouts are 30 and 10 seconds"
            assert not any(map(is_running, pids))
            for answer in stuck:
                assert answer.exception() is not None or answer.result().status >= 500

    def test_a_signal_while_it_starts_ends_it(self, tmp_path: Path) -> None:
        root = write_app(tmp_path / "app", HELLO + "\nprint('loading', flush=True)\nimport time; time.sleep(600)\n")
        for method in ("smart", "direct"):
            with Supervisor.start(root, "--spawn-method", method, wait=False) as server:
                server.wait_log("loading")
                assert server.stop() == 0

    def test_many_signals_at_once(self) -> None:
        with Supervisor.start(BEHAVIOURS, "--min-instances", "3") as server:
            for number in [signal.SIGTERM, signal.SIGINT, signal.SIGHUP] * 5:
                server.send_signal(number)
            assert server.wait() == 6

    def test_at_any_moment_of_the_start(self, tmp_path: Path) -> None:
        """Whatever the moment: an exit code that says so, no traceback, nothing left."""
        root = write_app(tmp_path / "app")
        for milliseconds in range(0, 500, 50):
            with Supervisor.start(root, "--min-instances", "2", wait=False) as server:
                time.sleep(milliseconds / 1000)  # not for a fact: to reach many different moments
                server.send_signal(signal.SIGTERM)
                code = server.wait()
                # Before Python has come as far as our first line the kernel's answer is the only one.
                assert code in (0, -signal.SIGTERM), server.log_tail
                assert "Traceback" not in server.log_tail


def told(done: subprocess.CompletedProcess[str], code: int) -> str:
    """What was said, when it was said as it should: the code, nothing on standard output, a few lines, and no traceback."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert 1 <= len(done.stderr.splitlines()) <= 6, done.stderr
    assert done.stderr.startswith("passenger-trio: ")
    return done.stderr


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return write_app(tmp_path / "app")


def is_listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


class TestExitCodes:
    def test_help_is_0_and_tells_the_commands(self) -> None:
        for arguments in (["--help"], [], ["-h"]):
            done = run_command(*arguments)
            assert (done.returncode, done.stderr) == (0, "")
            assert "start" in done.stdout
            assert "status" in done.stdout
        done = run_command("start", "--help")
        assert done.returncode == 0
        assert "--max-pool-size" in done.stdout
        assert len(run_command("start", "--help-all").stdout) > len(done.stdout)
        assert re.match(r"passenger-trio \d", run_command("--version").stdout)

    def test_the_program_and_the_module_are_the_same(self) -> None:
        program = Path(sys.executable).parent / "passenger-trio"
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == run_command("--version").stdout

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--nonsense"], "--nonsense"),
            (["--max-pool-size", "many"], "--max-pool-size"),
            (["--max-pool-size", "0"], "--max-pool-size"),
            (["--max-pool-size", "-1"], "--max-pool-size"),
            (["-p", "70000"], "--port"),
            (["-p", "http"], "--port"),
            (["--start-timeout", "soon"], "--start-timeout"),
            (["--start-timeout", "0"], "--start-timeout"),
            (["--spawn-method", "clever"], "--spawn-method"),
            (["--env", "NOVALUE"], "--env"),
            (["--min-instances", "9"], "--min-instances"),
            (["--trusted-proxies", "somebody"], "--trusted-proxies"),
            (["--python", "/nowhere/python"], "/nowhere/python"),
            (["--python", "/etc/passwd"], "/etc/passwd"),
            (["--access-log", "/nowhere/at/all.log"], "/nowhere/at/all.log"),
            (["--instance-dir", "/nowhere/at/all"], "/nowhere/at/all"),
            (["--instance-dir", "/tmp/" + "x" * 100], "too long"),
            (["--log-format", "xml"], "--log-format"),
            (["--base-uri", "shop"], "--base-uri"),
            (["--base-uri", "/shop?x"], "--base-uri"),
            (["--env", "=x"], "--env"),
        ],
    )
    def test_2_an_option_that_cannot_be_used(self, arguments: list[str], words: str, app: Path) -> None:
        assert words in told(run_command("start", str(app), *arguments, env={"PORT": "0"}), 2)

    def test_2_an_unknown_command(self) -> None:
        assert "strat" in told(run_command("strat"), 2)

    def test_2_a_variable_of_the_environment_that_cannot_be_used(self, app: Path) -> None:
        said = told(run_command("start", str(app), env={"PASSENGER_TRIO_MAX_POOL_SIZE": "lots"}), 2)
        assert "PASSENGER_TRIO_MAX_POOL_SIZE" in said

    @pytest.mark.parametrize(
        ("source", "words"),
        [
            (None, "passenger_wsgi.py"),
            ("x = 1\n", "has no `application`"),
            ("from celery import Celery\napplication = Celery()\n", "Celery"),
        ],
    )
    def test_4_nothing_to_serve(self, source: str | None, words: str, tmp_path: Path) -> None:
        if source is not None:
            write_app(tmp_path, source)
        assert words in told(run_command("start", str(tmp_path), "-p", "0"), 4)

    def test_4_a_directory_that_is_not_there(self) -> None:
        assert "/nowhere/at/all" in told(run_command("start", "/nowhere/at/all", "-p", "0"), 4)

    def test_4_a_target_that_is_not_there(self, app: Path) -> None:
        assert "nothing" in told(run_command("start", str(app), "passenger_wsgi:nothing", "-p", "0"), 4)
        assert "elsewhere" in told(run_command("start", str(app), "elsewhere:app", "-p", "0"), 4)

    def test_5_a_port_in_use_names_who_holds_it(self, app: Path) -> None:
        """F59."""
        with Supervisor.start(app) as server:
            host, port = server.address
            text = told(run_command("start", str(app), "-p", str(port)), 5)
            assert f"{host}:{port} is in use by " in text
            holders = [server.pid] if FRONTS == 1 else [int(line.split()[0]) for line in server.marked_processes()]
            assert int(text.partition("(pid ")[2].partition(")")[0]) in holders
            assert "-p" in text

    def test_5_an_address_that_is_not_ours(self, app: Path) -> None:
        for address in ("192.0.2.1", "no.such.host.invalid"):
            text = told(run_command("start", str(app), "-p", "0", "-a", address), 5)
            assert address in text
            assert "-a" in text

    def test_5_a_unix_socket_in_use(self, app: Path, tmp_path: Path) -> None:
        """F58: live, stale, another file, no directory, too long."""
        path = tmp_path / "web.sock"
        with Supervisor.start(app, "-S", str(path)) as server:
            assert str(path) in told(run_command("start", str(app), "-S", str(path)), 5)
            assert server.get("/").status == 200
            server.kill()
            assert path.exists()
            path.rename(tmp_path / "stale.sock")
        stale = tmp_path / "stale.sock"
        with Supervisor.start(app, "-S", str(stale)) as server:
            assert server.get("/").status == 200
        assert not stale.exists()
        path.write_text("precious")
        assert str(path) in told(run_command("start", str(app), "-S", str(path)), 5)
        assert path.read_text() == "precious"
        assert "/nowhere/x.sock" in told(run_command("start", str(app), "-S", "/nowhere/x.sock"), 5)
        told(run_command("start", str(app), "-S", str(tmp_path / ("x" * 120))), 5)

    def test_a_broken_start_leaves_nothing(self, app: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="pt-") as runtime:
            env = {"XDG_RUNTIME_DIR": runtime}
            with socket.create_server(("127.0.0.1", 0)) as taken:
                port = str(taken.getsockname()[1])
                told(run_command("start", str(app), "-p", port, env=env), 5)
            told(run_command("start", str(app), "-p", "0", "--access-log", "/nowhere/x", env=env), 2)
            told(run_command("start", str(app), "-S", f"{runtime}/web", "--trusted-proxies", "x", env=env), 2)
            told(run_command("start", str(app), "-S", f"{runtime}/web", "--instance-dir", "/nowhere/x", env=env), 2)
            assert not Path(runtime, "web").exists()
            assert list(Path(runtime).glob("passenger-trio/*")) == []

    def test_0_a_client_of_the_help_that_stops_reading_is_no_error(self) -> None:
        done = subprocess.run(
            f"{sys.executable} -m passenger_trio start --help-all | head -1",
            shell=True,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""

    def test_standard_output_and_error_that_are_closed(self, app: Path) -> None:
        """As a careless init script leaves them: descriptors 0, 1 and 2 are free for whatever is opened first."""
        with tempfile.TemporaryDirectory(prefix="pt-") as home:
            command = f"exec {sys.executable} -m passenger_trio start {app} -S {home}/web --instance-dir {home}/i <&- >&- 2>&-"
            with subprocess.Popen(command, shell=True, cwd=home, env={**os.environ, **AS_OURSELVES}) as process:
                try:
                    # The file is there a moment before it can be connected to.
                    eventually(lambda: is_listening(f"{home}/web") or process.poll() is not None)
                    with RawClient(f"{home}/web") as client:
                        assert client.get("/").body == b"hello"
                finally:
                    process.terminate()
                assert process.wait(30) == 0
            assert os.listdir(home) == []

    def test_a_log_that_nobody_reads_holds_nothing_up(self, app: Path) -> None:
        """F54: standard error is a pipe whose reader is gone, or does not read."""
        for reads in (True, False):
            with tempfile.TemporaryDirectory(prefix="pt-") as home:
                reader, writer = os.pipe()
                with subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "passenger_trio",
                        "start",
                        str(BEHAVIOURS),
                        "-S",
                        f"{home}/web",
                        "--instance-dir",
                        f"{home}/i",
                    ],
                    stdout=writer,
                    stderr=writer,
                    env={**os.environ, **AS_OURSELVES},
                ) as process:
                    os.close(writer)
                    if not reads:
                        os.close(reader)
                    eventually(lambda: is_listening(f"{home}/web") or process.poll() is not None)
                    with RawClient(f"{home}/web") as client:
                        for _ in range(3):
                            assert client.get("/flood?1").status == 200
                    process.terminate()
                    assert process.wait(30) == 0
                if reads:
                    os.close(reader)


class TestTheInstanceDirectory:
    def test_it_is_private_and_so_is_what_is_in_it(self) -> None:
        with Supervisor.start(BEHAVIOURS, "--min-instances", "2") as server:
            assert stat.S_IMODE(server.instance_dir.stat().st_mode) == 0o700
            for path in server.instance_dir.iterdir():
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path

    def test_an_explicit_one_that_was_there_is_emptied_and_kept(self, app: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="pt-") as mine:
            with Supervisor.start(app, "--instance-dir", mine) as server:
                assert server.get("/").status == 200
                assert len(os.listdir(mine)) == 5
                text = told(run_command("start", str(app), "-p", "0", "--instance-dir", mine), 2)
                assert f"pid {server.pid}" in text
            assert os.listdir(mine) == []

    def test_one_that_is_not_private_is_refused(self, app: Path) -> None:
        """F57."""
        with tempfile.TemporaryDirectory(prefix="pt-") as mine:
            os.chmod(mine, 0o755)
            assert "chmod 700" in told(run_command("start", str(app), "-p", "0", "--instance-dir", mine), 2)
            os.chmod(mine, 0o700)
            link = Path(mine, "link")
            link.symlink_to("/tmp")
            assert "symbolic link" in told(run_command("start", str(app), "-p", "0", "--instance-dir", str(link)), 2)

    def test_what_others_put_into_it_does_not_stop_the_end(self) -> None:
        with Supervisor.start(BEHAVIOURS) as server:
            (server.instance_dir / "of somebody else").mkdir()
            (server.instance_dir / "of somebody else" / "file").touch()
            server.send_signal(signal.SIGTERM)
            assert server.process.wait(30) == 0
            assert [path.name for path in server.instance_dir.iterdir()] == ["of somebody else"]

    def test_that_it_was_removed_does_not_stop_the_end_either(self) -> None:
        import shutil

        with Supervisor.start(BEHAVIOURS) as server:
            shutil.rmtree(server.instance_dir)
            assert server.get("/pid").status in (200, 500)  # no process can be reached, and no new one can call back
            server.process.terminate()
            assert server.process.wait(30) == 0


class TestFromEveryState:
    """KE8, fault 5, on real processes."""

    @METHODS
    def test_several_applications_of_which_some_never_come(self, tmp_path: Path, method: str) -> None:
        """Never ready, or ready without some of them: SIGTERM ends it, with 0 and no traceback."""
        hangs = HELLO + "\nprint('loading', flush=True)\nimport time; time.sleep(600)\n"
        arguments: list[str] = []
        for number in range(4):
            write_app(tmp_path / f"app{number}", HELLO if number == 0 else hangs)
            arguments += ["--app", f"/{number}={tmp_path / f'app{number}'}"]
        options = ("--spawn-method", method, "--max-pool-size", "4", "--max-concurrent-spawns", "4")
        with Supervisor.start(None, *arguments, *options, cwd=tmp_path, wait=False) as server:
            eventually(lambda: sum("loading" in line for line in server.log) >= 3)
            assert server.stop() == 0
            assert "Traceback" not in server.log_tail
            assert "failed" not in server.log_tail, server.log_tail

    def test_minimums_that_do_not_fit_are_told_and_nothing_hangs(self, tmp_path: Path) -> None:
        """OP7: seven applications in the default pool; `start` and `config check` say the same."""
        arguments: list[str] = []
        for number in range(7):
            write_app(tmp_path / f"app{number}")
            arguments += ["--app", f"/{number}={tmp_path / f'app{number}'}"]
        message = told(run_command("start", *arguments, cwd=tmp_path), 2)
        assert "--max-pool-size: 6 cannot be used: the minimums of the 7 applications" in message
        assert "are 7 processes together" in message
        tables = "".join(f'[[app]]\nroot = "app{number}"\nbase_uri = "/{number}"\n' for number in range(7))
        (tmp_path / "passenger-trio.toml").write_text(tables)
        checked = run_command("config", "check", str(tmp_path))
        assert checked.returncode == 2
        assert "are 7 processes together" in checked.stderr


@pytest.mark.parametrize("by", ["stop", "SIGTERM"])
def test_who_is_told_to_stop_while_it_starts_does_so(tmp_path: Path, by: str) -> None:
    """KE8: an application that hangs while it is loaded keeps nobody from stopping the server, over the admin socket either."""
    write_app(tmp_path, "import time\nprint('it hangs', flush=True)\ntime.sleep(600)\n" + HELLO)
    arguments = ("--abort-on-startup-error", "--start-timeout", "600s")
    with Supervisor.start(tmp_path, *arguments, wait=False) as server:
        server.wait_log("it hangs", 60.0)
        if by == "stop":
            stopped = run_command("stop", "--instance", str(server.instance_dir))
            assert stopped.returncode == 0, stopped
        else:
            server.send_signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize("others", [0, 1])
def test_R45_who_waits_for_an_application_that_still_loads_is_told_that_the_server_stops(
    tmp_path: Path, others: int
) -> None:
    """Alone, its clients stand in the kernel's queue; beside an application that serves, they have been accepted.

    In both cases they got a closed connection."""
    write_app(tmp_path / "hangs", "import time\nprint('it hangs', flush=True)\ntime.sleep(600)\n" + HELLO)
    write_app(tmp_path / "well")
    arguments = ["--app", f"/hangs={tmp_path / 'hangs'}", "--start-timeout", "600s", "--shutdown-timeout", "20s"]
    if others:
        arguments += ["--app", f"/well={tmp_path / 'well'}", "--max-concurrent-spawns", "2"]
    path = str(tmp_path / "socket")
    with Supervisor.start(None, *arguments, "--socket", path, cwd=tmp_path, wait=False) as server, ExitStack() as them:
        server.wait_log("it hangs", 60.0)
        waiting = [them.enter_context(RawClient(path)) for _ in range(3)]
        if others:
            waiting[0].send(b"GET /well HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert waiting[0].read_response().status == 200
        for client in waiting:
            client.send(b"GET /hangs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        begun = time.monotonic()
        server.send_signal(signal.SIGTERM)
        answers = [client.read_response() for client in waiting]
        assert {(answer.status, answer.header("Connection"), answer.complete) for answer in answers} == {
            (503, "close", True)
        }
        assert server.wait() == 0
        # With several fronts the start is over by now: a request that waits for the application is one under way, and has its 13 seconds.
        limit = 10 if FRONTS == 1 else 20
        assert time.monotonic() - begun < limit, "an application that loads has no time of its own"
        assert "Traceback" not in server.log_tail
