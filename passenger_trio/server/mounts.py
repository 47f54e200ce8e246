"""Finds the application for a request: by host name, then by path, the most specific first.

Laws:

* An exact host name comes before ``*.example.com``, a longer wildcard before a shorter one, and
  both before applications without a host name.
* With one host the longest path wins. ``/shop`` is not a prefix of ``/shopping``.
* An application whose path does not match is skipped. So a host may have its own application for
  one path and share the rest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from passenger_trio.codecs.sticky_cookie import StickyCookie
from passenger_trio.core.metric_counts import RequestTally
from passenger_trio.core.model import GroupKey
from passenger_trio.core.retried_methods import retried_methods
from passenger_trio.errors import OptionError
from passenger_trio.options import AppOptions

__all__ = ["Mounts", "Route", "check_apart", "check_place"]

_BASE_URI = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")
"""No empty segment, and no dot segment, which clients would remove."""
_HOST_NAME = re.compile(rb"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")

_USUAL_COOKIE = AppOptions().sticky_sessions_cookie_name, AppOptions().sticky_sessions_cookie_attributes
_FEW = 8
"""Up to this many rules are tried one after another. More rules get an index."""


class Route:
    """The host names and the path of one application. Raises OptionError for a host name or a path
    that no request can have.
    """

    __slots__ = (
        "app",
        "explains_errors",
        "group_name",
        "host_names",
        "key",
        "retried_methods",
        "script_name",
        "sticky",
        "streamed_paths",
        "tally",
        "to_fold",
        "unlimited_paths",
    )

    def __init__(self, key: GroupKey, app: AppOptions) -> None:
        self.key: GroupKey = key
        self.app: AppOptions = app
        self.tally: RequestTally = RequestTally()
        """Counts of its finished requests."""
        self.to_fold: list[Any] = self.tally.to_fold
        """The tally's own list: where the next ones are appended (``Client.log``)."""
        self.group_name: str = key.name
        self.script_name: bytes = _script_name(app)
        self.host_names: tuple[bytes, ...] = tuple(_host_name(host) for host in app.host_name)
        self.explains_errors: bool = app.explains_errors
        self.retried_methods: frozenset[bytes] = retried_methods(app.retry)
        """Methods of requests that may be sent to a second process after a first one received them (R30)."""
        self.sticky: StickyCookie | None = None if _has_usual_cookie(app) else _cookie(app, self.script_name)
        """The cookie that names the process of a client; None: sessions are not sticky."""
        self.streamed_paths: tuple[bytes, ...] = _paths("--streamed-paths", app.streamed_paths)
        self.unlimited_paths: tuple[bytes, ...] = _paths(
            "--unlimited-concurrency-paths", app.unlimited_concurrency_paths
        )

    def go_on(self, before: Route) -> None:
        """Take the place of a route of the same application, and go on with its counters: they never decrease, and its requests in flight still count."""
        self.tally = before.tally
        self.to_fold = before.to_fold

    def buffers_body_of(self, path: bytes) -> bool:
        """Whether the whole body of a request is received before a session is checked out."""
        return self.app.request_buffering and not _is_below(path, self.streamed_paths)

    def is_unlimited(self, path: bytes) -> bool:
        """Whether a request does not count in the concurrency of its process."""
        return _is_below(path, self.unlimited_paths)


