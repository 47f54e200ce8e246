"""R46, OP8: a process that gives up root gives up all of it, for ever."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from needs import needs

pytestmark = pytest.mark.os

TRY = """
import os
from passenger_trio.system.privileges import can_be_root_again, drop_privileges
{before}
try:
    print(can_be_root_again() if {only_look} else drop_privileges(65534, 65534, [65534]))
except RuntimeError as error:
    print(error)
print(os.getresuid(), os.getresgid(), os.getgroups())
"""
DROPPED = "None\n(65534, 65534, 65534) (65534, 65534, 65534) [65534]\n"


def tried(before: str = "", *, only_look: bool = False) -> str:
    code = TRY.format(before=before, only_look=only_look)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_R46_nothing_of_root_is_left() -> None:
    needs(os.geteuid() == 0, "root, to give it up")
    assert tried() == DROPPED


def test_R46_who_can_be_root_again() -> None:
    """A saved user is enough; so is the capability."""
    needs(os.geteuid() == 0, "root, to give it up")
    assert tried("os.setresuid(65534, 65534, 65534)", only_look=True).startswith("False\n(65534")
    assert tried("os.setresuid(65534, 65534, 0)", only_look=True).startswith("True\n(")
    assert tried(only_look=True).startswith("True\n(0")
