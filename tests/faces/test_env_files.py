"""OP11: ``--env-file``, and the ``web:`` command of a Procfile.

Starts the command: `--env-file` is the subject.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from faces_tools import run_command, write_app

from passenger_trio.errors import NothingToServe, OptionError
from passenger_trio.options import AppOptions
from passenger_trio.spawning.detect import detect
from passenger_trio.spawning.env_files import read_env_files
from passenger_trio.spawning.procfile import web_command
from passenger_trio.testing import Supervisor, eventually

APP = """
import os

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join("%s=%s" % (name, os.environ.get(name)) for name in ("A", "B", "C", "D")).encode()]
"""


def test_the_format_is_python_dotenv_s(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# a comment\nA=1\nexport B='two words'\nC=\"line\\nline\"\nD=${A}3\nE\n")
    (tmp_path / "more.env").write_text("A=2\n")
    values = {"A": "1", "B": "two words", "C": "line\nline", "D": "13"}
    assert read_env_files(str(tmp_path), (".env",)) == values
    assert read_env_files(str(tmp_path), (".env", "more.env")) == values | {"A": "2"}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.env").write_bytes(b"A=\xff\n")
    for file, words in (("none.env", "there is no file"), ("binary.env", "not UTF-8"), (".", "there is no file")):
        with pytest.raises(OptionError, match=words):
            read_env_files(str(tmp_path), (file,))


@pytest.mark.os
def test_the_environment_of_the_application(tmp_path: Path) -> None:
    """OP11: what is set outside counts more than the file, and a restart reads it anew."""
    write_app(tmp_path, APP)
    (tmp_path / ".env").write_text("A=of the file\nB=of the file\nC=of the file\n")
    arguments = ("--env-file", ".env", "--env", "B=of the option")
    with Supervisor.start(tmp_path, *arguments, env={"C": "of the server"}) as server:
        assert server.get("/").body == b"A=of the file B=of the option C=of the server D=None"
        (tmp_path / ".env").write_text("D=new\n")
        server.send_signal(signal.SIGHUP)
        eventually(lambda: server.get("/").body == b"A=None B=of the option C=of the server D=new")
        (tmp_path / ".env").unlink()
        server.send_signal(signal.SIGHUP)
        server.wait_log("--env-file: '.env' cannot be used: there is no file")
        assert b"D=new" in server.get("/").body


@pytest.mark.os
def test_a_file_that_is_missing_at_the_start(tmp_path: Path) -> None:
    write_app(tmp_path)
    done = run_command("start", str(tmp_path), "--env-file", "nothing.env", "-p", "0")
    assert done.returncode == 2
    assert f"there is no file {tmp_path}/nothing.env" in done.stderr


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("web: gunicorn app:app\n", "gunicorn app:app"),
        ("release: x\nweb:  php -S 0.0.0.0:$PORT  \r\nworker: y\n", "php -S 0.0.0.0:$PORT"),
        ("worker: web: x\n", ""),
        ("web:\nworker: x\n", ""),
        ("", ""),
    ],
)
def test_the_command_of_a_procfile(tmp_path: Path, text: str, command: str) -> None:
    (tmp_path / "Procfile").write_text(text)
    assert web_command(str(tmp_path)) == command
    if command:
        found = detect(AppOptions(root=str(tmp_path)), environ={})
        assert (found.app_type, found.start_command) == ("generic", command)
    else:
        with pytest.raises(NothingToServe, match="Procfile has no web: line"):
            detect(AppOptions(root=str(tmp_path)), environ={})


def test_a_procfile_comes_last(tmp_path: Path) -> None:
    """OP11: where nothing else is found."""
    (tmp_path / "Procfile").write_text("web: gunicorn wsgi\n")
    write_app(tmp_path, name="wsgi.py")
    assert detect(AppOptions(root=str(tmp_path)), environ={"PATH": "/bin"}).app_type == "wsgi"


@pytest.mark.os
def test_a_procfile_is_served(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: exec python3 -m http.server $PORT --bind 127.0.0.1\n")
    (tmp_path / "page.txt").write_text("by the Procfile")
    with Supervisor.start(tmp_path) as server:
        assert server.get("/page.txt").body == b"by the Procfile"
