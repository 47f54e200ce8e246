"""The command of a ``Procfile`` that the server starts: ``web:``."""

from __future__ import annotations

import os
import re

from passenger_trio.system.regular_files import read_regular

__all__ = ["web_command"]

_MOST = 1_000_000
_WEB = re.compile(r"^web[ \t]*:[ \t]*(\S.*?)[ \t\r]*$", re.MULTILINE)


def web_command(root: str) -> str:
    """The command of ``web:`` in the directory's ``Procfile``; ``""``: there is none."""
    try:
        text = (read_regular(os.path.join(root, "Procfile"), _MOST) or b"").decode("utf-8", "replace")
    except OSError:
        return ""
    match = _WEB.search(text)
    return match[1] if match is not None else ""
