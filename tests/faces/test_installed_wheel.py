"""The wheel, installed where there is no checkout: the loaders are in it, and it serves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from faces_tools import APPS, AS_OURSELVES

from passenger_trio.testing import RawClient, eventually

pytestmark = pytest.mark.os

ROOT = APPS.parent.parent.parent


@pytest.fixture(scope="module")
def wheel() -> Iterator[Path]:
    """Built from the tree as it is, without network and in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="pt-wheel-") as directory:
        done = subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, str(ROOT)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        [path] = Path(directory).glob("*.whl")
        yield path


@pytest.fixture(scope="module")
def environment(wheel: Path) -> Iterator[Path]:
    """A fresh virtual environment with the wheel in it. What it depends on is looked up where these tests run: that needs no network."""
    with tempfile.TemporaryDirectory(prefix="pt-venv-") as directory:
        home = Path(directory) / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
        python = home / "bin" / "python"
        packages = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        # Another environment's pip installs into this one.
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "--python",
                str(python),
                "install",
                "-q",
                "--no-deps",
                "--no-index",
                str(wheel),
            ],
            check=True,
            capture_output=True,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )
        # As a path and not as a site directory: the .pth file of an editable installation there is not followed.
        Path(packages, "dependencies.pth").write_text(
            "\n".join(dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))) + "\n"
        )
        yield home


def test_the_wheel_has_everything_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        loaders = [path for path in (ROOT / "spawn_servers").rglob("*") if path.is_file() and path.suffix != ".pyc"]
        packed = {f"passenger_trio/_{path.relative_to(ROOT).as_posix()}": path for path in loaders}
        assert len(packed) > 20
        assert packed.keys() == {name for name in names if name.startswith("passenger_trio/_spawn_servers/")}
        for name, path in packed.items():
            assert archive.read(name) == path.read_bytes()
    assert "passenger_trio/_spawn_servers/CONTRACT.md" in names
    assert "passenger_trio/py.typed" in names
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "passenger_trio").rglob("*.py")}
    assert sources <= names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"passenger_trio"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_it_serves_from_where_it_is_installed(environment: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="pt-") as home:
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        env.update(AS_OURSELVES)
        where = subprocess.run(
            [environment / "bin" / "python", "-c", "import passenger_trio; print(passenger_trio.__file__)"],
            capture_output=True,
            text=True,
            check=True,
            env=env,
            cwd=home,
        ).stdout
        assert where.startswith(str(environment)), where
        with subprocess.Popen(
            [
                environment / "bin" / "passenger-trio",
                "start",
                str(APPS / "demo"),
                "-S",
                f"{home}/web",
                "--instance-dir",
                f"{home}/i",
                "--log-format",
                "json",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            cwd=home,
        ) as process:
            assert process.stderr is not None
            log = []
            for line in process.stderr:
                log.append(line)
                if '"addresses"' in line:
                    break
            assert process.poll() is None, "".join(log)
            assert json.loads(log[-1])["applications"][0]["interpreter"] == str(environment / "bin" / "python")
            with RawClient(f"{home}/web") as client:
                answer = client.get("/")
                if answer.status != 200:
                    process.kill()  # the block waits for it
                assert (answer.status, b"It works" in answer.body) == (200, True)
            told = subprocess.run(
                [environment / "bin" / "passenger-trio", "status", f"{home}/i", "--json"],
                capture_output=True,
                text=True,
                check=True,
                env=env,
                cwd=home,
            ).stdout
            assert json.loads(told)["requests"]["total"] == 1
            loaders = [
                Path(f"/proc/{process_['pid']}/cmdline").read_text().split("\0")[1]
                for process_ in json.loads(told)["groups"][0]["processes"]
            ]
            assert loaders == [where.strip().replace("__init__.py", "_spawn_servers/python/wsgi_loader.py")]
            process.terminate()
            assert process.wait(30) == 0
        eventually(lambda: os.listdir(home) == [])
