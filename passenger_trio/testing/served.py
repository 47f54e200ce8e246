"""``python -m passenger_trio.testing.served ...``: the command ``passenger-trio``, as the harness starts it.

It ends with the process of the tests (``--lifeline``). If that is gone at its end, nobody else removes what the harness has made: the server does (TH8).
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

from passenger_trio.testing.run_directory import remove_as_the_last, started

__all__ = ["serve"]


def serve() -> None:
    """Be the command, with the arguments of this process."""
    pid, _, home = os.environ.pop("HARNESS_HOME", "0 ").partition(" ")
    began = started(int(pid))
    try:
        runpy.run_module("passenger_trio", run_name="__main__", alter_sys=True)
    finally:
        if home and started(int(pid)) != began:
            remove_as_the_last(Path(home))


if __name__ == "__main__":
    serve()
