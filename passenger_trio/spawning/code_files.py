"""Detects that the code of an application has changed: computes a signature of its code files, to
compare with an earlier one.

It reads names, sizes and modification times, never contents. It looks at ``_MOST`` entries at most,
because an application may have a million uploads. It skips files that an application writes (logs,
data, caches), installed packages (virtual environments, packages) and hidden directories. It takes
a few milliseconds for thousands of files, so call it in a thread.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from itertools import islice

__all__ = ["code_signature"]

_CODE = (".py", ".rb", ".ru", ".js", ".mjs", ".cjs", ".ts", ".php", ".pl")
_NOT_CODE = frozenset({"node_modules", "__pycache__", "tmp", "log", "logs", "site-packages", "bundle"})
_MOST = 20_000
"""Files and directories of any kind. Of a larger application only a part is examined, nearest to
its root first.
"""


def code_signature(root: str, most: int = _MOST) -> int:
    """A number that changes when a code file appears, changes or disappears. Unreadable files are
    skipped.
    """
    found: list[str] = []
    directories = deque([root])
    seen = 0
    while directories and seen < most:
        try:
            with os.scandir(directories.popleft()) as entries:
                listed = sorted(islice(entries, most - seen), key=lambda entry: entry.name)
        except OSError:
            continue
        seen += len(listed) + 1
        if any(entry.name == "pyvenv.cfg" for entry in listed):
            continue
        for entry in listed:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and entry.name not in _NOT_CODE:
                    directories.append(entry.path)
            elif entry.name.endswith(_CODE):
                found.append(_look(entry.path))
    return zlib.crc32("\n".join(found).encode("utf-8", "surrogateescape"))


def _look(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{path} {status.st_mtime_ns} {status.st_size}"
