"""Which applications of a directory of files are served: a function of what the files say.

Each file (``--apps-dir``) has one application. This module knows the applications, and what was served of each file
before. It never reads a file.

Laws: a file that cannot be served affects no other file. Its last good version is served on, unless that conflicts with
another file. Of two files that conflict, the one that was served before wins; else the first by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from passenger_trio.late_classes import frozen
from passenger_trio.options import AppOptions

__all__ = ["Choice", "choose"]


@frozen
class Choice:
    """:ivar served: the application of each file. :ivar refused: why a file's own is not served."""

    served: Mapping[str, AppOptions]
    refused: Mapping[str, str]


def choose(
    fixed: Sequence[AppOptions], wanted: Mapping[str, AppOptions], before: Mapping[str, AppOptions], most: int
) -> Choice:
    """Choose the applications to serve.

    :param fixed: applications that are served in any case; each has a name.
    :param wanted: what each file says. :param before: what was served of it.
    :param most: processes that the pool may hold: the minimums must fit.
    """
    taken: dict[object, str] = {}
    for app in fixed:
        taken |= dict.fromkeys(_claims(app), "the configuration")
    room = most - sum(app.min_instances for app in fixed)
    served: dict[str, AppOptions] = {}
    refused: dict[str, str] = {}

    def take(file: str, app: AppOptions) -> str:
        """Serve it, or say why not."""
        nonlocal room
        claims = _claims(app)
        for claim in claims:
            if claim in taken:
                return f"{claim[0]} {claim[1]!r} is taken by {taken[claim]}"
        if app.min_instances > room:
            return f"min_instances: {app.min_instances} processes more do not fit into max_pool_size ({most})"
        taken.update(dict.fromkeys(claims, file))
        room -= app.min_instances
        served[file] = app
        return ""

    def is_new(file: str) -> bool:
        was, now = before.get(file), wanted[file]
        return was is not now and was != now  # to compare all values of thousands takes a while

    for file in sorted(wanted, key=lambda file: (is_new(file), file)):
        why = take(file, wanted[file])
        if why:
            refused[file] = why
            if file in before and is_new(file):
                take(file, before[file])
    return Choice(served, refused)


def _claims(app: AppOptions) -> list[tuple[str, str]]:
    """What must be unique among applications."""
    places = [f"{host.lower()}{app.base_uri.rstrip('/')}" for host in app.host_name or ("",)]
    return [("the name", f"{app.name} ({app.environment})"), *(("the place", place or "/") for place in places)]
