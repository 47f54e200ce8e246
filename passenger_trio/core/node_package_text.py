"""What the text of a Node.js project says: the file that starts it, and whether a file looks like an HTTP server.

This module is pure: it takes ``package.json`` as a value and JavaScript as text. It neither parses nor
runs anything; it searches for a few words, as a reader would.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from passenger_trio.late_patterns import late

__all__ = ["FRAMEWORKS", "framework_of", "looks_like_server", "main_file", "start_command", "started_file"]

_NAMES = (
    "express fastify koa @hapi/hapi restify polka connect hono @hono/node-server h3 micro sails @feathersjs/express "
    "@feathersjs/koa @adonisjs/core @nestjs/core @loopback/rest actionhero socket.io total.js meteor tinyhttp @tinyhttp/app"
)
FRAMEWORKS = tuple(_NAMES.split())
"""Packages that show that a project serves HTTP."""

_FRAMEWORK = "|".join(map(re.escape, FRAMEWORKS))
_SERVES = late(
    r"\.listen\s*\(|createServer\s*\(|"
    rf"""(?:require\s*\(\s*|from\s+|import\s*\(?\s*)['"](?:node:)?(?:http|http2|https|{_FRAMEWORK})['"]"""
)


def start_command(package: Mapping[str, Any]) -> str:
    """``scripts.start`` of ``package.json``, or ``""``."""
    scripts = package.get("scripts")
    start = scripts.get("start") if isinstance(scripts, dict) else None
    return start.strip() if isinstance(start, str) else ""


def started_file(command: str) -> str:
    """The file of a command like ``node FILE`` or ``NODE_ENV=x node FILE``; ``""`` for any other, also with options."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    while words and (words[0] in ("cross-env", "env") or re.fullmatch(r"[A-Za-z_]\w*=.*", words[0])):
        words.pop(0)
    if len(words) != 2 or words[0] not in ("node", "nodejs") or words[1].startswith("-"):
        return ""
    return words[1]


def main_file(package: Mapping[str, Any]) -> str:
    """``main`` of ``package.json``, or ``""``."""
    main = package.get("main")
    return main if isinstance(main, str) else ""


def framework_of(package: Mapping[str, Any]) -> str:
    """The first web framework among the dependencies, or ``""``."""
    dependencies = package.get("dependencies")
    if not isinstance(dependencies, dict):
        return ""
    return next((name for name in FRAMEWORKS if name in dependencies), "")


_OWN_SERVERS = {
    "next": ("Next.js", "npx next start -p $PORT"),
    "nuxt": ("Nuxt", "node .output/server/index.mjs"),
}


def own_server(package: Mapping[str, Any]) -> tuple[str, str]:
    """The framework among the dependencies that comes with a server, and the command that starts it on ``$PORT``."""
    for kind in ("dependencies", "devDependencies"):
        dependencies = package.get(kind)
        for name, found in _OWN_SERVERS.items():
            if isinstance(dependencies, dict) and name in dependencies:
                return found
    return "", ""


def looks_like_server(text: str) -> bool:
    """Whether the text contains something that serves HTTP: a call of ``listen`` or ``createServer``, a framework."""
    return _SERVES.search(text) is not None
