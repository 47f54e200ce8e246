"""What ``tmp/restart.txt`` asks for, from what can be seen of it.

It knows times of modification, and what was seen before. It never looks itself.

Laws: what was there when the poller began asks for nothing; to appear and to change ask for a restart, once each; to go asks
for nothing.
"""

from __future__ import annotations

import attrs


@attrs.define(eq=False)
class RestartFile:
    """One file, as far as it was seen. Times of modification are compared, never ordered: a copied file may be old."""

    _mtime: int | None = None

    def first_seen(self, mtime: int | None) -> None:
        """How it is when the poller begins; None: it is not there."""
        self._mtime = mtime

    def seen(self, mtime: int | None) -> bool:
        """How it is now. Whether that asks for a restart."""
        before, self._mtime = self._mtime, mtime
        return mtime is not None and mtime != before
