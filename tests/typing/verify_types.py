"""Whether every public name is typed for those who use it: ``pyright --verifytypes``, for the public modules (LI9).

    python tests/typing/verify_types.py

The types of public names must be known through and through, with what their signatures mention. Prints what is not, and
ends with status 1. Part of ``nox -s typing``; takes half a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import passenger_trio

MODULES = ("passenger_trio.events", "passenger_trio.errors", "passenger_trio.extensions", "passenger_trio.status_types")
"""Public as they are (docs/embedding.md). Other modules are public by the names that ``passenger_trio`` exports."""


def report() -> dict[str, Any]:
    """What pyright tells of the installed package."""
    # It asks the ``python`` of PATH where packages are, and does not see the package of the directory that it runs in.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory(prefix="pt-") as directory:
        done = subprocess.run(
            [sys.executable, "-m", "pyright", "--outputjson", "--verifytypes", "passenger_trio"],
            env=environment,
            cwd=directory,
            stdout=subprocess.PIPE,
            check=False,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def is_public(name: str, homes: dict[str, str]) -> bool:
    """Whether a symbol is of the public face.

    :param homes: public name -> its full name in the module that defines it.
    """
    if name in homes:
        return True
    return any(name == full or name.startswith(f"{full}.") for full in (*homes.values(), *MODULES))


def main() -> int:
    found = report()
    symbols = {symbol["name"]: symbol for symbol in found["typeCompleteness"]["symbols"]}
    homes = {
        f"passenger_trio.{name}": f"{getattr(passenger_trio, name).__module__}.{name}"
        for name in passenger_trio.__all__
        if name != "__version__"
    }
    missing = sorted({*homes, *homes.values()} - set(symbols))
    for name in missing:
        print(f"{name}: pyright does not find it")
    bad = [symbol for name, symbol in symbols.items() if is_public(name, homes) and not symbol["isTypeKnown"]]
    for symbol in bad:
        print(f"{symbol['name']}: its type is not known")
        for diagnostic in symbol["diagnostics"]:
            print("   ", diagnostic["message"].replace("\n", "\n    "))
    for name, symbol in symbols.items() if bad else ():
        # The reason is often in a class that a public one mentions.
        for diagnostic in symbol["diagnostics"]:
            if "missing type annotation" in diagnostic["message"] and ".testing." not in name:
                print(f"perhaps because of {name}")
    public = [name for name in symbols if is_public(name, homes)]
    print(f"{len(public)} public symbols, {len(bad) + len(missing)} without a known type")
    return int(bool(bad or missing))


if __name__ == "__main__":
    sys.exit(main())
