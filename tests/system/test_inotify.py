"""OP4: the kernel tells of changes in a directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from passenger_trio.system.inotify import DirectoryWatch

pytestmark = pytest.mark.os


async def test_each_kind_of_change_is_told(tmp_path: Path) -> None:
    file, other = tmp_path / "a.toml", tmp_path / "b.toml"
    changes = (
        lambda: file.write_text("a"),
        lambda: file.write_text("b"),
        lambda: file.rename(other),
        lambda: other.chmod(0o600),
        lambda: other.unlink(),
        lambda: os.symlink("nowhere", file),
    )
    with DirectoryWatch(str(tmp_path)) as watch, trio.fail_after(30):
        for change in changes:
            change()
            assert await watch.wait_changed()
        with trio.move_on_after(0.05) as quiet:
            await watch.wait_changed()
        assert quiet.cancelled_caught, "nothing has changed"


async def test_a_directory_that_goes_is_told(tmp_path: Path) -> None:
    directory = tmp_path / "apps"
    directory.mkdir()
    with DirectoryWatch(str(directory)) as watch, trio.fail_after(30):
        directory.rename(tmp_path / "elsewhere")
        assert not await watch.wait_changed()


async def test_what_is_no_directory_cannot_be_watched(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(OSError, match=r"directory"):
            DirectoryWatch(str(path))
