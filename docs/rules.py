"""The page of rules: what its tables say, and whether that is so.

    python docs/rules.py            put the columns "kept in" and "test" right, after files were moved or a row was added
    python docs/rules.py --check    say what is wrong, and exit with 1 if anything is

``docs/rules.md`` is written by hand: a code, its rule, its source. A row also names the modules that keep the rule and the tests that show it.
Modules are relative to ``passenger_trio/`` (or to the root of the tree); tests are base names, which are unique. In a new row write ```?```
for either: it becomes what mentions the code most often.

Laws: a code that the tree uses has a row; a row's code is used; a module or test that is named exists; a test that is named mentions the code. A
row without a test has its reason in ARCHITECTURE.md, which mentions the code.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "rules.md"
FAMILIES = ("R", "F", "KE", "HO", "OP", "ED", "OB", "DE", "FR", "TH", "LI", "DO")
#: In the name of a test a code stands between underscores.
CODE = re.compile(rf"(?<![A-Za-z0-9.#%&\\-])((?:{'|'.join(FAMILIES)})[1-9][0-9]?)(?![A-Za-z0-9])")
REASON = "reason in ARCHITECTURE.md"
NOTHING = "-"
MOST = 3
"""Modules and tests that a row gets by itself."""

_FOLDERS = ("passenger_trio", "spawn_servers", "tests", "fuzz", "docs")
_TEXT = {".py", ".rb", ".js", ".cjs", ".mjs", ".c", ".sh", ".md", ".toml", ".yml", ".yaml"}
_ROW = re.compile(r"\| ([A-Z]+[0-9]+) \| (.+) \| (.+) \| (.+) \| (.+) \|")


@attrs.frozen
class Row:
    code: str
    rule: str
    source: str
    kept_in: tuple[str, ...]
    """Paths; none where nothing keeps it."""
    tests: tuple[str, ...]
    """Base names; none where there is a reason instead."""

    @classmethod
    def of(cls, line: str) -> Row | None:
        match = _ROW.fullmatch(line)
        if match is None:
            return None
        code, rule, source, kept_in, tests = match.groups()
        return cls(code, rule, source, _names(kept_in), _names(tests))

    def __str__(self) -> str:
        return f"| {self.code} | {self.rule} | {self.source} | {_cell(self.kept_in, NOTHING)} | {_cell(self.tests, REASON)} |"


def _names(cell: str) -> tuple[str, ...]:
    return tuple(re.findall("`([^`]+)`", cell))


def _cell(names: tuple[str, ...], otherwise: str) -> str:
    return ", ".join(f"`{name}`" for name in names) or otherwise


@functools.cache
def uses() -> dict[Path, Counter[str]]:
    """File of the tree (relative) -> the codes in it, and how often."""
    found = {}
    for path in _files():
        codes = Counter(CODE.findall(path.read_text(errors="replace")))
        if path.name == "test_rules.py":
            codes = Counter({"HO7": codes["HO7"]})  # the others are examples there
        if codes:
            found[path.relative_to(ROOT)] = codes
    return found


def _files() -> Iterator[Path]:
    yield from ROOT.glob("*.md")
    for folder in _FOLDERS:
        for directory, folders, names in os.walk(ROOT / folder):
            folders[:] = sorted(set(folders) - {"node_modules", "__pycache__"})
            for name in sorted(names):
                path = Path(directory, name)
                if path.suffix in _TEXT and path not in (PAGE, Path(__file__).resolve()):
                    yield path


def rows(text: str) -> list[Row]:
    return [row for line in text.splitlines() if (row := Row.of(line))]


def module(name: str) -> Path | None:
    """The file or folder that a row calls so, relative to the tree."""
    for path in (Path("passenger_trio") / name, Path(name)):
        if (ROOT / path).exists():
            return path
    return None


@functools.cache
def _test_files() -> dict[str, Path]:
    return {path.name: path.relative_to(ROOT) for path in _files() if path.is_relative_to(ROOT / "tests")}


def test_file(name: str) -> Path | None:
    """The file below ``tests/`` that has this base name, relative to the tree."""
    return _test_files().get(name)


def faults(text: str) -> Iterator[str]:
    """What is wrong with the page ``text``: a sentence each."""
    defined = rows(text)
    used = {code for codes in uses().values() for code in codes}
    counted = Counter(row.code for row in defined)
    reasons = uses().get(Path("ARCHITECTURE.md"), Counter())
    yield from (f"{code} is defined {count} times" for code, count in counted.items() if count > 1)
    for code in sorted(used - set(counted)):
        where = ", ".join(str(path) for path, codes in uses().items() if code in codes)
        yield f"{code} is used in {where}, and has no row in docs/rules.md"
    yield from (f"{code} has a row, and nothing uses it" for code in sorted(set(counted) - used))
    for row in defined:
        for name in row.kept_in:
            if module(name) is None:
                yield f"{row.code} is kept in {name}, which does not exist"
        for name in row.tests:
            path = test_file(name)
            if path is None:
                yield f"the test {name} of {row.code} does not exist"
            elif row.code not in uses().get(path, Counter()):
                yield f"the test {name} does not mention {row.code}"
        if row.tests and not row.kept_in:
            yield f"{row.code} has a test, and no module is named that keeps it"
        if not row.tests and row.code not in reasons:
            yield f"{row.code} has no test, and ARCHITECTURE.md gives no reason"


def refreshed(text: str) -> str:
    """The page with its last two columns put right: moved files by their new paths, missing ones by who mentions the code most often."""
    lines = []
    for line in text.splitlines():
        row = Row.of(line)
        if row is not None and (row.kept_in or row.tests):
            kept_in = tuple(found for name in row.kept_in if (found := _moved(name)))
            tests = tuple(
                name
                for name in row.tests
                if (path := test_file(name)) is not None and row.code in uses().get(path, Counter())
            )
            row = attrs.evolve(
                row,
                kept_in=kept_in or _by_mention(row.code, "passenger_trio", "spawn_servers"),
                tests=tests or tuple(Path(name).name for name in _by_mention(row.code, "tests")),
            )
            line = str(row)
        lines.append(line)
    return "\n".join(lines) + "\n"


def _moved(name: str) -> str | None:
    if module(name) is not None:
        return name
    package = ROOT / "passenger_trio"
    found = [str(path.relative_to(package)) for path in package.rglob(Path(name).name)]
    return found[0] if len(found) == 1 else None


def _by_mention(code: str, *folders: str) -> tuple[str, ...]:
    counts = {path: codes[code] for path, codes in uses().items() if path.parts[0] in folders and code in codes}
    best = sorted(counts, key=lambda path: (not path.name.startswith("test_"), -counts[path], str(path)))[:MOST]
    return tuple(str(path).removeprefix("passenger_trio/") for path in best)


def main() -> None:
    text = PAGE.read_text()
    if sys.argv[1:] == ["--check"]:
        found = list(faults(text))
        sys.exit("\n".join(found) if found else 0)
    PAGE.write_text(refreshed(text))


if __name__ == "__main__":
    main()
