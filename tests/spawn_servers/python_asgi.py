"""What the tests of the Python ASGI loader share: where it is, its sample applications, both event loops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from python_wsgi import APPS, PYTHON, ROOT

from passenger_trio.testing.conformance import FakeSupervisor, Loader, Subject

LOADER = ROOT / "spawn_servers" / "python" / "asgi_loader.py"
LOOPS = ("asyncio", "trio")


def command(python: str = PYTHON, *, preload: bool = False) -> tuple[str, ...]:
    return (python, str(LOADER), "--preload") if preload else (python, str(LOADER))


def subject(python: str = PYTHON, *, preloaded: bool = False, loop: str = "asyncio") -> Subject:
    return Subject(
        command=command(python),
        preload_command=command(python, preload=True),
        app_root=str(APPS / "conformance_asgi"),
        startup_file="app.py",
        preloaded=preloaded,
        app_type="asgi",
        loop=loop,
        websocket=True,
    )


@contextmanager
def worker_of(app: str, file: str = "app.py", **options: Any) -> Iterator[Loader]:
    """A worker of a sample application."""
    with FakeSupervisor() as supervisor:
        yield supervisor.start(command(), APPS / app, file, **{"app_type": "asgi", **options})
