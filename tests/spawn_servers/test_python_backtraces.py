"""What a worker says of its stacks while its application is in the middle of something (OB9); in this process."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from passenger_trio_loader.backtraces import backtraces


@pytest.mark.parametrize("name", ["threading", "linecache"])
def test_a_module_that_is_only_begun_to_be_imported(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It is among the modules before it has any name of its own: the application's thread imports it, and another one asks."""
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    text = backtraces()
    monkeypatch.undo()
    assert "main thread" in text
    assert "test_a_module_that_is_only_begun_to_be_imported" in text
    assert "cannot be listed" not in text
