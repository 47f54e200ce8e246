"""OP25: what a directory has instead of an application, and what its user is told to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from passenger_trio.errors import NothingToServe
from passenger_trio.options import AppOptions
from passenger_trio.spawning.detect import detect

FLASK = "from flask import Flask\nserver = app = Flask(__name__)\n"
PYRAMID = "def main(global_config, **settings):\n    return None\n"


def told(root: Path) -> str:
    with pytest.raises(NothingToServe) as caught:
        detect(AppOptions(root=str(root)), environ={"PATH": "/usr/bin:/bin"})
    text = str(caught.value)
    assert len(text.splitlines()) <= 6
    return text


@pytest.mark.parametrize("name", ["server.py", "hello.py", "run.py"])
def test_an_application_in_a_file_of_another_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FLASK)
    (tmp_path / "helpers.py").write_text("x = 1\n")
    text = told(tmp_path)
    assert f"{name} has `app`, a Flask application: passenger-trio start {tmp_path / name}:app" in text
    assert "helpers" not in text
    assert detect(AppOptions(root=str(tmp_path), target=f"{name}:app")).entry_object == "app"


def test_the_factory_of_pyramid(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text(PYRAMID)
    text = told(tmp_path)
    assert "shop/__init__.py has Pyramid's main(global_config, **settings)" in text
    assert "get_app('production.ini')" in text


def test_the_entry_point_of_fastapi_s_own_command(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.fastapi]\nentrypoint = "shop.web:api"\n')
    assert f"passenger-trio start {tmp_path} shop.web:api" in told(tmp_path)


def test_a_service_of_the_project_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """OP25: as datasette is one; also below src, and not where two could be meant."""
    package = tmp_path / "src" / "shelf"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "cli.py").write_text(
        "import argparse\nimport waitress\n\ndef main():\n    parser = argparse.ArgumentParser()\n"
        "    parser.add_argument('--port')\n    waitress.serve(print, port=parser.parse_args().port)\n"
    )
    project = tmp_path / "pyproject.toml"
    project.write_text('[project.scripts]\nshelf = "shelf.cli:main"\nother = "nowhere:main"\n')
    found = detect(AppOptions(root=str(tmp_path)))
    assert found.app_type == "generic"
    assert found.reason == "pyproject.toml installs `shelf` (shelf.cli:main), a server: `shelf --port $PORT`"
    assert found.start_command.startswith(f"PYTHONPATH={tmp_path}/src ")
    assert found.start_command.endswith(' --port "$PORT"')
    project.write_text('[project.scripts]\nshelf = "shelf.cli:main"\nagain = "shelf.cli:main"\n')
    assert "pyproject.toml installs shelf" in told(tmp_path)


def test_a_program_that_the_project_installs(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project.scripts]\ndatasette = "datasette.cli:cli"\n')
    assert "pyproject.toml installs datasette: if that is a server, --app-start-command 'datasette" in told(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[tool", "tool = 1\n", "[tool.fastapi]\nentrypoint = 3\n", "[project]\nscripts = 1\n"]
)
def test_a_project_file_that_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert "pyproject" not in told(tmp_path)


def test_a_module_that_imports_its_neighbours_is_not_started_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text("from fastapi import FastAPI\nfrom .db import x\napp = FastAPI()\n")
    (tmp_path / "app" / "db.py").write_text("x = 1\n")
    assert f"app/main.py imports its neighbours: passenger-trio start {tmp_path} app.main:app" in told(tmp_path)
    assert detect(AppOptions(root=str(tmp_path), target="app.main:app")).entry_module == "app.main"
    (tmp_path / "app" / "main.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    assert f"passenger-trio start {tmp_path / 'app'}" in told(tmp_path)


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ({"dependencies": {"next": "15"}, "scripts": {"start": "next start"}}, "'npx next start -p $PORT'"),
        (
            {"devDependencies": {"nuxt": "3"}},
            "Nuxt has its own server: --app-start-command 'node .output/server/index.mjs'",
        ),
        ({"scripts": {"start": "astro preview"}}, "starts `astro preview`: --app-start-command can"),
    ],
)
def test_frameworks_with_a_server_of_their_own(tmp_path: Path, package: object, words: str) -> None:
    (tmp_path / "package.json").write_text(json.dumps(package))
    assert words in told(tmp_path)
