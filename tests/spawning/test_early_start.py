"""DE10: the first loader is started before the server is imported, and the first spawn takes it over."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from passenger_trio.admin.client import fetch_status
from passenger_trio.admin.instances import ADMIN_SOCKET, DESCRIPTION
from passenger_trio.core.early_loader import may_start_early
from passenger_trio.early_start import EarlyStart, start_before_server
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import BindError, OptionError
from passenger_trio.options import AppOptions, Config, PoolOptions, ServerOptions
from passenger_trio.running import RunningServer
from passenger_trio.system.cgroup_dirs import own_directory
from passenger_trio.system.pidfd import is_readable
from passenger_trio.tree import open_tree

HELLO = """
import os
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getppid()]
"""


@pytest.fixture
def config(tmp_path: Path, nothing_left: Path) -> Config:
    """Of a server that stays the user that it is."""
    root = tmp_path / "app"
    root.mkdir()
    (root / "passenger_wsgi.py").write_text(HELLO)
    user = "root" if os.geteuid() == 0 else ""
    return Config(
        server=ServerOptions(port=0, user=user, instance_dir=str(nothing_left)),
        pool=PoolOptions(max_pool_size=2),
        apps=(AppOptions(root=str(root), python=sys.executable, spawn_method="smart"),),
    )


def of_app(config: Config, **options: Any) -> Config:
    return attrs.evolve(config, apps=(attrs.evolve(config.apps[0], **options),))


def begun(config: Config) -> EarlyStart:
    early = start_before_server(config, None, None)
    assert early is not None
    return early


def tree(config: Config, early: EarlyStart) -> Any:
    return open_tree(config, ErrorKernel(), become_user=lambda name: None, early=early)


async def ask(server: RunningServer) -> bytes:
    def get() -> bytes:
        with urllib.request.urlopen(server.addresses[0], timeout=30) as response:
            found: bytes = response.read()
            return found

    return await trio.to_thread.run_sync(get)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.os
async def test_DE10_the_first_spawn_takes_the_loader(config: Config) -> None:
    early = begun(config)
    loader = early.loader.pidfd.pid
    async with tree(config, early) as server:
        assert await ask(server) == b"%d" % loader
        (spec,) = early.specs
        assert loader in spec.live_programs()
        again = early.loader.take_output(
            "preloader", spec.preloader_command, spec.environment_now(), spec.umask, early.loader.options
        )
        assert again is None
    assert not lives(loader)


@pytest.mark.os
async def test_DE10_a_worker_without_a_preloader_too(config: Config) -> None:
    config = of_app(config, spawn_method="direct")
    early = begun(config)
    loader = early.loader.pidfd.pid
    async with tree(config, early) as server:
        assert await ask(server) == b"%d" % os.getpid()
        assert loader in early.specs[0].live_programs()


@pytest.mark.os
@pytest.mark.parametrize(
    "change", [{"environment": {}}, {"command": ("other",)}, {"umask": 0o777}, {"role": "worker"}], ids=str
)
async def test_DE10_another_loader_is_ended(config: Config, change: dict[str, Any]) -> None:
    """What was started is not what the spawn wants: it starts its own."""
    early = begun(config)
    loader = early.loader.pidfd.pid
    for name, value in change.items():
        setattr(early.loader, name, value)
    async with tree(config, early) as server:
        assert not lives(loader)
        assert await ask(server) not in (b"", b"%d" % loader)


@pytest.mark.os
async def test_DE10_a_loader_that_nobody_takes_is_ended(config: Config) -> None:
    early = begun(config)
    loader = early.loader.pidfd.pid
    assert lives(loader)
    early.close()
    early.close()
    assert not lives(loader)


@pytest.mark.os
def test_DE10_a_server_that_never_runs_leaves_nothing(config: Config) -> None:
    """No tree has owned it, and there is no event loop."""
    early = begun(config)
    let_load(early, lambda: early.loader._connection is not None)
    loader = early.loader.pidfd.pid
    early.close()
    early.close()
    assert not lives(loader)


@pytest.mark.os
def test_DE10_a_socket_that_was_removed_meanwhile_hides_no_error(config: Config, tmp_path: Path) -> None:
    """What ended the start is told, and all the rest is closed."""
    path = tmp_path / "socket"
    early = begun(attrs.evolve(config, server=attrs.evolve(config.server, port=ServerOptions().port, socket=str(path))))
    path.unlink()
    early.close()


NEVER_RUNS = """
import sys
from pathlib import Path
from passenger_trio.options import AppOptions, Config, ServerOptions
from passenger_trio.program import run
root, instance, socket, user, missing = sys.argv[1:]
sys.modules[missing] = None
server = ServerOptions(socket=socket, user=user, instance_dir=instance)
try:
    run(Config(server=server, apps=(AppOptions(root=root, python=sys.executable),)), on_ready=print)
