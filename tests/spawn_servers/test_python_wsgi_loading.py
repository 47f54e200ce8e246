"""How the Python WSGI loader finds an application, and what it says when there is none."""

from __future__ import annotations

import os
import select
import subprocess
from pathlib import Path

import pytest
from python_wsgi import APPS, LOADER, PYTHON, command

from passenger_trio.testing.conformance import FakeSupervisor, Loader, LoaderFailed, Message

pytestmark = pytest.mark.os


def failure(root: Path, startup_file: str = "", **options: object) -> Message:
    """The ``error`` message of a start that fails."""
    with FakeSupervisor() as supervisor:
        loader = supervisor.start(command(), root, startup_file, wait=False, **options)
        with pytest.raises(LoaderFailed) as caught:
            loader.expect("ready")
        assert loader.exit_status() == 1
    assert caught.value.message
    return caught.value.message


def lines_of(
    supervisor: FakeSupervisor, root: Path, startup_file: str = "", target: str = "/", **options: object
) -> list[str]:
    return supervisor.start(command(), root, startup_file, **options).request("GET", target).body.decode().split("\n")


# Finding it


def test_a_startup_file_is_the_module_of_its_name() -> None:
    """Siblings and packages can be imported, pickles found again; a process that multiprocessing spawns imports it by its name."""
    root = APPS / "siblings"
    with FakeSupervisor() as supervisor:
        lines = lines_of(supervisor, root, "app.py", "/spawn")
    assert lines == ["from the neighbour", "from deep down", "pickled", "app", str(root / "app.py"), "app", "[42]"]


def test_a_module_is_imported_by_its_name() -> None:
    with FakeSupervisor() as supervisor:
        lines = lines_of(supervisor, APPS / "siblings", entry_module="package.inner")
    assert lines == ["from deep down", "package.inner", "package"]


def test_a_startup_file_in_a_package_is_part_of_it() -> None:
    """So its relative imports work."""
    with FakeSupervisor() as supervisor:
        lines = lines_of(supervisor, APPS / "siblings", "package/inner.py")
    assert lines == ["from deep down", "package.inner", "package"]


SOURCE = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [("%s in %s" % (__name__, __file__)).encode()]
"""


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("app.wsgi", "app_wsgi"),
        ("my-app.py", "my-app"),
        ("app.v2.py", "app_v2"),
        ("select.py", "app_select"),
        ("__main__.py", "app___main__"),
        ("passenger_wsgi", "passenger_wsgi"),
        ("sub/wsgi.py", "wsgi"),
        ("pack/__init__.py", "pack"),
        ("caf\u00e9.py", "caf\u00e9"),
    ],
)
def test_names_of_files(tmp_path: Path, file: str, name: str) -> None:
    """Whatever the file is called, it can be loaded, and hides no module that others need."""
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(SOURCE)
    with FakeSupervisor() as supervisor:
        assert lines_of(supervisor, tmp_path, file) == [f"{name} in {path}"]


def test_a_package_of_the_same_name_does_not_hide_the_file(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SOURCE)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise AssertionError('not this one')")
    with FakeSupervisor() as supervisor:
        assert lines_of(supervisor, tmp_path, "app.py") == [f"app in {tmp_path / 'app.py'}"]


@pytest.mark.parametrize(
    ("options", "body", "shown"),
    [
        ({}, "made", "app:create_app()"),
        ({"entry_object": "create_app", "entry_is_factory": True}, "made", "app:create_app"),
        ({"entry_object": "holder.build", "entry_is_factory": True}, "made", "app:holder.build"),
        ({"entry_object": "holder.instance"}, "made", "app:holder.instance"),
    ],
)
def test_factories_and_paths(options: dict[str, object], body: str, shown: str) -> None:
    with FakeSupervisor() as supervisor:
        loader = supervisor.start(command(), APPS / "factory", "app.py", **options)
        assert loader.request().body.decode() == body
        assert loader.messages[-1]["application"] == shown


def test_the_usual_names_in_order(tmp_path: Path) -> None:
    """What cannot be called is passed over: ``application`` is a package here."""
    (tmp_path / "wsgi.py").write_text(
        "import os as application\ndef make_app(): raise AssertionError\n" + SOURCE.replace("application", "app")
    )
    with FakeSupervisor() as supervisor:
        assert supervisor.start(command(), tmp_path, "wsgi.py").messages[-1]["application"] == "wsgi:app"


def test_the_interpreter_looks_as_if_started_for_the_application(tmp_path: Path) -> None:
    """No directory of ours in ``sys.path``, no argument of ours in ``sys.argv``, no variable of ours in the environment."""
    (tmp_path / "app.py").write_text(
        "import os, sys\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [repr([sys.path[0], sys.argv, [p for p in sys.path if 'spawn_servers' in p], os.getcwd(),\n"
        "        [n for n in os.environ if 'SPAWN' in n]]).encode()]\n"
    )
    for preload in (False, True):
        with FakeSupervisor() as supervisor:
            loader = supervisor.start(command(preload=preload), tmp_path, "app.py")
            worker = supervisor.fork(loader) if preload else loader
            assert worker.request().body.decode() == repr(
                [str(tmp_path), [str(tmp_path / "app.py")], [], str(tmp_path), []]
            )


@pytest.mark.parametrize("guessed", [False, True], ids=["wsgi", "asgi, guessed to be wsgi"])
def test_modules_of_the_application_may_have_any_name_of_ours(tmp_path: Path, guessed: bool) -> None:
    """HO2: an application that has a file of each name that the loader has imports its own, before and after the loader's."""
    own = {path.stem for path in LOADER.parent.rglob("*.py")} - {"__init__", "passenger_trio_loader"}
    assert {"wsgi_loader", "asgi_loader", "process", "session", "worker"} <= own
    for name in own:
        (tmp_path / f"{name}.py").write_text("mine = True\n")
    (tmp_path / "application.py").write_text(
        f"import importlib\nNAMES = {sorted(own)!r}\n"
        "assert all(importlib.import_module(name).mine for name in NAMES)\n"
        + (
            "async def app(scope, receive, send):\n"
            "    assert scope['type'] == 'http' and all(importlib.import_module(name).mine for name in NAMES)\n"
            "    await send({'type': 'http.response.start', 'status': 200})\n"
            "    await send({'type': 'http.response.body', 'body': b'mine'})\n"
            if guessed
            else "def app(environ, start_response):\n"
            "    assert all(importlib.import_module(name).mine for name in NAMES)\n"
            "    start_response('200 OK', [])\n"
            "    return [b'mine']\n"
        )
    )
    with FakeSupervisor() as supervisor:
        worker = supervisor.start(command(), tmp_path, "application.py", guessed=guessed)
        assert worker.request().body == b"mine"


