"""An application's options and type -> which spawner makes its processes.

::

    type generic                a command of the operator's           GenericSpawner
    spawn_method direct         one program for each process          DirectSpawner
    else                        a preloader, which forks              SmartSpawner
    with --warmup-url           whichever it is, and then a request   WarmSpawner

(``make_app_spec`` sets ``direct`` where the interpreter cannot fork.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import attrs

from passenger_trio.kernel import ErrorKernel
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.spawning.direct import DirectSpawner
from passenger_trio.spawning.generic import GenericSpawner
from passenger_trio.spawning.reception import Reception
from passenger_trio.spawning.remains import Remains
from passenger_trio.spawning.smart import SmartSpawner
from passenger_trio.spawning.spawner import Spawner
from passenger_trio.spawning.warm_up import WarmSpawner
from passenger_trio.system.logs import AppOutput
from passenger_trio.system.ports import Ports

__all__ = ["MakeSpawner", "SpawnerFacts", "SpawnerParts", "spawners_of", "uses_preloader"]

MakeSpawner = Callable[[int], Spawner]
"""The spawner of a generation. What it spawns is the code as it is from then on."""


@attrs.frozen
class SpawnerFacts:
    """Whom the spawners of one application tell of their preloaders.

    :ivar on_preloader: when a preloader has started (True) or ended (False): its generation, and its number in that.
    :ivar on_unsafe: when the application of a generation turns out unsafe to fork.
    """

    on_preloader: Callable[[int, int, bool], None]
    on_unsafe: Callable[[int], None]


@attrs.frozen(eq=False)
class SpawnerParts:
    """What the spawners of one server share."""

    reception: Reception
    ports: Ports
    remains: Remains
    kernel: ErrorKernel


def uses_preloader(spec: AppSpec) -> bool:
    """Whether a preloader forks the application's processes."""
    return spec.detected.app_type != "generic" and spec.app.spawn_method != "direct"


def spawners_of(spec: AppSpec, parts: SpawnerParts, facts: SpawnerFacts) -> MakeSpawner:
    """What makes the spawner of each generation of an application."""
    sink = AppOutput(spec.key.name)

    def make(generation: int) -> Spawner:
        spawner = make_cold(generation)
        if not spec.app.warmup_url:
            return spawner
        return WarmSpawner(spawner, spec.app.warmup_url, spec.app.base_uri, spec.app.start_timeout)

    def make_cold(generation: int) -> Spawner:
        if uses_preloader(spec):
            return SmartSpawner(
                spec,
                parts.reception,
                sink,
                on_preloader=partial(facts.on_preloader, generation),
                on_unsafe=partial(facts.on_unsafe, generation),
                kernel=parts.kernel,
                remains=parts.remains,
            )
        if spec.detected.app_type == "generic":
            return GenericSpawner(spec, parts.ports, sink, parts.remains)
        return DirectSpawner(spec, parts.reception, sink, parts.remains)

    return make
