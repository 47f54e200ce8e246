"""What the tests of the Node loader share: where it is, the Nodes at hand, the sample applications.

The Nodes are the first in ``PATH`` and those that ``PASSENGER_TRIO_TEST_NODES`` names (paths, with colons between them).
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from passenger_trio.testing.conformance import FakeSupervisor, Loader, Subject

ROOT = Path(__file__).resolve().parent.parent.parent
LOADER = ROOT / "spawn_servers" / "node" / "node_loader.js"
APPS = ROOT / "tests" / "apps" / "node"


@functools.cache  # each is asked for its version once, and not by every module that wants to know
def nodes() -> dict[str, str]:
    """Version -> path of every Node found."""
    named = os.environ.get("PASSENGER_TRIO_TEST_NODES", "").split(os.pathsep)
    found: dict[str, str] = {}
    for path in filter(None, [*named, shutil.which("node")]):
        asked = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False)
        match = re.match(r"v(\d+\.\d+\.\d+)", asked.stdout)
        if match:
            found.setdefault(f"node-{match[1]}", path)
    return found


def subject(node: str) -> Subject:
    return Subject(
        command=(node, str(LOADER)),
        app_root=str(APPS / "conformance"),
        startup_file="app.js",
        app_type="node",
        protocol="http",
        interrupts=False,
    )


@contextmanager
def supervisor_of(node: str, app: str | Path, file: str, **options: Any) -> Iterator[Loader]:
    """A worker of a sample application."""
    with FakeSupervisor() as supervisor:
        yield supervisor.start((node, str(LOADER)), APPS / app, file, app_type="node", **options)
