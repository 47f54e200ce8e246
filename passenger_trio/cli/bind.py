"""``-b, --bind ADDRESS``, as gunicorn and puma have it: another way to write ``--address``, ``--port`` and ``--socket``."""

from __future__ import annotations

import re
from typing import Any

import click
from click.core import ParameterSource

__all__ = ["apply_bind", "parse_bind"]

_TCP = re.compile(r"(?:(?:tcp|http)://)?(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:/\[\]]*)(?::(?P<port>[0-9]{1,5}))?/?")
_UNIX = re.compile(r"unix:(?://(?=/))?(?P<path>.+)", re.DOTALL)
_HINT = "write HOST:PORT, :PORT, HOST or unix:PATH"


def parse_bind(text: str) -> dict[str, Any]:
    """The options that say the same: ``{"socket": path}``, or ``address`` and ``port``, as far as they are given.

    :raises click.BadParameter: it is no address that the server can listen on.
    """
    if unix := _UNIX.fullmatch(text):
        return {"socket": unix["path"]}
    tcp = _TCP.fullmatch(text)
    if tcp is None or not (tcp["host"] or tcp["port"]):
        raise click.BadParameter(f"{text!r} cannot be used: {_HINT}", param_hint="--bind")
    found: dict[str, Any] = {"address": tcp["host"].strip("[]") or "0.0.0.0"}
    if tcp["port"]:
        if int(tcp["port"]) > 65535:
            raise click.BadParameter(f"{text!r} cannot be used: a port is at most 65535", param_hint="--bind")
        found["port"] = int(tcp["port"])
    return found


def apply_bind(ctx: click.Context) -> None:
    """Replace ``bind`` in the context's values by the options that say the same.

    :raises click.ClickException: one of them is given, too, or ``--bind`` more than once.
    """
    given: tuple[str, ...] = ctx.params.pop("bind", ())
    if not given:
        return
    if len(set(given)) > 1:
        raise click.BadParameter(
            f"the server listens on one address: {' and '.join(given)} are two", param_hint="--bind"
        )
    for name, value in parse_bind(given[0]).items():
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.BadParameter(f"--{name} is given, too: give one of the two", param_hint="--bind")
        ctx.params[name] = value
        ctx.set_parameter_source(name, ParameterSource.COMMANDLINE)
