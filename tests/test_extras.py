"""A missing optional dependency is one clear line that names the extra."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from passenger_trio.errors import MissingExtra
from passenger_trio.system.extras import import_extra


def test_what_is_installed_is_imported() -> None:
    assert import_extra("rich.live", "top", "passenger-trio top").__name__ == "rich.live"


def test_what_is_missing_is_named() -> None:
    with pytest.raises(MissingExtra) as caught:
        import_extra("no_such_library.part", "top", "passenger-trio top")
    assert str(caught.value) == (
        "passenger-trio top needs no_such_library, which is not installed: pip install 'passenger-trio[top]'"
    )
    assert caught.value.exit_code == 2


def test_an_error_within_the_library_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_a_library.py").write_text("import what_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_it_needs"):
        import_extra("half_a_library", "top", "passenger-trio top")


def test_the_extras_exist() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert "top" in project["optional-dependencies"]
