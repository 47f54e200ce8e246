"""Unpack a newer Debian's Ruby into a directory, beside the one of this machine, and print the path of a program that runs it.

    python tests/newer_ruby.py /tmp/newer-ruby [trixie]

``debootstrap`` (a Debian package; it needs root) puts the packages there, which takes a minute. Nothing is installed into the
system: the program is a small script that names the directory's own loader, libraries and gems. The tests find it through
``PASSENGER_TRIO_TEST_RUBIES``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PACKAGES = "ruby,ruby-rack,ruby-sinatra"
MIRROR = "http://deb.debian.org/debian"
SCRIPT = """#!/bin/sh
# Runs the Ruby under {root} on this system. Made by tests/newer_ruby.py.
R={root}
L=$R/usr/lib/{machine}
export RUBYLIB="$R/usr/lib/ruby/vendor_ruby:$L/ruby/vendor_ruby/{abi}:$R/usr/lib/ruby/{abi}:$L/ruby/{abi}"
export GEM_PATH="$R/usr/share/rubygems-integration/all:$L/rubygems-integration/{abi}:$R/usr/lib/ruby/gems/{abi}"
exec {loader} --library-path "$L:$R/lib/{machine}" $R/usr/bin/ruby{version} "$@"
"""


def main() -> None:
    root = Path(sys.argv[1]).resolve()
    suite = sys.argv[2] if len(sys.argv) > 2 else "trixie"
    program = root / "ruby"
    if not program.exists():
        base = root / "root"
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(base), MIRROR],
            check=True,
            stdout=sys.stderr,
        )
        version = max(path.name.removeprefix("ruby") for path in (base / "usr/bin").glob("ruby[0-9].[0-9]*"))
        machine = next((base / "usr/lib").glob("*-linux-gnu")).name
        loader = next(
            path
            for path in sorted((base / "usr/lib64").glob("ld-linux*"))
            + sorted((base / "usr/lib" / machine).glob("ld-linux*"))
        )
        program.write_text(
            SCRIPT.format(root=base, machine=machine, abi=f"{version}.0", loader=loader, version=version)
        )
        program.chmod(0o755)
    subprocess.run([str(program), "-v"], check=True, stdout=sys.stderr)
    print(program)


if __name__ == "__main__":
    main()