@pytest.mark.parametrize("flags", [("-I",), ("-s", "-E"), ("-O",), ("-B", "-u"), ("-W", "error")])
def test_flags_of_the_interpreter(flags: tuple[str, ...]) -> None:
    """Isolated, optimised, with warnings as errors: the loader gives no reason for a warning."""
    with FakeSupervisor() as supervisor:
        for preload in (False, True):
            role = ("--preload",) if preload else ()
            loader = supervisor.start((PYTHON, *flags, str(LOADER), *role), APPS / "hello", "app.py")
            worker = supervisor.fork(loader) if preload else loader
            assert worker.request().body == b"hello"
            assert worker.output.text() == ""


def test_the_process_has_the_name_of_the_group() -> None:
    with FakeSupervisor() as supervisor:
        preloader = supervisor.start(command(preload=True), APPS / "hello", "app.py", name="a-shop-with-a-long-name")
        worker = supervisor.fork(preloader)
        assert Path(f"/proc/{preloader.pid}/comm").read_text() == "pre:a-shop-with\n"
        assert Path(f"/proc/{worker.pid}/comm").read_text() == "a-shop-with-a-l\n"


def test_a_default_timeout_of_the_application_is_not_ours(tmp_path: Path) -> None:
    """``socket.setdefaulttimeout`` at load: sockets made later inherit it, and an idle stream would end."""
    (tmp_path / "app.py").write_text("import socket\nsocket.setdefaulttimeout(0.01)\n" + SOURCE)
    for preload in (False, True):
        with FakeSupervisor() as supervisor:
            loader = supervisor.start(command(preload=preload), tmp_path, "app.py")
            worker = supervisor.fork(loader) if preload else loader
            with worker.open() as stream:
                for _ in range(2):
                    assert stream.request().status == 200
                    assert not _ends_within(stream.socket.fileno(), 0.05)


