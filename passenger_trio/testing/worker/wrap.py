"""What a Python loader calls: ``wrap(application, interface)``.

The wrapper checks the application against the rules of its interface (``wsgi_lint``, ``asgi_lint``)
and makes armed faults at their points (``fault_points``). It changes nothing else: what the
application raises, returns and receives passes through.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

__all__ = ["PARTS", "load", "wrap"]

PARTS = ("fault_points", "findings", "times", "wsgi_rules", "wsgi_wrapper", "asgi_rules", "asgi_wrapper")
"""All modules of this directory that a process may need; one that is forked from a test's process has them already."""

_DIRECTORY = os.path.dirname(os.path.abspath(__file__))


def load(name: str) -> Any:
    """A module of this directory, under a name that no application uses."""
    full = "passenger_harness_" + name
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, os.path.join(_DIRECTORY, name + ".py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


def wrap(application: Any, interface: str) -> Any:
    """The application as the harness wants it served.

    :param interface: ``"wsgi"`` or ``"asgi"``.
    """
    points = load("fault_points")
    fault = points.claim("load")
    if fault is not None:
        points.perform(fault)
    if os.environ.get("HARNESS_FAULTS"):
        _watch_forks(points)
    load("findings")
    load("times")
    load(interface + "_rules")
    return load(interface + "_wrapper").Wrapper(application)


def _watch_forks(points: Any) -> None:
    def starting(forked: bool) -> None:
        fault = points.claim("fork")
        if fault is not None:
            points.perform(fault)

    # The loader's own module: it has no file.
    sys.modules["passenger_trio_events"].on_event("starting_worker_process", starting)
