"""The plan: which faults are armed for the application's processes, and which have fired.

The worker's side is ``worker/fault_points.py``, which describes the directory. ``environment`` is for
the start of the server: without it no process looks at the plan.

Law: an armed file fires at most once; what has not fired is taken back when its fault ends.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from passenger_trio.testing.run_directory import temporary_directory

__all__ = ["WRAPPER", "Order", "Plan"]

WRAPPER = Path(__file__).resolve().parent.parent / "worker"
"""The directory of the wrappers, for ``HARNESS_WRAPPER``."""


class Order:
    """One armed fault."""

    def __init__(self, home: Path, name: str) -> None:
        self._armed = home / "armed" / name
        self._fired = home / "fired"

    @property
    def mark(self) -> Path | None:
        """The file of the process in which it fired."""
        return next(self._fired.glob(f"{self._armed.name}.*"), None)

    @property
    def pid(self) -> int | None:
        """The process in which it fired; None: it has not."""
        mark = self.mark
        return None if mark is None else int(mark.name.rpartition(".")[2])

    def take_back(self) -> int | None:
        """Disarm it, or let go what it holds. Returns the process in which it fired."""
        self._armed.unlink(missing_ok=True)
        pid = self.pid
        if (mark := self.mark) is not None:
            mark.unlink()
        return pid


class Plan:
    """The directory of one server. ``close`` removes it."""

    def __init__(self, directory: Path | None = None) -> None:
        """:param directory: where to make it (default: that of the run)."""
        self.home = temporary_directory("plan-", directory)
        for name in ("armed", "fired"):
            (self.home / name).mkdir()
        self._number = 0

    @property
    def environment(self) -> dict[str, str]:
        """For the start of the server."""
        return {"HARNESS_WRAPPER": str(WRAPPER), "HARNESS_FAULTS": str(self.home)}

    def arm(self, point: str, action: str, **values: Any) -> Order:
        self._number += 1
        name = f"{point}.{self._number:06d}"
        # A process may look at any moment: the file appears whole.
        whole = self.home / name
        whole.write_text(json.dumps({"action": action, **values}))
        os.rename(whole, self.home / "armed" / name)
        return Order(self.home, name)

    @property
    def are_starts_at_stake(self) -> bool:
        """Whether a fault is armed that makes the next start fail, or last."""
        return any(any(self.home.glob(f"armed/{point}.*")) for point in ("load", "fork"))

    def close(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
