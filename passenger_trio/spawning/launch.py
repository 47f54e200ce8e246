"""Waits until a started program may serve: a race between ready, error, early exit and the
deadline.

Every spawner runs its spawns through ``Launch``, which keeps the journey and gathers the evidence.
``Launch`` knows one program, its output and its control connection. The spawner knows how the
program was started.

Laws:

* A report that the program managed to send is read, even if its exit was noticed first.
* A ``Launch`` that did not end in ``ready`` leaves no process, no descriptor and no socket file
  behind, also on cancellation.
"""

from __future__ import annotations

import math
import os
import secrets
import signal
import stat
from collections.abc import Awaitable, Callable

import attrs
import trio

from passenger_trio.codecs.control_protocol import AppEvent, Failed, Message, Ready, StepReport, encode_options
from passenger_trio.codecs.http1_worker import WORKER_PROTOCOLS
from passenger_trio.core.journey import Journey, JourneyType
from passenger_trio.core.model import ErrorCategory, SpawnFailure
from passenger_trio.core.redaction import redact
from passenger_trio.errors import OptionError, SpawnError, SpawnServerError
from passenger_trio.late_classes import define
from passenger_trio.log_lines import processes as lines
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.spawning.backtraces import take_backtrace
from passenger_trio.spawning.exit_status import describe_exit
from passenger_trio.spawning.output import OutputPipe
from passenger_trio.spawning.spawn_listener import ControlConnection, PendingSpawn
from passenger_trio.system.listen import remove_unix_socket
from passenger_trio.system.pidfd import PidFd

__all__ = ["Launch"]

_EXIT_TIME = 1.0
"""Seconds for a program to exit after its control connection ended, so that its exit status is known."""
_KILL_TIME = 5.0
_MAX_MESSAGES = 256
"""Messages that a loader may send before it is ready. Each is kept, as a step of the journey or as
a line of the log.
"""
EXIT_STATUS_TIME = 0.25
"""Seconds for a preloader to report the exit status of a process that it forked."""


def check_socket_file(path: str, uid: int) -> None:
    """:raises SpawnServerError: the path is not a socket of the application's user. A symbolic link is not followed (R47)."""
    try:
        found = os.lstat(path)
    except OSError as exc:
        raise SpawnServerError(f"the loader is ready, but its socket {path} cannot be found ({exc.strerror})") from None
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != uid:
        raise SpawnServerError(f"the loader is ready, but {path} is not a Unix socket of the application's user")