def _ends_within(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


# Not finding it

BROKEN = APPS / "fails_to_start"


def test_a_missing_module() -> None:
    message = failure(BROKEN, "import_error.py")
    assert message["category"] == "application"
    assert message["summary"] == "The application raised ModuleNotFoundError: No module named 'there_is_no_such_module'"
    assert PYTHON in message["problem"]
    assert f"{PYTHON} -m pip install there_is_no_such_module" in message["solution"]
    assert "--python" in message["solution"]
    assert message["traceback"].startswith(
        f'Traceback (most recent call last):\n  File "{BROKEN / "import_error.py"}", line 1'
    )
    assert "passenger_trio_loader" not in message["traceback"]
    assert "importlib" not in message["traceback"]


def test_a_module_that_was_asked_for_is_missing() -> None:
    for name in ("no_such_module", "no_such_package.inside"):
        message = failure(BROKEN, entry_module=name)
        assert message["category"] == "configuration"
        assert message["summary"] == f"There is no module '{name.partition('.')[0]}'"
        assert "raises.py" in message["solution"]


def test_a_missing_file() -> None:
    message = failure(BROKEN, "no_such_file.py")
    assert message["category"] == "configuration"
    assert str(BROKEN / "no_such_file.py") in message["summary"]
    assert "raises.py" in message["solution"]


def test_a_syntax_error() -> None:
    message = failure(BROKEN, "syntax_error.py")
    assert message["category"] == "application"
    assert "syntax error" in message["summary"]
    assert "syntax_error.py, line" in message["summary"]
    assert "SyntaxError" in message["traceback"]
    assert 'return [b"a" b"b"' in message["traceback"]
    assert "--python" in message["solution"]


def test_an_exception() -> None:
    message = failure(BROKEN, "raises.py")
    assert message["summary"] == "The application raised ZeroDivisionError: deep inside"
    assert message["traceback"].count("File ") == 2
    assert PYTHON in message["details"]


def test_an_exit() -> None:
    message = failure(BROKEN, "exits.py")
    assert "sys.exit('usage: a command-line program')" in message["summary"]
    assert "__main__" in message["solution"]


def test_no_object() -> None:
    message = failure(BROKEN, "nothing.py")
    assert message["category"] == "configuration"
    assert "something_else" in message["solution"]
    message = failure(BROKEN, "nothing.py", entry_object="wanted.deeply")
    assert message["summary"] == f"There is no object 'wanted.deeply' in {BROKEN / 'nothing.py'}"


def test_an_object_that_cannot_be_called() -> None:
    message = failure(BROKEN, "not_callable.py")
    assert message["category"] == "configuration"
    assert "dict" in message["problem"]


@pytest.mark.parametrize("file", ["asgi.py", "asgi_object.py"])
def test_an_asgi_application(file: str) -> None:
    message = failure(BROKEN, file)
    assert message["category"] == "configuration"
    assert "is an ASGI application, not a WSGI application" in message["summary"]


@pytest.mark.parametrize(
    ("name", "summary"), [("broken", "LookupError: the factory fails"), ("none", "cannot be called")]
)
def test_a_factory_that_fails(name: str, summary: str) -> None:
    message = failure(APPS / "factory", "app.py", entry_object=name, entry_is_factory=True)
    assert summary in message["summary"]


def test_an_exception_that_cannot_be_shown() -> None:
    message = failure(BROKEN, "unprintable.py")
    assert "Unprintable" in message["summary"]
    message = failure(BROKEN, "surrogate.py")
    assert "\\udcff" in message["summary"]
    assert "\0" in message["summary"]


@pytest.mark.slow
def test_a_failure_with_a_thread_running() -> None:
    """It keeps the interpreter from ending, but not for ever."""
    message = failure(BROKEN, "leaves_a_thread.py")
    assert message["summary"].endswith("with a thread running")


@pytest.mark.parametrize("name", ["entry_object", "threads", "socket_dir"])
def test_options_that_make_no_sense(name: str) -> None:
    message = failure(APPS / "hello", "app.py", **{name: None})
    assert message["category"] == "loader"
    assert name in message["problem"]


def test_a_socket_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(LoaderFailed) as caught, FakeSupervisor() as supervisor:
        supervisor.start(command(), APPS / "hello", "app.py", socket_dir=str(tmp_path / "missing"))
    message = caught.value.message
    assert message["category"] == "loader"
    assert "missing" in message["summary"]
    assert "No such file" in message["problem"]


def test_by_hand() -> None:
    """Started by a person, it says what it is."""
    result = subprocess.run(command(), capture_output=True, text=True, check=False, env={})
    assert result.returncode == 2
    assert "started by passenger_trio" in result.stderr


def test_a_supervisor_that_is_not_there(tmp_path: Path) -> None:
    variables = {"PASSENGER_TRIO_SPAWN_SOCKET": str(tmp_path / "none"), "PASSENGER_TRIO_SPAWN_TOKEN": "t"}
    result = subprocess.run(command(), capture_output=True, text=True, check=False, env={**os.environ, **variables})
    assert result.returncode == 2


def test_a_loader_that_is_told_nonsense() -> None:
    """Whatever is no message ends it, like the end of the connection."""
    for nonsense in (b"\n", b"[]\n", b'"text"\n', b"{}\n", b"\xff\n", b'{"type": "options"', b"x" * 65536):
        with FakeSupervisor() as supervisor:
            loader: Loader = supervisor.launch(command(), APPS / "hello")
            loader.control.sendall(nonsense)
            loader.close_control()
            assert loader.wait_gone() < 5
