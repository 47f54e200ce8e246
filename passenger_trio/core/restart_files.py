"""The files in an application's restart directory (``tmp/``), and what each of them requests.

======================  =============================================================================
``restart.txt``         one restart, each time it appears or changes (``RestartFile``)
``always_restart.txt``  while it exists: a hard restart before each request that would not find fresh
                        processes (``PoolPolicy.always_restart``)
======================  =============================================================================

This module knows names, and the current and the previous modification time. It never looks at a file: ``pool/restart_file_poller`` does.

Laws: a file that exists when the poller begins requests no restart. Removing a file requests none either.
"""

from __future__ import annotations

from passenger_trio.late_classes import define

__all__ = ["ALWAYS_RESTART", "RESTART", "RestartFile"]

RESTART = "restart.txt"
ALWAYS_RESTART = "always_restart.txt"


@define(eq=False)
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
