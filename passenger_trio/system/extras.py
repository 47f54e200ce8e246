"""Optional dependencies: imported where they are used, and one clear line where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from passenger_trio.errors import MissingExtra

__all__ = ["import_extra"]


def import_extra(module: str, extra: str, feature: str) -> ModuleType:
    """Import a module of an optional dependency.

    :param extra: the name in ``passenger-trio[...]``.
    :param feature: what needs it, as people name it.
    :raises MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingExtra(
            f"{feature} needs {module.partition('.')[0]}, which is not installed: pip install 'passenger-trio[{extra}]'"
        ) from None
