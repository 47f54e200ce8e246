"""The Ruby loaders keep spawn_servers/CONTRACT.md, on every Ruby that is here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from ruby_rack import LOADERS, can_fork, rubies, subject

from passenger_trio.testing.conformance import CHECKS, Check, Stage

RUBIES = rubies()
_MODES = (False, True)
_ON_JRUBY = {
    "listens_on_its_path",
    "reports_a_failed_start",
    "reports_an_exception",
    "ends_on_shutdown",
    "ends_when_the_supervisor_is_gone",
    "exits_at_a_second_sigterm",
    "treats_shutdown_and_sigterm_as_one_stop",
    "shows_its_stacks",
}
"""Checks that need a process of their own, and are made with a Ruby that cannot fork, too: what differs there. Each start costs 5 seconds of
processor time. All are made by ``nox -s loaders``.
"""


def is_made(check: Check, ruby: str) -> bool:
    """Whether a check is made here."""
    return "PASSENGER_TRIO_TEST_ALL_PYTHONS" in os.environ or check.shares or can_fork(ruby) or check.name in _ON_JRUBY


CASES = [
    pytest.param(check, ruby, preloaded, id=f"{name}-{check}-{'forked' if preloaded else 'started'}")
    for name, ruby in RUBIES.items()
    for preloaded in _MODES
    for check in CHECKS
    if check.concerns(subject(ruby, preloaded=preloaded)) and is_made(check, ruby)
]


def test_what_is_made_on_jruby_is_there() -> None:
    assert {check.name for check in CHECKS} >= _ON_JRUBY


@pytest.fixture(scope="module")
def stages() -> Iterator[dict[tuple[str, bool], Stage]]:
    """Ruby, whether it is preloaded -> a stage that shares its worker, among those checks that may."""
    with ExitStack() as stack:
        kinds = {(ruby, preloaded) for _, ruby, preloaded in (case.values for case in CASES)}
        yield {
            (ruby, preloaded): stack.enter_context(subject(ruby, preloaded=preloaded).stage(share=True))
            for ruby, preloaded in kinds
        }


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.parametrize(("check", "ruby", "preloaded"), CASES)
def test_contract(check: Check, ruby: str, preloaded: bool, stages: dict[tuple[str, bool], Stage]) -> None:
    """Each check by its name and with each Ruby, which the log of a run lists. What needs a process of its own asks nothing of gems; those that share
    theirs have them.
    """
    check(subject(ruby, preloaded=preloaded, gems=check.shares), stages[ruby, preloaded])


def test_there_is_a_ruby_to_check() -> None:
    assert any(can_fork(ruby) for ruby in RUBIES.values()), f"no Ruby but {RUBIES}"


def test_no_gem_is_loaded_before_the_application_is_asked() -> None:
    """A default gem that is loaded is one that a Gemfile.lock cannot choose any more."""
    for file in LOADERS.rglob("*.rb"):
        early = [
            line for line in file.read_text().splitlines() if re.match(r"(RUBY_ENGINE.*)?require(?!_relative)", line)
        ]
        socket = ['RUBY_ENGINE == "jruby" ? require("socket") : require("socket.so")']
        assert early == (socket if file.name == "passenger_trio.rb" else []), file


@pytest.mark.parametrize("entry", ["rack_loader.rb", "rack_preloader.rb"])
def test_a_reader_finds_every_file_in_the_order_of_its_entry(entry: str) -> None:
    """HO2: the entry requires each file once, all of them, and none is longer than 500 lines."""
    required = _required_by(LOADERS / entry)
    assert len(required) == len(set(required)), required
    files = set(LOADERS.rglob("*.rb")) - {LOADERS / "rack_loader.rb", LOADERS / "rack_preloader.rb"}
    if entry == "rack_preloader.rb":
        assert set(required) == files
    assert set(required) <= files
    assert all(len(file.read_text().splitlines()) <= 500 for file in files)


def _required_by(file: Path) -> list[Path]:
    found = []
    for name in re.findall(r'^require_relative "(.+?)"', file.read_text(), re.MULTILINE):
        path = (file.parent / f"{name}.rb").resolve()
        found += [path, *_required_by(path)]
    return found


def test_the_syntax_is_that_of_ruby_2_6() -> None:
    """JRuby 9.3 reads it as Ruby 2.6 does; where it is not at hand, the newer words are looked for."""
    for file in LOADERS.rglob("*.rb"):
        text = file.read_text()
        for newer in (
            r"\.filter_map\b",
            r"\bdef \w+(\(.*\))? = ",
            r"\b_1\b",
            r"\(\.\.\.\)",
            r"\.unpack1?\([^)]*offset:",
            r"^\s+in [\[{]",
            r"\.except\(",
        ):
            assert not re.search(newer, text, re.MULTILINE), (file.name, newer)
