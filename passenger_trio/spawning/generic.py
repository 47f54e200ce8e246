"""GenericSpawner: programs that do not know our contract, started by a shell command
(``--app-start-command``).

A program gets a free TCP port of the loopback interface (``$PORT``) and the path of a Unix socket
(``$SOCKET``), and listens on one of them. It is ready as soon as it accepts a connection. It speaks
HTTP, is asked to stop by SIGTERM (to its process group), and has no control connection.

Instead of that connection it has a death pipe: ``_SHELL`` leaves a shell beside the program, in its process group. The
shell waits for EOF on the pipe and then kills the group. So any end of the supervisor ends the
program and all that it started. (PR_SET_PDEATHSIG would end the first process only, and is lost in
a set-uid exec.) The shell is not a child of the program, because a program may wait for all its
children. When the program has ended, a line on the pipe tells the shell to exit; ``leftover_processes`` ends
the rest of the group.

``endpoints`` finds out where the program listens, and whether it is the program that listens there.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import partial

import attrs
import trio

from passenger_trio.codecs.http1_worker import HTTP
from passenger_trio.codecs.worker_protocol import WorkerProtocol
from passenger_trio.core.journey import Journey, JourneyType
from passenger_trio.core.model import ErrorCategory
from passenger_trio.core.start_command import shell_text
from passenger_trio.errors import SpawnError
from passenger_trio.late_classes import define
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.spawning.backtraces import take_backtrace
from passenger_trio.spawning.direct import Sink
from passenger_trio.spawning.endpoints import Endpoint, belongs, listens_on, probe
from passenger_trio.spawning.exit_status import describe_exit
from passenger_trio.spawning.launch import Launch
from passenger_trio.spawning.leftover_processes import Remains
from passenger_trio.spawning.output import OutputPipe
from passenger_trio.spawning.spawner import WithoutPreloader, leave_behind, warn_of_stranger
from passenger_trio.system.children import start_program
from passenger_trio.system.crash_check import CrashCheck
from passenger_trio.system.listen import remove_unix_socket
from passenger_trio.system.pidfd import PidFd, pin_child
from passenger_trio.system.ports import Ports, listener_uids
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.system.unix_peers import PeerCredentials

__all__ = ["GenericSpawner"]

_SHELL = """\
exec 3<&0 </dev/null
( ( trap '' HUP INT QUIT TERM; exec >/dev/null 2>&1; read -r _ <&3 || kill -s KILL -- "-$$" ) & )
exec 3<&-
exec /bin/sh -c "$1"
"""
"""Descriptor 0 is the death pipe. ``$$`` stays the pid of the outermost shell, which becomes the
program and leads the process group.
"""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1
"""Seconds between two probes; the pause grows."""


@define(eq=False)
class DeathPipe:
    """The pipe whose EOF ends the program. ``close`` closes both ends, and is idempotent."""

    reading_end: int
    writing_end: int

    @classmethod
    def open(cls) -> DeathPipe:
        return cls(*os.pipe2(os.O_CLOEXEC))

    def close_reading_end(self) -> None:
        fd, self.reading_end = self.reading_end, -1
        if fd >= 0:
            os.close(fd)

    def disarm(self) -> None:
        """The program has ended: close the pipe without killing its group."""
        with suppress(OSError):  # the shell has ended, too
            os.write(self.writing_end, b"\n")
        self.close()

    def close(self) -> None:
        self.close_reading_end()
        fd, self.writing_end = self.writing_end, -1
        if fd >= 0:
            os.close(fd)


@define(eq=False)
class ListeningProcess:
    """A program that listens; see ``LiveProcess``."""

    pidfd: PidFd
    endpoint: Endpoint
    concurrency: int
    output: OutputPipe
    journey: Journey
    spawn_time: float
    socket_path: str
    port: int
    _ports: Ports
    _death_pipe: DeathPipe
    _remains: Remains | None = None
    _grace: float = 0.0
    preloaded: bool = False
    worker_protocol: WorkerProtocol = HTTP
    websocket: bool = False
    crash_check: CrashCheck = attrs.field(init=False)

    @crash_check.default
    def _(self) -> CrashCheck:
        return CrashCheck(self.pidfd)

    @property
    def pid(self) -> int:
        return self.pidfd.pid

    @property
    def address(self) -> str:
        host = self.endpoint.host
        if not self.endpoint.port:
            return f"unix:{host}"
        return f"tcp://[{host}]:{self.endpoint.port}" if ":" in host else f"tcp://{host}:{self.endpoint.port}"

    @property
    def output_tail(self) -> tuple[str, ...]:
        self.output.drain()
        return self.output.tail

    def connect_nowait(self) -> RawStream:
        return self.endpoint.connect_nowait(self._is_listener)

    def _is_listener(self, listener: PeerCredentials) -> bool:
        """Whether the program itself listens, or a process that belongs to it (KE5)."""
        believed = belongs(self.pid, listener)
        if not believed:
            warn_of_stranger(self.pid, listener)
        return believed

    async def wait_exit(self) -> None:
        await self.pidfd.wait_exit()

    async def wait_exit_status(self) -> int | None:
        await trio.lowlevel.checkpoint()
        return self.pidfd.exit_status

    def ask_to_stop(self, within: float | None = None) -> bool:
        return not self.pidfd.poll() and self.pidfd.signal_group(signal.SIGTERM)

    def signal_group(self, number: int) -> bool:
        return self.pidfd.signal_group(number)

    async def backtrace(self) -> str:
        return await take_backtrace(None, self.pidfd, self.output)

    async def read_output(self) -> None:
        await self.output.run()

    def close(self) -> None:
        if self.pidfd.signal_group(0):
            self._death_pipe.disarm()
        else:
            self._death_pipe.close()  # no process is left, or (before Linux 6.9) only the shell can signal it
        self._ports.release(self.port)
        leave_behind(self._remains, self.output, self.pidfd, self._grace)
        remove_unix_socket(self.socket_path)


class GenericSpawner(WithoutPreloader):
    """Starts the application's command once for each process; see ``Spawner``."""

    def __init__(self, spec: AppSpec, ports: Ports, sink: Sink | None = None, remains: Remains | None = None) -> None:
        self._spec = spec
        self._ports = ports
        self._sink = sink
        self._remains = remains

    async def spawn(self) -> ListeningProcess:
        """See ``Spawner``."""
        begun = trio.current_time()
        launch = Launch.begin(self._spec, JourneyType.START_COMMAND)
        death_pipe: DeathPipe | None = None
        port = 0
        done = False
        try:
            try:
                death_pipe = DeathPipe.open()
                port = self._ports.take()
            except OSError as exc:
                raise self._cannot_start(launch, exc) from exc
            self._start(launch, death_pipe, port)
            endpoint = await self._wait_listening(launch, port)
            assert launch.pidfd is not None
            process = ListeningProcess(
                pidfd=launch.pidfd,
                endpoint=endpoint,
                concurrency=self._spec.concurrency,
                output=launch.output,
                journey=launch.journey,
                spawn_time=trio.current_time() - begun,
                socket_path=launch.socket_path,
                port=port,
                ports=self._ports,
                death_pipe=death_pipe,
                remains=self._remains,
                grace=self._spec.app.shutdown_timeout,
            )
            done = True
            return process
        finally:
            if not done:
                await launch.abandon()
                self._ports.release(port)
                if death_pipe is not None:
                    death_pipe.close()

    def _start(self, launch: Launch, death_pipe: DeathPipe, port: int) -> None:
        spec, output = self._spec, launch.output
        launch.command = (spec.app.app_start_command,)
        environment = {
            "PYTHONUNBUFFERED": "1",
            **launch.make_environment(),
            "PORT": str(port),
            "SOCKET": launch.socket_path,
        }
        launch.advance("preparation", "start_program")
        try:
            output.give_to(spec.user)
            pid = start_program(
                ("/bin/sh", "-c", _SHELL, "sh", shell_text(spec.app.app_start_command)),
                cwd=spec.detected.root,
                env=environment,
                output=output.writing_end,
                stdin=death_pipe.reading_end,
                user=spec.user,
                umask=spec.umask,
                prepare=spec.prepare,
                gate=death_pipe.writing_end,
            )
            launch.pin(pin_child(pid))
        except (OSError, ValueError) as exc:
            raise self._cannot_start(launch, exc) from exc
        death_pipe.close_reading_end()
        output.close_writing_end()
        if self._sink is not None:
            output.on_lines = partial(self._sink.write, pid)
            output.has_room = self._sink.has_room
        launch.advance("start_program", "probe")

    async def _wait_listening(self, launch: Launch, port: int) -> Endpoint:
        """Wait for the first connection, the exit or the deadline, whichever comes first.

        :raises SpawnError: the exit or the deadline came first.
        """
        pidfd = launch.pidfd
        assert pidfd is not None
        found: Endpoint | None = None
        exited = False
        with trio.move_on_after(self._spec.app.start_timeout):
            async with trio.open_nursery() as race:

                async def watch_exit() -> None:
                    nonlocal exited
                    await pidfd.wait_exit()
                    exited = True
                    race.cancel_scope.cancel()

                race.start_soon(launch.output.run)
                race.start_soon(watch_exit)
                pause = _FIRST_PAUSE
                while (found := probe(launch.socket_path, port, pidfd.pid, self._spec.uid)) is None:
                    await trio.sleep(pause)
                    pause = min(_LONGEST_PAUSE, pause * 1.5)
                race.cancel_scope.cancel()
        launch.output.drain()
        if exited or pidfd.poll():
            launch.exit_status = pidfd.exit_status
            raise self._ended_early(launch)
        if found is None:
            raise self._never_listened(launch, port)
        launch.journey = launch.journey.performed("probe", trio.current_time())
        return found

    # Error messages

    def _cannot_start(self, launch: Launch, exc: OSError | ValueError) -> SpawnError:
        why = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
        return launch.failure(
            ErrorCategory.OPERATING_SYSTEM,
            f"The command of --app-start-command cannot be started: {why}",
            "The operating system refused a shell, a pipe or a port for it.",
            "Check that the application's directory exists, and the limits of the account under which the server runs.",
        )

    def _ended_early(self, launch: Launch) -> SpawnError:
        status = launch.exit_status
        if status in (126, 127):
            summary = f"The program of --app-start-command {'cannot be run' if status == 126 else 'was not found'}"
            solution = "Check its spelling, and that it is in the PATH of the server. /bin/sh runs the command in the application's directory."
        else:
            summary = f"The program of --app-start-command ended before it listened ({describe_exit(status)})"
            solution = "Look at the output. The program must stay in the foreground: turn off its daemon mode."
        return launch.failure(ErrorCategory.EXITED, summary, "Its last output, if there was any, is below.", solution)

    def _never_listened(self, launch: Launch, port: int) -> SpawnError:
        assert launch.pidfd is not None
        elsewhere = listens_on(launch.pidfd.pid)
        if listener_uids(port) - {self._spec.uid}:
            problem = f"A process of another user listens on its port ({port})."
        elif elsewhere:
            problem = (
                f"It listens on {', '.join(elsewhere)} instead of on $PORT ({port}) or $SOCKET ({launch.socket_path})."
            )
        else:
            problem = f"It does not listen at all. $PORT is {port}, $SOCKET is {launch.socket_path}."
        return launch.failure(
            ErrorCategory.TIMEOUT,
            f"The program of --app-start-command did not listen within {self._spec.app.start_timeout:g} seconds",
            problem,
            "Pass the address on in the command, for example --port $PORT or --socket $SOCKET. If the program only needs longer, raise --start-timeout.",
        )
