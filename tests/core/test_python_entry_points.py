"""Which names of a text are applications: read off the syntax tree, nothing is run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.django_project import django_application, django_modules, settings_module, uses_channels
from passenger_trio.core.python_entry_points import Finding, judge, other_applications, usual_entry_points
from passenger_trio.core.python_frameworks import Verdict
from passenger_trio.core.python_names import Module, read_module, string_of


def nothing(name: str) -> Module | None:
    return None


def files(**texts: str) -> dict[str, Module]:
    """Modules by dotted name; ``__`` in a keyword stands for a dot."""
    return {
        name.replace("__", "."): read_module(text.encode(), package=name.replace("__", ".").rpartition(".")[0])
        for name, text in texts.items()
    }


def first(text: str, **others: str) -> Finding:
    found = usual_entry_points(read_module(text.encode()), files(**others).get)
    assert found, text
    return found[0]


def verdict(text: str, **others: str) -> Verdict:
    return first(text, **others).verdict


WSGI = {
    "flask": "from flask import Flask\napp = Flask(__name__)",
    "flask by module": "import flask\napp = flask.Flask(__name__)",
    "flask renamed": "from flask.app import Flask as F\napp = F('x')",
    "annotated": "from flask import Flask\napp: Flask = Flask('x')",
    "function": "def application(environ, start_response):\n return []",
    "function, other names": "def application(env, start):\n return []",
    "function with defaults": "def application(environ, start_response, extra=1):\n return []",
    "function of anything": "def application(*args):\n return []",
    "generator": "def app(environ, start_response):\n yield b''",
    "lambda": "app = lambda environ, start_response: []",
    "instance with __call__": "class A:\n def __call__(self, environ, start_response): pass\napp = A()",
    "class of a request": "class application:\n def __init__(self, environ, start_response): pass",
    "subclass of Flask": "from flask import Flask\nclass Shop(Flask): pass\napp = Shop('x')",
    "subclass of a subclass": "import flask\nclass A(flask.Flask): pass\nclass B(A): pass\napp = B('x')",
    "django": "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()",
    "pyramid": "def main(config):\n pass\napp = Configurator().make_wsgi_app()",
    "in try": "try:\n from flask import Flask\n app = Flask('x')\nexcept ImportError:\n app = None",
    "in if": "import flask, os\nif os.environ.get('X'):\n app = flask.Flask('a')\nelse:\n app = flask.Flask('b')",
    "in with": "import flask\nwith open('x'):\n app = flask.Flask('a')",
    "by another name first": "import flask\nserver = flask.Flask('a')\napplication = server",
    "by a local function": "import flask\ndef build():\n app = flask.Flask('a')\n return app\napp = build()",
    "walrus": "import flask\napp = (other := flask.Flask('a'))",
    "or": "import flask\napp = None or flask.Flask('x')",
    "star import": "from flask import *\napp = Flask('x')",
    "last binding wins": "from fastapi import FastAPI\nimport flask\napp = FastAPI()\napp = flask.Flask('x')",
    "unpacked": "import flask\napp, db = flask.Flask('x'), None",
}


@pytest.mark.parametrize("text", WSGI.values(), ids=WSGI.keys())
def test_wsgi_is_recognised(text: str) -> None:
    assert verdict(text) is Verdict.WSGI


ASGI = {
    "fastapi": "from fastapi import FastAPI\napp = FastAPI()",
    "starlette": "from starlette.applications import Starlette\napp = Starlette(routes=[])",
    "quart": "import quart\napp = quart.Quart(__name__)",
    "function": "async def app(scope, receive, send): pass",
    "instance": "class A:\n async def __call__(self, scope, receive, send): pass\napplication = A()",
    "django": "from django.core.asgi import get_asgi_application\napplication = get_asgi_application()",
    "falcon": "import falcon.asgi\napp = falcon.asgi.App()",
    "wrapped": "from fastapi import FastAPI\nfrom x import Wrap\napp = Wrap(FastAPI())",
    "wrapped by name": "from fastapi import FastAPI\nfrom x import Wrap\ninner = FastAPI()\napp = Wrap(app=inner)",
    "made by a function": "from fastapi import FastAPI\ndef make():\n return FastAPI()\napp = make()",
    "behind an adapter": "from asgiref.wsgi import WsgiToAsgi\nfrom flask import Flask\napp = WsgiToAsgi(Flask('x'))",
}


@pytest.mark.parametrize("text", ASGI.values(), ids=ASGI.keys())
def test_asgi_is_recognised(text: str) -> None:
    assert verdict(text) is Verdict.ASGI


NEITHER = {
    "a module": "import app",
    "a module of a package": "import app.views",
    "none": "app = None",
    "text": "app = 'shop'",
    "list": "app = []",
    "celery": "from celery import Celery\napp = Celery('x')",
    "typer": "import typer\napp = typer.Typer()",
    "async of other arguments": "async def app(request): pass",
    "function without arguments": "def app(): pass",
    "function with a required keyword": "def app(environ, start_response, *, more): pass",
    "class": "class app: pass",
    "instance that is not callable": "class A: pass\napp = A()",
    "factory with arguments": "def create_app(config): return config",
    "factory that returns nothing": "def create_app():\n print(1)",
    "async factory": "async def create_app():\n return 1",
}


@pytest.mark.parametrize("text", NEITHER.values(), ids=NEITHER.keys())
def test_what_is_no_application(text: str) -> None:
    assert verdict(text) is Verdict.NEITHER


PROBABLE = {
    "unknown call": "from x import build\napp = build()",
    "imported": "from x import app",
    "attribute": "from x import thing\napp = thing.wsgi",
    "decorated": "from werkzeug.wrappers import Request\n@Request.application\ndef application(request): pass",
    "unknown base": "from x import Base\nclass A(Base): pass\napp = A()",
    "factory": "from x import create_app",
    "cycle": "app = application\napplication = app",
    "cycle of functions": "def build():\n return build()\napp = build()",
}


@pytest.mark.parametrize("text", PROBABLE.values(), ids=PROBABLE.keys())
def test_what_only_running_would_show(text: str) -> None:
    assert verdict(text) is Verdict.PROBABLE


NOTHING = {
    "only when run": "if __name__ == '__main__':\n app = 1",
    "only when run, turned round": "if '__main__' == __name__:\n app = 1",
    "only for type checkers": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n from x import app",
    "in a function": "def f():\n app = 1",
    "deleted": "app = 1\ndel app",
    "annotation only": "app: int",
    "never": "if False:\n app = 1",
    "empty": "",
}


@pytest.mark.parametrize("text", NOTHING.values(), ids=NOTHING.keys())
def test_names_that_are_not_bound(text: str) -> None:
    assert usual_entry_points(read_module(text.encode()), nothing) == []


class TestImportsAreFollowed:
    def test_to_the_text_of_another_file(self) -> None:
        found = first("from shop import app", shop="from flask import Flask\napp = Flask('x')")
        assert (found.verdict, found.what) == (Verdict.WSGI, "a Flask application from shop")

    def test_under_another_name(self) -> None:
        assert (
            verdict("from shop import web as application", shop="import fastapi\nweb = fastapi.FastAPI()")
            is Verdict.ASGI
        )

    def test_over_several_files_and_relative_ones(self) -> None:
        texts = {
            "a": "from a.b import app",
            "a__b": "from .c import app",
            "a__c": "import flask\napp = flask.Flask('x')",
        }
        assert verdict("from a import app", **texts) is Verdict.WSGI

    def test_to_a_function_that_is_called(self) -> None:
        shop = "import fastapi\ndef create_app():\n return fastapi.FastAPI()"
        assert verdict("from shop import create_app\napp = create_app()", shop=shop) is Verdict.ASGI

    def test_to_a_factory(self) -> None:
        found = first(
            "from shop import create_app", shop="import flask\ndef create_app(x=1):\n return flask.Flask('x')"
        )
        assert (found.verdict, found.is_factory, found.target) == (Verdict.WSGI, True, "create_app()")

    def test_to_a_module_that_is_no_application(self) -> None:
        assert verdict("from shop import app", shop="", shop__app="") is Verdict.NEITHER

    def test_through_a_star(self) -> None:
        assert verdict("from shop import *", shop="import flask\napp = flask.Flask('x')") is Verdict.WSGI

    def test_in_a_circle_they_end(self) -> None:
        assert verdict("from a import app", a="from b import app", b="from a import app") is Verdict.PROBABLE


class TestChoiceOfNames:
    def test_application_comes_before_app_before_factories(self) -> None:
        text = "def create_app(): return object()\ndef app(e, s): pass\ndef application(e, s): pass"
        found = usual_entry_points(read_module(text.encode()), nothing)
        assert [one.target for one in found] == ["application", "app", "create_app()"]

    def test_other_names_count_only_if_they_are_certain(self) -> None:
        text = (
            "import flask\nserver = flask.Flask('x')\nhelper = object()\n_hidden = flask.Flask('y')\ndef f(a, b): pass"
        )
        found = other_applications(read_module(text.encode()), nothing)
        assert [(one.path, one.verdict) for one in found] == [("server", Verdict.WSGI)]

    def test_the_application_of_dash_is_its_server(self) -> None:
        found = first("from dash import Dash\napp = Dash(__name__)")
        assert (found.path, found.verdict) == ("app.server", Verdict.WSGI)

    def test_a_factory_of_dash_cannot_be_told_in_a_target(self) -> None:
        assert verdict("from dash import Dash\ndef create_app():\n return Dash(__name__)") is Verdict.NEITHER

    def test_a_name_that_is_not_there(self) -> None:
        assert judge(read_module(b"app = 1"), "other", nothing) is None

    def test_an_attribute_is_believed(self) -> None:
        found = judge(read_module(b"import x\nweb = x.y()"), "web.app", nothing)
        assert found is not None
        assert (found.path, found.verdict) == ("web.app", Verdict.PROBABLE)


class TestTextsThatAreNoPython:
    @pytest.mark.parametrize(
        ("source", "part"),
        [
            (b"def app(:\n", "line 1"),
            (b"x = 1\nprint 'old'\n", "line 2"),
            (b"\0", ""),
            (b"\xff\xfe", ""),
            (b"# coding: nonsense\n", ""),
            (b"(" * 5000, ""),
        ],
    )
    def test_it_is_said_where(self, source: bytes, part: str) -> None:
        module = read_module(source)
        assert module.syntax_error
        assert part in module.syntax_error
        assert module.bindings == {}

    def test_a_warning_of_the_compiler_is_not_ours(self) -> None:
        assert read_module(rb"app = '\d'").syntax_error == ""

    @given(st.binary(max_size=200))
    def test_any_bytes_give_a_module(self, source: bytes) -> None:
        module = read_module(source)
        assert module.syntax_error or usual_entry_points(module, nothing) is not None

    def test_dynamic_modules_are_known_as_such(self) -> None:
        assert read_module(b"def __getattr__(name): pass").is_dynamic
        assert read_module(b"exec('app = 1')").is_dynamic
        assert not read_module(b"app = 1").is_dynamic


class TestDjango:
    MANAGE = """
