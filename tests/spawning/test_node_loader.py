"""Which Node.js application is in a directory, and which Node runs it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from passenger_trio.errors import NothingToServe, OptionError
from passenger_trio.options import AppOptions
from passenger_trio.spawning.app_spec import concurrency_of
from passenger_trio.spawning.detect import DetectedApp, detect

SERVER = "require('http').createServer(f).listen(3000)\n"
FRONTEND = "document.body.innerHTML = 'hello'\n"
NODE = shutil.which("node")


def write(root: Path, package: Any = None, **files: str) -> None:
    if package is not None:
        (root / "package.json").write_text(package if isinstance(package, str) else json.dumps(package))
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_js", ".js").replace("_mjs", ".mjs").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def found(root: Path, **options: Any) -> DetectedApp:
    return detect(AppOptions(root=str(root), **options))


def refusal(root: Path, **options: Any) -> str:
    with pytest.raises(NothingToServe) as caught:
        found(root, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", ["app.js", "server.js", "index.js"])
def test_a_file_that_looks_like_a_server(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(SERVER)
    app = found(tmp_path)
    assert (app.app_type, app.startup_file, app.can_fork) == ("node", str(tmp_path / name), False)
    assert app.reason == f"{name} is there, and looks like an HTTP server"
    assert (app.python, app.python_reason.partition(" (")[0]) == (NODE, "the first in PATH")


def test_npm_start_comes_first(tmp_path: Path) -> None:
    write(
        tmp_path, {"scripts": {"start": "node bin/www"}, "main": "main.js"}, main_js=SERVER, app_js=SERVER, bin__www="x"
    )
    app = found(tmp_path)
    assert app.startup_file == str(tmp_path / "bin/www")
    assert app.reason == "package.json starts bin/www"


def test_then_the_main_file(tmp_path: Path) -> None:
    write(tmp_path, {"main": "lib"}, lib__index_js=SERVER, app_js=SERVER)
    assert found(tmp_path).startup_file == str(tmp_path / "lib/index.js")


def test_a_framework_among_the_dependencies_is_enough(tmp_path: Path) -> None:
    write(tmp_path, {"dependencies": {"express": "5"}}, index_js="require('./made')()")
    assert found(tmp_path).reason == "index.js is there, and package.json depends on express"


def test_a_frontend_is_no_server(tmp_path: Path) -> None:
    write(tmp_path, {"dependencies": {"react": "1"}}, index_js=FRONTEND)
    assert "index.js does not look like an HTTP server: name it if it is one" in refusal(tmp_path)
    assert found(tmp_path, app_type="node").startup_file == str(tmp_path / "index.js")
    assert found(tmp_path, startup_file="index.js").reason == "index.js was asked for, a Node.js application"


def test_another_start_command_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"scripts": {"start": "next start"}})
    assert "package.json starts `next start`: --app-start-command can, if it listens on $PORT" in refusal(tmp_path)


def test_a_start_file_that_is_missing_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"scripts": {"start": "node gone.js"}})
    assert "package.json starts gone.js, which is not there" in refusal(tmp_path)


@pytest.mark.parametrize("package", ["", "[]", "{", "\ufeff{}"])
def test_a_broken_package(tmp_path: Path, package: str) -> None:
    write(tmp_path, package)
    assert "package.json" in refusal(tmp_path)


def test_python_and_ruby_come_first(tmp_path: Path) -> None:
    write(tmp_path, {"scripts": {"start": "node app.js"}}, app_js=SERVER)
    (tmp_path / "config.ru").write_text("run 1")
    assert found(tmp_path).app_type == "rack"
    (tmp_path / "config.ru").unlink()
    (tmp_path / "app.py").write_text("from flask import Flask\napp = Flask(__name__)")
    assert found(tmp_path).app_type == "wsgi"
    assert found(tmp_path, app_type="node").app_type == "node"


@pytest.mark.parametrize("name", ["server.mjs", "dist/server.cjs"])
def test_a_file_that_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "dist").mkdir()
    (tmp_path / name).write_text("")
    assert found(tmp_path, target=name).startup_file == str(tmp_path / name)
    assert f"there is no file x{Path(name).suffix}" in refusal(tmp_path, target=f"x{Path(name).suffix}")


def test_the_node_that_is_named(tmp_path: Path) -> None:
    write(tmp_path, app_js=SERVER)
    fake = tmp_path / "bin" / "node"
    fake.parent.mkdir()

    def node(version: str) -> None:
        fake.write_text(f"#!/bin/sh\necho {version}\n")
        fake.chmod(0o755)

    node("v16.20.2")
    app = found(tmp_path, node=str(tmp_path))
    assert (app.python, app.python_reason) == (str(fake), "named by --node (Node.js 16.20.2)")
    assert found(tmp_path, node="node").python == NODE
    for version, says in (
        ("v14.1.0", "it is Node.js 14.1.0; applications need Node.js 16 or newer"),
        ("3.1", "does not answer like Node.js"),
    ):
        node(version)
        with pytest.raises(OptionError, match=says):
            found(tmp_path, node=str(fake))
    for name, says in (
        ("/nothing", "there is no such file"),
        ("no-such-node", "no such program"),
        (str(tmp_path / "app.js"), "not an executable"),
    ):
        with pytest.raises(OptionError, match=says):
            found(tmp_path, node=name)


def test_no_node_at_all(tmp_path: Path) -> None:
    write(tmp_path, app_js=SERVER)
    with pytest.raises(OptionError, match="there is no node in PATH"):
        detect(AppOptions(root=str(tmp_path)), environ={"PATH": str(tmp_path)})


@pytest.mark.parametrize(("wanted", "concurrency"), [(-1, 100), (0, 0), (7, 7)])
def test_requests_at_a_time(tmp_path: Path, wanted: int, concurrency: int) -> None:
    write(tmp_path, app_js=SERVER)
    app = AppOptions(root=str(tmp_path), max_concurrent_requests_per_process=wanted)
    assert concurrency_of(app, detect(app)) == concurrency
    assert os.path.isabs(detect(app).startup_file)
