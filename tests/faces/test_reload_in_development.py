"""OP12: ``--reload`` with real servers: each save is served, a broken one shows the error page, and the next one repairs it.

Starts the command: `--reload` is the subject.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faces_tools import run_command

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

APP = """
from pathlib import Path

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"version %d, " + TEMPLATE]

TEMPLATE = (Path(__file__).parent / "templates" / "page.html").read_bytes()
"""


def save(root: Path, version: int, tail: str = "") -> None:
    (root / "passenger_wsgi.py").write_text(APP % version + tail)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Supervisor, Path]]:
    root = tmp_path_factory.mktemp("app")
    (root / "templates").mkdir()
    (root / "templates" / "page.html").write_text("first")
    (root / "data").mkdir()
    save(root, 1)
    options = ("--reload", "--reload-include", "*.po", "--reload-exclude", "data", "--stat-throttle-rate", "0")
    with Supervisor.start(root, *options, env={"PYTHONDONTWRITEBYTECODE": ""}) as server:
        server.wait_log("restarts when files change")
        yield server, root


def shows(server: Supervisor, text: bytes, status: int = 200) -> None:
    def seen() -> bool:
        answer = server.get("/")
        return answer.status == status and text in answer.body

    eventually(seen, 30)


def test_each_save_is_served(started: tuple[Supervisor, Path]) -> None:
    server, root = started
    save(root, 2)
    shows(server, b"version 2, first")
    (root / "templates" / "page.html").write_text("second")
    shows(server, b"version 2, second")


def test_saves_of_one_second_and_one_size_are_served(started: tuple[Supervisor, Path]) -> None:
    """OP12: each of them; the interpreter's cache of bytecode takes two of them for one."""
    server, root = started
    for number in range(10, 20):
        save(root, number)
        shows(server, b"version %d" % number)


def test_a_broken_save_shows_the_error_page_and_the_next_one_repairs_it(started: tuple[Supervisor, Path]) -> None:
    """OP12: the old version does not answer any more, and nothing but the next save is needed; twice, with and without a syntax error."""
    server, root = started
    save(root, 3, "raise RuntimeError('half done')\n")
    shows(server, b"half done", 500)
    save(root, 4, "def (\n")
    shows(server, b"SyntaxError", 500)
    save(root, 5)
    shows(server, b"version 5")


def test_what_is_excluded_restarts_nothing(started: tuple[Supervisor, Path]) -> None:
    server, root = started
    save(root, 6)
    shows(server, b"version 6")
    before = server.status()["groups"][0]["generation"]
    (root / "data" / "written.py").write_text("x = 1\n")
    (root / "db.sqlite3").write_text("x")
    (root / "words.po").write_text("x")  # this one is included, and comes last
    eventually(lambda: server.status()["groups"][0]["generation"] == before + 1)
    line = server.wait_log("words.po changed")
    assert "written.py" not in line
    assert not any("db.sqlite3" in logged or "written.py" in logged for logged in server.log)


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    save(tmp_path, 1)
    done = run_command("start", str(tmp_path), "--reload", "--reload-dir", "nowhere", "--port", "0")
    assert done.returncode == 2
    assert "--reload-dir" in done.stderr
    assert "nowhere" in done.stderr
