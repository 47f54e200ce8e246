"""Do the tests see it when the code is wrong? Applies each mutant of tests/mutants/*.toml to a copy of the tree and runs the tests that must fail.

    python tests/mutation.py [--only WORD] [--list] [--jobs N]

A mutant is a small fault: a file, the text before and the text after it, and the tests that are to see it. A kept list, and not a generator: it
plants what would matter most (who is believed, what is bounded), each in both directions, and its run takes minutes.

Laws: the tree itself is never changed; the tests named pass on the copy before anything is planted in it, or nothing that follows would mean anything; the text
before is in the file exactly once; a run that is hung counts as seen, for the suite has a time limit, too; a survivor has its reason in the list
(``survives``), or the run fails, and a reason that no longer holds makes it fail, too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
MUTANTS = ROOT / "tests" / "mutants"
PATIENCE = 300.0
"""Seconds for the tests of one mutant."""
_NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".nox", ".*_cache", "__pycache__", ".hypothesis", "node_modules", "dist"
)
_PLUGINS = ("pytest_trio.plugin", "pytest_timeout", "_hypothesis_pytestplugin")
_OPTIONS = (
    "-x",
    "-q",
    "--no-header",
    "-p",
    "no:cacheprovider",
    "-o",
    "timeout=60",
    *(word for plugin in _PLUGINS for word in ("-p", plugin)),
)


@dataclass(frozen=True)
class Mutant:
    """:ivar survives: the reason why no test can see it; "" for one that must be killed."""

    kind: str
    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]
    survives: str = ""


def read_mutants() -> tuple[list[Mutant], list[str]]:
    """Those that can be planted, and what is wrong with the others: a text that is not in its file (any more), or there more than once; a name that is there twice."""
    found: list[Mutant] = []
    wrong: list[str] = []
    names: set[str] = set()
    for path in sorted(MUTANTS.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["mutant"]:
            mutant = Mutant(path.stem, **{**entry, "tests": tuple(entry["tests"])})
            times = (ROOT / mutant.file).read_text().count(mutant.before)
            if times != 1:
                wrong.append(
                    f"{mutant.name!r}: the text before is {times} times in {mutant.file}, and has to be there once"
                )
            elif mutant.before == mutant.after or not mutant.tests or mutant.name in names:
                wrong.append(f"{mutant.name!r} changes nothing, has no tests, or is there twice")
            else:
                found.append(mutant)
            names.add(mutant.name)
    return found, wrong


class Copy:
    """A copy of the tree, in which one mutant is planted at a time."""

    def __init__(self, place: Path) -> None:
        self.root = place / "tree"
        shutil.copytree(ROOT, self.root, ignore=_NOT_COPIED, symlinks=True)
        # Without plugins that no test here needs, the start takes a third of the time.
        # The copy's modules come before those of an editable installation, also in the processes that tests start.
        self._env = {**os.environ, "PYTHONPATH": str(self.root), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

    def run(self, tests: tuple[str, ...], patience: float = PATIENCE) -> tuple[bool, str]:
        """(Whether they all pass, the end of what pytest said.)"""
        command = [sys.executable, "-m", "pytest", *_OPTIONS, *tests]
        with subprocess.Popen(
            command,
            cwd=self.root,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=patience)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                said = process.communicate()[0] + f"\nnot done within {patience:g} s"
        return process.returncode == 0, "\n".join(said.splitlines()[-25:])

    def try_one(self, mutant: Mutant) -> tuple[bool, str]:
        """(Whether it survived, what pytest said.) The file is what it was, afterwards."""
        path = self.root / mutant.file
        original, times = path.read_bytes(), path.stat()
        path.write_text(original.decode().replace(mutant.before, mutant.after))
        # Compiled modules are known by size and second: each text has a second of its own.
        os.utime(path, (times.st_mtime, times.st_mtime + 10 + time.monotonic() % 1e6))
        try:
            return self.run(mutant.tests)
        finally:
            path.write_bytes(original)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def results(mutants: list[Mutant], jobs: int) -> Iterator[tuple[Mutant, bool, str]]:
    """(A mutant, whether it survived, what pytest said), in the order of the list."""
    tests = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    # A module and a test of it: the module has it.
    tests = tuple(test for test in tests if "::" not in test or test.partition("::")[0] not in tests)
    with tempfile.TemporaryDirectory(prefix="pt-mutation-") as place:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(jobs):
            copies.put(Copy(Path(place, str(number))))
        first = copies.get()
        passed, said = first.run(tests, 12 * PATIENCE)
        copies.put(first)
        if not passed:
            raise ValueError(f"the tests fail although nothing is planted:\n{said}")

        def one(mutant: Mutant) -> tuple[Mutant, bool, str]:
            copy = copies.get()
            try:
                return (mutant, *copy.try_one(mutant))
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(one, mutants)


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant small faults and see whether the tests find them.")
    parser.add_argument("--only", default="", help="a part of the names, files or kinds of those that are tried")
    parser.add_argument("--list", action="store_true", help="only print them")
    parser.add_argument("--jobs", type=int, default=2, help="how many at the same time")
    options = parser.parse_args()
    try:
        there, wrong = read_mutants()
        mutants = [
            mutant for mutant in there if any(options.only in text for text in (mutant.name, mutant.file, mutant.kind))
        ]
        if options.list or not mutants:
            for mutant in mutants:
                print(f"{mutant.kind:8} {mutant.file}: {mutant.name}")
            for text in wrong:
                print(text, file=sys.stderr)
            return 0 if mutants and not wrong else 2
        killed: Counter[str] = Counter()
        for mutant, survived, said in results(mutants, options.jobs):
            verdict = "survived" if survived else "killed"
            print(f"{verdict:8} {mutant.kind:8} {mutant.name}", flush=True)
            killed[mutant.kind] += not survived
            if survived and not mutant.survives:
                wrong.append(f"{mutant.name} ({mutant.file}) survives {', '.join(mutant.tests)}:\n{said}")
            elif mutant.survives and not survived:
                wrong.append(f"{mutant.name} is killed; strike its reason: {mutant.survives}")
    except ValueError as exc:
        print(exc, file=sys.stderr)
        return 2
    print()
    for kind, count in sorted(Counter(mutant.kind for mutant in mutants).items()):
        print(f"{kind}: {killed[kind]} of {count} killed ({100 * killed[kind] / count:.0f} %)")
    for mutant in mutants:
        if mutant.survives:
            print(f"with a reason: {mutant.name}: {mutant.survives}")
    for text in wrong:
        print(f"\n{text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
