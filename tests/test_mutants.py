"""HO5: the lists of planted faults are true of the tree as it is, and the faults that are found in a module are what they say."""

from __future__ import annotations

import ast
import os
import signal
from pathlib import Path
from types import ModuleType

import pytest
from mutation import read_entries, read_mutants
from mutation_sample import _code, _forked, _function, modules, reasons
from mutation_sites import HITS, instrumented, place, planted, sample, sites

ROOT = Path(__file__).resolve().parent.parent

TEXT = '''
"""A docstring."""
LIMIT = 5


class Room:
    def takes(self, count: int = 1, *, last: bool = False) -> bool:
        """Whether there is room."""
        if not self.open or count > LIMIT - self.used:
            raise ValueError(f"no room for {count + 1}")
        self.used += count
        return last and self.left in (b"x", None)

    def __repr__(self) -> str:
        return f"{self.used + 1}"
'''

FOUND = [
    ("", "constant", "5", "6"),
    ("", "constant", "5", "4"),
    ("Room", "constant", "1", "2"),
    ("Room", "constant", "1", "0"),
    ("Room", "constant", "False", "True"),
    (
        "Room.takes",
        "negated",
        "not self.open or count > LIMIT - self.used",
        "not (not self.open or count > LIMIT - self.used)",
    ),
    (
        "Room.takes",
        "and, or",
        "not self.open or count > LIMIT - self.used",
        "not self.open and count > LIMIT - self.used",
    ),
    ("Room.takes", "a side left out", "not self.open or count > LIMIT - self.used", "count > LIMIT - self.used"),
    ("Room.takes", "a side left out", "not self.open or count > LIMIT - self.used", "not self.open"),
    ("Room.takes", "not left out", "not self.open", "self.open"),
    ("Room.takes", "boundary", "count > LIMIT - self.used", "count >= LIMIT - self.used"),
    ("Room.takes", "turned round", "count > LIMIT - self.used", "count <= LIMIT - self.used"),
    ("Room.takes", "operator", "LIMIT - self.used", "LIMIT + self.used"),
    ("Room.takes", "left out", "raise ValueError(f'no room for {count + 1}')", ""),
    ("Room.takes", "left out", "self.used += count", ""),
    ("Room.takes", "operator", "self.used += count", "self.used -= count"),
    ("Room.takes", "left out", "return last and self.left in (b'x', None)", ""),
    ("Room.takes", "and, or", "last and self.left in (b'x', None)", "last or self.left in (b'x', None)"),
    ("Room.takes", "a side left out", "last and self.left in (b'x', None)", "self.left in (b'x', None)"),
    ("Room.takes", "a side left out", "last and self.left in (b'x', None)", "last"),
    ("Room.takes", "turned round", "self.left in (b'x', None)", "self.left not in (b'x', None)"),
    ("Room.takes", "constant", "b'x'", "b'#'"),
]


def test_each_mutant_of_the_list_can_be_planted() -> None:
    """One whose text or whose tests are gone would no longer say anything: mend it in tests/mutants, or strike it with what it was about."""
    found, wrong = read_mutants()
    assert not wrong, "\n".join(wrong)
    assert len(found) == len(list(read_entries()))


def test_each_reason_is_for_a_site_that_is_there() -> None:
    known = {name: {site.key for site in sites((ROOT / name).read_text())} for name in modules()}
    gone = [f"{file}: {key.split(chr(0))}" for file, key in reasons() if key not in known.get(file, ())]
    assert not gone, "no such place any more:\n" + "\n".join(gone)
    assert all(reasons().values())


def test_the_sites_of_a_module() -> None:
    assert [(site.where, site.fault, site.before, site.after) for site in sites(TEXT)] == FOUND


@pytest.mark.parametrize("place", range(len(FOUND)))
def test_each_site_changes_one_thing(place: int) -> None:
    site = sites(TEXT)[place]
    changed = ast.unparse(planted(TEXT, site)).splitlines()
    original = ast.unparse(ast.parse(TEXT)).splitlines()
    assert len(changed) == len(original)
    different = [(old, new) for old, new in zip(original, changed, strict=True) if old != new]
    assert len(different) == 1
    assert site.after in different[0][1] if site.after else different[0][1].strip() == "pass"


