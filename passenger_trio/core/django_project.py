"""The texts of a Django project -> its settings module, and its WSGI or ASGI application.

``manage.py`` names the settings module (``os.environ.setdefault("DJANGO_SETTINGS_MODULE",
"shop.settings")``). The settings may name the application (``WSGI_APPLICATION = "shop.wsgi.application"``,
and ``ASGI_APPLICATION`` with Channels). This module reads both from the syntax tree.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from passenger_trio.core.python_entry_points import Load
from passenger_trio.core.python_names import Module, string_of

__all__ = ["SETTINGS_VARIABLE", "django_application", "django_modules", "settings_module", "uses_channels"]

SETTINGS_VARIABLE = "DJANGO_SETTINGS_MODULE"


def settings_module(module: Module) -> str:
    """The settings module that a text puts into the environment; ``""``: the text sets none."""
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


def django_application(settings: str, interface: str, load: Load) -> str:
    """``WSGI_APPLICATION`` or ``ASGI_APPLICATION`` of a settings module; ``""``: not set.

    :param interface: ``wsgi`` or ``asgi``.
    """
    texts = (string_of(module, f"{interface.upper()}_APPLICATION") for module in _settings(settings, load))
    return next((text for text in texts if text), "")


def uses_channels(settings: str, load: Load) -> bool:
    """Whether ``INSTALLED_APPS`` contains Channels or its server Daphne: WSGI cannot serve such a project."""
    return any(_installs_channels(node) for module in _settings(settings, load) for node in ast.walk(module.tree))


def django_modules(settings: str, interface: str) -> list[str]:
    """The usual places of the ``wsgi`` or ``asgi`` module of a project with these settings: beside the settings, or
    in a package above them.
    """
    packages = settings.split(".")[:-1]
    return [".".join([*packages[:count], interface]) for count in range(len(packages), -1, -1)]


def _settings(settings: str, load: Load) -> Iterator[Module]:
    """The text of a settings module, and of the modules that it imports (``from .base import *``)."""
    seen: set[str] = set()
    waiting = [settings]
    while waiting:
        name = waiting.pop(0)
        module = load(name)
        if name in seen or module is None:
            continue
        seen.add(name)
        yield module
        waiting.extend(module.stars)


def _installs_channels(node: ast.AST) -> bool:
    match node:
        case (
            ast.Assign(targets=[ast.Name(id="INSTALLED_APPS")], value=value)
            | ast.AnnAssign(target=ast.Name(id="INSTALLED_APPS"), value=ast.expr() as value)
            | ast.AugAssign(target=ast.Name(id="INSTALLED_APPS"), value=value)
        ):
            texts = [inner.value for inner in ast.walk(value) if isinstance(inner, ast.Constant)]
            return any(isinstance(text, str) and text.partition(".")[0] in ("channels", "daphne") for text in texts)
        case _:
            return False
