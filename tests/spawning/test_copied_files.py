"""OP5: startup files that many directories have in common are parsed once, and each directory is judged by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from passenger_trio.options import AppOptions
from passenger_trio.spawning.detect import DetectedApp, detect

STUB = "from shop import app as application\n"
WSGI = "def app(environ, start_response):\n    return []\n"
ASGI = "async def app(scope, receive, send):\n    pass\n"


def found_in(directory: Path, **files: str) -> DetectedApp:
    directory.mkdir()
    for name, text in files.items():
        (directory / f"{name}.py").write_text(text)
    return detect(AppOptions(root=str(directory)))


def test_the_same_file_is_an_application_of_its_own_in_each_directory(tmp_path: Path) -> None:
    one, other = (found_in(tmp_path / name, passenger_wsgi=WSGI.replace("app", "application")) for name in "ab")
    assert one.startup_file == str(tmp_path / "a" / "passenger_wsgi.py")
    assert other.startup_file == str(tmp_path / "b" / "passenger_wsgi.py")
    assert (one.reason, one.app_type) == (other.reason, other.app_type)


@pytest.mark.parametrize("order", ["none first", "own first"])
def test_what_the_same_file_imports_counts_in_each_directory(tmp_path: Path, order: str) -> None:
    """``from shop import app``: the module is installed in one place, and the application's own in two others."""
    made = {
        "installed": lambda: found_in(tmp_path / "installed", passenger_wsgi=STUB).app_type,
        "wsgi": lambda: found_in(tmp_path / "wsgi", passenger_wsgi=STUB, shop=WSGI).app_type,
        "asgi": lambda: found_in(tmp_path / "asgi", passenger_wsgi=STUB, shop=ASGI).app_type,
    }
    names = list(made) if order == "none first" else list(reversed(made))
    assert {name: made[name]() for name in names} == {"installed": "wsgi", "wsgi": "wsgi", "asgi": "asgi"}


def test_a_file_that_is_changed_is_judged_anew(tmp_path: Path) -> None:
    before = found_in(tmp_path / "a", app=WSGI)
    (tmp_path / "a" / "app.py").write_text(ASGI)
    assert (before.app_type, detect(AppOptions(root=str(tmp_path / "a"))).app_type) == ("wsgi", "asgi")


_COUNT = """
import os
import sys
from passenger_trio.options import AppOptions, Config, ServerOptions
from passenger_trio.core.config_text import read_app_file
from passenger_trio.cli.apps_dir import AppFolder
from passenger_trio.preflight import examine_app

ALONE = Config(server=ServerOptions(user="root" if os.geteuid() == 0 else ""), apps=())
seen = {}
def note(event, arguments):
    if event in ("open", "os.listdir", "os.scandir", "compile", "subprocess.Popen", "import"):
        seen[event] = seen.get(event, 0) + 1
sys.addaudithook(note)

def make(text):
    [said] = text.apps
    values = {name: setting.value for name, setting in said.items()}
    name = text.path.rpartition("/")[2].removesuffix(".toml")
    app = AppOptions(**values | {"root": text.path.rpartition("/")[0] + "/" + values["root"], "name": name})
    return app, examine_app(app, {}, [*values, "root", "name"], ALONE)

def count(directory):
    seen.clear()
    folder = AppFolder()
    apps = folder.read(directory, make, [], 6)
    assert not folder.broken, folder.broken
    return len(apps), dict(seen)

count(sys.argv[1])
few, first = count(sys.argv[1])
many, second = count(sys.argv[2])
for event in second:
    print(event, (second[event] - first.get(event, 0)) / (many - few))
"""


def test_OP5_an_application_more_costs_two_files_and_a_directory(tmp_path: Path) -> None:
    """The budget of the start: its file, its startup file, one listing of its directory. Nothing is parsed twice."""
    for folder, count in (("few", 3), ("many", 43)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            site = tmp_path / f"{folder}-{number}"
            site.mkdir()
            (site / "passenger_wsgi.py").write_text(WSGI.replace("app", "application"))
            (tmp_path / folder / f"a{number}.toml").write_text(
                f'root = "../{site.name}"\nbase_uri = "/a{number}"\nmin_instances = 0\n'
            )
    told = subprocess.run(
        [sys.executable, "-c", _COUNT, str(tmp_path / "few"), str(tmp_path / "many")],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    each = {name: float(number) for name, number in (line.split() for line in told.stdout.splitlines())}
    assert each.pop("open") == 2
    assert each.pop("os.listdir") == 1
    assert not any(each.values()), each
