"""What the tests of the Ruby loaders share: where they are, the Rubies at hand, the sample applications.

The Rubies are Debian's, JRuby, and those that ``PASSENGER_TRIO_TEST_RUBIES`` names (paths, with colons between them), such as the one that
``tests/newer_ruby.py`` unpacks into a directory.
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

import jruby_archive

from passenger_trio.testing.conformance import FakeSupervisor, Loader, Subject

ROOT = Path(__file__).resolve().parent.parent.parent
LOADERS = ROOT / "spawn_servers" / "ruby"
APPS = ROOT / "tests" / "apps" / "ruby"


@functools.cache  # each is asked for its version once, and not by every module that wants to know
def rubies() -> dict[str, str]:
    """Name -> path of every Ruby found, each real one once."""
    named = os.environ.get("PASSENGER_TRIO_TEST_RUBIES", "").split(os.pathsep)
    versions = [f"ruby{major}.{minor}" for major in (2, 3) for minor in range(10)]
    candidates = [*named, *(shutil.which(name) for name in ("ruby", *versions, "jruby"))]
    found: dict[str, str] = {}
    for path in filter(None, candidates):
        asked = subprocess.run([path, "-v"], capture_output=True, text=True, timeout=60, check=False)
        match = re.match(r"(j?ruby) (\d+\.\d+\.\d+)", asked.stdout)
        if match:
            found.setdefault(f"{match[1]}-{match[2]}", path)
    return found


def can_fork(ruby: str) -> bool:
    return "jruby" not in Path(ruby).name


def environment(ruby: str, *, gems: bool = True) -> dict[str, str]:
    if can_fork(ruby):
        return {}
    return jruby_archive.environment() if gems else jruby_archive.environment_without_gems()


def command(ruby: str, *, preload: bool = False) -> tuple[str, ...]:
    return (
        (ruby, str(LOADERS / "rack_preloader.rb"), "--preload") if preload else (ruby, str(LOADERS / "rack_loader.rb"))
    )


def subject(ruby: str, *, preloaded: bool = False, gems: bool = True) -> Subject:
    """:param gems: False: a JRuby does without RubyGems, and starts in half the time."""
    return Subject(
        command=command(ruby),
        preload_command=command(ruby, preload=True) if can_fork(ruby) else (),
        app_root=str(APPS / "conformance"),
        startup_file="config.ru",
        preloaded=preloaded,
        app_type="rack",
        env=environment(ruby, gems=gems),
        hijack=True,
    )


@contextmanager
def worker_of(ruby: str, app: str | Path, **options: Any) -> Iterator[Loader]:
    """A worker of a sample application."""
    env = {**environment(ruby), **options.pop("env", {})}
    with FakeSupervisor() as supervisor:
        yield supervisor.start(command(ruby), APPS / app, "config.ru", app_type="rack", env=env, **options)
