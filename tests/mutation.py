"""Do the tests see it when the code is wrong? Applies each mutant of tests/mutants/*.toml to a copy of the tree and runs the tests that must fail.

    python tests/mutation.py [--kind KIND] [--only WORD] [--list] [--jobs N]
    python tests/mutation.py --sample N [--only WORD] [--seed TEXT] [--results FILE] [--jobs N]

A mutant is a small fault: a file, the text before and the text after it, and the tests that are to see it. The kept list plants what would matter most (who is
believed, what is bounded), each in both directions. Files and tests are named without their folders, so that they may move; of several files of one name it is the
one that has the text, and if none has it, it is the file of another name that does. With ``--sample`` it is not the list: so many faults a module of ``core/`` and ``codecs/``, wherever there can be one (mutation_sample.py).

Laws: the tree itself is never changed; the tests named pass on the copy before anything is planted in it, or their mutants are not tried and the run fails; the text
before is there exactly once (kept by test_mutants.py); a run that is hung counts as seen, for the suite has a time limit, too; a survivor has its reason in the list
(``survives``), or the run fails, and a reason that no longer holds makes it fail, too.
"""

from __future__ import annotations

import argparse
import os
import re
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
from typing import Any

import mutation_sample

ROOT = Path(__file__).resolve().parent.parent
MUTANTS = ROOT / "tests" / "mutants"
CODE = ("passenger_trio", "spawn_servers")
PATIENCE = 300.0
"""Seconds for the tests of one mutant."""
_NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".nox", ".*_cache", "__pycache__", ".hypothesis", "node_modules", "dist"
)
_PLUGINS = ("pytest_trio.plugin", "pytest_timeout", "_hypothesis_pytestplugin", "passenger_trio.testing.plugin")
_OPTIONS = (
    "-x",
    "-q",
    "--no-header",
    "-p",
    "no:cacheprovider",
    "-o",
    "timeout=120",
    *(word for plugin in _PLUGINS for word in ("-p", plugin)),
)


@dataclass(frozen=True)
class Mutant:
    """:ivar file: Its path in the tree; in the list, its name.
    :ivar tests: Test modules, or tests, by their paths in the tree; in the list, without folders.
    :ivar select: Which of them: an expression as that of ``pytest -k``; "" for all.
    :ivar survives: the reason why no test can see it; "" for one that must be killed."""

    kind: str
    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]
    select: str = ""
    survives: str = ""

    @property
    def arguments(self) -> tuple[str, ...]:
        """What pytest is told to run."""
        return (*self.tests, "-k", self.select) if self.select else self.tests


def read_mutants() -> tuple[list[Mutant], list[str]]:
    """Those that can be planted, and what is wrong with the others: a text that is not in its file (any more), or there more than once; a test that is not
    there; a name that is there twice."""
    found: list[Mutant] = []
    wrong: list[str] = []
    names: set[str] = set()
    texts: dict[str, dict[str, str]] = {}
    for path in (
        path for folder in CODE for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".rb", ".js")
    ):
        texts.setdefault(path.name, {})[str(path.relative_to(ROOT))] = path.read_text()
    modules = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    for kind, entry in read_entries():
        named = entry["name"]
        times = _found(entry["before"], texts.get(entry["file"], {}))
        if not times:  # it has moved into another file
            times = _found(entry["before"], {path: text for named in texts.values() for path, text in named.items()})
        tests = []
        for test in entry["tests"]:
            module, _, name = test.partition("::")
            if module not in modules or not all(_defines(modules[module], word) for word in name.split("::") if name):
                wrong.append(f"{named!r}: there is no test {test}")
            else:
                tests.append(str(modules[module].relative_to(ROOT)) + test.removeprefix(module))
        if sum(times.values()) != 1:
            wrong.append(
                f"{named!r}: the text before is {sum(times.values())} times in {entry['file']}, and has to be there once"
            )
        elif entry["before"] == entry["after"] or not entry["tests"] or named in names:
            wrong.append(f"{named!r} changes nothing, has no tests, or is there twice")
        elif len(tests) == len(entry["tests"]):
            (file,) = times
            found.append(Mutant(kind, **{**entry, "file": file, "tests": tuple(tests)}))
        names.add(named)
    return found, wrong


def read_entries() -> Iterator[tuple[str, dict[str, Any]]]:
    """(Kind, what the list has), for each mutant."""
    for path in sorted(MUTANTS.glob("*.toml")):
        for entry in tomllib.loads(path.read_text()).get("mutant", ()):
            yield path.stem, entry


