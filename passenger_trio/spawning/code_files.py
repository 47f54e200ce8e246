"""Has the code of an application changed? A signature of the files that hold code, to compare with one of before.

Only looking: names, sizes and times of modification, never contents. What an application writes (logs, data, caches), what is installed beside it
(virtual environments, packages) and hidden directories are left out. It takes a few milliseconds for thousands of files, so call it in a thread.
"""

from __future__ import annotations

import os
import zlib

__all__ = ["code_signature"]

_CODE = (".py", ".rb", ".ru", ".js", ".mjs", ".cjs", ".ts", ".php", ".pl")
_NOT_CODE = frozenset({"node_modules", "__pycache__", "tmp", "log", "logs", "site-packages", "bundle"})
_MOST = 20_000
"""Files; a larger application is looked at in part."""


def code_signature(root: str) -> int:
    """A number that changes when a file with code appears, changes or goes. What cannot be read is left out."""
    found: list[str] = []
    for directory, below, files in os.walk(root):
        if "pyvenv.cfg" in files:
            below.clear()
            continue
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in _NOT_CODE)
        for name in sorted(files):
            if name.endswith(_CODE):
                found.append(_look(f"{directory}/{name}"))
        if len(found) > _MOST:
            break
    return zlib.crc32("\n".join(found).encode("utf-8", "surrogateescape"))


def _look(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{path} {status.st_mtime_ns} {status.st_size}"
