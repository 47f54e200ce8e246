"""What the tests of preloaders of several languages share."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def check_exit_hooks(supervisor: Any, preloader: Any, directory: Path) -> None:
    """Hooks that the application has set before it was forked: each process runs them once, and what they share is there until the last of them has ended.

    :param directory: the application's. A hook writes the pid of its process into ``ran``; the preloader's removes ``shared``.
    """
    first, second = supervisor.fork(preloader), supervisor.fork(preloader)
    first.shut_down()
    first.wait_gone()
    assert (directory / "ran").read_text().split() == [str(first.pid)]
    assert (directory / "shared").is_dir()
    preloader.shut_down()
    assert second.request().body == b"hello"
    assert (directory / "shared").is_dir()
    second.shut_down()
    second.wait_gone()
    assert preloader.exit_status() == 0
    assert (directory / "ran").read_text().split() == [str(loader.pid) for loader in (first, second, preloader)]
    assert not (directory / "shared").exists()
