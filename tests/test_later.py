"""DE10: what neither a start nor a plain request needs does not stand before the first process."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import trio
import trio.testing

import passenger_trio
from passenger_trio import later
from passenger_trio.later import LATER, ON_OCCASION

_FIRST = (
    "import sys, passenger_trio.cli.main, passenger_trio.cli.start_cmd, passenger_trio.cli.source, passenger_trio.program, "
    "passenger_trio.early_start"
)
_THEN = f"{_FIRST}, passenger_trio.program_tasks, passenger_trio.tree"


def imported(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_DE10_help_imports_the_command_line_only() -> None:
    program = "import sys\nfrom passenger_trio.cli.main import main\nmain(['--help'])"
    there = {name.partition(".")[0] for name in imported(program)}
    assert "click" in there
    assert not there & {"attr", "attrs", "trio", "h11", "psutil"}


def test_DE10_the_first_loader_does_not_wait_for_the_server() -> None:
    there = imported(_FIRST)
    assert "passenger_trio.early_start" in there
    assert not there & {
        "trio",
        "passenger_trio.tree",
        "passenger_trio.pool.pool",
        "passenger_trio.core.policy",
        "passenger_trio.server.front",
    }


def test_DE10_a_start_does_not_import_what_comes_later() -> None:
    there = imported(_THEN)
    assert "passenger_trio.pool.pool" in there
    assert not there & set(LATER)
    others = {"h11", "wsproto", "pickle", "email", "passenger_trio.fronts.fronts", "passenger_trio.pool.lease_desk"}
    assert not there & others


def test_DE10_each_of_it_is_there() -> None:
    for name in LATER:
        import_module(name)


@pytest.mark.parametrize(
    ("accepted_after", "called_after", "imported_after"),
    [(0.1, 60.0, 0.13), (60.0, 60.0, later._APART), (60.0, 0.1, 0.1), (0.1, 0.11, 0.11)],
)
async def test_DE10_nothing_is_imported_between_the_server_and_its_first_processes(
    accepted_after: float,
    called_after: float,
    imported_after: float,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An import of 30 ms delayed what a process asked, and the server's first client."""
    for name in later.OPERATORS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    begun, when = trio.current_time(), dict[str, float]()
    monkeypatch.setattr(later, "import_module", lambda name: when.setdefault(name, trio.current_time() - begun))
    accepts = trio.Event()
    async with trio.open_nursery() as tasks:
        tasks.start_soon(later.import_for_all, accepts, partial(trio.sleep, called_after))
        await trio.sleep(accepted_after)
        accepts.set()
    assert [*when] == [*later.CLIENTS, *later.OPERATORS]
    for name in later.CLIENTS:
        assert when[name] == 0
    for name in later.OPERATORS:
        assert when[name] >= imported_after
    assert when[later.OPERATORS[0]] < imported_after + 0.1


_OF_A_SERVER = ("settings.py", "source.py", "apps_dir.py", "flags.py", "start_cmd.py", "banner.py")
"""The modules of ``cli`` that belong to it."""
_BEFORE_IT_RUNS = {"importlib", "passenger_trio.core.other_servers_options", "passenger_trio.admin.metrics_listener"}
"""What is imported for the command line, and for what is bound before the server becomes another user."""


def imports_within_functions() -> Iterator[tuple[str, str]]:
    """Module and place of each import that a running server may come to."""
    home = Path(passenger_trio.__file__).parent
    for path in home.rglob("*.py"):
        room = path.relative_to(home).parts[0]
        if room in ("testing", "dashboard") or (room == "cli" and path.name not in _OF_A_SERVER):
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.ImportFrom):
                        module = node.module or ""
                        for alias in node.names:
                            is_module = (home.parent / module.replace(".", "/") / f"{alias.name}.py").exists()
                            yield (f"{module}.{alias.name}" if is_module else module), str(path)
                    elif isinstance(node, ast.Import):
                        for alias in node.names:
                            yield alias.name, str(path)


def test_OP8_what_a_server_may_come_to_import_is_imported_before_it_becomes_another_user() -> None:
    """With ``--user`` and ``--apps-dir``, no file that came later was served where the interpreter lay in root's home: no module named 'tomllib'."""
    there = {*imported(_THEN), *LATER, *ON_OCCASION, *_BEFORE_IT_RUNS}
    missing = {(module, place) for module, place in imports_within_functions() if module not in there}
    assert not missing