def _found(wanted: str, texts: dict[str, str]) -> dict[str, int]:
    """Path -> how many times, of those where it is."""
    return {path: count for path, text in texts.items() if (count := text.count(wanted))}


def _defines(module: Path, name: str) -> bool:
    return (
        re.search(rf"^ *(?:async def|def|class) {name.partition('[')[0]}\b", module.read_text(), re.MULTILINE)
        is not None
    )


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
        return process.returncode == 0, said

    def try_one(self, mutant: Mutant) -> tuple[bool, str]:
        """(Whether it survived, what pytest said.) The file is what it was, afterwards."""
        path = self.root / mutant.file
        original, times = path.read_bytes(), path.stat()
        path.write_text(original.decode().replace(mutant.before, mutant.after))
        # Compiled modules are known by size and second: each text has a second of its own.
        os.utime(path, (times.st_mtime, times.st_mtime + 10 + time.monotonic() % 1e6))
        try:
            return self.run(mutant.arguments)
        finally:
            path.write_bytes(original)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def results(mutants: list[Mutant], jobs: int) -> Iterator[tuple[Mutant, bool, str]]:
    """(A mutant, whether it survived, what pytest said.) Those that only tests without processes are to see are planted as a sample is, which is quicker."""
    quick = [mutant for mutant in mutants if is_quick(mutant)]
    if quick:
        reach = mutation_sample.known_reach(jobs)
        faults = [
            mutation_sample.Fault.of_text(
                mutant,
                mutant.file,
                mutant.before,
                mutant.after,
                {test.partition("::")[0] for test in mutant.tests},
                reach,
            )
            for mutant in quick
        ]
        for fault, came in mutation_sample.verdicts(faults, jobs):
            if came["verdict"] not in ("killed", "survived"):
                raise ValueError(f"{fault.what.name}: {came['verdict']}: {came['by']}")
            yield fault.what, came["verdict"] == "survived", came["by"]
    slow = [mutant for mutant in mutants if not is_quick(mutant)]
    if slow:
        yield from in_copies(slow, jobs)


def is_quick(mutant: Mutant) -> bool:
    return mutant.file.startswith(mutation_sample.PACKAGES) and all(
        test.partition("::")[0].startswith(mutation_sample.TESTS) for test in mutant.tests
    )


def in_copies(mutants: list[Mutant], jobs: int) -> Iterator[tuple[Mutant, bool, str]]:
    """The same, each in a copy of the tree, in the order of the list."""
    tests = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests if not mutant.select))
    # A module and a test of it: the module has it.
    tests = tuple(test for test in tests if "::" not in test or test.partition("::")[0] not in tests)
    with tempfile.TemporaryDirectory(prefix="pt-mutation-") as place:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(jobs):
            copies.put(Copy(Path(place, str(number))))
        first = copies.get()
        failing: set[str] = set()
        for those in dict.fromkeys((tests, *(mutant.arguments for mutant in mutants if mutant.select))):
            passed, said = first.run((*those, "--maxfail=1000"), 12 * PATIENCE) if those else (True, "")
            if not passed:
                failing.update(re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE) or those)
        copies.put(first)

        def one(mutant: Mutant) -> tuple[Mutant, bool, str]:
            if any(name.startswith(test) for name in failing for test in mutant.tests):
                return mutant, True, f"its tests fail although nothing is planted: {', '.join(sorted(failing))}"
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
    parser.add_argument("--kind", default="", help="only those of tests/mutants/KIND.toml")
    parser.add_argument("--list", action="store_true", help="only print them")
    parser.add_argument("--jobs", type=int, default=2, help="how many at the same time")
    parser.add_argument(
        "--sample", type=int, default=0, help="instead of the list: so many faults in each module of core/ and codecs/"
    )
    parser.add_argument("--seed", default="1", help="another text, another sample")
    parser.add_argument("--results", type=Path, help="a file to which each verdict on a sample is added, as JSON")
    options = parser.parse_args()
    try:
        if options.sample:
            return mutation_sample.run(options.sample, options.seed, options.only, options.jobs, options.results)
        there, wrong = read_mutants()
        mutants = [
            mutant
            for mutant in there
            if options.kind in ("", mutant.kind)
            and any(options.only in text for text in (mutant.name, mutant.file, mutant.kind))
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
                wrong.append(
                    f"{mutant.name} ({mutant.file}) survives {', '.join(mutant.tests)}:\n"
                    + "\n".join(said.splitlines()[-15:])
                )
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
