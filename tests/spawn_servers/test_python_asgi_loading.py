"""What the Python ASGI loader says when it cannot serve what it was given."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from python_asgi import LOADER, command
from python_wsgi import APPS

from passenger_trio.testing.conformance import FakeSupervisor, LoaderFailed, Message

pytestmark = pytest.mark.os
BROKEN = APPS / "fails_to_start"


def failure(root: Path, file: str, python: str = sys.executable, **options: Any) -> Message:
    with FakeSupervisor() as supervisor:
        loader = supervisor.start(command(python), root, file, wait=False, **{"app_type": "asgi", **options})
        with pytest.raises(LoaderFailed) as caught:
            loader.expect("ready")
        assert loader.exit_status() == 1
        return caught.value.message


@pytest.mark.parametrize("file", ["asgi.py", "asgi_object.py"])
def test_what_the_wsgi_loader_refuses_is_served(file: str) -> None:
    with FakeSupervisor() as supervisor:
        worker = supervisor.start(command(), BROKEN, file, app_type="asgi")
        response = worker.request()
        assert response.error is not None
        assert "returned without sending a whole response" in response.error[1]


@pytest.mark.parametrize(
    "source",
    [
        "def app(environ, start_response): ...",
        "class App:\n def __call__(self, environ, start_response): ...\napp = App()",
    ],
)
def test_a_wsgi_application(tmp_path: Path, source: str) -> None:
    (tmp_path / "app.py").write_text(source)
    message = failure(tmp_path, "app.py")
    assert message["category"] == "configuration"
    assert "is a WSGI application, not an ASGI application" in message["summary"]
    assert "--app-type wsgi" in message["solution"]


def test_an_object_that_cannot_be_called() -> None:
    message = failure(BROKEN, "not_callable.py")
    assert message["category"] == "configuration"
    assert "is not an ASGI application: it cannot be called" in message["summary"]


def test_no_object() -> None:
    assert "There is no ASGI application" in failure(BROKEN, "nothing.py")["summary"]


def test_an_exception_at_load_has_a_traceback_without_the_loader() -> None:
    message = failure(BROKEN, "raises.py")
    assert message["category"] == "application"
    assert "passenger_trio_loader" not in message["traceback"]


def test_an_environment_without_trio(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = str(tmp_path / "bare/bin/python")
    message = failure(BROKEN, "asgi.py", python, loop="trio")
    assert message["category"] == "configuration"
    assert message["summary"] == "--loop trio: the application's environment has no Trio"
    assert "No module named 'trio'" in message["problem"]
    assert f"{python} -m pip install trio" in message["solution"]


def test_a_loop_that_nobody_knows() -> None:
    assert "There is no event loop 'curio'" in failure(BROKEN, "asgi.py", loop="curio")["summary"]


def test_it_is_not_for_people() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PASSENGER_TRIO_")}
    done = subprocess.run([sys.executable, LOADER], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 2
    assert "started by passenger_trio" in done.stderr
