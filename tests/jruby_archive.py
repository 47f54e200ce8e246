"""What JRuby loads at its start, kept in a file that Java maps into memory: ``python tests/jruby_archive.py``. A start then costs a third less.

Java itself sees whether the file belongs to it and to that JRuby, and does without if not.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from pathlib import Path

ARCHIVE = Path(__file__).resolve().parent.parent / ".nox" / "jruby.jsa"
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xlog:disable"
GEMS = "/usr/share/rubygems-integration/all"


def environment() -> dict[str, str]:
    """JRuby does not look for gems where Debian puts them, and a start costs less than half when the virtual machine compiles and collects less eagerly."""
    archive = f" -XX:SharedArchiveFile={ARCHIVE}" if ARCHIVE.exists() else ""
    return {"GEM_PATH": GEMS, "JRUBY_OPTS": "--dev", "JAVA_OPTS": JAVA_OPTIONS + archive}


def environment_without_gems() -> dict[str, str]:
    """RubyGems is half of what a start costs then. Rack, which is a gem, is found as a library."""
    libraries = os.pathsep.join(glob.glob(f"{GEMS}/gems/rack-[0-9]*/lib"))
    return {**environment(), "JRUBY_OPTS": "--dev --disable-gems", "RUBYLIB": libraries}


def make() -> None:
    """Make the file, unless it is there.

    :raises subprocess.CalledProcessError: JRuby does not start.
    """
    jruby = shutil.which("jruby")
    if jruby is None or ARCHIVE.exists():
        return
    ARCHIVE.parent.mkdir(exist_ok=True)
    new = ARCHIVE.with_suffix(f".{os.getpid()}")
    options = f"{JAVA_OPTIONS} -XX:ArchiveClassesAtExit={new}"
    command = [jruby, "-e", 'require "socket"; require "json"; require "rack"']
    subprocess.run(command, env={**os.environ, **environment(), "JAVA_OPTS": options}, check=True, timeout=300)
    if new.exists():  # an older Java makes none
        new.rename(ARCHIVE)


if __name__ == "__main__":
    make()
