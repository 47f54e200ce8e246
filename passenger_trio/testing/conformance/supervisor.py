"""A fake supervisor, synchronous: starts loaders, shakes hands, forks from preloaders, and ends everything that it started."""

from __future__ import annotations

import os
import select
import shutil
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from passenger_trio.testing.conformance.basis import (
    CONTRACT_VERSION,
    START_TIMEOUT,
    TIMEOUT,
    LoaderFailed,
    Message,
    expect,
)
from passenger_trio.testing.conformance.loader import Loader, Output
from passenger_trio.testing.run_directory import temporary_directory


class FakeSupervisor:
    """Plays the supervisor. A context manager that ends everything that was started in it.

    ::

        with FakeSupervisor() as supervisor:
            worker = supervisor.start([sys.executable, "wsgi_loader.py"], app_root, startup_file)
            assert worker.request("GET", "/").status == 200

            preloader = supervisor.start([sys.executable, "wsgi_loader.py", "--preload"], app_root, startup_file)
            worker = supervisor.fork(preloader)
    """

    def __init__(self) -> None:
        self.directory = temporary_directory("supervisor-")
        """A private directory. Control and worker sockets are in it."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.directory / "spawn.sock"))
        self._listener.listen(16)
        self._listener.settimeout(TIMEOUT)
        self._loaders: list[Loader] = []
        self._options: Message = {}
        self._spawns = 0

    def __enter__(self) -> FakeSupervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, remove all files."""
        while self._loaders:
            self._loaders.pop().close()
        self._listener.close()
        shutil.rmtree(self.directory)

    def start(
        self,
        command: Sequence[str],
        app_root: str | os.PathLike[str],
        startup_file: str | os.PathLike[str] = "",
        *,
        env: Mapping[str, str] | None = None,
        wait: bool = True,
        **options: Any,
    ) -> Loader:
        """Start a loader and wait until it is ready.

        :param startup_file: relative to ``app_root``, or absolute.
        :param env: added to the few variables that every program needs.
        :param options: members of the ``options`` message that differ from the usual ones.
        :param wait: False: return as soon as it has its options.
        :raises LoaderFailed: the loader did not become ready.
        """
        loader = self.launch(command, app_root, env=env)
        self.send_options(loader, app_root, startup_file, **options)
        if wait:
            loader.expect("ready")
        return loader

    def launch(
        self, command: Sequence[str], app_root: str | os.PathLike[str], *, env: Mapping[str, str] | None = None
    ) -> Loader:
        """Start a loader and read its ``hello``. It has no options yet."""
        token = self._token()
        output = Output()
        try:
            process = subprocess.Popen(
                command,
                cwd=app_root,
                stdin=subprocess.DEVNULL,
                stdout=output.writing,
                stderr=output.writing,
                process_group=0,
                env={
                    **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
                    "PYTHONDONTWRITEBYTECODE": "1",
                    **(env or {}),
                    "PASSENGER_TRIO_SPAWN_SOCKET": str(self.directory / "spawn.sock"),
                    "PASSENGER_TRIO_SPAWN_TOKEN": token,
                },
            )
        except OSError:
            output.close()
            raise
        output.close_writing_end()
        pidfd = os.pidfd_open(process.pid)
        try:
            control = self._accept(pidfd)
        except BaseException as error:
            process.kill()
            process.wait()
            os.close(pidfd)
            error.add_note(f"output of the loader: {output.text()!r}")
            output.close()
            raise
        return self._greeted(Loader(control, process.pid, pidfd, output, process), token)

    def send_options(
        self,
        loader: Loader,
        app_root: str | os.PathLike[str],
        startup_file: str | os.PathLike[str] = "",
        **options: Any,
    ) -> None:
        """Answer a ``hello``."""
        root = os.path.abspath(app_root)
        self._options = {
            "type": "options",
            "contract": CONTRACT_VERSION,
            "app_root": root,
            "app_type": "wsgi",
            "startup_file": os.path.join(root, startup_file) if startup_file else "",
            "entry_module": "",
            "entry_object": "",
            "entry_is_factory": False,
            "environment": "test",
            "threads": 1,
            "guessed": False,
            "tasks": 100,
            "unlimited": False,
            "loop": "asyncio",
            "socket_dir": str(self.directory),
            "base_uri": "",
            "server_software": "passenger_trio/test",
            "shutdown_timeout": 60.0,
            "name": "conformance",
            **options,
        }
        self._send_options(loader)

    def fork(self, preloader: Loader, *, wait: bool = True) -> Loader:
        """Ask a preloader for a worker and wait until it is ready."""
        token = self._token()
        output = Output()
        preloader.send({"type": "fork", "token": token}, [output.writing])
        output.close_writing_end()
        try:
            control = self._accept()
        except BaseException:
            output.close()
            raise
        pid = struct.unpack("3i", control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        loader = self._greeted(Loader(control, pid, os.pidfd_open(pid), output, None), token)
        self._send_options(loader)
        if wait:
            loader.expect("ready")
        return loader

    def adopt(self, loader: Loader, of: FakeSupervisor) -> Loader:
        """Take over a process that another one started: it ends with this one."""
        of._loaders.remove(loader)
        self._loaders.append(loader)
        return loader

    def _token(self) -> str:
        self._spawns += 1
        return f"token-{self._spawns}-{os.urandom(8).hex()}"

    def _accept(self, pidfd: int | None = None) -> socket.socket:
        """:param pidfd: of the process that is to connect, so that its exit ends the wait."""
        listener = self._listener.fileno()
        watched = [listener] if pidfd is None else [listener, pidfd]
        ready, _, _ = select.select(watched, [], [], TIMEOUT if pidfd is None else START_TIMEOUT)
        if listener not in ready:
            raise LoaderFailed("the loader exited before it connected, or did not connect in time", {})
        control, _ = self._listener.accept()
        return control

    def _greeted(self, loader: Loader, token: str) -> Loader:
        self._loaders.append(loader)
        hello = loader.receive()
        expect(hello is not None and hello["type"] == "hello", f"the first message is not 'hello': {hello}")
        expect(loader.hello.get("token") == token, "'hello' has the token of another spawn")
        return loader

    def _send_options(self, loader: Loader) -> None:
        name = f"w{self._spawns}"
        loader.socket_path = str(self.directory / name)
        loader.send({"socket_name": name, **self._options})
