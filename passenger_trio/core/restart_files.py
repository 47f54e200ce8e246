"""What ``tmp/restart.txt`` requests.

This module knows modification times, current and previous. It never looks at the file itself.

Laws: a file that exists when the poller begins requests nothing. Its appearance and each change request
one restart. Its removal requests nothing.
"""

from __future__ import annotations

import attrs


@attrs.define(eq=False)
class RestartFile:
    """One file as last seen. Modification times are compared for equality, never ordered: a copied file may be old."""

    _mtime: int | None = None

    def first_seen(self, mtime: int | None) -> None:
        """The modification time when the poller begins; None: the file does not exist."""
        self._mtime = mtime

    def seen(self, mtime: int | None) -> bool:
        """The current modification time. Returns whether it requests a restart."""
        before, self._mtime = self._mtime, mtime
        return mtime is not None and mtime != before