def test_a_site_is_known_wherever_it_stands() -> None:
    """A line more above it changes neither its key nor the sample."""
    moved = TEXT.replace("LIMIT = 5", "LIMIT = 5\n\n\nNAME = 'room'")
    assert [site.key for site in sites(moved)] == [site.key for site in sites(TEXT)]
    assert list(sample(sites(moved), 5, "1")) == list(sample(sites(TEXT), 5, "1"))
    assert list(sample(sites(TEXT), 9, "1"))[:5] == list(sample(sites(TEXT), 5, "1"))
    assert list(sample(sites(TEXT), 5, "2")) != list(sample(sites(TEXT), 5, "1"))


def test_those_that_are_alike_are_told_apart() -> None:
    found = sites("def f(a):\n    g(a > 1)\n    return a > 1\n")
    assert len({site.key for site in found}) == len(found)
    second = next(site for site in found if site.fault == "boundary" and site.nth == 1)
    assert ast.unparse(planted("def f(a):\n    g(a > 1)\n    return a > 1\n", second)).endswith("return a >= 1")


def test_blocks_tell_that_they_run() -> None:
    text = "def f(a):\n    '''Doc.'''\n    if a:\n        return 1\n    else:\n        for b in ():\n            pass\n    return 2\n"
    hits: set[int] = set()
    names: dict[str, object] = {HITS: hits}
    exec(compile(instrumented(text), "f", "exec"), names)
    f = names["f"]
    assert callable(f)
    assert f.__doc__ == "Doc."
    of = {site.block for site in sites(text) if site.before == "return 1"}
    assert (f(0), of & hits) == (2, set())
    assert (f(1), of & hits) == (1, of)


def test_what_cannot_be_planted_is_an_error() -> None:
    with pytest.raises(LookupError):
        planted("a = 1", sites(TEXT)[0].__class__("", "constant", "5", "6", 0, 1, 0))


FUNCTIONS = """
import functools

class Room:
    @property
    def left(self):
        return self.size + 1

    @left.setter
    def left(self, count):
        self.size = count - 1

    @staticmethod
    def largest(rooms):
        def size(room):
            return room.size + 1
        return max(rooms, key=size)

    @classmethod
    def small(cls):
        return cls(1)

    @functools.cached_property
    def name(self):
        return 1

    @functools.lru_cache
    def cached(self):
        return 2
"""


def test_a_function_is_found_in_its_module_and_in_the_changed_code() -> None:
    module = ModuleType("rooms")
    exec(FUNCTIONS, vars(module))
    found = [site for site in sites(FUNCTIONS) if site.block]
    assert {site.where.partition(".")[2] for site in found} == {
        "left",
        "largest",
        "largest.size",
        "small",
        "name",
        "cached",
    }
    for site in found:
        function = _function(module, site.where)
        code = _code(compile(planted(FUNCTIONS, site), "rooms", "exec"), site.where, site.line)
        assert function is not None
        assert code is not None
        assert function.__name__ == code.co_name == site.where.split(".")[1]
        assert code.co_firstlineno <= site.line, "of two of one name it is the one with the site"


def test_a_line_is_in_a_function_and_a_block() -> None:
    line = TEXT.splitlines().index('            raise ValueError(f"no room for {count + 1}")') + 1
    (raised,) = (site for site in sites(TEXT) if site.before.startswith("raise"))
    assert place(TEXT, line) == ("Room.takes", raised.block)
    assert place(TEXT, 3) == ("", 0)
    assert place(TEXT, line + 1) == ("Room.takes", sites(TEXT)[-1].block)


@pytest.mark.parametrize("answer", ["killed", "survived"])
def test_whom_a_fork_is_asked_answers(answer: str) -> None:
    assert list(_forked([("it", lambda: {"verdict": answer}, 60.0)], 1)) == [("it", {"verdict": answer})]


def test_a_fork_that_ends_or_lasts_is_a_fault_that_is_seen() -> None:
    work = [("ends", lambda: os._exit(3), 60.0), ("lasts", lambda: signal.pause() or {}, 0.5)]
    assert {what: came["verdict"] for what, came in _forked(work, 2)} == {"ends": "killed", "lasts": "killed"}
