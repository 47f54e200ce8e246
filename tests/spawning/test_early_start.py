"""DE10: the first loader is started before the server is imported, and the first spawn takes it over."""

from __future__ import annotations

import os
import socket
import sys
import urllib.request
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from passenger_trio.core.early_loader import may_start_early
from passenger_trio.early_start import EarlyStart, start_before_server
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import BindError
from passenger_trio.options import AppOptions, Config, PoolOptions, ServerOptions
from passenger_trio.running import RunningServer
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
        assert early.loader.take_output("preloader", spec.preloader_command, spec.environment_now(), spec.umask) is None
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
async def test_DE10_a_server_that_cannot_listen_leaves_nothing(config: Config) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = attrs.evolve(config, server=attrs.evolve(config.server, port=taken.getsockname()[1]))
        early = begun(config)
        with pytest.raises(BindError):
            async with tree(config, early):
                pass
    assert not lives(early.loader.pidfd.pid)


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
