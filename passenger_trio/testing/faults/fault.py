"""A fault: something that a test breaks on purpose, for the length of a ``with`` block.

Laws:

* A fault that never fired fails the test: at the end of the block it raises ``FaultNeverFired``,
  unless the test has failed already.
* A fault that has ended leaves the server as it was: what it stopped goes on, what it took is given
  back, what it armed is disarmed.
* Values that the test leaves out are drawn from the seed of ``Faults``, and shown in every message.
  All of them are plain numbers, so a property-based test can draw and shrink them, too.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, TypeVar

__all__ = ["Fault", "FaultNeverFired", "FaultNotPossible"]

F = TypeVar("F", bound="Fault")


class FaultNeverFired(AssertionError):
    """The test passed without the fault that it is about."""


class FaultNotPossible(Exception):
    """This fault cannot be made here: the server, the application or the machine does not allow it."""


class Fault:
    """The base of all faults.

    :ivar values: the fault's parameters, for messages.
    :ivar fired: how often it happened.
    """

    name = "fault"
    hint = ""
    """How a test makes it happen, for ``FaultNeverFired``."""

    def __init__(self, seed: int = 0, **values: Any) -> None:
        self.seed = seed
        self.values = values
        self.fired = 0
        self.has_begun = False

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.values.items())})"

    def begin(self) -> None:
        """Start to break things."""

    def end(self) -> None:
        """Stop, and give back what was taken. ``fired`` is final afterwards."""

    def check_fired(self) -> None:
        """:raises FaultNeverFired: it has not happened."""
        if not self.fired:
            raise FaultNeverFired(
                f"the fault {self!r} (seed {self.seed}) never fired, so this test shows nothing about it"
                + (f"; {self.hint}" if self.hint else "")
            )

    def __enter__(self: F) -> F:
        self.has_begun = True
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()
        if error is None:
            self.check_fired()
        else:
            error.add_note(f"under the fault {self!r} (seed {self.seed}), which fired {self.fired} times")
