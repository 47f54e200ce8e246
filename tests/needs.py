"""What a test needs of the machine. Where it is missing, the test fails in CI, and is skipped, with its reason, on a developer's machine."""

from __future__ import annotations

import os

import pytest


def needs(there: bool, what: str) -> None:
    """:param what: completes "this test needs ..."."""
    __tracebackhide__ = True
    if there:
        return
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"this test needs {what}; in CI (the variable CI is set) that has to be there", pytrace=False)
    pytest.skip(f"this test needs {what}")
