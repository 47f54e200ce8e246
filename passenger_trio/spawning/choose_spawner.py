"""Which spawner makes the processes of an application: decided by its options and type.

::

    type generic                a command of the operator's           GenericSpawner
    spawn_method direct         one program for each process          DirectSpawner
    else                        a preloader, which forks              SmartSpawner
    with --warmup-url           one of these, and then a request      WarmSpawner

(``make_app_spec`` sets ``direct`` if the interpreter cannot fork.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.late_classes import frozen
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.spawning.direct import DirectSpawner
from passenger_trio.spawning.leftover_processes import Remains
from passenger_trio.spawning.smart_forking import SmartSpawner
from passenger_trio.spawning.spawn_listener import SpawnListener
from passenger_trio.spawning.spawner import Spawner
from passenger_trio.spawning.warm_up import WarmSpawner
from passenger_trio.system.logs import AppOutput
from passenger_trio.system.ports import Ports

__all__ = ["MakeSpawner", "SpawnerFacts", "SpawnerParts", "spawners_of"]

MakeSpawner = Callable[[int], Spawner]
"""Makes the spawner of a generation, which spawns the code as it is from then on."""


@frozen
class SpawnerFacts:
    """Callbacks for what the spawners of one application find out.

    :ivar on_preloader: a preloader of a generation, with its number, has started (True) or ended (False).
    :ivar on_unsafe: the application of a generation is unsafe to fork.
    """

    on_preloader: Callable[[int, int, bool], None]
    on_unsafe: Callable[[int], None]


@frozen(eq=False)
class SpawnerParts:
    """What the spawners of one server share."""

    spawn_listener: SpawnListener
    ports: Ports
    remains: Remains
    kernel: ErrorKernel


def spawners_of(spec: AppSpec, parts: SpawnerParts, facts: SpawnerFacts) -> MakeSpawner:
    """A function that makes the spawner of each generation of an application."""
    sink = AppOutput(spec.key.name)

    def make(generation: int) -> Spawner:
        spawner = make_cold(generation)
        if not spec.app.warmup_url:
            return spawner
        return WarmSpawner(spawner, spec.app.warmup_url, spec.app.base_uri, spec.app.start_timeout)

    def make_cold(generation: int) -> Spawner:
        if spec.uses_preloader:
            return SmartSpawner(
                spec,
                parts.spawn_listener,
                sink,
                on_preloader=partial(facts.on_preloader, generation),
                on_unsafe=partial(facts.on_unsafe, generation),
                kernel=parts.kernel,
                remains=parts.remains,
            )
        if spec.detected.app_type == "generic":
            from passenger_trio.spawning.generic import GenericSpawner  # here: other applications do not need it (DE10)

            return GenericSpawner(spec, parts.ports, sink, parts.remains)
        return DirectSpawner(spec, parts.spawn_listener, sink, parts.remains)

    return make