except ImportError:
    assert missing in sys.modules and not Path(socket).exists() and not Path(instance, "spawn.sock").exists()
    own = Path("/proc/self/cgroup").read_text()
    assert "/passenger-trio." not in own, own
    print("nothing is left")
"""


@pytest.mark.os
@pytest.mark.parametrize("missing", ["passenger_trio.early_start", "passenger_trio.program_tasks", "trio"])
def test_DE10_a_program_whose_modules_cannot_be_imported_leaves_nothing(
    config: Config, tmp_path: Path, missing: str
) -> None:
    """As where no descriptor is left for the file of one."""
    server = config.server
    command = [sys.executable, "-c", NEVER_RUNS, config.apps[0].root, server.instance_dir]
    command += [str(tmp_path / "socket"), server.user, missing]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = program.communicate(timeout=60)
    assert (out, program.returncode) == ("nothing is left\n", 0), err
    above = own_directory("/proc")[0]
    assert not (above and list(Path(above).glob(f"passenger-trio.*.{program.pid}.*")))


@pytest.mark.os
async def test_DE10_a_server_that_cannot_listen_leaves_nothing(config: Config) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = attrs.evolve(config, server=attrs.evolve(config.server, port=taken.getsockname()[1]))
        assert start_before_server(config, None, None) is None
        with pytest.raises(BindError):
            async with open_tree(config, ErrorKernel(), become_user=lambda name: None):
                pass


@pytest.mark.os
async def test_DE10_a_loader_that_has_died_is_a_failed_start(config: Config, tmp_path: Path) -> None:
    """The spawn that has taken it says what it wrote."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *loader*) echo is broken; exit 3;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    config = of_app(config, python=str(python))
    early = begun(config)
    await trio.to_thread.run_sync(early.loader.pidfd.poll)
    async with tree(config, early) as server:
        (group,) = server.pool.statistics().groups
        assert group.last_failure is not None
        assert "exit status 3" in group.last_failure.summary
        assert any("is broken" in line for line in group.last_failure.output)


def hello(token: str) -> bytes:
    """As the preloader of a WSGI application says it."""
    said = {"type": "hello", "token": token, "contract": 1, "role": "preloader", "language": "python", "version": "3"}
    return json.dumps({**said, "pid": os.getpid()}).encode() + b"\n"


def wait_connected(early: EarlyStart) -> None:
    """Return when the loader waits to be accepted."""
    assert early.loader._listening is not None
    assert select.select([early.loader._listening], [], [], 60)[0]


def let_load(early: EarlyStart, done: Callable[[], bool]) -> None:
    """As between two imports, until the application has been loaded."""
    while not done():
        early.let_load()
        time.sleep(0.01)


COUNTS = """
with open("loaded", "a") as file:
    file.write("once\\n")
"""


@pytest.mark.os
@pytest.mark.parametrize("spawn_method", ["smart", "direct"])
async def test_DE10_the_application_is_loaded_while_the_server_is_imported(config: Config, spawn_method: str) -> None:
    config = of_app(config, spawn_method=spawn_method)
    root = Path(config.apps[0].root)
    (root / "passenger_wsgi.py").write_text(HELLO + COUNTS)
    early = begun(config)
    loader = early.loader.pidfd.pid
    let_load(early, (root / "loaded").exists)
    async with tree(config, early) as server:
        assert await ask(server) == b"%d" % (loader if spawn_method == "smart" else os.getpid())
        assert loader in early.specs[0].live_programs()
    assert (root / "loaded").read_text() == "once\n"
    assert not lives(loader)


