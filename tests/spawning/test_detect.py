"""What is found in a directory, or behind a target, and what is said when nothing is."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from passenger_trio.errors import NothingToServe, OptionError
from passenger_trio.options import AppOptions
from passenger_trio.spawning.detect import DetectedApp, detect
from passenger_trio.spawning.python_interpreter import choose_interpreter

FLASK = "from flask import Flask\napp = Flask(__name__)\n"
FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
WSGI = "def application(environ, start_response):\n    return []\n"
PLAIN = {"PATH": os.environ["PATH"]}


def write(root: Path, **files: str) -> None:
    """``shop__wsgi_py`` is shop/wsgi.py, ``shop__INIT_py`` is shop/__init__.py."""
    for name, text in files.items():
        path = root / (name.replace("__", "/").replace("INIT", "__init__").removesuffix("_py") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def found(root: Path, target: str = "", **options: str) -> DetectedApp:
    return detect(AppOptions(root=str(root), target=target, **options), environ=PLAIN)


def refusal(root: Path, target: str = "", **options: str) -> str:
    with pytest.raises(NothingToServe) as caught:
        found(root, target, **options)
    assert caught.value.exit_code == 4
    text = str(caught.value)
    assert len(text.splitlines()) <= 6
    return text


class TestADirectory:
    @pytest.mark.parametrize("name", ["passenger_wsgi", "wsgi", "app", "main"])
    def test_each_usual_file_is_found(self, tmp_path: Path, name: str) -> None:
        write(tmp_path, **{f"{name}_py": FLASK})
        app = found(tmp_path)
        assert app.startup_file == str(tmp_path / f"{name}.py")
        assert (app.app_type, app.root, app.entry_module) == ("wsgi", str(tmp_path), "")
        assert (app.entry_object, app.entry_is_factory) == ("app", False)
        assert app.reason == f"{name}.py has `app`, a Flask application"

    def test_the_order_decides_and_the_others_are_named(self, tmp_path: Path) -> None:
        write(tmp_path, main_py=WSGI, app_py=FLASK)
        app = found(tmp_path)
        assert app.startup_file == str(tmp_path / "app.py")
        assert app.candidates == ("main.py has `application`, a function of (environ, start_response)",)

    def test_a_file_without_an_application_is_passed_over(self, tmp_path: Path) -> None:
        write(tmp_path, app_py="print('a script')", main_py=FLASK)
        assert found(tmp_path).startup_file == str(tmp_path / "main.py")

    def test_a_factory(self, tmp_path: Path) -> None:
        write(tmp_path, app_py="import flask\ndef create_app():\n    return flask.Flask('x')\n")
        app = found(tmp_path)
        assert (app.entry_object, app.entry_is_factory) == ("create_app", True)
        assert app.reason == "app.py has the factory `create_app()`, which makes a Flask application"

    def test_the_only_application_may_have_any_name(self, tmp_path: Path) -> None:
        write(tmp_path, app_py="import flask\nshop = flask.Flask('x')\n")
        app = found(tmp_path)
        assert (app.entry_object, app.reason) == (
            "shop",
            "app.py has `shop`, a Flask application, its only WSGI application",
        )

    def test_among_several_names_none_is_guessed(self, tmp_path: Path) -> None:
        write(tmp_path, app_py="import flask\nshop = flask.Flask('x')\nblog = flask.Flask('y')\n")
        assert "several applications (`shop`, `blog`)" in refusal(tmp_path)

    def test_a_syntax_error_is_chosen_so_that_it_can_be_shown(self, tmp_path: Path) -> None:
        write(tmp_path, app_py="def app(:\n")
        app = found(tmp_path)
        assert (app.startup_file, app.entry_object) == (str(tmp_path / "app.py"), "")
        assert "not valid Python" in app.reason
        assert "line 1" in app.reason

    def test_nothing_is_run(self, tmp_path: Path) -> None:
        write(tmp_path, app_py=f"open({str(tmp_path / 'ran')!r}, 'w')\n" + FLASK)
        found(tmp_path)
        assert not (tmp_path / "ran").exists()

    def test_symbolic_links_are_followed(self, tmp_path: Path) -> None:
        write(tmp_path, real__app_py=FLASK)
        (tmp_path / "current").symlink_to("real")
        assert found(tmp_path / "current").root == str(tmp_path / "current")

    def test_passenger_wsgi_is_believed_when_its_names_are_hidden(self, tmp_path: Path) -> None:
        write(tmp_path, passenger_wsgi_py="from elsewhere import *\n")
        assert "shows only when it is loaded" in found(tmp_path).reason

    def test_a_pipe_or_a_huge_file_does_not_hold_anything_up(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "wsgi.py")
        (tmp_path / "app.py").write_bytes(b"#" * (1024 * 1024 + 1))
        assert "longer than 1 MiB" in found(tmp_path).reason

    @pytest.mark.parametrize("directory", ["", "src/"])
    def test_a_package(self, tmp_path: Path, directory: str) -> None:
        (tmp_path / directory / "shop").mkdir(parents=True)
        (tmp_path / directory / "shop/__init__.py").write_text(
            "import flask\ndef create_app():\n return flask.Flask('x')"
        )
        app = found(tmp_path)
        assert (app.entry_module, app.entry_object, app.startup_file) == ("shop", "create_app", "")
        assert app.env_additions == ((("PYTHONPATH", str(tmp_path / "src")),) if directory else ())

    def test_a_module_of_a_package_with_relative_imports(self, tmp_path: Path) -> None:
        write(tmp_path, shop__INIT_py="", shop__wsgi_py="from .web import app as application\n", shop__web_py=FLASK)
        app = found(tmp_path)
        assert (app.entry_module, app.entry_object) == ("shop.wsgi", "application")
        assert "a Flask application from shop.web" in app.reason

    def test_among_several_packages_none_is_guessed(self, tmp_path: Path) -> None:
        write(tmp_path, shop__INIT_py=FLASK, blog__INIT_py=FLASK)
        assert "several applications (blog:app, shop:app)" in refusal(tmp_path)


class TestAsgi:
    @pytest.mark.parametrize("name", ["passenger_asgi", "asgi", "app", "main"])
    def test_each_usual_file_is_found(self, tmp_path: Path, name: str) -> None:
        write(tmp_path, **{f"{name}_py": FASTAPI})
        app = found(tmp_path)
        assert (app.app_type, app.startup_file) == ("asgi", str(tmp_path / f"{name}.py"))
        assert app.reason == f"{name}.py has `app`, a FastAPI application (ASGI)"

    @pytest.mark.parametrize(
        "text",
        [
            "async def app(scope, receive, send): ...",
            "class App:\n async def __call__(self, scope, receive, send): ...\napp = App()",
            "def app(scope, receive, send):\n return other(scope, receive, send)",
            "from starlette.applications import Starlette\napp = Starlette()",
            "from quart import Quart\napp = Quart('x')",
            "from litestar import Litestar\napp = Litestar()",
            "import fastapi\napi = fastapi.FastAPI()",
            "import fastapi\ndef create_app():\n return fastapi.FastAPI()",
            "import fastapi, x\ninner = fastapi.FastAPI()\napp = x.Middleware(inner)",
        ],
    )
    def test_what_shows_that_it_is_asgi(self, tmp_path: Path, text: str) -> None:
        write(tmp_path, app_py=text)
        assert found(tmp_path).app_type == "asgi"

    def test_an_async_call_of_other_arguments_is_none(self, tmp_path: Path) -> None:
        write(tmp_path, app_py="class App:\n async def __call__(self, update): ...\napp = App()")
        assert "app.py has `app`, an instance of App" in refusal(tmp_path)

    def test_a_file_is_called_after_what_it_does_not_show(self, tmp_path: Path) -> None:
        write(tmp_path, asgi_py="import x\napplication = x.make()")
        assert found(tmp_path).app_type == "asgi"
        write(tmp_path, wsgi_py="import x\napplication = x.make()")
        app = found(tmp_path)
        assert (app.app_type, app.startup_file) == ("wsgi", str(tmp_path / "wsgi.py"))
        assert app.candidates == ("asgi.py has `application`, the result of x.make() (ASGI)",)
        assert found(tmp_path, app_type="asgi").startup_file == str(tmp_path / "asgi.py")

    def test_a_wsgi_application_with_an_adapter_beside_it(self, tmp_path: Path) -> None:
        write(tmp_path, app_py=FLASK + "from asgiref.wsgi import WsgiToAsgi\nasgi_app = WsgiToAsgi(app)\n")
        assert (found(tmp_path).app_type, found(tmp_path).entry_object) == ("wsgi", "app")
        app = found(tmp_path, app_type="asgi")
        assert (app.app_type, app.entry_object) == ("asgi", "asgi_app")
        assert "its only ASGI application" in app.reason

    @pytest.mark.parametrize(("text", "told"), [(FASTAPI, "wsgi"), (FLASK, "asgi")])
    def test_whoever_says_what_it_is_is_believed(self, tmp_path: Path, text: str, told: str) -> None:
        write(tmp_path, main_py=text)
        app = found(tmp_path, app_type=told)
        assert (app.app_type, app.entry_object) == (told, "app")

    def test_a_syntax_error_in_a_file_for_asgi(self, tmp_path: Path) -> None:
        write(tmp_path, asgi_py="def app(:\n")
        assert found(tmp_path).app_type == "asgi"

    def test_passenger_asgi_is_believed_when_its_names_are_hidden(self, tmp_path: Path) -> None:
        write(tmp_path, passenger_asgi_py="from elsewhere import *\n")
        assert found(tmp_path).app_type == "asgi"


class TestDjango:
    @pytest.mark.os
    def test_a_project_as_django_makes_it(self, tmp_path: Path) -> None:
        subprocess.run([sys.executable, "-m", "django", "startproject", "shop", str(tmp_path)], check=True)
        app = found(tmp_path)
        assert (app.entry_module, app.entry_object, app.startup_file) == ("shop.wsgi", "application", "")
        assert "shop.wsgi.application" in app.reason
        assert app.reason.endswith("; it has an ASGI module, too, which --app-type asgi serves")
        assert app.env_additions == ()
        asgi = found(tmp_path, app_type="asgi")
        assert (asgi.app_type, asgi.entry_module, asgi.entry_object) == ("asgi", "shop.asgi", "application")
        assert asgi.reason.endswith("with the ASGI module shop.asgi")
        settings = tmp_path / "shop/settings.py"
        settings.write_text(settings.read_text() + "\nASGI_APPLICATION = 'shop.asgi.application'\n")
        assert found(tmp_path).app_type == "wsgi"
        settings.write_text(settings.read_text().replace("INSTALLED_APPS = [", "INSTALLED_APPS = ['daphne', "))
        channels = found(tmp_path)
        assert (channels.app_type, channels.entry_module) == ("asgi", "shop.asgi")
        assert channels.reason.endswith("whose ASGI_APPLICATION is shop.asgi.application, and it uses Channels")
        assert found(tmp_path, app_type="wsgi").entry_module == "shop.wsgi"

    def test_a_project_without_a_wsgi_module(self, tmp_path: Path) -> None:
        write(tmp_path, manage_py=self.MANAGE.format("shop.settings"), shop__settings_py="", shop__asgi_py="")
        app = found(tmp_path)
        assert (app.app_type, app.entry_module) == ("asgi", "shop.asgi")

    MANAGE = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', '{}')\n"

    def test_the_wsgi_module_is_found_above_the_settings(self, tmp_path: Path) -> None:
        write(tmp_path, manage_py=self.MANAGE.format("config.settings.dev"), config__wsgi_py="application = x()")
        write(tmp_path, config__settings__dev_py="DEBUG = True")
        app = found(tmp_path)
        assert app.entry_module == "config.wsgi"
        # This wsgi.py does not name its settings, so they are given to it.
        assert app.env_additions == (("DJANGO_SETTINGS_MODULE", "config.settings.dev"),)

    def test_without_a_wsgi_module_djangos_own_factory_is_used(self, tmp_path: Path) -> None:
        write(tmp_path, manage_py=self.MANAGE.format("shop.settings"), shop__settings_py="DEBUG = True")
        app = found(tmp_path)
        assert (app.entry_module, app.entry_object, app.entry_is_factory) == (
            "django.core.wsgi",
            "get_wsgi_application",
            True,
        )
        assert dict(app.env_additions) == {"DJANGO_SETTINGS_MODULE": "shop.settings"}

    def test_the_environment_has_the_last_word_on_settings(self, tmp_path: Path) -> None:
        write(tmp_path, manage_py=self.MANAGE.format("shop.settings"), shop__settings_py="")
        environ = {**PLAIN, "DJANGO_SETTINGS_MODULE": "shop.other"}
        assert detect(AppOptions(root=str(tmp_path)), environ=environ).env_additions == ()

    def test_another_manage_py(self, tmp_path: Path) -> None:
        write(tmp_path, manage_py="print(1)")
        assert "manage.py sets no DJANGO_SETTINGS_MODULE" in refusal(tmp_path)


class TestNothing:
    def test_an_empty_directory(self, tmp_path: Path) -> None:
        text = refusal(tmp_path)
        assert str(tmp_path) in text
        assert "passenger_wsgi.py, passenger_asgi.py, wsgi.py, asgi.py, app.py, main.py" in text
        assert "module:object" in text

    @pytest.mark.parametrize(
        ("file", "part"),
        [
            ("package.json", "package.json is no JSON"),
            ("index.js", "index.js does not look like an HTTP server"),
            ("Procfile", "--app-start-command"),
            ("index.php", "php -S 127.0.0.1:$PORT"),
            ("__init__.py", "start the directory above it"),
        ],
    )
    def test_near_misses(self, tmp_path: Path, file: str, part: str) -> None:
        (tmp_path / file).write_text("")
        assert part in refusal(tmp_path)

    def test_a_file_that_has_something_else(self, tmp_path: Path) -> None:
        write(tmp_path, app_py="from celery import Celery\napp = Celery()")
        assert "app.py has `app`, a Celery application" in refusal(tmp_path)

    def test_an_application_one_level_below(self, tmp_path: Path) -> None:
        write(tmp_path, shop__manage_py="")
        assert f"passenger-trio start {tmp_path}/shop" in refusal(tmp_path)

    def test_many_near_misses_are_counted(self, tmp_path: Path) -> None:
        for name in "abcdefg":
            write(tmp_path, **{f"{name}__app_py": ""})
        assert "... and 5 more" in refusal(tmp_path)

    def test_no_directory(self, tmp_path: Path) -> None:
        assert "there is no directory" in refusal(tmp_path / "none")

    def test_a_file_in_place_of_a_directory(self, tmp_path: Path) -> None:
        write(tmp_path, app_py=FLASK)
        assert "app.py:app" in refusal(tmp_path / "app.py")


class TestATarget:
    def test_module_and_object(self, tmp_path: Path) -> None:
        write(tmp_path, shop__web_py=FLASK, shop__INIT_py="")
        app = found(tmp_path, "shop.web:app")
        assert (app.entry_module, app.entry_object, app.startup_file) == ("shop.web", "app", "")
        assert app.reason == "`app` of shop/web.py was asked for: a Flask application"

    def test_factory(self, tmp_path: Path) -> None:
        write(tmp_path, shop_py="def make():\n    return object()\n")
        app = found(tmp_path, "shop:make()")
        assert (app.entry_object, app.entry_is_factory) == ("make", True)

    def test_file_and_object(self, tmp_path: Path) -> None:
        write(tmp_path, run_py=FLASK)
        app = found(tmp_path, "run.py:app")
        assert (app.startup_file, app.entry_module, app.entry_object) == (str(tmp_path / "run.py"), "", "app")

    def test_module_alone(self, tmp_path: Path) -> None:
        write(tmp_path, run_py=FLASK)
        assert found(tmp_path, "run").entry_object == "app"

    def test_an_attribute(self, tmp_path: Path) -> None:
        write(tmp_path, run_py="import x\nweb = x.y()")
        assert found(tmp_path, "run:web.wsgi").entry_object == "web.wsgi"

    @pytest.mark.os
    def test_an_installed_module_is_looked_for_by_the_interpreter(self, tmp_path: Path) -> None:
        assert found(tmp_path, "wsgiref.simple_server:demo_app").entry_module == "wsgiref.simple_server"
        assert "there is no module 'shop_that_is_not'" in refusal(tmp_path, "shop_that_is_not:app")

    def test_a_misspelt_name_is_answered_with_those_there_are(self, tmp_path: Path) -> None:
        write(tmp_path, app_py=FLASK)
        assert refusal(tmp_path, "app:ap") == "app.py has no `ap`; it has `app`"

    def test_a_misspelt_module_of_a_package(self, tmp_path: Path) -> None:
        write(tmp_path, shop__INIT_py="", shop__web_py=FLASK)
        assert "there is no module shop.wbe" in refusal(tmp_path, "shop.wbe:app")

    def test_a_factory_that_is_not_called(self, tmp_path: Path) -> None:
        write(tmp_path, app_py="def make():\n    return object()\n")
        assert "write `make()`" in refusal(tmp_path, "app:make")

    def test_a_factory_with_arguments(self, tmp_path: Path) -> None:
        write(tmp_path, app_py="def make(config):\n    return config\n")
        assert "needs arguments (config)" in refusal(tmp_path, "app:make()")

    def test_asgi(self, tmp_path: Path) -> None:
        write(tmp_path, app_py=FASTAPI)
        app = found(tmp_path, "app:app")
        assert (app.app_type, app.entry_object) == ("asgi", "app")
        assert app.reason == "`app` of app.py was asked for: a FastAPI application"

    def test_a_module_that_is_called_after_its_interface(self, tmp_path: Path) -> None:
        write(tmp_path, shop__INIT_py="", shop__asgi_py="application = make()", shop__wsgi_py="application = make()")
        assert found(tmp_path, "shop.asgi:application").app_type == "asgi"
        assert found(tmp_path, "shop.wsgi:application").app_type == "wsgi"
        assert found(tmp_path, "shop.wsgi:application", app_type="asgi").app_type == "asgi"

    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert "there is no file run.py" in refusal(tmp_path, "run.py:app")

    @pytest.mark.parametrize("target", ["app:make(1)", "app:", "app:1x", "a b:c", "-x:y", "app:a b"])
    def test_what_is_no_target(self, tmp_path: Path, target: str) -> None:
        with pytest.raises(OptionError):
            found(tmp_path, target)

    def test_a_startup_file(self, tmp_path: Path) -> None:
        (tmp_path / "shop.wsgi").write_text(WSGI)
        app = found(tmp_path, startup_file="shop.wsgi")
        assert (app.startup_file, app.entry_object) == (str(tmp_path / "shop.wsgi"), "application")
        assert "there is no file none.py" in refusal(tmp_path, startup_file="none.py")

    def test_a_startup_file_without_an_application(self, tmp_path: Path) -> None:
        write(tmp_path, run_py="x = 1")
        assert "run.py has no `application`" in refusal(tmp_path, startup_file="run.py")

    def test_a_startup_file_and_a_target_contradict_each_other(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError):
            found(tmp_path, "app:app", startup_file="run.py")


def make_interpreter(path: Path, version: str = "3 12") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


@pytest.mark.os
class TestTheInterpreter:
    def test_the_one_that_was_named(self, tmp_path: Path) -> None:
        python = make_interpreter(tmp_path / "python3.12")
        assert choose_interpreter(str(python), "/", {}) == (str(python), "named by --python (Python 3.12)")

    def test_a_virtual_environment_may_be_named(self, tmp_path: Path) -> None:
        python = make_interpreter(tmp_path / "env/bin/python")
        assert choose_interpreter(str(tmp_path / "env"), "/", {})[0] == str(python)

    def test_a_name_is_looked_for_in_path(self, tmp_path: Path) -> None:
        python = make_interpreter(tmp_path / "snake")
        assert choose_interpreter("snake", "/", {"PATH": str(tmp_path)})[0] == str(python)

    def test_the_real_one_is_asked_its_version(self) -> None:
        path, reason = choose_interpreter(sys.executable, "/", {})
        assert path == sys.executable
        assert f"Python {sys.version_info[0]}.{sys.version_info[1]}" in reason

    @pytest.mark.parametrize(
        ("content", "mode", "hint"),
        [
            ("#!/bin/sh\necho 3 7\n", 0o755, "it is Python 3.7; applications need Python 3.8 or newer"),
            ("#!/bin/sh\necho hello\n", 0o755, "does not answer like a Python interpreter"),
            ("#!/bin/sh\n", 0o644, "not an executable file"),
        ],
    )
    def test_what_cannot_be_used(self, tmp_path: Path, content: str, mode: int, hint: str) -> None:
        (tmp_path / "python").write_text(content)
        (tmp_path / "python").chmod(mode)
        with pytest.raises(OptionError) as caught:
            choose_interpreter(str(tmp_path / "python"), "/", {})
        assert hint in str(caught.value)

    @pytest.mark.parametrize("python", ["/nowhere/python", "no-such-python"])
    def test_what_is_not_there(self, python: str) -> None:
        with pytest.raises(OptionError):
            choose_interpreter(python, "/", {"PATH": "/nowhere"})

    def test_OP22_the_adjacent_environment_comes_before_an_active_one_elsewhere(self, tmp_path: Path) -> None:
        """The message names those that were found and are not used."""
        active = make_interpreter(tmp_path / "active/bin/python")
        adjacent = make_interpreter(tmp_path / "app/.venv/bin/python")
        (tmp_path / "app/.venv/pyvenv.cfg").write_text("")
        root = str(tmp_path / "app")
        path, reason = choose_interpreter("", root, {"VIRTUAL_ENV": str(tmp_path / "active")})
        assert path == str(adjacent)
        assert reason == (
            f"the virtual environment .venv in the application's directory ({tmp_path / 'active'} is not used)"
        )
        path, reason = choose_interpreter("", root, {"VIRTUAL_ENV": str(tmp_path / "gone")})
        assert (path, "not used" in reason) == (str(adjacent), False)
        path, reason = choose_interpreter("", str(tmp_path), {"VIRTUAL_ENV": str(tmp_path / "active")})
        assert (path, reason) == (str(active), "the active virtual environment")

    def test_OP22_of_several_adjacent_ones_the_active_one_is_used(self, tmp_path: Path) -> None:
        for name in (".venv", "venv"):
            make_interpreter(tmp_path / name / "bin/python")
            (tmp_path / name / "pyvenv.cfg").write_text("")
        path, reason = choose_interpreter("", str(tmp_path), {"VIRTUAL_ENV": str(tmp_path / "venv")})
        assert path == str(tmp_path / "venv/bin/python")
        assert reason == f"the active virtual environment ({tmp_path / '.venv'} is not used)"

    def test_OP22_a_broken_environment_beside_one_that_works(self, tmp_path: Path) -> None:
        active = make_interpreter(tmp_path / "active/bin/python")
        (tmp_path / "app/.venv").mkdir(parents=True)
        (tmp_path / "app/.venv/pyvenv.cfg").write_text("")
        path, reason = choose_interpreter("", str(tmp_path / "app"), {"VIRTUAL_ENV": str(tmp_path / "active")})
        assert path == str(active)
        assert f"{tmp_path / 'app/.venv'} is broken" in reason

    @pytest.mark.parametrize("name", [".venv", "venv", "env"])
    def test_an_adjacent_environment(self, tmp_path: Path, name: str) -> None:
        python = make_interpreter(tmp_path / name / "bin/python")
        assert choose_interpreter("", str(tmp_path), {})[0] == sys.executable
        (tmp_path / name / "pyvenv.cfg").write_text("")
        path, reason = choose_interpreter("", str(tmp_path), {})
        assert path == str(python)
        assert name in reason

    def test_links_are_not_resolved(self, tmp_path: Path) -> None:
        (tmp_path / ".venv/bin").mkdir(parents=True)
        (tmp_path / ".venv/pyvenv.cfg").write_text("")
        (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
        assert choose_interpreter("", str(tmp_path), {})[0] == str(tmp_path / ".venv/bin/python")

    def test_a_broken_environment_is_not_passed_over_in_silence(self, tmp_path: Path) -> None:
        (tmp_path / ".venv/bin").mkdir(parents=True)
        (tmp_path / ".venv/pyvenv.cfg").write_text("")
        (tmp_path / ".venv/bin/python").symlink_to("/nowhere/python")
        with pytest.raises(OptionError) as caught:
            choose_interpreter("", str(tmp_path), {})
        assert "broken" in str(caught.value)

    def test_its_reason_reaches_the_application(self, tmp_path: Path) -> None:
        write(tmp_path, app_py=FLASK)
        app = found(tmp_path)
        assert app.python == sys.executable
        assert "no virtual environment" in app.python_reason
        assert stat.S_ISREG(os.stat(app.python).st_mode)


def test_DE10_our_own_interpreter_is_not_asked_for_its_version(tmp_path: Path) -> None:
    """Also under another name. Asking costs a start of Python."""
    (tmp_path / "python").symlink_to(sys.executable)
    program = (
        "import sys\n"
        "from passenger_trio.spawning.python_interpreter import choose_interpreter\n"
        "started = []\n"
        "sys.addaudithook(lambda event, arguments: event == 'subprocess.Popen' and started.append(arguments[1]))\n"
        "reason = choose_interpreter(sys.argv[1], '/', {})[1]\n"
        "assert reason == 'named by --python (Python %d.%d)' % sys.version_info[:2], reason\n"
        "sys.exit(str(started) if started else 0)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "python")], check=True)
