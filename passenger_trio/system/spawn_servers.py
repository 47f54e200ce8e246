"""The location of the programs of ``spawn_servers/``: beside the package in a checkout, inside it
in an installed wheel.
"""

from __future__ import annotations

import functools
from pathlib import Path

__all__ = ["find_loader"]

_PACKAGE = Path(__file__).resolve().parent.parent
_PLACES = (_PACKAGE / "_spawn_servers", _PACKAGE.parent / "spawn_servers")


@functools.cache
def find_loader(language: str, name: str) -> Path:
    """The file of a loader, such as ``find_loader("python", "wsgi_loader.py")``.

    :raises FileNotFoundError: the installation is incomplete.
    """
    for place in _PLACES:
        path = place / language / name
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"spawn_servers/{language}/{name} is missing: the installation of passenger_trio is not whole"
    )
