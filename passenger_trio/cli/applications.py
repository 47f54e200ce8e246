"""The arguments of ``start`` -> applications: the directory and target, and the mounts of
``--app``.

Loads nothing. Reads nothing but whether a directory or a file exists.
"""

from __future__ import annotations

import os

import click

from passenger_trio.errors import NothingToServe
from passenger_trio.late_classes import frozen

__all__ = ["Mount", "mount", "root_and_target"]


@frozen
class Mount:
    """One application of ``--app WHERE=WHAT``.

    :ivar host_name: the host name of this application; ``()``: any.
    :ivar base_uri: the path of the mount; ``""``: the whole host.
    """

    root: str
    target: str
    host_name: tuple[str, ...]
    base_uri: str


def mount(text: str) -> Mount:
    """``/blog=../blog``, ``shop.example.com=shop``, ``example.com/wiki=wiki:app``.

    :raises click.BadParameter: the text has another form. (Host and path are checked later, with
        those of the other applications.)
    :raises NothingToServe: as ``root_and_target``.
    """
    where, equals, what = text.partition("=")
    if not (where and equals and what):
        raise click.BadParameter(f"{text!r} cannot be used: write WHERE=WHAT, for example /blog=../blog")
    host, slash, path = where.partition("/")
    root, target = root_and_target((what,))
    return Mount(root, target, (host,) if host else (), f"/{path}".rstrip("/") if slash else "")


def root_and_target(what: tuple[str, ...]) -> tuple[str, str]:
    """``[DIR] [TARGET]``: both optional. A file that is given with its directory is a target in
    that directory.
    """
    if len(what) > 2:
        raise click.UsageError(f"give a directory and a target at most, and not {len(what)} words: {' '.join(what)!r}")
    if len(what) == 2:
        return what[0], what[1]
    word = what[0] if what else "."
    if os.path.isdir(word):
        return word, ""
    from passenger_trio.spawning.find_node_app import is_node_file

    file, colon, name = word.partition(".py:")
    file = f"{file}.py" if colon else file
    if file.endswith(".py") and (colon or os.path.exists(file)):
        return os.path.dirname(file) or ".", f"{os.path.basename(file)}{':' if colon else ''}{name}"
    if is_node_file(word):
        return os.path.dirname(word) or ".", os.path.basename(word)
    if ":" in word:
        return ".", word
    if all(part.isidentifier() for part in word.split(".")) and not os.path.exists(word):
        raise NothingToServe(f"there is no directory {word!r}; for an application in a module write {word}:app")
    return word, ""