import os
def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
"""

    def test_manage_py_names_the_settings(self) -> None:
        assert settings_module(read_module(self.MANAGE.encode())) == "shop.settings"

    def test_an_assignment_names_them_too(self) -> None:
        module = read_module(b"import os\nos.environ['DJANGO_SETTINGS_MODULE'] = 'a.b'")
        assert settings_module(module) == "a.b"

    def test_other_programs_do_not(self) -> None:
        assert settings_module(read_module(b"import os\nos.environ.setdefault('X', 'y')")) == ""

    def test_settings_name_the_application_also_through_a_star(self) -> None:
        texts = files(s__base="WSGI_APPLICATION = 'shop.wsgi.application'", s__dev="from .base import *")
        assert django_application("s.dev", "wsgi", texts.get) == "shop.wsgi.application"
        assert django_application("s.dev", "asgi", texts.get) == ""
        assert django_application("s.none", "wsgi", texts.get) == ""

    @pytest.mark.parametrize(
        ("text", "uses"),
        [
            ("INSTALLED_APPS = ['daphne', 'shop']", True),
            ("INSTALLED_APPS: list[str] = ['channels']", True),
            ("INSTALLED_APPS = ['shop']\nINSTALLED_APPS += ('channels.apps.ChannelsConfig',)", True),
            ("INSTALLED_APPS = ['shop', 'channelshop']\nOTHER = ['channels']", False),
            ("INSTALLED_APPS = [1, None, 'shop']", False),
            ("from .dev import *\nINSTALLED_APPS = ['shop']", False),
        ],
    )
    def test_channels_is_among_the_installed_applications(self, text: str, uses: bool) -> None:
        texts = files(s__base=text, s__dev="from .base import *")
        assert uses_channels("s.dev", texts.get) is uses

    def test_where_the_modules_are_by_custom(self) -> None:
        assert django_modules("config.settings.dev", "wsgi") == ["config.settings.wsgi", "config.wsgi", "wsgi"]
        assert django_modules("shop.settings", "asgi") == ["shop.asgi", "asgi"]

    def test_a_setting_that_is_no_literal_is_not_guessed(self) -> None:
        assert string_of(read_module(b"A = f()\nB = 'x'\nB = g()"), "A") == ""


@pytest.mark.parametrize(
    ("call", "told"),
    [("make", "the result of make()"), ("a" * 59, "the result of " + "a" * 59), ("a" * 60, "the result of a call")],
)
def test_a_call_is_named_where_its_name_is_short(call: str, told: str) -> None:
    assert told in str(first(f"app = {call}()"))
