"""Relative paths follow the links that the shell followed, and only those (OP21)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from passenger_trio.system.paths import absolute_path


@pytest.fixture
def linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is ``releases/1``, reached through ``current``."""
    (tmp_path / "releases" / "1").mkdir(parents=True)
    (tmp_path / "releases" / "2").mkdir()
    (tmp_path / "current").symlink_to("releases/1")
    monkeypatch.chdir(tmp_path / "current")
    return tmp_path


@pytest.mark.parametrize("given", [".", "./", "", "shop", "./shop/"])
def test_OP21_the_working_directory_keeps_the_link(linked: Path, given: str) -> None:
    expected = os.path.normpath(f"{linked}/current/{given}")
    assert absolute_path(given, {"PWD": str(linked / "current")}) == expected


def test_OP21_pwd_is_believed_only_where_it_names_the_working_directory(linked: Path) -> None:
    real = str(linked / "releases" / "1")
    (linked / "releases" / "1" / "here").symlink_to(".")
    for lie in (str(linked / "releases/2"), str(linked / "nowhere"), "current", "", ".", f"{linked}/x/../current"):
        assert absolute_path(".", {"PWD": lie}) == real, lie
    assert absolute_path(".", {}) == real


def test_OP21_a_link_that_is_switched_later_is_still_the_way_here(linked: Path) -> None:
    """A deployment does so, and may remove the directory. Of another working directory it says nothing."""
    environ = {"PWD": str(linked / "current")}
    assert absolute_path("shop", environ) == f"{linked}/current/shop"
    (linked / "current").unlink()
    (linked / "current").symlink_to("releases/2")
    assert absolute_path("shop", environ) == f"{linked}/current/shop"
    (linked / "releases" / "1").rmdir()
    assert absolute_path("shop", environ) == f"{linked}/current/shop"
    os.chdir(linked)
    assert absolute_path("shop", environ) == f"{linked}/shop"


def test_OP21_above_a_link_the_kernel_decides(linked: Path) -> None:
    assert absolute_path("../2", {"PWD": str(linked / "current")}) == str(linked / "releases" / "2")


def test_an_absolute_path_is_what_it_was(linked: Path) -> None:
    assert absolute_path(str(linked / "current"), {"PWD": "/"}) == str(linked / "current")


def test_a_removed_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert absolute_path("/", {"PWD": "/x"}) == "/"
    with pytest.raises(FileNotFoundError):
        absolute_path(".", {"PWD": str(tmp_path / "gone")})
    monkeypatch.chdir(tmp_path)
