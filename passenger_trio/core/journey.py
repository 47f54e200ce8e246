"""The journey of a spawn: its steps, how far it came, how long each step took, and which one failed.

A journey is a frozen value; ``performed`` and its siblings return the next one. Step names are stable:
the error page, ``status`` and the log show them. This module lists the supervisor's own steps. A loader
reports the steps of ``LOADER_STEPS`` over its control connection (``spawn_servers/CONTRACT.md``). It
may report other steps, which are kept under their own names.
"""

from __future__ import annotations

import enum

import attrs

from passenger_trio.late_classes import frozen

SUPERVISOR_STEPS: dict[str, str] = {
    "preparation": "Prepare the spawn: output pipe, token, environment",
    "start_program": "Start the program with the application's interpreter",
    "ask_preloader": "Ask the preloader for a new process",
    "connect_back": "Wait for the program to connect back",
    "handshake": "Check who connected, and send the options",
    "probe": "Wait until the program accepts connections",
}
LOADER_STEPS: dict[str, str] = {
    "prepare_runtime": "Prepare the language runtime",
    "load_application": "Load the application",
    "after_fork": "Prepare the forked process",
    "start_up": "Run the application's own start-up",
    "listen": "Listen for sessions",
    "ready": "Tell the supervisor that it may serve",
}
DIRECT = (
    "preparation",
    "start_program",
    "connect_back",
    "handshake",
    "prepare_runtime",
    "load_application",
    "listen",
    "ready",
)
PRELOADER = (
    "preparation",
    "start_program",
    "connect_back",
    "handshake",
    "prepare_runtime",
    "load_application",
    "ready",
)
COMMAND = ("preparation", "start_program", "probe")
FORKED = ("preparation", "ask_preloader", "connect_back", "handshake", "after_fork", "listen", "ready")


class JourneyType(enum.Enum):
    SPAWN_DIRECTLY = "spawn_directly"
    START_PRELOADER = "start_preloader"
    SPAWN_THROUGH_PRELOADER = "spawn_through_preloader"
    START_COMMAND = "start_command"


class StepState(enum.Enum):
    NOT_STARTED = "not_started"
    IN_PROGRESS = "in_progress"
    PERFORMED = "performed"
    ERRORED = "errored"


@frozen
class Step:
    """One step. ``begun`` is monotonic seconds, ``duration`` seconds or None while it is under way."""

    name: str
    state: StepState = StepState.NOT_STARTED
    begun: float | None = None
    duration: float | None = None

    @property
    def title(self) -> str:
        return SUPERVISOR_STEPS.get(self.name) or LOADER_STEPS.get(self.name) or self.name.replace("_", " ")


_STEPS = {
    JourneyType.SPAWN_DIRECTLY: DIRECT,
    JourneyType.START_PRELOADER: PRELOADER,
    JourneyType.SPAWN_THROUGH_PRELOADER: FORKED,
    JourneyType.START_COMMAND: COMMAND,
}


@frozen
class Journey:
    """The steps of one spawn, in order."""

    type: JourneyType
    steps: tuple[Step, ...]

    @classmethod
    def begin(cls, type: JourneyType) -> Journey:
        return cls(type, tuple(Step(name) for name in _STEPS[type]))

    def started(self, name: str, now: float) -> Journey:
        """``name`` is under way."""
        return self._with(name, StepState.IN_PROGRESS, now)

    def performed(self, name: str, now: float, duration: float | None = None) -> Journey:
        return self._with(name, StepState.PERFORMED, now, duration)

    def errored(self, name: str, now: float, duration: float | None = None) -> Journey:
        return self._with(name, StepState.ERRORED, now, duration)

    def gone_on(self) -> Journey:
        """The preloader becomes a serving process: keep the steps it performed, and add the rest of a direct spawn."""
        done = {step.name: step for step in self.steps if step.name != "ready"}
        steps = tuple(done.pop(name, Step(name)) for name in DIRECT)
        return Journey(JourneyType.SPAWN_DIRECTLY, (*steps[:-2], *done.values(), *steps[-2:]))

    def failed(self, now: float) -> Journey:
        """The spawn failed in an unknown step: blame the step under way, else the one after the last performed step.

        A step that is already marked as errored keeps the blame.
        """
        if self.failed_step is not None:
            return self
        for step in self.steps:
            if step.state is StepState.IN_PROGRESS:
                return self.errored(step.name, now)
        for step in self.steps:
            if step.state is StepState.NOT_STARTED:
                return self.errored(step.name, now)
        return self.errored(self.steps[-1].name, now)

    @property
    def failed_step(self) -> Step | None:
        return next((step for step in self.steps if step.state is StepState.ERRORED), None)

    def _with(self, name: str, state: StepState, now: float, duration: float | None = None) -> Journey:
        steps = list(self.steps)
        index = next((i for i, step in enumerate(steps) if step.name == name), None)
        if index is None:
            # Insert an unknown step behind the last one that has begun: loaders of other languages have their own.
            index = next((i for i, step in enumerate(steps) if step.state is StepState.NOT_STARTED), len(steps))
            steps.insert(index, Step(name))
        step = steps[index]
        if state is StepState.IN_PROGRESS:
            steps[index] = attrs.evolve(step, state=state, begun=now, duration=None)
        else:
            begun = step.begun if step.begun is not None else now
            took = duration if duration is not None else max(0.0, now - begun)
            steps[index] = attrs.evolve(step, state=state, begun=begun, duration=took)
        return attrs.evolve(self, steps=tuple(steps))
