"""The texts of a Django project -> which settings module it has, and which WSGI application they name.

``manage.py`` names the settings module (``os.environ.setdefault("DJANGO_SETTINGS_MODULE",
"shop.settings")``); the settings may name the application (``WSGI_APPLICATION = "shop.wsgi.application"``).
Both are read off the syntax tree, like everything else.
"""

from __future__ import annotations

import ast

from passenger_trio.core.entry_points import Load
from passenger_trio.core.module_names import Module, string_of

__all__ = ["SETTINGS_VARIABLE", "settings_module", "wsgi_application", "wsgi_modules"]

SETTINGS_VARIABLE = "DJANGO_SETTINGS_MODULE"


def settings_module(module: Module) -> str:
    """The settings module that a text puts into the environment, or ``""`` if it does nothing of the kind."""
    for node in ast.walk(module.tree):
        match node:
            # os.environ.setdefault(NAME, "shop.settings"): in manage.py, within a function.
            case ast.Call(
                func=ast.Attribute(attr="setdefault"),
                args=[ast.Constant(value="DJANGO_SETTINGS_MODULE"), ast.Constant(value=str() as name)],
            ):
                return name
            # os.environ[NAME] = "shop.settings"
            case ast.Assign(
                targets=[ast.Subscript(slice=ast.Constant(value="DJANGO_SETTINGS_MODULE"))],
                value=ast.Constant(value=str() as name),
            ):
                return name
            case _:
                pass
    return ""


def wsgi_application(settings: str, load: Load) -> str:
    """``WSGI_APPLICATION`` of a settings module, followed through ``from .base import *``; ``""`` if it is
    not set.
    """
    seen: set[str] = set()
    waiting = [settings]
    while waiting:
        name = waiting.pop(0)
        module = load(name)
        if name in seen or module is None:
            continue
        seen.add(name)
        found = string_of(module, "WSGI_APPLICATION")
        if found:
            return found
        waiting.extend(module.stars)
    return ""


def wsgi_modules(settings: str) -> list[str]:
    """Where a project with these settings has its ``wsgi`` module by custom: beside the settings, or above
    them.
    """
    packages = settings.split(".")[:-1]
    return [".".join([*packages[:count], "wsgi"]) for count in range(len(packages), -1, -1)]
