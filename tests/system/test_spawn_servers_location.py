"""The loaders are found beside the package in a checkout and inside it in an installation, and their absence is told."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from passenger_trio.system import spawn_servers
from passenger_trio.system.spawn_servers import find_loader


def test_the_loader_of_this_installation_is_found() -> None:
    path = find_loader("python", "wsgi_loader.py")
    assert path.is_absolute()
    assert path.is_file()


@pytest.mark.parametrize(
    ("language", "name"), [("python", "moon_loader.py"), ("klingon", "wsgi_loader.py"), ("python", "")]
)
def test_what_is_missing_is_told_by_name(language: str, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"spawn_servers/{language}/{name} is missing"):
        find_loader(language, name)


@pytest.mark.os
def test_inside_an_installed_package_its_own_loaders_are_taken(tmp_path: Path) -> None:
    """As a wheel lays them: the package's own come first, whatever lies beside the package."""
    source = Path(spawn_servers.__file__)
    system = tmp_path / "passenger_trio" / "system"
    system.mkdir(parents=True)
    shutil.copy(source, system)
    for package in (system, system.parent):
        (package / "__init__.py").touch()
    inside = tmp_path / "passenger_trio" / "_spawn_servers" / "python"
    beside = tmp_path / "spawn_servers" / "python"
    for place, name in ((beside, "a.py"), (beside, "b.py"), (inside, "a.py")):
        place.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    code = "from passenger_trio.system.spawn_servers import find_loader as f; print(f('python', 'a.py'), f('python', 'b.py'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.split() == [str(inside / "a.py"), str(beside / "b.py")]