@pytest.mark.os
async def test_DE10_an_application_that_fails_while_the_server_is_imported_says_why(config: Config) -> None:
    """Its report is there, and its process has ended, before its spawn begins."""
    (Path(config.apps[0].root) / "passenger_wsgi.py").write_text(f"print('comes so far')\n1 / 0\n{HELLO}")
    early = begun(config)
    let_load(early, lambda: is_readable(early.loader.pidfd._fd))
    async with tree(config, early) as server:
        (group,) = server.pool.statistics().groups
        assert group.last_failure is not None
        assert "ZeroDivisionError" in group.last_failure.summary + group.last_failure.traceback
        assert any("comes so far" in line for line in group.last_failure.output)


@pytest.mark.os
async def test_DE10_a_loader_with_other_options_is_ended(config: Config) -> None:
    """The application's options are not those that it was loaded with."""
    early = begun(config)
    loader = early.loader.pidfd.pid
    let_load(early, lambda: early.loader._connection is not None)
    early.specs[0].change(attrs.evolve(early.specs[0].app, base_uri="/other"))
    async with tree(config, early) as server:
        assert not lives(loader)
        assert server.pool.statistics().groups[0].processes


@pytest.mark.os
@pytest.mark.parametrize("is_let_load", [False, True])
async def test_DE10_a_loader_whose_spawn_has_no_environment_is_ended(
    config: Config, tmp_path: Path, is_let_load: bool
) -> None:
    """A file of ``--env-file`` was removed: the spawn fails, and the application must not run beside the pool."""
    (file := tmp_path / "variables").write_text("A=1\n")
    config = of_app(config, env_file=(str(file),))
    early = begun(config)
    loader = early.loader.pidfd.pid
    if is_let_load:
        let_load(early, lambda: early.loader._connection is not None)
    file.unlink()
    async with tree(config, early) as server:
        (group,) = server.pool.statistics().groups
        assert group.last_failure is not None
        assert str(file) in group.last_failure.summary
        assert not lives(loader)


@pytest.mark.os
async def test_DE10_a_stranger_gets_no_options(config: Config) -> None:
    early = begun(config)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(early.loader.path)
        stranger.settimeout(30)
        stranger.sendall(hello(early.loader.token))
        let_load(early, lambda: early.loader._connection is not None)
        with suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
    async with tree(config, early) as server:
        assert await ask(server) == b"%d" % early.loader.pidfd.pid


@pytest.mark.os
@pytest.mark.parametrize("said", ["nothing of the contract", "another token", "another role"])
async def test_DE10_a_loader_that_does_not_say_hello_is_ended(config: Config, tmp_path: Path, said: str) -> None:
    """The spawn starts another one, and says what that one does."""
    python, liar, begins = tmp_path / "python", tmp_path / "liar.py", tmp_path / "begins"
    what = {
        "nothing of the contract": "b'good day\\n'",
        "another token": hello("0" * 32),
        "another role": "hello.replace(b'preloader', b'worker')",
    }[said]
    liar.write_text(
        f"import os, socket, time\nopen({str(begins)!r}, 'a').write('x')\nsock = socket.socket(socket.AF_UNIX)\n"
        "sock.connect(os.environ['PASSENGER_TRIO_SPAWN_SOCKET'])\n"
        f"hello = {hello('TOKEN')!r}.replace(b'TOKEN', os.environ['PASSENGER_TRIO_SPAWN_TOKEN'].encode())\n"
        f"sock.sendall({what})\ntime.sleep(60)\n"
    )
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *loader*) exec {sys.executable} {liar};; esac\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    config = of_app(config, python=str(python), start_timeout=1.0)
    early = begun(config)
    loader = early.loader.pidfd.pid
    let_load(early, lambda: early.loader._is_spoilt or early.loader._connection is not None)
    assert early.loader._connection is None
    async with tree(config, early) as server:
        assert not lives(loader)
        assert server.pool.statistics().groups[0].last_failure is not None
        assert len(begins.read_text()) >= 2


