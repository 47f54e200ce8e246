"""HO4: the page that opens ``passenger_trio/server/`` tells the path of a request as the code has it."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from functools import cache, reduce
from pathlib import Path
from types import FrameType

import pytest
from dummy_front import respond, serving, simulated, whole
from test_layers import NAMES as MODULES
from test_layers import PACKAGE, dotted, imports

from passenger_trio import server
from passenger_trio.server import REQUEST_PATH
from passenger_trio.server.http import connection, fast_path

PAGE = inspect.getsource(server)
TRANSPARENT = {"passenger_trio.core.recorder"}
"""They hand each call on as it is."""
NAMES = [step.rpartition(".")[2] for step in REQUEST_PATH]


def calls(module: object, function: str) -> list[str]:
    """The names that a function, or all functions of a class, call, in the order of the text."""
    file = module.__file__  # type: ignore[attr-defined]
    node = next(
        node
        for node in ast.walk(ast.parse(Path(file).read_text()))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
    )
    found = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
    found.sort(key=lambda call: (call.lineno, call.col_offset))
    return [name for call in found if (name := getattr(call.func, "id", None) or getattr(call.func, "attr", None))]


def test_the_page_has_fifty_lines_at_most() -> None:
    assert len(PAGE.splitlines()) <= 50


@pytest.mark.parametrize("step", REQUEST_PATH)
def test_each_step_is_there(step: str) -> None:
    parts = step.split(".")
    module = importlib.import_module(f"passenger_trio.server.{parts[0]}.{parts[1]}")
    assert callable(reduce(getattr, parts[2:], module))


@pytest.mark.parametrize(
    ("module", "function", "least"), [(connection, "_finish_on_slow_path", 6), (fast_path, "FastPath", 3)]
)
def test_the_steps_come_in_the_order_of_the_code(module: object, function: str, least: int) -> None:
    """Each stage that the driver of a path calls stands on the page, behind those that it calls before."""
    stages = {
        name
        for step, name in zip(REQUEST_PATH, NAMES, strict=True)
        if step.startswith("http.") and "." not in step.removeprefix("http.").removesuffix(f".{name}")
    }
    called = [name for name in dict.fromkeys(calls(module, function)) if name in stages | {"answer"}]
    # What is called where something went wrong stands below, whatever it interrupts.
    on_the_way = [name for name in called if name not in ("refuse", "cut_short", "answer")]
    assert len(called) >= least, called
    assert on_the_way == sorted(on_the_way, key=NAMES.index)


def test_the_fast_path_stands_whole_and_in_order_on_the_page() -> None:
    """HO4: its events, its first and its last step; the text of the class has the same order."""
    on_the_page = [step.rpartition(".")[2] for step in REQUEST_PATH if ".FastPath." in step]
    assert {"on_readable", "_next_request", "_check_out", "on_response", "_send_response", "_leave_to_slow_path"} <= {
        *on_the_page
    }
    in_the_text = [name for name, value in vars(fast_path.FastPath).items() if callable(value)]
    assert on_the_page == sorted(on_the_page, key=in_the_text.index)
    assert "http.client.Client.log" in REQUEST_PATH


def test_every_stage_that_a_driver_imports_stands_on_the_page() -> None:
    """A stage that is added is on the page, too."""
    for module in (connection, fast_path):
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("passenger_trio.server."):
                functions = {alias.name for alias in node.names if alias.name.islower()}
                assert functions <= {*NAMES, "abandon_session", "end_separately", "refuse_late_head"}, node.module


@simulated
async def test_HO4_one_request_is_followed_through_twenty_files_and_three_ways_back() -> None:
    """A file is on the way if it hands the request to another one; what calls nothing else is a leaf, which its name explains. A way back is a call
    of what imports the caller, by itself or through others: the poller's two callbacks, and a session that tells its pool of its end.
    """
    called: list[tuple[str, str, str]] = []

    def follow(frame: FrameType, event: str, _: object) -> None:
        caller = frame.f_back
        if event == "call" and caller is not None:
            into, out_of = (name_of(one.f_code.co_filename) for one in (frame, caller))
            if into and out_of and into != out_of and is_of_the_request(caller):
                called.append((out_of, into, frame.f_code.co_name))

    async with serving(respond(whole())) as world:
        client = world.connect()
        for _ in range(3):
            await client.ask()
        sys.setprofile(follow)
        try:
            await client.ask()
        finally:
            sys.setprofile(None)
    page, listener = "passenger_trio.server", "passenger_trio.server.listening.listener"
    on_the_way = {page, listener, connection.__name__} | {caller for caller, _, _ in called}
    assert 10 < len(on_the_way) <= 20, "\n".join(sorted(on_the_way))
    not_named = {name for name in on_the_way if name.rpartition(".")[2] not in PAGE} - TRANSPARENT
    assert not not_named, "they hand the request on, and the page does not name them"
    back = {call for call in called if call[0] in below(call[1])}
    assert {name for _, _, name in back} == {"on_readable", "on_response", "session_closed"}, back


def is_of_the_request(frame: FrameType | None) -> bool:
    """Whether the poller has called it: whatever else runs meanwhile is no part of the request."""
    while frame is not None and frame.f_code.co_name != "_turn":
        frame = frame.f_back
    return frame is not None


def name_of(file: str) -> str:
    path = Path(file)
    return dotted(path) if path.is_relative_to(PACKAGE) else ""


@cache
def imported(name: str) -> frozenset[str]:
    path = PACKAGE.parent / f"{name.replace('.', '/')}.py"
    return frozenset(imports(path)) & MODULES if path.exists() else frozenset()


@cache
def below(name: str) -> set[str]:
    """What a module imports, by itself or through others."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        one = ahead.pop()
        if one not in found:
            found.add(one)
            ahead += imported(one)
    return found