class Mounts:
    """The applications of one server."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes: tuple[Route, ...] = tuple(routes)
        """In the order of the configuration."""
        found = _in_order(routes)
        self._looks_at_hosts = any(host for host, _, _ in found)
        self._index = _Index(found) if len(found) > _FEW else None
        self._rules = found if self._index is None else []

    def find(self, host: bytes, path: bytes) -> Route | None:
        """:param host: as received, with or without a port.
        :param path: as received.
        """
        name = _name(host) if self._looks_at_hosts else b""
        if self._index is not None:
            return self._index.find(name, path)
        for wanted, mount, route in self._rules:
            if wanted and wanted != name and not (wanted.startswith(b"*.") and name.endswith(wanted[1:])):
                continue
            if not mount or path == mount or path.startswith(mount + b"/"):
                return route
        return None


_Rule = tuple[bytes, bytes, Route]


def _in_order(routes: Sequence[Route]) -> list[_Rule]:
    """Host name, path and application, the most specific first."""
    rules = [
        (_specificity(host), len(route.script_name), host, route)
        for route in routes
        for host in route.host_names or (b"",)
    ]
    rules.sort(key=lambda rule: rule[:2], reverse=True)
    return [(host, route.script_name, route) for _, _, host, route in rules]


class _Index:
    """The same rules for thousands of applications (OP5): the cost of a request does not grow with their number.

    A path is tried as a whole, then shortened at its slashes. It is not tried below the depth of the host's deepest mount, however many
    slashes a client sends.
    """

    def __init__(self, rules: Sequence[_Rule]) -> None:
        self._hosts: dict[bytes, dict[bytes, Route]] = {}
        self._depths: dict[bytes, int] = {}
        """Host name -> the number of slashes in its deepest mount."""
        for host, mount, route in rules:
            self._hosts.setdefault(host, {}).setdefault(mount, route)
            self._depths[host] = max(self._depths.get(host, 0), mount.count(b"/"))
        wildcards = [host for host in self._hosts if host.startswith(b"*.")]
        self._labels = max((host.count(b".") for host in wildcards), default=0)
        """The number of dots in the longest wildcard."""

    def find(self, name: bytes, path: bytes) -> Route | None:
        found = self._below(name, path) if name else None
        if found is not None:
            return found
        if self._labels:
            # From the left, the longest wildcard first; more labels than the longest one has cannot match.
            labels = name.split(b".")
            for start in range(max(1, len(labels) - self._labels), len(labels)):
                found = self._below(b"*." + b".".join(labels[start:]), path)
                if found is not None:
                    return found
        return self._below(b"", path)

    def _below(self, host: bytes, path: bytes) -> Route | None:
        mounts = self._hosts.get(host)
        if mounts is None:
            return None
        parts = path.split(b"/", self._depths[host] + 1)
        for end in range(min(len(parts), self._depths[host] + 1), 1, -1):
            found = mounts.get(b"/".join(parts[:end]))
            if found is not None:
                return found
        return mounts.get(b"")


def check_place(app: AppOptions) -> None:
    """Check the host names and the path of an application.

    :raises OptionError: no ``Route`` can be made of them.
    """
    script_name = _script_name(app)
    for host in app.host_name:
        _host_name(host)
    if not _has_usual_cookie(app):
        _cookie(app, script_name)
    if app.streamed_paths or app.unlimited_concurrency_paths:
        _paths("--streamed-paths", app.streamed_paths)
        _paths("--unlimited-concurrency-paths", app.unlimited_concurrency_paths)


def _script_name(app: AppOptions) -> bytes:
    base = app.base_uri.rstrip("/")
    if base and not _BASE_URI.fullmatch(base):
        raise OptionError(
            "--base-uri",
            app.base_uri,
            "a path as it stands in a URL, from its first slash on, without escapes: /shop",
        )
    return base.encode("ascii")


def _has_usual_cookie(app: AppOptions) -> bool:
    """Whether there is no cookie to check: sessions are not sticky, and no option of the cookie is set."""
    said = app.sticky_sessions_cookie_name, app.sticky_sessions_cookie_attributes
    return not app.sticky_sessions and said == _USUAL_COOKIE


def _cookie(app: AppOptions, script_name: bytes) -> StickyCookie | None:
    cookie = StickyCookie(app.sticky_sessions_cookie_name, app.sticky_sessions_cookie_attributes, script_name or b"/")
    return cookie if app.sticky_sessions else None


def _host_name(text: str) -> bytes:
    try:
        name = text.lower().encode("idna" if not text.isascii() else "ascii")
    except UnicodeError:
        name = b""
    if not _HOST_NAME.fullmatch(name):
        raise OptionError("--host-name", text, "a name without a port, or *.example.com for all below one")
    return name


def _paths(option: str, texts: Sequence[str]) -> tuple[bytes, ...]:
    if not texts:
        return ()
    for text in texts:
        if not text.startswith("/"):
            raise OptionError(option, text, "a path as it stands in a URL, from its first slash on: /upload")
    return tuple(text.encode("utf-8", "surrogateescape") for text in texts)


def _is_below(path: bytes, paths: Sequence[bytes]) -> bool:
    return any(path == one or path.startswith(one.rstrip(b"/") + b"/") for one in paths)


def _specificity(host: bytes) -> tuple[int, int]:
    if not host:
        return 0, 0
    return (1, len(host)) if host.startswith(b"*.") else (2, 0)


def _name(host: bytes) -> bytes:
    if host.startswith(b"["):
        return host.partition(b"]")[0].lower() + b"]"
    return host.partition(b":")[0].rstrip(b".").lower()


def check_apart(apps: Sequence[tuple[GroupKey, AppOptions]]) -> None:
    """Check that applications do not conflict.

    :raises OptionError: two applications have the same name, or the same host name and path.
    """
    names: set[GroupKey] = set()
    places: set[tuple[str, str]] = set()
    for key, app in apps:
        if key in names:
            raise OptionError(
                "--name",
                key.name,
                f"another application has it in the same environment; give the one in {app.root} another name",
            )
        names.add(key)
        for host in app.host_name or ("",):
            place = host.lower(), app.base_uri.rstrip("/")
            if place in places:
                where = f"{host or 'any host'}{place[1] or '/'}"
                raise OptionError(
                    "--base-uri",
                    app.base_uri,
                    f"another application is mounted at {where}; give one another path or host name",
                )
            places.add(place)
