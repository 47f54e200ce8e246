"""Finds the Node.js application in a directory: the file to load, the Node that runs it, and the
reasons.

The file is, in this order: the one that was named, the FILE of ``npm start`` if that is ``node
FILE``, ``main`` of ``package.json``, ``app.js``, ``server.js``, ``index.js``. A file that was not
named must look like an HTTP server, or the project must depend on a web framework: many directories
have a ``package.json`` and an ``index.js``. Asking an interpreter for its version costs 40 ms.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from passenger_trio.core.node_package_text import (
    framework_of,
    looks_like_server,
    main_file,
    own_server,
    start_command,
    started_file,
)
from passenger_trio.errors import NothingToServe, OptionError
from passenger_trio.late_classes import frozen
from passenger_trio.spawning.programs import answer, in_path, named
from passenger_trio.system.regular_files import read_regular

__all__ = ["OLDEST", "STARTUP_FILES", "NodeFile", "choose_node", "is_node_file", "named_file", "node_file"]

OLDEST = 16
"""The oldest Node that the loader runs on."""

STARTUP_FILES = ("app.js", "server.js", "index.js")
_EXTENSIONS = (".js", ".mjs", ".cjs")
_MAX_SIZE = 1024 * 1024


@frozen
class NodeFile:
    """The file to load, or the reason why there is none.

    :ivar path: absolute, or ``""``.
    :ivar reason: the reason for this file, in a sentence without a full stop. Without a file: what
        was found instead, or ``""``.
    """

    path: str
    reason: str


def is_node_file(name: str) -> bool:
    """Whether the name is that of a Node.js file."""
    return name.endswith(_EXTENSIONS)


def named_file(root: str, name: str) -> NodeFile:
    """:raises NothingToServe: the file does not exist."""
    path = os.path.join(root, name)
    if not os.path.isfile(path):
        raise NothingToServe(f"there is no file {name} in {root}", (name,))
    return NodeFile(path, f"{name} was asked for, a Node.js application")


def _hint(package: Mapping[str, Any]) -> str:
    """How to serve a project of a framework that has a server of its own; ``""``: the framework is unknown."""
    name, command = own_server(package)
    return f"{name} has its own server: --app-start-command '{command}', after a build" if name else ""


def node_file(root: str, *, trusts_type: bool = False) -> NodeFile:
    """The application in a directory.

    :param trusts_type: the type was given, so a file need not look like a server.
    """
    package, trouble = _package(root)
    if trouble:
        return NodeFile("", trouble)
    misses: list[str] = []
    start = start_command(package)
    started = started_file(start)
    if started:
        path = _resolved(root, started)
        if path:
            return NodeFile(path, f"package.json starts {started}")
        misses.append(f"package.json starts {started}, which is not there")
    elif start:
        misses.append(
            f"package.json starts `{start}`: {_hint(package) or '--app-start-command can, if it listens on $PORT'}"
        )
    main = _resolved(root, main_file(package)) if main_file(package) else ""
    named = "" if not main else f"package.json has the main file {os.path.relpath(main, root)}"
    candidates = [(main, named), *((os.path.join(root, name), f"{name} is there") for name in STARTUP_FILES)]
    framework = framework_of(package)
    for path, reason in candidates:
        if not path or not os.path.isfile(path):
            continue
        if trusts_type:
            return NodeFile(path, reason)
        if framework:
            return NodeFile(path, f"{reason}, and package.json depends on {framework}")
        if looks_like_server(_text(path)):
            return NodeFile(path, f"{reason}, and looks like an HTTP server")
        misses.append(f"{os.path.relpath(path, root)} does not look like an HTTP server: name it if it is one")
    if not misses and os.path.isfile(os.path.join(root, "package.json")):
        misses.append(_hint(package) or "package.json names no file that could be a server")
    return NodeFile("", misses[0] if misses else "")


def choose_node(node: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Absolute path of the interpreter, and the reason in words.

    :param node: the given name: a path, a program to look up in ``PATH``, a directory with
        ``bin/node``; or ``""``.
    :raises OptionError: the interpreter does not exist, cannot be run, or is not a Node.js that the
        loader runs on.
    """
    if node:
        path = named(
            "--node", node, environ, language="Node.js", binaries=("node",), tree="the directory it was installed into"
        )
        return path, f"named by --node (Node.js {_version(path)})"
    for name in ("node", "nodejs"):
        for path in in_path(name, environ):
            return path, f"the first in PATH (Node.js {_version(path)})"
    raise OptionError("--node", "", "there is no node in PATH: install Node.js, or name it with --node")


def _version(path: str) -> str:
    match = re.fullmatch(r"v((\d+)\.\d+\.\d+\S*)\n?", answer((path, "--version")) or "")
    if match is None:
        raise OptionError("--node", path, f"it does not answer like Node.js; Node.js {OLDEST} or newer is wanted")
    if int(match[2]) < OLDEST:
        raise OptionError("--node", path, f"it is Node.js {match[1]}; applications need Node.js {OLDEST} or newer")
    return match[1]


def _package(root: str) -> tuple[dict[str, Any], str]:
    """The contents of ``package.json`` (``{}`` if there is none), and the fault in them."""
    path = os.path.join(root, "package.json")
    if not os.path.isfile(path):
        return {}, ""
    try:
        value = json.loads(_text(path).removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return {}, "package.json is no JSON"
    return (value, "") if isinstance(value, dict) else ({}, "package.json is no object")


def _resolved(root: str, name: str) -> str:
    """The file that Node finds under a name: the file itself, with an extension, or a directory's
    index.
    """
    base = os.path.normpath(os.path.join(root, name))
    candidates = (base, *(base + extension for extension in _EXTENSIONS), os.path.join(base, "index.js"))
    return next((path for path in candidates if os.path.isfile(path)), "")


def _text(path: str) -> str:
    try:
        return (read_regular(path, _MAX_SIZE) or b"").decode("utf-8", "replace")
    except OSError:
        return ""