@pytest.mark.os
async def test_DE10_a_loader_that_was_let_load_and_is_not_taken_is_ended(config: Config) -> None:
    early = begun(config)
    let_load(early, lambda: early.loader._connection is not None)
    port = early.sockets[0].getsockname()[1]
    early.close()
    assert not lives(early.loader.pidfd.pid)
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))


@pytest.mark.os
async def test_DE10_nothing_is_loaded_before_all_addresses_are_bound(config: Config) -> None:
    config = attrs.evolve(config, server=attrs.evolve(config.server, metrics_listen="127.0.0.1:0"))
    early = begun(config)
    wait_connected(early)
    early.let_load()
    assert early.loader._connection is None
    early.close()


@pytest.mark.os
@pytest.mark.parametrize("name", ["no/access.log", "app", "."])
async def test_DE10_nothing_is_loaded_if_the_access_log_cannot_be_written(
    config: Config, tmp_path: Path, name: str
) -> None:
    path = str(tmp_path / name)
    config = attrs.evolve(config, server=attrs.evolve(config.server, access_log=path))
    early = begun(config)
    wait_connected(early)
    early.let_load()
    assert early.loader._connection is None
    with pytest.raises(OptionError):
        async with tree(config, early):
            pass
    assert not lives(early.loader.pidfd.pid)


@pytest.mark.os
@pytest.mark.parametrize("name", ["off", "-", "auto", "access.log"])
async def test_DE10_other_access_logs_are_not_in_the_way(config: Config, tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name) if "." in name else name
    config = attrs.evolve(config, server=attrs.evolve(config.server, access_log=path))
    early = begun(config)
    let_load(early, lambda: early.loader._connection is not None)
    early.close()


@pytest.mark.os
async def test_KE8_whoever_has_read_the_description_can_call(config: Config) -> None:
    """The application is still loading, and the modules that serve operators may not have been imported: ``stop`` found no socket."""
    root, directory = Path(config.apps[0].root), Path(config.server.instance_dir)
    (root / "passenger_wsgi.py").write_text("import time\ntime.sleep(600)\n" + HELLO)
    early = begun(config)
    answers = list[dict[str, object]]()

    async def call(nursery: trio.Nursery) -> None:
        while not (directory / DESCRIPTION).exists():  # noqa: ASYNC110  files tell nobody
            await trio.sleep(0.001)
        answers.append(await trio.to_thread.run_sync(fetch_status, str(directory / ADMIN_SOCKET)))
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, nursery)
        async with tree(config, early):
            pass
    assert answers[0]["pid"] == os.getpid()


@pytest.mark.os
@pytest.mark.parametrize("options", [{"python": "/bin/false"}, {"open_files": 64}, {"root": "/nowhere"}], ids=str)
def test_DE10_there_is_none(config: Config, options: dict[str, Any]) -> None:
    """Whatever stands against it: the spawn, or the start, says what."""
    assert start_before_server(of_app(config, **options), None, None) is None


@pytest.mark.os
def test_DE10_a_program_without_a_loader_is_not_started_early(config: Config) -> None:
    root = Path(config.apps[0].root)
    (root / "passenger_wsgi.py").unlink()
    (root / "Procfile").write_text("web: exec sleep $PORT\n")
    assert start_before_server(of_app(config, python=""), None, None) is None


def test_DE10_it_is_certain_which_program_is_started_first(tmp_path: Path) -> None:
    app = AppOptions(root=str(tmp_path))
    one = Config(apps=(app,))
    assert may_start_early(one)
    assert not may_start_early(Config(apps=()))
    assert not may_start_early(Config(apps=(app, AppOptions(root="/other"))))
    assert not may_start_early(attrs.evolve(one, server=ServerOptions(apps_dir="/apps")))
    for options in (
        {"min_instances": 0},
        {"app_start_command": "run"},
        {"preloader_socket": "/socket"},
        {"user": "nobody"},
        {"group": "nogroup"},
    ):
        assert not may_start_early(of_app(one, **options)), options
