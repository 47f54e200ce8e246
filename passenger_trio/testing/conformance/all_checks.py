"""All checks, in the contract's order, and a function that runs them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Final

from passenger_trio.testing.conformance import (
    backtraces,
    broken_sessions,
    ending,
    preloading,
    sessions,
    starting,
    upgrades,
    websockets,
)
from passenger_trio.testing.conformance.basis import ConformanceFailure
from passenger_trio.testing.conformance.subject import Check, Subject, registered

SECTIONS: Final = (starting, ending, backtraces, preloading, sessions, broken_sessions, websockets, upgrades)
"""Importing them registers the checks."""

CHECKS: Final[tuple[Check, ...]] = tuple(registered)


def check_spawn_server(subject: Subject, *, share: bool = False) -> list[str]:
    """Run every check that concerns the subject, with workers that are started and, if it can preload, with forked ones.

    :param share: see ``Stage``.
    :returns: the names of the checks that were run.
    :raises ConformanceFailure: at least one failed; the text names all that did.
    """
    done: list[str] = []
    failures: list[str] = []
    for preloaded in (False, True):
        variant = replace(subject, preloaded=preloaded)
        with variant.stage(share=True) if share else contextlib.nullcontext() as stage:
            for check in CHECKS:
                if check.concerns(variant):
                    done.append(f"{check.name}[{'forked' if preloaded else 'started'}]")
                    try:
                        check(variant, stage)
                    except ConformanceFailure as failure:
                        failures.append(f"{done[-1]}: {failure}")
    if failures:
        raise ConformanceFailure("\n\n".join(failures))
    return done
