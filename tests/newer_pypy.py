"""Unpack a newer Debian's PyPy into a directory, beside this machine's Python, with an environment that has passenger_trio, and print the path of its python.

    python tests/newer_pypy.py /tmp/newer-pypy [trixie]

As ``newer_ruby.py`` does: ``debootstrap`` (it needs root) puts the packages there, which takes a minute, and nothing is installed into the system. The
program is a small script that names the directory's own loader and libraries; it is at the same time the ``python`` of a virtual environment.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from newer_ruby import MIRROR

PACKAGES = "pypy3,pypy3-dev,pypy3-venv"
SCRIPT = """#!/bin/sh
# Runs the PyPy under {root} on this system. Made by tests/newer_pypy.py.
exec {loader} --argv0 "$0" --library-path {root}/usr/lib/{machine} {program} "$@"
"""
CONFIGURATION = """home = {root}/usr/bin
include-system-site-packages = false
"""
# What the suite's chosen part needs, of what has no part in C that this PyPy cannot load: newer versions of hypothesis have one.
WANTED = (
    "pytest>=8",
    "pytest-trio>=0.8",
    "pytest-timeout>=2.3",
    "hypothesis>=6.100,<6.140",
    "httpx>=0.27",
    "websockets>=14",
)


def main() -> None:
    root = Path(sys.argv[1]).resolve()
    suite = sys.argv[2] if len(sys.argv) > 2 else "trixie"
    base, python = root / "root", root / "env" / "bin" / "python"
    if not python.exists():
        if not (base / "usr/bin/pypy3").exists():
            subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(base), MIRROR],
                check=True,
                stdout=sys.stderr,
            )
        program = max((base / "usr/bin").glob("pypy3.*[0-9]"), key=lambda path: int(path.name.rpartition(".")[2]))
        machine = next((base / "usr/lib").glob("*-linux-gnu")).name
        loader = next(
            path for path in (*(base / "usr/lib64").glob("ld-linux*"), *(base / "usr/lib" / machine).glob("ld-linux*"))
        )
        python.parent.mkdir(parents=True, exist_ok=True)
        (root / "env" / "pyvenv.cfg").write_text(CONFIGURATION.format(root=base))
        python.write_text(SCRIPT.format(root=base, loader=loader, machine=machine, program=program))
        python.chmod(0o755)
        run(python, "-m", "ensurepip")
    checkout = Path(__file__).resolve().parent.parent
    run(python, "-m", "pip", "install", "-q", "-e", str(checkout), *WANTED)
    run(python, "--version")
    print(python)


def run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