@define(eq=False)
class Launch:
    """One program from its start until it is ready."""

    spec: AppSpec
    journey: Journey
    output: OutputPipe
    command: tuple[str, ...] = ()
    pidfd: PidFd | None = None
    control: ControlConnection | None = None
    socket_name: str = attrs.field(factory=lambda: secrets.token_hex(6))
    ask_exit_status: Callable[[int], Awaitable[int]] | None = None
    """For a program that is not our child: waits until its parent reports the exit status."""
    exit_status: int | None = None
    _pinned: trio.Event = attrs.field(factory=trio.Event)
    _messages: int = 0
    environment: dict[str, str] = attrs.field(factory=dict, repr=False)
    _hint: dict[str, str] = attrs.field(factory=dict)
    """The loader's hint for people, shown if it never becomes ready."""

    @classmethod
    def begin(cls, spec: AppSpec, type: JourneyType) -> Launch:
        """:raises SpawnError: the operating system refused a pipe for the output."""
        journey = Journey.begin(type).started("preparation", trio.current_time())
        try:
            return cls(spec, journey, OutputPipe())
        except OSError as exc:
            raise SpawnError(
                SpawnFailure(
                    error_id=secrets.token_hex(4),
                    category=ErrorCategory.OPERATING_SYSTEM,
                    summary=f"No process can be started: {exc.strerror}",
                    problem="The operating system refused a pipe for the output of the application.",
                    solution="Check the limits on open files of the account under which the server runs.",
                    journey=journey.failed(trio.current_time()),
                )
            ) from exc

    @property
    def role(self) -> str:
        """``process`` or ``preloader``."""
        return "preloader" if self.journey.type is JourneyType.START_PRELOADER else "process"

    @property
    def socket_path(self) -> str:
        return os.path.join(self.spec.socket_dir, self.socket_name)

    def make_environment(self) -> dict[str, str]:
        """The application's environment, for the program that is about to be started.

        :raises SpawnError: a file of ``--env-file`` cannot be read.
        """
        try:
            self.environment = self.spec.environment_now()
        except OptionError as error:
            raise self.failure(
                ErrorCategory.CONFIGURATION,
                str(error),
                "The environment of the application could not be made.",
                "Correct the file, or leave it out of --env-file, and restart the application.",
            ) from error
        return self.environment

    def advance(self, done: str, next_step: str) -> None:
        """Mark step ``done`` as performed, and ``next_step`` as in progress."""
        now = trio.current_time()
        self.journey = self.journey.performed(done, now).started(next_step, now)

    def pin(self, pidfd: PidFd) -> None:
        """Register the process. From here on its exit is watched, and ``abandon`` ends it."""
        if self.pidfd is None:
            self.pidfd = pidfd
            self.spec.live_programs()  # forgets those that have ended
            self.spec.programs[pidfd.pid] = self
            self._pinned.set()
        else:
            pidfd.close()  # the same process, which was already pinned

    async def wait_ready(
        self,
        pending: PendingSpawn | None,
        timeout: float,
        wait_dependency_failed: Callable[[], Awaitable[SpawnError]] | None = None,
        *,
        connect_time: float = math.inf,
    ) -> Ready:
        """Wait for the program to connect, shake hands, and be ready.

        :param pending: None: the program has connected, has its options, and was asked to go on as
            a worker.
        :param timeout: seconds for all of it.
        :param wait_dependency_failed: returns when a dependency of the program has failed (the
            preloader that was asked to fork).
        :param connect_time: seconds of these within which the program must connect.
        :raises SpawnError: the program did not become ready. ``abandon`` ends it; this function
            does not.
        """
        result: Ready | SpawnError | None = None
        exited = False

        begun = trio.current_time()
        time_limit = min(timeout, connect_time)
        with trio.move_on_after(time_limit) as deadline:
            async with trio.open_nursery() as race:

                async def watch_exit() -> None:
                    nonlocal exited
                    await self._pinned.wait()
                    assert self.pidfd is not None
                    await self.pidfd.wait_exit()
                    exited = True
                    race.cancel_scope.cancel()

                async def watch_dependency(wait_dependency_failed: Callable[[], Awaitable[SpawnError]]) -> None:
                    nonlocal result
                    error = await wait_dependency_failed()
                    # A result of the same step wins over the error.
                    result = result or error
                    race.cancel_scope.cancel()

                async def talk() -> None:
                    nonlocal result, time_limit
                    if pending is not None:
                        self._adopt(await pending.wait())
                        if deadline.cancel_called:
                            await (
                                trio.lowlevel.checkpoint()
                            )  # the program connected in the step in which its time ran out
                        time_limit = timeout
                        deadline.deadline = begun + time_limit
                        self._shake_hands()
                    control = self.control
                    assert control is not None
                    while result is None:
                        message = await control.receive()
                        if message is None:
                            # The program is exiting. Its exit says more, and cancels this task.
                            await trio.sleep(_EXIT_TIME)
                            break
                        outcome = self._handle_message(message)
                        result = result or outcome
                    race.cancel_scope.cancel()

                race.start_soon(self.output.run)
                race.start_soon(watch_exit)
                if wait_dependency_failed is not None:
                    race.start_soon(watch_dependency, wait_dependency_failed)
                try:
                    await talk()
                except SpawnServerError as exc:
                    result = self._broke_contract(exc)
                    race.cancel_scope.cancel()

        self.output.drain()
        if exited:
            await self._learn_exit_status()
        if result is None and self.control is not None:
            result = self._read_remaining(self.control)
        if result is None:
            if deadline.cancelled_caught and not exited:
                result = self._timed_out(time_limit, await self._stacks())
            else:
                result = self._ended_early()
        if isinstance(result, SpawnError):
            raise result
        return result

    async def _stacks(self) -> str:
        """The program's stacks, for the report of a start that timed out. Messages that it sends meanwhile are dropped."""
        if self.pidfd is None:
            return ""
        control = self.control

        async def drop_messages() -> None:
            try:
                while control is not None and await control.receive() is not None:
                    pass
            except SpawnServerError:
                pass  # the start has failed already

        async with trio.open_nursery() as readers:
            readers.start_soon(self.output.run)
            readers.start_soon(drop_messages)
            text = await take_backtrace(control, self.pidfd, self.output)
            readers.cancel_scope.cancel()
        return text

    def options_for(self, socket_name: str) -> bytes:
        """The message with the loader's options."""
        return encode_options(self.spec.loader_options(socket_name))

    def resume(self, control: ControlConnection) -> None:
        """Go on with a program that has connected, and has its options. It was pinned before."""
        self.control = control
        self.advance("connect_back", "handshake")
        self.journey = self.journey.performed("handshake", trio.current_time())

    def _shake_hands(self) -> None:
        assert self.control is not None
        self.advance("connect_back", "handshake")
        self.control.send_nowait(self.options_for(self.socket_name))
        self.journey = self.journey.performed("handshake", trio.current_time())

    def _adopt(self, control: ControlConnection) -> None:
        self.control = control
        self.pin(control.pidfd)
        assert self.pidfd is not None
        control.pidfd = self.pidfd

    async def _learn_exit_status(self) -> None:
        assert self.pidfd is not None
        self.exit_status = self.pidfd.exit_status
        if self.exit_status is None and self.ask_exit_status is not None:
            with trio.move_on_after(EXIT_STATUS_TIME):
                self.exit_status = await self.ask_exit_status(self.pidfd.pid)

    def _handle_message(self, message: Message) -> Ready | SpawnError | None:
        """Handle one message of the loader. Returns a result if the message decides the race."""
        now = trio.current_time()
        self._messages += 1
        if self._messages > _MAX_MESSAGES:
            raise SpawnServerError(f"the loader sent more than {_MAX_MESSAGES} messages before it was ready")
        if isinstance(message, StepReport):
            if message.state == "in_progress":
                self.journey = self.journey.started(message.name, now)
            elif message.state == "performed":
                self.journey = self.journey.performed(message.name, now, message.duration)
            else:
                self.journey = self.journey.errored(message.name, now, message.duration)
            return None
        if isinstance(message, AppEvent):
            if message.name == "hint":
                self._hint = {name: text for name, text in message.fields.items() if isinstance(text, str)}
                return None
            lines.loader_event(group=self.spec.key.name, name_of_event=message.name, members=str(dict(message.fields)))
            return None
        if isinstance(message, Failed):
            return self.failure(
                message.category, message.summary, message.problem, message.solution, message.traceback, message.details
            )
        if isinstance(message, Ready):
            if self.journey.type is not JourneyType.START_PRELOADER:
                self._check_socket(message)
                if self.spec.turned_out(message.app_type):
                    name, found = self.spec.key.name, message.app_type.upper()
                    lines.turned_out(group=name, interface=found)
            self.journey = self.journey.performed("ready", now)
            return message
        raise SpawnServerError(f"the loader sent {type(message).__name__} before it was ready")

    def _check_socket(self, ready: Ready) -> None:
        """R47: a child's report is not trusted. The socket must be at the ordered path, be a
        socket, and belong to the application's user.
        """
        if len(ready.sockets) != 1 or ready.sockets[0].protocol not in WORKER_PROTOCOLS:
            raise SpawnServerError("the loader is ready, but does not name exactly one socket with a known protocol")
        if ready.sockets[0].address != f"unix:{self.socket_path}":
            raise SpawnServerError(
                f"the loader listens on {ready.sockets[0].address} instead of unix:{self.socket_path}"
            )
        check_socket_file(self.socket_path, self.spec.uid)

    def _read_remaining(self, control: ControlConnection) -> Ready | SpawnError | None:
        """The error that the program reported before its exit was noticed. A ``ready`` of a program
        that has exited is ignored.
        """
        try:
            for message in control.remaining_messages():
                if not isinstance(message, Ready) and isinstance(result := self._handle_message(message), SpawnError):
                    return result
        except SpawnServerError as exc:
            return self._broke_contract(exc)
        return None

    def failure(
        self, category: ErrorCategory, summary: str, problem: str, solution: str, traceback: str = "", details: str = ""
    ) -> SpawnError:
        """The error, with all the evidence gathered so far."""
        # The program's last output may not have been read yet.
        self.output.drain()
        self.journey = self.journey.failed(trio.current_time())
        return SpawnError(
            SpawnFailure(
                error_id=secrets.token_hex(4),
                category=category,
                summary=summary,
                problem=problem,
                solution=solution,
                journey=self.journey,
                traceback=traceback,
                details=details,
                output=self.output.tail,
                environment=redact(self.environment or self.spec.environment),
                command=self.command,
                exit_status=describe_exit(self.exit_status) if self.exit_status is not None else "",
            )
        )

    def _broke_contract(self, exc: SpawnServerError) -> SpawnError:
        return self.failure(
            ErrorCategory.LOADER,
            "The loader broke the contract between loader and supervisor",
            str(exc),
            "This is not the application's fault. Please report it, with the output below.",
        )

    def _ended_early(self) -> SpawnError:
        return self.failure(
            ErrorCategory.EXITED,
            f"The application's process ended before it was ready ({describe_exit(self.exit_status)})",
            "It ended without a report. Its last output, if there was any, is below.",
            "Look at the output. A process that was killed by signal 9 was often killed for want of memory.",
        )

    def _timed_out(self, timeout: float, stacks: str) -> SpawnError:
        under_way = next((step.title for step in self.journey.steps if step.state.value == "in_progress"), "")
        return self.failure(
            ErrorCategory.TIMEOUT,
            f"The application was not ready within {timeout:g} seconds",
            self._hint.get("problem")
            or (f"It was still at this step: {under_way}." if under_way else "It did not say what it was doing."),
            self._hint.get("solution")
            or "Look at the output for what it waits for. If it only needs longer, raise --start-timeout.",
            stacks,
        )

    async def abandon(self) -> None:
        """End the program and close everything. Shielded, with a deadline of its own."""
        with trio.move_on_after(_KILL_TIME, shield=True):
            if self.pidfd is not None:
                self.pidfd.signal_group(signal.SIGKILL)
                await self.pidfd.wait_exit()
                self.pidfd.signal_group(signal.SIGKILL)  # members that outlived their leader
        if self.control is not None:
            self.control.close()
        if self.pidfd is not None:
            self.pidfd.close()
        self.output.close()
        remove_unix_socket(self.socket_path)
